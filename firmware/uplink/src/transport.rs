//! A connection to a broker, as the protocol sees it. [`crate::mqtt`] is the real one; tests script their own.

use std::future::Future;

/// Bytes of a packet at most, both ways: a message and its topic.
pub const PACKET_BYTES: u32 = 66 * 1024;

/// What happens on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The broker is there. Subscriptions are made anew, whatever the broker remembers.
    Connected,
    /// It is not. The transport tries again by itself.
    Disconnected(String),
    /// It is there and refuses a subscription or a message, for this reason. The connection goes on.
    Refused(String),
    /// A message.
    Message {
        /// Its topic.
        topic: String,
        /// Its bytes, at most [`PACKET_BYTES`].
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
/// the connection breaks before it is out.
pub trait Requests: Send {
    /// Sends with QoS 1.
    fn publish(&mut self, topic: &str, payload: Vec<u8>, retain: bool) -> bool;
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
