//! A connection to a broker, as the protocol sees it. [`crate::mqtt`] is the real one; tests script their own.

use std::future::Future;

/// What happens on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The broker is there. Subscriptions are made anew, whatever the broker remembers.
    Connected,
    /// It is not. The transport tries again by itself.
    Disconnected(String),
    /// It is not, as a certificate has ended, or has not begun by this machine's clock. The text has the next step. The transport
    /// tries again by itself.
    Untrusted(String),
    /// It is there and refuses a subscription or a message, or a message is too large for it. The connection goes on.
    Refused {
        /// What, and why, with the next step.
        reason: String,
        /// Whether the broker's access list is the reason.
        is_access: bool,
    },
    /// A message.
    Message {
        /// Its topic.
        topic: String,
        /// Its bytes, at most [`proto::wire::PACKET_BYTES`].
        payload: Vec<u8>,
        /// The broker had kept it: it was said before this subscription, and is said again at every connection.
        retained: bool,
    },
    /// Something on the mirror's side changed; look again now.
    Wake,
    /// Say goodbye and end.
    Stop,
}

/// Requests to a broker. `false`: not taken now, try again later. Nothing waits, and what was taken is forgotten when
/// the connection breaks before it is out. A message that is larger than what the broker takes is dropped, and told as
/// [`Event::Refused`].
pub trait Requests: Send {
    /// Sends with QoS 1.
    fn publish(&mut self, topic: &str, payload: Vec<u8>, retain: bool) -> bool;
    /// Sends with QoS 1, retained, but no longer than for so many seconds: nobody has to take it back.
    fn retain_for(&mut self, topic: &str, payload: Vec<u8>, seconds: u32) -> bool;
    /// Subscribes with QoS 1.
    fn subscribe(&mut self, filter: &str) -> bool;
    /// Ends a subscription.
    fn unsubscribe(&mut self, filter: &str) -> bool;
}

/// A connection to a broker.
pub trait Transport: Requests {
    /// The next event. May be given up at any point without losing one.
    fn next(&mut self) -> impl Future<Output = Event> + Send;
    /// Sends what is queued, and a clean goodbye, within a few seconds.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// A message that is retained, or becomes so when the connection breaks.
#[derive(Clone, Debug)]
pub struct Retained {
    /// Its topic.
    pub topic: String,
    /// Its bytes.
    pub payload: Vec<u8>,
}
