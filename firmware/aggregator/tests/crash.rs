//! SIGKILL during the counting of updates: no acknowledged update is lost, none is counted twice.
//!
//! The parent starts this test program as a child that counts updates batch by batch, out of order and with repeats,
//! and that writes every receipt to a file before it goes on. The parent kills it at a random moment, and the next
//! child goes on. After each death the sum in the database must be, number for number, the sum of exactly those
//! updates that the database lists, and every receipt must be for one of them.
//!
//! A dozen kills by default; `AGGREGATOR_KILLS=1000` for a long run.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregator::ingest::{Submission, Worker};
use aggregator::records::Round;
use aggregator::store::{Decision, Fate, Store};
use common::Fleet;
use learn::averaging::PartialSum;
use learn::update::Update;
use proto::Pseudonym;

const UPDATES: usize = 400;
const ROOT: &str = "AGGREGATOR_CRASH_ROOT";
const SEED: &str = "AGGREGATOR_CRASH_SEED";

fn name(index: usize) -> Pseudonym {
    let mut name = [0; 16];
    name[..8].copy_from_slice(&(index as u64).to_le_bytes());
    Pseudonym(name)
}

fn submissions(root: &Path, round: u64) -> Vec<Submission> {
    let bytes = std::fs::read(root.join("updates")).unwrap();
    let each = bytes.len() / UPDATES;
    let one = |(index, bytes): (usize, &[u8])| Submission {
        round,
        pseudonym: name(index),
        bytes: bytes.to_vec(),
    };
    bytes.chunks_exact(each).enumerate().map(one).collect()
}

/// xorshift.
fn random(state: &mut u64, below: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state % below as u64) as usize
}

/// Not a test of its own: the life of one child. Does nothing unless the parent asks.
#[test]
fn child() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let root = PathBuf::from(root);
    let mut state: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let store = Arc::new(Store::open(&root.join("fleet.redb")).unwrap());
    let all = submissions(&root, 1);
    let mut workers: Vec<Worker> =
        (0..3).map(|number| Worker::new(Arc::clone(&store), number)).collect();
    let mut receipts =
        OpenOptions::new().append(true).create(true).open(root.join("receipts")).unwrap();
    loop {
        let size = 1 + random(&mut state, 24);
        let batch: Vec<Submission> =
            (0..size).map(|_| all[random(&mut state, UPDATES)].clone()).collect();
        let worker = random(&mut state, 3);
        for receipt in workers[worker].count(&batch).unwrap() {
            assert!(!matches!(receipt.fate, Fate::Refused(_)), "{receipt:?}");
            let index = u64::from_le_bytes(receipt.pseudonym.0[..8].try_into().unwrap());
            receipts.write_all(format!("{index:06}\n").as_bytes()).unwrap();
        }
    }
}

/// What the database counts, checked against its own sum.
fn counted(root: &Path, round: &Round, all: &[Submission]) -> BTreeSet<usize> {
    let store = Store::open(&root.join("fleet.redb")).unwrap();
    let rules = round.task.rules().unwrap();
    let mut expected = PartialSum::new(rules);
    let mut names = BTreeSet::new();
    for (index, submission) in all.iter().enumerate() {
        if store.counted(round.id, submission.pseudonym).unwrap().is_some() {
            expected.add(&Update::decode(&submission.bytes).unwrap()).unwrap();
            names.insert(index);
        }
    }
    assert_eq!(store.merged(round.id, rules).unwrap(), expected, "the sum is not the list's");
    assert_eq!(store.tally(round.id).unwrap().counted, names.len() as u64);
    names
}

#[test]
fn killed_while_counting() {
    let kills: usize = std::env::var("AGGREGATOR_KILLS").map_or(12, |text| text.parse().unwrap());
    let (mut state, mut done, mut counted) = (0x9e37_79b9_7f4a_7c15, 0, 0);
    while done < kills {
        let (struck, most) = kill_through_a_round(kills - done, &mut state);
        (done, counted) = (done + struck, counted + most);
    }
    assert!(counted > 0, "nothing was counted at all");
    println!("{done} kills, {counted} updates counted");
}

/// Bytes of receipts that the children have written.
fn receipts(root: &Path) -> u64 {
    std::fs::metadata(root.join("receipts")).map_or(0, |file| file.len())
}

/// Kills one counting process after the other, at most `kills`, until the round's updates are all counted: from then on nothing is written
/// that a kill could tear. Gives how many were killed, and the updates that count.
fn kill_through_a_round(kills: usize, state: &mut u64) -> (usize, usize) {
    let fleet = Fleet::new("crash", common::rules());
    fleet.enrol(2);
    let round = fleet.open_round();
    let name_all = |decision: &mut Decision<'_>| {
        (0..UPDATES).try_for_each(|index| decision.put_name(round.id, name(index), "mirror-0"))
    };
    fleet.engine.store().decide(0, fleet.engine.key(), name_all).unwrap();
    let (engine, _clock, folder) = fleet.into_parts();
    drop(engine);
    let root = &folder.0;
    let updates: Vec<u8> =
        (0..UPDATES).flat_map(|_| common::release(&round, 0.01, common::Z)).collect();
    std::fs::write(root.join("updates"), updates).unwrap();
    let all = submissions(root, 1);
    let mut most = 0;
    for kill in 0..kills {
        let before = receipts(root);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(ROOT, root)
            .env(SEED, (*state ^ (kill as u64 + 1)).max(1).to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Struck at a moment of its counting, not of its start, which takes longer on a busy machine.
        let began = Instant::now();
        while receipts(root) == before && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(random(state, 130) as u64));
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        let names = counted(root, &round, &all);
        let text = std::fs::read_to_string(root.join("receipts")).unwrap_or_default();
        // The last line may be torn by the kill.
        for line in text.lines().filter(|line| line.len() == 6) {
            let index = line.parse().unwrap();
            assert!(names.contains(&index), "update {index} was acknowledged and is lost");
        }
        assert!(names.len() >= most, "updates were lost");
        most = names.len();
        if most == UPDATES {
            return (kill + 1, most);
        }
    }
    (kills, most)
}
