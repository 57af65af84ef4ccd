//! The files of a model.

use std::borrow::Cow;
use std::path::Path;

use crate::error::ModelError;
use crate::manifest::{Graph, Manifest};

/// The three files of a model.
#[derive(Clone, Debug)]
pub struct ModelFiles<'a> {
    /// Text of `manifest.toml`.
    pub manifest: Cow<'a, str>,
    /// Bytes of `trunk.onnx`.
    pub trunk: Cow<'a, [u8]>,
    /// Bytes of `head.onnx`.
    pub head: Cow<'a, [u8]>,
}

impl ModelFiles<'static> {
    /// Reads a model folder.
    ///
    /// # Errors
    /// [`ModelError::Read`] naming the file that is missing or unreadable.
    pub fn read(folder: &Path) -> Result<ModelFiles<'static>, ModelError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|source| ModelError::Read { path, source })
        };
        let manifest = String::from_utf8(read("manifest.toml")?)
            .map_err(|_| ModelError::Manifest("not a text file".into()))?;
        let named = Manifest::parse(&manifest)?;
        let inside = |graph: &Graph| {
            let plain =
                Path::new(&graph.file).components().count() == 1 && !graph.file.starts_with('.');
            if plain {
                read(&graph.file)
            } else {
                Err(ModelError::Manifest(format!("file {:?}", graph.file)))
            }
        };
        Ok(ModelFiles {
            trunk: inside(&named.trunk)?.into(),
            head: inside(&named.head)?.into(),
            manifest: manifest.into(),
        })
    }
}
