//! Models of the fleet: which are fetched and tried, and what is said of them.

use std::time::Duration;

use proto::content::{CHUNK_BYTES, chunk, indexes};
use proto::model::{ModelChunk, ModelManifest, ModelWanted};
use proto::status::{JobFault, JobNotice, JobPhase};
use proto::wire::Blob;
use proto::{Digest, Message, Topic};
use uplink::transport::Event;

use crate::bench::{Bench, Shared, channel, model};

fn install(device: &str, manifest: ModelManifest) -> JobNotice {
    JobNotice::Install { device: device.parse().unwrap(), manifest }
}

/// Answers requests for chunks; drops every `lossy`-th.
fn serve(bench: &mut Bench, bytes: &[u8], lossy: usize, count: &mut usize) {
    for (_, payload) in bench.take("/model/wanted") {
        let wanted = ModelWanted::decode(&payload).unwrap();
        for index in indexes(&wanted.chunks) {
            *count += 1;
            if (*count).is_multiple_of(lossy) {
                continue;
            }
            let device = "mirror-17".parse().unwrap();
            let piece = Blob(chunk(bytes, index).unwrap().to_vec());
            let message = ModelChunk { model: wanted.model, index, bytes: piece };
            let topic = Topic::ModelChunk(device, wanted.version, index);
            bench.hear(topic, message.encode().unwrap());
        }
    }
}

#[test]
fn a_model_arrives_over_a_lossy_network_is_tried_once_and_reported() {
    let bytes: Vec<u8> = (0..20 * CHUNK_BYTES + 5).map(|index| (index / 50) as u8).collect();
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &model(4, &bytes));
    let mut count = 0;
    for _ in 0..600 {
        bench.wait(1);
        serve(&mut bench, &bytes, 3, &mut count);
        if bench.mirror.with(|mirror| !mirror.tried.is_empty()) {
            break;
        }
    }
    assert_eq!(bench.mirror.with(|mirror| mirror.tried.clone()), [(4, bytes.clone())]);
    bench.wait(1);
    assert_eq!(bench.phases(), [JobPhase::Downloading, JobPhase::Trying]);
    bench.mirror.with(|mirror| mirror.outcome = Some(Ok(())));
    bench.wait(1);
    assert_eq!(bench.phases(), [JobPhase::Done]);
    // Neither the same manifest again, nor an older version under a newer number, starts anything.
    bench.kept(Topic::ModelManifest(channel()), 1, &model(4, &bytes));
    bench.state(Topic::ModelManifest(channel()), 2, &model(3, b"older"));
    bench.wait(60);
    assert!(bench.take("/model/").is_empty());
    assert_eq!(bench.device.snapshot().model_tried, 4);
    // The broker may have lost the report: it is said again at every connection, also after a restart.
    bench.event(Event::Disconnected("cut".into()));
    bench.event(Event::Connected);
    assert_eq!(bench.phases(), [JobPhase::Done]);
    let mut restarted = Bench::with(bench.mirror);
    restarted.wait(60);
    assert_eq!(restarted.phases(), [JobPhase::Done]);
}

/// Everything that is sent of the model arrives.
fn fetch(bench: &mut Bench, bytes: &[u8]) {
    for _ in 0..60 {
        bench.wait(1);
        serve(bench, bytes, usize::MAX, &mut 0);
    }
}

#[test]
fn how_a_trial_ended_is_told_late_and_not_lost_with_the_power() {
    let least = Duration::from_secs(600);
    for outcome in [Ok(()), Err(JobFault::PublicCheck)] {
        let mut bench = Bench::trying(Shared::default(), least);
        bench.state(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
        bench.mirror.with(|mirror| mirror.outcome = Some(outcome));
        fetch(&mut bench, b"parameters");
        bench.mirror.with(|mirror| mirror.in_force = if outcome.is_ok() { 4 } else { 0 });
        bench.reconnect(10);
        bench.wait(300);
        assert_eq!(
            bench.phases(),
            [JobPhase::Downloading, JobPhase::Trying],
            "not before the time"
        );
        assert_eq!(bench.device.snapshot().model_tried, 0);
        let later = outcome.map_or_else(JobPhase::Failed, |()| JobPhase::Done);
        // The power goes, and the next start tells.
        let mut next = Bench::trying(bench.mirror.clone(), least);
        assert_eq!(next.phases(), [later]);
        next.kept(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
        next.wait(60);
        assert!(next.take("/model/wanted").is_empty(), "it is not fetched again");
        bench.wait(300);
        assert_eq!(bench.phases(), [later], "where the power stays on");
        assert_eq!(bench.mirror.with(|mirror| mirror.memory.unsaid), None);
    }
}

/// A mirror that fetches the model, begins its trial, and is gone before that ends. `stop` ends it.
fn cut_short(mirror: &Shared, stop: fn(&mut Bench)) {
    let mut bench = Bench::with(mirror.clone());
    bench.kept(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    let before = bench.mirror.with(|mirror| mirror.tried.len());
    fetch(&mut bench, b"parameters");
    assert_eq!(bench.mirror.with(|mirror| mirror.tried.len()), before + 1);
    stop(&mut bench);
}

#[test]
fn a_model_whose_trial_ends_the_program_twice_is_reported_and_not_tried_again() {
    let mirror = Shared::default();
    for _ in 0..2 {
        cut_short(&mirror, |_| {});
    }
    let mut third = Bench::with(mirror.clone());
    third.kept(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    third.wait(60);
    assert_eq!(third.phases(), [JobPhase::Failed(JobFault::Unusable)]);
    assert!(third.take("/model/wanted").is_empty());
    assert_eq!(third.device.snapshot().model_tried, 4);
    // Another version begins with nothing against it.
    third.state(Topic::ModelManifest(channel()), 2, &model(5, b"better"));
    mirror.with(|mirror| mirror.outcome = Some(Ok(())));
    fetch(&mut third, b"better");
    assert_eq!(third.phases().last(), Some(&JobPhase::Done));
    assert_eq!(mirror.with(|mirror| mirror.memory.trying), None);
}

#[test]
fn a_trial_that_a_clean_stop_cuts_short_is_not_held_against_the_model() {
    let mirror = Shared::default();
    for _ in 0..3 {
        cut_short(&mirror, |bench| bench.device.goodbye(&mut bench.out));
        assert_eq!(mirror.with(|mirror| mirror.memory.trying), None);
    }
    cut_short(&mirror, |_| {});
    // A stop before the next trial does not take that back.
    let mut bench = Bench::with(mirror.clone());
    bench.device.goodbye(&mut bench.out);
    cut_short(&mirror, |_| {});
    assert_eq!(Bench::with(mirror).phases(), [JobPhase::Failed(JobFault::Unusable)]);
}

#[test]
fn a_start_tells_of_a_model_that_is_in_force_and_fetches_one_that_is_gone() {
    // The power went between the model's own file and the protocol's.
    let mirror = Shared::default();
    mirror.with(|mirror| mirror.in_force = 4);
    let mut bench = Bench::with(mirror);
    bench.kept(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    bench.wait(60);
    assert_eq!(bench.phases(), [JobPhase::Done]);
    assert!(bench.take("/model/wanted").is_empty());
    // Its file was damaged.
    bench.mirror.with(|mirror| mirror.in_force = 0);
    let mut bench = Bench::with(bench.mirror.clone());
    bench.kept(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    bench.wait(60);
    assert!(!bench.take("/model/wanted").is_empty());
}

#[test]
fn a_model_that_found_no_room_is_tried_again_with_a_later_connection() {
    let mut bench = Bench::new(None);
    let manifest = model(4, b"parameters");
    bench.state(Topic::ModelManifest(channel()), 1, &manifest);
    bench.mirror.with(|mirror| mirror.outcome = Some(Err(JobFault::Storage)));
    fetch(&mut bench, b"parameters");
    let failed = JobPhase::Failed(JobFault::Storage);
    assert_eq!(bench.phases(), [JobPhase::Downloading, JobPhase::Trying, failed]);
    assert_eq!(bench.device.snapshot().model_tried, 0);
    bench.reconnect(10);
    bench.kept(Topic::ModelManifest(channel()), 1, &manifest);
    bench.wait(60);
    assert!(bench.take("/model/wanted").is_empty(), "not with every connection");
    bench.reconnect(3600);
    bench.kept(Topic::ModelManifest(channel()), 1, &manifest);
    bench.phases();
    bench.mirror.with(|mirror| mirror.outcome = Some(Ok(())));
    fetch(&mut bench, b"parameters");
    assert_eq!(bench.phases().last(), Some(&JobPhase::Done));
    assert_eq!(bench.device.snapshot().model_tried, 4);
    // Or once somebody has made room and asks for it.
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &manifest);
    assert_eq!(bench.device.snapshot().model_on_offer, None, "it is under way");
    bench.mirror.with(|mirror| mirror.outcome = Some(Err(JobFault::Storage)));
    fetch(&mut bench, b"parameters");
    assert_eq!(bench.device.snapshot().model_on_offer, Some(4));
    bench.device.install_newest(bench.now);
    bench.mirror.with(|mirror| mirror.outcome = Some(Ok(())));
    fetch(&mut bench, b"parameters");
    assert_eq!(bench.device.snapshot().model_tried, 4);
    // Any other fault would come again with the same bytes.
    bench.state(Topic::ModelManifest(channel()), 2, &model(5, b"worse"));
    bench.mirror.with(|mirror| mirror.outcome = Some(Err(JobFault::PublicCheck)));
    fetch(&mut bench, b"worse");
    assert_eq!(bench.device.snapshot().model_tried, 5);
}

#[test]
fn a_model_that_found_no_room_is_tried_again_on_a_connection_that_stays() {
    let no_room = |bench: &mut Bench| {
        bench.mirror.with(|mirror| mirror.outcome = Some(Err(JobFault::Storage)));
        fetch(bench, b"parameters");
        assert_eq!(bench.phases().last(), Some(&JobPhase::Failed(JobFault::Storage)));
    };
    let hours = |bench: &mut Bench| {
        let hours = (1..=30).find(|_| {
            bench.wait(3600);
            bench.device.snapshot().model_under_way.is_some()
        });
        hours.expect("it is tried again")
    };
    let (manifest, job) = (model(4, b"parameters"), Topic::JobNotify("mirror-17".parse().unwrap()));
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &manifest);
    no_room(&mut bench);
    bench.wait(1700);
    assert_eq!(bench.device.snapshot().model_under_way, None, "not at once");
    let waits = [(); 7].map(|()| {
        let waited = hours(&mut bench);
        no_room(&mut bench);
        waited
    });
    assert!(waits[0] == 1 && waits[6] >= 12 && waits.iter().all(|wait| *wait <= 24), "{waits:?}");
    hours(&mut bench);
    bench.mirror.with(|mirror| mirror.outcome = Some(Ok(())));
    fetch(&mut bench, b"parameters");
    assert_eq!(bench.device.snapshot().model_tried, 4);

    // A job as well.
    let mut bench = Bench::new(None);
    bench.state(job, 1, &install("mirror-17", manifest.clone()));
    no_room(&mut bench);
    assert_eq!(hours(&mut bench), 1);

    // Not where the roll-out has been stopped meanwhile, or has gone on to others.
    for later in [0, 1] {
        let mut bench = Bench::new(None);
        bench.state(Topic::ModelManifest(channel()), 1, &manifest);
        no_room(&mut bench);
        let later = ModelManifest { rollout_permille: 0, ..model(4 + later, b"parameters") };
        bench.state(Topic::ModelManifest(channel()), 2, &later);
        bench.wait(2 * 3600);
        assert!(bench.take("/model/wanted").is_empty());
    }
}

#[test]
fn a_roll_out_that_is_stopped_ends_its_downloads_and_is_offered_to_nobody() {
    let stopped = ModelManifest { rollout_permille: 0, ..model(4, b"parameters") };
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    bench.wait(10);
    assert_eq!(bench.device.snapshot().model_under_way, Some(4));
    bench.state(Topic::ModelManifest(channel()), 2, &stopped);
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.model_under_way, snapshot.model_on_offer), (None, None));
    bench.device.install_newest(bench.now);
    bench.take("/model/wanted");
    bench.wait(100);
    assert!(bench.take("/model/wanted").is_empty());

    // A job for this mirror is no part of the roll-out, and a trial that has begun ends by itself.
    let mut bench = Bench::new(None);
    let install = install("mirror-17", model(4, b"parameters"));
    bench.state(Topic::JobNotify("mirror-17".parse().unwrap()), 1, &install);
    bench.state(Topic::ModelManifest(channel()), 1, &stopped);
    assert_eq!(bench.device.snapshot().model_under_way, Some(4));
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    fetch(&mut bench, b"parameters");
    bench.state(Topic::ModelManifest(channel()), 2, &stopped);
    bench.mirror.with(|mirror| mirror.outcome = Some(Ok(())));
    bench.wait(1);
    assert_eq!(bench.phases().last(), Some(&JobPhase::Done));
}

#[test]
fn a_model_of_another_base_is_not_on_offer() {
    let other = ModelManifest { base: Digest::of(b"another network"), ..model(4, b"parameters") };
    for permille in [10, 1000] {
        let mut bench = Bench::new(None);
        let manifest = ModelManifest { rollout_permille: permille, ..other.clone() };
        bench.state(Topic::ModelManifest(channel()), 1, &manifest);
        let snapshot = bench.device.snapshot();
        assert_eq!((snapshot.model_under_way, snapshot.model_on_offer), (None, None));
    }
}

#[test]
fn a_download_that_nobody_answers_ends_and_begins_anew_when_it_is_announced() {
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    bench.wait(8 * 3600);
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.model_under_way, snapshot.model_tried), (None, 0));
    assert!(snapshot.note.is_some_and(|note| note.contains("model 4")));
    assert_eq!(bench.phases(), [JobPhase::Downloading], "it is no fault of the model's");
    bench.state(Topic::ModelManifest(channel()), 2, &model(4, b"parameters"));
    fetch(&mut bench, b"parameters");
    assert_eq!(bench.mirror.with(|mirror| mirror.tried.len()), 1);
}

#[test]
fn a_job_of_another_channel_is_refused() {
    let mut bench = Bench::new(None);
    let manifest = ModelManifest { channel: "beta".parse().unwrap(), ..model(4, b"parameters") };
    let topic = Topic::JobNotify("mirror-17".parse().unwrap());
    bench.state(topic.clone(), 1, &install("mirror-17", manifest));
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.model_under_way, snapshot.refused["job"]), (None, 1));
    bench.state(topic, 1, &install("mirror-17", model(4, b"parameters")));
    assert_eq!(bench.device.snapshot().model_under_way, Some(4));
}

#[test]
fn a_job_of_another_mirror_or_of_none_is_refused_whoever_brings_it() {
    let mut bench = Bench::new(None);
    let topic = Topic::JobNotify("mirror-17".parse().unwrap());
    bench.state(topic.clone(), 1, &install("mirror-18", model(4, b"parameters")));
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.model_under_way, snapshot.refused["job"]), (None, 1));
    bench.state(topic, 2, &JobNotice::ForAnybody(model(4, b"parameters")));
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.model_under_way, snapshot.refused["job"]), (None, 2));
    bench.wait(60);
    assert!(bench.take("/model/wanted").is_empty());
}

#[test]
fn an_older_manifest_or_job_that_the_broker_brings_again_is_refused() {
    let stopped = ModelManifest { rollout_permille: 0, ..model(4, b"parameters") };
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    bench.state(Topic::ModelManifest(channel()), 2, &stopped);
    // Also after a restart.
    let mut bench = Bench::with(bench.mirror.clone());
    bench.kept(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    bench.wait(60);
    assert_eq!(bench.device.snapshot().refused["model manifest"], 1);
    assert!(bench.take("/model/wanted").is_empty());

    let topic = Topic::JobNotify("mirror-17".parse().unwrap());
    let mut bench = Bench::new(None);
    bench.mirror.with(|mirror| mirror.outcome = Some(Ok(())));
    bench.state(topic.clone(), 2, &install("mirror-17", model(4, b"parameters")));
    fetch(&mut bench, b"parameters");
    let mut bench = Bench::with(bench.mirror.clone());
    bench.state(topic, 1, &install("mirror-17", model(5, b"withdrawn")));
    bench.wait(60);
    assert_eq!(bench.device.snapshot().refused["job"], 1);
    assert!(bench.take("/model/wanted").is_empty());
}

#[test]
fn foreign_and_damaged_model_chunks_are_refused_and_asked_for_again() {
    let bytes = vec![6; 2 * CHUNK_BYTES];
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &model(4, &bytes));
    bench.wait(10);
    bench.take("/model/wanted");
    let device: proto::DeviceId = "mirror-17".parse().unwrap();
    let wrong = [
        (Digest::of(&bytes), 0, vec![7; CHUNK_BYTES]),
        (Digest::of(b"other"), 0, bytes[..CHUNK_BYTES].to_vec()),
        (Digest::of(&bytes), 9, bytes[..CHUNK_BYTES].to_vec()),
    ];
    for (model, index, piece) in wrong {
        let message = ModelChunk { model, index, bytes: Blob(piece) };
        bench.hear(Topic::ModelChunk(device.clone(), 4, index), message.encode().unwrap());
    }
    assert_eq!(bench.device.snapshot().refused["model chunk"], 3);
    // Of this version, under another number than its own.
    let message = ModelChunk { model: Digest::of(&bytes), index: 0, bytes: Blob(vec![6; 9]) };
    bench.hear(Topic::ModelChunk(device.clone(), 4, 1), message.encode().unwrap());
    assert_eq!(bench.device.snapshot().refused["model chunk"], 4);
    // Late, of a version that this one has replaced.
    bench.hear(Topic::ModelChunk(device.clone(), 3, 0), message.encode().unwrap());
    assert_eq!(bench.device.snapshot().refused["model chunk"], 4);
    let mut count = 0;
    for _ in 0..60 {
        bench.wait(1);
        serve(&mut bench, &bytes, usize::MAX, &mut count);
    }
    assert_eq!(bench.mirror.with(|mirror| mirror.tried.len()), 1);
}

#[test]
fn a_model_for_another_base_is_reported_and_left_alone() {
    let mut bench = Bench::new(None);
    let manifest = ModelManifest { base: Digest::of(b"else"), ..model(4, b"parameters") };
    bench.state(Topic::ModelManifest(channel()), 1, &manifest);
    bench.wait(60);
    assert_eq!(bench.phases(), [JobPhase::Failed(JobFault::Base)]);
    bench.kept(Topic::ModelManifest(channel()), 1, &manifest);
    bench.wait(600);
    assert!(bench.phases().is_empty(), "once, although the broker hands the manifest out again");
    assert!(bench.take("/model/wanted").is_empty());
}

#[test]
fn a_model_that_another_network_refused_is_told_as_installed_where_it_runs() {
    let mut bench = Bench::new(None);
    let manifest = ModelManifest { base: Digest::of(b"else"), ..model(4, b"parameters") };
    bench.state(Topic::ModelManifest(channel()), 1, &manifest);
    assert_eq!(bench.phases(), [JobPhase::Failed(JobFault::Base)]);
    // The firmware with the other network is taken back.
    bench.mirror.with(|mirror| mirror.in_force = 4);
    let mut bench = Bench::with(bench.mirror.clone());
    bench.wait(1);
    assert_eq!(bench.phases(), [JobPhase::Done]);
    bench.mirror.with(|mirror| mirror.in_force = 3);
    let mut bench = Bench::with(bench.mirror.clone());
    bench.wait(1);
    assert_eq!(bench.phases(), [JobPhase::Failed(JobFault::Base)], "of another version");
}

#[test]
fn how_a_job_ended_is_said_again_when_the_fleet_announces_its_version_again() {
    let mut bench = Bench::new(None);
    let manifest = model(1, b"base");
    bench.state(Topic::ModelManifest(channel()), 1, &manifest);
    assert_eq!(bench.phases(), [JobPhase::Done]);
    // A fleet that was away, and one whose roll-out goes on.
    for sequence in [1, 2] {
        bench.state(Topic::ModelManifest(channel()), sequence, &manifest);
        bench.state(Topic::ModelManifest(channel()), sequence, &manifest);
        assert!(bench.phases().is_empty(), "not with all the others at once");
        bench.wait(300);
        assert_eq!(bench.phases(), [JobPhase::Done], "once");
    }
    let install = install("mirror-17", manifest);
    bench.state(Topic::JobNotify("mirror-17".parse().unwrap()), 3, &install);
    bench.wait(300);
    assert_eq!(bench.phases(), [JobPhase::Done]);
    let newer = ModelManifest { rollout_permille: 0, ..model(5, b"parameters") };
    bench.state(Topic::ModelManifest(channel()), 4, &newer);
    bench.wait(600);
    assert!(bench.phases().is_empty(), "of another version there is nothing to say");
}

#[test]
fn the_model_that_the_mirror_came_with_does_not_travel_but_a_roll_back_to_it_does() {
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &model(1, b"base"));
    bench.wait(60);
    assert_eq!(bench.phases(), [JobPhase::Done]);
    assert!(bench.take("/model/wanted").is_empty());
    assert_eq!(bench.device.snapshot().model_tried, 1);
    bench.state(Topic::ModelManifest(channel()), 2, &model(3, b"base"));
    bench.wait(60);
    assert!(!bench.take("/model/wanted").is_empty());
    // After a loss of memory too: what is in force is another one.
    let mirror = Shared::default();
    mirror.with(|mirror| (mirror.in_force, mirror.memory.lost) = (5, true));
    let mut bench = Bench::with(mirror);
    bench.state(Topic::ModelManifest(channel()), 3, &model(6, b"base"));
    bench.wait(60);
    assert!(!bench.take("/model/wanted").is_empty());
}

#[test]
fn a_model_that_cannot_be_remembered_is_heard_of_again_once_the_disk_works() {
    for topic in [Topic::ModelManifest(channel()), Topic::JobNotify("mirror-17".parse().unwrap())] {
        let mut bench = Bench::new(None);
        let manifest = model(4, b"parameters");
        let say = |bench: &mut Bench| match &topic {
            Topic::JobNotify(_) => {
                bench.kept(topic.clone(), 1, &install("mirror-17", manifest.clone()))
            }
            _ => bench.kept(topic.clone(), 1, &manifest),
        };
        bench.mirror.with(|mirror| mirror.disk_fails = true);
        say(&mut bench);
        assert_eq!(bench.device.snapshot().model_under_way, None);
        bench.mirror.with(|mirror| mirror.disk_fails = false);
        let before = bench.out.filters.len();
        bench.wait(20);
        assert!(bench.out.filters.len() > before);
        say(&mut bench);
        assert_eq!(bench.device.snapshot().model_under_way, Some(4));
    }
}
