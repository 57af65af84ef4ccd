//! The network's door: HTTPS with the mirror's own certificate, and a paired or an unpaired set of pages behind it.
//!
//! Invariants: a request without the token of a paired browser reaches the unpaired router only, which has no route to a
//! picture, a parsing, a state or a setting; what comes of a request after its browser's pairing has ended is obeyed by nobody.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{CONNECTION, SET_COOKIE};
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tracing::debug;

use crate::access::Access;
use crate::access::sessions::Visit;
use crate::page::cookie::{cookie, token};
use crate::page::guard::Door;
use crate::page::seats::{self, HEAD, Seat, Seats};
use crate::page::{Trouble, Visitor};

/// Connections of one address: more than a browser opens, and so few that one machine gone wrong does not keep the others out. Where several
/// have taken all, whoever comes gets the place of one that has shown no token.
const MOST_OF_ONE: usize = 16;
/// A client that has not greeted by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(8);

/// What is behind the door.
pub struct NetworkDoor {
    /// How HTTPS is spoken.
    pub tls: TlsAcceptor,
    /// Tells this machine's names, which may change while it runs.
    pub names: fn() -> Vec<String>,
    /// Pages for paired browsers.
    pub paired: Router,
    /// Pages for everybody else.
    pub unpaired: Router,
    /// Who is paired.
    pub access: Arc<Access>,
}

impl NetworkDoor {
    /// Serves until the future is dropped.
    ///
    /// # Errors
    /// A listener that cannot be used at all.
    pub async fn serve(self, listener: TcpListener) -> Result<()> {
        let door = Arc::new(self);
        let seats = Seats::new("network door", MOST_OF_ONE);
        let visit = |stream, peer, seat| Arc::clone(&door).visit(stream, peer, seat);
        seats.serve(listener, visit).await
    }

    async fn visit(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        seat: Arc<Seat>,
    ) -> Result<()> {
        let local = stream.local_addr().context("own address")?.ip();
        let stream = timeout(HANDSHAKE, self.tls.accept(stream)).await.context("no greeting")??;
        let door = self.called(local, peer.ip());
        let service =
            service_fn(|request: Request<Incoming>| self.answer(request, door.clone(), &seat));
        debug!("network door: {peer} is here");
        Ok(seats::http().serve_connection(TokioIo::new(stream), service).await?)
    }

    fn called(&self, local: IpAddr, peer: IpAddr) -> Door {
        Door::Network { local, peer, names: (self.names)().into() }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        door: Door,
        seat: &Seat,
    ) -> Result<Response, Infallible> {
        let mut request = request.map(Body::new);
        let now = crate::page::access::now();
        let visitor = token(request.headers()).and_then(|token| {
            let visit = self.access.sessions.find(&token, now)?;
            Some((token, visit))
        });
        request.extensions_mut().insert(door);
        let Some((token, Visit { id, is_noted })) = visitor else {
            let answer = hurried(self.unpaired.clone(), request, HEAD).await?;
            // A request every few seconds would hold the connection for ever.
            return Ok(last(answer));
        };
        seat.keep();
        request.extensions_mut().insert(Visitor::Browser { id: id.clone() });
        let (request, is_cut) = while_paired(request, Arc::clone(&self.access), id);
        let mut answer = self.paired.clone().oneshot(request).await?;
        if is_cut.load(Ordering::Relaxed) {
            let text = "the pairing of this browser has ended";
            return Ok(last(Trouble::new(StatusCode::UNAUTHORIZED, text).into_response()));
        }
        if is_noted {
            let access = Arc::clone(&self.access);
            tokio::task::spawn_blocking(move || access.sessions.write_visits());
            renew(&mut answer, &token);
        }
        Ok(answer)
    }
}

/// The answer after which the connection ends.
fn last(mut answer: Response) -> Response {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// A request whose body ends with an error as soon as this browser is not paired any more, and whether it did: its head may have come
/// long before.
fn while_paired(
    request: Request<Body>,
    access: Arc<Access>,
    id: String,
) -> (Request<Body>, Arc<AtomicBool>) {
    let is_cut = Arc::new(AtomicBool::new(false));
    let cut = Arc::clone(&is_cut);
    let request = request.map(|body| {
        let ended = Box::pin(async move { access.sessions.ended(&id).await });
        Body::new(PairedBody { body, ended, is_cut: cut })
    });
    (request, is_cut)
}

/// Why a body ends early.
#[derive(Debug, thiserror::Error)]
#[error("the pairing has ended")]
struct Ended;

struct PairedBody<F> {
    body: Body,
    ended: Pin<Box<F>>,
    is_cut: Arc<AtomicBool>,
}

impl<F: Future<Output = ()>> HttpBody for PairedBody<F> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // Asked also where the body is at its end: only then is the request acted on.
        if self.is_cut.load(Ordering::Relaxed) || self.ended.as_mut().poll(context).is_ready() {
            self.is_cut.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err(axum::Error::new(Ended))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The answer, or after `patience` a refusal.
async fn hurried(
    router: Router,
    request: Request<Body>,
    patience: Duration,
) -> Result<Response, Infallible> {
    match timeout(patience, router.oneshot(request)).await {
        Ok(answer) => answer,
        Err(_) => {
            let text = "the request did not come to its end in time";
            Ok(Trouble::new(StatusCode::REQUEST_TIMEOUT, text).into_response())
        }
    }
}

/// Lets the browser keep its cookie as long again: one that is used does not fall out.
fn renew(answer: &mut Response, token: &str) {
    // Whatever was found is one of the tokens that this mirror has made: hexadecimal digits.
    if let Ok(cookie) = HeaderValue::from_str(&cookie(token)) {
        answer.headers_mut().append(SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::certificate::Certificate;
    use crate::testing::Folder;
    use axum::routing::post;

    #[test]
    fn a_new_name_of_this_machine_is_answered_without_a_restart() {
        static IS_RENAMED: AtomicBool = AtomicBool::new(false);
        let folder = Folder::new("renamed");
        let names = || match IS_RENAMED.load(Ordering::SeqCst) {
            true => vec!["bathroom.local".to_owned()],
            false => vec!["kitchen.local".to_owned()],
        };
        let certificate = Certificate::load_or_make(folder.path(), &names()).expect("writable");
        let door = NetworkDoor {
            tls: TlsAcceptor::from(certificate.tls().expect("a pair")),
            names,
            paired: Router::new(),
            unpaired: Router::new(),
            access: Arc::new(Access::closed(folder.path())),
        };
        let answers_to = |host: &str| {
            let here = IpAddr::from([192, 168, 1, 7]);
            door.called(here, here).is_called(host)
        };
        assert!(answers_to("kitchen.local:8443") && !answers_to("bathroom.local:8443"));
        IS_RENAMED.store(true, Ordering::SeqCst);
        assert!(answers_to("bathroom.local:8443"));
    }

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
