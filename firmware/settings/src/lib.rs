//! Configuration: built-in defaults, a board profile, files and the environment, merged key by key
//! and then parsed once into a validated [`Settings`].
//!
//! Nothing here reads a file or the environment: the caller hands texts in ([`Layers`]), so that a
//! test decides what there is to read. `src/defaults.toml` lists and explains every key.

mod board;
mod check;
mod layers;
mod types;

pub use board::{Board, boards};
pub use layers::{Effective, Entry, Layers, SettingsError};
pub use types::{
    Alignment, CameraFormat, CameraGeometry, CameraSettings, DisplayGeometry, DisplayKind,
    DisplaySettings, FleetSettings, HomeAssistantSettings, LearningSettings, OverlaySettings,
    PageSettings, Parameters, Settings, ThermalSettings, Turn, VisionSettings,
};
