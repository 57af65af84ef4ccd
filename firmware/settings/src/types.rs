//! The validated settings: every value here is in its range.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::layers::leaf;

/// A value that cannot be used.
pub(crate) struct BadValue {
    pub key: String,
    pub reason: String,
}

fn bad(key: &str, reason: impl Into<String>) -> BadValue {
    BadValue { key: key.into(), reason: reason.into() }
}

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
    /// Target epsilon over the device's lifetime, above 0 to 1000.
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
    /// Minutes after midnight UTC, 0 to 1439.
    pub night_start: u32,
    /// Length of the window in minutes, 0 to 1440; 0: not at night.
    pub night_minutes: u32,
    /// Parsed pictures that start a run; 0: not by use.
    pub after_pictures: u64,
    /// Seconds without anybody in front of the mirror, 0 to 86400; what has not moved for five minutes is nobody.
    pub idle_s: u64,
    /// Temperature at which training stops, 20 to 120 degrees Celsius.
    pub hottest_celsius: f32,
    /// Share of the processor taken by others at which training stops, 0.05 to 1.
    pub busiest: f32,
    /// Computing time of one run in seconds, 1 to 86400.
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    data_dir: PathBuf,
    camera: CameraSettings,
    vision: VisionSettings,
    overlay: OverlaySettings,
    display: DisplaySettings,
    page: RawPage,
    thermal: RawThermal,
    learning: LearningSettings,
    fleet: RawFleet,
    home_assistant: RawHomeAssistant,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFleet {
    enabled: bool,
    host: String,
    port: u16,
    channel: String,
    folder: PathBuf,
    min_cohort: u32,
    max_update_kib: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHomeAssistant {
    enabled: bool,
    host: String,
    port: u16,
    name: String,
    user: String,
    password_file: PathBuf,
    authority: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPage {
    enabled: bool,
    listen: String,
    access: String,
    network_listen: String,
    preview_rate: u32,
    preview_quality: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawThermal {
    sensor: PathBuf,
    limit_celsius: f64,
}

impl Settings {
    pub(crate) fn from_table(table: &Table) -> Result<Settings, BadValue> {
        check_numbers(table)?;
        check_words(table)?;
        // Layers have checked the shapes.
        let raw: RawSettings =
            table.clone().try_into().map_err(|error: toml::de::Error| bad("", error.message()))?;
        check_names(&raw)?;
        Ok(Settings {
            data_dir: non_empty(raw.data_dir),
            page: page(raw.page)?,
            thermal: ThermalSettings {
                sensor: non_empty(raw.thermal.sensor),
                limit_celsius: raw.thermal.limit_celsius,
            },
            camera: raw.camera,
            vision: raw.vision,
            overlay: raw.overlay,
            display: raw.display,
            learning: raw.learning,
            fleet: fleet(raw.fleet)?,
            home_assistant: home_assistant(raw.home_assistant)?,
        })
    }
}

fn non_empty(path: PathBuf) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then_some(path)
}

/// Smallest and largest value of every number.
const RANGES: &[(&str, f64, f64)] = &[
    ("camera.width", 32.0, 8192.0),
    ("camera.height", 32.0, 8192.0),
    ("camera.rate", 1.0, 120.0),
    ("camera.timeout_ms", 1000.0, 60_000.0),
    ("camera.geometry.height_m", 0.0, 4.0),
    ("camera.geometry.offset_m", -2.0, 2.0),
    ("camera.geometry.pitch_deg", -60.0, 60.0),
    ("camera.geometry.field_of_view_deg", 10.0, 170.0),
    ("vision.threads", 0.0, 64.0),
    ("vision.person_score", 0.0, 1.0),
    ("vision.priority_margin", 0.0, 1.0),
    ("overlay.opacity", 0.0, 1.0),
    ("display.width", 32.0, 8192.0),
    ("display.height", 32.0, 8192.0),
    ("display.headless_every", 1.0, 1_000_000.0),
    ("display.geometry.width_m", 0.02, 5.0),
    ("display.geometry.height_m", 0.02, 5.0),
    ("display.geometry.bottom_m", 0.0, 4.0),
    ("page.preview_rate", 1.0, 30.0),
    ("page.preview_quality", 10.0, 95.0),
    ("thermal.limit_celsius", 40.0, 120.0),
    ("learning.epsilon", 0.001, 1000.0),
    ("learning.delta", 1e-12, 0.1),
    ("learning.noise_multiplier", 0.5, 10_000.0),
    ("learning.lifetime_releases", 0.0, 1_000.0),
    ("learning.epochs", 1.0, 100.0),
    ("learning.corrections", 1.0, 100_000.0),
    ("learning.megabytes", 1.0, 100_000.0),
    ("learning.days", 7.0, 36_500.0),
    ("learning.free_megabytes", 0.0, 1_000_000.0),
    ("learning.after_corrections", 0.0, 100_000.0),
    ("learning.night_start", 0.0, 1439.0),
    ("learning.night_minutes", 0.0, 1440.0),
    ("learning.after_pictures", 0.0, 1_000_000_000.0),
    ("learning.idle_s", 0.0, 86_400.0),
    ("learning.hottest_celsius", 20.0, 120.0),
    ("learning.busiest", 0.05, 1.0),
    ("learning.time_allowed_s", 1.0, 86_400.0),
    ("fleet.port", 1.0, 65_535.0),
    ("fleet.min_cohort", 1.0, 1_000_000.0),
    ("fleet.max_update_kib", 1.0, 4096.0),
    ("home_assistant.port", 1.0, 65_535.0),
];

fn check_numbers(table: &Table) -> Result<(), BadValue> {
    for &(key, least, most) in RANGES {
        let value = leaf(table, key);
        let number = value.and_then(|v| v.as_float().or(v.as_integer().map(|n| n as f64)));
        match number {
            Some(number) if (least..=most).contains(&number) => {}
            _ => return Err(bad(key, format!("it must be {least} to {most}"))),
        }
    }
    check_timeout(table)
}

/// A camera that is as slow as it is asked to be is not to be called silent.
fn check_timeout(table: &Table) -> Result<(), BadValue> {
    let number = |key| leaf(table, key).and_then(Value::as_integer);
    let rate = number("camera.rate").unwrap_or(1).max(1);
    let least = 2000 / rate;
    match number("camera.timeout_ms") {
        Some(timeout) if timeout < least => {
            let text = format!(
                "at camera.rate = {rate} it must be at least {least}, the time of two pictures"
            );
            Err(bad("camera.timeout_ms", text))
        }
        _ => Ok(()),
    }
}

/// Every value that is one of a list, with the list.
fn check_words(table: &Table) -> Result<(), BadValue> {
    let turns = "it must be 0, 90, 180 or 270";
    is_a::<Turn>(table, "camera.rotation", turns)?;
    is_a::<Turn>(table, "display.rotation", turns)?;
    is_a::<Vec<CameraFormat>>(table, "camera.formats", "choose from YUYV, NV12, MJPG, RGB3")?;
    is_a::<Alignment>(table, "overlay.alignment", "choose reflection or picture")?;
    let kinds = "choose auto, drm, fbdev, window, headless or headless:FOLDER";
    is_a::<DisplayKind>(table, "display.kind", kinds)?;
    is_a::<Parameters>(table, "learning.parameters", "choose auto, sparse or full")
}

fn is_a<T: DeserializeOwned>(table: &Table, key: &str, reason: &str) -> Result<(), BadValue> {
    let value = leaf(table, key).cloned();
    match value.map(Value::try_into::<T>) {
        Some(Ok(_)) => Ok(()),
        _ => Err(bad(key, reason)),
    }
}

fn check_names(raw: &RawSettings) -> Result<(), BadValue> {
    if raw.camera.source.is_empty() {
        return Err(bad("camera.source", "it must be auto, camera, demo or a path"));
    }
    for (key, path) in [
        ("camera.device", &raw.camera.device),
        ("display.drm_device", &raw.display.drm_device),
        ("display.fbdev_device", &raw.display.fbdev_device),
    ] {
        if path.as_os_str().is_empty() {
            return Err(bad(key, "it must name a device file"));
        }
    }
    if raw.camera.formats.is_empty() {
        return Err(bad("camera.formats", "name at least one"));
    }
    if raw.vision.model.is_empty() {
        return Err(bad("vision.model", "it must be builtin or a folder"));
    }
    Ok(())
}

/// All of 127.0.0.0/8 is this machine, but the page answers to these two names of it alone.
const OWN: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

fn page(raw: RawPage) -> Result<PageSettings, BadValue> {
    let listen = address("page.listen", &raw.listen)?;
    if !OWN.contains(&listen.ip()) {
        return Err(bad(
            "page.listen",
            "only a loopback address (127.0.0.1 or [::1]) is allowed here: this door asks for no \
             pairing; for the home network set page.access = \"paired\" and page.network_listen",
        ));
    }
    let network = address("page.network_listen", &raw.network_listen)?;
    let network = match raw.access.as_str() {
        "device" => None,
        "paired" if network.port() == listen.port() && listen.port() != 0 => {
            return Err(bad("page.network_listen", "it must have another port than page.listen"));
        }
        "paired" => Some(network),
        _ => return Err(bad("page.access", "choose device or paired")),
    };
    Ok(PageSettings {
        enabled: raw.enabled,
        listen,
        network,
        preview_rate: raw.preview_rate,
        preview_quality: raw.preview_quality,
    })
}

fn fleet(raw: RawFleet) -> Result<Option<FleetSettings>, BadValue> {
    word("fleet.channel", &raw.channel)?;
    if !raw.enabled {
        return Ok(None);
    }
    if raw.host.is_empty() {
        return Err(bad("fleet.host", "name the fleet's broker, or set fleet.enabled = false"));
    }
    let RawFleet { host, port, channel, folder, min_cohort, max_update_kib, .. } = raw;
    Ok(Some(FleetSettings { host, port, channel, folder, min_cohort, max_update_kib }))
}

fn home_assistant(raw: RawHomeAssistant) -> Result<Option<HomeAssistantSettings>, BadValue> {
    word("home_assistant.name", &raw.name)?;
    if !raw.enabled {
        return Ok(None);
    }
    if raw.host.is_empty() {
        let next = "name the home's broker, or set home_assistant.enabled = false";
        return Err(bad("home_assistant.host", next));
    }
    let login = match (raw.user.is_empty(), non_empty(raw.password_file)) {
        (true, None) => None,
        (true, Some(_)) => {
            let next =
                "name the user whose password it is, or leave home_assistant.password_file empty";
            return Err(bad("home_assistant.user", next));
        }
        (false, Some(file)) => Some((raw.user, file)),
        (false, None) => {
            return Err(bad("home_assistant.password_file", "name the file with the password"));
        }
    };
    let (host, port, name) = (raw.host, raw.port, raw.name);
    let authority = non_empty(raw.authority);
    Ok(Some(HomeAssistantSettings { host, port, name, login, authority }))
}

/// A word that may stand in an MQTT topic.
fn word(key: &str, text: &str) -> Result<(), BadValue> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 32 || text.starts_with('-') || !text.chars().all(fits) {
        return Err(bad(key, "use 1 to 32 lower-case letters, digits and hyphens"));
    }
    Ok(())
}

fn address(key: &str, text: &str) -> Result<SocketAddr, BadValue> {
    text.parse().map_err(|_| bad(key, "it must be an address and a port, such as 127.0.0.1:8080"))
}
