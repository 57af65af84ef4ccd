//! The places of a door: how many connections it has at once, of whom, and whose place is given to whoever comes. Each connection takes
//! a file handle, which the camera, the stores and the brokers need as well.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::page::silence;
use crate::shared::lock;

/// Connections of a door at once; each costs memory, too.
const MOST_CONNECTIONS: usize = 64;
/// A connection that has not brought the head of its next request by then is ended; so is a request that comes from no paired browser
/// and is not whole: whoever is not paired must not be able to keep the others out with bodies that never come.
pub const HEAD: Duration = Duration::from_secs(15);
/// After an error of the listener itself (no file handles left) the mirror waits this long.
const PAUSE: Duration = Duration::from_millis(200);

/// How both doors speak HTTP.
pub fn http() -> http1::Builder {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD);
    server
}

/// A door's open connections, the oldest first.
pub struct Seats {
    /// The door's, for the journal.
    name: &'static str,
    most_of_one: usize,
    taken: Mutex<Vec<Taken>>,
    freed: Notify,
}

struct Taken {
    address: IpAddr,
    /// Whether it has shown that it is one to be kept.
    is_kept: bool,
    lost: Arc<Notify>,
}

/// One connection's place, until it is dropped, or lost to somebody else.
pub struct Seat {
    seats: Arc<Seats>,
    lost: Arc<Notify>,
}

impl Seats {
    /// Room for [`MOST_CONNECTIONS`], of which one address may have `most_of_one`.
    pub fn new(name: &'static str, most_of_one: usize) -> Arc<Seats> {
        let (taken, freed) = (Mutex::default(), Notify::new());
        Arc::new(Seats { name, most_of_one, taken, freed })
    }

    /// Lets `visit` serve each connection, until the future is dropped.
    ///
    /// # Errors
    /// A listener that cannot be used at all.
    pub async fn serve<V>(
        self: Arc<Self>,
        listener: TcpListener,
        visit: impl Fn(TcpStream, SocketAddr, Arc<Seat>) -> V,
    ) -> Result<()>
    where
        V: Future<Output = Result<()>> + Send + 'static,
    {
        let name = self.name;
        let listener = tokio::net::TcpListener::from_std(listener).context(name)?;
        loop {
            self.wait_for_room().await;
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    debug!("{name}: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            if let Err(error) = silence::ends(&stream) {
                warn!(
                    "{name}: {peer} is refused, since it would keep its place if it vanished: {error}"
                );
                continue;
            }
            let Some(seat) = Seats::take(&self, peer.ip()).map(Arc::new) else {
                debug!("{name}: no room for {peer}");
                continue;
            };
            let visit = visit(stream, peer, Arc::clone(&seat));
            tokio::spawn(async move {
                tokio::select! {
                    served = visit => if let Err(error) = served {
                        debug!("{name}: {peer}: {error:#}");
                    },
                    () = seat.lost.notified() => {
                        debug!("{name}: {peer}: its place was given to somebody else");
                    }
                }
            });
        }
    }

    /// A place for a connection of this address: a free one, or that of one that is not to be kept, of the address that has most
    /// of them the one that is longest here. None where the address has enough.
    fn take(seats: &Arc<Seats>, address: IpAddr) -> Option<Seat> {
        let address = address.to_canonical();
        let mut taken = lock(&seats.taken);
        let count_of = |taken: &[Taken], address: IpAddr| {
            taken.iter().filter(|seat| seat.address == address).count()
        };
        if count_of(&taken, address) >= seats.most_of_one {
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

    /// Waits while all are taken by those that are to be kept.
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
    /// Lets nobody else have it.
    pub fn keep(&self) {
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    const MOST_OF_ONE: usize = 16;

    #[test]
    fn one_address_does_not_take_every_seat() {
        let seats = Seats::new("a test", MOST_OF_ONE);
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
        let seats = Seats::new("a test", MOST_OF_ONE);
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
        let seats = Seats::new("a test", MOST_OF_ONE);
        let mut crowd = crowd(&seats);
        crowd.iter().for_each(Seat::keep);
        assert!(Seats::take(&seats, IpAddr::from([192, 0, 2, 99])).is_none());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut room = std::pin::pin!(seats.wait_for_room());
            let mut is_room = async || {
                poll_fn(|context| Poll::Ready(room.as_mut().poll(context).is_ready())).await
            };
            assert!(!is_room().await);
            crowd.pop();
            assert!(is_room().await);
        });
    }
}
