//! What a run is judged by: examples of corrections, the held-back ones at its end, and what becomes of it.

use learn::consent::{ConsentToken, ImproveMyMirror};
use learn::head::{
    Confusion, Features, HeadLayout, Network, Target, Trainer, TrunkOutput, semantic_labels,
    should_adopt,
};

use super::run::{Break, CHECKPOINT_NAME, Losses, Outcome, RunPlan, Work};
use super::{RunReport, TrainingState};
use crate::corrections;
use crate::error::HomeError;
use crate::heads::HeadInfo;
use crate::home::Home;
use crate::household::Shared;
use crate::model::{BaseModel, Trunk};
use crate::refit::refit;
use crate::releases::{CANDIDATE_NAME, Candidate};
use crate::state::State;

/// Held-back corrections that judge a run at most. They come on top of the run's planned time, each as long as a step or so: without a bound
/// a household that corrects much would wait for hours.
const MOST_JUDGED: usize = 50;

impl Home {
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

    /// Judges the trained head on held-back corrections, [`MOST_JUDGED`] at most, and adopts it where it is better.
    pub(super) fn finish(
        &self,
        work: &mut Work<'_>,
        plan: &RunPlan,
        trainer: &Trainer,
        losses: &Losses,
    ) -> Result<RunReport, Break> {
        let before = self.head_values();
        let judged = spread(self.lock().corrections.roles().1);
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
            // What the household taught is learnt by this network, too.
            next.others.clear();
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
}

/// [`MOST_JUDGED`] of these numbers, from the oldest to the newest at equal steps: a head that forgets what it learnt long ago is no better, and
/// two runs over the same corrections are judged alike.
fn spread(numbers: Vec<u64>) -> Vec<u64> {
    if numbers.len() <= MOST_JUDGED {
        return numbers;
    }
    let place = |at: usize| at * (numbers.len() - 1) / (MOST_JUDGED - 1);
    (0..MOST_JUDGED).map(|at| numbers[place(at)]).collect()
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
