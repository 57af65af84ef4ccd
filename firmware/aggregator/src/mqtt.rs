//! The carrier over MQTT 5.
//!
//! One connection a worker, on a thread with a small runtime of its own. Sessions persist under stable client ids;
//! packets have room for the largest message; back-off is ours, since the client has none. Incoming messages wait in
//! a bounded queue, which slows the broker down; outgoing ones are queued, within bounds, by workers that never wait for the network,
//! so the two directions cannot block each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use learn::edges::{Entropy, SystemEntropy};
use proto::Topic;
use proto::topic::filter;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::config::{BrokerConfig, TlsConfig};
use crate::desk::{Carrier, Incoming, Outgoing, PACKET_BYTES};

/// Messages that wait for a worker.
const QUEUE: usize = 256;

/// Messages that wait to be sent. What does not fit is dropped, like on a connection that breaks: devices ask again.
const OUTGOING: usize = 1024;

/// Of these, parts of models take no more than leaves room for so many others: they are large, and receipts must not be
/// dropped for them.
const RESERVED: usize = 512;

/// Messages that wait for the broker's acknowledgement. rumqttc makes a table of this size at once; its default of
/// 65,535 takes 14 MB a connection.
const IN_FLIGHT: u16 = 1024;

/// Seconds that the broker keeps a session for a worker that is away.
const SESSION_SECONDS: u32 = 3600;

const SHORTEST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// Why there is no connection to try.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum MqttError {
    #[error("cannot use {path} for TLS: {reason}")]
    Tls { path: std::path::PathBuf, reason: String },
    #[error("no thread for a connection: {0}")]
    Thread(#[from] std::io::Error),
}

/// How a connection does.
#[derive(Default)]
pub struct Health {
    /// Whether the broker is there.
    pub connected: AtomicBool,
    /// Connections made so far.
    pub connections: AtomicU64,
    /// Messages that found no room to wait in.
    pub dropped: AtomicU64,
}

/// One worker's connection.
pub struct Mqtt {
    incoming: mpsc::Receiver<Incoming>,
    outgoing: mpsc::Sender<Outgoing>,
    /// How it does.
    pub health: Arc<Health>,
}

impl Carrier for Mqtt {
    fn receive(&mut self, patience: Duration) -> Option<Incoming> {
        if let Ok(message) = self.incoming.try_recv() {
            return Some(message);
        }
        // A queue that can be waited for with a limit, without a runtime on this thread.
        let until = std::time::Instant::now() + patience;
        while std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
            if let Ok(message) = self.incoming.try_recv() {
                return Some(message);
            }
        }
        None
    }

    fn send(&mut self, message: Outgoing) {
        let is_part = matches!(message.topic, Topic::ModelChunk(..));
        let has_room = !is_part || self.outgoing.capacity() > RESERVED;
        if !has_room || self.outgoing.try_send(message).is_err() {
            self.health.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Mqtt {
    /// Something that sends over the same connection.
    pub fn sender(&self) -> mpsc::Sender<Outgoing> {
        self.outgoing.clone()
    }

    /// Starts the connection of worker `number`, and gives the thread that carries it, which ends
    /// with its worker. `tag` is [`crate::keys::client_tag`].
    ///
    /// # Errors
    /// Certificates that cannot be used.
    pub fn start(
        broker: &BrokerConfig,
        channel: &str,
        number: u16,
        tag: &str,
    ) -> Result<(Mqtt, JoinHandle<()>), MqttError> {
        let id = client_id(&broker.client, channel, number, tag);
        let mut options = MqttOptions::new(id, &broker.host, broker.port);
        options.set_clean_start(false);
        options.set_session_expiry_interval(Some(SESSION_SECONDS));
        options.set_max_packet_size(Some(PACKET_BYTES));
        options.set_keep_alive(Duration::from_secs(30));
        options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
        if let Some(tls) = &broker.tls {
            let config = Arc::new(client_config(tls)?);
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config)));
        }
        let mut network = rumqttc::NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (client, events) = AsyncClient::new(options, QUEUE);
        let (incoming, received) = mpsc::channel(QUEUE);
        let (outgoing, queued) = mpsc::channel(OUTGOING);
        let health: Arc<Health> = Arc::default();
        let filters = filters(channel, number, tag);
        let shared = Arc::clone(&health);
        let name = format!("mqtt-{number}");
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else {
                warn!("no runtime for connection {number}");
                return;
            };
            runtime.spawn(send_all(client.clone(), queued));
            runtime.block_on(poll(client, events, filters, incoming, &shared));
        })?;
        Ok((Mqtt { incoming: received, outgoing, health }, thread))
    }
}

/// With the channel: two aggregators on one broker must not take over each other's sessions. With
/// the tag: whoever knows a client id, and has any certificate of the fleet, can take over its
/// session.
fn client_id(client: &str, channel: &str, number: u16, tag: &str) -> String {
    format!("{client}-{channel}-{number}-{tag}")
}

/// What worker `number` listens to: the shared work, and its own lane.
/// The groups bear the tag as well: sessions of another key, which the broker keeps for a while, take no share of what these are to count.
fn filters(channel: &str, number: u16, tag: &str) -> Vec<String> {
    // A group each: rumqttd keeps one place in the log for each group, whatever its filters, and so loses messages.
    let shared = [
        ("updates", filter::UPDATES),
        ("jobs", filter::JOB_STATES),
        ("models", filter::MODEL_WANTED),
    ];
    let share = |(kind, topics)| filter::shared(&format!("agg-{channel}-{tag}-{kind}"), topics);
    let mut filters: Vec<String> = shared.into_iter().map(share).collect();
    filters.push(filter::lane(number));
    if number == 0 {
        // Retained messages do not come through a shared subscription: one worker listens for who is there.
        filters.push(filter::STATUS.to_owned());
    }
    filters
}

async fn send_all(client: AsyncClient, mut queued: mpsc::Receiver<Outgoing>) {
    while let Some(Outgoing { topic, payload, retain }) = queued.recv().await {
        let sent = client.publish(topic.to_string(), QoS::AtLeastOnce, retain, payload).await;
        if sent.is_err() {
            return;
        }
    }
}

async fn poll(
    client: AsyncClient,
    mut events: EventLoop,
    filters: Vec<String>,
    incoming: mpsc::Sender<Incoming>,
    health: &Health,
) {
    let mut backoff = SHORTEST_BACKOFF;
    let mut told = false;
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                (backoff, told) = (SHORTEST_BACKOFF, false);
                health.connected.store(true, Ordering::SeqCst);
                health.connections.fetch_add(1, Ordering::SeqCst);
                info!("connected to the broker");
                for filter in &filters {
                    // The request queue has room: nothing else is queued from here.
                    if client.try_subscribe(filter.clone(), QoS::AtLeastOnce).is_err() {
                        warn!("no room to subscribe to {filter}; reconnecting");
                        events.clean();
                    }
                }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                let message = Incoming { topic, payload: publish.payload.to_vec() };
                if incoming.send(message).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => {
                health.connected.store(false, Ordering::SeqCst);
                if !told {
                    warn!("no broker: {error}; trying again, up to every 30 s");
                    told = true;
                }
                tokio::time::sleep(jittered(backoff)).await;
                backoff = (2 * backoff).min(LONGEST_BACKOFF);
            }
        }
    }
}

/// Between half and the whole of a pause, so that a fleet of workers does not return in one moment.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [128];
    // Without entropy the pause is three quarters: still a pause.
    let _ = SystemEntropy.fill(&mut byte);
    pause.mul_f64(0.5 + f64::from(byte[0]) / 512.0)
}

fn client_config(tls: &TlsConfig) -> Result<rustls::ClientConfig, MqttError> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let wrong = |path: &std::path::Path| {
        let path = path.to_owned();
        move |reason: String| MqttError::Tls { path: path.clone(), reason }
    };
    let read = |path: &std::path::Path| {
        let list =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        list.map_err(|error| wrong(path)(error.to_string()))
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in read(&tls.authority)? {
        roots.add(certificate).map_err(|error| wrong(&tls.authority)(error.to_string()))?;
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|error| wrong(&tls.key)(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&tls.authority)(error.to_string()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(read(&tls.certificate)?, key)
        .map_err(|error| wrong(&tls.certificate)(error.to_string()))
}
