//! The network's door: HTTPS with the mirror's own certificate, and a paired or an unpaired set of pages behind it.
//!
//! Invariants: a request without the token of a paired browser reaches the unpaired router only, which has no route to a
//! picture, a parsing, a state or a setting; what comes of a request after its browser's pairing has ended is obeyed by nobody.

use std::cmp::Reverse;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{CONNECTION, COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tracing::debug;

use crate::access::Access;
use crate::access::sessions::Visit;
use crate::page::access::cookie;
use crate::page::guard::Door;
use crate::page::{Trouble, Visitor, silence};
use crate::shared::lock;

/// Connections at once; each costs memory.
const MOST_CONNECTIONS: usize = 64;
/// Of one address: more than a browser opens, and so few that one machine gone wrong does not keep the others out. Where several
/// have taken all, whoever comes gets the place of one that has shown no token.
const MOST_OF_ONE: usize = 16;
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
        let listener = tokio::net::TcpListener::from_std(listener).context("the network's door")?;
        let door = Arc::new(self);
        let seats = Arc::new(Seats::default());
        loop {
            seats.wait_for_room().await;
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    debug!("network door: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(seat) = Seats::take(&seats, peer.ip()) else {
                debug!("network door: no room for {peer}");
                continue;
            };
            let door = Arc::clone(&door);
            tokio::spawn(async move {
                if let Err(error) = door.visit(stream, peer, &seat).await {
                    debug!("network door: {peer}: {error:#}");
                }
            });
        }
    }

    async fn visit(&self, stream: TcpStream, peer: SocketAddr, seat: &Seat) -> Result<()> {
        tokio::select! {
            served = self.serve_one(stream, peer, seat) => served,
            () = seat.lost.notified() => bail!("its place was given to somebody else"),
        }
    }

    async fn serve_one(&self, stream: TcpStream, peer: SocketAddr, seat: &Seat) -> Result<()> {
        silence::ends(&stream).context("a browser that vanishes would not be noticed")?;
        let local = stream.local_addr().context("own address")?.ip();
        let stream = timeout(HANDSHAKE, self.tls.accept(stream)).await.context("no greeting")??;
        let door = self.called(local, peer.ip());
        let service =
            service_fn(|request: Request<Incoming>| self.answer(request, door.clone(), seat));
        debug!("network door: {peer} is here");
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD);
        Ok(server.serve_connection(TokioIo::new(stream), service).await?)
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

/// Open connections, the oldest first.
#[derive(Default)]
struct Seats {
    taken: Mutex<Vec<Taken>>,
    freed: Notify,
}

struct Taken {
    address: IpAddr,
    /// Whether it has shown the token of a paired browser.
    is_kept: bool,
    lost: Arc<Notify>,
}

/// One connection's place, until it is dropped, or lost to somebody else.
struct Seat {
    seats: Arc<Seats>,
    lost: Arc<Notify>,
}

impl Seats {
    /// A place for a connection of this address: a free one, or that of one that has shown no token yet, of the address that has most
    /// of them the one that is longest here. None where the address has enough.
    fn take(seats: &Arc<Seats>, address: IpAddr) -> Option<Seat> {
        let address = address.to_canonical();
        let mut taken = lock(&seats.taken);
        let count_of = |taken: &[Taken], address: IpAddr| {
            taken.iter().filter(|seat| seat.address == address).count()
        };
        if count_of(&taken, address) >= MOST_OF_ONE {
            return None;
        }
        if taken.len() >= MOST_CONNECTIONS {
            let idle = taken.iter().enumerate().filter(|(_, seat)| !seat.is_kept);
            let (at, _) =
                idle.max_by_key(|(at, seat)| (count_of(&taken, seat.address), Reverse(*at)))?;
            taken.remove(at).lost.notify_one();
        }
        let lost = Arc::new(Notify::new());
        taken.push(Taken { address, is_kept: false, lost: Arc::clone(&lost) });
        Some(Seat { seats: Arc::clone(seats), lost })
    }

    /// Waits while paired browsers have taken all.
    async fn wait_for_room(&self) {
        let is_full = || {
            let taken = lock(&self.taken);
            taken.len() >= MOST_CONNECTIONS && taken.iter().all(|seat| seat.is_kept)
        };
        while is_full() {
            self.freed.notified().await;
        }
    }
}

impl Seat {
    /// Lets nobody else have it: a paired browser's token was shown here.
    fn keep(&self) {
        let mut taken = lock(&self.seats.taken);
        if let Some(seat) = taken.iter_mut().find(|seat| Arc::ptr_eq(&seat.lost, &self.lost)) {
            seat.is_kept = true;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.seats.taken).retain(|seat| !Arc::ptr_eq(&seat.lost, &self.lost));
        self.seats.freed.notify_one();
    }
}

/// The token that a request carries, if it does.
fn token(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.split_once('='));
    let (_, token) = pairs.find(|(name, _)| name.trim() == COOKIE_NAME)?;
    Some(token.trim().to_owned())
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
    use crate::access::test_folder;
    use axum::routing::post;

    #[test]
    fn one_address_does_not_take_every_seat() {
        let seats = Arc::new(Seats::default());
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().expect("an address"));
        let mut held: Vec<Seat> =
            (0..MOST_OF_ONE).filter_map(|_| Seats::take(&seats, one)).collect();
        assert_eq!(held.len(), MOST_OF_ONE);
        assert!(Seats::take(&seats, one).is_none());
        assert!(Seats::take(&seats, "::ffff:192.0.2.1".parse().expect("an address")).is_none());
        assert!(Seats::take(&seats, other).is_some());
        held.pop();
        assert!(Seats::take(&seats, one).is_some());
        held.clear();
        assert!(lock(&seats.taken).is_empty(), "addresses of the past cost nothing");
    }

    /// Addresses that have taken every seat among them, and their seats, in turns.
    fn crowd(seats: &Arc<Seats>) -> Vec<Seat> {
        let address = |number: usize| IpAddr::from([192, 0, 2, (number % 5) as u8]);
        let taken = |number| Seats::take(seats, address(number)).expect("room");
        (0..MOST_CONNECTIONS).map(taken).collect()
    }

    fn is_lost(seat: &Seat) -> bool {
        let taken = lock(&seat.seats.taken);
        !taken.iter().any(|taken| Arc::ptr_eq(&taken.lost, &seat.lost))
    }

    #[test]
    fn whoever_has_shown_no_token_loses_the_seat_where_all_are_taken() {
        let seats = Arc::new(Seats::default());
        let crowd = crowd(&seats);
        crowd[0].keep();
        let phone = Seats::take(&seats, IpAddr::from([192, 0, 2, 99])).expect("another's seat");
        let lost: Vec<usize> = (0..crowd.len()).filter(|at| is_lost(&crowd[*at])).collect();
        assert_eq!(lost, [1], "the first one that is not paired");
        let others: Vec<Seat> = (100..140)
            .map(|last| Seats::take(&seats, IpAddr::from([192, 0, 2, last])).expect("a seat"))
            .collect();
        assert!(!is_lost(&phone) && !is_lost(&crowd[0]), "others have more of them");
        assert_eq!(lock(&seats.taken).len(), MOST_CONNECTIONS);
        drop((crowd, phone, others));
        assert!(lock(&seats.taken).is_empty());
    }

    #[test]
    fn paired_browsers_keep_their_seats_and_others_wait() {
        let seats = Arc::new(Seats::default());
        let mut crowd = crowd(&seats);
        crowd.iter().for_each(Seat::keep);
        assert!(Seats::take(&seats, IpAddr::from([192, 0, 2, 99])).is_none());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let soon = |seats: Arc<Seats>| async move {
                timeout(Duration::from_millis(20), seats.wait_for_room()).await.is_ok()
            };
            assert!(!soon(Arc::clone(&seats)).await);
            crowd.pop();
            assert!(soon(Arc::clone(&seats)).await);
        });
    }

    #[test]
    fn a_new_name_of_this_machine_is_answered_without_a_restart() {
        static IS_RENAMED: AtomicBool = AtomicBool::new(false);
        let folder = test_folder("renamed");
        let names = || match IS_RENAMED.load(Ordering::SeqCst) {
            true => vec!["bathroom.local".to_owned()],
            false => vec!["kitchen.local".to_owned()],
        };
        let certificate = Certificate::load_or_make(&folder, &names()).expect("writable");
        let door = NetworkDoor {
            tls: TlsAcceptor::from(certificate.tls().expect("a pair")),
            names,
            paired: Router::new(),
            unpaired: Router::new(),
            access: Arc::new(Access::closed(&folder)),
        };
        let answers_to = |host: &str| {
            let here = IpAddr::from([192, 168, 1, 7]);
            door.called(here, here).is_called(host)
        };
        assert!(answers_to("kitchen.local:8443") && !answers_to("bathroom.local:8443"));
        IS_RENAMED.store(true, Ordering::SeqCst);
        assert!(answers_to("bathroom.local:8443"));
        std::fs::remove_dir_all(&folder).expect("ours");
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
