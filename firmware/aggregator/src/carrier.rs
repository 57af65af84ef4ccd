//! What carries the messages, as the desks and the decisions see it.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use proto::Topic;

/// A message that arrived.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Its topic.
    pub topic: String,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Whether the broker had kept it from before this connection.
    pub retained: bool,
    /// How long it still holds, where its sender said so.
    pub expiry: Option<Duration>,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub topic: Topic,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it.
    pub retain: bool,
}

/// Carries messages. Implemented for MQTT, and in memory for tests.
pub trait Carrier: Send {
    /// Waits for the next message, at most this long.
    fn receive(&mut self, patience: Duration) -> Option<Incoming>;
    /// Sends a message, or drops it where there is no connection; senders ask again.
    fn send(&mut self, message: Outgoing);
}

/// How a connection does.
#[derive(Default)]
pub struct Health {
    /// Whether the broker is there, and lets this connection hear what it is to hear.
    pub connected: AtomicBool,
    /// Subscriptions and messages that the broker has refused.
    pub refused: AtomicU64,
    /// Subscriptions and messages on the last connection that was made which its settings rule out for as long as that lasts.
    pub refused_now: AtomicU64,
    /// Messages that it has refused for a reason that may pass, such as a quota.
    pub put_off: AtomicU64,
    /// Connections made so far.
    pub connections: AtomicU64,
    /// Messages that found no room to wait in.
    pub dropped: AtomicU64,
}
