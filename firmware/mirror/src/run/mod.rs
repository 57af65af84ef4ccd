//! `mirror run`: every part wired together and supervised.

mod alone;
mod calm;
mod capture;
#[cfg(test)]
pub(crate) mod counting;
mod dark;
mod glass;
mod head;
mod reopen;
mod same;
mod screen;
mod seldom;
mod sight;
mod still;
mod supervisor;
pub mod switch;
mod taken;

use std::fmt::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use camera::mailbox::Mailbox;
use display::{DisplayRequest, DisplaySpec, Rotation};
use frame::Orientation;
use home::HomeOptions;
use overlay::Style;
use settings::{Board, DisplayKind, DisplaySettings, Effective, Settings, Turn};
use signal_hook::consts::{SIGINT, SIGTERM};
use tracing::warn;

use crate::access::Access;
use crate::cli::RunArgs;
use crate::config;
use crate::fleet::{Fleet, HomePart, Member};
use crate::learning::{self, DeviceGate, Learning, Trainer};
use crate::look::Look;
use crate::model::ModelSource;
use crate::page::parse::worker;
use crate::page::preview::Preview;
use crate::page::{self, Page, PageError};
use crate::report;
use crate::shared::{Health, Shared, SwitchedBy, Topic};
use crate::sources::Sources;
use crate::thermal::Limit;

use capture::Capture;
use screen::{Opened, Screen};
use sight::Sight;
use supervisor::{Part, supervise};
use switch::SwitchFile;

/// Pictures between capture and vision: one being filled, one waiting, one being parsed. Each has one of them at most, so that capture,
/// which has none when it asks, always finds one free.
const MAILBOX: usize = 3;

/// Runs the mirror until a signal, a closed window, the end of a file, or `--frames` overlays.
///
/// # Errors
/// Settings that cannot be used; another mirror with the same data folder; neither a display nor a page to be had. Whatever fails
/// later is shown and tried again.
pub fn run(args: &RunArgs, started: Instant) -> Result<()> {
    let board = config::board(&args.settings)?;
    let effective = config::load_on(&board, &args.settings, &options(args))?;
    let settings = &effective.settings;
    if let Err(error) = config::check(&effective) {
        warn!("{}", report::describe(&error));
    }
    let signal = stop_signal()?;
    let sources = Sources::new(&settings.camera)?;
    let (spec, request) = display_of(&settings.display);
    let data = config::data_dir(settings.data_dir.as_deref());
    let _alone = alone::take(&data)?;
    let switch = SwitchFile::new(&data);
    let shared = Arc::new(Shared::new(started, off_by(settings, &switch)));
    if let Err(error) = switch.prepare() {
        warn!("{error}");
        shared.set_notice(Topic::Storage, Some(&error.to_string()));
    }
    let access = Access::closed(&data);
    let page = open_page(settings);
    let display = display::open(&spec, &request);
    report::print(&start_text(&board, &shared, &sources, &display, &page, settings))?;
    let listener = usable(&shared, page, &display)?;
    let capture_patience = 2 * sources.timeout + Duration::from_secs(15);
    let screen = Screen {
        shared: Arc::clone(&shared),
        spec,
        request,
        look: Look::new(settings),
        frames: args.frames,
        stale_after: (2 * sources.timeout).max(Duration::from_secs(5)),
        paired: settings.page.network.is_some(),
        first: Mutex::new(Some(display)),
    };
    let builder = Builder::new(&shared, &effective, &sources, data);
    let parts = builder.parts(sources, screen, switch, access, listener);
    supervise(&shared, parts, &signal, capture_patience);
    Ok(())
}

fn options(args: &RunArgs) -> Vec<(&'static str, &'static str, &str)> {
    let source = args.source.as_deref().map(|value| ("--source", "camera.source", value));
    let display = args.display.as_deref().map(|value| ("--display", "display.kind", value));
    source.into_iter().chain(display).collect()
}

/// A flag that SIGTERM and SIGINT set; the second signal ends the process at once.
fn stop_signal() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
            .context("cannot watch for the stop signal")?;
    }
    Ok(flag)
}

/// Who wants the camera off, if someone does: for whatever opens it beside a running mirror.
pub fn camera_off_by(settings: &Settings) -> Option<SwitchedBy> {
    off_by(settings, &SwitchFile::new(&config::data_dir(settings.data_dir.as_deref())))
}

/// Who wants the camera off, if someone does: the settings, or whoever switched it off before.
fn off_by(settings: &Settings, switch: &SwitchFile) -> Option<SwitchedBy> {
    match (settings.camera.enabled, switch.off_by()) {
        (false, _) => Some(SwitchedBy::Settings),
        (true, Some(_)) if !settings.page.enabled => Some(SwitchedBy::PageClosed),
        (true, by) => by,
    }
}

/// What to open as a display.
pub fn display_of(settings: &DisplaySettings) -> (DisplaySpec, DisplayRequest) {
    let size = (settings.width, settings.height);
    let request = DisplayRequest {
        drm_device: settings.drm_device.clone(),
        fbdev_device: settings.fbdev_device.clone(),
        rotation: rotation(settings.rotation),
        window_size: size,
        headless_size: size,
        headless_every: settings.headless_every,
        ..DisplayRequest::default()
    };
    (spec(&settings.kind), request)
}

fn spec(kind: &DisplayKind) -> DisplaySpec {
    match kind {
        DisplayKind::Auto => DisplaySpec::Auto,
        DisplayKind::Drm => DisplaySpec::Drm,
        DisplayKind::Fbdev => DisplaySpec::Fbdev,
        DisplayKind::Window => DisplaySpec::Window,
        DisplayKind::Headless(folder) => DisplaySpec::Headless(folder.clone()),
    }
}

fn rotation(turn: Turn) -> Rotation {
    match turn {
        Turn::None => Rotation::None,
        Turn::Quarter => Rotation::Clockwise90,
        Turn::Half => Rotation::Half,
        Turn::ThreeQuarters => Rotation::Clockwise270,
    }
}

/// The page's port, or why it cannot be had; `None` when no page is wanted.
fn open_page(settings: &Settings) -> Option<Result<TcpListener, PageError>> {
    settings.page.enabled.then(|| page::listen(settings.page.listen))
}

/// Goes on with a display or a page, whichever there is; with neither nobody would see anything.
fn usable(
    shared: &Shared,
    page: Option<Result<TcpListener, PageError>>,
    display: &Opened,
) -> Result<Option<TcpListener>> {
    match (page, display) {
        (Some(Ok(listener)), _) => Ok(Some(listener)),
        (None, Ok(_)) => Ok(None),
        (None, Err(error)) => bail!("{error}\nand the page is switched off (page.enabled)"),
        (Some(Err(page)), Ok(_)) => {
            warn!("{page}");
            shared.set_notice(Topic::Page, Some(&page.to_string()));
            Ok(None)
        }
        (Some(Err(page)), Err(display)) => bail!("{page}\nand {display}"),
    }
}

/// What the parts of one mirror have in common.
struct Builder<'a> {
    shared: Arc<Shared>,
    learning: Arc<Learning>,
    fleet: Arc<Fleet>,
    model: ModelSource,
    effective: &'a Effective,
    data: PathBuf,
}

impl Builder<'_> {
    fn new<'a>(
        shared: &Arc<Shared>,
        effective: &'a Effective,
        sources: &Sources,
        data: PathBuf,
    ) -> Builder<'a> {
        let model = ModelSource::new(&effective.settings.vision).for_pictures(sources.size());
        let fleet = Fleet::new(effective.settings.fleet.is_some());
        let fleet = Arc::new(fleet.kept_in(&config::fleet_dir(&data), shared));
        let (shared, learning) = (Arc::clone(shared), Arc::new(Learning::new()));
        Builder { shared, learning, fleet, model, effective, data }
    }

    /// All that the settings ask for.
    fn parts(
        &self,
        sources: Sources,
        screen: Screen,
        switch: SwitchFile,
        access: Access,
        listener: Option<TcpListener>,
    ) -> Vec<Part> {
        let (style, orientation) = (screen.look.style(), sources.orientation);
        let mailbox = Arc::new(Mailbox::new(MAILBOX));
        let (shared, pictures) = (Arc::clone(&self.shared), Arc::clone(&mailbox));
        let capture = Capture { shared, mailbox: pictures, sources };
        let mut parts = vec![
            Part::new("display", move || screen.run()),
            self.vision(mailbox, orientation),
            Part::new("camera", move || capture.run()),
        ];
        parts.extend(self.member());
        parts.extend(self.home_assistant());
        parts.extend(self.trainer());
        parts.extend(self.page(style, switch, access, listener));
        parts
    }

    fn vision(&self, mailbox: Arc<Mailbox>, orientation: Orientation) -> Part {
        let settings = &self.effective.settings;
        let limit_keys = ["thermal.sensor", "thermal.limit_celsius"];
        let sight = Sight {
            shared: Arc::clone(&self.shared),
            mailbox,
            model: self.model.clone(),
            orientation,
            preview_interval: Duration::from_secs(1) / settings.page.preview_rate,
            limit: Limit {
                sensor: settings.thermal.sensor.clone(),
                celsius: settings.thermal.limit_celsius,
                wanted: limit_keys.iter().any(|key| self.effective.is_set(key)),
            },
            learning: Arc::clone(&self.learning),
        };
        Part::new("vision", move || sight.run())
    }

    /// The part that talks to the fleet's broker, if the settings name one.
    fn member(&self) -> Option<Part> {
        let member = Member {
            shared: Arc::clone(&self.shared),
            learning: Arc::clone(&self.learning),
            fleet: Arc::clone(&self.fleet),
            settings: self.effective.settings.fleet.clone()?,
            folder: config::fleet_dir(&self.data),
            model: self.model.clone(),
        };
        Some(Part::new("fleet", move || member.run()))
    }

    /// The part that talks to the home's broker, if the settings name one.
    fn home_assistant(&self) -> Option<Part> {
        let home = HomePart {
            shared: Arc::clone(&self.shared),
            learning: Arc::clone(&self.learning),
            fleet: Arc::clone(&self.fleet),
            settings: self.effective.settings.home_assistant.clone()?,
        };
        Some(Part::new("home-assistant", move || home.run()))
    }

    /// The part that trains, unless its settings cannot work; then the mirror goes on without, and says so.
    fn trainer(&self) -> Option<Part> {
        let settings = &self.effective.settings;
        let options = learning::options(&settings.learning).inspect_err(|error| {
            let text = format!("learning at home: {}", report::describe(error));
            warn!("{text}");
            self.shared.set_notice(Topic::Learning, Some(&text));
            self.learning.close(text);
        });
        let idle = Duration::from_secs(settings.learning.idle_s);
        let sensor = settings.thermal.sensor.clone();
        let trainer = Trainer {
            shared: Arc::clone(&self.shared),
            learning: Arc::clone(&self.learning),
            folder: config::learning_dir(&self.data),
            options: HomeOptions { member: self.fleet.is_member(), ..options.ok()? },
            model: self.model.clone(),
            gate: DeviceGate::new(Arc::clone(&self.shared), sensor, idle),
        };
        Some(Part::new("learning", move || trainer.run()))
    }

    /// The page with what works behind it, if it is wanted; without a port of its own it still serves the home network.
    fn page(
        &self,
        style: Style,
        switch: SwitchFile,
        access: Access,
        listener: Option<TcpListener>,
    ) -> Vec<Part> {
        let settings = &self.effective.settings;
        if !settings.page.enabled {
            return Vec::new();
        }
        let (shared, learning) = (Arc::clone(&self.shared), Arc::clone(&self.learning));
        let (queue, worker) = worker::open(shared, learning, self.model.clone());
        let quality = settings.page.preview_quality;
        let preview = Preview { shared: Arc::clone(&self.shared), style, quality };
        let page = Page::new(page::Parts {
            shared: Arc::clone(&self.shared),
            switch,
            settings: self.effective.clone(),
            access,
            learning: Arc::clone(&self.learning),
            fleet: Arc::clone(&self.fleet),
            queue,
        });
        let page = page.on(listener);
        vec![
            Part::new("preview", move || preview.run()),
            Part::new("parse", move || worker.run()),
            Part::new("page", move || page.run()),
        ]
    }
}

/// What the mirror is about to do, for whoever started it.
fn start_text(
    board: &Board,
    shared: &Shared,
    sources: &Sources,
    display: &Opened,
    page: &Option<Result<TcpListener, PageError>>,
    settings: &Settings,
) -> String {
    let mut text = String::from("The mirror is starting. It keeps every picture to itself.\n");
    let camera = match shared.with_health(Health::off_by) {
        None => sources.choose(None).in_words(sources.device()),
        Some(by) => format!("nothing: the camera is switched off {by}"),
    };
    let shown = match display {
        Ok(display) => display.name(),
        Err(_) => "no display; open the page instead".to_owned(),
    };
    let open = |listener: &TcpListener| page::url(listener).ok();
    let page = match page {
        Some(Ok(listener)) => match open(listener) {
            Some(url) => format!("open {url} in a browser on this machine"),
            None => format!("at {}", settings.page.listen),
        },
        Some(Err(error)) => error.to_string(),
        None => "switched off (page.enabled)".to_owned(),
    };
    let Board { name, description, architecture, .. } = board;
    // A service has no command line of its own: the variable goes into a drop-in.
    let unknown = match architecture == std::env::consts::ARCH {
        true => String::new(),
        false => format!(
            "; this machine is none ({architecture} is expected), choose another profile with --board NAME or, for the service, with \
             Environment=MIRROR_BOARD=NAME under [Service] in a drop-in (systemctl edit mirror)"
        ),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  board       {name}: {description}{unknown}");
    let _ = writeln!(text, "  looking at  {camera}\n  showing on  {shown}\n  page        {page}");
    text.push_str("Stop it with Ctrl+C.\n");
    text
}
