//! The trainer's thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::HomeError;
use crate::home::Home;
use crate::model::Trunk;
use crate::schedule::Gate;

/// The longest sleep: a run under way has to be on the disk soon after a stop, or the supervisor does not wait for it.
const SLICE: Duration = Duration::from_millis(100);

/// How often the triggers are looked at.
const TRIGGER_INTERVAL: Duration = Duration::from_secs(1);

/// How long the trainer's thread waits after a failure.
const FAILURE_INTERVAL: Duration = Duration::from_secs(60);

/// Lowest priority of the scheduler.
const NICENESS: i32 = 19;

impl Home {
    /// The trainer's thread: lowest priority, until told to stop. Trains when a trigger asks and the gate is open. A finished
    /// run is released by whoever asks for it, see [`Home::release`].
    pub fn serve(&self, trunk: &mut dyn Trunk, gate: &dyn Gate, stop: &AtomicBool) {
        if let Err(error) = lowest_priority() {
            tracing::warn!(%error, "training runs at normal priority");
        }
        while !stop.load(Ordering::SeqCst) {
            let pause = match self.serve_once(trunk, gate, stop) {
                Ok(()) => {
                    self.status().trouble = None;
                    TRIGGER_INTERVAL
                }
                Err(error) => {
                    self.tell(&error);
                    FAILURE_INTERVAL
                }
            };
            self.wait(pause, stop);
        }
        if let Err(error) = self.remember_lived() {
            tracing::warn!(%error, "learning at home");
        }
    }

    fn serve_once(
        &self,
        trunk: &mut dyn Trunk,
        gate: &dyn Gate,
        stop: &AtomicBool,
    ) -> Result<(), HomeError> {
        // What cannot be deleted now keeps nobody from learning.
        let tidied = self.tidy();
        self.look_again(trunk, gate)?;
        if self.is_due() {
            let outcome = self.train_when(trunk, gate, stop)?;
            tracing::info!("training: {}", outcome.name());
        }
        tidied.map(drop)
    }

    /// Sleeps in slices, so that a stop is heard.
    pub(super) fn wait(&self, time: Duration, stop: &AtomicBool) {
        let until = self.edges.steady.elapsed() + time;
        while !stop.load(Ordering::SeqCst) && self.edges.steady.elapsed() < until {
            self.edges.steady.sleep(SLICE.min(time));
        }
    }
}

/// Gives way to everything else: on Linux the priority of process 0 is the calling thread's own.
///
/// # Errors
/// Of the system, where priorities are not its own to lower.
pub fn lowest_priority() -> rustix::io::Result<()> {
    rustix::process::setpriority_process(None, NICENESS)
}
