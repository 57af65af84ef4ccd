//! The carrier over MQTT 5.
//!
//! One connection a worker, on a thread with a small runtime of its own. Sessions persist under stable client ids;
//! packets have room for the largest message; back-off is ours, since the client has none. Incoming messages wait in
//! a bounded queue, which slows the broker down; outgoing ones are queued, within bounds, by workers that never wait for the network,
//! so the two directions cannot block each other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use learn::edges::{Entropy, SystemEntropy};
use link::{Attempts, Backoff, begin_anew, check_size, largest_packet, next_event};
use proto::Topic;
use proto::topic::filter;
use proto::wire::PACKET_BYTES;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Filter, Packet, Publish, RetainForwardRule};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::carrier::{Carrier, Health, Incoming, Outgoing};
use crate::config::{BrokerConfig, TlsConfig};

/// Messages that wait for a worker.
const QUEUE: usize = 256;

/// Messages that wait to be sent. What does not fit is dropped, like on a connection that breaks: devices ask again.
const OUTGOING: usize = 1024;

/// Places of [`OUTGOING`] that parts of models leave to other messages: they are large, and receipts must not be dropped
/// for them.
const RESERVED: usize = 512;

/// Messages that wait for the broker's acknowledgement. rumqttc makes a table of this size at once; its default of
/// 65,535 takes 14 MB a connection.
const IN_FLIGHT: u16 = 1024;

/// Seconds that the broker keeps a session for a worker that is away.
const SESSION_SECONDS: u32 = 3600;

/// At least so often something is said on a connection, unless the broker asks for another rhythm on it.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

const RECONNECT: Backoff =
    Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(30) };

/// Why there is no connection to try.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum MqttError {
    #[error("cannot use {path} for TLS: {reason}")]
    Tls { path: std::path::PathBuf, reason: String },
    #[error(
        "cannot start a connection's thread: {0}; free memory, or raise the limits of threads and of open files"
    )]
    Thread(#[from] std::io::Error),
}

impl Health {
    fn begin(&self) {
        self.refused_now.store(0, Ordering::SeqCst);
        self.connected.store(true, Ordering::SeqCst);
        self.connections.fetch_add(1, Ordering::SeqCst);
    }

    fn note(&self, refused: &Refused) {
        self.refused.fetch_add(1, Ordering::SeqCst);
        let may_pass = matches!(refused, Refused::ByBroker(refused) if refused.may_pass());
        self.refused_now.fetch_add(u64::from(!may_pass), Ordering::SeqCst);
        self.put_off.fetch_add(u64::from(may_pass), Ordering::SeqCst);
        // What it cannot hear it will not hear on this connection, whatever else works.
        if matches!(refused, Refused::ByBroker(link::Refused::Subscription(_))) {
            self.connected.store(false, Ordering::SeqCst);
        }
    }
}

/// One worker's connection.
pub struct Mqtt {
    /// Of the thread that carries it; times the waiting for `incoming`.
    runtime: Handle,
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
        if patience.is_zero() {
            return None;
        }
        let next = async { tokio::time::timeout(patience, self.incoming.recv()).await };
        let next = self.runtime.block_on(next).unwrap_or_default();
        if next.is_none() && self.incoming.is_closed() {
            // Its thread is gone, which ends the server.
            std::thread::sleep(patience);
        }
        next
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
        options.set_keep_alive(KEEP_ALIVE);
        options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
        if let Some(tls) = &broker.tls {
            let config = Arc::new(client_config(tls)?);
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config)));
        }
        let mut network = rumqttc::NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        Ok(Mqtt::carry(options, name.filters(number), number, health, connected)?)
    }

    fn carry(
        options: MqttOptions,
        filters: Vec<Filter>,
        number: u16,
        health: &Arc<Health>,
        connected: impl Fn() + Send + 'static,
    ) -> std::io::Result<(Mqtt, JoinHandle<()>)> {
        let (host, port) = options.broker_address();
        let broker = format!("{host}:{port}");
        let (client, connection) = AsyncClient::new(options, QUEUE);
        let (incoming, received) = mpsc::channel(QUEUE);
        let (outgoing, queued) = mpsc::channel(OUTGOING);
        let (largest, ready) = watch::channel(0);
        let sending = send_all(client.clone(), queued, ready, Arc::clone(health));
        let session = Session {
            number,
            broker,
            filters,
            client,
            incoming,
            connected,
            largest,
            health: Arc::clone(health),
            attempts: Attempts::new(RECONNECT),
            told: Told::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, health) = (runtime.handle().clone(), Arc::clone(health));
        let thread =
            std::thread::Builder::new().name(format!("mqtt-{number}")).spawn(move || {
                runtime.spawn(sending);
                runtime.block_on(session.run(connection));
            })?;
        Ok((Mqtt { runtime: handle, incoming: received, outgoing, health }, thread))
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

/// Sends what is queued while `largest`, the bytes of the largest packet that the broker takes, is more than 0: what went into the
/// client's queue before would leave no room for the subscriptions. What is larger is dropped: it would end the connection, and
/// the next one as well once somebody asks for it again.
async fn send_all(
    client: AsyncClient,
    mut queued: mpsc::Receiver<Outgoing>,
    mut largest: watch::Receiver<u32>,
    health: Arc<Health>,
) {
    let mut told = 0;
    while let Some(Outgoing { topic, payload, retain }) = queued.recv().await {
        let topic = topic.to_string();
        let publish = Publish::new(topic.clone(), QoS::AtLeastOnce, payload, None);
        // A connection that was lost: what the next one refuses is told anew.
        if *largest.borrow() == 0 {
            told = 0;
        }
        let limit = match largest.wait_for(|limit| *limit > 0).await {
            Ok(limit) => *limit,
            Err(_) => return,
        };
        if let Err(too_large) = check_size(&publish, limit, PACKET_BYTES) {
            let refused = Refused::TooLarge(too_large);
            health.note(&refused);
            if told != limit {
                error!("{refused}");
                told = limit;
            }
            continue;
        }
        let sent = client.publish(topic, QoS::AtLeastOnce, retain, publish.payload).await;
        if sent.is_err() {
            return;
        }
    }
}

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Link(#[from] link::Broken),
    #[error("no room to subscribe to {0}")]
    NoRoom(String),
}

/// A moment within a span, so that a fleet of workers does not return in one.
fn drawn(span: Duration) -> Duration {
    let mut byte = [128];
    // Without entropy it is the middle: still a pause.
    let _ = SystemEntropy.fill(&mut byte);
    span.mul_f64(f64::from(byte[0]) / 255.0)
}

/// One worker's side of its connections, one after the other.
struct Session<F> {
    number: u16,
    /// Host and port, for messages.
    broker: String,
    filters: Vec<Filter>,
    client: AsyncClient,
    incoming: mpsc::Sender<Incoming>,
    connected: F,
    /// Bytes of the largest packet that the broker takes, once the subscriptions are on their way on the connection at hand; else 0.
    largest: watch::Sender<u32>,
    health: Arc<Health>,
    attempts: Attempts,
    told: Told,
}

impl<F: Fn()> Session<F> {
    /// Ends with the worker, at the next event.
    async fn run(mut self, mut connection: EventLoop) {
        while !self.incoming.is_closed() {
            let Err(broken) = self.step(&mut connection).await else {
                if self.told.has_come_back(Instant::now()) {
                    info!("worker {}: the connection to the broker holds", self.number);
                }
                continue;
            };
            // At once, or the broker would go on sending to it.
            connection.clean();
            self.end(&broken);
            tokio::time::sleep(self.attempts.pause(drawn)).await;
            // What it said is asked for again, or announced again.
            begin_anew(&mut connection, IN_FLIGHT, KEEP_ALIVE);
        }
    }

    async fn step(&mut self, connection: &mut EventLoop) -> Result<(), Broken> {
        match next_event(connection).await? {
            Event::Incoming(Packet::ConnAck(welcome)) => self.begin(&welcome)?,
            Event::Incoming(Packet::Publish(publish)) => self.hand_over(publish).await,
            Event::Incoming(packet) => {
                let refused = link::Refused::of(&packet).map(Refused::ByBroker);
                refused.iter().for_each(|refused| self.refused(refused));
            }
            Event::Outgoing(_) => {}
        }
        Ok(())
    }

    fn begin(&mut self, welcome: &ConnAck) -> Result<(), Broken> {
        self.attempts.connected();
        (self.connected)();
        self.health.begin();
        if self.told.is_first(Instant::now()) {
            info!("worker {}: connected to the broker", self.number);
        }
        for filter in &self.filters {
            let subscribed = self.client.try_subscribe_many([filter.clone()]);
            // The request queue has room: nothing else is queued before these.
            subscribed.map_err(|_| Broken::NoRoom(filter.path.clone()))?;
        }
        self.largest.send_replace(largest_packet(welcome));
        Ok(())
    }

    async fn hand_over(&self, publish: Publish) {
        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
        let (payload, retained) = (publish.payload.to_vec(), publish.retain);
        let expiry = publish.properties.and_then(|properties| properties.message_expiry_interval);
        let expiry = expiry.map(|seconds| Duration::from_secs(seconds.into()));
        // Fails where the worker is gone, which ends the session.
        let _ = self.incoming.send(Incoming { topic, payload, retained, expiry }).await;
    }

    fn refused(&mut self, refused: &Refused) {
        self.health.note(refused);
        if !std::mem::replace(&mut self.told.refusal, true) {
            error!("worker {}: {refused}", self.number);
        }
    }

    fn end(&mut self, broken: &Broken) {
        self.largest.send_replace(0);
        self.health.connected.store(false, Ordering::SeqCst);
        self.attempts.ended();
        if let Some(absence) = self.told.new_absence(Instant::now()) {
            warn!("worker {}: {}", self.number, away(absence, &self.broker, broken));
        }
    }
}

/// A connection that ends sooner does not count: two servers with one key throw each other off again and again.
const HOLDS: Duration = Duration::from_secs(60);

/// How an absence of the broker begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absence {
    /// There was a connection.
    Lost,
    /// There was none.
    Unreached,
}

/// What the log says of a worker's connections.
#[derive(Default)]
struct Told {
    /// Since when there is a connection.
    since: Option<Instant>,
    /// That there was a first one.
    first: bool,
    /// That there is none, until one holds.
    away: bool,
    /// What the broker refuses, until one that held has ended.
    refusal: bool,
}

impl Told {
    /// Takes that there is a connection. Says whether it is to be told.
    fn is_first(&mut self, now: Instant) -> bool {
        self.since = Some(now);
        !std::mem::replace(&mut self.first, true)
    }

    /// Whether the connection is the first to hold after an absence that was told.
    fn has_come_back(&mut self, now: Instant) -> bool {
        self.away && self.holds(now) && std::mem::take(&mut self.away)
    }

    /// Takes that there is no connection any more, or still none. Gives how it began where it is to be told.
    fn new_absence(&mut self, now: Instant) -> Option<Absence> {
        if self.holds(now) {
            (self.away, self.refusal) = (false, false);
        }
        let lost = self.since.take().map(|_| Absence::Lost);
        let is_new = !std::mem::replace(&mut self.away, true);
        is_new.then_some(lost.unwrap_or(Absence::Unreached))
    }

    fn holds(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= HOLDS)
    }
}

/// What to say while there is no connection to this broker that holds.
fn away(absence: Absence, broker: &str, broken: &Broken) -> String {
    match absence {
        Absence::Lost => format!(
            "the connection to {broker} was lost: {broken}; trying again, and silent about it until one holds for a minute"
        ),
        Absence::Unreached => format!(
            "no broker at {broker}: {broken}; see that it runs, and broker.host and broker.port. Trying again, up to every 30 s"
        ),
    }
}

/// What was not done, and the next step.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("the broker refuses {0}; {next}", next = next_step(*.0))]
    ByBroker(link::Refused),
    #[error(transparent)]
    TooLarge(link::TooLarge),
}

fn next_step(refused: link::Refused) -> String {
    if !refused.is_access() {
        return "the broker's log says why: a limit of its settings, or something that they switch off"
            .to_owned();
    }
    let right = match refused {
        link::Refused::Subscription(_) => "read what mirrors send",
        link::Refused::Message(_) => "write to mirrors",
    };
    format!(
        "its access list must let the common name of this server's certificate, `aggregator` in the sample, {right}. Mend it and \
         restart the broker"
    )
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
    use rumqttc::v5::mqttbytes::v5::PubAckReason;
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
    fn a_quota_is_no_matter_of_the_access_list_and_says_nothing_of_what_follows() {
        let message = |reason| Refused::ByBroker(link::Refused::Message(reason));
        let (quota, denied) =
            (message(PubAckReason::QuotaExceeded), message(PubAckReason::NotAuthorized));
        let told = [&quota, &denied].map(Refused::to_string);
        assert!(told[0].contains("QuotaExceeded") && !told[0].contains("access list"), "{told:?}");
        assert!(told[1].contains("access list") && told[1].contains("common name"), "{told:?}");
        let health = Health::default();
        let counts = || {
            [&health.refused, &health.refused_now, &health.put_off]
                .map(|count| count.load(Ordering::SeqCst))
        };
        health.note(&quota);
        assert_eq!(counts(), [1, 0, 1]);
        health.note(&denied);
        assert_eq!(counts(), [2, 1, 1]);
        health.begin();
        assert_eq!(counts(), [2, 0, 1], "what is refused is found out anew");
    }

    /// Only to end a test that is stuck.
    const PATIENCE: Duration = Duration::from_secs(20);

    const SUBSCRIBE: u8 = 8;
    const PUBLISH: u8 = 3;

    /// Takes a connection, as a broker that says this of itself; gives what came with it, too.
    fn welcome(listener: &TcpListener, properties: &[u8]) -> (TcpStream, Vec<u8>) {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (_, connect) = packet(&mut stream);
        let length = properties.len() as u8;
        stream.write_all(&[&[0x20, length + 3, 1, 0, length][..], properties].concat()).unwrap();
        (stream, connect)
    }

    /// The next packet, of fewer than 128 bytes: its kind and its body.
    fn packet(stream: &mut TcpStream) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        stream.read_exact(&mut head).unwrap();
        let mut body = vec![0; head[1].into()];
        stream.read_exact(&mut body).unwrap();
        (head[0] >> 4, body)
    }

    /// The id of a subscription or of a message, and what the message says.
    fn heard(stream: &mut TcpStream, wanted: u8) -> (u16, Vec<u8>) {
        let (kind, body) = packet(stream);
        assert_eq!(kind, wanted);
        let at = if kind == PUBLISH { 2 + usize::from(body[1]) } else { 0 };
        (u16::from_be_bytes([body[at], body[at + 1]]), body[at + 3..].to_vec())
    }

    fn acknowledge(stream: &mut TcpStream, id: u16) {
        let [high, low] = id.to_be_bytes();
        stream.write_all(&[0x40, 2, high, low]).unwrap();
    }

    /// A worker that listens to one topic at this broker.
    fn worker(listener: &TcpListener) -> Mqtt {
        let port = listener.local_addr().unwrap().port();
        let mut options = MqttOptions::new("aggregator", "127.0.0.1", port);
        options.set_clean_start(false).set_keep_alive(KEEP_ALIVE);
        options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
        let filters = vec![Filter::new("all", QoS::AtLeastOnce)];
        Mqtt::carry(options, filters, 0, &Arc::default(), || {}).unwrap().0
    }

    fn say(worker: &mut Mqtt, payload: Vec<u8>) {
        let topic = Topic::JobNotify("mirror-17".parse().unwrap());
        worker.send(Outgoing { topic, payload, retain: false });
    }

    #[test]
    fn every_connection_begins_anew_with_the_limits_of_its_broker() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut worker = worker(&listener);
        say(&mut worker, b"lost".to_vec());
        // Keep-alive 7 s.
        let (mut stream, _) = welcome(&listener, &[0x13, 0, 7]);
        assert_eq!(heard(&mut stream, SUBSCRIBE).0, 1);
        assert_eq!(heard(&mut stream, PUBLISH), (2, b"lost".to_vec()));
        drop(stream);
        // Two messages at a time.
        let (mut stream, connect) = welcome(&listener, &[0x21, 0, 2]);
        assert_eq!(connect[8..10], [0, KEEP_ALIVE.as_secs() as u8]);
        assert_eq!(heard(&mut stream, SUBSCRIBE).0, 1, "what waited holds nothing back");
        for (id, text) in [(2, "one"), (1, "two"), (2, "three")] {
            say(&mut worker, text.into());
            assert_eq!(heard(&mut stream, PUBLISH), (id, text.into()));
            acknowledge(&mut stream, id);
        }
    }

    #[test]
    fn a_topic_alias_ends_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut worker = worker(&listener);
        // QoS 0, topic "t", alias 1, nothing in it; then no alias.
        let (mut stream, _) = welcome(&listener, &[]);
        stream.write_all(&[0x30, 7, 0, 1, b't', 3, 0x23, 0, 1]).unwrap();
        let (mut stream, _) = welcome(&listener, &[]);
        stream.write_all(&[0x30, 6, 0, 1, b't', 0, b'o', b'k']).unwrap();
        assert_eq!(worker.receive(PATIENCE).unwrap().payload, b"ok");
    }

    #[test]
    fn a_broker_that_takes_no_message_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut worker = worker(&listener);
        // Receive Maximum 0.
        let (stream, _) = welcome(&listener, &[0x21, 0, 0]);
        let (sender, again) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(welcome(&listener, &[])));
        let (mut next, _) = again.recv_timeout(PATIENCE).unwrap();
        assert_eq!(heard(&mut next, SUBSCRIBE).0, 1);
        say(&mut worker, b"ok".to_vec());
        assert_eq!(heard(&mut next, PUBLISH), (2, b"ok".to_vec()));
        drop(stream);
    }

    #[test]
    fn how_long_a_message_holds_comes_with_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut worker = worker(&listener);
        let (mut stream, _) = welcome(&listener, &[]);
        // Retained, of QoS 0, topic "t": one that holds for 7,200 s, and one without end.
        stream.write_all(&[0x31, 10, 0, 1, b't', 5, 0x02, 0, 0, 0x1c, 0x20, b'a']).unwrap();
        stream.write_all(&[0x31, 5, 0, 1, b't', 0, b'b']).unwrap();
        let mut expiry = || worker.receive(PATIENCE).unwrap().expiry;
        assert_eq!((expiry(), expiry()), (Some(Duration::from_secs(7200)), None));
    }

    #[test]
    fn a_broker_that_takes_nothing_any_more_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut worker = worker(&listener);
        // Keep-alive 1 s; it reads nothing more, and its kernel keeps the connection.
        let (stream, _) = welcome(&listener, &[0x13, 0, 1]);
        // More than the kernel takes off a sender's hands.
        say(&mut worker, vec![0; 64 << 20]);
        let (sender, again) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(welcome(&listener, &[])));
        again.recv_timeout(PATIENCE).unwrap();
        drop(stream);
    }

    #[test]
    fn connections_that_end_at_once_are_in_the_log_once_and_the_next_that_holds() {
        let (mut told, start) = (Told::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(told.is_first(at(0)) && !told.has_come_back(at(100)), "it was never away");
        told.refusal = true;
        assert_eq!(told.new_absence(at(200)), Some(Absence::Lost));
        assert!(!told.refusal);
        told.refusal = true;
        for second in (200..900).step_by(10) {
            assert!(!told.is_first(at(second)) && !told.has_come_back(at(second + 9)));
            assert_eq!(told.new_absence(at(second + 9)), None, "told at {second}");
        }
        assert!(told.refusal && !told.is_first(at(1000)));
        assert!(told.has_come_back(at(1060)) && !told.has_come_back(at(1061)));
        assert_eq!(told.new_absence(at(1100)), Some(Absence::Lost));
        assert_eq!(told.new_absence(at(1130)), None);
        assert_eq!(Told::default().new_absence(start), Some(Absence::Unreached));
    }

    /// How often this thread has gone to sleep.
    fn sleeps() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let mut lines = status.lines();
        let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.unwrap().trim().parse().unwrap()
    }

    #[test]
    fn a_worker_without_work_sleeps() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut worker = worker(&listener);
        let before = sleeps();
        assert!(worker.receive(Duration::from_millis(500)).is_none());
        assert!(sleeps() - before < 50, "it looked {} times", sleeps() - before);
    }

    #[test]
    fn a_broker_that_cannot_be_reached_is_named_with_its_settings_and_one_that_was_lost_without() {
        let told = |absence| away(absence, "home.example:8884", &link::Broken::TakesNothing.into());
        let (unreached, lost) = (told(Absence::Unreached), told(Absence::Lost));
        for words in ["at home.example:8884", "Receive Maximum is 0", "broker.host and broker.port"]
        {
            assert!(unreached.contains(words), "{unreached}");
        }
        let begins = "the connection to home.example:8884 was lost: ";
        assert!(lost.starts_with(begins) && lost.contains("Receive Maximum is 0"), "{lost}");
        assert!(!lost.contains("no broker") && !lost.contains("broker.host"), "{lost}");
    }

    #[test]
    fn what_is_too_large_for_the_broker_is_dropped_and_ends_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut worker = worker(&listener);
        // Packets of 100 bytes.
        let (mut stream, _) = welcome(&listener, &[0x27, 0, 0, 0, 100]);
        assert_eq!(heard(&mut stream, SUBSCRIBE).0, 1);
        let topic = Topic::JobNotify("mirror-17".parse().unwrap()).to_string();
        let fits = 100 - (2 + 2 + topic.len() + 2 + 1);
        say(&mut worker, vec![b'x'; fits + 1]);
        say(&mut worker, vec![b'y'; fits]);
        assert_eq!(heard(&mut stream, PUBLISH), (2, vec![b'y'; fits]));
        let health = &worker.health;
        assert_eq!(health.refused_now.load(Ordering::SeqCst), 1);
        let too_large = link::TooLarge { bytes: 101, limit: 100, needed: PACKET_BYTES };
        let told = Refused::TooLarge(too_large).to_string();
        assert!(told.contains("max_packet_size") && told.contains("to 67584"), "{told}");
    }
}
