//! What is written is read again; what is not exactly that is refused.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::fmt::Debug;

use common::{Visitor, channel, device, fleet_key, model, offer, secret, task};
use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use proto::content::{
    CHUNK_BYTES, ChunkRange, Content, ContentError, Reassembly, Taken, chunk, indexes,
};
use proto::model::{ModelManifest, rollout_place};
use proto::signing::{Freshness, KeyId, KeyRing, Signed, SigningError, freshness};
use proto::task::{Floor, FloorRefusal, ReportWindow, RoundNotice, TaskManifest};
use proto::update::{ChunksWanted, OfferError, Receipt, UpdateOffer, Verdict};
use proto::wire::{MESSAGE_BYTES, PACKET_BYTES, VERSION};
use proto::{DecodeError, DeviceId, Digest, Message, Pseudonym, Ratio, Topic};

struct Mutate;

impl Visitor for Mutate {
    /// Every cut, every byte behind, and every changed byte: an error or another message, never the same, never a panic.
    fn visit<M: Message + PartialEq + Debug>(&mut self, name: &str, message: &M) {
        let bytes = message.encode().unwrap();
        assert_eq!(&M::decode(&bytes).unwrap(), message, "{name}");
        for length in 0..bytes.len() {
            assert!(M::decode(&bytes[..length]).is_err(), "{name} cut to {length}");
        }
        let behind = [&bytes[..], &[0]].concat();
        assert!(M::decode(&behind).is_err(), "{name} with a byte behind");
        for at in 0..bytes.len() {
            for change in [1, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                if let Ok(other) = M::decode(&changed) {
                    assert_ne!(&other, message, "{name}, byte {at}");
                    assert_eq!(other.encode().unwrap(), changed, "{name}, byte {at}");
                }
            }
        }
    }
}

#[test]
fn a_message_has_one_encoding_and_survives_any_change_of_a_byte() {
    common::each(&mut Mutate);
}

#[test]
fn another_version_and_another_kind_are_named() {
    let mut bytes = offer(b"x").encode().unwrap();
    assert!(matches!(RoundNotice::decode(&bytes), Err(DecodeError::Kind { found: 2, .. })));
    bytes[0] = VERSION + 1;
    assert_eq!(UpdateOffer::decode(&bytes), Err(DecodeError::Version { found: 2 }));
}

#[test]
fn a_longer_form_of_a_number_is_refused() {
    let closed = RoundNotice::Closed { channel: channel(), round: 1 };
    let mut bytes = closed.encode().unwrap();
    assert_eq!(bytes.pop(), Some(1));
    bytes.extend([0x81, 0x00]);
    assert!(matches!(RoundNotice::decode(&bytes), Err(DecodeError::NotCanonical(_))));
}

#[test]
fn a_message_beyond_its_limit_is_refused_unread() {
    let bytes = vec![VERSION, 1].into_iter().chain(vec![0; 1 << 20]).collect::<Vec<u8>>();
    assert!(matches!(RoundNotice::decode(&bytes), Err(DecodeError::TooLarge { .. })));
}

#[test]
fn the_largest_offer_fits_one_message() {
    let update: Vec<u8> = (0..4 << 20).map(|index: u32| index as u8).collect();
    let bytes = offer(&update).encode().unwrap();
    assert!(bytes.len() <= MESSAGE_BYTES, "{}", bytes.len());
    let identity = secret().identity(&channel(), 1);
    let too_large = UpdateOffer::new(&identity, &channel(), 1, &vec![0; (4 << 20) + 1]);
    assert!(matches!(too_large, Err(OfferError::Decode(DecodeError::Field { .. }))));
}

#[test]
fn the_largest_model_manifest_fits_one_message() {
    let content = Content::of(&vec![1; 512 * CHUNK_BYTES]).unwrap();
    let manifest = ModelManifest { content, ..model() };
    let signed = Signed::sign(&fleet_key(), u64::MAX, &manifest).unwrap();
    assert!(signed.encode().unwrap().len() < 17_000);
    assert!(Content::of(&vec![1; 512 * CHUNK_BYTES + 1]).is_err());
    assert!(Content::of(&[]).is_err());
}

#[test]
fn an_offer_holds_only_under_its_own_name_round_and_key() {
    let (secret, pseudonym) = (secret(), secret().pseudonym(&channel(), 12));
    let key = secret.verifying_key(&channel(), 12);
    let offer = offer(b"update");
    let (manifest, first) = offer.clone().verify(&key, pseudonym, 12).unwrap();
    assert_eq!((manifest.content.bytes, first.as_slice()), (6, &b"update"[..]));
    assert_eq!(offer.clone().verify(&key, Pseudonym([0; 16]), 12), Err(OfferError::Topic));
    assert_eq!(offer.clone().verify(&key, pseudonym, 13), Err(OfferError::Topic));
    let other = secret.verifying_key(&channel(), 13);
    assert_eq!(offer.verify(&other, pseudonym, 12), Err(OfferError::Signature(pseudonym)));
}

#[test]
fn names_of_rounds_channels_and_devices_differ() {
    let beta = "beta".parse().unwrap();
    let other = proto::secret::DeviceSecret::derive(&[9; 32], &"mirror-18".parse().unwrap());
    let names = [
        secret().pseudonym(&channel(), 1),
        secret().pseudonym(&channel(), 2),
        secret().pseudonym(&beta, 1),
        other.pseudonym(&channel(), 1),
    ];
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
    // HMAC-SHA256 by Python's hmac and hashlib.
    let mut expected = include_str!("fixtures/pseudonyms.txt").lines();
    assert!(names.iter().all(|name| Some(name.to_string().as_str()) == expected.next()));
}

#[test]
fn only_a_trusted_key_signs() {
    let key = fleet_key();
    let notice = RoundNotice::Open(task());
    let signed = Signed::sign(&key, 30, &notice).unwrap();
    assert_eq!(signed.verify(&KeyRing::single(key.verifying_key())), Ok(notice.clone()));

    let stranger = SigningKey::from_bytes(&[8; 32]);
    let foreign = Signed::sign(&stranger, 30, &notice).unwrap();
    let refused = foreign.verify(&KeyRing::single(key.verifying_key())).unwrap_err();
    let name = |key: &SigningKey| KeyId::of(&key.verifying_key()).to_string();
    let (told, [ours, theirs]) = (refused.to_string(), [&key, &stranger].map(name));
    assert!(told.contains(&ours) && told.contains(&theirs) && ours.len() == 16, "{told}");
}

#[test]
fn a_file_of_keys_names_what_is_wrong_with_it() {
    let key = "# ours\n\n d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a \n";
    assert_eq!(KeyRing::from_text(key).unwrap().ids().len(), 1);
    let refused = |text: &str| KeyRing::from_text(text).unwrap_err();
    assert_eq!(refused(&format!("{key}key")), SigningError::Text(4));
    assert_eq!(refused("\n# none yet\n"), SigningError::NoKey);
}

#[test]
fn a_statement_changed_anywhere_after_signing_is_refused() {
    let ring = KeyRing::single(fleet_key().verifying_key());
    let bytes =
        Signed::sign(&fleet_key(), 30, &RoundNotice::Open(task())).unwrap().encode().unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let read = Signed::<RoundNotice>::decode(&changed).map(|signed| signed.verify(&ring));
        assert!(!matches!(read, Ok(Ok(_))), "byte {at}");
    }
    // A statement of one type does not pass for one of another.
    let receipt = Receipt {
        round: 1,
        pseudonym: Pseudonym([0; 16]),
        update: Digest([0; 32]),
        verdict: Verdict::Accepted { round: 1 },
    };
    let receipt = Signed::sign(&fleet_key(), 1, &receipt).unwrap().encode().unwrap();
    let notice = Signed::<RoundNotice>::decode(&receipt).unwrap();
    assert!(matches!(notice.verify(&ring), Err(SigningError::Signature(_))));
}

#[test]
fn older_statements_and_contradictions_are_refused() {
    let sign = |sequence, round| {
        let notice = RoundNotice::Closed { channel: channel(), round };
        Signed::sign(&fleet_key(), sequence, &notice).unwrap()
    };
    let Freshness::New(mark) = freshness(None, &sign(5, 1)).unwrap() else { panic!("not new") };
    assert_eq!(freshness(Some(&mark), &sign(5, 1)), Ok(Freshness::Known));
    assert_eq!(freshness(Some(&mark), &sign(5, 2)), Err(SigningError::Contradiction(5)));
    let older = SigningError::Older { known: 5, found: 4 };
    assert_eq!(freshness(Some(&mark), &sign(4, 9)), Err(older));
    assert!(matches!(freshness(Some(&mark), &sign(6, 2)), Ok(Freshness::New(_))));
}

#[test]
fn a_task_below_the_floor_is_refused_by_name() {
    let floor = Floor {
        min_noise_multiplier: Ratio::new(12, 10).unwrap(),
        max_clip: Ratio::new(1, 1).unwrap(),
        min_cohort: 100,
        max_update_bytes: 65_536,
        model: Digest::of(b"model"),
    };
    assert_eq!(floor.check(&task()), Ok(()));
    let refused = |change: fn(&mut TaskManifest)| {
        let mut task = task();
        change(&mut task);
        floor.check(&task).unwrap_err()
    };
    // One part in 10^18 below the floor is below it.
    let less = |task: &mut TaskManifest| {
        task.noise_multiplier =
            Ratio::new(1_199_999_999_999_999_999, 1_000_000_000_000_000_000).unwrap();
    };
    assert!(matches!(refused(less), FloorRefusal::Noise { .. }));
    let clip = |task: &mut TaskManifest| task.clip = Ratio::new(1001, 1000).unwrap();
    assert!(matches!(refused(clip), FloorRefusal::Clip { .. }));
    assert!(matches!(refused(|task| task.min_cohort = 99), FloorRefusal::Cohort { .. }));
    assert!(matches!(refused(|task| task.max_update_bytes += 1), FloorRefusal::Bytes { .. }));
    let model = refused(|task| task.model = Digest([0; 32]));
    assert!(matches!(model, FloorRefusal::Model { .. }));
}

#[test]
fn chunks_of_two_updates_do_not_mix() {
    let (ours, theirs) = (vec![1; 3 * CHUNK_BYTES], vec![2; 3 * CHUNK_BYTES]);
    let content = Content::of(&ours).unwrap();
    let foreign = Content::of(&theirs).unwrap().sha256;
    let mut whole = Reassembly::new(content.clone());
    let piece = |bytes: &[u8], index| chunk(bytes, index).unwrap().to_vec();
    assert_eq!(whole.take(content.sha256, 0, piece(&ours, 0)), Ok(Taken::New));
    let refused = whole.take(foreign, 1, piece(&theirs, 1)).unwrap_err();
    assert!(matches!(refused, ContentError::Foreign { .. }));
    // Also where the sender lies about whose chunk it is.
    let lie = whole.take(content.sha256, 1, piece(&theirs, 1));
    assert_eq!(lie, Err(ContentError::Chunk(1)));
    assert_eq!(
        whole.take(content.sha256, 3, vec![]),
        Err(ContentError::Index { index: 3, total: 3 })
    );
    assert_eq!(whole.missing_ranges(10), [ChunkRange { first: 1, last: 2 }]);
    assert_eq!(whole.finish(), Ok(None));
    whole.take(content.sha256, 2, piece(&ours, 2)).unwrap();
    whole.take(content.sha256, 1, piece(&ours, 1)).unwrap();
    assert_eq!(whole.finish(), Ok(Some(ours)));
}

#[test]
fn a_manifest_that_contradicts_itself_ends_the_transfer() {
    let bytes = vec![1; CHUNK_BYTES + 1];
    let mut content = Content::of(&bytes).unwrap();
    content.sha256 = Digest([0; 32]);
    let mut whole = Reassembly::new(content.clone());
    for index in 0..2 {
        whole.take(content.sha256, index, chunk(&bytes, index).unwrap().to_vec()).unwrap();
    }
    assert_eq!(whole.finish(), Err(ContentError::Whole));
    content.chunks.pop();
    assert_eq!(content.check(), Err("number of chunks"));
}

#[test]
fn a_roll_out_reaches_about_its_share_and_never_takes_back() {
    let devices: Vec<DeviceId> = (0..2000).map(|n| format!("m{n}").parse().unwrap()).collect();
    let reached = |permille| {
        let manifest = ModelManifest { rollout_permille: permille, ..model() };
        devices.iter().filter(|device| manifest.is_for(device)).count()
    };
    assert_eq!((reached(0), reached(1000)), (0, 2000));
    let quarter = reached(250);
    assert!((400..600).contains(&quarter), "{quarter}");
    assert_ne!(rollout_place(&devices[0], 1), rollout_place(&devices[0], 2));
}

#[test]
fn topics_have_one_form_and_at_most_seven_slashes() {
    let (device, name) = (device(), Pseudonym([0xab; 16]));
    let job = Digest::of(b"job").job();
    let topics = [
        Topic::Status(device.clone()),
        Topic::Update { name, round: u64::MAX, chunk: 0 },
        Topic::Lane { name, lane: 3, round: 12, chunk: u16::MAX },
        Topic::Wanted(name),
        Topic::Receipt(name),
        Topic::JobNotify(device.clone()),
        Topic::JobState(device.clone(), job),
        Topic::ModelWanted(device.clone()),
        Topic::ModelChunk(device, 4, 9),
        Topic::Round(channel()),
        Topic::ModelManifest(channel()),
    ];
    for topic in topics {
        let text = topic.to_string();
        assert_eq!(text.parse::<Topic>().as_ref(), Ok(&topic));
        assert!(text.matches('/').count() <= 7, "{text}");
    }
    let hex = "ab".repeat(16);
    for bad in [
        "mirror/v1/fleet/status".to_owned(),
        "mirror/v2/a/status".to_owned(),
        "mirror/v1/a/status/".to_owned(),
        "mirror/v1/+/status".to_owned(),
        format!("mirror/v1/{hex}/fl/update/007/1"),
        format!("mirror/v1/{hex}/fl/update/+7/1"),
        format!("mirror/v1/{hex}/fl/update/7/65536"),
        "x".repeat(1 << 20),
    ] {
        assert!(bad.parse::<Topic>().is_err());
    }
    let told = "x\ny\u{1b}[2J".parse::<Topic>().unwrap_err().to_string();
    assert_eq!(
        told, r#""x\ny\u{1b}[2J" is not a topic of the fleet"#,
        "one line, and no command to a terminal"
    );
}

#[test]
fn the_sample_broker_takes_the_largest_packet_and_none_larger() {
    let sample = include_str!("../../../board/broker/mosquitto.conf");
    let limit = sample.lines().find_map(|line| line.strip_prefix("max_packet_size "));
    assert_eq!(limit, Some(PACKET_BYTES.to_string().as_str()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 1u8..14) {
        struct Read<'a>(&'a [u8]);
        impl Visitor for Read<'_> {
            fn visit<M: Message + PartialEq + Debug>(&mut self, _: &str, _: &M) {
                if let Ok(message) = M::decode(self.0) {
                    assert_eq!(message.encode().unwrap(), self.0);
                }
            }
        }
        common::each(&mut Read(&bytes));
        bytes.splice(0..0, [VERSION, kind]);
        common::each(&mut Read(&bytes));
    }

    #[test]
    fn arbitrary_topics_never_panic(text in "\\PC{0,80}") {
        let _ = text.parse::<Topic>();
        let _ = format!("mirror/v1/{text}").parse::<Topic>();
    }

    #[test]
    fn tasks_round_trip(
        round: u64, numerator in 1u64.., denominator in 1u64.., dimension in 1u32.., cohort: u32,
        after in 0u32..=604_800, spread in 0u32..=604_800,
    ) {
        let notice = RoundNotice::Open(TaskManifest {
            round,
            noise_multiplier: Ratio::new(numerator, denominator).unwrap(),
            dimension,
            min_cohort: cohort,
            report: ReportWindow { after_seconds: after, spread_seconds: spread },
            ..task()
        });
        prop_assert_eq!(RoundNotice::decode(&notice.encode().unwrap()).unwrap(), notice);
    }

    #[test]
    fn any_order_with_repeats_puts_the_whole_together(
        length in 1usize..6 * CHUNK_BYTES, order in prop::collection::vec(0u16..6, 0..30),
    ) {
        let bytes: Vec<u8> = (0..length).map(|index| (index / 7) as u8).collect();
        let content = Content::of(&bytes).unwrap();
        let mut whole = Reassembly::new(content.clone());
        for index in order {
            if let Some(piece) = chunk(&bytes, index) {
                whole.take(content.sha256, index, piece.to_vec()).unwrap();
            }
        }
        // Ask for what is missing, two at a time, as a download does.
        while whole.missing() > 0 {
            let ranges = whole.missing_ranges(2);
            let wanted = ChunksWanted { round: 1, update: content.sha256, lane: None, chunks: ranges };
            let wanted = ChunksWanted::decode(&wanted.encode().unwrap()).unwrap();
            for index in indexes(&wanted.chunks) {
                let piece = chunk(&bytes, index).unwrap().to_vec();
                prop_assert_eq!(whole.take(content.sha256, index, piece), Ok(Taken::New));
            }
        }
        prop_assert_eq!(whole.finish().unwrap().unwrap(), bytes);
    }
}
