//! A fleet without a network: the real student, real training, real noise and real sums.
//!
//! Real are: the rendered households of `models/households/train`, the trunk, the training of every household from
//! the current global head, clipping, a ledger reservation and exact integer noise for every device, encoding,
//! decoding, the norm check, integer sums, averaging, the server's step, and the judgement on households of the test
//! split that nobody trained on.
//!
//! Resampled is one thing: a fleet larger than the number of households has several devices per household. They send
//! the same clipped delta under noise of their own. So a large simulated fleet has less variety than a real one.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use learn::averaging::{PartialSum, RoundRules, ServerOptimiser, Step};
use learn::edges::LayoutId;
use learn::head::{Confusion, HeadLayout, Subset, TrainingSettings};
use learn::privacy::{self, Budget, Composition, NoiseMultiplier, PrivacyStatement};
use learn::update::Update;
use serde::Serialize;

use crate::contributor::{Contributor, ContributorError, budget_of, settings_of};
use crate::engine::DELTA;
use crate::households::Households;
use crate::records::Parameters;
use crate::signal::{Signal, mean_square_length, measured_cosine};
use crate::student::{Example, StudentError, Trunk, judge};

/// Why a simulation ended early.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum SimulationError {
    #[error(transparent)]
    Student(#[from] StudentError),
    #[error(transparent)]
    Household(#[from] crate::households::HouseholdError),
    #[error(transparent)]
    Contributor(#[from] ContributorError),
    #[error(transparent)]
    Accountant(#[from] learn::privacy::AccountantError),
    #[error(transparent)]
    Averaging(#[from] learn::averaging::AveragingError),
    #[error(transparent)]
    Update(#[from] learn::update::UpdateError),
    #[error("a worker thread of the simulation panicked")]
    Panicked,
}

type Result<T, E = SimulationError> = std::result::Result<T, E>;

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Devices that take part in every round.
    pub devices: u64,
    /// Rounds.
    pub rounds: u32,
    /// Noise multiplier; without one, what the default budget allows for that many rounds.
    pub noise_multiplier: Option<NoiseMultiplier>,
    /// Which numbers are trained.
    pub parameters: Parameters,
    /// How a round's average moves its base.
    pub step: Step,
    /// Whether a candidate that is worse than its predecessor is dropped, as a server does. Judged here on the test
    /// households themselves, which flatters the fleet: a server's holdout is another set.
    pub gate: bool,
    /// Threads.
    pub threads: usize,
}

/// One round's figures.
#[derive(Clone, Debug, Serialize)]
pub struct RoundFigures {
    /// From 1.
    pub round: u32,
    /// Mean IoU of the averaged candidate on the held-out households, 0 to 1.
    pub candidate: f64,
    /// Mean IoU of the model that the fleet uses after the round.
    pub fleet: f64,
    /// Mean IoU of the candidate averaged without noise, from the same head and velocity: what the clipped updates alone would have done
    /// in this round.
    pub without_noise: f64,
    /// Central training on all pictures, after as many epochs.
    pub central: f64,
    /// Cosine of a household's clipped update to the common direction: what `rounds.update_cosine` asks for.
    pub update_cosine: f64,
    /// Cosine of the noised average to the average without noise.
    pub average_cosine: f64,
    /// What [`Signal::expected_under_noise`] expects of that.
    pub expected_cosine: f64,
    /// What a device has spent.
    pub privacy: PrivacyStatement,
    /// Bytes that all devices sent in this round.
    pub bytes: u64,
    /// Seconds it took.
    pub seconds: f64,
}

/// All figures.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Devices in every round.
    pub devices: u64,
    /// Households that were really trained; devices beyond them are resampled.
    pub trained_households: usize,
    /// Households of the test split by which everything is judged.
    pub judged_households: usize,
    /// sparse or full.
    pub parameters: Parameters,
    /// Numbers in an update.
    pub dimension: usize,
    /// Bytes of an update.
    pub update_bytes: usize,
    /// Bytes of the whole model's parameters, as 32-bit numbers: what sending the head back whole would cost.
    pub head_bytes: usize,
    /// Noise multiplier of every update.
    pub noise_multiplier: f64,
    /// Mean IoU before any round.
    pub base: f64,
    /// Mean IoU of held-out households that learned at home only, each on its own corrections, judged by its other
    /// pictures.
    pub at_home: f64,
    /// The shipped head on those same pictures.
    pub at_home_base: f64,
    /// Round by round.
    pub rounds: Vec<RoundFigures>,
}

struct Fixed<'a> {
    layout: &'a HeadLayout,
    subset: Subset,
    settings: TrainingSettings,
    contributor: Contributor,
    households: Vec<Vec<Example>>,
    judged: Vec<Example>,
}

/// Runs a plan on the households of `folder` (`train` and `test` in it). `told` hears of every finished step.
pub fn simulate(
    trunk: &Trunk,
    folder: &Path,
    plan: &Plan,
    mut told: impl FnMut(&str),
) -> Result<Figures> {
    let noise = match plan.noise_multiplier {
        Some(noise) => noise,
        None => privacy::plan(&Budget::DEFAULT, u64::from(plan.rounds))?,
    };
    let subset = plan.parameters.subset();
    let layout = trunk.layout();
    let train = Households::read(&folder.join("train"))?;
    let test = Households::read(&folder.join("test"))?;
    let fixed = Fixed {
        layout,
        subset,
        settings: settings_of(subset),
        // Every simulated device is a new one in every round; what one device would have spent over all rounds is worked out beside it.
        contributor: Contributor::new(budget_of(noise, 1)?)?,
        households: examples(trunk, &train, |household| 0..household.corrections)?,
        judged: examples(trunk, &test, |household| 0..household.pictures())?
            .into_iter()
            .flatten()
            .collect(),
    };
    told(&format!("{} households are ready", fixed.households.len()));
    let base = score(&fixed, trunk.parameters())?;
    let (at_home_base, at_home) = at_home(&fixed, trunk, &test, trunk.parameters())?;
    told(&format!("before any round {base:.4}; at home {at_home_base:.4} -> {at_home:.4}"));

    let dimension = layout.subset_len(subset);
    let mut state = State {
        central: trunk.parameters().to_vec(),
        global: trunk.parameters().to_vec(),
        optimiser: ServerOptimiser::new(plan.step, vec![0.0; dimension]),
        fleet: base,
        spent: Composition::new(),
    };
    let mut rounds = Vec::new();
    for round in 1..=plan.rounds {
        let figures = simulate_round(&fixed, &mut state, plan, noise, round)?;
        told(&line(&figures));
        rounds.push(figures);
    }
    let update_bytes = rounds.last().map_or(0, |last| last.bytes / plan.devices) as usize;
    Ok(Figures {
        devices: plan.devices,
        trained_households: fixed.households.len(),
        judged_households: test.households.len(),
        parameters: plan.parameters,
        dimension,
        update_bytes,
        head_bytes: 4 * layout.len(),
        noise_multiplier: noise.as_f64(),
        base,
        at_home,
        at_home_base,
        rounds,
    })
}

/// What goes on from round to round.
struct State {
    /// The head of the fleet.
    global: Vec<f32>,
    /// Its score.
    fleet: f64,
    /// Belongs to the candidate: a server takes the velocity from the round that its base was published by.
    optimiser: ServerOptimiser,
    /// The head of central training.
    central: Vec<f32>,
    /// By a device that takes part in every round.
    spent: Composition,
}

impl State {
    /// The head moved by an average, and the optimiser after it.
    fn stepped(
        &self,
        layout: &HeadLayout,
        subset: Subset,
        average: &[f32],
    ) -> (Vec<f32>, ServerOptimiser) {
        let (mut head, mut optimiser) = (self.global.clone(), self.optimiser.clone());
        let mut values = layout.gather(subset, &head);
        optimiser.apply(average, &mut values);
        layout.scatter(subset, &values, &mut head);
        (head, optimiser)
    }
}

fn simulate_round(
    fixed: &Fixed<'_>,
    state: &mut State,
    plan: &Plan,
    noise: NoiseMultiplier,
    round: u32,
) -> Result<RoundFigures> {
    let began = Instant::now();
    let (layout, subset) = (fixed.layout, fixed.subset);
    let dimension = layout.subset_len(subset);
    let model = layout.digest(&state.global).0;
    let rules =
        RoundRules { layout: layout.id(subset, &model), dimension, noise_multiplier: noise };
    let deltas = train_all(fixed, &state.global, plan.threads)?;
    let clipped: Vec<Vec<f32>> = deltas.iter().map(|delta| clip(delta)).collect();
    let (sum, bytes) = collect(fixed, &deltas, rules, plan)?;
    let average = sum.average(plan.devices)?;
    let clean = mean(&clipped, plan.devices);
    let [(candidate, stepped), (noiseless, _)] =
        [&average, &clean].map(|average| state.stepped(layout, subset, average));
    state.central = central_epochs(fixed, &state.central)?;
    state.spent.add(noise, 1);
    let candidate_score = score(fixed, &candidate)?;
    if !plan.gate || candidate_score >= state.fleet {
        (state.global, state.fleet, state.optimiser) = (candidate, candidate_score, stepped);
    }
    let update_cosine = measured_cosine(&clipped);
    let signal = Signal { dimension, noise_multiplier: noise, update_cosine };
    let households = plan.devices.min(clipped.len() as u64);
    Ok(RoundFigures {
        round,
        candidate: candidate_score,
        fleet: state.fleet,
        without_noise: score(fixed, &noiseless)?,
        central: score(fixed, &state.central)?,
        update_cosine,
        average_cosine: cosine(&average, &clean),
        expected_cosine: signal.expected_under_noise(
            plan.devices,
            households,
            mean_square_length(&clipped),
        ),
        privacy: state.spent.statement(DELTA)?,
        bytes,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// One round as a line of text.
pub fn line(figures: &RoundFigures) -> String {
    format!(
        "round {}: candidate {:.4}, fleet {:.4}, without noise {:.4}, central {:.4}; cosine of an update \
         to the common direction {:.3}, of the average to the one without noise {:.3} (expected {:.3}); epsilon {:.4}; {:.1} s",
        figures.round,
        figures.candidate,
        figures.fleet,
        figures.without_noise,
        figures.central,
        figures.update_cosine,
        figures.average_cosine,
        figures.expected_cosine,
        figures.privacy.shown_epsilon(),
        figures.seconds,
    )
}

fn examples(
    trunk: &Trunk,
    households: &Households,
    which: impl Fn(&crate::households::Household) -> std::ops::Range<usize>,
) -> Result<Vec<Vec<Example>>> {
    let of = |household| {
        let pictures = which(household);
        pictures.map(|picture| Ok(trunk.example(households, household, picture)?)).collect()
    };
    households.households.iter().map(of).collect()
}

fn score(fixed: &Fixed<'_>, parameters: &[f32]) -> Result<f64> {
    let mut confusion = Confusion::new();
    judge(fixed.layout, parameters, &fixed.judged, &mut confusion)?;
    Ok(confusion.mean_iou().ok_or(StudentError::NoPicture)?)
}

/// Held-out households that learn by themselves: before and after, on the pictures that they did not learn from.
fn at_home(
    fixed: &Fixed<'_>,
    trunk: &Trunk,
    test: &Households,
    global: &[f32],
) -> Result<(f64, f64)> {
    let (mut before, mut after) = (Confusion::new(), Confusion::new());
    for household in &test.households {
        let mut pictures = (0..household.pictures())
            .map(|picture| trunk.example(test, household, picture))
            .collect::<Result<Vec<_>, _>>()?;
        let others = pictures.split_off(household.corrections);
        let own = fixed.contributor.train(fixed.layout, global, &pictures, fixed.settings)?;
        judge(fixed.layout, global, &others, &mut before)?;
        judge(fixed.layout, &own, &others, &mut after)?;
    }
    let score = |confusion: Confusion| confusion.mean_iou().ok_or(StudentError::NoPicture);
    Ok((score(before)?, score(after)?))
}

/// Every household's delta from the global head, in the order of households.
fn train_all(fixed: &Fixed<'_>, global: &[f32], threads: usize) -> Result<Vec<Vec<f32>>> {
    let before = fixed.layout.gather(fixed.subset, global);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(vec![Vec::new(); fixed.households.len()]);
    let work = || -> Result<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(examples) = fixed.households.get(index) else { return Ok(()) };
            let after = fixed.contributor.train(fixed.layout, global, examples, fixed.settings)?;
            let after = fixed.layout.gather(fixed.subset, &after);
            let delta = after.iter().zip(&before).map(|(after, before)| after - before).collect();
            done.lock().unwrap_or_else(PoisonError::into_inner)[index] = delta;
        }
    };
    in_threads(threads, |_| work())?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn in_threads<T: Send>(threads: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads.max(1))
            .map(|thread| {
                let work = &work;
                scope.spawn(move || work(thread))
            })
            .collect();
        let joined = handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or(Err(SimulationError::Panicked)));
        joined.collect()
    })
}

/// Every device's noised update, through its bytes, into partial sums that are merged.
fn collect(
    fixed: &Fixed<'_>,
    deltas: &[Vec<f32>],
    rules: RoundRules,
    plan: &Plan,
) -> Result<(PartialSum, u64)> {
    let threads = plan.threads.max(1);
    let parts = in_threads(threads, |thread| {
        let (mut sum, mut bytes) = (PartialSum::new(rules), 0);
        for device in (thread as u64..plan.devices).step_by(threads) {
            let delta = deltas[household_of(device, deltas.len())].clone();
            let sent = send(fixed, rules.layout, delta, rules.noise_multiplier)?;
            bytes += sent.len() as u64;
            sum.add(&Update::decode(&sent)?)?;
        }
        Ok((sum, bytes))
    })?;
    let (mut sum, mut bytes) = (PartialSum::new(rules), 0);
    for (part, more) in parts {
        sum.merge(&part)?;
        bytes += more;
    }
    Ok((sum, bytes))
}

fn send(
    fixed: &Fixed<'_>,
    layout: LayoutId,
    delta: Vec<f32>,
    noise: NoiseMultiplier,
) -> Result<Vec<u8>> {
    Ok(fixed.contributor.device()?.release(layout, delta, noise)?)
}

/// Devices are dealt out evenly: household after household, then from the first again.
fn household_of(device: u64, households: usize) -> usize {
    (device % households as u64) as usize
}

/// The mean of the clipped deltas over the devices that send them.
fn mean(clipped: &[Vec<f32>], devices: u64) -> Vec<f32> {
    let mut sum = vec![0.0_f64; clipped[0].len()];
    for (index, delta) in clipped.iter().enumerate() {
        let (whole, rest) = (devices / clipped.len() as u64, devices % clipped.len() as u64);
        let times = (whole + u64::from((index as u64) < rest)) as f64;
        sum.iter_mut().zip(delta).for_each(|(sum, &value)| *sum += times * f64::from(value));
    }
    sum.into_iter().map(|value| (value / devices as f64) as f32).collect()
}

fn clip(delta: &[f32]) -> Vec<f32> {
    let norm = delta.iter().map(|value| value * value).sum::<f32>().sqrt().max(1.0);
    delta.iter().map(|value| value / norm).collect()
}

/// As many epochs over everybody's pictures as a household makes over its own.
fn central_epochs(fixed: &Fixed<'_>, parameters: &[f32]) -> Result<Vec<f32>> {
    let all: Vec<&Example> = fixed.households.iter().flatten().collect();
    Ok(fixed.contributor.train_on(fixed.layout, parameters, &all, fixed.settings)?)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use learn::head::HeadShape;

    use super::*;

    #[test]
    fn what_an_average_does_goes_on_from_the_rounds_before_with_and_without_noise() {
        let shape = HeadShape { queries: 5, dim: 8, hidden: 12, mask_height: 12, mask_width: 8 };
        let layout = HeadLayout::of_shape(shape).unwrap();
        let dimension = layout.subset_len(Subset::Sparse);
        let step = Step::PLAIN.with_momentum(0.5).and_then(|step| step.with_rate(0.25)).unwrap();
        let state = State {
            global: vec![1.0; layout.len()],
            fleet: 0.0,
            optimiser: ServerOptimiser::new(step, vec![8.0; dimension]),
            central: Vec::new(),
            spent: Composition::new(),
        };
        let (head, optimiser) = state.stepped(&layout, Subset::Sparse, &vec![4.0; dimension]);
        assert_eq!(optimiser.velocity(), vec![8.0; dimension], "0.5 * 8 + 4");
        assert_eq!(layout.gather(Subset::Sparse, &head), vec![3.0; dimension], "1 + 0.25 * 8");
        let moved = head.iter().filter(|value| **value != 1.0).count();
        assert_eq!(moved, dimension, "no other number");
    }

    #[test]
    fn devices_are_dealt_out_evenly() {
        let clipped = vec![vec![3.0], vec![0.0]];
        assert_eq!(mean(&clipped, 3), [2.0]);
        assert_eq!(
            (0..5).map(|device| household_of(device, 2)).collect::<Vec<_>>(),
            [0, 1, 0, 1, 0]
        );
    }

    #[test]
    fn clipping_shortens_and_never_lengthens() {
        assert_eq!(clip(&[3.0, 4.0]), [0.6, 0.8]);
        assert_eq!(clip(&[0.3, 0.4]), [0.3, 0.4]);
    }
}
