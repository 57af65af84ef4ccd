//! From the merged table to [`Settings`]: every value is looked at once, and those out of their range are refused by key.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::layers::leaf;
use crate::types::{
    Alignment, CameraFormat, CameraSettings, DisplayKind, DisplaySettings, FleetSettings,
    HomeAssistantSettings, LearningSettings, OverlaySettings, PageSettings, Parameters, Settings,
    ThermalSettings, Turn, VisionSettings,
};

/// A value that cannot be used.
pub(crate) struct BadValue {
    pub key: String,
    pub reason: String,
}

fn bad(key: &str, reason: impl Into<String>) -> BadValue {
    BadValue { key: key.into(), reason: reason.into() }
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
