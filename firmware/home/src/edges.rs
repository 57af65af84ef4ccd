//! Time that only moves forward, free space, and the edges of [`learn::edges`] put together.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use learn::edges::{Clock, Entropy, SystemClock, SystemEntropy, Timestamp};

/// The year 2026, in which the first of these mirrors was made: an earlier date is that of a clock which nobody has set.
pub const EARLIEST_DATE: Timestamp = Timestamp(1_767_225_600);

/// Time since some fixed moment of this process. Never jumps, unlike a clock that a person or a server sets.
pub trait Steady: Send + Sync {
    /// Since the fixed moment.
    fn elapsed(&self) -> Duration;
    /// Waits, for the trainer's thread.
    fn sleep(&self, time: Duration);
}

/// Free space where the stores lie.
pub trait Space: Send + Sync {
    /// Free bytes, or `None` where it cannot be told.
    fn free(&self) -> Option<u64>;
}

/// Makes sources of unpredictable bytes, one per user.
pub type EntropySource = Arc<dyn Fn() -> Box<dyn Entropy> + Send + Sync>;

/// Everything through which this crate meets the world, apart from its stores.
#[derive(Clone)]
pub struct Edges {
    /// The wall clock: shown, looked at for the night, and believed of a correction's age only after it has held for a week.
    pub clock: Arc<dyn Clock>,
    /// Time that cannot jump.
    pub steady: Arc<dyn Steady>,
    /// Unpredictable bytes.
    pub entropy: EntropySource,
    /// Free space.
    pub space: Arc<dyn Space>,
}

impl Edges {
    /// The operating system's, with the free space of the file system that `folder` lies on.
    pub fn system(folder: &Path) -> Edges {
        Edges {
            clock: Arc::new(SystemClock),
            steady: Arc::new(SystemSteady(Instant::now())),
            entropy: Arc::new(|| Box::new(SystemEntropy)),
            space: Arc::new(FolderSpace(folder.to_owned())),
        }
    }
}

struct SystemSteady(Instant);

impl Steady for SystemSteady {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

struct FolderSpace(PathBuf);

impl Space for FolderSpace {
    fn free(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(&self.0).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }
}
