//! An MQTT 5 connection with rumqttc that no broker can hang, fill or silence: what a mirror and the aggregator need alike.
//!
//! Whoever polls a connection asks [`next_event`], and after an error calls [`begin_anew`] before the next attempt.

use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use rumqttc::v5::{ConnectionError, Event, EventLoop, MqttState};

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The network, TLS, or what was said on it.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The broker has stopped reading.
    #[error("the broker has taken nothing for {} s; see that it still runs", .0.as_secs())]
    Stalled(Duration),
    /// A topic alias came in.
    #[error(
        "the broker sends topic aliases, although none are allowed here: it does not keep to MQTT 5"
    )]
    Alias,
}

/// The next event of a connection that goes on.
///
/// A poll that sends waits until everything is out, and no keep-alive ends it: twice the keep-alive does. Any other has an event at
/// every keep-alive. rumqttc keeps a topic for each alias that a broker makes up, so the first one ends the connection.
///
/// # Errors
/// [`Broken`]. The connection must not be polled again before [`begin_anew`]: a packet may have been cut in two.
pub async fn next_event(connection: &mut EventLoop) -> Result<Event, Broken> {
    let patience = 2 * connection.options.keep_alive();
    let polled = tokio::time::timeout(patience, connection.poll()).await;
    let event = polled.map_err(|_| Broken::Stalled(patience))??;
    match &event {
        Event::Incoming(Packet::Publish(publish)) if has_alias(publish) => Err(Broken::Alias),
        _ => Ok(event),
    }
}

fn has_alias(publish: &Publish) -> bool {
    publish.properties.as_ref().is_some_and(|properties| properties.topic_alias.is_some())
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
