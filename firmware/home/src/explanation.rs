//! What a person reads before agreeing, in plain words with the figures in force.
//!
//! Each purpose has a version, a fingerprint of its words and figures: a changed sentence or a changed budget asks again for that purpose.

use learn::consent::PurposeKind;
use learn::edges::Digest;
use learn::ledger::Ledger;
use learn::privacy::{ADJACENCY, Composition, TRUST, UNIT};
use serde::Serialize;

use crate::error::HomeError;
use crate::options::HomeOptions;

/// Of 100 guesses between two homes; a protection that lets more of them be right is called weak.
const MOST_RIGHT: u32 = 90;

/// The explanation of one purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PurposeText {
    /// The purpose.
    pub purpose: PurposeKind,
    /// The switch's label.
    pub title: &'static str,
    /// What happens.
    pub what: String,
    /// What leaves this device.
    pub leaves: String,
    /// What never leaves it.
    pub stays: String,
    /// The privacy budget.
    pub budget: String,
    /// How to stop.
    pub stop: String,
    /// What stopping cannot undo.
    pub cannot_undo: String,
}

impl PurposeText {
    /// Every sentence, in the order shown.
    pub fn sentences(&self) -> [&str; 7] {
        [
            self.title,
            &self.what,
            &self.leaves,
            &self.stays,
            &self.budget,
            &self.stop,
            &self.cannot_undo,
        ]
    }

    fn version(&self) -> u32 {
        let digest = Digest::of(self.sentences().join("\n").as_bytes()).0;
        u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])
    }
}

/// The whole explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Fingerprints of the words and figures of each purpose, in their order; recorded with a consent.
    pub versions: [u32; 2],
    /// One text per purpose, in the order of [`PurposeKind::ALL`].
    pub purposes: [PurposeText; 2],
}

impl Explanation {
    /// The explanation with the figures of `options`.
    ///
    /// # Errors
    /// [`HomeError::Accountant`] where the accountant cannot answer.
    pub fn new(options: &HomeOptions) -> Result<Explanation, HomeError> {
        Explanation::after(options, None)
    }

    /// The explanation for a mirror with this ledger: what was released with other noise counts.
    ///
    /// # Errors
    /// As [`Explanation::new`].
    pub fn after(options: &HomeOptions, ledger: Option<&Ledger>) -> Result<Explanation, HomeError> {
        let purposes = [improve(options), contribute(options, ledger)?];
        let versions = purposes.each_ref().map(PurposeText::version);
        Ok(Explanation { versions, purposes })
    }

    /// Version of the text of a purpose.
    pub fn version(&self, purpose: PurposeKind) -> u32 {
        self.versions[purpose as usize]
    }

    /// The text of a purpose.
    pub fn purpose(&self, purpose: PurposeKind) -> &PurposeText {
        &self.purposes[purpose as usize]
    }
}

fn improve(options: &HomeOptions) -> PurposeText {
    let days = options.limits.age.as_secs() / 86_400;
    let corrections = options.limits.corrections;
    PurposeText {
        purpose: PurposeKind::ImproveMyMirror,
        title: PurposeKind::ImproveMyMirror.title(),
        what: format!(
            "The mirror keeps the pictures that you correct, encrypted, and trains itself on them at night or when \
             nobody is in front of it. It keeps at most {corrections} corrections, each for at most {days} days. A mirror deletes \
             only while it has power and runs: after a time without power, up to a week late. Until its clock is set, only the \
             time that it runs counts. Ask whoever is in a picture before you save it."
        ),
        leaves: "Nothing goes to the fleet or anywhere else. The mirror's page shows your corrections to whoever may open it: \
                 on this device, or in the browsers that you paired with it."
            .to_owned(),
        stays: "Your pictures, the parts you painted and the head trained on them stay on this device.".to_owned(),
        budget: "No privacy budget is spent, because nothing goes to the fleet.".to_owned(),
        stop: format!(
            "Switch this off at any time: training stops at once; stored pictures stay until you delete them, or for those \
             {days} days. Delete single corrections, or everything, on the same page."
        ),
        cannot_undo: "Switching off does not untrain the head; going back to an earlier head, or deleting everything, \
                      does."
            .to_owned(),
    }
}

/// The words of a mirror whose settings allow no release.
fn contribute_nothing(reason: &HomeError) -> PurposeText {
    PurposeText {
        purpose: PurposeKind::ContributeToFleet,
        title: PurposeKind::ContributeToFleet.title(),
        what: "With its present settings this mirror contributes nothing.".to_owned(),
        leaves: "No update leaves.".to_owned(),
        stays: "Whatever is learnt here.".to_owned(),
        budget: format!("No update fits the budget ({reason})."),
        stop: "Nothing is sent.".to_owned(),
        cannot_undo: "Updates that were sent before cannot be called back, and their share of the budget stays spent.".to_owned(),
    }
}

fn contribute(options: &HomeOptions, ledger: Option<&Ledger>) -> Result<PurposeText, HomeError> {
    if let Err(reason) = options.check_releases() {
        return Ok(contribute_nothing(&reason));
    }
    let z = options.noise_multiplier()?;
    let over_its_life = over_its_life(options, ledger)?;
    let between = between_households(options, ledger)?;
    let plainly = in_plain_words(between, options.budget.delta());
    Ok(PurposeText {
        purpose: PurposeKind::ContributeToFleet,
        title: PurposeKind::ContributeToFleet.title(),
        what: "After training at home, the mirror may send how its numbers changed to the fleet's server, which \
               averages the changes of many mirrors into a better model for everybody. Your yes holds for the fleet that \
               this mirror belongs to when you give it; another fleet asks again."
            .to_owned(),
        leaves: format!(
            "An update leaves: the change of the head's {} parameters, cut to length 1, and random noise added to every one \
             of its numbers, with a standard deviation of {z} times that length. The server also sees that this mirror takes \
             part, and when. Training waits until nobody is in front of the mirror, so a server that knows which mirror sent an \
             update may learn from its time when nobody was. Where the mirror reports to your own Home Assistant, that hears of the budget spent and left, of the \
             updates left, of the rounds, and when the last update was received.",
            options.subset_name()
        ),
        stays: "No picture, no painted part, no score, no count of your corrections and no number without noise ever \
                goes to the fleet."
            .to_owned(),
        budget: format!(
            "{plainly} {over_its_life} That compares what leaves with updates that say nothing; between what two different households \
             send the bound is {between}. Unit: {UNIT}. Adjacency: {ADJACENCY}. Trust: {TRUST}. When the budget is spent, nothing \
             more is sent."
        ),
        stop: "Switch this off at any time: nothing more is sent, and updates that wait are destroyed. They are also destroyed when \
               you switch off “Improve my mirror”, delete a correction, or go back to an earlier head."
            .to_owned(),
        cannot_undo: "Updates that were sent cannot be called back, and their share of the budget stays spent, also \
                      after everything is deleted."
            .to_owned(),
    })
}

/// What the bound between two households' updates means: whoever guesses between two homes that seem as likely to them is right
/// with a probability of at most `(1 + delta * exp(-epsilon)) / (1 + exp(-epsilon))`.
fn in_plain_words(epsilon: f64, delta: f64) -> String {
    let likeness = (-epsilon).exp();
    let right = (100.0 * (1.0 + delta * likeness) / (1.0 + likeness)).ceil() as u32;
    if right > MOST_RIGHT {
        return "In plain words: noise hides most of what an update says about your home, but this protection is weak. It does not \
                promise that nobody could tell your home's updates from another's."
            .to_owned();
    }
    format!(
        "In plain words: noise hides most of what an update says about your home. Whoever guesses from the contents whether an \
         update comes from your home or another is right at most {right} times in 100; a coin is right 50 times."
    )
}

/// How many updates leave at most, and within which epsilon: of the plan, which no release changes. Where others were made under
/// other settings and leave no room, that is told instead.
fn over_its_life(options: &HomeOptions, ledger: Option<&Ledger>) -> Result<String, HomeError> {
    let (epsilon, delta) = (options.budget.epsilon(), options.budget.delta());
    let most = options.most_releases();
    if let Some(ledger) = ledger {
        let made = ledger.verified().releases().len() as u64;
        let spent = ledger.verified().composition();
        if made > most || !spent.fits(&options.budget) {
            let cost = spent.statement(delta)?.shown_epsilon();
            return Ok(format!(
                "Budget for {} was spent under other settings: epsilon {cost} at delta {delta:e}. The present settings allow \
                 {most} and epsilon {epsilon} over the mirror's whole life, so no more updates are made.",
                updates(made)
            ));
        }
    }
    Ok(format!(
        "Over the mirror's whole life at most {} {}, so that epsilon stays within {epsilon} at delta {delta:e}.",
        updates(most),
        if most == 1 { "leaves" } else { "leave" }
    ))
}

fn updates(count: u64) -> String {
    if count == 1 { "1 update".to_owned() } else { format!("{count} updates") }
}

/// Epsilon of all releases where one household's updates stand in the place of another's, rounded up to one decimal: they
/// can lie twice as far apart as one of them from an update that says nothing. Twice the distance costs as much as four
/// times the releases.
///
/// Of the plan, or of what the ledger has and what still fits where that is more; a round that asks for more noise than the
/// plan makes it neither, so that the words stay as they are.
fn between_households(options: &HomeOptions, ledger: Option<&Ledger>) -> Result<f64, HomeError> {
    let z = options.noise_multiplier()?;
    let bound = |releases: &Composition| -> Result<f64, HomeError> {
        Ok(releases.times(4).statement(options.budget.delta())?.epsilon())
    };
    let mut planned = Composition::new();
    planned.add(z, options.most_releases());
    let mut epsilon = bound(&planned)?;
    if let Some(ledger) = ledger {
        let mut whole = ledger.verified().composition().clone();
        whole.add(z, ledger.releases_left(z));
        epsilon = epsilon.max(bound(&whole)?);
    }
    Ok((10.0 * epsilon).ceil() / 10.0)
}
