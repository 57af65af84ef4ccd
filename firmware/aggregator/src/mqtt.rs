//! The carrier over MQTT 5.
//!
//! One connection a worker, on a thread with a small runtime of its own. Sessions persist under stable client ids;
//! packets have room for the largest message; back-off is ours, since the client has none. Incoming messages wait in
//! a bounded queue, which slows the broker down; outgoing ones are queued, within bounds, by workers that never wait for the network,
//! so the two directions cannot block each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use learn::edges::{Entropy, SystemEntropy};
use proto::Topic;
use proto::topic::filter;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, Packet, PubAckReason, RetainForwardRule, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

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

/// A connection that lasted this long was a good one: the next attempt after it comes soon.
const STABLE: Duration = Duration::from_secs(5);

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
    /// Whether the broker is there, and lets this connection hear what it is to hear.
    pub connected: AtomicBool,
    /// Subscriptions and messages that the broker has refused.
    pub refused: AtomicU64,
    /// Of these, the subscriptions on the last connection that was made.
    pub refused_now: AtomicU64,
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
        let until = Instant::now() + patience;
        while Instant::now() < until {
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
    /// with its worker. `tag` is [`crate::keys::client_tag`]. `connected` is called at every connection,
    /// before anything comes in over it.
    ///
    /// # Errors
    /// Certificates that cannot be used.
    pub fn start(
        broker: &BrokerConfig,
        (channel, tag): (&str, &str),
        number: u16,
        health: &Arc<Health>,
        connected: impl Fn() + Send + 'static,
    ) -> Result<(Mqtt, JoinHandle<()>), MqttError> {
        let name = SessionNames { channel, tag, workers: broker.workers };
        let id = name.client_id(&broker.client, number);
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
        let filters = name.filters(number);
        let (health, shared) = (Arc::clone(health), Arc::clone(health));
        let name = format!("mqtt-{number}");
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else {
                warn!("no runtime for connection {number}");
                return;
            };
            let (ready, heard) = watch::channel(false);
            runtime.spawn(send_all(client.clone(), queued, heard));
            let session = Session { number, filters, incoming, connected, ready };
            runtime.block_on(session.poll(client, events, &shared));
        })?;
        Ok((Mqtt { incoming: received, outgoing, health }, thread))
    }
}

/// What sessions and the groups that share their work are named after.
///
/// The channel: two aggregators on one broker must not take over each other's sessions. The tag: whoever knows a client id,
/// and has any certificate of the fleet, can take over its session. The number of workers: the broker keeps the sessions of a
/// key or a number that was in use before for a while, and in a group of these they would take their share of the work.
struct SessionNames<'a> {
    channel: &'a str,
    tag: &'a str,
    workers: u16,
}

impl SessionNames<'_> {
    fn client_id(&self, client: &str, number: u16) -> String {
        let SessionNames { channel, tag, workers } = self;
        format!("{client}-{channel}-{number}of{workers}-{tag}")
    }

    /// What worker `number` listens to: the shared work, and its own lane; the first one also to who is there and what is
    /// announced.
    ///
    /// Only of these two it hears what the broker has kept. Any mirror may have messages kept in a lane, as many as it likes,
    /// and these would take the room of the statuses that are sent with them.
    fn filters(&self, number: u16) -> Vec<Filter> {
        let SessionNames { channel, tag, workers } = self;
        // A group each: rumqttd keeps one place in the log for each group, whatever its filters, and so loses messages.
        let shared = [
            ("updates", filter::UPDATES),
            ("jobs", filter::JOB_STATES),
            ("models", filter::MODEL_WANTED),
        ];
        let share = |(kind, topics)| {
            filter::shared(&format!("agg-{channel}-{tag}-{workers}-{kind}"), topics)
        };
        let rest = shared.into_iter().map(share).chain([filter::lane(number)]);
        let new_only = |path| Filter {
            retain_forward_rule: RetainForwardRule::Never,
            ..Filter::new(path, QoS::AtLeastOnce)
        };
        // Retained messages do not come through a shared subscription: one worker listens for who is there, and for what
        // another server may have announced, in whose place this one's own would come. A server with the same key and settings has
        // the same client id, so "no local" would keep back what it says.
        let kept = filter::statements(channel).into_iter().chain([filter::STATUS.to_owned()]);
        let kept = kept.map(|path| Filter::new(path, QoS::AtLeastOnce));
        kept.filter(|_| number == 0).chain(rest.map(new_only)).collect()
    }
}

/// Sends while `ready`: what went into the client's queue before would leave no room for the subscriptions.
async fn send_all(
    client: AsyncClient,
    mut queued: mpsc::Receiver<Outgoing>,
    mut ready: watch::Receiver<bool>,
) {
    while ready.wait_for(|ready| *ready).await.is_ok() {
        let Some(Outgoing { topic, payload, retain }) = queued.recv().await else { return };
        let sent = client.publish(topic.to_string(), QoS::AtLeastOnce, retain, payload).await;
        if sent.is_err() {
            return;
        }
    }
}

/// One worker's side of its connections, one after the other.
struct Session<F> {
    number: u16,
    filters: Vec<Filter>,
    incoming: mpsc::Sender<Incoming>,
    connected: F,
    /// Whether the subscriptions are on their way, on the connection at hand.
    ready: watch::Sender<bool>,
}

impl<F: Fn()> Session<F> {
    async fn poll(self, client: AsyncClient, mut events: EventLoop, health: &Health) {
        let (mut backoff, mut since) = (SHORTEST_BACKOFF, None::<Instant>);
        let (mut told, mut complained) = (false, false);
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    since = Some(Instant::now());
                    (self.connected)();
                    health.refused_now.store(0, Ordering::SeqCst);
                    health.connected.store(true, Ordering::SeqCst);
                    health.connections.fetch_add(1, Ordering::SeqCst);
                    info!("connected to the broker");
                    for filter in &self.filters {
                        // The request queue has room: nothing else is queued before these.
                        if client.try_subscribe_many([filter.clone()]).is_err() {
                            warn!("no room to subscribe to {}; reconnecting", filter.path);
                            events.clean();
                        }
                    }
                    self.ready.send_replace(true);
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    let (payload, retained) = (publish.payload.to_vec(), publish.retain);
                    let message = Incoming { topic, payload, retained };
                    if self.incoming.send(message).await.is_err() {
                        return;
                    }
                }
                Ok(Event::Incoming(packet)) => {
                    let Some(refusal) = Refused::of(&packet) else { continue };
                    health.refused.fetch_add(1, Ordering::SeqCst);
                    // What it cannot hear it will not hear on this connection, whatever else works.
                    if matches!(refusal, Refused::Subscription(_)) {
                        health.refused_now.fetch_add(1, Ordering::SeqCst);
                        health.connected.store(false, Ordering::SeqCst);
                    }
                    if !complained {
                        error!("worker {}: {refusal}", self.number);
                        complained = true;
                    }
                }
                Ok(Event::Outgoing(_)) => {}
                Err(error) => {
                    self.ready.send_replace(false);
                    health.connected.store(false, Ordering::SeqCst);
                    // Kept, it would hold back whatever comes after it, and a broker that has lost the session never
                    // acknowledges what it waits for. What it says is asked for again, or announced again.
                    events.state.collision = None;
                    // Somebody else with the same client id, or a broker that hangs up, is no reason to come back at once.
                    if since.take().is_some_and(|since| since.elapsed() > STABLE) {
                        (backoff, told, complained) = (SHORTEST_BACKOFF, false, false);
                    }
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
}

/// What the broker would not do, and its reason.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error(
        "the broker refuses a subscription ({0:?}); its access list must let the common name of this server's certificate, \
         `aggregator` in the sample, read what mirrors send. Mend it and restart the broker"
    )]
    Subscription(SubscribeReasonCode),
    #[error(
        "the broker refuses a message ({0:?}); its access list must let the common name of this server's certificate, \
         `aggregator` in the sample, write to mirrors. Mend it and restart the broker"
    )]
    Message(PubAckReason),
}

impl Refused {
    fn of(packet: &Packet) -> Option<Refused> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::v5::mqttbytes::v5::{PubAck, Publish, SubAck};
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn no_session_of_another_number_of_workers_shares_the_work() {
        let of = |workers| SessionNames { channel: "stable", tag: "0123", workers };
        let paths = |workers, number| -> Vec<String> {
            of(workers).filters(number).into_iter().map(|filter| filter.path).collect()
        };
        let shared = |workers| paths(workers, 1)[..3].to_vec();
        assert!(shared(2)[0].starts_with("$share/agg-stable-0123-2-updates/"), "{:?}", shared(2));
        assert!(shared(2).iter().all(|filter| !shared(3).contains(filter)));
        assert_ne!(of(2).client_id("aggregator", 1), of(3).client_id("aggregator", 1));
    }

    #[test]
    fn only_of_who_is_there_is_heard_what_the_broker_has_kept_and_that_first() {
        let names = SessionNames { channel: "stable", tag: "0123", workers: 2 };
        let rules = |number| -> Vec<RetainForwardRule> {
            names.filters(number).into_iter().map(|filter| filter.retain_forward_rule).collect()
        };
        assert_eq!(names.filters(0)[2].path, filter::STATUS);
        assert_eq!(rules(0)[2], RetainForwardRule::OnEverySubscribe);
        let hears_itself = |filter: &Filter| !filter.nolocal;
        assert!(names.filters(0).iter().all(hears_itself), "and its like with the same client id");
        let is_never = |rule: &RetainForwardRule| *rule == RetainForwardRule::Never;
        assert!(rules(0)[3..].iter().all(is_never) && rules(1).iter().all(is_never));
    }

    #[test]
    fn what_the_broker_refuses_is_told_from_what_it_does() {
        let (fine, denied) =
            (SubscribeReasonCode::Success(QoS::AtLeastOnce), SubscribeReasonCode::NotAuthorized);
        let subscribed =
            |return_codes| Packet::SubAck(SubAck { pkid: 1, return_codes, properties: None });
        let published = |reason| Packet::PubAck(PubAck { pkid: 1, reason, properties: None });
        assert_eq!(Refused::of(&subscribed(vec![fine])), None);
        assert_eq!(
            Refused::of(&subscribed(vec![fine, denied])),
            Some(Refused::Subscription(denied))
        );
        assert_eq!(Refused::of(&published(PubAckReason::NoMatchingSubscribers)), None);
        let told = Refused::of(&published(PubAckReason::NotAuthorized)).unwrap().to_string();
        assert!(told.contains("access list") && told.contains("common name"), "{told}");
    }

    /// Takes a connection, as a broker that has no session for it.
    fn welcome(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 2];
        stream.read_exact(&mut head).unwrap();
        stream.read_exact(&mut vec![0; head[1].into()]).unwrap();
        stream.write_all(&[0x20, 3, 0, 0, 0]).unwrap();
        stream
    }

    #[test]
    fn what_waits_for_a_lost_acknowledgement_holds_nothing_back_on_the_next_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let options = MqttOptions::new("aggregator", "127.0.0.1", port);
        let (client, mut events) = AsyncClient::new(options, QUEUE);
        events.state.collision = Some(Publish::new("topic", QoS::AtLeastOnce, "late", None));
        let (incoming, _worker) = mpsc::channel(QUEUE);
        let filters = vec![Filter::new("all", QoS::AtLeastOnce)];
        let (ready, _heard) = watch::channel(false);
        let session = Session { number: 0, filters, incoming, connected: || {}, ready };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(session.poll(client, events, &Health::default()));
        });
        drop(welcome(&listener));
        let mut stream = welcome(&listener);
        // Only to end a test that is stuck.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut kind = [0];
        stream.read_exact(&mut kind).unwrap();
        assert_eq!(kind[0] >> 4, 8, "a subscription");
    }
}
