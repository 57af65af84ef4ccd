//! An MQTT 5 connection with rumqttc that no broker can hang, fill or silence: what a mirror and the aggregator need alike.
//!
//! Whoever polls a connection asks [`next_event`], and after an error waits for a pause of its [`Attempts`] and calls [`begin_anew`]
//! before the next attempt. What is sent is checked by [`check_size`] before; what the broker refuses is read by [`Refused::of`].

pub mod certificate;

use std::fmt;
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::v5::{ConnAck, Packet, PubAckReason, Publish, SubscribeReasonCode};
use rumqttc::v5::{ConnectionError, Event, EventLoop, MqttState, StateError};

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The network, TLS, or what was said on it; in a short line, without what the broker says of it in words of its own.
    #[error("{}", told(.0))]
    Connection(#[from] ConnectionError),
    /// The broker has stopped reading.
    #[error("the broker has taken nothing for {} s; see that it still runs", .0.as_secs())]
    Stalled(Duration),
    /// A topic alias came in.
    #[error(
        "the broker sends topic aliases, although none are allowed here: it does not keep to MQTT 5"
    )]
    Alias,
    /// The broker takes no message at all.
    #[error(
        "the broker takes no message (its Receive Maximum is 0, which MQTT 5 forbids); see its limit of messages in flight"
    )]
    TakesNothing,
}

/// Letters of an error's text at most: a certificate may have brought long names into it.
const LETTERS: usize = 200;

/// What a person is told of a connection that has ended. Whatever a broker writes there would stand on the mirror's glass, and in the journal, as
/// the program's own words.
fn told(error: &ConnectionError) -> String {
    match error {
        ConnectionError::NotConnAck(_) => {
            "the broker does not speak MQTT 5: it sent something else than a welcome".to_owned()
        }
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
            format!("the broker ended the connection ({reason_code:?})")
        }
        other => {
            let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
            let whole = other.to_string();
            let rest = if whole.chars().nth(LETTERS).is_some() { "…" } else { "" };
            whole.chars().take(LETTERS).map(plain).chain(rest.chars()).collect()
        }
    }
}

/// The next event of a connection that goes on.
///
/// A poll that sends waits until everything is out, and no keep-alive ends it: twice the keep-alive does. Any other has an event at
/// every keep-alive. rumqttc keeps a topic for each alias that a broker makes up, so the first one ends the connection. For a broker
/// that takes no message at a time it would wait for ever, and so does not begin.
///
/// # Errors
/// [`Broken`]. The connection must not be polled again before [`begin_anew`]: a packet may have been cut in two.
pub async fn next_event(connection: &mut EventLoop) -> Result<Event, Broken> {
    let patience = 2 * connection.options.keep_alive();
    let polled = tokio::time::timeout(patience, connection.poll()).await;
    let event = polled.map_err(|_| Broken::Stalled(patience))??;
    match &event {
        Event::Incoming(Packet::Publish(publish)) if has_alias(publish) => Err(Broken::Alias),
        Event::Incoming(Packet::ConnAck(welcome)) if takes_nothing(welcome) => {
            Err(Broken::TakesNothing)
        }
        _ => Ok(event),
    }
}

fn has_alias(publish: &Publish) -> bool {
    publish.properties.as_ref().is_some_and(|properties| properties.topic_alias.is_some())
}

fn takes_nothing(welcome: &ConnAck) -> bool {
    welcome.properties.as_ref().is_some_and(|properties| properties.receive_max == Some(0))
}

/// Forgets the connection that broke, with all that was queued or not acknowledged on it. rumqttc would send that on the next one, in spite
/// of the next broker's limits, and even an update whose household has withdrawn meanwhile. Whoever publishes has to say anew what still
/// holds.
///
/// The numbers of messages begin anew as well: they do not wrap where the next broker takes fewer at a time than `in_flight`. So does
/// `keep_alive`, for which the last broker may have had a number of its own.
pub fn begin_anew(connection: &mut EventLoop, in_flight: u16, keep_alive: Duration) {
    connection.clean();
    connection.pending.clear();
    connection.state = MqttState::new(in_flight, false);
    connection.options.set_keep_alive(keep_alive);
}

/// A connection that lasted this long was a good one: the next attempt after it comes soon. Somebody else with the same client id, or a
/// broker that hangs up, is no reason to come back at once.
const STABLE: Duration = Duration::from_secs(5);

/// Doubles from `first` to `longest`; each wait is drawn from the upper half.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first wait at most.
    pub first: Duration,
    /// Every wait at most.
    pub longest: Duration,
}

impl Backoff {
    /// The wait after `attempts` failures, from 0. `draw` gives a moment between zero and what it is given.
    pub fn wait(&self, attempts: u32, draw: impl FnOnce(Duration) -> Duration) -> Duration {
        let doubled = self.first.saturating_mul(1 << attempts.min(20));
        let half = doubled.min(self.longest) / 2;
        half + draw(half)
    }
}

/// The attempts to connect, and the pauses between them.
#[derive(Debug)]
pub struct Attempts {
    backoff: Backoff,
    failed: u32,
    since: Option<Instant>,
}

impl Attempts {
    /// None yet.
    pub fn new(backoff: Backoff) -> Attempts {
        Attempts { backoff, failed: 0, since: None }
    }

    /// A connection is made.
    pub fn connected(&mut self) {
        self.since = Some(Instant::now());
    }

    /// The connection has ended, or the attempt at one has.
    pub fn ended(&mut self) {
        if self.since.take().is_some_and(|since| since.elapsed() > STABLE) {
            self.failed = 0;
        }
    }

    /// The pause before the next attempt; `draw` as for [`Backoff::wait`].
    pub fn pause(&mut self, draw: impl FnOnce(Duration) -> Duration) -> Duration {
        let pause = self.backoff.wait(self.failed, draw);
        self.failed = self.failed.saturating_add(1);
        pause
    }
}

/// What the broker refuses, and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// To hear something.
    Subscription(SubscribeReasonCode),
    /// To take something.
    Message(PubAckReason),
}

impl Refused {
    /// What this packet says of it. A message that nobody listens to is not refused.
    pub fn of(packet: &Packet) -> Option<Refused> {
        match packet {
            Packet::SubAck(ack) => {
                let refused =
                    |code: &&SubscribeReasonCode| !matches!(code, SubscribeReasonCode::Success(_));
                ack.return_codes.iter().find(refused).copied().map(Refused::Subscription)
            }
            Packet::PubAck(ack) => match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
                reason => Some(Refused::Message(reason)),
            },
            _ => None,
        }
    }

    /// Whether the broker's access list is the reason.
    pub fn is_access(self) -> bool {
        matches!(
            self,
            Refused::Subscription(SubscribeReasonCode::NotAuthorized)
                | Refused::Message(PubAckReason::NotAuthorized)
        )
    }

    /// Whether it says nothing of what follows on the same connection: a message that fails for any other reason than the access
    /// list, such as a quota.
    pub fn may_pass(self) -> bool {
        matches!(self, Refused::Message(_)) && !self.is_access()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Subscription(reason) => write!(formatter, "a subscription ({reason:?})"),
            Refused::Message(reason) => write!(formatter, "a message ({reason:?})"),
        }
    }
}

/// Bytes of the largest packet that the broker takes, as its welcome says.
pub fn largest_packet(welcome: &ConnAck) -> u32 {
    let limit = welcome.properties.as_ref().and_then(|properties| properties.max_packet_size);
    limit.unwrap_or(u32::MAX)
}

/// A message that is larger than what the broker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the broker takes packets of {limit} bytes, and a message has {bytes}; raise its maximum packet size, `max_packet_size` of \
     mosquitto, to {needed} and restart it"
)]
pub struct TooLarge {
    /// Bytes of the message's packet.
    pub bytes: usize,
    /// Bytes of the largest packet that the broker takes.
    pub limit: u32,
    /// What it has to take.
    pub needed: u32,
}

/// Whether the broker, which takes packets of `limit` bytes, takes this one; all of them need `needed`.
///
/// # Errors
/// [`TooLarge`]. Sent, it would end the connection, and the next one as well once it is sent again.
pub fn check_size(publish: &Publish, limit: u32, needed: u32) -> Result<(), TooLarge> {
    // As rumqttc will make it, with a number.
    let bytes = Publish { pkid: 1, ..publish.clone() }.size();
    if bytes > limit as usize { Err(TooLarge { bytes, limit, needed }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{PubAck, SubAck};

    const BACKOFF: Backoff =
        Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(300) };

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew_after_a_good_connection() {
        let mut attempts = Attempts::new(BACKOFF);
        let pause = |attempts: &mut Attempts| attempts.pause(|span| span).as_secs();
        assert_eq!([(); 4].map(|()| pause(&mut attempts)), [1, 2, 4, 8]);
        attempts.connected();
        attempts.ended();
        assert_eq!([(); 6].map(|()| pause(&mut attempts)), [16, 32, 64, 128, 256, 300]);
        assert_eq!(attempts.pause(|_| Duration::ZERO).as_secs(), 150);
        attempts.since = Instant::now().checked_sub(2 * STABLE);
        attempts.ended();
        assert_eq!(pause(&mut attempts), 1);
        attempts.ended();
        assert_eq!(pause(&mut attempts), 2, "there was none in between");
    }

    #[test]
    fn what_the_broker_refuses_is_told_from_what_it_does() {
        let (fine, denied) =
            (SubscribeReasonCode::Success(QoS::AtLeastOnce), SubscribeReasonCode::NotAuthorized);
        let subscribed =
            |return_codes| Packet::SubAck(SubAck { pkid: 1, return_codes, properties: None });
        let published = |reason| Packet::PubAck(PubAck { pkid: 1, reason, properties: None });
        assert_eq!(Refused::of(&subscribed(vec![fine])), None);
        assert_eq!(Refused::of(&published(PubAckReason::NoMatchingSubscribers)), None);
        let refused = Refused::of(&subscribed(vec![fine, denied])).expect("one of them");
        assert_eq!(refused, Refused::Subscription(denied));
        assert_eq!((refused.is_access(), refused.may_pass()), (true, false));
        for (reason, access) in
            [(PubAckReason::QuotaExceeded, false), (PubAckReason::NotAuthorized, true)]
        {
            let refused = Refused::of(&published(reason)).expect("refused");
            assert_eq!((refused.is_access(), refused.may_pass()), (access, !access), "{refused}");
        }
    }

    #[test]
    fn whatever_an_error_says_is_one_short_line() {
        let words = format!("x\n\u{1b}[2J{}", "y".repeat(60_000));
        let told = Broken::from(ConnectionError::Io(std::io::Error::other(words))).to_string();
        assert!(told.starts_with("I/O: x  [2Jy") && told.chars().count() == LETTERS + 1, "{told}");
    }

    #[test]
    fn a_message_fits_to_the_byte() {
        let publish = Publish::new("t", QoS::AtLeastOnce, vec![0; 10], None);
        // Kind and length, the topic and its length, the number, no properties, the payload.
        let bytes = 2 + 3 + 2 + 1 + 10;
        assert_eq!(check_size(&publish, 18, 100), Ok(()));
        assert_eq!(check_size(&publish, 17, 100), Err(TooLarge { bytes, limit: 17, needed: 100 }));
    }
}
