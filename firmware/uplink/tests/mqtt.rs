//! The connection against a scripted broker.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use uplink::mqtt::{Endpoint, Mqtt};
use uplink::pace::Jitter;
use uplink::tls;
use uplink::transport::{Event, Requests, Retained, Transport};

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const SUBSCRIBE: u8 = 8;

/// Only to end a test that is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// CONNACK of MQTT 5: the session is still there, success, no properties.
const WELCOME: [u8; 5] = [0x20, 3, 1, 0, 0];

/// The next packet, of fewer than 128 bytes: its kind and its body.
fn packet(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; head[1].into()];
    stream.read_exact(&mut body).unwrap();
    (head[0] >> 4, body)
}

/// The next connection, which is answered with this, and the body of its first packet.
fn let_in(listener: &TcpListener, answer: &[u8]) -> (TcpStream, Vec<u8>) {
    let (mut stream, _) = listener.accept().unwrap();
    let (kind, body) = packet(&mut stream);
    assert_eq!(kind, CONNECT);
    stream.write_all(answer).unwrap();
    (stream, body)
}

/// Takes `connections` in turn, and cuts each after its first message, without an acknowledgement. Gives the messages.
fn broker(listener: &TcpListener, connections: usize) -> Vec<Vec<u8>> {
    let first_message = |_| {
        let (mut stream, _) = let_in(listener, &WELCOME);
        let (kind, body) = packet(&mut stream);
        assert_eq!(kind, PUBLISH);
        body
    };
    (0..connections).map(first_message).collect()
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        host: "127.0.0.1".into(),
        port,
        client_id: "mirror-17".into(),
        tls: None,
        certificate_end: None,
        login: None,
        will: Retained { topic: "will".into(), payload: b"gone".to_vec() },
        persistent: true,
    }
}

async fn wait_for(mqtt: &mut Mqtt, wanted: fn(&Event) -> bool) {
    while !wanted(&mqtt.next().await) {}
}

#[test]
fn nothing_is_carried_over_to_the_next_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = std::thread::spawn(move || broker(&listener, 2));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut mqtt, _handle) = Mqtt::start(endpoint(port), Jitter::new(1));
        let disconnected = |event: &Event| matches!(event, Event::Disconnected(_));
        wait_for(&mut mqtt, is_connected).await;
        assert!(mqtt.publish("topic", b"not acknowledged".to_vec(), false));
        wait_for(&mut mqtt, disconnected).await;
        assert!(mqtt.publish("topic", b"queued between".to_vec(), false));
        wait_for(&mut mqtt, is_connected).await;
        assert!(mqtt.publish("topic", b"still holds".to_vec(), false));
        wait_for(&mut mqtt, disconnected).await;
    });
    let messages = broker.join().unwrap();
    assert!(messages[0].ends_with(b"not acknowledged"));
    assert!(messages[1].ends_with(b"still holds"), "{:?}", messages[1].escape_ascii().to_string());
}

/// A CONNACK with these properties.
fn welcome(properties: &[u8]) -> Vec<u8> {
    let length = properties.len() as u8;
    [&[0x20, length + 3, 1, 0, length][..], properties].concat()
}

/// The id of a message, which is acknowledged.
fn acknowledge(stream: &mut TcpStream) -> u16 {
    let (kind, body) = packet(stream);
    assert_eq!(kind, PUBLISH);
    let at = 2 + usize::from(body[1]);
    stream.write_all(&[0x40, 2, body[at], body[at + 1]]).unwrap();
    u16::from_be_bytes([body[at], body[at + 1]])
}

fn is_connected(event: &Event) -> bool {
    *event == Event::Connected
}

/// Why the connection ends, with nothing before that but it.
async fn end(mqtt: &mut Mqtt) -> String {
    let next = tokio::time::timeout(PATIENCE, mqtt.next());
    let Ok(Event::Disconnected(reason)) = next.await else { panic!("something else") };
    reason
}

#[test]
fn every_connection_begins_anew_with_the_limits_of_its_broker() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Of the first broker: keep-alive 7 s; of the second: two messages at a time.
    let broker = std::thread::spawn(move || {
        let (mut stream, _) = let_in(&listener, &welcome(&[0x13, 0, 7]));
        let first = [(); 3].map(|()| acknowledge(&mut stream));
        drop(stream);
        let (mut stream, connect) = let_in(&listener, &welcome(&[0x21, 0, 2]));
        let second = [(); 3].map(|()| acknowledge(&mut stream));
        (first, second, connect[8..10].to_vec())
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second, keep_alive) = runtime.block_on(async {
        let (mut mqtt, _handle) = Mqtt::start(endpoint(port), Jitter::new(1));
        for _ in 0..2 {
            wait_for(&mut mqtt, is_connected).await;
            for message in 0..3 {
                assert!(mqtt.publish("topic", vec![message], false));
            }
            wait_for(&mut mqtt, |event| matches!(event, Event::Disconnected(_))).await;
        }
        broker.join().unwrap()
    });
    assert_eq!((first, second), ([1, 2, 3], [1, 2, 1]));
    assert_eq!(keep_alive, [0, 60]);
}

#[test]
fn a_topic_alias_ends_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // QoS 0, topic "t", alias 1, nothing in it; then an alias that stands for no topic.
    let aliases: [&[u8]; 2] =
        [&[0x30, 7, 0, 1, b't', 3, 0x23, 0, 1], &[0x30, 6, 0, 0, 3, 0x23, 0, 2]];
    let broker = std::thread::spawn(move || {
        aliases.map(|alias| let_in(&listener, &[&WELCOME[..], alias].concat()).0)
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut mqtt, _handle) = Mqtt::start(endpoint(port), Jitter::new(1));
        for _ in aliases {
            assert_eq!(mqtt.next().await, Event::Connected);
            let reason = end(&mut mqtt).await;
            assert!(reason.contains("topic aliases"), "{reason}");
        }
    });
    drop(broker.join().unwrap());
}

#[test]
fn a_broker_that_takes_nothing_any_more_is_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Keep-alive 1 s; it reads nothing more, and its kernel keeps the connection.
    let broker = std::thread::spawn(move || let_in(&listener, &welcome(&[0x13, 0, 1])).0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut mqtt, _handle) = Mqtt::start(endpoint(port), Jitter::new(1));
        wait_for(&mut mqtt, is_connected).await;
        // More than the kernel takes off a sender's hands.
        assert!(mqtt.publish("topic", vec![0; 64 << 20], false));
        let reason = end(&mut mqtt).await;
        assert!(reason.contains("has taken nothing for 2 s"), "{reason}");
    });
    drop(broker.join().unwrap());
}

/// DISCONNECT: the server shuts down, for a reason of its own words.
fn farewell(words: &str) -> Vec<u8> {
    let text = [&[0x1f][..], &(words.len() as u16).to_be_bytes(), words.as_bytes()].concat();
    let properties = [long(text.len()), text].concat();
    [&[0xe0][..], &long(1 + properties.len()), &[0x8b], &properties].concat()
}

/// A length as three bytes.
fn long(length: usize) -> Vec<u8> {
    vec![length as u8 & 0x7f | 0x80, (length >> 7) as u8 & 0x7f | 0x80, (length >> 14) as u8]
}

#[test]
fn nothing_that_a_broker_writes_is_told_in_the_mirrors_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let words = farewell(&"somebody agreed\n".repeat(4_000));
    let (later, at_once) = ([&WELCOME[..], &words].concat(), words);
    let broker =
        std::thread::spawn(move || [later, at_once].map(|answer| let_in(&listener, &answer).0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut mqtt, _handle) = Mqtt::start(endpoint(port), Jitter::new(1));
        assert_eq!(mqtt.next().await, Event::Connected);
        assert_eq!(end(&mut mqtt).await, "the broker ended the connection (ServerShuttingDown)");
        let told = "the broker does not speak MQTT 5: it sent something else than a welcome";
        assert_eq!(end(&mut mqtt).await, told);
    });
    drop(broker.join().unwrap());
}

#[test]
fn what_the_broker_refuses_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Not authorised, to a subscription and to a message, after one that exceeds a quota; the connection stays.
    let broker = std::thread::spawn(move || {
        let (mut stream, _) = let_in(&listener, &WELCOME);
        let (kind, body) = packet(&mut stream);
        assert_eq!(kind, SUBSCRIBE);
        stream.write_all(&[0x90, 4, body[0], body[1], 0, 0x87]).unwrap();
        for reason in [0x97, 0x87] {
            let (kind, body) = packet(&mut stream);
            assert_eq!(kind, PUBLISH);
            let id = 2 + usize::from(body[1]);
            stream.write_all(&[0x40, 4, body[id], body[id + 1], reason, 0]).unwrap();
        }
        stream
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut mqtt, _handle) = Mqtt::start(endpoint(port), Jitter::new(1));
        wait_for(&mut mqtt, is_connected).await;
        assert!(mqtt.subscribe("mirror/v1/fleet/stable/round"));
        let Event::Refused { reason, .. } = mqtt.next().await else { panic!("a subscription") };
        assert!(reason.contains("a subscription (NotAuthorized)"), "{reason}");
        assert!(mqtt.publish("topic", b"one too many for now".to_vec(), false));
        assert!(mqtt.publish("topic", b"message".to_vec(), false));
        let Event::Refused { reason, is_access } = mqtt.next().await else { panic!("a message") };
        assert!(is_access);
        assert!(reason.contains("a message (NotAuthorized); its access list"), "{reason}");
    });
    drop(broker.join().unwrap());
}

#[test]
fn what_is_too_large_for_the_broker_is_told_and_not_sent_and_the_connection_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Packets of 100 bytes; the next broker takes any.
    let broker = std::thread::spawn(move || {
        [&[0x27, 0, 0, 0, 100][..], &[]].map(|limit| {
            let (mut stream, _) = let_in(&listener, &welcome(limit));
            packet(&mut stream).1
        })
    });
    // Kind and length, the topic and its length, the number, no properties.
    let fits = 100 - (2 + 7 + 2 + 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut mqtt, _handle) = Mqtt::start(endpoint(port), Jitter::new(1));
        wait_for(&mut mqtt, is_connected).await;
        assert!(mqtt.publish("topic", vec![b'x'; fits + 1], false), "it is not tried again");
        let Event::Refused { reason, is_access } = mqtt.next().await else { panic!("it went out") };
        assert!(!is_access);
        assert!(reason.contains("packets of 100 bytes") && reason.contains("has 101"), "{reason}");
        assert!(reason.contains("max_packet_size") && reason.contains("to 67584"), "{reason}");
        assert!(mqtt.publish("topic", vec![b'y'; fits], false));
        end(&mut mqtt).await;
        wait_for(&mut mqtt, is_connected).await;
        assert!(mqtt.publish("topic", vec![b'x'; fits + 1], false));
        end(&mut mqtt).await;
    });
    let [first, second] = broker.join().unwrap();
    assert!(first.ends_with(&vec![b'y'; fits]));
    assert!(second.ends_with(&vec![b'x'; fits + 1]), "every broker has its own limit");
}

#[test]
fn what_is_retained_for_a_while_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = std::thread::spawn(move || {
        let (mut stream, _) = let_in(&listener, &WELCOME);
        let mut message = [0; 21];
        stream.read_exact(&mut message).unwrap();
        message
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut mqtt, _handle) = Mqtt::start(endpoint(port), Jitter::new(1));
        wait_for(&mut mqtt, is_connected).await;
        assert!(mqtt.retain_for("topic", b"here".to_vec(), 7200));
        end(&mut mqtt).await;
    });
    // PUBLISH, QoS 1, retained; topic; number; Message Expiry Interval, 7,200 s; what is said.
    let expected = [&[0x33, 19, 0, 5][..], b"topic", &[0, 1, 5, 2, 0, 0, 0x1c, 0x20], b"here"];
    assert_eq!(broker.join().unwrap(), *expected.concat());
}

/// What a mirror says of a broker whose certificate holds from one year to another.
fn told_of(years: [i32; 2]) -> Event {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut wanted = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    [wanted.not_before, wanted.not_after] = years.map(|year| rcgen::date_time_ymd(year, 11, 1));
    let certificate = wanted.self_signed(&key).unwrap();
    let authority = certificate.pem();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        while tls.is_handshaking() && tls.complete_io(&mut stream).is_ok() {}
    });
    let given = tls::Given { what: "authority", next: "give another" };
    let tls = Some(tls::anonymous(authority.as_bytes(), given).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let event = runtime.block_on(async {
        let (mut mqtt, _handle) = Mqtt::start(Endpoint { tls, ..endpoint(port) }, Jitter::new(1));
        mqtt.next().await
    });
    broker.join().unwrap();
    event
}

#[test]
fn a_certificate_that_has_ended_or_not_begun_is_told_in_the_same_words_with_what_to_do() {
    let ended = "the broker's certificate ended on 2021-11-01; give the broker a new one, or let the mirror reach a time server, if it is not ";
    let Event::Untrusted(told) = told_of([2020, 2021]) else { panic!("it has ended") };
    let today = told.strip_prefix(ended).unwrap().strip_suffix(" today").unwrap();
    assert!("2026-11-29" < today && today.len() == 10, "{told}");
    let early = "the mirror's clock is before 2999-11-01, when the broker's certificate begins; let the mirror reach a time server";
    assert_eq!(told_of([2999, 3000]), Event::Untrusted(early.into()));
    let never = "the broker's certificate never held; give the broker a new one";
    assert_eq!(told_of([2021, 2020]), Event::Untrusted(never.into()));
    // It holds; what ends the connection is that nobody answers as a broker.
    assert!(matches!(told_of([2020, 3000]), Event::Disconnected(_)));
}
