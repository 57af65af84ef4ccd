//! Rounds: what is made and sent for one, when, and what comes back.

use ed25519_dalek::SigningKey;
use proto::content::{CHUNK_BYTES, ChunkRange, Reassembly};
use proto::signing::{Signed, Statement};
use proto::task::{ReportWindow, RoundNotice, TaskManifest};
use proto::update::{ChunksWanted, Receipt, Refusal, UpdateChunk, UpdateOffer, Verdict};
use proto::{Digest, Message, Ratio, Topic};
use uplink::edges::ReleaseId;
use uplink::transport::Event;

use crate::bench::{Bench, Shared, channel, secret, task};

#[test]
fn a_small_update_goes_in_its_window_under_a_pseudonym_until_its_receipt() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.wait(59);
    assert!(bench.take("/fl/").is_empty(), "before the window");
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 0, "no budget before the window");
    bench.wait(160);
    let first = bench.take("/fl/update/");
    let pseudonym = secret().pseudonym(&channel(), 5);
    assert_eq!(first[0].0, format!("mirror/v1/{pseudonym}/fl/update/5/0"));
    assert!(!first[0].0.contains("mirror-17"));
    bench.wait(2000);
    let again = bench.take("/fl/update/");
    assert!((2..20).contains(&again.len()), "{}", again.len());
    assert!(again.iter().all(|offer| *offer == first[0]), "identical bytes on every retry");
    let verifier = secret().verifying_key(&channel(), 5);
    let offer = UpdateOffer::decode(&first[0].1).unwrap();
    assert_eq!(offer.verify(&verifier, pseudonym, 5).unwrap().1, b"noised");

    bench.receipt(5, b"noised", Verdict::Accepted { round: 5 });
    bench.wait(2000);
    assert!(bench.take("/fl/update/").is_empty());
    let (published, prepared) = bench.mirror.with(|mirror| (mirror.published, mirror.prepared));
    assert_eq!((published, prepared), (1, 1));
    assert_eq!(bench.device.snapshot().contributions, 1);

    // A start later, the same round is announced still: nothing is spent on it twice.
    let mut bench = Bench::with(bench.mirror.clone());
    bench.mirror.with(|mirror| mirror.makes = Some(b"second".to_vec()));
    bench.announce(1, task(5));
    bench.wait(2000);
    assert!(bench.take("/fl/").is_empty());
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 1);
}

#[test]
fn an_update_that_was_offered_and_withdrawn_is_not_made_again_after_a_restart() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.wait(200);
    assert!(!bench.take("/fl/update/").is_empty());
    // Taking part is switched off and on again, and the power goes: nothing waits any more, and no receipt came.
    bench.mirror.with(|mirror| {
        mirror.waiting.clear();
        mirror.makes = Some(b"second".to_vec());
    });
    let mut bench = Bench::with(bench.mirror.clone());
    bench.announce(1, task(5));
    bench.wait(2000);
    assert!(bench.take("/fl/update/").is_empty());
    assert_eq!(
        bench.mirror.with(|mirror| mirror.prepared),
        1,
        "a second one would be spent for nothing"
    );
    bench.announce(2, task(6));
    bench.wait(200);
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 2, "the next round is answered");
}

#[test]
fn a_large_update_sends_exactly_the_chunks_that_are_asked_for() {
    let bytes: Vec<u8> = (0..5 * CHUNK_BYTES).map(|index| (index / 100) as u8).collect();
    let mut bench = Bench::new(Some(bytes.clone()));
    bench.announce(1, task(5));
    bench.wait(200);
    let pseudonym = secret().pseudonym(&channel(), 5);
    let offers = bench.take("/fl/");
    assert!(offers.iter().all(|(topic, _)| topic.ends_with("/5/0")), "nothing unasked");
    let offer = UpdateOffer::decode(&offers[0].1).unwrap();
    let key = secret().verifying_key(&channel(), 5);
    let (manifest, first) = offer.verify(&key, pseudonym, 5).unwrap();
    let mut whole = Reassembly::new(manifest.content.clone());
    whole.take(manifest.content.sha256, 0, first).unwrap();
    let ask = |chunks| {
        ChunksWanted { round: 5, update: Digest::of(&bytes), lane: Some(2), chunks }
            .encode()
            .unwrap()
    };
    let mut lost = true;
    while whole.missing() > 0 {
        bench.hear(Topic::Wanted(pseudonym), ask(whole.missing_ranges(8)));
        bench.wait(1);
        for (topic, payload) in bench.take("/fl/lane/2/5/") {
            let chunk = UpdateChunk::decode(&payload).unwrap();
            assert!(topic.ends_with(&format!("/{}", chunk.index)));
            if std::mem::take(&mut lost) {
                continue; // the network swallows one
            }
            whole.take(chunk.update, chunk.index, chunk.bytes.0).unwrap();
        }
    }
    assert_eq!(whole.finish().unwrap().unwrap(), bytes);
    let beyond = vec![ChunkRange { first: 5, last: 500 }];
    bench.hear(Topic::Wanted(pseudonym), ask(beyond));
    bench.wait(1);
    assert!(bench.take("/fl/lane").is_empty(), "chunks that do not exist");
}

#[test]
fn a_full_queue_delays_and_loses_nothing() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.out.full = true;
    bench.wait(300);
    assert!(bench.take("/fl/").is_empty());
    bench.out.full = false;
    bench.wait(1);
    assert_eq!(bench.take("/fl/update/").len(), 1);
}

#[test]
fn withdrawn_consent_stops_an_upload_at_once() {
    let mut bench = Bench::new(Some(vec![1; 3 * CHUNK_BYTES]));
    bench.announce(1, task(5));
    bench.wait(200);
    assert!(!bench.take("/fl/update/").is_empty());
    bench.mirror.with(|mirror| mirror.takes_part = false);
    let chunks = vec![ChunkRange { first: 1, last: 2 }];
    let update = Digest::of(&[1; 3 * CHUNK_BYTES]);
    let wanted = ChunksWanted { round: 5, update, lane: None, chunks };
    bench.hear(Topic::Wanted(secret().pseudonym(&channel(), 5)), wanted.encode().unwrap());
    bench.wait(2000);
    assert!(bench.take("/fl/").is_empty());
}

#[test]
fn an_update_that_is_destroyed_is_not_sent_though_somebody_agrees_again() {
    let withdraw = |bench: &Bench| {
        bench.mirror.with(|mirror| {
            mirror.takes_part = false;
            mirror.waiting.clear();
        });
    };
    let agree = |bench: &Bench| bench.mirror.with(|mirror| mirror.takes_part = true);
    // Seconds for which the household has withdrawn; in none at all the protocol hears nothing of it.
    for withdrawn in [0, 1] {
        let mut bench = Bench::new(Some(vec![1; 3 * CHUNK_BYTES]));
        let listens =
            |bench: &Bench| bench.out.filters.iter().any(|filter| filter.contains("/fl/"));
        bench.announce(1, task(5));
        bench.wait(200);
        assert!(!bench.take("/fl/update/").is_empty() && listens(&bench));
        bench.event(Event::Disconnected("cut".into()));
        withdraw(&bench);
        bench.wait(withdrawn);
        agree(&bench);
        bench.event(Event::Connected);
        assert_eq!(listens(&bench), withdrawn == 0, "what is heard of is forgotten at once");
        bench.kept(Topic::Round(channel()), 1, &RoundNotice::Open(task(5)));
        bench.wait(2000);
        assert!(bench.take("/fl/").is_empty(), "withdrawn for {withdrawn} s");
        let prepared = bench.mirror.with(|mirror| mirror.prepared);
        assert_eq!((listens(&bench), prepared), (false, 1), "it was offered already");
    }
    // The chunks of one that the fleet has begun to fetch.
    let mut bench = Bench::new(Some(vec![1; 3 * CHUNK_BYTES]));
    bench.announce(1, task(5));
    bench.wait(200);
    bench.take("/fl/");
    withdraw(&bench);
    agree(&bench);
    let update = Digest::of(&[1; 3 * CHUNK_BYTES]);
    let chunks = vec![ChunkRange { first: 1, last: 2 }];
    let wanted = ChunksWanted { round: 5, update, lane: None, chunks };
    bench.hear(Topic::Wanted(secret().pseudonym(&channel(), 5)), wanted.encode().unwrap());
    bench.wait(2000);
    assert!(bench.take("/fl/").is_empty());
}

#[test]
fn when_a_run_ended_is_not_told_by_its_answer() {
    let report = ReportWindow { after_seconds: 0, spread_seconds: 12 * 3600 };
    let answer_after = |run: u64| {
        let mut bench = Bench::new(None);
        bench.announce(1, TaskManifest { report, ..task(5) });
        while bench.mirror.with(|mirror| mirror.prepared) == 0 {
            bench.wait(1);
        }
        bench.wait(run);
        bench.mirror.with(|mirror| mirror.waiting.push((ReleaseId([7; 16]), b"noised".to_vec())));
        let is_out = |_: &u64| {
            bench.wait(1);
            !bench.take("/fl/update/").is_empty()
        };
        (1..).find(is_out).unwrap()
    };
    let answers = [60, 600, 1200, 3000, 5000, 8000].map(answer_after);
    assert!(answers.iter().all(|seconds| *seconds <= 3601), "not late: {answers:?}");
    let soon = answers.iter().filter(|seconds| **seconds < 60).count();
    assert!(soon <= 1, "{answers:?}");
}

#[test]
fn rounds_below_the_floor_unsigned_old_or_closed_cost_nothing() {
    type Change = fn(&mut TaskManifest);
    let below: [Change; 4] = [
        |task| task.noise_multiplier = Ratio::new(1, 2).unwrap(),
        |task| task.clip = Ratio::new(2, 1).unwrap(),
        |task| task.min_cohort = 1,
        |task| task.model = Digest([0; 32]),
    ];
    for change in below {
        let mut bench = Bench::new(Some(b"noised".to_vec()));
        let mut asked = task(5);
        change(&mut asked);
        bench.announce(1, asked);
        bench.wait(500);
        assert!(bench.take("/fl/").is_empty());
        assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 0);
        assert!(bench.device.snapshot().note.is_some(), "it says why");
    }
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    let stranger = SigningKey::from_bytes(&[4; 32]);
    let forged = Signed::sign(&stranger, 1, &RoundNotice::Open(task(5))).unwrap();
    bench.hear(Topic::Round(channel()), forged.encode().unwrap());
    bench.announce(10, task(6));
    bench.close(11, 6);
    bench.announce(9, task(5));
    bench.wait(500);
    assert!(bench.take("/fl/").is_empty());
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 0);
    assert_eq!(bench.device.snapshot().refused["round notice"], 2);
}

#[test]
fn a_round_announced_again_with_other_terms_asks_for_no_second_update() {
    let mut bench = Bench::new(None);
    bench.announce(1, task(5));
    bench.wait(200);
    let mut changed = task(5);
    changed.min_cohort = 11;
    bench.announce(2, changed);
    bench.wait(500);
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 1);
}

#[test]
fn a_mirror_that_comes_back_spends_nothing_before_it_hears_that_its_round_is_open() {
    let returned = || {
        let mut bench = Bench::new(Some(b"noised".to_vec()));
        bench.announce(1, task(5));
        bench.reconnect(1000);
        bench.wait(100);
        assert!(bench.take("/fl/").is_empty(), "nobody has said that the round is open");
        bench
    };
    let prepared = |bench: &Bench| bench.mirror.with(|mirror| mirror.prepared);
    let mut over = returned();
    over.kept(Topic::Round(channel()), 2, &RoundNotice::Closed { channel: channel(), round: 5 });
    over.wait(500);
    assert_eq!((prepared(&over), over.device.snapshot().round), (0, None));

    let mut open = returned();
    open.kept(Topic::Round(channel()), 1, &RoundNotice::Open(task(5)));
    open.wait(10);
    assert_eq!((prepared(&open), open.take("/fl/update/").len()), (1, 1));
    // An older one says nothing about now.
    open.close(2, 5);
    open.announce(3, task(6));
    open.reconnect(1000);
    open.kept(Topic::Round(channel()), 1, &RoundNotice::Open(task(5)));
    open.wait(500);
    assert!(open.take("/fl/").is_empty());
}

#[test]
fn what_the_broker_kept_is_read_to_its_end_before_anything_is_spent() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.reconnect(1000);
    bench.announce(2, task(5));
    bench.wait(1);
    bench.close(3, 5);
    bench.wait(500);
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 0);
}

#[test]
fn a_window_that_is_announced_anew_moves_only_who_has_not_drawn_a_moment() {
    let left = |seconds| {
        let report = ReportWindow { after_seconds: 0, spread_seconds: seconds };
        TaskManifest { report, ..task(5) }
    };
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.announce(2, left(0));
    bench.wait(59);
    assert!(bench.take("/fl/").is_empty(), "its moment lies between 60 and 180 seconds");
    bench.wait(122);
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 1);
    let mut late = Bench::new(Some(b"noised".to_vec()));
    late.announce(2, left(30));
    late.wait(40);
    assert!(!late.take("/fl/update/").is_empty());
}

#[test]
fn a_power_cut_while_an_update_is_settled_asks_for_no_second_one() {
    for verdict in [Verdict::Accepted { round: 5 }, Verdict::Refused(Refusal::Norm)] {
        let mut bench = Bench::new(Some(b"noised".to_vec()));
        bench.announce(1, task(5));
        bench.wait(200);
        bench.receipt(5, b"noised", verdict);
        // The power goes when the outbox has forgotten the update, and nothing later reaches the disk.
        let mirror = bench.mirror.clone();
        mirror.with(|mirror| mirror.memory = mirror.at_settling.take().unwrap());
        let mut bench = Bench::with(mirror);
        bench.announce(1, task(5));
        bench.wait(2000);
        assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 1);
        bench.announce(2, task(6));
        bench.wait(200);
        assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 2, "the next round is answered");
    }
}

#[test]
fn after_a_loss_of_memory_only_a_newer_round_is_answered() {
    let mirror = Shared::default();
    mirror.with(|mirror| (mirror.takes_part, mirror.memory.lost) = (true, true));
    let mut bench = Bench::with(mirror.clone());
    bench.announce(4, task(5));
    bench.wait(500);
    // Neither after another start, nor with other terms.
    let mut bench = Bench::with(mirror);
    bench.announce(4, task(5));
    bench.announce(5, TaskManifest { min_cohort: 11, ..task(5) });
    bench.wait(500);
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 0);
    bench.announce(6, task(6));
    bench.wait(500);
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 1);
}

/// A second of a broker that says this at every subscription to its topic, and at no other time.
fn repeat<T: Statement>(bench: &mut Bench, topic: &Topic, statement: &T) -> bool {
    let made = |bench: &Bench| {
        bench.out.filters.iter().filter(|filter| **filter == topic.to_string()).count()
    };
    let before = made(bench);
    bench.wait(1);
    let is_due = made(bench) > before;
    if is_due {
        bench.kept(topic.clone(), 1, statement);
    }
    is_due
}

#[test]
fn a_statement_that_cannot_be_remembered_is_told_and_acted_on_once_the_disk_works() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    let (topic, open) = (Topic::Round(channel()), RoundNotice::Open(task(5)));
    bench.mirror.with(|mirror| mirror.disk_fails = true);
    bench.kept(topic.clone(), 1, &open);
    assert_eq!(bench.device.snapshot().note.as_deref(), Some("the disk is full"));
    let asked = (0..3600).filter(|_| repeat(&mut bench, &topic, &open)).count();
    assert!((6..=14).contains(&asked), "{asked} in an hour, seldomer and seldomer");
    assert!(bench.take("/fl/").is_empty());
    bench.mirror.with(|mirror| mirror.disk_fails = false);
    for _ in 0..1200 {
        repeat(&mut bench, &topic, &open);
    }
    assert!(!bench.take("/fl/update/5/0").is_empty());
    assert_eq!(bench.device.snapshot().note, None);
    assert!(!(0..3600).any(|_| repeat(&mut bench, &topic, &open)), "it was heard");
}

#[test]
fn a_loss_of_memory_that_cannot_be_noted_is_noted_once_the_disk_works() {
    let mirror = Shared::default();
    mirror.with(|mirror| (mirror.takes_part, mirror.memory.lost) = (true, true));
    let mut bench = Bench::with(mirror);
    let (topic, open) = (Topic::Round(channel()), RoundNotice::Open(task(5)));
    bench.kept(topic.clone(), 1, &open);
    bench.mirror.with(|mirror| assert!(!mirror.memory.lost && mirror.memory.round_done == 5));
    // The watermark is kept, and the disk fails right after it.
    let mirror = Shared::default();
    let mark = bench.mirror.with(|mirror| mirror.memory.round);
    mirror.with(|mirror| {
        mirror.takes_part = true;
        (mirror.memory.lost, mirror.memory.round, mirror.disk_fails) = (true, mark, true);
    });
    let mut bench = Bench::with(mirror);
    bench.kept(topic.clone(), 1, &open);
    assert!(bench.device.snapshot().note.is_some());
    bench.mirror.with(|mirror| mirror.disk_fails = false);
    assert!((0..20).any(|_| repeat(&mut bench, &topic, &open)));
    assert!(!bench.mirror.with(|mirror| mirror.memory.lost));
}

#[test]
fn a_disk_that_works_again_takes_back_no_other_note() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.wait(200);
    bench.mirror.with(|mirror| mirror.disk_fails = true);
    bench.announce(2, task(5));
    assert_eq!(bench.device.snapshot().note.as_deref(), Some("the disk is full"));
    bench.mirror.with(|mirror| mirror.disk_fails = false);
    let refusal = Refusal::AnotherCounts;
    bench.receipt(5, b"noised", Verdict::Refused(refusal));
    assert_eq!(bench.device.snapshot().note, Some(refusal.to_string()));
}

#[test]
fn refusals_keep_give_up_or_wait_as_they_say() {
    let refused = |refusal, wait| {
        let mut bench = Bench::new(Some(b"noised".to_vec()));
        bench.announce(1, task(5));
        bench.wait(200);
        bench.take("/fl/");
        bench.receipt(5, b"noised", Verdict::Refused(refusal));
        bench.wait(wait);
        let waiting = bench.mirror.with(|mirror| mirror.waiting.len());
        (waiting, bench.mirror.with(|mirror| mirror.given_up), bench.take("/fl/update/").len())
    };
    assert_eq!(refused(Refusal::RoundClosed, 2000), (1, 0, 0));
    assert_eq!(refused(Refusal::Norm, 2000), (0, 1, 0));
    assert_eq!(refused(Refusal::Revoked, 2000), (1, 0, 0));
    assert_eq!(refused(Refusal::Busy { retry_seconds: 600 }, 599), (1, 0, 0));
    assert!(refused(Refusal::Busy { retry_seconds: 600 }, 1000).2 > 0);
}

#[test]
fn an_update_of_a_closed_round_goes_in_the_next_without_new_noise() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.wait(200);
    bench.close(2, 5);
    bench.take("/fl/");
    bench.announce(3, task(6));
    bench.wait(200);
    let offers = bench.take("/fl/update/6/0");
    assert!(!offers.is_empty());
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 1);
    // It had counted in round 5 after all: it leaves the outbox, and round 6 is still open.
    bench.receipt(6, b"noised", Verdict::Accepted { round: 5 });
    assert_eq!(bench.mirror.with(|mirror| mirror.published), 1);
    assert_eq!(bench.device.snapshot().round, Some(6));
    // With an update of its own.
    bench.mirror.with(|mirror| mirror.makes = Some(b"second".to_vec()));
    bench.wait(200);
    assert!(!bench.take("/fl/update/6/0").is_empty());
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 2);
}

#[test]
fn what_held_a_round_back_is_not_told_of_when_it_is_over() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, TaskManifest { min_cohort: 2, ..task(5) });
    bench.wait(200);
    assert!(bench.device.snapshot().note.is_some(), "below the mirror's own floor");
    bench.close(2, 5);
    bench.wait(10);
    assert_eq!(bench.device.snapshot().note, None);
    // A disk that fails for a while.
    bench.mirror.with(|mirror| mirror.disk_fails = true);
    bench.announce(3, task(6));
    bench.mirror.with(|mirror| mirror.disk_fails = false);
    bench.announce(3, task(6));
    bench.mirror.with(|mirror| mirror.disk_fails = true);
    bench.wait(200);
    assert!(bench.device.snapshot().note.is_some_and(|note| note.contains("disk is full")));
    bench.mirror.with(|mirror| mirror.disk_fails = false);
    bench.wait(2000);
    assert_eq!(bench.device.snapshot().note, None);
}

#[test]
fn a_round_that_is_over_here_is_not_listened_to_any_more() {
    let accepted = |bench: &mut Bench| {
        bench.receipt(5, b"noised", Verdict::Accepted { round: 5 });
    };
    let refused = |bench: &mut Bench| {
        bench.receipt(5, b"noised", Verdict::Refused(Refusal::RoundClosed));
    };
    let closed = |bench: &mut Bench| bench.close(2, 5);
    let followed = |bench: &mut Bench| bench.announce(2, task(6));
    let withdrawn = |bench: &mut Bench| bench.mirror.with(|mirror| mirror.takes_part = false);
    let ends: [&dyn Fn(&mut Bench); 5] = [&accepted, &refused, &closed, &followed, &withdrawn];
    for end in ends {
        let mut bench = Bench::new(Some(b"noised".to_vec()));
        let before = bench.out.filters.clone();
        bench.announce(1, task(5));
        bench.wait(200);
        assert_eq!(bench.out.filters.len(), before.len() + 2);
        bench.out.full = true;
        end(&mut bench);
        bench.wait(2);
        bench.out.full = false;
        bench.wait(2);
        assert_eq!(bench.out.filters, before, "also where the queue was full");
    }
    // Announced anew with other terms, the same round has the same topics.
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.wait(200);
    let during = bench.out.filters.len();
    bench.announce(2, TaskManifest { min_cohort: 11, ..task(5) });
    bench.wait(200);
    assert_eq!(bench.out.filters.len(), during);
}

#[test]
fn receipts_for_others_or_signed_by_others_change_nothing() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.wait(200);
    bench.receipt(5, b"other bytes", Verdict::Accepted { round: 5 });
    bench.receipt(4, b"noised", Verdict::Accepted { round: 4 });
    let pseudonym = secret().pseudonym(&channel(), 5);
    let (update, verdict) = (Digest::of(b"noised"), Verdict::Accepted { round: 5 });
    let receipt = Receipt { round: 5, pseudonym, update, verdict };
    let forged = Signed::sign(&SigningKey::from_bytes(&[4; 32]), 5, &receipt).unwrap();
    bench.hear(Topic::Receipt(pseudonym), forged.encode().unwrap());
    bench.hear(Topic::Receipt(pseudonym), vec![0; 300]);
    assert_eq!(bench.mirror.with(|mirror| mirror.published), 0);
    assert_eq!(bench.device.snapshot().refused["receipt"], 2);
}
