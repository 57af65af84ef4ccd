//! A life of a mirror in memory, and its stores as files in a folder: what `tests/upgrade.rs` opens with the programs that follow.
//!
//! Eleven corrections of which one is deleted; the fleet's version 3, and two heads of the household's own upon it; two releases, of which the
//! second still waits. Prints the digests of the head in use and of its base.
//!
//! ```sh
//! cargo run -p home --example life firmware/home/tests/fixtures/NAME
//! ```

#![allow(clippy::unwrap_used)] // what fails here is a mistake of this file

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::path::PathBuf;

use common::{ColourTrunk, Device, add, base, own_rules, scene, stores_by_name, train};
use home::{Home, HomeError, PublicCheck};
use learn::consent::ContributeToFleet;
use learn::edges::{MonotonicCounter, ReleaseId};
use learn::head::Subset;

const DELETED: u64 = 7;

fn release(home: &Home) -> Result<ReleaseId, HomeError> {
    home.release(&home.token::<ContributeToFleet>().unwrap(), &own_rules(home))
}

fn digest(parameters: &[f32]) -> String {
    base().layout.digest(parameters).0.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).expect("a folder that is not there yet"));
    let device = Device::new();
    let home = device.start_with(10);
    let better = {
        let other = Device::new().start_with(10);
        train(&other);
        other.head_values()
    };
    // A step that leaves the household something to learn.
    let step: Vec<f32> = base()
        .parameters
        .iter()
        .zip(better.iter())
        .map(|(from, to)| from + 0.02 * (to - from))
        .collect();
    let values = base().layout.gather(Subset::Full, &step);
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let check = PublicCheck { pictures: (1_000..1_004).map(scene).collect() };
    home.try_model(3, &bytes, &check, &mut ColourTrunk::default()).unwrap();
    train(&home);
    let first = release(&home).unwrap();
    home.published(first).unwrap();
    home.remove_correction(DELETED).unwrap();
    device.clocks.pass(86_400);
    add(&home, 10..11);
    train(&home);
    release(&home).unwrap();
    home.remember_lived().unwrap();
    for (name, store) in stores_by_name(&device) {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in store.files.lock().unwrap().iter() {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let counter = device.counter.value().unwrap().unwrap();
    fs::write(folder.join("counter"), counter.to_string()).unwrap();
    println!("head {}, base {}", digest(&home.head_values()), digest(&home.base().parameters));
    println!("{} heads, {} corrections", home.heads().len(), home.usage().corrections);
}
