//! MQTT 5 with rumqttc.
//!
//! rumqttc's loop is polled by a task of its own, because a poll that is given up half-way may cut a packet in two.
//! Its events come through a bounded channel; requests go the other way without ever waiting. A request lives as long as
//! its connection: none is carried over to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use link::{
    Attempts, Backoff, Broken, Refused, begin_anew, check_size, largest_packet, next_event,
};
use proto::wire::PACKET_BYTES;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, Event as MqttEvent, EventLoop, MqttOptions};
use rumqttc::{NetworkOptions, Outgoing, TlsConfiguration, Transport as Wire};
use rustls::pki_types::UnixTime;
use tokio::sync::mpsc;

use crate::pace::Jitter;
use crate::tls;
use crate::transport::{Event, Requests, Retained, Transport};

/// How long the broker keeps the session of a mirror that is away: a week.
const SESSION_SECONDS: u32 = 7 * 24 * 3600;

/// Requests, and events, that may queue up.
const QUEUE: usize = 64;

/// Messages that wait for the broker's acknowledgement. rumqttc makes a table of this size at once; its default of
/// 65,535 takes 14 MB.
const IN_FLIGHT: u16 = 64;

const RECONNECT: Backoff =
    Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(300) };

/// At least so often something is said on a connection, unless the broker asks for another rhythm on it.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Where a broker is, and who comes.
#[derive(Clone)]
pub struct Endpoint {
    /// Host name or address. With TLS the broker's certificate must carry it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Client id, the same at every start; the broker keeps the session under it.
    pub client_id: String,
    /// TLS, or none on a broker of the home.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// When the certificate ends that is shown to the broker, seconds since 1970.
    pub certificate_end: Option<u64>,
    /// Name and password, where the broker asks for them.
    pub login: Option<(String, String)>,
    /// What the broker says when the connection breaks.
    pub will: Retained,
    /// Whether the broker keeps the session while the mirror is away.
    pub persistent: bool,
}

/// Puts [`Event::Wake`] and [`Event::Stop`] among the events of a transport.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<Event>);

impl Handle {
    /// Something changed. Drops the call where the queue is full: the loop looks every second anyway.
    pub fn wake(&self) {
        let _ = self.0.try_send(Event::Wake);
    }

    /// Ends the loop, after a clean goodbye.
    pub async fn stop(&self) {
        let _ = self.0.send(Event::Stop).await;
    }
}

/// MQTT 5 with rumqttc.
pub struct Mqtt {
    client: AsyncClient,
    events: mpsc::Receiver<Event>,
    poller: tokio::task::JoinHandle<()>,
    connected: bool,
    /// Bytes of the largest packet that the broker takes, on the last connection that was made.
    largest: Arc<AtomicU32>,
    /// A message that was larger, to be told as the next event.
    too_large: Option<link::TooLarge>,
}

impl Mqtt {
    /// Begins to connect, on the current tokio runtime.
    pub fn start(endpoint: Endpoint, jitter: Jitter) -> (Mqtt, Handle) {
        let certificate_end = endpoint.certificate_end;
        let (client, connection) = AsyncClient::new(options(endpoint), QUEUE);
        let (sender, events) = mpsc::channel(QUEUE);
        let handle = Handle(sender.clone());
        let largest = Arc::new(AtomicU32::new(u32::MAX));
        let poll = poll(connection, sender, Arc::clone(&largest), certificate_end, jitter);
        let poller = tokio::spawn(poll);
        (Mqtt { client, events, poller, connected: false, largest, too_large: None }, handle)
    }

    /// What the broker would end the connection for is not sent, and told.
    fn send(
        &mut self,
        topic: &str,
        payload: Vec<u8>,
        retain: bool,
        properties: PublishProperties,
    ) -> bool {
        let publish = Publish::new(topic, QoS::AtLeastOnce, payload, Some(properties.clone()));
        if let Err(too_large) =
            check_size(&publish, self.largest.load(Ordering::SeqCst), PACKET_BYTES)
        {
            self.too_large = Some(too_large);
            return true;
        }
        let sent = self.client.try_publish_with_properties(
            topic,
            publish.qos,
            retain,
            publish.payload,
            properties,
        );
        sent.is_ok()
    }
}

fn options(endpoint: Endpoint) -> MqttOptions {
    let mut options = MqttOptions::new(endpoint.client_id, endpoint.host, endpoint.port);
    let Retained { topic, payload } = endpoint.will;
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(15);
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_connection_timeout(20)
        .set_clean_start(!endpoint.persistent)
        .set_session_expiry_interval(endpoint.persistent.then_some(SESSION_SECONDS))
        .set_max_packet_size(Some(PACKET_BYTES))
        .set_outgoing_inflight_upper_limit(IN_FLIGHT)
        .set_network_options(network)
        .set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, true, None));
    if let Some(tls) = endpoint.tls {
        options.set_transport(Wire::tls_with_config(TlsConfiguration::Rustls(tls)));
    }
    if let Some((name, password)) = endpoint.login {
        options.set_credentials(name, password);
    }
    options
}

/// What follows on the poller's end, which comes with a goodbye alone: a panic goes on in whoever waits for the next event, which
/// would not come.
fn after(ended: Result<(), tokio::task::JoinError>) -> Event {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
    Event::Stop
}

/// Polls until the goodbye is out, or nobody listens any more.
async fn poll(
    mut connection: EventLoop,
    events: mpsc::Sender<Event>,
    largest: Arc<AtomicU32>,
    certificate_end: Option<u64>,
    mut jitter: Jitter,
) {
    let mut attempts = Attempts::new(RECONNECT);
    loop {
        let event = match next_event(&mut connection).await {
            Ok(MqttEvent::Incoming(Packet::ConnAck(welcome))) => {
                attempts.connected();
                largest.store(largest_packet(&welcome), Ordering::SeqCst);
                Event::Connected
            }
            Ok(MqttEvent::Incoming(Packet::Publish(publish))) => Event::Message {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload.to_vec(),
                retained: publish.retain,
            },
            Ok(MqttEvent::Outgoing(Outgoing::Disconnect)) => return,
            Ok(MqttEvent::Incoming(packet)) => match Refused::of(&packet) {
                Some(refused) if !refused.may_pass() => refusal(refused),
                _ => continue,
            },
            Ok(_) => continue,
            Err(error) => {
                // At once, or the broker would go on sending to it.
                connection.clean();
                attempts.ended();
                if events.send(end(&error, certificate_end)).await.is_err() {
                    return;
                }
                tokio::time::sleep(attempts.pause(|span| jitter.within(span))).await;
                begin_anew(&mut connection, IN_FLIGHT, KEEP_ALIVE);
                continue;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// What the broker does not let this mirror do on this connection.
fn refusal(refused: Refused) -> Event {
    let is_access = refused.is_access();
    let next = match is_access {
        true => "its access list must give this mirror its topics",
        false => "its log says why: a limit of its settings, or something that they switch off",
    };
    Event::Refused { reason: format!("the broker refuses {refused}; {next}"), is_access }
}

/// Why a connection has ended.
fn end(error: &Broken, certificate_end: Option<u64>) -> Event {
    match tls::untimely(error, certificate_end, UnixTime::now()) {
        Some(reason) => Event::Untrusted(reason),
        None => Event::Disconnected(error.to_string()),
    }
}

impl Requests for Mqtt {
    fn publish(&mut self, topic: &str, payload: Vec<u8>, retain: bool) -> bool {
        self.send(topic, payload, retain, PublishProperties::default())
    }

    fn retain_for(&mut self, topic: &str, payload: Vec<u8>, seconds: u32) -> bool {
        let expiry = PublishProperties {
            message_expiry_interval: Some(seconds),
            ..PublishProperties::default()
        };
        self.send(topic, payload, true, expiry)
    }

    fn subscribe(&mut self, filter: &str) -> bool {
        self.client.try_subscribe(filter, QoS::AtLeastOnce).is_ok()
    }

    fn unsubscribe(&mut self, filter: &str) -> bool {
        self.client.try_unsubscribe(filter).is_ok()
    }
}

impl Transport for Mqtt {
    async fn next(&mut self) -> Event {
        if let Some(too_large) = self.too_large.take() {
            return Event::Refused { reason: too_large.to_string(), is_access: false };
        }
        // What came before is heard first.
        let event = tokio::select! {
            biased;
            event = self.events.recv() => event.unwrap_or(Event::Stop),
            ended = &mut self.poller => after(ended),
        };
        match event {
            Event::Connected => self.connected = true,
            Event::Disconnected(_) | Event::Untrusted(_) => self.connected = false,
            _ => {}
        }
        event
    }

    async fn close(mut self) {
        let client = self.client.clone();
        let goodbye = async {
            let _ = client.disconnect().await;
            while self.events.recv().await.is_some() {}
        };
        // Without a broker there is nobody to say goodbye to.
        if self.connected {
            let _ = tokio::time::timeout(Duration::from_secs(3), goodbye).await;
        }
        self.poller.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only to end a test that is stuck.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    #[should_panic(expected = "the poller's trouble")]
    fn a_poller_that_panics_ends_whoever_waits_for_its_next_event() {
        let endpoint = Endpoint {
            host: "127.0.0.1".into(),
            port: 1,
            client_id: "mirror-17".into(),
            tls: None,
            certificate_end: None,
            login: None,
            will: Retained { topic: "will".into(), payload: Vec::new() },
            persistent: true,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // Its handle has a sender, so that the events alone would never end.
            let (mut mqtt, _handle) = Mqtt::start(endpoint, Jitter::new(1));
            mqtt.poller.abort();
            mqtt.poller = tokio::spawn(async { panic!("the poller's trouble") });
            while tokio::time::timeout(PATIENCE, mqtt.next()).await.is_ok() {}
        });
    }
}
