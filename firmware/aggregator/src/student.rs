//! The network that the fleet trains: its frozen trunk, its head's numbers, and how good a head is.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use learn::head::{
    Confusion, Features, HeadLayout, LayoutError, Network, ParameterSpec, SizeError, Target,
    TargetError, TrunkOutput, semantic_labels,
};
use vision::{EngineOptions, ModelError, ModelFiles, Student, VisionError};

use crate::gate::{Gate, GateError};
use crate::households::{Household, HouseholdError, Households};

/// Why the network or a picture cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum StudentError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Vision(#[from] VisionError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Size(#[from] SizeError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Household(#[from] HouseholdError),
    #[error(
        "there is no picture to judge by; the households' folder has none, or gate.pictures is 0"
    )]
    NoPicture,
}

/// What the frozen trunk makes of a picture, and what it should become.
pub struct Example {
    /// The trunk's outputs, prepared for the head.
    pub features: Features<f32>,
    /// The corrected mask.
    pub target: Target<f32>,
}

/// The loaded network.
pub struct Trunk {
    student: Mutex<Student>,
    layout: HeadLayout,
    parameters: Vec<f32>,
    size: (usize, usize),
}

impl Trunk {
    /// Loads a model folder such as `models/student`, with one thread per call.
    pub fn load(folder: &Path) -> Result<Trunk, StudentError> {
        let student = Student::load(&ModelFiles::read(folder)?, &EngineOptions::default())?;
        let head = student.head_parameters();
        let spec = |info: &vision::ParameterInfo| {
            ParameterSpec::of(&info.name, &info.shape, info.group.as_deref())
        };
        let specs = head.layout().iter().map(spec).collect();
        let (grid, mask) = (student.grid(), student.output().mask_size);
        // A head that does not fit is refused.
        let layout = HeadLayout::new(specs, mask.height, mask.width)?;
        let parameters = head.values().to_vec();
        Ok(Trunk {
            layout,
            parameters,
            size: (grid.height, grid.width),
            student: Mutex::new(student),
        })
    }

    /// The head's layout.
    pub fn layout(&self) -> &HeadLayout {
        &self.layout
    }

    /// The head's numbers as the folder has them.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// Runs the trunk on one picture of a household.
    pub fn example(
        &self,
        households: &Households,
        household: &Household,
        picture: usize,
    ) -> Result<Example, StudentError> {
        if households.size != self.size {
            let (expected, actual) = (self.size, households.size);
            return Err(HouseholdError::Size { expected, actual }.into());
        }
        let corrected = households.picture(household, picture)?;
        let outputs = {
            let mut student = self.student.lock().unwrap_or_else(PoisonError::into_inner);
            student.run_trunk(&corrected.pixels)?
        };
        let [queries, memory_a, memory_b, mask_features] = &outputs;
        let trunk = TrunkOutput { queries, memory_a, memory_b, mask_features };
        let features = Features::new(&self.layout, &self.parameters, trunk)?;
        let (height, width) = self.size;
        let target = Target::new(self.layout.shape(), &corrected.labels, height, width)?;
        Ok(Example { features, target })
    }
}

/// Adds a head's answers on some pictures to `confusion`.
pub fn judge(
    layout: &HeadLayout,
    parameters: &[f32],
    examples: &[Example],
    confusion: &mut Confusion,
) -> Result<(), StudentError> {
    let network = Network::new(layout, parameters)?;
    for example in examples {
        let predicted = semantic_labels(layout.shape(), &network.predict(&example.features));
        confusion.add(&example.target.dominant(), &predicted);
    }
    Ok(())
}

/// The public holdout: rendered households that no device has. Pictures are decoded one at a time, so its memory does
/// not grow with the folder.
pub struct Holdout {
    trunk: Trunk,
    households: Households,
    /// Pictures of each household that are looked at.
    each: usize,
}

impl Holdout {
    /// Judges by the last `each` pictures of every household of a folder.
    pub fn new(trunk: Trunk, folder: &Path, each: usize) -> Result<Holdout, StudentError> {
        Ok(Holdout { trunk, households: Households::read(folder)?, each })
    }

    fn judge_all(&self, heads: &[&[f32]]) -> Result<Vec<f64>, StudentError> {
        let mut confusions = vec![Confusion::new(); heads.len()];
        for household in &self.households.households {
            let count = household.pictures();
            for picture in count.saturating_sub(self.each)..count {
                let example = self.trunk.example(&self.households, household, picture)?;
                for (head, confusion) in heads.iter().zip(&mut confusions) {
                    judge(&self.trunk.layout, head, std::slice::from_ref(&example), confusion)?;
                }
            }
        }
        let scores = confusions.iter().map(|confusion| confusion.mean_iou());
        scores.collect::<Option<Vec<f64>>>().ok_or(StudentError::NoPicture)
    }
}

impl Gate for Holdout {
    fn ready(&self) -> Result<(), GateError> {
        let (expected, actual) = (self.trunk.size, self.households.size);
        if expected != actual {
            return Err(StudentError::from(HouseholdError::Size { expected, actual }).into());
        }
        let has_pictures = |household: &Household| household.pictures() > 0;
        if self.each == 0 || !self.households.households.iter().any(has_pictures) {
            return Err(StudentError::NoPicture.into());
        }
        Ok(())
    }

    fn scores(&self, heads: &[&[f32]]) -> Result<Vec<f64>, GateError> {
        Ok(self.judge_all(heads)?)
    }
}
