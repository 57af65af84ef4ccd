//! `/preview.mjpg`: JPEG pictures one after the other, for as long as somebody watches.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::access::Access;
use crate::page::{Served, Trouble, Visitor, silence};
use crate::shared::{Jpeg, Shared};

/// More watchers at once are refused: each costs the mirror's processor time.
const MOST_VIEWERS: usize = 4;

const CONTENT_TYPE: &str = "multipart/x-mixed-replace; boundary=picture";
const FIRST_BOUNDARY: &[u8] = b"--picture\r\n";

/// Counts one watching browser for as long as it lives.
struct Viewer(Arc<Shared>);

impl Viewer {
    fn new(shared: &Arc<Shared>) -> Option<Viewer> {
        let admit = |viewers| (viewers < MOST_VIEWERS).then_some(viewers + 1);
        let admitted =
            shared.viewers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit).is_ok();
        admitted.then(|| Viewer(Arc::clone(shared)))
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.0.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

pub async fn preview(
    State(served): State<Arc<Served>>,
    Extension(visitor): Extension<Visitor>,
) -> Response {
    let Some(viewer) = Viewer::new(&served.shared) else {
        let text = format!("{MOST_VIEWERS} browsers are watching already; close one of them");
        return Trouble::new(StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let access = Arc::clone(&served.access);
    // One part at a time: a slow browser is to see the newest picture, not all of them.
    let (parts, sent) = mpsc::channel(1);
    tokio::spawn(feed(viewer, visitor, access, parts, silence::PATIENCE));
    let sent = stream::unfold(sent, |mut sent| async move {
        let part = sent.recv().await?;
        Some((Ok::<Bytes, Infallible>(part), sent))
    });
    ([("content-type", CONTENT_TYPE)], Body::from_stream(sent)).into_response()
}

/// Hands pictures to one browser until it leaves, is no longer welcome, or takes none for `patience`.
async fn feed(
    viewer: Viewer,
    visitor: Visitor,
    access: Arc<Access>,
    parts: mpsc::Sender<Bytes>,
    patience: Duration,
) {
    let mut pictures = viewer.0.preview_jpeg.subscribe();
    // What is there now may be old: nobody was watching, so nothing was encoded.
    pictures.mark_unchanged();
    let mut first = true;
    while let Ok(Ok(room)) = timeout(patience, parts.reserve()).await {
        let jpeg = tokio::select! {
            jpeg = newest(&mut pictures) => jpeg,
            () = parts.closed() => None,
            () = visitor.is_gone(&access) => None,
        };
        // A pairing that was ended ends its open streams, too.
        let Some(jpeg) = jpeg.filter(|_| visitor.is_welcome(&access)) else { return };
        // Of a film nobody in front of the mirror needs to be told.
        if viewer.0.with_health(|health| health.sensor_open) {
            viewer.0.note_shown_elsewhere();
        }
        room.send(part(&jpeg, first));
        first = false;
    }
}

/// The next picture; waits while there is none that may be shown. `None` when the mirror has gone.
async fn newest(pictures: &mut watch::Receiver<Option<Jpeg>>) -> Option<Jpeg> {
    loop {
        pictures.changed().await.ok()?;
        let jpeg = pictures.borrow_and_update().clone();
        if jpeg.is_some() {
            return jpeg;
        }
    }
}

/// A picture with the boundary *after* it: browsers show a part when they see where it ends.
fn part(jpeg: &[u8], first: bool) -> Bytes {
    let head = format!("Content-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len());
    let mut part = Vec::with_capacity(jpeg.len() + 100);
    if first {
        part.extend_from_slice(FIRST_BOUNDARY);
    }
    part.extend_from_slice(head.as_bytes());
    part.extend_from_slice(jpeg);
    part.extend_from_slice(b"\r\n--picture\r\n");
    Bytes::from(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn shared() -> Arc<Shared> {
        Arc::new(Shared::new(Instant::now(), None))
    }

    #[test]
    fn watchers_are_counted_and_limited() {
        let shared = shared();
        let viewers: Vec<_> = (0..MOST_VIEWERS).map(|_| Viewer::new(&shared)).collect();
        assert!(viewers.iter().all(Option::is_some));
        assert!(Viewer::new(&shared).is_none());
        drop(viewers);
        assert_eq!(shared.viewers.load(Ordering::Relaxed), 0);
    }

    /// A watching browser on a runtime of its own: what it is sent, and when its place is free.
    fn watching<T>(
        patience: Duration,
        visit: impl AsyncFnOnce(&Shared, mpsc::Receiver<Bytes>) -> T,
    ) -> T {
        let shared = shared();
        let viewer = Viewer::new(&shared).expect("the first one");
        let access = Arc::new(Access::closed(std::path::Path::new("/nowhere")));
        let (parts, sent) = mpsc::channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let watching = tokio::spawn(feed(viewer, Visitor::Device, access, parts, patience));
            tokio::task::yield_now().await;
            let seen = visit(&shared, sent).await;
            timeout(Duration::from_secs(30), watching).await.expect("it ends").expect("no panic");
            assert_eq!(shared.viewers.load(Ordering::Relaxed), 0, "the place is free");
            seen
        })
    }

    fn picture(shared: &Shared, byte: u8) {
        shared.preview_jpeg.send_replace(Some(Arc::from([byte])));
    }

    #[test]
    fn a_browser_that_takes_no_picture_loses_its_place() {
        let seen = watching(Duration::from_millis(50), async |shared, mut sent| {
            picture(shared, 1);
            let first = sent.recv().await;
            picture(shared, 2);
            // Not taken within the time.
            while shared.viewers.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            picture(shared, 3);
            let second = sent.recv().await;
            (first, second, sent.recv().await)
        });
        assert_eq!(seen, (Some(part(&[1], true)), Some(part(&[2], false)), None));
    }

    #[test]
    fn a_browser_that_leaves_while_there_is_no_picture_frees_its_place() {
        watching(Duration::from_secs(600), async |_, sent| drop(sent));
    }

    #[test]
    fn a_browser_that_takes_one_picture_of_the_camera_is_told_of_on_the_glass() {
        let is_told = |is_camera: bool| {
            watching(Duration::from_secs(600), async |shared, mut sent| {
                shared.update_health(|health| health.sensor_open = is_camera);
                let before = shared.was_shown_elsewhere();
                picture(shared, 1);
                assert!(sent.recv().await.is_some());
                drop(sent);
                (before, shared.was_shown_elsewhere())
            })
        };
        assert_eq!((is_told(true), is_told(false)), ((false, true), (false, false)));
    }

    #[test]
    fn every_part_ends_with_a_boundary() {
        let text = part(b"jpeg", true);
        let expected: &[u8] = b"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: 4\r\n\r\n\
            jpeg\r\n--picture\r\n";
        assert_eq!(text, expected);
        assert!(part(b"jpeg", false).starts_with(b"Content-Type"));
    }
}
