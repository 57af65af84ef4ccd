//! The connection against a scripted broker.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use uplink::mqtt::{Endpoint, Mqtt};
use uplink::pace::Jitter;
use uplink::transport::{Event, Requests, Retained, Transport};

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const SUBSCRIBE: u8 = 8;

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

/// Takes `connections` in turn, and cuts each after its first message, without an acknowledgement. Gives the messages.
fn broker(listener: &TcpListener, connections: usize) -> Vec<Vec<u8>> {
    let first_message = |_| {
        let (mut stream, _) = listener.accept().unwrap();
        assert_eq!(packet(&mut stream).0, CONNECT);
        stream.write_all(&WELCOME).unwrap();
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
        let connected = |event: &Event| *event == Event::Connected;
        let disconnected = |event: &Event| matches!(event, Event::Disconnected(_));
        wait_for(&mut mqtt, connected).await;
        assert!(mqtt.publish("topic", b"not acknowledged".to_vec(), false));
        wait_for(&mut mqtt, disconnected).await;
        assert!(mqtt.publish("topic", b"queued between".to_vec(), false));
        wait_for(&mut mqtt, connected).await;
        assert!(mqtt.publish("topic", b"still holds".to_vec(), false));
        wait_for(&mut mqtt, disconnected).await;
    });
    let messages = broker.join().unwrap();
    assert!(messages[0].ends_with(b"not acknowledged"));
    assert!(messages[1].ends_with(b"still holds"), "{:?}", messages[1].escape_ascii().to_string());
}

#[test]
fn what_the_broker_refuses_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Not authorised, to a subscription and to a message, after one that exceeds a quota; the connection stays.
    let broker = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert_eq!(packet(&mut stream).0, CONNECT);
        stream.write_all(&WELCOME).unwrap();
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
        wait_for(&mut mqtt, |event| *event == Event::Connected).await;
        assert!(mqtt.subscribe("mirror/v1/fleet/stable/round"));
        let Event::Refused(reason) = mqtt.next().await else { panic!("a subscription") };
        assert!(reason.contains("a subscription (NotAuthorized)"), "{reason}");
        assert!(mqtt.publish("topic", b"one too many for now".to_vec(), false));
        assert!(mqtt.publish("topic", b"message".to_vec(), false));
        let Event::Refused(reason) = mqtt.next().await else { panic!("a message") };
        assert!(reason.contains("a message (NotAuthorized); its access list"), "{reason}");
    });
    drop(broker.join().unwrap());
}
