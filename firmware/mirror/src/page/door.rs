//! The network's door: HTTPS with the mirror's own certificate, and a paired or an unpaired set of pages behind it.
//!
//! Invariant: a request without the token of a paired browser reaches the unpaired router only, which has no route to a
//! picture, a parsing, a state or a setting.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::http::header::{CONNECTION, COOKIE};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tracing::debug;

use crate::access::sessions::Sessions;
use crate::page::guard::Door;
use crate::page::{Trouble, Visitor, silence};

/// Connections at once; each costs memory.
const MOST_CONNECTIONS: usize = 64;
/// A client that has not greeted by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(8);
/// The same for the head of a request, and for all of a request that comes from no paired browser: whoever is not paired
/// must not be able to keep the others out with bodies that never come.
const HEAD: Duration = Duration::from_secs(15);
/// After an error of the listener itself (no file handles left) the mirror waits this long.
const PAUSE: Duration = Duration::from_millis(200);

/// The cookie with a browser's token. The prefix makes browsers insist on HTTPS, this host, and the whole path.
pub const COOKIE_NAME: &str = "__Host-mirror";

/// What is behind the door.
pub struct NetworkDoor {
    /// How HTTPS is spoken.
    pub tls: TlsAcceptor,
    /// This machine's names.
    pub names: Arc<[String]>,
    /// Pages for paired browsers.
    pub paired: Router,
    /// Pages for everybody else.
    pub unpaired: Router,
    /// Who is paired.
    pub access: Arc<crate::access::Access>,
}

impl NetworkDoor {
    /// Serves until the future is dropped.
    ///
    /// # Errors
    /// A listener that cannot be used at all.
    pub async fn serve(self, listener: TcpListener) -> Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener).context("the network's door")?;
        let door = Arc::new(self);
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            // Never closed, so this fails only after the mirror has ended.
            let permit = Arc::clone(&room).acquire_owned().await.context("the network's door")?;
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    debug!("network door: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let door = Arc::clone(&door);
            tokio::spawn(async move {
                if let Err(error) = door.visit(stream, peer).await {
                    debug!("network door: {peer}: {error:#}");
                }
                drop(permit);
            });
        }
    }

    async fn visit(&self, stream: TcpStream, peer: SocketAddr) -> Result<()> {
        silence::ends(&stream).context("a browser that vanishes would not be noticed")?;
        let local = stream.local_addr().context("own address")?.ip();
        let stream = timeout(HANDSHAKE, self.tls.accept(stream)).await.context("no greeting")??;
        let door = Door::Network { local, names: Arc::clone(&self.names) };
        let service = service_fn(|request: Request<Incoming>| self.answer(request, door.clone()));
        debug!("network door: {peer} is here");
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD);
        Ok(server.serve_connection(TokioIo::new(stream), service).await?)
    }

    async fn answer(&self, request: Request<Incoming>, door: Door) -> Result<Response, Infallible> {
        let mut request = request.map(Body::new);
        let visitor = session(request.headers(), &self.access.sessions);
        request.extensions_mut().insert(door);
        let Some(id) = visitor else { return hurried(self.unpaired.clone(), request, HEAD).await };
        request.extensions_mut().insert(Visitor::Browser { id });
        self.paired.clone().oneshot(request).await
    }
}

/// The answer, or after `patience` the end of the connection.
async fn hurried(
    router: Router,
    request: Request<Body>,
    patience: Duration,
) -> Result<Response, Infallible> {
    match timeout(patience, router.oneshot(request)).await {
        Ok(answer) => answer,
        Err(_) => {
            let text = "the request did not come to its end in time";
            let trouble = Trouble::new(StatusCode::REQUEST_TIMEOUT, text).into_response();
            Ok(([(CONNECTION, "close")], trouble).into_response())
        }
    }
}

/// The paired browser that a request comes from.
fn session(headers: &HeaderMap, sessions: &Sessions) -> Option<String> {
    let now = crate::page::access::now();
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.split_once('='));
    let (_, token) = pairs.find(|(name, _)| name.trim() == COOKIE_NAME)?;
    sessions.find(token.trim(), now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;
    use axum::routing::post;

    #[test]
    fn whoever_is_not_paired_is_not_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let router = Router::new().route("/", post(|body: Bytes| async move { body }));
        let never = futures_util::stream::pending::<Result<Bytes, Infallible>>();
        let ask = |body| Request::post("/").body(body).expect("a request");
        let patience = Duration::from_millis(20);
        runtime.expect("a runtime").block_on(async {
            let late = hurried(router.clone(), ask(Body::from_stream(never)), patience).await;
            assert_eq!(late.map(|answer| answer.status()), Ok(StatusCode::REQUEST_TIMEOUT));
            let whole = hurried(router, ask(Body::from("x")), Duration::from_secs(60)).await;
            assert_eq!(whole.map(|answer| answer.status()), Ok(StatusCode::OK));
        });
    }
}
