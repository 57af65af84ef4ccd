//! Training runs: started by triggers, held up by the gate, interrupted and resumed, judged, adopted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use learn::consent::{ConsentError, ConsentToken, ImproveMyMirror};
use learn::edges::{EdgeError, RunId, Timestamp};
use learn::head::{
    Confusion, Features, HeadLayout, Network, Subset, Target, TrainError, Trainer,
    TrainingSettings, TrunkOutput, semantic_labels, should_adopt,
};
use serde::{Deserialize, Serialize};

use crate::consents::Contribution;
use crate::corrections;
use crate::edges::Edges;
use crate::error::HomeError;
use crate::heads::HeadInfo;
use crate::home::Home;
use crate::household::{Household, Shared};
use crate::model::{BaseModel, Trunk};
use crate::refit::refit;
use crate::releases::{CANDIDATE_NAME, Candidate};
use crate::schedule::{Conditions, Gate, Pause, WorkPlan};
use crate::state::State;

pub(crate) const CHECKPOINT_NAME: &str = "checkpoint";

/// Steps between two checkpoints: at most so many are repeated after a power cut. One of all of the head has four megabytes, sixty
/// times as many as a sparse one, and flash wears out.
const CHECKPOINT_STEPS: [u64; 2] = [8, 128];

/// How often a closed gate is looked at again.
const GATE_INTERVAL: Duration = Duration::from_millis(500);

/// The longest sleep: a run under way has to be on the disk soon after a stop, or the supervisor does not wait for it.
const SLICE: Duration = Duration::from_millis(100);

/// How often the triggers are looked at.
const TRIGGER_INTERVAL: Duration = Duration::from_secs(1);

/// How often corrections are looked at for their age while a run works or waits.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);

/// How long the trainer's thread waits after a failure.
const FAILURE_INTERVAL: Duration = Duration::from_secs(60);

/// Between two nightly updates, in seconds of the time lived: a clock that jumps makes no night shorter.
const BETWEEN_NIGHTS: u64 = 20 * 3_600;

/// On a mirror that is seldom on the date says it, after it was on for so long.
const ON_BETWEEN_NIGHTS: u64 = 3_600;

/// Weight of the newest measurement in the running average of an example's time.
const NEWEST_SHARE: f64 = 0.2;

/// Lowest priority of the scheduler.
const NICENESS: i32 = 19;

/// What training is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "reason")]
pub enum TrainingState {
    /// Nothing to do.
    #[default]
    Idle,
    /// Working.
    Running,
    /// Held up.
    Waiting(Pause),
    /// Judging the result.
    Judging,
}

/// For the page.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TrainingStatus {
    /// What it is doing.
    #[serde(flatten)]
    pub state: TrainingState,
    /// Steps done of the run under way.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
    /// Corrections saved since the last run ended.
    pub new_corrections: u32,
    /// Measured time of one example.
    pub example_milliseconds: Option<f64>,
    /// The last run that ended.
    pub last: Option<RunReport>,
    /// Why training, or deleting what is too old, failed when it was last tried; it is tried again.
    pub trouble: Option<String>,
}

/// How a run ended. Stays on this device: every number of it depends on the household's data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunReport {
    /// When, by the device's clock.
    pub ended_at: Timestamp,
    /// Corrections trained on.
    pub examples: usize,
    /// Passes over them.
    pub epochs: u32,
    /// Corrections judged on.
    pub judged: usize,
    /// Mean IoU on those before, 0 to 1; `None` where there were none. Where nobody painted, a correction says what the head in use
    /// said when it was made: the head before is flattered by that.
    pub before: Option<f64>,
    /// The same after.
    pub after: Option<f64>,
    /// Whether the trained head is in use now.
    pub adopted: bool,
    /// Mean loss of the run's first and last pass; `None` for one that was done before an interruption, or that had none.
    pub loss: [Option<f32>; 2],
}

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
    fn name(&self) -> &'static str {
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
        CHECKPOINT_STEPS[usize::from(self.full)]
    }

    fn settings(&self) -> TrainingSettings {
        TrainingSettings {
            subset: if self.full { Subset::Full } else { Subset::Sparse },
            epochs: self.epochs,
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
        }
    }
}

/// This night's moment within the window, drawn anew after each update.
pub(crate) struct Night {
    jitter: f64,
}

impl Night {
    pub fn draw(edges: &Edges) -> Result<Night, EdgeError> {
        let mut bytes = [0; 4];
        (edges.entropy)().fill(&mut bytes)?;
        Ok(Night { jitter: f64::from(u32::from_le_bytes(bytes)) / 2_f64.powi(32) })
    }
}

/// A loop's end that is no failure.
enum Break {
    Outcome(Outcome),
    Failed(HomeError),
}

impl<E: Into<HomeError>> From<E> for Break {
    fn from(error: E) -> Break {
        Break::Failed(error.into())
    }
}

/// What a run needs in every step.
struct Work<'a> {
    trunk: &'a mut dyn Trunk,
    gate: &'a dyn Gate,
    stop: &'a AtomicBool,
    consent: &'a ConsentToken<ImproveMyMirror>,
    /// When corrections were last looked at for their age, in steady time.
    tidied: Duration,
}

/// The losses of the first and of the last pass.
#[derive(Default)]
struct Losses {
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

    fn means(&self) -> [Option<f32>; 2] {
        let mean = |slot| {
            let count: u32 = self.counts[slot];
            (count > 0).then(|| self.sums[slot] / count as f32)
        };
        [0, 1].map(mean)
    }
}

impl Household {
    /// What training is doing.
    pub fn training(&self) -> TrainingStatus {
        let (new_corrections, example_milliseconds, last) = {
            let shared = self.lock();
            let State { learnt_up_to, example_milliseconds, report, .. } = &shared.state;
            let new = shared.corrections.count_from(*learnt_up_to);
            (new, *example_milliseconds, report.clone())
        };
        let status = self.status().clone();
        let example_milliseconds = status.example_milliseconds.or(example_milliseconds);
        TrainingStatus { new_corrections, example_milliseconds, last, ..status }
    }

    fn status(&self) -> MutexGuard<'_, TrainingStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Home {
    /// Asks for a run as soon as the gate allows, whatever the triggers say; also after a restart, unless the disk refuses.
    pub fn request_training(&self) {
        let mut shared = self.lock();
        if let Err(error) = self.note_request(&mut shared, true) {
            tracing::warn!(%error, "that a run was asked for is forgotten with the next start");
            shared.state.further.requested = true;
        }
    }

    /// Counts a parsed picture, for the trigger by use. Never waits.
    pub fn count_inference(&self) {
        self.inferences.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a trigger asks for an update now. A trigger asks only where something is new or unfinished.
    pub fn is_due(&self) -> bool {
        if self.token::<ImproveMyMirror>().is_err() {
            return false;
        }
        let triggers = &self.options.triggers;
        let (new, is_wanted, is_night) = {
            let shared = self.lock();
            let State { learnt_up_to, run, further, .. } = &shared.state;
            let new = shared.corrections.count_from(*learnt_up_to);
            (new, run.is_some() || further.requested, self.is_night(&shared.state))
        };
        if is_wanted {
            return true;
        }
        if new == 0 {
            return false;
        }
        let used = self.inferences.load(Ordering::Relaxed);
        triggers.corrections.is_some_and(|count| new >= count)
            || triggers.inferences.is_some_and(|count| used >= count)
            || is_night
    }

    /// Whether this is the night's moment, and the last nightly update was long ago.
    fn is_night(&self, state: &State) -> bool {
        let now = self.edges.clock.now().0;
        let on = state.last_nightly.map(|last| self.lived().saturating_sub(last));
        let by_date = state.further.last_nightly_at.map(|last| now.saturating_sub(last));
        let rested = on.is_none_or(|on| {
            let is_another_day = by_date.is_some_and(|passed| passed >= BETWEEN_NIGHTS);
            on >= BETWEEN_NIGHTS || (on >= ON_BETWEEN_NIGHTS && is_another_day)
        });
        let jitter = self.night.lock().unwrap_or_else(PoisonError::into_inner).jitter;
        rested && self.options.triggers.nightly.is_some_and(|window| window.is_due(now, jitter))
    }

    /// Whether an update of a run that ends now may still leave.
    fn contributes(&self) -> bool {
        self.contribution() == Contribution::On
    }

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

    /// For the page, and for the journal once: what fails is tried again every minute. A withdrawal that is not stored has a
    /// notice of its own, and stops no training.
    fn tell(&self, error: &HomeError) {
        if matches!(error, HomeError::Consent(ConsentError::Unstored(_))) {
            return;
        }
        let trouble = Some(error.to_string());
        let mut status = self.status();
        if status.trouble != trouble {
            tracing::warn!(%error, "learning at home");
            status.trouble = trouble;
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
    fn wait(&self, time: Duration, stop: &AtomicBool) {
        let until = self.edges.steady.elapsed() + time;
        while !stop.load(Ordering::SeqCst) && self.edges.steady.elapsed() < until {
            self.edges.steady.sleep(SLICE.min(time));
        }
    }

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
        let mut work = Work { trunk, gate, stop, consent: &consent, tidied };
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

    /// Waits until the device may train. While it must wait, the run is on the disk.
    fn open_gate(
        &self,
        work: &mut Work<'_>,
        trainer: Option<&Trainer>,
    ) -> Result<Conditions, Break> {
        let mut is_saved = false;
        loop {
            work.consent.check()?;
            self.tidy_again(work);
            let stopped = work.stop.load(Ordering::SeqCst);
            let conditions = work.gate.conditions();
            let pause = self.options.capability.pause(&conditions);
            if let (true, Some(trainer), false) = (stopped || pause.is_some(), trainer, is_saved) {
                self.save_trainer(trainer, work.consent)?;
                is_saved = true;
            }
            if stopped {
                return Err(Break::Outcome(Outcome::Stopped));
            }
            let Some(pause) = pause else { return Ok(conditions) };
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
        let base = self.base();
        let parameters = self.head_values().to_vec();
        let from = shared.state.heads.last().map(|head| head.number);
        let contributes = self.contributes();
        let settings = if contributes { self.options.training } else { self.options.at_home };
        // A run for this house alone, of numbers that no update carries, gives way to one for a fleet; see `conclude`.
        let is_wanted = |plan: &RunPlan| !contributes || plan.settings().subset == settings.subset;
        if let Some(plan) = shared.state.run.clone().filter(is_wanted) {
            match self.resume(&plan, from, parameters.clone(), consent) {
                Ok(trainer) => {
                    self.note_request(&mut shared, false)?;
                    return Ok((plan, trainer));
                }
                Err(error) => tracing::info!(%error, "the run under way starts over"),
            }
        }
        let (trained, _) = shared.corrections.roles();
        let per_example = shared.state.example_milliseconds.unwrap_or(0.0) / 1e3;
        let fitting = self.options.capability.plan(
            conditions,
            Duration::from_secs_f64(per_example),
            trained.len(),
            settings.epochs,
        );
        let Some(WorkPlan { examples, epochs }) = fitting else {
            self.note_nothing(&mut shared)?;
            return Err(Break::Outcome(Outcome::Nothing));
        };
        let plan = RunPlan {
            corrections: trained[trained.len() - examples..].to_vec(),
            epochs,
            full: settings.subset == Subset::Full,
            learning_rate: settings.learning_rate,
            weight_decay: settings.weight_decay,
            from,
            base: base.digest.to_string(),
            up_to: shared.state.next_correction,
        };
        let run = RunId::random(&mut *(self.edges.entropy)())?;
        let layout = base.layout.clone();
        let settings = plan.settings();
        let trainer = Trainer::new(layout, parameters, examples, settings, run, consent)?;
        let mut next = State { run: Some(plan.clone()), ..shared.state.clone() };
        next.further.requested = false;
        // A run that something else asked for in the evening does not take the night's place.
        if self.is_night(&next) {
            next.last_nightly = Some(self.lived());
            next.further.last_nightly_at = Some(self.edges.clock.now().0);
        }
        self.save(&mut shared, next)?;
        let night = Night::draw(&self.edges)?;
        *self.night.lock().unwrap_or_else(PoisonError::into_inner) = night;
        let sealed = trainer.seal(&self.vault.sealer(CHECKPOINT_NAME))?;
        self.stores.vault.replace(CHECKPOINT_NAME, &sealed)?;
        Ok((plan, trainer))
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

    fn resume(
        &self,
        plan: &RunPlan,
        from: Option<u64>,
        parameters: Vec<f32>,
        consent: &ConsentToken<ImproveMyMirror>,
    ) -> Result<Trainer, HomeError> {
        let changed = |what: &'static str| HomeError::Train(TrainError::Checkpoint(what));
        if plan.from != from || plan.base != self.base().digest.to_string() {
            return Err(changed("it started from another head"));
        }
        let sealed = self.stores.vault.read(CHECKPOINT_NAME)?;
        let sealed = sealed.ok_or_else(|| changed("there is none"))?;
        let (layout, examples) = (self.shipped.layout.clone(), plan.corrections.len());
        let sealer = self.vault.sealer(CHECKPOINT_NAME);
        let settings = plan.settings();
        Ok(Trainer::resume(layout, parameters, examples, settings, &sealed, &sealer, consent)?)
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
        let sealed = trainer.seal(&self.vault.sealer(CHECKPOINT_NAME))?;
        self.stores.vault.replace(CHECKPOINT_NAME, &sealed)?;
        let mut next = shared.state.clone();
        next.example_milliseconds =
            self.status().example_milliseconds.or(next.example_milliseconds);
        self.save(&mut shared, next)
    }

    /// Features and target of a correction.
    ///
    /// # Errors
    /// [`HomeError::NoCorrection`] or [`HomeError::Damaged`] where nothing can be learnt from this one, and those of the network.
    pub(crate) fn example(
        &self,
        trunk: &mut dyn Trunk,
        number: u64,
    ) -> Result<(Features<f32>, Target<f32>), HomeError> {
        let opened = corrections::open(&self.vault, number)?;
        let (pixels, labels) = (opened.pixels(), opened.labels());
        let BaseModel { grid, padding, .. } = *self.shipped;
        let example = if opened.size == grid {
            self.prepared(trunk, pixels, labels)
        } else {
            let refitted = refit(pixels, labels, opened.size, grid, padding);
            self.prepared(trunk, &refitted.pixels, &refitted.labels)
        };
        // A few painted pixels can all be lost at another size. That is this correction's trouble and stops no other.
        example.map_err(|error| match error {
            HomeError::Mask(_) => HomeError::Damaged(number),
            error => error,
        })
    }

    /// Features and target of a picture of the network's input size: planes and one part per pixel.
    pub(crate) fn prepared(
        &self,
        trunk: &mut dyn Trunk,
        pixels: &[u8],
        labels: &[u8],
    ) -> Result<(Features<f32>, Target<f32>), HomeError> {
        // What lies before the trainable numbers is the same in every model of this layout.
        let BaseModel { layout, parameters, grid, .. } = &*self.shipped;
        let [queries, memory_a, memory_b, mask_features] = trunk.run(pixels)?;
        let outputs = TrunkOutput {
            queries: &queries,
            memory_a: &memory_a,
            memory_b: &memory_b,
            mask_features: &mask_features,
        };
        let features = Features::new(layout, parameters, outputs)?;
        let target = Target::new(layout.shape(), labels, grid.height, grid.width)?;
        Ok((features, target))
    }

    /// Judges the trained head on the held-back corrections and adopts it where it is better.
    fn finish(
        &self,
        work: &mut Work<'_>,
        plan: &RunPlan,
        trainer: &Trainer,
        losses: &Losses,
    ) -> Result<RunReport, Break> {
        let before = self.head_values();
        let (_, judged) = self.lock().corrections.roles();
        let layout = &self.shipped.layout;
        let mut confusions = [Confusion::new(), Confusion::new()];
        let mut counted = 0;
        for number in judged {
            self.open_gate(work, Some(trainer))?;
            let (done, total) = trainer.progress();
            self.show(TrainingState::Judging, done, total);
            let (features, target) = match self.example(work.trunk, number) {
                // Deleted meanwhile, or damaged: the others judge.
                Err(HomeError::NoCorrection(_) | HomeError::Damaged(_)) => continue,
                example => example?,
            };
            let heads = [&before[..], trainer.parameters()];
            judge(layout, &heads, &features, &target, &mut confusions)?;
            counted += 1;
        }
        let [old, new] = &confusions;
        let report = RunReport {
            ended_at: self.edges.clock.now(),
            examples: plan.corrections.len(),
            epochs: plan.epochs,
            judged: counted,
            before: old.mean_iou(),
            after: new.mean_iou(),
            adopted: should_adopt(old, new) && !trainer.has_diverged(),
            loss: losses.means(),
        };
        self.conclude(work.consent, plan, trainer, &report)?;
        Ok(report)
    }

    fn conclude(
        &self,
        consent: &ConsentToken<ImproveMyMirror>,
        plan: &RunPlan,
        trainer: &Trainer,
        report: &RunReport,
    ) -> Result<(), Break> {
        let mut shared = self.lock();
        consent.check()?;
        if shared.state.run.as_ref() != Some(plan) {
            return Err(Break::Outcome(Outcome::Abandoned));
        }
        let subset = plan.settings().subset;
        let (base, change) = (self.base().digest, trainer.change()?);
        let candidate = Candidate { run: trainer.run(), base, subset, change };
        // Nothing is kept for a fleet that nobody agreed to contribute to, nor what no update carries: a run that began before
        // somebody agreed may have moved more.
        if self.contributes() && subset == self.options.training.subset {
            self.vault.put(CANDIDATE_NAME, &candidate.encode())?;
        } else {
            self.vault.remove(CANDIDATE_NAME)?;
        }
        let mut next = self.concluded(&shared, plan, report);
        if report.adopted {
            let info = HeadInfo {
                number: next.next_head,
                adopted_at: report.ended_at,
                base: plan.base.clone(),
                examples: report.examples,
                before: report.before.unwrap_or(0.0),
                after: report.after.unwrap_or(0.0),
                fleet: None,
            };
            next.next_head += 1;
            self.adopt(&mut next, info, trainer.parameters())?;
        }
        self.save(&mut shared, next)?;
        if report.adopted {
            self.use_list(&shared)?;
        }
        Ok(self.vault.remove(CHECKPOINT_NAME)?)
    }

    fn concluded(&self, shared: &Shared, plan: &RunPlan, report: &RunReport) -> State {
        let mut next = shared.state.clone();
        next.run = None;
        next.report = Some(report.clone());
        next.learnt_up_to = plan.up_to;
        next.example_milliseconds =
            self.status().example_milliseconds.or(next.example_milliseconds);
        next
    }

    fn measure(&self, took: Duration) {
        let milliseconds = took.as_secs_f64() * 1e3;
        let mut status = self.status();
        let average = status.example_milliseconds.unwrap_or(milliseconds);
        status.example_milliseconds = Some(average + NEWEST_SHARE * (milliseconds - average));
    }

    fn show(&self, state: TrainingState, done: u64, total: u64) {
        let mut status = self.status();
        (status.state, status.done, status.total) = (state, done, total);
    }

    /// Idle. A trouble stays told until what failed succeeds.
    fn show_nothing(&self) {
        let mut status = self.status();
        let trouble = status.trouble.take();
        *status = TrainingStatus { trouble, ..TrainingStatus::default() };
    }
}

/// Adds what each of `heads` says of one picture to its confusion.
pub(crate) fn judge(
    layout: &HeadLayout,
    heads: &[&[f32]],
    features: &Features<f32>,
    target: &Target<f32>,
    confusions: &mut [Confusion],
) -> Result<(), HomeError> {
    let truth = target.dominant();
    for (values, confusion) in heads.iter().zip(confusions) {
        let prediction = Network::new(layout, values)?.predict(features);
        confusion.add(&truth, &semantic_labels(layout.shape(), &prediction));
    }
    Ok(())
}

/// Gives way to everything else: on Linux the priority of process 0 is the calling thread's own.
///
/// # Errors
/// Of the system, where priorities are not its own to lower.
pub fn lowest_priority() -> rustix::io::Result<()> {
    rustix::process::setpriority_process(None, NICENESS)
}
