//! `manifest.toml`: what a model folder promises, checked before anything is run.

use proto::taxonomy::{PERSON_CLASS, Part};
use serde::Deserialize;

use crate::error::ModelError;
use crate::geometry::GridSize;

/// The only version there is.
const FORMAT_VERSION: u32 = 1;
/// Sides beyond this are not a mirror's network, and would only eat memory.
const MAX_SIDE: usize = 1024;
/// Sides of an input that the graphs are changed to are multiples of this; the exported one was checked at export.
const COARSEST_STRIDE: usize = 32;

/// The manifest of a model folder.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    format_version: u32,
    /// Name of the network.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Licence of the weights.
    pub licence: String,
    /// What they were made from.
    pub provenance: String,
    /// Log of the training run.
    pub training_run: String,
    pub(crate) input: Input,
    class: Vec<Class>,
    pub(crate) trunk: Graph,
    pub(crate) head: Graph,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Input {
    pub height: usize,
    pub width: usize,
    pub padding: u8,
    /// Height and width of other inputs that the graphs serve.
    #[serde(default)]
    other_sizes: Vec<[usize; 2]>,
}

#[derive(Clone, Debug, Deserialize)]
struct Class {
    index: usize,
    name: String,
    ppp: Option<String>,
}

/// One graph file: digest, operators, inputs, outputs, and for the head its parameters.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Graph {
    pub file: String,
    pub sha256: String,
    pub ops: Vec<String>,
    pub input: Vec<TensorInfo>,
    pub output: Vec<TensorInfo>,
    #[serde(default)]
    pub parameter: Vec<ParameterInfo>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct TensorInfo {
    pub name: String,
    pub shape: Vec<usize>,
    pub dtype: String,
}

/// A tensor of the head that a flat parameter vector holds, in the manifest's order.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Name of the initializer in `head.onnx`.
    pub name: String,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
    /// Whether on-device learning may change it.
    pub trainable: bool,
    /// "bias", "norm", "class_head" or "weight"; none for constants.
    pub group: Option<String>,
}

impl ParameterInfo {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Manifest {
    /// Reads and checks a manifest's text.
    ///
    /// # Errors
    /// [`ModelError::Manifest`] naming the line or the entry that is wrong.
    pub fn parse(text: &str) -> Result<Manifest, ModelError> {
        let manifest: Manifest = toml::from_str(text).map_err(|e| wrong(e.to_string().trim()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The input size that the graphs were exported at.
    pub fn grid(&self) -> GridSize {
        GridSize { height: self.input.height, width: self.input.width }
    }

    /// The input size that shows most of an upright picture of `width` x `height` pixels: the one where it is scaled
    /// to the largest. A camera that lies on its side need not waste half of the network's work on borders.
    pub fn grid_for(&self, width: u32, height: u32) -> GridSize {
        let other = self.input.other_sizes.iter();
        let other = other.map(|&[height, width]| GridSize { height, width });
        let scale = |grid: GridSize| {
            f64::min(grid.width as f64 / f64::from(width), grid.height as f64 / f64::from(height))
        };
        // The graphs' own size, unless another is better by more than a rounding.
        other.fold(
            self.grid(),
            |best, grid| {
                if scale(grid) > 1.001 * scale(best) { grid } else { best }
            },
        )
    }

    fn check(&self) -> Result<(), ModelError> {
        if self.format_version != FORMAT_VERSION {
            let found = self.format_version;
            return Err(wrong(format!(
                "format_version is {found}, this mirror reads {FORMAT_VERSION}"
            )));
        }
        let own = [self.input.height, self.input.width];
        check_sides(own, 4)?;
        for &sides in &self.input.other_sizes {
            check_sides(sides, COARSEST_STRIDE)?;
            if sides[0] * sides[1] > own[0] * own[1] {
                return Err(wrong(format!("other_sizes has {sides:?}, more pixels than {own:?}")));
            }
        }
        for part in Part::ALL {
            let index = usize::from(part.index());
            let fits = |c: &Class| {
                c.index == index
                    && c.name == part.name()
                    && c.ppp.as_deref() == Some(part.ppp().name())
            };
            if !self.class.get(index).is_some_and(fits) {
                return Err(wrong(format!(
                    "class {index} is not {} ({})",
                    part.name(),
                    part.ppp().name()
                )));
            }
        }
        let person = self.class.get(PERSON_CLASS);
        if self.class.len() != PERSON_CLASS + 1 || person.is_none_or(|c| c.name != "person") {
            return Err(wrong(format!("class {PERSON_CLASS} must be person, and the last")));
        }
        Ok(())
    }
}

fn check_sides(sides: [usize; 2], multiple: usize) -> Result<(), ModelError> {
    if sides.iter().all(|&side| side > 0 && side <= MAX_SIDE && side.is_multiple_of(multiple)) {
        return Ok(());
    }
    Err(wrong(format!(
        "input of {sides:?} pixels; sides are multiples of {multiple} up to {MAX_SIDE}"
    )))
}

fn wrong(what: impl Into<String>) -> ModelError {
    ModelError::Manifest(what.into())
}
