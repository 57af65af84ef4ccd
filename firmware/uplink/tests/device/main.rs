//! The device's protocol against a scripted fleet: the connection here, rounds and models beside it.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod bench;
mod models;
mod rounds;

use std::io::Read;
use std::sync::Arc;

use bench::{Bench, Kept, channel, key, model, secret, task};
use ed25519_dalek::SigningKey;
use proto::signing::{KeyId, Signed};
use proto::status::Status;
use proto::{Message, Topic};
use uplink::device::Snapshot;
use uplink::transport::Event;

#[test]
fn a_birth_is_retained_and_subscriptions_are_made_at_every_connection() {
    let mut bench = Bench::new(None);
    let (topic, payload, kept) = bench.out.sent[0].clone();
    // A will dies with its broker.
    assert_eq!((topic.as_str(), kept), ("mirror/v1/mirror-17/status", Kept::Seconds(7200)));
    let birth = Status::Online { firmware: "0.1.0".into(), model_tried: 0 };
    assert_eq!(Status::decode(&payload).unwrap(), birth);
    let before = bench.out.filters.len();
    bench.event(Event::Disconnected("cut".into()));
    bench.wait(100);
    assert_eq!(bench.out.sent.len(), 1, "nothing is sent without a broker");
    bench.event(Event::Connected);
    assert_eq!(bench.out.filters.len(), 2 * before);
    bench.device.goodbye(&mut bench.out);
    let (_, payload, kept) = bench.out.sent.last().unwrap();
    assert_eq!(Status::decode(payload).unwrap(), Status::Offline { lost: false });
    assert_eq!(*kept, Kept::Always);
}

#[test]
fn a_birth_is_said_again_before_the_broker_forgets_it_for_as_long_as_the_connection_lasts() {
    let mut bench = Bench::new(None);
    let subscribed = bench.out.filters.len();
    let born = bench.take("/status");
    bench.wait(2990);
    assert!(bench.take("/status").is_empty(), "not so often");
    bench.wait(620);
    assert_eq!(bench.take("/status"), born, "the same again");
    bench.wait(10 * 3600);
    let again = bench.take("/status").len();
    assert!((10..=12).contains(&again), "{again} in ten hours");
    // A full queue puts it off.
    bench.out.full = true;
    bench.wait(3600);
    bench.out.full = false;
    bench.wait(1);
    assert_eq!(bench.take("/status").len(), 1);
    assert_eq!(bench.out.filters.len(), subscribed, "subscriptions are not made anew");
    bench.event(Event::Disconnected("cut".into()));
    bench.wait(10 * 3600);
    assert!(bench.take("/status").is_empty());
}

#[test]
fn a_connection_that_brings_nothing_of_the_fleet_is_told_of_until_it_does() {
    let mut bench = Bench::new(None);
    let manifest = model(1, b"base");
    // Of a stranger's key.
    let forged = Signed::sign(&SigningKey::from_bytes(&[4; 32]), 1, &manifest).unwrap();
    bench.hear(Topic::ModelManifest(channel()), forged.encode().unwrap());
    bench.wait(299);
    assert!(!bench.device.snapshot().unheard, "it may come yet");
    bench.wait(1);
    let Snapshot { connected, denied, unheard, note, .. } = bench.device.snapshot();
    assert_eq!((connected, denied, unheard), (true, false, true));
    let (note, ours) = (note.unwrap(), KeyId::of(&key().verifying_key()).to_string());
    assert!(
        note.contains("fleet.channel stable cannot be taken") && note.contains(&ours),
        "{note}"
    );
    bench.reconnect(10);
    let Snapshot { unheard, note, .. } = bench.device.snapshot();
    assert!(
        unheard && note.unwrap().contains("nothing of fleet.channel stable"),
        "until it is heard"
    );
    bench.state(Topic::ModelManifest(channel()), 5, &manifest);
    let heard = |bench: &Bench| {
        let Snapshot { unheard, note, .. } = bench.device.snapshot();
        !unheard && note.is_none()
    };
    assert!(heard(&bench));
    bench.wait(3600);
    assert!(heard(&bench), "a fleet that has nothing to say is silent");
    bench.reconnect(10);
    bench.wait(299);
    assert!(heard(&bench));
    bench.wait(1);
    assert!(!heard(&bench), "every connection is asked");
    // Too old to be taken, and still of the fleet.
    bench.kept(Topic::ModelManifest(channel()), 4, &manifest);
    assert!(heard(&bench));
}

#[test]
fn a_broker_that_refuses_something_counts_as_none_until_the_next_connection() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    let reason = "a subscription (NotAuthorized)".into();
    bench.event(Event::Refused { reason, is_access: true });
    bench.announce(1, task(5));
    bench.wait(200);
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.connected, snapshot.denied), (false, true));
    assert_eq!(snapshot.note.as_deref(), Some("a subscription (NotAuthorized)"));
    assert!(!bench.take("/fl/update/").is_empty(), "what it lets through goes on");
    bench.event(Event::Disconnected("cut".into()));
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.denied, snapshot.note.as_deref()), (false, Some("cut")));
    bench.event(Event::Untrusted("ended; give a new one".into()));
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.connected, snapshot.denied), (false, true));
    assert_eq!(snapshot.note.as_deref(), Some("ended; give a new one"));
    bench.event(Event::Connected);
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.connected, snapshot.denied, snapshot.note), (true, false, None));
}

#[test]
fn nonsense_on_any_topic_is_counted_and_harmless() {
    let mut bench = Bench::new(None);
    let device: proto::DeviceId = "mirror-17".parse().unwrap();
    let pseudonym = secret().pseudonym(&channel(), 1);
    let topics = [
        Topic::Round(channel()),
        Topic::ModelManifest(channel()),
        Topic::JobNotify(device.clone()),
        Topic::ModelChunk(device, 1, 1),
        Topic::Wanted(pseudonym),
        Topic::Receipt(pseudonym),
    ];
    for topic in topics {
        for payload in [vec![], vec![0xff; 70_000], vec![1, 13, 0, 0]] {
            bench.hear(topic.clone(), payload);
        }
    }
    bench.event(Event::Message { topic: "x/y".into(), payload: vec![], retained: false });
    assert!(bench.device.snapshot().refused.values().sum::<u64>() >= 16);
}

#[test]
fn a_topic_that_is_none_of_the_fleet_s_is_one_short_line_in_the_journal() {
    for topic in ["x\nfleet: somebody agreed".to_owned(), "x".repeat(60_000)] {
        let (mut journal, writer) = std::io::pipe().unwrap();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(Arc::new(writer));
        let mut bench = Bench::new(None);
        tracing::subscriber::with_default(log.finish(), || {
            bench.event(Event::Message { topic, payload: vec![], retained: false });
        });
        let mut told = String::new();
        journal.read_to_string(&mut told).unwrap();
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains("is not a topic of the fleet") && told.len() < 400, "{told}");
    }
}
