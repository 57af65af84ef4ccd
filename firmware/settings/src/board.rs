//! Boards are data: one TOML profile each, in the repository's `board/` folder.

use crate::layers::SettingsError;

/// A board profile: who it is for, and the settings that differ from the defaults there.
#[derive(Clone, Debug)]
pub struct Board {
    /// Short name, as in `--board rpi5`.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Processor architecture as Rust names it, such as `aarch64`.
    pub architecture: String,
    /// Texts of which `/proc/device-tree/model` contains one on this board.
    pub models: Vec<String>,
    /// The profile's settings, without its `[board]` table.
    pub(crate) settings: toml::Table,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBoard {
    name: String,
    description: String,
    architecture: String,
    models: Vec<String>,
}

const PROFILES: [(&str, &str); 5] = [
    ("board/pc.toml", include_str!("../../../board/pc.toml")),
    ("board/rpi5.toml", include_str!("../../../board/rpi5.toml")),
    ("board/rpi4.toml", include_str!("../../../board/rpi4.toml")),
    ("board/rk3588.toml", include_str!("../../../board/rk3588.toml")),
    ("board/virt.toml", include_str!("../../../board/virt.toml")),
];

impl Board {
    /// Reads a profile; `origin` is the file's name for error messages.
    ///
    /// # Errors
    /// Broken TOML, or a missing, unknown or mistyped key in the `[board]` table.
    pub fn parse(origin: &str, text: &str) -> Result<Board, SettingsError> {
        let syntax = |reason: String| SettingsError::Syntax { origin: origin.into(), reason };
        let mut settings: toml::Table =
            text.parse().map_err(|error: toml::de::Error| syntax(error.to_string()))?;
        let raw = settings
            .remove("board")
            .ok_or_else(|| syntax("a board profile needs a [board] table".into()))?;
        let raw: RawBoard = raw.try_into().map_err(|error| syntax(format!("[board]: {error}")))?;
        Ok(Board {
            name: raw.name,
            description: raw.description,
            architecture: raw.architecture,
            models: raw.models,
            settings,
        })
    }

    /// The built-in profile with this name.
    ///
    /// # Errors
    /// [`SettingsError::UnknownBoard`], which lists the names there are.
    pub fn named(name: &str) -> Result<Board, SettingsError> {
        boards()?.into_iter().find(|board| board.name == name).ok_or_else(|| {
            SettingsError::UnknownBoard {
                name: name.into(),
                known: PROFILES.iter().map(|(file, _)| short_name(file)).collect(),
            }
        })
    }

    /// The built-in profile for a device-tree model (`None`: a machine without one), `pc` if none fits.
    ///
    /// # Errors
    /// Only those of the built-in profiles themselves, which a test rules out.
    pub fn detect(device_tree_model: Option<&str>) -> Result<Board, SettingsError> {
        let fits = |board: &Board| device_tree_model.is_some_and(|model| board.is_told_by(model));
        match boards()?.into_iter().find(fits) {
            Some(board) => Ok(board),
            None => Board::named("pc"),
        }
    }

    /// Whether a device-tree model tells this board.
    pub fn is_told_by(&self, device_tree_model: &str) -> bool {
        self.models.iter().any(|part| device_tree_model.contains(part))
    }
}

/// The profiles that are built in.
///
/// # Errors
/// Only for a broken profile in the source tree, which a test rules out.
pub fn boards() -> Result<Vec<Board>, SettingsError> {
    PROFILES.iter().map(|(file, text)| Board::parse(file, text)).collect()
}

fn short_name(file: &str) -> String {
    file.trim_start_matches("board/").trim_end_matches(".toml").into()
}
