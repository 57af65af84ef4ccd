//! The network: built in, or from a folder.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use frame::Orientation;
use settings::VisionSettings;
use vision::{EngineOptions, Letterbox, ModelFiles, Parser, ParserOptions, Student};

const MANIFEST: &str = include_str!("../../../models/student/manifest.toml");
const TRUNK: &[u8] = include_bytes!("../../../models/student/trunk.onnx");
const HEAD: &[u8] = include_bytes!("../../../models/student/head.onnx");

/// The folder of the network, where it is not the built-in one.
pub fn folder(settings: &VisionSettings) -> Option<&Path> {
    (settings.model != "builtin").then(|| Path::new(&settings.model))
}

/// Where the network comes from and how it is run.
#[derive(Clone, Debug)]
pub struct ModelSource {
    folder: Option<PathBuf>,
    /// Width and height of the upright pictures that it will see, where they are known.
    picture: Option<(u32, u32)>,
    engine: EngineOptions,
    options: ParserOptions,
}

impl ModelSource {
    /// From the settings in effect.
    pub fn new(settings: &VisionSettings) -> ModelSource {
        ModelSource {
            folder: folder(settings).map(Path::to_owned),
            picture: None,
            engine: EngineOptions { threads: threads(settings.threads) },
            options: ParserOptions {
                person_score: settings.person_score,
                priority_margin: settings.priority_margin,
                smoothing: settings.smoothing,
            },
        }
    }

    /// This network for single pictures, which have no past to be smoothed with.
    pub fn without_smoothing(mut self) -> ModelSource {
        self.options.smoothing = false;
        self
    }

    /// This network at the input size for upright pictures of this width and height; at the model's own where
    /// nothing is known about the pictures.
    pub fn for_pictures(mut self, size: Option<(u32, u32)>) -> ModelSource {
        self.picture = size;
        self
    }

    /// Loads and checks the network, for a camera that must be turned by `orientation`.
    ///
    /// # Errors
    /// A missing file, or one that fails a check; the message names it and the next step.
    pub fn parser(&self, orientation: Orientation) -> Result<Parser> {
        Ok(Parser::new(self.student()?, orientation, &self.options))
    }

    /// Loads and checks the network alone.
    ///
    /// # Errors
    /// As [`ModelSource::parser`].
    pub fn student(&self) -> Result<Student> {
        let files = self.files()?;
        let student = match self.picture {
            None => Student::load(&files, &self.engine),
            Some(size) => Student::load_for(size, &files, &self.engine),
        };
        match &self.folder {
            None => student.context("the built-in network"),
            Some(folder) => {
                student.with_context(|| format!("the vision network in {}", folder.display()))
            }
        }
    }

    /// Whether it came with the program, and not from a folder.
    pub fn is_built_in(&self) -> bool {
        self.folder.is_none()
    }

    /// Its files.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn files(&self) -> Result<ModelFiles<'static>> {
        match &self.folder {
            None => Ok(built_in()),
            Some(folder) => Ok(ModelFiles::read(folder)?),
        }
    }
}

/// Whether a network runs at the input size for upright pictures of this width and height.
pub fn fits(parser: &Parser, (width, height): (u32, u32)) -> bool {
    let student = parser.student();
    student.grid() == student.manifest().grid_for(width, height)
}

/// Networks for single pictures of any shape, each loaded by the first picture that wants it.
pub struct Parsers {
    model: ModelSource,
    loaded: Vec<Parser>,
}

impl Parsers {
    /// With one loaded network, so that one that cannot be used is known before any picture is read.
    ///
    /// # Errors
    /// As [`ModelSource::parser`].
    pub fn new(model: ModelSource) -> Result<Parsers> {
        let loaded = vec![model.parser(Orientation::default())?];
        Ok(Parsers { model, loaded })
    }

    /// How many pixels of the network would show one of an upright picture of this width and height, along a side.
    pub fn scale(&self, (width, height): (u32, u32)) -> f64 {
        let grid = self.loaded[0].student().manifest().grid_for(width, height);
        Letterbox::new(width, height, grid).scale()
    }

    /// The one for upright pictures of this width and height, without a memory of earlier ones.
    ///
    /// # Errors
    /// As [`ModelSource::parser`].
    pub fn fresh(&mut self, size: (u32, u32)) -> Result<&mut Parser> {
        let at = match self.loaded.iter().position(|parser| fits(parser, size)) {
            Some(at) => at,
            None => {
                let model = self.model.clone().for_pictures(Some(size));
                self.loaded.push(model.parser(Orientation::default())?);
                self.loaded.len() - 1
            }
        };
        let parser = &mut self.loaded[at];
        parser.forget();
        Ok(parser)
    }
}

fn built_in() -> ModelFiles<'static> {
    ModelFiles {
        manifest: Cow::Borrowed(MANIFEST),
        trunk: Cow::Borrowed(TRUNK),
        head: Cow::Borrowed(HEAD),
    }
}

/// 0 asks the machine: half of its cores, since capture and drawing need some, but at least one.
fn threads(wanted: usize) -> usize {
    match wanted {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
        threads => threads,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::settings;

    #[test]
    fn every_shape_of_picture_has_a_network_that_is_loaded_once() {
        let mut parsers = Parsers::new(ModelSource::new(&settings().vision)).expect("built in");
        let mut grid = |size| {
            let grid = parsers.fresh(size).expect("built in").student().grid();
            (grid.width, grid.height, parsers.loaded.len())
        };
        assert_eq!(grid((480, 640)), (192, 256, 1));
        assert_eq!(grid((640, 480)), (256, 192, 2));
        assert_eq!(grid((1920, 1080)), (288, 160, 3));
        assert_eq!(grid((320, 240)), (256, 192, 3));
    }
}
