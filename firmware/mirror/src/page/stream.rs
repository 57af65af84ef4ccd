//! `/preview.mjpg`: JPEG pictures one after the other, for as long as somebody watches.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::watch;

use crate::page::{Served, Visitor};
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
        let text = format!("{MOST_VIEWERS} browsers are watching already; close one of them\n");
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let mut pictures = served.shared.preview_jpeg.subscribe();
    // What is there now may be old: nobody was watching, so nothing was encoded.
    pictures.mark_unchanged();
    let access = Arc::clone(&served.access);
    let parts = stream::unfold((pictures, viewer, true), move |(mut pictures, viewer, first)| {
        let (access, visitor) = (Arc::clone(&access), visitor.clone());
        async move {
            let jpeg = newest(&mut pictures).await?;
            // A pairing that was ended ends its open streams, too.
            if !visitor.is_welcome(&access) {
                return None;
            }
            let part = Ok::<Bytes, Infallible>(part(&jpeg, first));
            Some((part, (pictures, viewer, false)))
        }
    });
    ([("content-type", CONTENT_TYPE)], Body::from_stream(parts)).into_response()
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

    #[test]
    fn watchers_are_counted_and_limited() {
        let shared = Arc::new(Shared::new(Instant::now(), None));
        let viewers: Vec<_> = (0..MOST_VIEWERS).map(|_| Viewer::new(&shared)).collect();
        assert!(viewers.iter().all(Option::is_some));
        assert!(Viewer::new(&shared).is_none());
        drop(viewers);
        assert_eq!(shared.viewers.load(Ordering::Relaxed), 0);
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
