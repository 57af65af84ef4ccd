//! The fleet's models in this house: tried before they are used, kept with their predecessor, given back when worse.
//!
//! Two things are kept apart. The *base* is what updates belong to: the newest model that passed the public
//! check, so that whether a mirror takes part in a round says nothing about the household but the shape of its camera's
//! pictures, which is the network's input's. The *head in use* is what
//! the vision runs: where the household's own corrections say that the new model is worse, it stays what it was.
//!
//! File: `MFM1`, digest of the shipped model (32), count (1), then for each model, newest first, its version (8) and
//! its trainable numbers (f32 each), then SHA-256 of all before; little-endian.

use std::sync::{Arc, MutexGuard};

use learn::consent::{ConsentToken, ImproveMyMirror};
use learn::edges::{Digest, EdgeError, Storage};
use learn::head::{Confusion, Subset, numbers};

use crate::error::HomeError;
use crate::heads::{self, HeadInfo};
use crate::hold::hold;
use crate::home::Home;
use crate::household::Shared;
use crate::model::{BaseModel, Trunk};
use crate::releases::CANDIDATE_NAME;
use crate::schedule::Gate;
use crate::state::State;
use crate::training::judge;

const NAME: &str = "models";
const MAGIC: &[u8; 4] = b"MFM1";

/// Models of the fleet that are kept: the one in force and the one before it.
const KEPT: usize = 2;

/// Mean IoU that a model may lose on the public check against the better of its predecessor and the model that the mirror came
/// with: one scene is no whole holdout, on which the fleet's own gate has judged it before, and many small losses add up to none
/// that is larger.
pub const PUBLIC_TOLERANCE: f64 = 0.02;

/// Corrections that judge a model at most, the newest ones: whoever sees how long a trial takes does not see how many there
/// are.
pub const MOST_JUDGES: usize = 40;

/// Corrections after a switch that are enough for the second look.
const ENOUGH_CORRECTIONS: usize = 3;

/// Why a model of the fleet is not used. Nothing of it depends on the household's pictures.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ModelTrouble {
    #[error("model {version} cannot be used: {reason}")]
    Unusable { version: u64, reason: String },
    #[error(
        "model {version} is worse on the public check than its predecessor or the model that the mirror came with: mean IoU \
         {after:.3} after {before:.3}"
    )]
    PublicCheck { version: u64, before: f64, after: f64 },
    #[error(transparent)]
    Home(#[from] HomeError),
}

impl From<EdgeError> for ModelTrouble {
    fn from(error: EdgeError) -> ModelTrouble {
        ModelTrouble::Home(error.into())
    }
}

/// Labelled pictures that every mirror ships with, of the network's input size.
#[derive(Clone, Debug, Default)]
pub struct PublicCheck {
    /// R, G, B planes and one part per pixel.
    pub pictures: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Whether a file is whole, and of models for another network than this firmware's.
fn is_of_another(bytes: &[u8], shipped: &BaseModel) -> bool {
    let Some((body, digest)) = bytes.split_last_chunk::<32>() else { return false };
    let models = body.strip_prefix(MAGIC).filter(|_| Digest::of(body).0 == *digest);
    models.is_some_and(|models| models.strip_prefix(&shipped.digest.0).is_none())
}

#[derive(Clone, Debug, PartialEq)]
struct FleetModel {
    version: u64,
    /// Every trainable number in the layout's order.
    values: Vec<f32>,
}

/// What is kept of the fleet's models, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Models(Vec<FleetModel>);

impl Models {
    /// A damaged file is told and then treated as none: the shipped model is in force, and the next one replaces it.
    pub fn load(storage: &dyn Storage, shipped: &BaseModel, problems: &mut Vec<String>) -> Models {
        let models = match storage.read(NAME) {
            Ok(None) => return Models::default(),
            Ok(Some(bytes)) if is_of_another(&bytes, shipped) => {
                tracing::info!(
                    "the fleet's model is for another firmware; the one that the mirror came with is in use"
                );
                return Models::default();
            }
            Ok(Some(bytes)) => Models::decode(&bytes, shipped),
            Err(error) => {
                tracing::warn!(%error, "the fleet's model");
                None
            }
        };
        if models.is_none() {
            problems.push(
                "the fleet's model is damaged; the one that the mirror came with is in use"
                    .to_owned(),
            );
        }
        models.unwrap_or_default()
    }

    fn encode(&self, shipped: &BaseModel) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&shipped.digest.0);
        bytes.push(self.0.len() as u8);
        for model in &self.0 {
            bytes.extend_from_slice(&model.version.to_le_bytes());
            numbers::encode_into(&mut bytes, &model.values);
        }
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(&digest.0);
        bytes
    }

    fn decode(bytes: &[u8], shipped: &BaseModel) -> Option<Models> {
        let (body, digest) = bytes.split_last_chunk::<32>()?;
        if Digest::of(body).0 != *digest {
            return None;
        }
        let body = body.strip_prefix(MAGIC)?.strip_prefix(&shipped.digest.0)?;
        let (&count, mut rest) = body.split_first()?;
        let trained = shipped.layout.subset_len(Subset::Full);
        let mut models = Vec::new();
        for _ in 0..count {
            let (version, behind) = rest.split_first_chunk::<8>()?;
            let (values, behind) = behind.split_at_checked(4 * trained)?;
            let values = numbers::decode(values, trained).ok()?;
            models.push(FleetModel { version: u64::from_le_bytes(*version), values });
            rest = behind;
        }
        rest.is_empty().then_some(Models(models))
    }

    /// Version and numbers of the model at `place`, 0 the newest; behind the last one comes the shipped one.
    fn at(&self, place: usize, shipped: &BaseModel) -> (u64, Vec<f32>) {
        let mut parameters = shipped.parameters.clone();
        let Some(model) = self.0.get(place) else { return (0, parameters) };
        shipped.layout.scatter(Subset::Full, &model.values, &mut parameters);
        (model.version, parameters)
    }

    /// The base in force.
    pub fn newest(&self, shipped: &Arc<BaseModel>) -> Arc<BaseModel> {
        if self.0.is_empty() {
            return Arc::clone(shipped);
        }
        let (_, parameters) = self.at(0, shipped);
        let digest = shipped.layout.digest(&parameters);
        Arc::new(BaseModel { parameters, digest, ..(**shipped).clone() })
    }

    fn version(&self) -> u64 {
        self.0.first().map_or(0, |model| model.version)
    }

    fn with(&self, model: FleetModel) -> Models {
        let mut models = self.clone();
        models.0.insert(0, model);
        models.0.truncate(KEPT);
        models
    }
}

/// What the household's corrections say of two heads: mean IoU of each, 0 to 1.
#[derive(Clone, Copy)]
struct Scores {
    in_use: f64,
    /// Of the head that may take the place of the one in use.
    other: f64,
}

/// The fleet's newest model, once more against the one before it.
struct SecondLook {
    /// [`State::second_look`].
    since: u64,
    /// Corrections that judge.
    judges: Vec<u64>,
    models: Models,
    /// Numbers of the head in use, and its version.
    in_use: Arc<[f32]>,
    head_version: u64,
    /// Whether those are the newest model's: a head of the household's own is judged by its own runs.
    is_fleets: bool,
}

impl Home {
    fn models(&self) -> MutexGuard<'_, Models> {
        hold(&self.models)
    }

    /// Version of the fleet's model in force; 0 for the one that the mirror came with.
    pub fn fleet_version(&self) -> u64 {
        self.models().version()
    }

    /// Tries a model of the fleet and puts it in force unless it is worse than its predecessor or the shipped model on `check`.
    /// Where the household lets its corrections be used and they say that it is worse than the head in use, that head stays in
    /// use. One that is no newer than the model in force, before its trial or after it, changes nothing. `bytes` are the trainable numbers in the layout's order, f32 little-endian. Call on a thread that may
    /// compute for seconds; pictures go on being parsed meanwhile.
    ///
    /// # Errors
    /// [`ModelTrouble`]; the model is not in force then. Where a store failed at the last step, the run under way may be given up, and the
    /// head that was chosen be in the list already.
    pub fn try_model(
        &self,
        version: u64,
        bytes: &[u8],
        check: &PublicCheck,
        trunk: &mut dyn Trunk,
    ) -> Result<(), ModelTrouble> {
        if version <= self.fleet_version() {
            return Ok(());
        }
        let trained = self.shipped.layout.subset_len(Subset::Full);
        let values = numbers::decode(bytes, trained)
            .map_err(|error| ModelTrouble::Unusable { version, reason: format!("it {error}") })?;
        let mut parameters = self.shipped.parameters.clone();
        self.shipped.layout.scatter(Subset::Full, &values, &mut parameters);
        self.public_check(version, &parameters, check, trunk)?;
        let judged = self.judges();
        let in_use = self.readable_head();
        let head = self.head_version();
        let own = match in_use {
            Some(values) => self.compare(trunk, &judged, &values, &parameters)?,
            None => None,
        };
        Ok(self.put_in_force(FleetModel { version, values }, &parameters, own, head)?)
    }

    fn public_check(
        &self,
        version: u64,
        parameters: &[f32],
        check: &PublicCheck,
        trunk: &mut dyn Trunk,
    ) -> Result<(), ModelTrouble> {
        let base = self.base();
        let layout = &self.shipped.layout;
        let heads = [&base.parameters[..], &self.shipped.parameters, parameters];
        let mut confusions = heads.map(|_| Confusion::new());
        for (pixels, labels) in &check.pictures {
            let (features, target) = self.prepared(trunk, pixels, labels)?;
            judge(layout, &heads, &features, &target, &mut confusions)?;
        }
        match confusions.map(|confusion| confusion.mean_iou()) {
            [Some(predecessor), Some(shipped), Some(after)] => {
                let before = predecessor.max(shipped);
                if after + PUBLIC_TOLERANCE >= before {
                    return Ok(());
                }
                Err(ModelTrouble::PublicCheck { version, before, after })
            }
            _ => Err(ModelTrouble::Unusable {
                version,
                reason: "there is no picture to check it with".to_owned(),
            }),
        }
    }

    /// Corrections that judge: the held-back ones, or all where none is held back yet.
    fn judges(&self) -> Vec<u64> {
        let (trained, held_back) = self.lock().corrections.roles();
        let mut judges = if held_back.is_empty() { trained } else { held_back };
        judges.drain(..judges.len().saturating_sub(MOST_JUDGES));
        judges
    }

    /// The numbers of the head in use, to be compared with others; `None` where the disk does not give the household's back, of
    /// which nothing can be said then.
    fn readable_head(&self) -> Option<Arc<[f32]>> {
        let shared = self.lock();
        self.reread_head(&shared).ok().map(|()| self.head_values())
    }

    /// What the household's corrections say of two heads; `None` without its consent, or without a correction.
    fn compare(
        &self,
        trunk: &mut dyn Trunk,
        numbers: &[u64],
        in_use: &[f32],
        other: &[f32],
    ) -> Result<Option<Scores>, HomeError> {
        let Ok(consent) = self.token::<ImproveMyMirror>() else { return Ok(None) };
        let compared = self.compare_with(&consent, trunk, numbers, [in_use, other]);
        // Withdrawn meanwhile: what was seen does not count.
        if consent.check().is_err() { Ok(None) } else { compared }
    }

    fn compare_with(
        &self,
        consent: &ConsentToken<ImproveMyMirror>,
        trunk: &mut dyn Trunk,
        numbers: &[u64],
        heads: [&[f32]; 2],
    ) -> Result<Option<Scores>, HomeError> {
        let mut confusions = [Confusion::new(), Confusion::new()];
        for &number in numbers {
            consent.check()?;
            match self.example(trunk, number) {
                Ok((features, target)) => {
                    judge(&self.shipped.layout, &heads, &features, &target, &mut confusions)?;
                }
                // Deleted meanwhile, or damaged: the others judge.
                Err(HomeError::NoCorrection(_) | HomeError::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let [in_use, other] = confusions.map(|confusion| confusion.mean_iou());
        Ok(in_use.zip(other).map(|(in_use, other)| Scores { in_use, other }))
    }

    /// `own` compares the head of version `judged` with the new model.
    fn put_in_force(
        &self,
        model: FleetModel,
        parameters: &[f32],
        own: Option<Scores>,
        judged: u64,
    ) -> Result<(), HomeError> {
        let mut shared = self.lock();
        // Under the lock: another trial may have come to its end first.
        if model.version <= self.fleet_version() {
            return Ok(());
        }
        let models = self.models().with(model);
        // Learnt, undone or withdrawn while they were compared: then this says nothing of the head in use.
        let own = own.filter(|_| self.may_still_judge(judged));
        let base = models.newest(&self.shipped);
        let mut next = State {
            second_look: Some(shared.state.next_correction),
            // An update of a run from the old base would be taken for one of the new.
            run: None,
            ..shared.state.clone()
        };
        let has_own = !next.heads.is_empty();
        match own {
            Some(Scores { in_use, other }) if has_own && other > in_use => {
                self.use_fleets(&mut next, models.version(), parameters, in_use, other)?;
            }
            // The base changes under whoever uses it, unless what it was is put into the list.
            Some(Scores { in_use, other }) if !has_own && other < in_use => {
                let (version, old) = self.models().at(0, &self.shipped);
                self.use_fleets(&mut next, version, &old, other, in_use)?;
            }
            // As before: the household's own head, or whatever the base is.
            _ => {}
        }
        // The head in use first: a power cut or a full disk between the two leaves the old base and a head that was chosen.
        self.save_under_key(&mut shared, next)?;
        self.use_list(&shared)?;
        self.drop_run(&mut shared)?;
        self.stores.models.replace(NAME, &models.encode(&self.shipped))?;
        *self.models() = models;
        self.set_base(base);
        self.use_head(shared.state.heads.last());
        if let Err(error) = self.vault.remove(CANDIDATE_NAME) {
            tracing::warn!(%error, "the finished run of the model before stays until a round refuses it");
        }
        Ok(())
    }

    /// Whether what was compared with the head of this version counts: it is in use still, and the household still lets its
    /// corrections be used.
    fn may_still_judge(&self, head_version: u64) -> bool {
        self.head_version() == head_version && self.token::<ImproveMyMirror>().is_ok()
    }

    /// Leaves the fleet: the model that the mirror came with is in force again, and its models are
    /// gone, also from the household's list of heads. Heads of the household's own stay. For a
    /// mirror that comes to another fleet, whose versions are counted anew.
    ///
    /// # Errors
    /// Of the stores; another call does the rest.
    pub fn leave_fleet(&self) -> Result<(), HomeError> {
        // Made for that fleet's rounds. A damaged ledger keeps them as well from being sent to another one.
        match self.discard_waiting() {
            Ok(_) | Err(HomeError::Release(_)) => {}
            Err(error) => return Err(error),
        }
        let mut shared = self.lock();
        let mut next = State { second_look: None, run: None, ..shared.state.clone() };
        let is_theirs = |head: &mut HeadInfo| head.fleet.is_some();
        let theirs: Vec<HeadInfo> = next
            .others
            .extract_if(.., is_theirs)
            .chain(next.heads.extract_if(.., is_theirs))
            .collect();
        self.save_under_key(&mut shared, next)?;
        self.drop_run(&mut shared)?;
        self.vault.remove(CANDIDATE_NAME)?;
        for head in theirs {
            heads::remove(&self.vault, head.number)?;
        }
        self.stores.models.remove(NAME)?;
        *self.models() = Models::default();
        self.set_base(Arc::clone(&self.shipped));
        self.use_head(shared.state.heads.last());
        Ok(())
    }

    /// Puts a model of the fleet into the household's list of heads, so that it is in use and can be undone. `before` and `after` are the
    /// scores of the head that would be in use without that, and of this one.
    fn use_fleets(
        &self,
        next: &mut State,
        version: u64,
        parameters: &[f32],
        before: f64,
        after: f64,
    ) -> Result<(), HomeError> {
        let info = HeadInfo {
            number: next.next_head,
            adopted_at: self.edges.clock.now(),
            base: self.shipped.layout.digest(parameters).to_string(),
            examples: 0,
            before,
            after,
            fleet: Some(version),
        };
        next.next_head += 1;
        self.adopt(next, info, parameters)
    }

    /// Once enough corrections were saved after a switch to a model of the fleet: whether its predecessor would have
    /// done better on them. If so the mirror returns to it. Gives the version that it returned to.
    ///
    /// # Errors
    /// Of the stores or the network.
    pub fn look_again(
        &self,
        trunk: &mut dyn Trunk,
        gate: &dyn Gate,
    ) -> Result<Option<u64>, HomeError> {
        let Some(look) = self.second_look_due(gate) else { return Ok(None) };
        let (previous, parameters) = look.models.at(1, &self.shipped);
        let scores = match look.is_fleets {
            true => self.compare(trunk, &look.judges, &look.in_use, &parameters)?,
            false => None,
        };
        let mut shared = self.lock();
        if !self.is_still_meant(&look, &shared) {
            return Ok(None);
        }
        let next = State { second_look: None, ..shared.state.clone() };
        let Some(worse) = scores.filter(|scores| scores.other > scores.in_use) else {
            self.save(&mut shared, next)?;
            return Ok(None);
        };
        self.return_to(&mut shared, next, previous, &parameters, worse)?;
        tracing::info!("back to model {previous}: {} did worse here", look.models.version());
        Ok(Some(previous))
    }

    /// `None` while nothing is new to judge by, or the device must not compute, or the disk does not give the head in use back.
    fn second_look_due(&self, gate: &dyn Gate) -> Option<SecondLook> {
        let (since, newest) = {
            let shared = self.lock();
            (shared.state.second_look?, shared.state.heads.last().cloned())
        };
        let judges = self.saved_since(since);
        let may_compute = || self.options.capability.pause(&gate.conditions(), None).is_none();
        if judges.len() < ENOUGH_CORRECTIONS || !may_compute() {
            return None;
        }
        let models = self.models().clone();
        let is_fleets = newest.is_none_or(|head| head.fleet == Some(models.version()));
        let in_use = self.readable_head()?;
        let head_version = self.head_version();
        Some(SecondLook { since, judges, models, in_use, head_version, is_fleets })
    }

    /// Deleted, left or replaced while they were compared: then what was seen says nothing, and sealing a state would make a new key.
    fn is_still_meant(&self, look: &SecondLook, shared: &Shared) -> bool {
        shared.state.second_look == Some(look.since)
            && self.models().version() == look.models.version()
            && self.head_version() == look.head_version
    }

    fn return_to(
        &self,
        shared: &mut Shared,
        mut next: State,
        version: u64,
        parameters: &[f32],
        Scores { in_use, other }: Scores,
    ) -> Result<(), HomeError> {
        self.use_fleets(&mut next, version, parameters, in_use, other)?;
        self.save(shared, next)?;
        self.use_list(shared)?;
        self.drop_run(shared)
    }

    fn saved_since(&self, number: u64) -> Vec<u64> {
        let (trained, held_back) = self.lock().corrections.roles();
        trained.into_iter().chain(held_back).filter(|&saved| saved >= number).collect()
    }
}
