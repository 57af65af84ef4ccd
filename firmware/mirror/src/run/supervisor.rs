//! Starts the parts of the mirror, starts a failed one again, and feeds the watchdog.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use sd_notify::NotifyState;
use tracing::{debug, error, info, warn};

use crate::backoff::Backoff;
use crate::report;
use crate::shared::{CameraState, ModelState, Shared, Topic, count};

/// Parts get this long to end by themselves; then the process ends under them.
const STOP_PATIENCE: Duration = Duration::from_millis(800);

/// How often the supervisor looks around.
const TICK: Duration = Duration::from_millis(50);

/// A part, a camera or a display that ran this long before it failed is tried again at once.
pub const STEADY: Duration = Duration::from_secs(60);

/// Panics in a row after which a person is told: starting the part again does not help.
const HOPELESS: u32 = 3;

/// A part's thread panicked; what it said.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
struct Panicked(String);

type Work = dyn Fn() -> Result<()> + Send + Sync;

/// One part: a thread that is started again when it fails.
pub struct Part {
    name: &'static str,
    work: Arc<Work>,
    thread: Option<JoinHandle<Result<()>>>,
    started: Instant,
    backoff: Backoff,
    retry_at: Option<Instant>,
    last_error: String,
    /// In a row, none of them after a steady run.
    panics: u32,
}

impl Part {
    /// A part that runs `work` until it returns: `Ok` when it is done, an error to be tried again.
    pub fn new(name: &'static str, work: impl Fn() -> Result<()> + Send + Sync + 'static) -> Part {
        Part {
            name,
            work: Arc::new(work),
            thread: None,
            started: Instant::now(),
            backoff: Backoff::new(),
            retry_at: Some(Instant::now()),
            last_error: String::new(),
            panics: 0,
        }
    }

    fn start(&mut self) -> std::io::Result<()> {
        let work = Arc::clone(&self.work);
        self.started = Instant::now();
        self.retry_at = None;
        let body = move || {
            std::panic::catch_unwind(AssertUnwindSafe(|| work()))
                .unwrap_or_else(|panic| Err(Panicked(panic_message(&*panic).to_owned()).into()))
        };
        self.thread = Some(std::thread::Builder::new().name(self.name.into()).spawn(body)?);
        Ok(())
    }

    /// The result, once the thread has ended.
    fn ended(&mut self) -> Option<Result<()>> {
        let thread = self.thread.take_if(|thread| thread.is_finished())?;
        let ended = thread.join();
        Some(ended.unwrap_or_else(|_| Err(Panicked("while ending".to_owned()).into())))
    }

    /// Whether it has run long enough to count as well again.
    fn is_steady(&self) -> bool {
        self.thread.is_some() && self.started.elapsed() > STEADY
    }

    /// What a person should know: an error tells of itself where it happens, a panic does not.
    fn notice(&self) -> Option<String> {
        (self.panics >= HOPELESS).then(|| {
            let (name, text) = (self.name, &self.last_error);
            format!("{name} fails again and again ({text}); switch the mirror off and on")
        })
    }

    /// Plans the next attempt. An error is told once, not at every attempt.
    fn failed(&mut self, error: &anyhow::Error) {
        if self.started.elapsed() > STEADY {
            self.backoff.reset();
            self.last_error.clear();
        }
        self.panics = if error.is::<Panicked>() { self.panics + 1 } else { 0 };
        let delay = self.backoff.next_delay();
        let text = report::describe(error);
        let (name, seconds) = (self.name, delay.as_secs_f32());
        if text == self.last_error {
            debug!("{name}: {}; started again in {seconds:.1} s", home::for_journal(&text));
        } else {
            warn!(
                "{name}: {}; started again in {seconds:.1} s; the mirror keeps trying",
                home::for_journal(&text)
            );
        }
        self.last_error = text;
        self.retry_at = Some(Instant::now() + delay);
    }
}

/// What a panic said.
fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

/// Runs the parts until [`Shared::stop`] or until `signal` is set, then waits for them at most
/// [`STOP_PATIENCE`].
///
/// `capture_patience` is the longest time between two pictures of a camera that works.
pub fn supervise(
    shared: &Shared,
    mut parts: Vec<Part>,
    signal: &AtomicBool,
    capture_patience: Duration,
) {
    let mut watchdog = Watchdog::new(capture_patience);
    loop {
        for part in &mut parts {
            tend(shared, part);
        }
        let notice = parts.iter().find_map(Part::notice);
        shared.set_notice(Topic::Program, notice.as_deref());
        watchdog.tick(shared);
        if signal.load(Ordering::Relaxed) {
            info!("stopping");
            shared.stop();
        }
        if shared.sleep(TICK) {
            break;
        }
    }
    tell_systemd(NotifyState::Stopping);
    wait_for_end(&mut parts);
}

/// Starts a part that is due, and looks after one that has ended.
fn tend(shared: &Shared, part: &mut Part) {
    if part.retry_at.is_some_and(|at| at <= Instant::now())
        && let Err(error) = part.start()
    {
        error!("{}: {}", part.name, report::no_thread(&error));
        part.retry_at = Some(Instant::now() + part.backoff.next_delay());
    }
    match part.ended() {
        None if part.is_steady() => part.panics = 0,
        None => {}
        Some(Ok(())) => {
            debug!("{} is done", part.name);
            part.panics = 0;
        }
        Some(Err(_)) if shared.is_stopping() => {}
        Some(Err(error)) => {
            count(&shared.counters.restarts);
            part.failed(&error);
        }
    }
}

fn wait_for_end(parts: &mut [Part]) {
    let deadline = Instant::now() + STOP_PATIENCE;
    while Instant::now() < deadline {
        parts.iter_mut().for_each(|part| drop(part.ended()));
        if parts.iter().all(|part| part.thread.is_none()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    for part in parts.iter().filter(|part| part.thread.is_some()) {
        warn!("{} did not end in time; the process ends without it", part.name);
    }
}

/// Without systemd this does nothing; a systemd that does not listen is its own trouble.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        debug!("systemd was not told: {error}");
    }
}

/// Feeds systemd's watchdog, but only while the mirror does what it should.
struct Watchdog {
    every: Option<Duration>,
    fed: Instant,
    ready: bool,
    progress: Progress,
}

impl Watchdog {
    fn new(capture_patience: Duration) -> Watchdog {
        let now = Instant::now();
        Watchdog {
            // A third of the limit, so that one late tick is no restart.
            every: sd_notify::watchdog_enabled().map(|limit| limit / 3),
            fed: now,
            ready: false,
            progress: Progress::new(now, capture_patience),
        }
    }

    fn tick(&mut self, shared: &Shared) {
        let progressing = self.progress.check(shared, Instant::now());
        if !self.ready && shared.counters.rounds.load(Ordering::Relaxed) > 0 {
            self.ready = true;
            tell_systemd(NotifyState::Ready);
        }
        let Some(every) = self.every else { return };
        if progressing && self.fed.elapsed() >= every {
            self.fed = Instant::now();
            tell_systemd(NotifyState::Watchdog);
        }
    }
}

/// Longest time for a round of the display part, and from a picture to its parsing.
const STUCK: Duration = Duration::from_secs(10);

/// Three things that must go on, and when each last did (or had no reason to).
struct Progress {
    shown: Step,
    captured: Step,
    parsed: Step,
    /// Pictures captured when the last one was parsed: later ones are still to be parsed.
    captured_when_parsed: u64,
    capture_patience: Duration,
}

/// A counter and the moment at which it last moved.
struct Step {
    count: u64,
    moved: Instant,
}

impl Step {
    fn new(now: Instant) -> Step {
        Step { count: 0, moved: now }
    }

    /// Notes the counter; `idle` means that it has no reason to move. True when it just moved.
    fn note(&mut self, count: u64, idle: bool, now: Instant) -> bool {
        let moved = count != self.count;
        if moved || idle {
            *self = Step { count, moved: now };
        }
        moved
    }

    fn is_within(&self, patience: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.moved) < patience
    }
}

impl Progress {
    fn new(now: Instant, capture_patience: Duration) -> Progress {
        let step = || Step::new(now);
        let (shown, captured, parsed) = (step(), step(), step());
        Progress { shown, captured, parsed, captured_when_parsed: 0, capture_patience }
    }

    /// Whether the display part goes round, an open camera delivers, and what it delivers is parsed.
    fn check(&mut self, shared: &Shared, now: Instant) -> bool {
        let value = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &shared.counters;
        let (camera_idle, capture_idle, network_idle) = shared.with_health(|health| {
            let camera_idle = health.camera != CameraState::On;
            let network_idle =
                !matches!(health.model, ModelState::Ready { .. }) || health.too_hot.is_some();
            // What is no sensor has its own pace, and waits for the network.
            let capture_idle = camera_idle || !health.sensor_open;
            (camera_idle, capture_idle, network_idle)
        });
        self.shown.note(value(&counters.rounds), false, now);
        let captured = value(&counters.captured);
        self.captured.note(captured + value(&counters.broken), capture_idle, now);
        let nothing_to_parse = captured == self.captured_when_parsed;
        let idle = nothing_to_parse || camera_idle || network_idle;
        if self.parsed.note(value(&counters.parsed), idle, now) || idle {
            self.captured_when_parsed = captured;
        }
        self.shown.is_within(STUCK, now)
            && self.captured.is_within(self.capture_patience, now)
            && self.parsed.is_within(STUCK, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::SwitchedBy;
    use std::sync::atomic::AtomicU32;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn shared() -> Arc<Shared> {
        Arc::new(Shared::new(Instant::now(), None))
    }

    fn running() -> AtomicBool {
        AtomicBool::new(false)
    }

    #[test]
    fn a_panicking_part_is_started_again() {
        let shared = shared();
        let runs = Arc::new(AtomicU32::new(0));
        let (seen, stop) = (Arc::clone(&runs), Arc::clone(&shared));
        let part = Part::new("test", move || {
            match seen.fetch_add(1, Ordering::SeqCst) {
                0 => panic!("first run"),
                _ => stop.stop(),
            }
            Ok(())
        });
        supervise(&shared, vec![part], &running(), PATIENCE);
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        assert_eq!(shared.counters.restarts.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_person_is_told_of_a_part_that_panics_again_and_again_until_it_is_well() {
        let shared = shared();
        let (runs, seen) = (AtomicU32::new(0), Arc::clone(&shared));
        let told = Arc::new(std::sync::Mutex::new(None));
        let notes = Arc::clone(&told);
        let part = Part::new("test", move || {
            if runs.fetch_add(1, Ordering::SeqCst) < HOPELESS {
                panic!("no luck");
            }
            Ok(())
        });
        let watcher = Part::new("watcher", move || {
            let notice = || seen.with_health(|health| health.notices.first().map(str::to_owned));
            let deadline = Instant::now() + Duration::from_secs(30);
            let wait = |told: bool| {
                while notice().is_some() != told && Instant::now() < deadline {
                    std::thread::sleep(TICK);
                }
            };
            wait(true);
            *crate::shared::lock(&notes) = notice();
            wait(false);
            seen.stop();
            Ok(())
        });
        supervise(&shared, vec![part, watcher], &running(), PATIENCE);
        let text = crate::shared::lock(&told).take().unwrap_or_default();
        assert!(text.contains("test fails again") && text.contains("no luck"), "{text}");
        assert_eq!(shared.with_health(|health| health.notices.first().map(str::to_owned)), None);
    }

    #[test]
    fn a_signal_stops_every_part() {
        let shared = shared();
        let (seen, ended) = (Arc::clone(&shared), Arc::new(AtomicBool::new(false)));
        let end = Arc::clone(&ended);
        let part = Part::new("patient", move || {
            end.store(seen.sleep(Duration::from_secs(30)), Ordering::SeqCst);
            Ok(())
        });
        supervise(&shared, vec![part], &AtomicBool::new(true), PATIENCE);
        // The supervisor itself would go on without a part that does not end.
        assert!(shared.is_stopping() && ended.load(Ordering::SeqCst));
    }

    #[test]
    fn a_part_that_does_not_end_delays_the_stop_only_a_little() {
        let shared = shared();
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let part = Part::new("stubborn", move || {
            std::thread::sleep(Duration::from_secs(60));
            end.store(true, Ordering::SeqCst);
            Ok(())
        });
        shared.stop();
        supervise(&shared, vec![part], &running(), PATIENCE);
        assert!(!ended.load(Ordering::SeqCst), "it was waited for");
    }

    /// Rounds of the supervisor, one every second: whether the watchdog would be fed in each.
    fn fed(seconds: u64, mut round: impl FnMut(u64, &Shared)) -> Vec<bool> {
        let shared = shared();
        shared.update_health(|health| {
            health.camera = CameraState::On;
            health.model = ModelState::Ready { name: "test".into() };
        });
        let start = Instant::now();
        let mut progress = Progress::new(start, PATIENCE);
        (0..seconds)
            .map(|second| {
                round(second, &shared);
                progress.check(&shared, start + Duration::from_secs(second))
            })
            .collect()
    }

    #[test]
    fn the_watchdog_is_fed_while_pictures_are_captured_parsed_and_shown() {
        let all_well = |_: u64, shared: &Shared| {
            count(&shared.counters.captured);
            count(&shared.counters.parsed);
            count(&shared.counters.rounds);
        };
        assert!(fed(60, all_well).iter().all(|fed| *fed));
    }

    #[test]
    fn a_stuck_screen_starves_the_watchdog() {
        let fed = fed(30, |_, shared| {
            count(&shared.counters.captured);
            count(&shared.counters.parsed);
        });
        assert!(fed[5] && !fed[11]);
    }

    #[test]
    fn a_stuck_network_starves_the_watchdog_unless_the_camera_is_off() {
        let stuck = |second: u64, shared: &Shared| {
            count(&shared.counters.rounds);
            // Slower than the supervisor looks.
            if second.is_multiple_of(3) {
                count(&shared.counters.captured);
            }
            if second == 20 {
                shared.update_health(|health| {
                    health.camera = CameraState::Off { by: SwitchedBy::Page }
                });
            }
        };
        let fed = fed(40, stuck);
        assert!(fed[5] && !fed[15]);
        assert!(fed[20..].iter().all(|fed| *fed), "with the camera off nothing is to be parsed");
    }

    #[test]
    fn a_camera_that_hangs_starves_the_watchdog_after_its_own_patience() {
        let hangs = |is_camera: bool| {
            fed(40, move |_, shared: &Shared| {
                shared.update_health(|health| health.sensor_open = is_camera);
                count(&shared.counters.rounds);
            })
        };
        let camera = hangs(true);
        assert!(camera[15] && !camera[25]);
        assert!(hangs(false).iter().all(|fed| *fed), "a file's pictures may be minutes apart");
    }
}
