//! A life of a fleet, and its database as a file: what `tests/upgrade.rs` opens with the programs that follow.
//!
//! Six devices of which one is revoked; a round that became version 2; a rollback to version 1; a round that was aborted; version 4, of
//! which a device failed, half rolled out; and another round on it, forced, that has counted two updates and takes more.
//!
//! ```sh
//! cargo run -p aggregator --example fleet_life firmware/aggregator/tests/fixtures/NAME.redb
//! ```

#![allow(clippy::unwrap_used)] // what fails here is a mistake of this file

#[path = "../tests/common/mod.rs"]
mod common;

use aggregator::engine::Report;
use common::{Fleet, request};
use proto::status::JobFault;

fn main() {
    let file = std::env::args().nth(1).expect("a file that is not there yet");
    let fleet = Fleet::new("life", common::rules());
    fleet.enrol(6);
    let round = fleet.open_round();
    let batch: Vec<_> = (0..6).map(|name| fleet.submission(&round, name, 0.01)).collect();
    fleet.worker(0).count(&batch).unwrap();
    fleet.clock.add(100);
    fleet.settle();
    fleet.reach_everybody();
    fleet.engine.revoke("mirror-5", "stolen").unwrap();
    fleet.engine.rollback(1).unwrap();
    let round = fleet.open_round();
    fleet.engine.abort_round(round.id, "a life's").unwrap();
    let newest = common::add_version(&fleet.engine, 0.5);
    fleet.engine.publish(newest).unwrap();
    for number in 0..4 {
        let report = match number {
            0 => Report::Failed(JobFault::Unusable),
            _ => Report::Installed,
        };
        fleet.engine.report(&format!("mirror-{number}"), newest, report).unwrap();
    }
    fleet.clock.add(60);
    fleet.settle();
    let round = fleet.engine.start_round(&request(true)).unwrap();
    fleet.clock.add(10);
    fleet.engine.advance(true).unwrap();
    let batch: Vec<_> = (0..2).map(|name| fleet.submission(&round, name, 0.01)).collect();
    fleet.worker(0).count(&batch).unwrap();
    println!("{}", serde_json::to_string_pretty(&fleet.engine.status().unwrap()).unwrap());
    let (engine, _, folder) = fleet.into_parts();
    drop(engine);
    std::fs::copy(folder.0.join("fleet.redb"), file).unwrap();
}
