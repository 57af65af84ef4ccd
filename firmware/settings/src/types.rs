//! What the settings mean: every key of them, typed, with its unit and range. `check` says how they come to be.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// Everything a mirror can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Folder for the mirror's own state; `None`: the usual place for this user.
    pub data_dir: Option<PathBuf>,
    /// Camera and other sources.
    pub camera: CameraSettings,
    /// Network and parsing.
    pub vision: VisionSettings,
    /// What is drawn.
    pub overlay: OverlaySettings,
    /// Where it is drawn.
    pub display: DisplaySettings,
    /// The local page.
    pub page: PageSettings,
    /// Temperature.
    pub thermal: ThermalSettings,
    /// Learning at home.
    pub learning: LearningSettings,
    /// The fleet, if the mirror belongs to one.
    pub fleet: Option<FleetSettings>,
    /// Home Assistant, if the mirror shows itself there.
    pub home_assistant: Option<HomeAssistantSettings>,
}

/// Camera and other sources.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraSettings {
    /// `auto`, `camera`, `demo`, or a path.
    pub source: String,
    /// V4L2 device.
    pub device: PathBuf,
    /// Whether the camera is on at start.
    pub enabled: bool,
    /// Pixel formats, most wanted first; at least one.
    pub formats: Vec<CameraFormat>,
    /// Wanted width in pixels, 32 to 8192.
    pub width: u32,
    /// Wanted height in pixels, 32 to 8192.
    pub height: u32,
    /// Wanted pictures a second, 1 to 120.
    pub rate: u32,
    /// Clockwise turn that puts people upright.
    pub rotation: Turn,
    /// Left-right flip after the turn.
    pub flip: bool,
    /// Longest wait for a picture in milliseconds, 1000 to 60000.
    pub timeout_ms: u64,
    /// Where the camera looks from.
    pub geometry: CameraGeometry,
}

/// A pixel format, by its four characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)] // the characters say it
pub enum CameraFormat {
    Yuyv,
    Nv12,
    Mjpg,
    Rgb3,
}

/// A clockwise turn; in settings 0, 90, 180 or 270 degrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
#[allow(missing_docs)] // the names say it
pub enum Turn {
    None,
    Quarter,
    Half,
    ThreeQuarters,
}

impl TryFrom<i64> for Turn {
    type Error = &'static str;

    fn try_from(degrees: i64) -> Result<Turn, &'static str> {
        match degrees {
            0 => Ok(Turn::None),
            90 => Ok(Turn::Quarter),
            180 => Ok(Turn::Half),
            270 => Ok(Turn::ThreeQuarters),
            _ => Err("no right angle"),
        }
    }
}

/// Where the camera looks from.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraGeometry {
    /// Height of the lens above the floor in metres, 0 to 4.
    pub height_m: f64,
    /// Sideways offset from the screen's middle in metres, positive to the viewer's right, -2 to 2.
    pub offset_m: f64,
    /// Downward tilt in degrees, -60 to 60.
    pub pitch_deg: f64,
    /// Horizontal field of view of the upright picture in degrees, 10 to 170.
    pub field_of_view_deg: f64,
}

/// Network and parsing.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionSettings {
    /// `builtin` or a folder.
    pub model: String,
    /// Threads for the network, 0 (choose) to 64.
    pub threads: usize,
    /// Least score of a person, 0 to 1.
    pub person_score: f32,
    /// Share of the best score at which a more important part wins, 0 to 1.
    pub priority_margin: f32,
    /// Temporal smoothing.
    pub smoothing: bool,
}

/// How the overlay lies on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alignment {
    /// On the person's reflection.
    Reflection,
    /// As the camera sees it.
    Picture,
}

/// What is drawn.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlaySettings {
    /// How the overlay lies on the screen.
    pub alignment: Alignment,
    /// Left and right as a mirror shows them.
    pub mirrored: bool,
    /// Brightness of the parts, 0 to 1.
    pub opacity: f32,
    /// Frames a second in a corner.
    pub show_fps: bool,
}

/// Where it is drawn.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisplaySettings {
    /// Which of them.
    pub kind: DisplayKind,
    /// DRM device.
    pub drm_device: PathBuf,
    /// Frame buffer device.
    pub fbdev_device: PathBuf,
    /// Clockwise turn on the panel.
    pub rotation: Turn,
    /// Width of a window or of headless pictures in pixels, 32 to 8192.
    pub width: u32,
    /// Height of a window or of headless pictures in pixels, 32 to 8192.
    pub height: u32,
    /// Headless: write every n-th picture, 1 and up.
    pub headless_every: u32,
    /// Where the lit area is.
    pub geometry: DisplayGeometry,
}

/// What the mirror draws on; in settings `auto`, `drm`, `fbdev`, `window`, `headless` or `headless:FOLDER`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DisplayKind {
    /// DRM, then fbdev, then a window.
    Auto,
    /// DRM/KMS.
    Drm,
    /// Frame buffer device.
    Fbdev,
    /// Window on an X11 desktop.
    Window,
    /// PNG files in a folder; without a folder nothing is kept.
    Headless(Option<PathBuf>),
}

impl TryFrom<String> for DisplayKind {
    type Error = &'static str;

    fn try_from(text: String) -> Result<DisplayKind, &'static str> {
        match text.as_str() {
            "auto" => Ok(DisplayKind::Auto),
            "drm" => Ok(DisplayKind::Drm),
            "fbdev" => Ok(DisplayKind::Fbdev),
            "window" => Ok(DisplayKind::Window),
            "headless" => Ok(DisplayKind::Headless(None)),
            _ => match text.strip_prefix("headless:") {
                Some(folder) if !folder.is_empty() => {
                    Ok(DisplayKind::Headless(Some(folder.into())))
                }
                _ => Err("no such display"),
            },
        }
    }
}

/// Where the lit area of the screen is.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisplayGeometry {
    /// Width in metres, 0.02 to 5.
    pub width_m: f64,
    /// Height in metres, 0.02 to 5.
    pub height_m: f64,
    /// Height of the lower edge above the floor in metres, 0 to 4.
    pub bottom_m: f64,
}

/// The local page.
#[derive(Clone, Debug, PartialEq)]
pub struct PageSettings {
    /// Whether the page is served.
    pub enabled: bool,
    /// Address for this machine's own browser: 127.0.0.1 or ::1.
    pub listen: SocketAddr,
    /// Address for paired browsers; `None`: the page is for this machine alone.
    pub network: Option<SocketAddr>,
    /// Preview pictures a second, 1 to 30.
    pub preview_rate: u32,
    /// JPEG quality of the preview, 10 to 95.
    pub preview_quality: u8,
}

/// Learning at home.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearningSettings {
    /// Target epsilon over the device's lifetime, 0.001 to 1000.
    pub epsilon: f64,
    /// Probability with which the guarantee may fail, 1e-12 to 0.1.
    pub delta: f64,
    /// Noise divided by clipping norm, 0.5 to 10000.
    pub noise_multiplier: f64,
    /// Releases that the noise is planned for, up to 1000; 0: `noise_multiplier` holds.
    pub lifetime_releases: u64,
    /// What is trained.
    pub parameters: Parameters,
    /// Passes over the corrections, 1 to 100.
    pub epochs: u32,
    /// Corrections at most, 1 to 100000.
    pub corrections: usize,
    /// Mebibytes of all corrections at most, 1 to 100000.
    pub megabytes: u64,
    /// Days that a correction is kept, 7 to 36500.
    pub days: u64,
    /// Mebibytes of the disk that stay free.
    pub free_megabytes: u64,
    /// New corrections that start a run; 0: not by number.
    pub after_corrections: u32,
    /// Minutes after midnight UTC, 0 to 1439. A correction that has waited for a day and a half starts a run at any hour.
    pub night_start: u32,
    /// Length of the window in minutes, 0 to 1440; 0: not at night.
    pub night_minutes: u32,
    /// Parsed pictures that start a run; 0: not by use.
    pub after_pictures: u64,
    /// Seconds without anybody in front of the mirror, 0 to 86400; what has not moved for five minutes is nobody.
    pub idle_s: u64,
    /// Temperature at which training stops, 20 to 120 degrees Celsius; it goes on 5 degrees below.
    pub hottest_celsius: f32,
    /// Share of the processor taken by others at which training stops, 0.05 to 1; it goes on at three quarters of that.
    pub busiest: f32,
    /// Seconds that a run's training steps are planned for, by how long steps took in the runs before, 1 to 86400; judging comes on top.
    pub time_allowed_s: u64,
}

/// Which numbers of the head are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parameters {
    /// Sparse for a household that contributes to a fleet, full for one that does not.
    Auto,
    /// Biases, norms and the class head, whose updates are small.
    Sparse,
    /// The last two decoder layers.
    Full,
}

/// The fleet that the mirror belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetSettings {
    /// Name or address of its broker.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Channel: letters, digits and hyphens.
    pub channel: String,
    /// Folder with what enrolment gave.
    pub folder: PathBuf,
    /// Least number of updates that a round averages, 1 to 1000000.
    pub min_cohort: u32,
    /// Kibibytes of an update at most, 1 to 4096.
    pub max_update_kib: u32,
}

/// Home Assistant's broker.
#[derive(Clone, Debug, PartialEq)]
pub struct HomeAssistantSettings {
    /// Name or address of the home's broker.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The mirror's name there.
    pub name: String,
    /// User and the file with the password, where the broker asks for them.
    pub login: Option<(String, PathBuf)>,
    /// The broker's authority; `None`: without TLS.
    pub authority: Option<PathBuf>,
}

/// Temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct ThermalSettings {
    /// Sensor file; `None`: no sensor.
    pub sensor: Option<PathBuf>,
    /// Limit in degrees Celsius, 40 to 120.
    pub limit_celsius: f64,
}
