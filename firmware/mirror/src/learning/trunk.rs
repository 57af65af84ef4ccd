//! The network of the trainer's own, in memory only while it trains.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use home::{Home, Trunk};
use tracing::warn;
use vision::{Student, VisionError};

use crate::learning::second_network::{Held, SecondNetwork};
use crate::model::ModelSource;
use crate::shared::lock;

/// Training that rests for this long gives the network's memory back.
const KEPT: Duration = Duration::from_secs(60);

/// The network at the input size that learning has for as long as the program runs, whatever the camera does meanwhile.
pub fn at_size_of(home: &Home, model: &ModelSource) -> ModelSource {
    let grid = home.shipped().grid;
    model.clone().for_pictures(Some((grid.width as u32, grid.height as u32)))
}

/// Loads the network when training needs it: most of the time it does not.
pub struct LazyTrunk {
    model: ModelSource,
    second_network: Arc<SecondNetwork>,
    loaded: Arc<Mutex<Option<Loaded>>>,
}

struct Loaded {
    student: Student,
    used: Instant,
    // After the network: until then its memory is taken.
    _held: Held,
}

impl LazyTrunk {
    /// With these files, in this memory, and nothing loaded.
    pub fn new(model: ModelSource, second_network: Arc<SecondNetwork>) -> LazyTrunk {
        LazyTrunk { model, second_network, loaded: Arc::default() }
    }
}

impl Trunk for LazyTrunk {
    fn run(&mut self, pixels: &[u8]) -> Result<[Vec<f32>; 4], VisionError> {
        let mut slot = lock(&self.loaded);
        let loaded = match &mut *slot {
            Some(loaded) => loaded,
            empty => {
                let held = self.second_network.for_training();
                let student = self.model.student();
                let student =
                    student.map_err(|error| VisionError::Network(format!("{error:#}")))?;
                unload_when_unused(Arc::downgrade(&self.loaded));
                empty.insert(Loaded { student, used: Instant::now(), _held: held })
            }
        };
        let answer = loaded.student.run_trunk(pixels);
        loaded.used = Instant::now();
        answer
    }
}

/// Takes the network out once it was not used for [`KEPT`], on a thread that ends then. The trainer's own is held by the
/// stores, training or not.
fn unload_when_unused(slot: Weak<Mutex<Option<Loaded>>>) {
    let watch = move || {
        while let Some(slot) = slot.upgrade() {
            let mut loaded = lock(&slot);
            if is_unused(&loaded, Instant::now()) {
                *loaded = None;
                return;
            }
            drop(loaded);
            drop(slot);
            std::thread::sleep(KEPT / 4);
        }
    };
    // Without the thread the network stays, and keeps single pictures out until the next start.
    if let Err(error) = std::thread::Builder::new().name("unload".to_owned()).spawn(watch) {
        warn!("learning: {error}");
    }
}

fn is_unused(loaded: &Option<Loaded>, now: Instant) -> bool {
    loaded.as_ref().is_some_and(|loaded| now.saturating_duration_since(loaded.used) >= KEPT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::settings;

    #[test]
    fn the_network_goes_a_minute_after_its_last_use() {
        let model = ModelSource::new(&settings().vision);
        let used = Instant::now();
        let held = Arc::new(SecondNetwork::default()).for_training();
        let student = model.student().expect("built in");
        let loaded = Some(Loaded { student, used, _held: held });
        assert!(!is_unused(&loaded, used + KEPT - Duration::from_millis(1)));
        assert!(is_unused(&loaded, used + KEPT));
        assert!(!is_unused(&None, used + KEPT));
    }
}
