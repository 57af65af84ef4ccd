//! The network's door: HTTPS with the mirror's own certificate, and a paired or an unpaired set of pages behind it.
//!
//! Invariant: a request without the token of a paired browser reaches the unpaired router only, which has no route to a
//! picture, a parsing, a state or a setting.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::http::header::{CONNECTION, COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
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

use crate::access::sessions::Visit;
use crate::page::access::cookie;
use crate::page::guard::Door;
use crate::page::{Trouble, Visitor, silence};
use crate::shared::lock;

/// Connections at once; each costs memory.
const MOST_CONNECTIONS: usize = 64;
/// Of one address: more than a browser opens, and so few that one machine gone wrong does not keep the others out.
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
        let seats = Arc::new(Seats::default());
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
            let Some(seat) = Seats::take(&seats, peer.ip()) else {
                debug!("network door: {peer} has {MOST_OF_ONE} connections already");
                continue;
            };
            let door = Arc::clone(&door);
            tokio::spawn(async move {
                if let Err(error) = door.visit(stream, peer).await {
                    debug!("network door: {peer}: {error:#}");
                }
                drop((seat, permit));
            });
        }
    }

    async fn visit(&self, stream: TcpStream, peer: SocketAddr) -> Result<()> {
        silence::ends(&stream).context("a browser that vanishes would not be noticed")?;
        let local = stream.local_addr().context("own address")?.ip();
        let stream = timeout(HANDSHAKE, self.tls.accept(stream)).await.context("no greeting")??;
        let door = Door::Network { local, peer: peer.ip(), names: Arc::clone(&self.names) };
        let service = service_fn(|request: Request<Incoming>| self.answer(request, door.clone()));
        debug!("network door: {peer} is here");
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD);
        Ok(server.serve_connection(TokioIo::new(stream), service).await?)
    }

    async fn answer(&self, request: Request<Incoming>, door: Door) -> Result<Response, Infallible> {
        let mut request = request.map(Body::new);
        let now = crate::page::access::now();
        let visitor = token(request.headers()).and_then(|token| {
            let visit = self.access.sessions.find(&token, now)?;
            Some((token, visit))
        });
        request.extensions_mut().insert(door);
        let Some((token, Visit { id, is_noted })) = visitor else {
            let mut answer = hurried(self.unpaired.clone(), request, HEAD).await?;
            // A request every few seconds would hold the connection for ever.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return Ok(answer);
        };
        request.extensions_mut().insert(Visitor::Browser { id });
        let mut answer = self.paired.clone().oneshot(request).await?;
        if is_noted {
            let access = Arc::clone(&self.access);
            tokio::task::spawn_blocking(move || access.sessions.write_visits());
            renew(&mut answer, &token);
        }
        Ok(answer)
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

/// Open connections of each address.
#[derive(Default)]
struct Seats(Mutex<HashMap<IpAddr, usize>>);

/// One connection of an address, until it is dropped.
struct Seat {
    seats: Arc<Seats>,
    address: IpAddr,
}

impl Seats {
    fn take(seats: &Arc<Seats>, address: IpAddr) -> Option<Seat> {
        let address = address.to_canonical();
        let mut taken = lock(&seats.0);
        let count = taken.entry(address).or_default();
        if *count >= MOST_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Seat { seats: Arc::clone(seats), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = lock(&self.seats.0);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
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
    use axum::body::Bytes;
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
        assert!(lock(&seats.0).is_empty(), "addresses of the past cost nothing");
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
