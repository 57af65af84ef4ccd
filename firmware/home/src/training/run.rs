//! A run: begun or resumed, held up by the gate, put on the disk when it is interrupted.

use std::sync::TryLockError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use learn::consent::{ConsentToken, ImproveMyMirror};
use learn::edges::RunId;
use learn::head::{Subset, TrainError, Trainer, TrainingSettings};
use serde::{Deserialize, Serialize};

use super::{Night, RunReport, TrainingState};
use crate::error::HomeError;
use crate::hold::hold;
use crate::home::Home;
use crate::household::Shared;
use crate::model::Trunk;
use crate::schedule::{Conditions, Gate, Pause, WorkPlan};
use crate::state::State;

pub(crate) const CHECKPOINT_NAME: &str = "checkpoint";

/// Steps between two checkpoints: at most so many are repeated after a power cut.
const CHECKPOINT_STEPS: u64 = 8;

/// Steps between two checkpoints where all of the head is trained: such a checkpoint has four megabytes, sixty times as many as a sparse
/// one, and flash wears out.
const FULL_CHECKPOINT_STEPS: u64 = 128;

/// How often a closed gate is looked at again.
const GATE_INTERVAL: Duration = Duration::from_millis(500);

/// A gate that was closed for so long may stay closed until the power goes: what was done since the checkpoint is stored.
const LONG_PAUSE: Duration = Duration::from_secs(30);

/// How often corrections are looked at for their age while a run works or waits.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);

/// How a call of [`Home::train_when`] ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The run came to its end.
    Finished(RunReport),
    /// Told to stop; the run goes on with the next call.
    Stopped,
    /// Consent was withdrawn; the run is forgotten.
    Withdrawn,
    /// A correction of the run was deleted or is damaged, or the head it grew from was undone; the run is forgotten.
    Abandoned,
    /// There is no correction to train on.
    Nothing,
}

impl Outcome {
    /// For the journal, which nothing seals and nobody deletes: no number of a run gets there.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Outcome::Finished(_) => "finished",
            Outcome::Stopped => "stopped",
            Outcome::Withdrawn => "withdrawn",
            Outcome::Abandoned => "abandoned",
            Outcome::Nothing => "nothing to train on",
        }
    }
}

/// A run, fixed when it begins, so that a later start goes on with the same work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunPlan {
    /// Numbers of the corrections, in the trainer's order.
    pub corrections: Vec<u64>,
    pub epochs: u32,
    pub full: bool,
    pub learning_rate: f32,
    pub weight_decay: f32,
    /// The head it starts from; `None` for the base's own.
    pub from: Option<u64>,
    pub base: String,
    /// Number of the next correction when it began; what is saved later is new.
    pub up_to: u64,
}

impl RunPlan {
    fn checkpoint_steps(&self) -> u64 {
        if self.full { FULL_CHECKPOINT_STEPS } else { CHECKPOINT_STEPS }
    }

    pub(super) fn settings(&self) -> TrainingSettings {
        TrainingSettings {
            subset: if self.full { Subset::Full } else { Subset::Sparse },
            epochs: self.epochs,
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
        }
    }
}

/// A loop's end that is no failure.
pub(super) enum Break {
    Outcome(Outcome),
    Failed(HomeError),
}

impl<E: Into<HomeError>> From<E> for Break {
    fn from(error: E) -> Break {
        Break::Failed(error.into())
    }
}

/// What a run needs in every step.
pub(super) struct Work<'a> {
    pub trunk: &'a mut dyn Trunk,
    gate: &'a dyn Gate,
    stop: &'a AtomicBool,
    pub consent: &'a ConsentToken<ImproveMyMirror>,
    /// When corrections were last looked at for their age, in steady time.
    tidied: Duration,
    /// Why it waited when the gate was last looked at.
    pause: Option<Pause>,
}

/// The losses of the first and of the last pass.
#[derive(Default)]
pub(super) struct Losses {
    sums: [f32; 2],
    counts: [u32; 2],
}

impl Losses {
    fn add(&mut self, epoch: u64, epochs: u32, loss: f32) {
        for (slot, is_meant) in [epoch == 0, epoch + 1 == u64::from(epochs)].into_iter().enumerate()
        {
            if is_meant {
                self.sums[slot] += loss;
                self.counts[slot] += 1;
            }
        }
    }

    pub fn means(&self) -> [Option<f32>; 2] {
        let mean = |slot| {
            let count: u32 = self.counts[slot];
            (count > 0).then(|| self.sums[slot] / count as f32)
        };
        [0, 1].map(mean)
    }
}

impl Home {
    /// Begins a run, or goes on with the one under way, and works whenever the gate is open, until the run's end, a
    /// stop, or a withdrawal. The calling thread should be of low priority; see [`Home::serve`].
    ///
    /// # Errors
    /// [`HomeError::Training`] where another thread trains, no consent, or a failure of the network or the stores. The
    /// run under way can be gone on with.
    pub fn train_when(
        &self,
        trunk: &mut dyn Trunk,
        gate: &dyn Gate,
        stop: &AtomicBool,
    ) -> Result<Outcome, HomeError> {
        let _running = match self.running.try_lock() {
            Ok(running) => running,
            Err(TryLockError::WouldBlock) => return Err(HomeError::Training),
            // Whoever trained before has panicked. The lock guards no data: the run is what the disk says.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        };
        let consent = self.token::<ImproveMyMirror>()?;
        let tidied = self.edges.steady.elapsed();
        let mut work = Work { trunk, gate, stop, consent: &consent, tidied, pause: None };
        let ended = self.run(&mut work);
        self.show_nothing();
        match ended {
            Ok(report) => Ok(Outcome::Finished(report)),
            Err(Break::Outcome(outcome)) => Ok(outcome),
            Err(Break::Failed(_)) if consent.check().is_err() => Ok(Outcome::Withdrawn),
            Err(Break::Failed(error)) => Err(error),
        }
    }

    fn run(&self, work: &mut Work<'_>) -> Result<RunReport, Break> {
        let conditions = self.open_gate(work, None)?;
        let requested = self.lock().state.further.requested;
        self.inferences.store(0, Ordering::Relaxed);
        let (plan, trainer) = self.begin(work.consent, &conditions)?;
        let ended = self.carry_out(work, &plan, trainer);
        if requested && matches!(ended, Err(Break::Outcome(Outcome::Abandoned))) {
            // Whoever asked for it still waits.
            self.request_training();
        }
        ended
    }

    /// The rest of a run that has begun.
    fn carry_out(
        &self,
        work: &mut Work<'_>,
        plan: &RunPlan,
        mut trainer: Trainer,
    ) -> Result<RunReport, Break> {
        let mut losses = Losses::default();
        while let Some(index) = trainer.next_example() {
            self.open_gate(work, Some(&trainer))?;
            self.check_plan(plan)?;
            let (done, total) = trainer.progress();
            self.show(TrainingState::Running, done, total);
            let began = self.edges.steady.elapsed();
            let number = plan.corrections[index];
            let (features, target) = match self.example(work.trunk, number) {
                Err(HomeError::NoCorrection(_) | HomeError::Damaged(_)) => {
                    return Err(self.abandon(number));
                }
                example => example?,
            };
            let loss = trainer.train(work.consent, &features, &target)?;
            if let Some(loss) = loss {
                losses.add(done / plan.corrections.len() as u64, plan.epochs, loss);
            }
            self.measure(self.edges.steady.elapsed().saturating_sub(began));
            if (done + 1) % plan.checkpoint_steps() == 0 {
                self.checkpoint(plan, &trainer, work.consent)?;
            }
        }
        self.finish(work, plan, &trainer, &losses)
    }

    /// Waits until the device may train. Where it must wait for long, or is told to stop, the run is on the disk; a gate that flutters
    /// wears no disk out.
    pub(super) fn open_gate(
        &self,
        work: &mut Work<'_>,
        trainer: Option<&Trainer>,
    ) -> Result<Conditions, Break> {
        let (mut is_saved, came) = (false, self.edges.steady.elapsed());
        loop {
            work.consent.check()?;
            self.tidy_again(work);
            let stopped = work.stop.load(Ordering::SeqCst);
            let conditions = work.gate.conditions();
            work.pause = self.options.capability.pause(&conditions, work.pause);
            let is_long = self.edges.steady.elapsed().saturating_sub(came) >= LONG_PAUSE;
            if let (true, Some(trainer), false) = (stopped || is_long, trainer, is_saved) {
                self.save_trainer(trainer, work.consent)?;
                is_saved = true;
            }
            if stopped {
                return Err(Break::Outcome(Outcome::Stopped));
            }
            let Some(pause) = work.pause else { return Ok(conditions) };
            let (done, total) = trainer.map_or((0, 0), Trainer::progress);
            self.show(TrainingState::Waiting(pause), done, total);
            self.wait(GATE_INTERVAL, work.stop);
        }
    }

    /// A gate may stay closed for months; corrections grow too old meanwhile.
    fn tidy_again(&self, work: &mut Work<'_>) {
        let now = self.edges.steady.elapsed();
        if now.saturating_sub(work.tidied) < TIDY_INTERVAL {
            return;
        }
        work.tidied = now;
        if let Err(error) = self.tidy() {
            self.tell(&error);
        }
    }

    /// The run under way, or a new one with as much work as fits. What was asked for is answered by it.
    fn begin(
        &self,
        consent: &ConsentToken<ImproveMyMirror>,
        conditions: &Conditions,
    ) -> Result<(RunPlan, Trainer), Break> {
        let mut shared = self.lock();
        // Under the lock: "delete everything" may have come while the gate was looked at, and saving would make a new key.
        consent.check()?;
        self.reread_head(&shared)?;
        let contributes = self.contributes();
        if let Some(resumed) = self.resumed(&mut shared, contributes, consent)? {
            return Ok(resumed);
        }
        let settings = if contributes { self.options.training } else { self.options.at_home };
        let Some(plan) = self.planned(&shared, conditions, settings) else {
            self.note_nothing(&mut shared)?;
            return Err(Break::Outcome(Outcome::Nothing));
        };
        let trainer = self.start(&mut shared, &plan, consent)?;
        Ok((plan, trainer))
    }

    /// The run under way, where it is still wanted and its checkpoint fits.
    fn resumed(
        &self,
        shared: &mut Shared,
        contributes: bool,
        consent: &ConsentToken<ImproveMyMirror>,
    ) -> Result<Option<(RunPlan, Trainer)>, HomeError> {
        // A run for this house alone, of numbers that no update carries, gives way to one for a fleet; see `conclude`.
        let carried = self.options.training.subset;
        let is_wanted = |plan: &RunPlan| !contributes || plan.settings().subset == carried;
        let Some(plan) = shared.state.run.clone().filter(is_wanted) else { return Ok(None) };
        match self.resume(shared, &plan, consent) {
            Ok(trainer) => {
                self.note_request(shared, false)?;
                Ok(Some((plan, trainer)))
            }
            Err(error) => {
                tracing::info!(%error, "the run under way starts over");
                Ok(None)
            }
        }
    }

    fn resume(
        &self,
        shared: &Shared,
        plan: &RunPlan,
        consent: &ConsentToken<ImproveMyMirror>,
    ) -> Result<Trainer, HomeError> {
        let changed = |what: &'static str| HomeError::Train(TrainError::Checkpoint(what));
        if plan.from != newest_head(shared) || plan.base != self.base().digest.to_string() {
            return Err(changed("it started from another head"));
        }
        let sealed = self.stores.vault.read(CHECKPOINT_NAME)?;
        let sealed = sealed.ok_or_else(|| changed("there is none"))?;
        let (layout, examples) = (self.shipped.layout.clone(), plan.corrections.len());
        let (parameters, settings) = (self.head_values().to_vec(), plan.settings());
        let sealer = self.vault.sealer(CHECKPOINT_NAME);
        Ok(Trainer::resume(layout, parameters, examples, settings, &sealed, &sealer, consent)?)
    }

    /// A new run over the newest corrections, as many as fit; `None` where none does.
    fn planned(
        &self,
        shared: &Shared,
        conditions: &Conditions,
        settings: TrainingSettings,
    ) -> Option<RunPlan> {
        let (trained, _) = shared.corrections.roles();
        let measured = shared.state.example_milliseconds;
        let per_example = measured.map(|milliseconds| Duration::from_secs_f64(milliseconds / 1e3));
        let WorkPlan { examples, epochs } = self.options.capability.plan(
            conditions,
            per_example,
            trained.len(),
            settings.epochs,
        )?;
        Some(RunPlan {
            corrections: trained[trained.len() - examples..].to_vec(),
            epochs,
            full: settings.subset == Subset::Full,
            learning_rate: settings.learning_rate,
            weight_decay: settings.weight_decay,
            from: newest_head(shared),
            base: self.base().digest.to_string(),
            up_to: shared.state.next_correction,
        })
    }

    /// Begins a planned run from the head in use, and puts it on the disk.
    fn start(
        &self,
        shared: &mut Shared,
        plan: &RunPlan,
        consent: &ConsentToken<ImproveMyMirror>,
    ) -> Result<Trainer, HomeError> {
        let run = RunId::random(&mut *(self.edges.entropy)())?;
        let (layout, examples) = (self.shipped.layout.clone(), plan.corrections.len());
        let (parameters, settings) = (self.head_values().to_vec(), plan.settings());
        let trainer = Trainer::new(layout, parameters, examples, settings, run, consent)?;
        let mut next = State { run: Some(plan.clone()), ..shared.state.clone() };
        next.further.requested = false;
        // A run that something else asked for in the evening does not take the night's place.
        if self.is_night(&next, &shared.corrections) {
            next.last_nightly = Some(self.lived());
            next.further.last_nightly_at = Some(self.edges.clock.now().0);
        }
        self.save(shared, next)?;
        *hold(&self.night) = Night::draw(&self.edges)?;
        self.write_checkpoint(&trainer)?;
        Ok(trainer)
    }

    /// All that is stored was looked at, and no run is possible: none is asked for again before something is new.
    fn note_nothing(&self, shared: &mut Shared) -> Result<(), HomeError> {
        self.drop_run(shared)?;
        self.note_request(shared, false)?;
        let up_to = shared.state.next_correction;
        if shared.state.learnt_up_to == up_to {
            return Ok(());
        }
        let next = State { learnt_up_to: up_to, ..shared.state.clone() };
        self.save(shared, next)
    }

    /// Whether the run is still wanted; a deleted correction or an undone head takes it away.
    fn check_plan(&self, plan: &RunPlan) -> Result<(), Break> {
        if self.lock().state.run.as_ref() == Some(plan) {
            Ok(())
        } else {
            Err(Break::Outcome(Outcome::Abandoned))
        }
    }

    /// Gives up the run under way because this correction of it is gone or damaged: it would wait for it for ever.
    fn abandon(&self, number: u64) -> Break {
        let mut shared = self.lock();
        shared.corrections.mark_damaged(number);
        let dropped = self.drop_run(&mut shared);
        dropped.map_or_else(Break::Failed, |()| Break::Outcome(Outcome::Abandoned))
    }

    fn checkpoint(
        &self,
        plan: &RunPlan,
        trainer: &Trainer,
        consent: &ConsentToken<ImproveMyMirror>,
    ) -> Result<(), Break> {
        self.check_plan(plan)?;
        Ok(self.save_trainer(trainer, consent)?)
    }

    fn save_trainer(
        &self,
        trainer: &Trainer,
        consent: &ConsentToken<ImproveMyMirror>,
    ) -> Result<(), HomeError> {
        let mut shared = self.lock();
        // Under the lock, and before anything is sealed: a withdrawal removes the file after it has killed the token, and
        // sealing after "delete everything" would make a new key.
        consent.check()?;
        if shared.state.run.is_none() {
            return Ok(());
        }
        self.write_checkpoint(trainer)?;
        let mut next = shared.state.clone();
        next.example_milliseconds =
            self.status().example_milliseconds.or(next.example_milliseconds);
        self.save(&mut shared, next)
    }

    /// The caller holds the lock of `shared`.
    fn write_checkpoint(&self, trainer: &Trainer) -> Result<(), HomeError> {
        let sealed = trainer.seal(&self.vault.sealer(CHECKPOINT_NAME))?;
        Ok(self.stores.vault.replace(CHECKPOINT_NAME, &sealed)?)
    }
}

fn newest_head(shared: &Shared) -> Option<u64> {
    shared.state.heads.last().map(|head| head.number)
}
