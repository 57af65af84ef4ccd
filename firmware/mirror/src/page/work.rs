//! What requests of several kinds need: work beside the page's own thread, bodies that are large, answers that are pictures.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::page::Trouble;

/// A large request that is not here by then is dropped.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs what may wait for the disk, or computes for a while, beside the page's thread.
pub async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    tokio::task::spawn_blocking(work).await.map_err(Trouble::inside)?
}

/// What is read of a request, if it comes within `patience`.
pub async fn in_time<T>(
    patience: Duration,
    reading: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let late = |_| {
        let text = "the request did not come to its end in time";
        Trouble::new(StatusCode::REQUEST_TIMEOUT, text)
    };
    tokio::time::timeout(patience, reading).await.map_err(late)?
}

/// The body of a large request, if it comes within `patience`.
pub async fn whole(request: Request, patience: Duration) -> Result<Bytes, Trouble> {
    let reading = async {
        let read = Bytes::from_request(request, &()).await;
        read.map_err(|error| Trouble::new(error.status(), error.body_text()))
    };
    in_time(patience, reading).await
}

pub fn png(file: anyhow::Result<Vec<u8>>) -> Result<Response, Trouble> {
    Ok(([(CONTENT_TYPE, "image/png")], file.map_err(Trouble::inside)?).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use tokio::runtime::{Builder, Runtime};

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    #[test]
    fn what_breaks_inside_the_mirror_is_told_as_what_to_do() {
        let broken: Result<(), Trouble> = runtime().block_on(beside(|| panic!("on purpose")));
        let text = broken.expect_err("it broke").text;
        assert!(text.contains("try again") && !text.contains("panic"), "{text}");
    }

    #[test]
    fn a_body_that_never_comes_to_its_end_is_not_waited_for() {
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let ask = |body| Request::post("/").body(body).expect("a request");
        runtime().block_on(async {
            let late = whole(ask(Body::from_stream(never)), Duration::from_millis(20)).await;
            assert_eq!(late.err().map(|late| late.status), Some(StatusCode::REQUEST_TIMEOUT));
            let came = whole(ask(Body::from("x")), Duration::from_secs(60)).await;
            assert_eq!(came.ok().as_deref(), Some(b"x".as_slice()));
        });
    }
}
