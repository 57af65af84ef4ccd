//! A training run: one picture at a time, interruptible after each, resumable from a sealed checkpoint.
//!
//! Optimiser: AdamW (Loshchilov, Hutter 2019) with decay rates 0.9 and 0.999, epsilon 1e-8 and bias correction; one
//! step per picture, gradients cut to norm 1. A run has an id, and its delta is released at most once.
//!
//! Training takes a consent token of its own purpose:
//! ```compile_fail,E0061
//! use learn::head::{Features, Target, Trainer};
//! fn secretly(trainer: &mut Trainer, features: &Features<f32>, target: &Target<f32>) {
//!     let _ = trainer.train(features, target);
//! }
//! ```
//! ```compile_fail,E0308
//! use learn::consent::{ConsentToken, ContributeToFleet};
//! use learn::head::{Features, Target, Trainer};
//! fn other(t: &mut Trainer, token: &ConsentToken<ContributeToFleet>, f: &Features<f32>, m: &Target<f32>) {
//!     let _ = t.train(token, f, m);
//! }
//! ```

use zeroize::Zeroizing;

use super::layout::{HeadLayout, Subset};
use super::loss::Target;
use super::network::{Features, Network, SizeError};
use super::numbers;
use super::ops::Gradients;
use crate::consent::{ConsentError, ConsentToken, ImproveMyMirror};
use crate::edges::{Digest, EdgeError, RunId, Sealer};
use crate::privacy::LARGEST_VALUE;

/// Passes over the corrections in one update.
const EPOCHS_PER_UPDATE: u32 = 3;

const FIRST_DECAY: f32 = 0.9;
const SECOND_DECAY: f32 = 0.999;
const STABILISER: f32 = 1e-8;

/// Gradients are cut to this norm before a step, so that one strange correction cannot throw the head away.
const LARGEST_GRADIENT: f32 = 1.0;

/// How a checkpoint begins, under its seal.
pub const CHECKPOINT_MAGIC: &[u8; 4] = b"MLT2";

/// How a run trains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingSettings {
    /// Which parameters move.
    pub subset: Subset,
    /// Passes over the corrections.
    pub epochs: u32,
    /// Step size.
    pub learning_rate: f32,
    /// Decoupled weight decay, per step and unit of step size, towards the parameters at the start of the run.
    pub weight_decay: f32,
}

impl TrainingSettings {
    /// Biases, norms and the class head.
    pub const SPARSE: TrainingSettings = TrainingSettings {
        subset: Subset::Sparse,
        epochs: EPOCHS_PER_UPDATE,
        learning_rate: 2e-3,
        weight_decay: 0.01,
    };

    /// The full two layers.
    pub const FULL: TrainingSettings = TrainingSettings {
        subset: Subset::Full,
        epochs: EPOCHS_PER_UPDATE,
        learning_rate: 3e-4,
        weight_decay: 0.01,
    };
}

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Consent to training was withdrawn.
    #[error(transparent)]
    Consent(#[from] ConsentError),
    /// The parameters are not of this layout.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// There is nothing to train on, or nothing left.
    #[error("the run has no picture to train on now")]
    NoExample,
    /// The run has not come to its end.
    #[error("the run is at step {done} of {total}; its delta exists only at the end")]
    Unfinished {
        /// Steps done.
        done: u64,
        /// Steps in all.
        total: u64,
    },
    /// The checkpoint belongs to another model, other settings or another version.
    #[error("the checkpoint does not fit: {0}; start a new run")]
    Checkpoint(&'static str),
    /// The encrypted store failed.
    #[error(transparent)]
    Edge(#[from] EdgeError),
}

/// One run over a fixed number of corrections.
pub struct Trainer {
    layout: HeadLayout,
    settings: TrainingSettings,
    run: RunId,
    examples: usize,
    steps: u64,
    /// Digest of the parameters at the start.
    base: Digest,
    /// The subset at the start of the run.
    start: Zeroizing<Vec<f32>>,
    /// The whole flat vector, as trained so far.
    parameters: Zeroizing<Vec<f32>>,
    first: Zeroizing<Vec<f32>>,
    second: Zeroizing<Vec<f32>>,
    gradients: Gradients<f32>,
}

impl Trainer {
    /// Starts a run over `examples` corrections from `parameters`, the flat vector of `layout`.
    ///
    /// # Errors
    /// [`TrainError::Consent`] where it does not stand, [`TrainError::Size`] for parameters of another layout, [`TrainError::NoExample`] where
    /// there is no correction or no pass.
    pub fn new(
        layout: HeadLayout,
        parameters: Vec<f32>,
        examples: usize,
        settings: TrainingSettings,
        run: RunId,
        consent: &ConsentToken<ImproveMyMirror>,
    ) -> Result<Trainer, TrainError> {
        consent.check()?;
        Network::new(&layout, &parameters)?;
        if examples == 0 || settings.epochs == 0 {
            return Err(TrainError::NoExample);
        }
        let start = Zeroizing::new(layout.gather(settings.subset, &parameters));
        Ok(Trainer {
            run,
            examples,
            steps: 0,
            base: layout.digest(&parameters),
            first: Zeroizing::new(vec![0.0; start.len()]),
            second: Zeroizing::new(vec![0.0; start.len()]),
            gradients: Gradients::new(&layout, settings.subset),
            start,
            parameters: Zeroizing::new(parameters),
            layout,
            settings,
        })
    }

    /// The run's id.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Steps done and steps in all.
    pub fn progress(&self) -> (u64, u64) {
        (self.steps, self.examples as u64 * u64::from(self.settings.epochs))
    }

    /// Which correction comes next, `0..examples`, or `None` at the end. Every epoch has an order of its own.
    pub fn next_example(&self) -> Option<usize> {
        let (done, total) = self.progress();
        let epoch = done / self.examples as u64;
        (done < total).then(|| self.order(epoch)[(done % self.examples as u64) as usize])
    }

    /// Trains on the correction that [`Trainer::next_example`] named, and gives its loss before the step; `None` where the
    /// loss or its gradient is no number. Such a step moves nothing and is done all the same: whether a run comes to its
    /// end, and an update leaves, depends on no picture.
    ///
    /// Whoever calls may stop between any two calls.
    ///
    /// # Errors
    /// [`TrainError::Consent`] where it is withdrawn, also meanwhile, and [`TrainError::NoExample`] at the end; no step is done then.
    pub fn train(
        &mut self,
        consent: &ConsentToken<ImproveMyMirror>,
        features: &Features<f32>,
        target: &Target<f32>,
    ) -> Result<Option<f32>, TrainError> {
        consent.check()?;
        if self.next_example().is_none() {
            return Err(TrainError::NoExample);
        }
        self.gradients.clear();
        let network = Network::new(&self.layout, &self.parameters)?;
        let loss = super::accumulate(&network, features, target, &mut self.gradients);
        let gradient =
            Zeroizing::new(self.layout.gather(self.settings.subset, &self.gradients.values));
        let norm = gradient.iter().map(|value| value * value).sum::<f32>().sqrt();
        // The passes take a while: a withdrawal meanwhile still stops the step.
        consent.check()?;
        self.steps += 1;
        if !loss.is_finite() || !norm.is_finite() {
            return Ok(None);
        }
        self.step(&gradient, LARGEST_GRADIENT / norm.max(LARGEST_GRADIENT));
        Ok(Some(loss))
    }

    fn step(&mut self, gradient: &[f32], scale: f32) {
        let TrainingSettings { subset, learning_rate, weight_decay, .. } = self.settings;
        let mut values = Zeroizing::new(self.layout.gather(subset, &self.parameters));
        // Beyond 2^31 steps the corrections are 1 anyway.
        let steps = self.steps.min(i32::MAX as u64) as i32;
        let (first_share, second_share) =
            (1.0 - FIRST_DECAY.powi(steps), 1.0 - SECOND_DECAY.powi(steps));
        let moments = self.first.iter_mut().zip(self.second.iter_mut());
        let places = values.iter_mut().zip(self.start.iter());
        for (((value, &start), (first, second)), &gradient) in places.zip(moments).zip(gradient) {
            let gradient = gradient * scale;
            *first = FIRST_DECAY * *first + (1.0 - FIRST_DECAY) * gradient;
            *second = SECOND_DECAY * *second + (1.0 - SECOND_DECAY) * gradient * gradient;
            let direction = *first / first_share / ((*second / second_share).sqrt() + STABILISER);
            *value -= learning_rate * (direction + weight_decay * (*value - start));
        }
        self.layout.scatter(subset, &values, &mut self.parameters);
    }

    /// The flat vector as trained so far, for a personal head that stays on this device.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// How far the finished run moved each value of the subset from where it started; nowhere where it has diverged, so that an
    /// update can be made of every run. Holds unnoised numbers: only for the encrypted store.
    ///
    /// # Errors
    /// [`TrainError::Unfinished`] before the end.
    pub fn change(&self) -> Result<Zeroizing<Vec<f32>>, TrainError> {
        let (done, total) = self.progress();
        if done < total {
            return Err(TrainError::Unfinished { done, total });
        }
        let mut moved = self.moved();
        if !is_change(&moved) {
            moved.fill(0.0);
        }
        Ok(moved)
    }

    /// Whether a value is no number any more, or so far from where it started that no training would bring it there.
    pub fn has_diverged(&self) -> bool {
        !is_change(&self.moved())
    }

    fn moved(&self) -> Zeroizing<Vec<f32>> {
        let after = Zeroizing::new(self.layout.gather(self.settings.subset, &self.parameters));
        let moved = after.iter().zip(self.start.iter()).map(|(after, start)| after - start);
        Zeroizing::new(moved.collect())
    }

    /// Everything that is needed to go on later, through the encrypted store's seal: it holds unnoised numbers.
    ///
    /// # Errors
    /// Of the seal.
    pub fn seal(&self, sealer: &dyn Sealer) -> Result<Vec<u8>, EdgeError> {
        let trained = Zeroizing::new(self.layout.gather(self.settings.subset, &self.parameters));
        let mut plain = Zeroizing::new(Vec::with_capacity(128 + 12 * trained.len()));
        plain.extend_from_slice(&self.checkpoint_header());
        plain.extend_from_slice(&self.steps.to_le_bytes());
        plain.extend_from_slice(&self.run.0);
        for values in [&trained, &self.first, &self.second] {
            numbers::encode_into(&mut plain, values);
        }
        sealer.seal(&plain)
    }

    /// Goes on with a sealed run: same layout, parameters, number of corrections and settings as it was started with.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] where it is of something else or of another length, of the seal, and those of [`Trainer::new`].
    pub fn resume(
        layout: HeadLayout,
        parameters: Vec<f32>,
        examples: usize,
        settings: TrainingSettings,
        sealed: &[u8],
        sealer: &dyn Sealer,
        consent: &ConsentToken<ImproveMyMirror>,
    ) -> Result<Trainer, TrainError> {
        let plain = sealer.open(sealed)?;
        let mut trainer =
            Trainer::new(layout, parameters, examples, settings, RunId([0; 16]), consent)?;
        let header = trainer.checkpoint_header();
        let body = plain.strip_prefix(header.as_slice());
        let body =
            body.ok_or(TrainError::Checkpoint("it is of another model, version or settings"))?;
        let count = trainer.start.len();
        let wrong = || TrainError::Checkpoint("its length is wrong");
        let (steps, body) = body.split_first_chunk::<8>().ok_or_else(wrong)?;
        let (run, body) = body.split_first_chunk::<16>().ok_or_else(wrong)?;
        let values = numbers::decode_any(body, 3 * count).map_err(|_| wrong())?;
        let values = Zeroizing::new(values);
        trainer.steps = u64::from_le_bytes(*steps);
        trainer.run = RunId(*run);
        trainer.layout.scatter(settings.subset, &values[..count], &mut trainer.parameters);
        trainer.first.copy_from_slice(&values[count..2 * count]);
        trainer.second.copy_from_slice(&values[2 * count..]);
        Ok(trainer)
    }

    fn checkpoint_header(&self) -> Vec<u8> {
        let mut header = CHECKPOINT_MAGIC.to_vec();
        header.push(u8::from(self.settings.subset == Subset::Full));
        header.extend_from_slice(&self.settings.epochs.to_le_bytes());
        header.extend_from_slice(&self.settings.learning_rate.to_le_bytes());
        header.extend_from_slice(&self.settings.weight_decay.to_le_bytes());
        header.extend_from_slice(&(self.examples as u64).to_le_bytes());
        header.extend_from_slice(&self.base.0);
        header
    }

    /// A permutation of the examples that only the run and the epoch decide, so that a resumed run goes on with it.
    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.examples).collect();
        let mut seed = self.run.0.to_vec();
        seed.extend_from_slice(&epoch.to_le_bytes());
        let mut state = Digest::of(&seed);
        for index in (1..order.len()).rev() {
            state = Digest::of(&state.0);
            let draw = u64::from_le_bytes(std::array::from_fn(|byte| state.0[byte]));
            order.swap(index, (draw % (index as u64 + 1)) as usize);
        }
        order
    }
}

/// Whether an update can say it; what is no number it cannot.
fn is_change(moved: &[f32]) -> bool {
    moved.iter().all(|value| value.abs() <= LARGEST_VALUE)
}

impl Drop for Trainer {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.gradients.values);
    }
}
