//! Where settings come from on a real machine: files, environment, the board itself.

use std::env::VarError;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use home::HomeError;
use learn::edges::{Clock, SystemClock};
use proto::DeviceId;
use settings::{Board, DisplayKind, Effective, Layers, Settings};
use tracing::warn;
use uplink::tls;

use crate::cli::SettingsArgs;
use crate::fleet::{self, AUTHORITY};
use crate::learning;
use crate::model::{self, ModelSource};
use crate::report::{self, Usage};
use crate::sources::Sources;

/// The settings file of an installed mirror, unless `MIRROR_SYSTEM_FILE` names another: a test on an installed mirror must not
/// join its fleet.
const SYSTEM_FILE: &str = "/etc/mirror/mirror.toml";

/// Variables that name no setting and are ours all the same; the last three are of builds, tests and training.
const NO_SETTINGS: [&str; 5] =
    ["MIRROR_SYSTEM_FILE", "MIRROR_BOARD", "MIRROR_BUILD", "MIRROR_TEST_X11", "MIRROR_ASSETS"];

/// What `board/mirror.service` hides from the service, by ProtectHome and PrivateTmp.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

const DEVICE_TREE_MODEL: &str = "/proc/device-tree/model";

/// Merges defaults, board profile, system file, `--config`, the environment, and then `options`
/// (command-line option, key, value).
///
/// # Errors
/// A file that is no settings file, or the first setting that cannot be used, with exit code 2; a file that the disk does not
/// give, with 1.
pub fn load(args: &SettingsArgs, options: &[(&str, &str, &str)]) -> Result<Effective> {
    load_on(&board(args)?, args, options)
}

/// [`load`] for a board that is known already.
///
/// # Errors
/// As [`load`].
pub fn load_on(
    board: &Board,
    args: &SettingsArgs,
    options: &[(&str, &str, &str)],
) -> Result<Effective> {
    let mut layers = Layers::defaults()?.board(board)?;
    let system = system_file();
    if let Some(text) = read_if_there(&system)? {
        layers = layers.file(&system.display().to_string(), &text)?;
    }
    if let Some(path) = &args.config {
        layers = layers.file(&path.display().to_string(), &read(path)?)?;
    }
    layers = environment(layers)?;
    warn_of_misnamed(&layers);
    for (option, key, value) in options {
        layers = layers.set(option, key, *value)?;
    }
    Ok(layers.finish()?)
}

fn system_file() -> PathBuf {
    std::env::var_os("MIRROR_SYSTEM_FILE").unwrap_or_else(|| SYSTEM_FILE.into()).into()
}

fn environment(layers: Layers) -> Result<Layers> {
    let mut unreadable = None;
    let layers = layers.environment(|name| match std::env::var(name) {
        Ok(text) => Some(text),
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(_)) => {
            unreadable = Some(name.to_owned());
            None
        }
    })?;
    match unreadable {
        Some(name) => {
            let text = format!(
                "environment variable {name} is not UTF-8; a settings file takes the same values"
            );
            Err(Usage(text).into())
        }
        None => Ok(layers),
    }
}

/// A warning and no error, unlike a file's unknown key: another program may own the variable.
fn warn_of_misnamed(layers: &Layers) {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let names = names.filter(|name| !NO_SETTINGS.contains(&name.as_str()));
    for name in layers.misnamed(names) {
        warn!(
            "no setting has the environment variable {name}; `mirror config show` lists them all"
        );
    }
}

/// Refuses values that are valid and of no use, each for a part of the mirror that goes without then: noise and a budget that
/// no release fits, and a name that Home Assistant's topics cannot have. The rest of the mirror runs with them.
///
/// # Errors
/// The first of them, with its origin and the next step.
pub fn check(effective: &Effective) -> Result<()> {
    check_releases(effective)?;
    let home = effective.settings.home_assistant.as_ref();
    if let Some(Err(error)) = home.map(|home| home.name.parse::<DeviceId>()) {
        return Err(effective.refuse("home_assistant.name", error.to_string()).into());
    }
    Ok(())
}

/// Refuses what names a file or a folder that is not there, on this machine and now, a sensor or a device that is not there and that
/// somebody has set, a network whose files cannot be read, what is no broker's authority, a fleet certificate of the mirror's that has
/// ended or is none, and what the service would not see: it may lie on a disk that comes later, so a running mirror tells it and tries
/// again. Without its source a mirror ends and is started anew. Folders that the mirror makes itself need not be there. Nothing is opened
/// to see whether it works: no camera, no display, no connection.
///
/// # Errors
/// The first of them, with its origin and the next step.
pub fn check_files(effective: &Effective) -> Result<()> {
    let settings = &effective.settings;
    if let Err(error) = Sources::new(&settings.camera) {
        return Err(effective.refuse("camera.source", report::describe(&error)).into());
    }
    check_seen(effective, "camera.source", Path::new(&settings.camera.source))?;
    for (key, path) in needed(settings).into_iter().chain(set_devices(effective)) {
        // Whoever may not look may still be somebody else than the service.
        if let Ok(false) = path.try_exists() {
            let reason = "there is no such file or device; put it there, name another, or switch off what needs it";
            return Err(effective.refuse(key, reason.to_owned()).into());
        }
        check_seen(effective, key, path)?;
    }
    if let Err(error) = ModelSource::new(&settings.vision).files() {
        return Err(effective.refuse("vision.model", report::describe(&error)).into());
    }
    made(settings).into_iter().try_for_each(|(key, path)| check_seen(effective, key, path))?;
    if let Some(fleet) = &settings.fleet
        && let Err(error) = fleet::check_certificate(&fleet.folder, SystemClock.now())
    {
        return Err(effective.refuse("fleet.folder", report::describe(&error)).into());
    }
    let authority = settings.home_assistant.as_ref().and_then(|home| home.authority.as_deref());
    authority.map_or(Ok(()), |file| check_authority(effective, "home_assistant.authority", file))
}

/// Refuses what is no PEM file of a broker's authority.
fn check_authority(effective: &Effective, key: &str, file: &Path) -> Result<()> {
    let refuse = |reason: String| Err(effective.refuse(key, reason).into());
    match std::fs::read(file) {
        // Whoever may not read it may still be somebody else than the service.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        Err(error) => refuse(format!("cannot read it: {error}; {}", AUTHORITY.next)),
        Ok(pem) => tls::anonymous(&pem, AUTHORITY)
            .map_or_else(|error| refuse(error.to_string()), |_| Ok(())),
    }
}

/// What the settings name that has to be there, by key.
fn needed(settings: &Settings) -> Vec<(&'static str, &Path)> {
    let home = settings.home_assistant.as_ref();
    let login = home.and_then(|home| home.login.as_ref());
    let authority = home.and_then(|home| home.authority.as_deref());
    let named = [
        ("vision.model", model::folder(&settings.vision)),
        ("fleet.folder", settings.fleet.as_ref().map(|fleet| fleet.folder.as_path())),
        ("home_assistant.password_file", login.map(|(_, file)| file.as_path())),
        ("home_assistant.authority", authority),
    ];
    named.into_iter().filter_map(|(key, path)| Some((key, path?))).collect()
}

/// The sensor and the devices that somebody has set, by key, where anything uses them. The defaults and a board's profile name what
/// many machines have, and not all.
fn set_devices(effective: &Effective) -> Vec<(&'static str, &Path)> {
    let Settings { camera, display, thermal, .. } = &effective.settings;
    let is_camera = ["auto", "camera"].contains(&camera.source.as_str());
    let is_drm = matches!(display.kind, DisplayKind::Auto | DisplayKind::Drm);
    let is_fbdev = matches!(display.kind, DisplayKind::Auto | DisplayKind::Fbdev);
    let named = [
        ("camera.device", is_camera.then_some(camera.device.as_path())),
        ("display.drm_device", is_drm.then_some(display.drm_device.as_path())),
        ("display.fbdev_device", is_fbdev.then_some(display.fbdev_device.as_path())),
        ("thermal.sensor", thermal.sensor.as_deref()),
    ];
    let named = named.into_iter().filter(|(key, _)| effective.is_own(key));
    named.filter_map(|(key, path)| Some((key, path?))).collect()
}

/// The folders that the settings name and a mirror makes, by key.
fn made(settings: &Settings) -> Vec<(&'static str, &Path)> {
    let data = settings.data_dir.as_deref();
    let pictures = match &settings.display.kind {
        DisplayKind::Headless(folder) => folder.as_deref(),
        _ => None,
    };
    let named = [("data_dir", data), ("display.kind", pictures)];
    named.into_iter().filter_map(|(key, path)| Some((key, path?))).collect()
}

/// Refuses a path of the system file, which is the service's, that the service does not see. What is no absolute path may be a
/// word, such as a source's.
fn check_seen(effective: &Effective, key: &str, path: &Path) -> Result<()> {
    let is_service_s = effective.is_of(key, &system_file().display().to_string());
    // What is not there yet has no other name.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let is_hidden = HIDDEN.iter().any(|hidden| real.starts_with(hidden));
    if is_service_s && path.is_absolute() && is_hidden {
        let reason = "the service sees nothing under /home, /root, /run/user, /tmp and /var/tmp, unless a drop-in opens it; put it elsewhere, such as under /var/lib/mirror";
        return Err(effective.refuse(key, reason.to_owned()).into());
    }
    Ok(())
}

fn check_releases(effective: &Effective) -> Result<()> {
    let options = learning::options(&effective.settings.learning)?;
    let (key, reason) = match options.check_releases() {
        Err(HomeError::Options { key, reason }) => (key, reason),
        other => return Ok(other?),
    };
    // The noise and the target do not fit each other; whoever set the target alone looks for it there.
    let by_target = key == "learning.noise_multiplier" && !effective.is_set(key);
    let key = if by_target { "learning.epsilon" } else { key };
    Err(effective.refuse(key, reason).into())
}

/// Reads one settings file over the defaults and the board profile, to see whether it is valid.
///
/// # Errors
/// As [`load`] and [`check`].
pub fn check_file(args: &SettingsArgs, path: &Path) -> Result<()> {
    let layers = Layers::defaults()?.board(&board(args)?)?;
    check(&layers.file(&path.display().to_string(), &read(path)?)?.finish()?)
}

/// The profile asked for, else the one for this machine.
///
/// # Errors
/// A name that no profile has.
pub fn board(args: &SettingsArgs) -> Result<Board> {
    match &args.board {
        Some(name) => Ok(Board::named(name)?),
        None => Ok(Board::detect(device_tree_model().as_deref())?),
    }
}

/// Why [`board`] took this profile, in words.
pub fn why(board: &Board, args: &SettingsArgs) -> String {
    match (&args.board, device_tree_model()) {
        (Some(_), _) => "asked for by --board or MIRROR_BOARD".to_owned(),
        (None, Some(model)) if board.is_told_by(&model) => format!("this board is a {model}"),
        (None, Some(model)) => format!("no profile names this board, {model}; --board chooses"),
        (None, None) => "this machine has no device tree; --board chooses".to_owned(),
    }
}

/// What the device tree calls this board, without the zero byte at its end.
fn device_tree_model() -> Option<String> {
    let text = std::fs::read_to_string(DEVICE_TREE_MODEL).ok()?;
    Some(text.trim_end_matches('\0').trim().to_owned())
}

/// The folder for the mirror's own state: the setting, or the usual place for this user.
pub fn data_dir(configured: Option<&Path>) -> PathBuf {
    if let Some(folder) = configured {
        return folder.to_owned();
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if let Some(state) = absolute("STATE_DIRECTORY") {
        return state; // set by systemd for the service
    }
    if let Some(state) = absolute("XDG_STATE_HOME") {
        return state.join("mirror");
    }
    match absolute("HOME") {
        Some(home) if home != Path::new("/root") => home.join(".local/state/mirror"),
        _ => PathBuf::from("/var/lib/mirror"),
    }
}

/// The part of the data folder that belongs to learning: a folder each for corrections, their key, consent, the
/// privacy ledger (`privacy`), the outbox.
pub fn learning_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("learning")
}

/// The part of the data folder that remembers how far the mirror is with its fleet.
pub fn fleet_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("fleet")
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        let next = match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                "name an existing file, or leave the option out"
            }
            ErrorKind::PermissionDenied => "make it readable for this user",
            ErrorKind::InvalidData | ErrorKind::IsADirectory => "see whether it is a text file",
            // Not for ever, as a worn card may give it the next time: a supervisor is to start the mirror again.
            _ => {
                let file = path.display();
                return anyhow!("cannot read settings file {file}: {error}; look at the disk");
            }
        };
        Usage(format!("cannot read settings file {}: {error}; {next}", path.display())).into()
    })
}

fn read_if_there(path: &Path) -> Result<Option<String>> {
    // Not `exists`, which is false for a folder that may not be read as well: what it forbids would have no effect.
    match std::fs::symlink_metadata(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        _ => read(path).map(Some),
    }
}
