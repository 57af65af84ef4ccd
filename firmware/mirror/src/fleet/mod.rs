//! The mirror as a member of its fleet and of its home: two connections to two brokers, each a supervised part of its own.
//!
//! The mirror works without either. What was learnt reaches the fleet from the outbox alone; what Home Assistant gets is
//! listed in [`uplink::home_assistant::State`].

mod absence;
mod check;
mod enrolment;
mod home_assistant;
mod household;
mod member;
mod trial;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use home::{Beside, ConsentState, HomeError, Household};
use learn::consent::PurposeKind;
use tracing::warn;
use uplink::device::Snapshot;
use uplink::mqtt::Handle;
use uplink::pace::Jitter;
use uplink::run::Watch;

use crate::config;
use crate::learning::Learning;
use crate::private;
use crate::shared::{Shared, Topic};

pub(crate) use enrolment::check_certificate;
pub use home_assistant::{AUTHORITY, HomePart};
pub use member::Member;
pub use trial::Trial;

/// How often the parts look whether to stop, and for something new to send.
const TICK: Duration = Duration::from_millis(200);

/// Why a household is asked anew: the fleet is another one than it agreed to, or there was none.
const ANOTHER_FLEET: &str = "the mirror has joined a fleet to which nobody here has agreed to contribute: answer on the mirror's page";
/// Or nobody knows which one it agreed to.
const LOST: &str = "the mirror cannot read what it knew of its fleet, so it asks again whether you contribute: answer on the mirror's page";

/// The question that nobody has answered yet, in the fleet's folder.
const QUESTION: &str = "question";

/// What both parts, the page and the screen share.
#[derive(Default)]
pub struct Fleet {
    member: bool,
    watch: Watch,
    asks: AtomicBool,
    /// Where the open question outlives the program.
    question: Option<PathBuf>,
}

impl Fleet {
    /// For a mirror that belongs to a fleet, or to none.
    pub fn new(member: bool) -> Fleet {
        Fleet { member, ..Fleet::default() }
    }

    /// With the open question in this folder; one of an earlier start is asked again.
    pub fn kept_in(self, folder: &Path, shared: &Shared) -> Fleet {
        let path = folder.join(QUESTION);
        let question = private::read(&path).unwrap_or_else(|error| {
            warn!("fleet: {error}");
            None
        });
        let fleet = Fleet { question: Some(path), ..self };
        if let Some(text) = question.filter(|_| fleet.member) {
            fleet.show_question(shared, &String::from_utf8_lossy(&text));
        }
        fleet
    }

    /// Whether the mirror belongs to a fleet.
    pub fn is_member(&self) -> bool {
        self.member
    }

    /// How the connection to the fleet does.
    pub fn snapshot(&self) -> Snapshot {
        self.watch.read()
    }

    /// Whether the household was asked to take part, and nobody has answered at the mirror yet.
    pub fn asks(&self) -> bool {
        self.asks.load(Ordering::SeqCst)
    }

    /// Home Assistant asks; only an answer on the mirror's own page counts. Where it is asked already, nothing is written.
    pub(crate) fn ask(&self, shared: &Shared) {
        let asked = self.asks();
        if asked && self.question.as_ref().is_none_or(|path| path.exists()) {
            return;
        }
        let text = "Home Assistant asks whether this household contributes to the fleet: answer on the mirror's page";
        let put = self.put_question(shared, text);
        // Told once: it may be pressed again and again.
        if let Some(error) = put.err().filter(|_| !asked) {
            warn!("fleet: the question is lost with the next start: {error:#}");
        }
    }

    /// Takes back a consent that was given for another fleet, or before there was any, and asks for this one; `why` is the question,
    /// [`ANOTHER_FLEET`] or [`LOST`].
    ///
    /// # Errors
    /// Of the stores; another call does the rest.
    fn ask_anew(&self, shared: &Shared, household: &Household, why: &str) -> Result<()> {
        if household.consent(PurposeKind::ContributeToFleet) == ConsentState::Absent {
            return Ok(());
        }
        // Before the consent goes: after a power cut in between nothing would say that there was one.
        self.put_question(shared, why)?;
        match household.withdraw(PurposeKind::ContributeToFleet) {
            // A damaged ledger keeps what waits from being sent as well.
            Ok(_) | Err(HomeError::Release(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn put_question(&self, shared: &Shared, text: &str) -> Result<()> {
        self.show_question(shared, text);
        if let Some(path) = &self.question {
            private::write(path, text.as_bytes())?;
        }
        Ok(())
    }

    fn show_question(&self, shared: &Shared, text: &str) {
        self.asks.store(true, Ordering::SeqCst);
        shared.set_notice(Topic::Question, Some(text));
    }

    /// Somebody answered, one way or the other.
    pub fn answered(&self, shared: &Shared) {
        self.asks.store(false, Ordering::SeqCst);
        shared.set_notice(Topic::Question, None);
        let removed = self.question.as_ref().map_or(Ok(()), fs::remove_file);
        if let Err(error) = removed.or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }) {
            warn!("fleet: the next start asks once more: {error}");
        }
    }
}

/// What stays of the fleet in the data folder when everything else is deleted.
pub fn beside(data: &Path) -> Beside {
    let why = "how far the mirror is with its fleet, and what it asked here: without it an old message could be believed, or a round \
               answered twice";
    Beside { name: "fleet", folder: config::fleet_dir(data), why }
}

/// What a part needs of learning, or `None` when the mirror stops first. While it waits for a reason that is known, the
/// reason is told.
fn wait_for<T>(
    shared: &Shared,
    learning: &Learning,
    (topic, part): (Topic, &str),
    open: impl Fn(&Learning) -> Option<&Arc<T>>,
) -> Option<Arc<T>> {
    while !shared.is_stopping() {
        if let Some(open) = open(learning) {
            return Some(Arc::clone(open));
        }
        let waits = learning.trouble().map(|reason| format!("{part} waits: {reason}"));
        if shared.set_notice(topic, waits.as_deref()) {
            waits.iter().for_each(|text| warn!("{text}"));
        }
        std::thread::sleep(TICK);
    }
    None
}

/// A small runtime for one connection.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")
}

/// A stream of pauses of this device's own.
fn jitter() -> Result<Jitter> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).context("the operating system gives no random numbers")?;
    Ok(Jitter::new(u64::from_le_bytes(seed)))
}

/// Ends the connection when the mirror stops, and wakes it when `version` grows.
async fn follow(shared: Arc<Shared>, handle: Handle, version: impl Fn() -> u64) {
    let mut seen = version();
    while !shared.is_stopping() {
        tokio::time::sleep(TICK).await;
        let now = version();
        if now != seen {
            seen = now;
            handle.wake();
        }
    }
    handle.stop().await;
}

#[cfg(test)]
pub(crate) mod small {
    //! Stores in a folder, for a head that trains in no time.

    use std::sync::atomic::AtomicU64;

    use home::edges::{Edges, Space};
    use home::{
        BaseModel, Conditions, Gate, Home, HomeOptions, PublicCheck, ReleaseRules, Stores, Trunk,
    };
    use learn::head::{HeadLayout, HeadShape, Subset};
    use vision::{GridSize, VisionError};

    use super::*;

    const SHAPE: HeadShape =
        HeadShape { queries: 5, dim: 8, hidden: 12, mask_height: 12, mask_width: 8 };
    pub const GRID: GridSize = GridSize { height: 48, width: 32 };

    pub fn home(folder: &Path) -> Home {
        Home::open(folder, base(), HomeOptions::default()).expect("writable")
    }

    /// On a disk with as many bytes free as are set.
    pub fn home_with_space(folder: &Path) -> (Home, Arc<AtomicU64>) {
        struct Free(Arc<AtomicU64>);
        impl Space for Free {
            fn free(&self) -> Option<u64> {
                Some(self.0.load(Ordering::SeqCst))
            }
        }
        let free = Arc::new(AtomicU64::new(u64::MAX));
        let edges = Edges { space: Arc::new(Free(free.clone())), ..Edges::system(folder) };
        let stores = Stores::in_folder(folder).expect("writable");
        (Home::over_stores(stores, base(), HomeOptions::default(), edges).expect("writable"), free)
    }

    fn base() -> BaseModel {
        let layout = HeadLayout::of_shape(SHAPE).expect("a head");
        let parameters = vec![0.25; layout.len()];
        let digest = layout.digest(&parameters);
        BaseModel { layout, parameters, digest, grid: GRID, padding: 114 }
    }

    pub fn agree(home: &Home) {
        for purpose in [PurposeKind::ImproveMyMirror, PurposeKind::ContributeToFleet] {
            home.grant(purpose, home.explanation().version(purpose)).expect("writable");
        }
    }

    /// A device that nobody uses.
    pub struct Idle;

    impl Gate for Idle {
        fn conditions(&self) -> Conditions {
            Conditions::IDLE
        }
    }

    /// A correction to learn from.
    pub fn correct(home: &Home) {
        let (pixels, mask) = (vec![90; 3 * GRID.area()], vec![0; GRID.area()]);
        home.add_correction(&home.token().expect("given"), &pixels, &mask).expect("stored");
    }

    /// A model of the fleet that is put in force: the shipped numbers, as this version.
    pub fn take_model(home: &Home, version: u64) {
        let values = home.shipped().layout.gather(Subset::Full, &home.shipped().parameters);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let check =
            PublicCheck { pictures: vec![(vec![90; 3 * GRID.area()], vec![0; GRID.area()])] };
        home.try_model(version, &bytes, &check, &mut Blind).expect("as good as before");
    }

    /// One more update that waits for the network.
    pub fn learn(home: &Home) {
        train(home);
        release(home);
    }

    /// One more finished run.
    pub fn train(home: &Home) {
        home.train_when(&mut Blind, &Idle, &AtomicBool::new(false)).expect("trained");
    }

    /// Releases it.
    pub fn release(home: &Home) {
        let rules = ReleaseRules {
            layout: home.layout_id(),
            noise_multiplier: home.options().noise_multiplier().expect("the default"),
            clip: 1.0,
            max_update_bytes: 1 << 20,
        };
        home.release(&home.token().expect("given"), &rules).expect("within the budget");
    }

    /// Sees the same in every picture.
    pub struct Blind;

    impl Trunk for Blind {
        fn run(&mut self, _: &[u8]) -> Result<[Vec<f32>; 4], VisionError> {
            let cells = |side: usize| GRID.area() / (side * side);
            let counts = [SHAPE.queries, cells(16), cells(8), cells(4)];
            let value = |at: usize| (at as f32).sin();
            Ok(counts.map(|count| (0..count * SHAPE.dim).map(value).collect()))
        }
    }
}
