//! MQTT 5 with rumqttc.
//!
//! rumqttc's loop is polled by a task of its own, because a poll that is given up half-way may cut a packet in two.
//! Its events come through a bounded channel; requests go the other way without ever waiting. A request lives as long as
//! its connection: none is carried over to the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use link::{begin_anew, next_event};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event as MqttEvent, EventLoop, MqttOptions};
use rumqttc::{NetworkOptions, Outgoing, TlsConfiguration, Transport as Wire};
use tokio::sync::mpsc;

use crate::pace::{Backoff, Jitter};
use crate::transport::{Event, PACKET_BYTES, Requests, Retained, Transport};

/// How long the broker keeps the session of a mirror that is away: a week.
const SESSION_SECONDS: u32 = 7 * 24 * 3600;

/// Requests, and events, that may queue up.
const QUEUE: usize = 64;

/// Messages that wait for the broker's acknowledgement. rumqttc makes a table of this size at once; its default of
/// 65,535 takes 14 MB.
const IN_FLIGHT: u16 = 64;

/// A connection that lasted this long was a good one: the next attempt after it comes soon.
const STABLE: Duration = Duration::from_secs(5);

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
    /// The same at every start; the broker keeps the session under it.
    pub client_id: String,
    /// TLS, or none on a broker of the home.
    pub tls: Option<Arc<rustls::ClientConfig>>,
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
}

impl Mqtt {
    /// Begins to connect, on the current tokio runtime.
    pub fn start(endpoint: Endpoint, jitter: Jitter) -> (Mqtt, Handle) {
        let (client, connection) = AsyncClient::new(options(endpoint), QUEUE);
        let (sender, events) = mpsc::channel(QUEUE);
        let handle = Handle(sender.clone());
        let poller = tokio::spawn(poll(connection, sender, jitter));
        (Mqtt { client, events, poller, connected: false }, handle)
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

/// Polls until the goodbye is out, or nobody listens any more.
async fn poll(mut connection: EventLoop, events: mpsc::Sender<Event>, mut jitter: Jitter) {
    let (mut attempts, mut since) = (0, None);
    loop {
        let event = match next_event(&mut connection).await {
            Ok(MqttEvent::Incoming(Packet::ConnAck(_))) => {
                since = Some(Instant::now());
                Event::Connected
            }
            Ok(MqttEvent::Incoming(Packet::Publish(publish))) => Event::Message {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload.to_vec(),
                retained: publish.retain,
            },
            Ok(MqttEvent::Outgoing(Outgoing::Disconnect)) => return,
            Ok(MqttEvent::Incoming(packet)) => match refusal(&packet) {
                Some(reason) => Event::Refused(reason),
                None => continue,
            },
            Ok(_) => continue,
            Err(error) => {
                // At once, or the broker would go on sending to it.
                connection.clean();
                let lasted = since.take().is_some_and(|since: Instant| since.elapsed() > STABLE);
                attempts = if lasted { 0 } else { attempts };
                if events.send(Event::Disconnected(error.to_string())).await.is_err() {
                    return;
                }
                tokio::time::sleep(RECONNECT.wait(attempts, &mut jitter)).await;
                attempts += 1;
                begin_anew(&mut connection, IN_FLIGHT, KEEP_ALIVE);
                continue;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// What the broker does not let this mirror do on this connection, and its reason.
fn refusal(packet: &Packet) -> Option<String> {
    let (what, reason) = match packet {
        Packet::SubAck(ack) => {
            let refused =
                |code: &&SubscribeReasonCode| !matches!(code, SubscribeReasonCode::Success(_));
            ("a subscription", format!("{:?}", ack.return_codes.iter().find(refused)?))
        }
        // A message that fails for any other reason, such as a quota, says nothing of those that follow.
        Packet::PubAck(ack) if ack.reason == PubAckReason::NotAuthorized => {
            ("a message", format!("{:?}", ack.reason))
        }
        _ => return None,
    };
    Some(format!(
        "the broker refuses {what} ({reason}); its access list must give this mirror its topics"
    ))
}

impl Requests for Mqtt {
    fn publish(&mut self, topic: &str, payload: Vec<u8>, retain: bool) -> bool {
        self.client.try_publish(topic, QoS::AtLeastOnce, retain, payload).is_ok()
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
        // The poller ends only after a goodbye.
        let event = self.events.recv().await.unwrap_or(Event::Stop);
        match event {
            Event::Connected => self.connected = true,
            Event::Disconnected(_) => self.connected = false,
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
