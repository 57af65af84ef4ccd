//! Messages as earlier firmware wrote them: `fixtures/v1.txt` never changes, however the code does.
//!
//! A new message fails the test, which prints the line to add.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::collections::BTreeMap;
use std::fmt::Debug;

use common::Visitor;
use proto::Message;

const V1: &str = include_str!("fixtures/v1.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(pair).collect()
}

struct Compare {
    fixtures: BTreeMap<&'static str, &'static str>,
}

impl Visitor for Compare {
    fn visit<M: Message + PartialEq + Debug>(&mut self, name: &str, message: &M) {
        let written = hex(&message.encode().unwrap());
        let fixture = self.fixtures.remove(name);
        let fixture = fixture.unwrap_or_else(|| panic!("no fixture yet; add: {name}\t{written}"));
        assert_eq!(written, fixture, "{name} is written otherwise");
        assert_eq!(&M::decode(&unhex(fixture)).unwrap(), message, "{name} is read otherwise");
    }
}

#[test]
fn every_message_of_version_1_is_still_written_and_read_as_it_was() {
    let fixtures = V1.lines().map(|line| line.split_once('\t').unwrap()).collect();
    let mut compare = Compare { fixtures };
    common::each(&mut compare);
    assert!(compare.fixtures.is_empty(), "without a message: {:?}", compare.fixtures.keys());
}
