//! The base model as training needs it, and the trunk that turns pictures into features.

use learn::edges::Digest;
use learn::head::{HeadLayout, ParameterSpec};
use vision::{GridSize, Student, VisionError};

use crate::error::HomeError;

/// The head that the mirror came with, or that the fleet last gave it. The household's own heads start from it.
#[derive(Clone, Debug)]
pub struct BaseModel {
    /// Names, shapes and places of its numbers.
    pub layout: HeadLayout,
    /// All of its numbers, constants included.
    pub parameters: Vec<f32>,
    /// Digest of its trainable numbers ([`HeadLayout::digest`]); an update belongs to exactly these.
    pub digest: Digest,
    /// The network's input size.
    pub grid: GridSize,
    /// What the network sees around a picture that does not fill its input.
    pub padding: u8,
}

impl BaseModel {
    /// The base of a loaded network.
    ///
    /// # Errors
    /// [`HomeError::Layout`] for a head that this firmware can run and not train.
    pub fn new(student: &Student) -> Result<BaseModel, HomeError> {
        let parameters = student.head_parameters();
        let spec = |info: &vision::ParameterInfo| {
            ParameterSpec::of(&info.name, &info.shape, info.group.as_deref())
        };
        let specs = parameters.layout().iter().map(spec).collect();
        let mask = student.output().mask_size;
        let layout = HeadLayout::new(specs, mask.height, mask.width)?;
        let parameters = parameters.values().to_vec();
        let digest = layout.digest(&parameters);
        let (grid, padding) = (student.grid(), student.padding());
        Ok(BaseModel { layout, parameters, digest, grid, padding })
    }
}

/// The frozen part of the network.
pub trait Trunk {
    /// Queries, memory a, memory b and mask features of a picture: R, G, B planes of 3 x height x width bytes.
    ///
    /// # Errors
    /// [`VisionError::Network`] if the length is wrong or an operator fails.
    fn run(&mut self, pixels: &[u8]) -> Result<[Vec<f32>; 4], VisionError>;
}

impl Trunk for Student {
    fn run(&mut self, pixels: &[u8]) -> Result<[Vec<f32>; 4], VisionError> {
        self.run_trunk(pixels)
    }
}
