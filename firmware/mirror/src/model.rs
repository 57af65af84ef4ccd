//! The network: built in, or from a folder.

use std::borrow::Cow;
use std::path::PathBuf;

use anyhow::{Context, Result};
use frame::Orientation;
use settings::VisionSettings;
use vision::{EngineOptions, ModelFiles, Parser, ParserOptions, Student};

const MANIFEST: &str = include_str!("../../../models/student/manifest.toml");
const TRUNK: &[u8] = include_bytes!("../../../models/student/trunk.onnx");
const HEAD: &[u8] = include_bytes!("../../../models/student/head.onnx");

/// Where the network comes from and how it is run.
#[derive(Clone, Debug)]
pub struct ModelSource {
    folder: Option<PathBuf>,
    engine: EngineOptions,
    options: ParserOptions,
}

impl ModelSource {
    /// From the settings in effect.
    pub fn new(settings: &VisionSettings) -> ModelSource {
        ModelSource {
            folder: (settings.model != "builtin").then(|| PathBuf::from(&settings.model)),
            engine: EngineOptions {
                threads: threads(settings.threads),
                flush_denormals: settings.flush_denormals,
            },
            options: ParserOptions {
                person_score: settings.person_score,
                priority_margin: settings.priority_margin,
                smoothing: settings.smoothing,
            },
        }
    }

    /// The same network for single pictures, which have no past to be smoothed with.
    pub fn without_smoothing(mut self) -> ModelSource {
        self.options.smoothing = false;
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
        let student = Student::load(&self.files()?, &self.engine);
        match &self.folder {
            None => student.context("the built-in network"),
            Some(folder) => student.with_context(|| format!("the network in {}", folder.display())),
        }
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
