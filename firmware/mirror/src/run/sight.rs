//! The vision part: newest picture from the mailbox, through the network, to the display.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use camera::mailbox::Mailbox;
use frame::{FrameBuffer, Orientation};
use home::BaseModel;
use tracing::{debug, info, warn};
use vision::{Parser, Person, VisionError};

use crate::learning::Learning;
use crate::model::{self, ModelSource};
use crate::parsed::Parsed;
use crate::report;
use crate::run::dark::{Dark, NOTICE, is_black};
use crate::run::head::HeadInUse;
use crate::run::seldom::Seldom;
use crate::run::still::Still;
use crate::run::taken::Taken;
use crate::shared::{ModelState, Shared, Topic, count};
use crate::thermal::{Limit, Thermometer};
use crate::timings::Stage;
use crate::view::{PreviewInput, View};

/// What the vision part needs to know.
pub struct Sight {
    /// The mirror's common state.
    pub shared: Arc<Shared>,
    /// Where pictures come from.
    pub mailbox: Arc<Mailbox>,
    /// The network's files and options.
    pub model: ModelSource,
    /// How pictures must be turned.
    pub orientation: Orientation,
    /// Least time between two preview pictures.
    pub preview_interval: Duration,
    /// How hot the board may become.
    pub limit: Limit,
    /// Learning at home, which may give the network another head.
    pub learning: Arc<Learning>,
}

/// Longest wait for a picture before looking whether to stop.
const PATIENCE: Duration = Duration::from_millis(100);

/// Between two pictures before an empty room: whoever comes is seen that much later, and the processor has time for training, or to cool.
const REST: Duration = Duration::from_millis(150);

/// Nobody was seen for so long: the room is empty.
const AWAY: Duration = Duration::from_secs(60);

/// Pictures in a row of another shape before the network's input follows: a folder of mixed pictures is no new camera.
const MISFITS: u64 = 15;

/// After so long without a picture what comes next may show others: nobody is the same person, and no score is steadied.
const PAUSE: Duration = Duration::from_secs(5);

/// Pictures in a row that the network fails on before the mirror says so, a second or two, or some before an empty room: one can be a matter of that picture.
const FAILURES: u64 = 30;

/// While the household's newest head cannot be used.
const EARLIER_HEAD: &str = "The mirror still sees with an earlier head: what it learnt last is not in use yet, or what was deleted still is; if this stays, switch the mirror off and on";

/// Memory that is used again for every picture.
struct Memory {
    view: View,
    preview: PreviewInput,
    /// When the next preview picture is due.
    preview_due: Instant,
    /// Whether the camera sees anything.
    dark: Dark,
    /// Who moves.
    still: Still,
    /// When the last picture was taken by the camera.
    captured_at: Option<Instant>,
    /// Pictures in a row that could not be parsed.
    broken: u64,
    /// Tells of them.
    dropped: Seldom,
    /// Pictures in a row for which another input size of the network would be better.
    misfits: u64,
    /// Size of pictures for which the network could not be loaded.
    refused: Option<(u32, u32)>,
}

impl Memory {
    fn new() -> Memory {
        Memory {
            view: View::new(),
            preview: PreviewInput::new(),
            preview_due: Instant::now(),
            dark: Dark::default(),
            still: Still::default(),
            captured_at: None,
            broken: 0,
            dropped: Seldom::default(),
            misfits: 0,
            refused: None,
        }
    }

    /// Nothing of the last pictures stays, here or in the parser.
    fn forget(&mut self, parser: &mut Parser) {
        if self.captured_at.take().is_some() {
            self.view.clear();
            self.preview.forget();
            (self.dark, self.still) = (Dark::default(), Still::default());
            parser.forget();
        }
    }
}

/// The network, and which of the household's heads it has: another network begins with its own.
struct Network {
    parser: Parser,
    head: HeadInUse,
}

impl Network {
    fn new(parser: Parser) -> Network {
        Network { parser, head: HeadInUse::default() }
    }
}

/// Counts a taken picture when the work on it has ended, however it ends.
struct Done<'a>(&'a Shared);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.counters.taken.fetch_add(1, Ordering::Release);
    }
}

/// Takes what is shown away when the part ends, also by a panic: nobody would renew it.
struct Leaves<'a>(&'a Shared);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        if self.0.is_stopping() {
            return;
        }
        self.0.update_health(|health| {
            if matches!(health.model, ModelState::Ready { .. }) {
                health.model = ModelState::Loading;
            }
        });
        self.0.forget_pictures();
    }
}

impl Sight {
    /// Runs until the mirror stops.
    ///
    /// # Errors
    /// A network that cannot be loaded; the mirror says so, and the supervisor tries again.
    pub fn run(&self) -> Result<()> {
        let _leaves = Leaves(&self.shared);
        let mut network = Network::new(self.load()?);
        self.announce(&network.parser);
        self.offer_to_learning(&network.parser);
        let mut memory = Memory::new();
        let mut thermometer = Thermometer::new(self.limit.clone());
        while !self.shared.is_stopping() {
            let picture = Taken::newest(&self.mailbox, PATIENCE);
            self.go_on(&mut network, picture, &mut memory, &mut thermometer);
            if self.may_rest() {
                self.shared.sleep(REST);
            }
        }
        Ok(())
    }

    /// Whether nobody would miss the pictures of the next moment: a camera has seen nobody for [`AWAY`], nobody watches the preview or
    /// waits for a picture to correct. What is no camera keeps its pace.
    fn may_rest(&self) -> bool {
        let shared = &self.shared;
        let is_empty = shared.uptime() >= AWAY && !shared.person_within(AWAY);
        let is_wanted = shared.viewers.load(Ordering::Relaxed) > 0 || shared.is_asked_to_freeze();
        is_empty && !is_wanted && shared.with_health(|health| health.sensor_open)
    }

    /// With the next picture, or after some time without one.
    fn go_on(
        &self,
        network: &mut Network,
        picture: Option<Taken<'_>>,
        memory: &mut Memory,
        thermometer: &mut Thermometer,
    ) {
        let _done = picture.as_ref().map(|_| Done(&self.shared));
        // Without a picture, too: a board that cools while the camera is off is not to be called hot.
        let too_hot = self.is_too_hot(thermometer);
        if picture.is_none() && !self.shared.may_show() {
            memory.forget(&mut network.parser);
            self.shared.set_notice(Topic::Dark, None);
        }
        let picture = picture.filter(|_| !too_hot);
        if let Some(picture) = &picture {
            self.follow_shape(network, picture, memory);
        }
        self.follow_head(network);
        if let Some(picture) = &picture {
            self.see(&mut network.parser, picture, memory);
        }
    }

    /// At the input size for the pictures that are expected; where that cannot be had, at the model's own.
    fn load(&self) -> Result<Parser> {
        let expected = self.model.parser(self.orientation);
        let loaded = expected.or_else(|error| {
            let own = self.model.clone().for_pictures(None).parser(self.orientation)?;
            warn!("the vision network at its own input size instead: {}", report::describe(&error));
            Ok(own)
        });
        loaded.inspect_err(|error| {
            let reason = report::describe(error);
            self.learning
                .refuse(format!("learning at home waits for the vision network: {reason}"));
            self.fail(reason);
        })
    }

    /// Says why the network cannot be used.
    fn fail(&self, reason: String) {
        let built_in = self.model.is_built_in();
        self.shared.update_health(|health| health.model = ModelState::Failed { reason, built_in });
    }

    /// Says which network runs, and at which input size, rows first.
    fn announce(&self, parser: &Parser) {
        let student = parser.student();
        let grid = student.grid();
        let name = format!("{}, input {} x {}", student.name(), grid.height, grid.width);
        info!("vision network: {name}");
        self.shared.update_health(|health| health.model = ModelState::Ready { name });
    }

    /// Loads the network at another input size when the camera's pictures turn out to have another shape than expected,
    /// or have changed it for good. Pictures wait for that, a second or so. Where it cannot be loaded once more, the
    /// network that is there goes on, with the pictures small in its input.
    fn follow_shape(&self, network: &mut Network, picture: &FrameBuffer, memory: &mut Memory) {
        let layout = picture.frame().layout();
        let size = self.orientation.upright_size(layout.width(), layout.height());
        if model::fits(&network.parser, size) || memory.refused == Some(size) {
            memory.misfits = 0;
            return;
        }
        memory.misfits += 1;
        let first = self.shared.counters.parsed.load(Ordering::Relaxed) == 0;
        if !first && memory.misfits < MISFITS {
            return;
        }
        memory.misfits = 0;
        // While it loads, nobody is to think that the vision part is stuck.
        self.shared.update_health(|health| health.model = ModelState::Loading);
        match self.model.clone().for_pictures(Some(size)).parser(self.orientation) {
            Ok(parser) => {
                // Nothing of the last pictures stays in memory that is freed.
                network.parser.forget();
                *network = Network::new(parser);
            }
            Err(error) => {
                warn!("the vision network's input stays as it is: {}", report::describe(&error));
                memory.refused = Some(size);
            }
        }
        self.announce(&network.parser);
    }

    /// Learning trains the head of the network that is in use here.
    fn offer_to_learning(&self, parser: &Parser) {
        match BaseModel::new(parser.student()).map_err(anyhow::Error::from) {
            Ok(base) => self.learning.offer(base),
            Err(error) => {
                warn!("learning at home: {error:#}");
                self.learning.refuse(report::describe(&error));
            }
        }
    }

    /// Uses the household's newest head, also while no picture comes: one that was erased does not stay in use.
    fn follow_head(&self, network: &mut Network) {
        if let Some(home) = self.learning.home() {
            self.follow(network, home.head_version(), || home.head_trainable());
        }
    }

    fn follow(&self, network: &mut Network, version: u64, numbers: impl FnOnce() -> Vec<f32>) {
        let Network { parser, head } = network;
        match head.follow(parser, version, numbers, Instant::now()) {
            None => {}
            Some(Ok(())) => {
                self.shared.set_notice(Topic::Head, None);
            }
            Some(Err(error)) => match self.shared.set_notice(Topic::Head, Some(EARLIER_HEAD)) {
                true => warn!(
                    "the household's head is not in use yet: {error:#}; the mirror keeps trying"
                ),
                false => debug!("the household's head is not in use yet: {error:#}"),
            },
        }
    }

    /// Gives the picture to whoever wants to correct it.
    fn freeze(&self, parser: &mut Parser, picture: &FrameBuffer) {
        let Some(waiting) = self.shared.take_freeze() else { return };
        match Parsed::of(parser, &picture.frame(), self.orientation) {
            // Whoever asked may have gone away.
            Ok(parsed) => drop(waiting.send(parsed)),
            Err(error) => warn!("no picture to correct: {error}"),
        }
    }

    fn is_too_hot(&self, thermometer: &mut Thermometer) -> bool {
        let now = thermometer.too_hot();
        self.shared.set_notice(Topic::Temperature, thermometer.notice());
        let before = self.shared.with_health(|health| health.too_hot);
        if now != before {
            self.shared.update_health(|health| health.too_hot = now);
        }
        match (before, now) {
            (None, Some(celsius)) => {
                warn!("{celsius:.0} °C: the vision network rests until the board is cooler");
                self.shared.forget_pictures();
            }
            (Some(_), None) => info!("cool enough again"),
            _ => {}
        }
        now.is_some()
    }

    /// Says so where the camera sees nothing for a while.
    fn tell_of_dark(&self, parser: &Parser, at: Instant, dark: &mut Dark) {
        let content = parser.parsing().letterbox.content();
        let black = is_black(parser.pixels(), parser.student().grid(), content);
        self.shared.set_notice(Topic::Dark, dark.note(black, at).then_some(NOTICE));
    }

    /// Parses one picture and hands the result on.
    fn see(&self, parser: &mut Parser, picture: &FrameBuffer, memory: &mut Memory) {
        let before = memory.captured_at.replace(picture.captured_at);
        if before.is_some_and(|at| picture.captured_at.saturating_duration_since(at) > PAUSE) {
            parser.forget();
        }
        let parsing = match parser.parse_taken(&picture.frame(), picture.captured_at) {
            Ok(parsing) => parsing,
            Err(error) => return self.drop_broken(memory, &error),
        };
        let timings = &self.shared.timings;
        timings.record(Stage::Convert, parsing.timings.convert);
        timings.record(Stage::Infer, parsing.timings.infer);
        timings.record(Stage::Parse, parsing.timings.parse);
        memory.view.fill(parsing);
        self.tell_of_dark(parser, picture.captured_at, &mut memory.dark);
        if std::mem::take(&mut memory.broken) >= FAILURES {
            self.announce(parser);
        }
        count(&self.shared.counters.parsed);
        if let Some(home) = self.learning.home() {
            home.count_inference();
        }
        // One from before the camera was switched off is not shown after it was switched on again.
        if picture.captured_at < self.shared.fresh_since()
            || !self.shared.publish_view(&mut memory.view)
        {
            return;
        }
        self.note_people(&parser.parsing().persons, picture.captured_at, &mut memory.still);
        self.freeze(parser, picture);
        if self.preview_is_due(&mut memory.preview_due, Instant::now()) {
            memory.preview.picture.copy_from(picture.frame());
            memory.preview.orientation = self.orientation;
            memory.preview.view.fill(parser.parsing());
            self.shared.publish_preview(&mut memory.preview);
        }
    }

    /// One picture that the network fails on is a matter of that picture; many in a row are one of the network.
    fn drop_broken(&self, memory: &mut Memory, error: &VisionError) {
        count(&self.shared.counters.broken);
        memory.dropped.tell_dropped("vision network", error);
        memory.broken += 1;
        if memory.broken == FAILURES {
            self.fail(format!("it fails on every picture: {error}"));
            self.shared.forget_pictures();
        }
    }

    /// Whoever a camera sees is there; what never moves may be a coat rack, for which training is not to wait.
    fn note_people(&self, people: &[Person], at: Instant, still: &mut Still) {
        let moves = still.anybody_moves(people, at);
        if people.is_empty() || self.shared.with_health(|health| !health.sensor_open) {
            return;
        }
        self.shared.note_person();
        if moves {
            self.shared.note_movement();
        }
    }

    fn preview_is_due(&self, due: &mut Instant, now: Instant) -> bool {
        self.shared.viewers.load(Ordering::Relaxed) > 0 && step(due, now, self.preview_interval)
    }
}

/// Whether something that happens every `interval` is due now, and when it is next. Counted from when it was due and not from
/// when it came: at 15 pictures a second it is 10 times a second all the same. A little early is not late: pictures tremble.
fn step(due: &mut Instant, now: Instant, interval: Duration) -> bool {
    if now + interval / 8 < *due {
        return false;
    }
    *due = (*due + interval).max(now);
    true
}

#[cfg(test)]
mod tests {
    use frame::jpeg::JpegDecoder;

    use super::*;
    use crate::run::{MAILBOX, counting};
    use crate::shared::{CameraState, SwitchedBy};
    use crate::sources::DEMO;
    use crate::testing::{Folder, settings};

    #[test]
    fn what_is_due_ten_times_a_second_comes_ten_times_of_any_pictures() {
        let start = Instant::now();
        for rate in [10, 15, 25, 30, 60] {
            let mut due = start;
            let at = |k: u32| start + Duration::from_secs(10) * k / (10 * rate);
            let sent =
                (0..10 * rate).filter(|k| step(&mut due, at(*k), Duration::from_millis(100)));
            let sent = sent.count();
            assert!((95..=101).contains(&sent), "{rate} pictures a second: {sent} in ten seconds");
        }
    }

    /// A vision part without its thread: the tests say when its pictures were taken.
    struct Seen {
        sight: Sight,
        network: Network,
        memory: Memory,
        thermometer: Thermometer,
    }

    impl Seen {
        fn new() -> Seen {
            let mut settings = settings();
            settings.vision.threads = 1;
            let shared = Arc::new(Shared::new(Instant::now(), None));
            shared.update_health(|health| health.camera = CameraState::On);
            // A sensor that cannot be read, on a board whose owner counts on it.
            let limit = Limit { sensor: Some("/nowhere".into()), celsius: 85.0, wanted: true };
            let sight = Sight {
                shared,
                mailbox: Arc::new(Mailbox::new(MAILBOX)),
                model: ModelSource::new(&settings.vision),
                orientation: Orientation::default(),
                preview_interval: Duration::ZERO,
                limit: limit.clone(),
                learning: Arc::new(Learning::new()),
            };
            let network = Network::new(sight.load().expect("built in"));
            sight.announce(&network.parser);
            Seen { sight, network, memory: Memory::new(), thermometer: Thermometer::new(limit) }
        }

        /// A picture of the demo scene, as if it was taken then.
        fn see(&mut self, picture: &FrameBuffer, at: Instant) {
            let mut buffer = self.sight.mailbox.take_free().expect("free memory");
            buffer.copy_from(picture.frame());
            buffer.captured_at = at;
            self.sight.mailbox.publish(buffer);
            self.go_on();
        }

        fn go_on(&mut self) {
            let Seen { sight, network, memory, thermometer } = self;
            sight.go_on(
                network,
                Taken::newest(&sight.mailbox, Duration::ZERO),
                memory,
                thermometer,
            );
        }

        /// What the display is given: numbers of the people that it should draw.
        fn shown(&self) -> Option<Vec<u32>> {
            let mut view = View::new();
            assert!(
                self.sight.shared.receive_view(&mut view, Duration::ZERO),
                "news for the display"
            );
            Some(view.mask()?.people.iter().map(|person| person.track).collect())
        }

        fn head(&self) -> Vec<f32> {
            self.network.parser.student().head_parameters().trainable()
        }

        fn keeps_a_picture(&self) -> bool {
            self.network.parser.pixels().iter().any(|&byte| byte != 0)
        }
    }

    fn demo_picture() -> FrameBuffer {
        let first = camera::mjpeg::next_picture(DEMO).expect("a clip");
        let mut picture = FrameBuffer::new();
        JpegDecoder::new().decode(&DEMO[first], None, &mut picture).expect("decodes");
        picture
    }

    #[test]
    fn nothing_of_a_picture_is_kept_once_the_camera_is_off() {
        let (mut seen, picture) = (Seen::new(), demo_picture());
        seen.see(&picture, Instant::now());
        assert!(seen.shown().is_some_and(|people| people.len() == 2));
        seen.go_on();
        assert!(seen.keeps_a_picture(), "the next one is steadied by it");
        seen.sight.shared.switch_camera(false, SwitchedBy::Page);
        seen.go_on();
        assert!(!seen.keeps_a_picture());
        assert_eq!((seen.memory.captured_at, seen.memory.view.people()), (None, 0));
    }

    #[test]
    fn a_picture_from_before_the_camera_was_off_is_not_shown_afterwards() {
        let (mut seen, picture) = (Seen::new(), demo_picture());
        let before = Instant::now();
        let shared = Arc::clone(&seen.sight.shared);
        shared.switch_camera(false, SwitchedBy::Page);
        shared.switch_camera(true, SwitchedBy::Page);
        shared.update_health(|health| health.camera = CameraState::On);
        seen.see(&picture, before);
        assert_eq!(seen.shown(), None, "the display is told of the switch alone");
        seen.see(&picture, Instant::now());
        assert!(seen.shown().is_some());
    }

    #[test]
    fn a_picture_of_the_demo_is_not_shown_or_corrected_once_a_camera_takes_its_place() {
        let (mut seen, picture) = (Seen::new(), demo_picture());
        let shared = Arc::clone(&seen.sight.shared);
        let (before, mut waiting) = (Instant::now(), shared.ask_to_freeze().expect("nobody waits"));
        shared.leave_source();
        assert!(waiting.try_recv().is_err(), "whoever waited for one of the demo gets none");
        let mut waiting = shared.ask_to_freeze().expect("nobody waits any more");
        seen.see(&picture, before);
        assert_eq!(seen.shown(), None);
        assert!(waiting.try_recv().is_err());
        seen.see(&picture, Instant::now());
        assert!(seen.shown().is_some() && waiting.try_recv().is_ok());
    }

    #[test]
    fn people_of_the_demo_are_not_in_front_of_the_mirror() {
        let (mut seen, picture) = (Seen::new(), demo_picture());
        let shared = Arc::clone(&seen.sight.shared);
        let is_anybody_there = |seen: &mut Seen| {
            seen.see(&picture, Instant::now());
            assert!(seen.shown().is_some_and(|people| !people.is_empty()));
            shared.person_within(Duration::from_secs(60))
        };
        assert!(!is_anybody_there(&mut seen));
        shared.update_health(|health| health.sensor_open = true);
        assert!(is_anybody_there(&mut seen), "a camera sees them");
    }

    #[test]
    fn the_network_rests_before_an_empty_room_and_for_nobody_else() {
        let mut seen = Seen::new();
        let camera = |started: Instant| {
            let shared = Arc::new(Shared::new(started, None));
            shared.update_health(|health| {
                (health.camera, health.sensor_open) = (CameraState::On, true);
            });
            shared
        };
        seen.sight.shared = camera(Instant::now());
        assert!(!seen.sight.may_rest(), "whoever has just switched it on is there");
        let shared = camera(Instant::now() - AWAY);
        seen.sight.shared = Arc::clone(&shared);
        assert!(seen.sight.may_rest());
        shared.viewers.store(1, Ordering::Relaxed);
        assert!(!seen.sight.may_rest(), "somebody watches");
        shared.viewers.store(0, Ordering::Relaxed);
        let waiting = shared.ask_to_freeze().expect("nobody waits");
        assert!(!seen.sight.may_rest(), "somebody waits for a picture");
        drop(waiting);
        shared.take_freeze();
        assert!(seen.sight.may_rest());
        shared.update_health(|health| health.sensor_open = false);
        assert!(!seen.sight.may_rest(), "a film");
        shared.update_health(|health| health.sensor_open = true);
        seen.see(&demo_picture(), Instant::now());
        assert!(!seen.sight.may_rest(), "somebody is there");
        assert!(REST < PAUSE && REST < AWAY);
    }

    #[test]
    fn training_does_not_wait_for_what_never_moves() {
        let (mut seen, start) = (Seen::new(), Instant::now());
        let bounds = vision::Rect { x: 10, y: 20, width: 40, height: 160 };
        let rack = Person { slot: 1, track: 1, score: 0.9, bounds, pixels: 3000 };
        let mut still = Still::default();
        let mut told = |seconds| {
            // Nobody was noted in this one yet.
            let shared = Arc::new(Shared::new(start, None));
            shared.update_health(|health| health.sensor_open = true);
            seen.sight.shared = Arc::clone(&shared);
            seen.sight.note_people(&[rack], start + Duration::from_secs(seconds), &mut still);
            let ever = Duration::from_secs(3600);
            (shared.person_within(ever), shared.movement_within(ever))
        };
        assert_eq!(told(0), (true, true));
        assert_eq!(told(300), (true, false), "there for the glass all the same");
    }

    #[test]
    fn after_a_pause_nobody_is_taken_for_whoever_was_there_before() {
        let (mut seen, picture, start) = (Seen::new(), demo_picture(), Instant::now());
        let mut people_after = |pause: Duration| {
            seen.see(&picture, start + pause);
            seen.shown().expect("somebody")
        };
        let first = people_after(Duration::ZERO);
        assert_eq!(people_after(PAUSE), first, "the same people");
        let later = people_after(2 * PAUSE + Duration::from_millis(1));
        assert!(!first.is_empty() && later.iter().all(|track| !first.contains(track)));
    }

    /// The network's own working memory is tract's: it is what parsing alone takes.
    #[test]
    fn nothing_is_allocated_outside_the_network() {
        let (mut seen, picture, start) = (Seen::new(), demo_picture(), Instant::now());
        let viewers = &seen.sight.shared.viewers;
        viewers.store(1, Ordering::Relaxed);
        let (mut preview, mut outside) = (PreviewInput::new(), Vec::new());
        for number in 0..12 {
            let alone = counting::during(|| {
                seen.network.parser.parse(&picture.frame()).expect("parses");
            });
            assert!(alone > 0, "the counter counts");
            let at = start + Duration::from_millis(100) * number;
            let all = counting::during(|| seen.see(&picture, at));
            // The preview's thread gives its memory back.
            seen.sight.shared.receive_preview(&mut preview, Duration::ZERO);
            outside.push(all as i64 - alone as i64);
        }
        assert_eq!(outside[8..], [0; 4], "{outside:?}");
    }
    #[test]
    fn a_head_that_cannot_be_used_is_told_until_it_can() {
        let mut seen = Seen::new();
        let shared = Arc::clone(&seen.sight.shared);
        let told =
            || shared.with_health(|health| health.notices.get(Topic::Head).map(str::to_owned));
        let own = seen.head();
        seen.sight.follow(&mut seen.network, 1, || vec![0.5]);
        assert_eq!(told().as_deref(), Some(EARLIER_HEAD));
        let deadline = Instant::now() + Duration::from_secs(60);
        while told().is_some() {
            assert!(Instant::now() < deadline, "{:?}", told());
            seen.sight.follow(&mut seen.network, 1, || own.clone());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn an_erased_head_goes_while_no_picture_comes() {
        let folder = Folder::new("erased");
        let mut seen = Seen::new();
        let options = home::HomeOptions::default();
        seen.sight.learning = Arc::new(Learning::in_folder(folder.path(), options));
        let own = seen.head();
        let learnt: Vec<f32> = own.iter().map(|number| number * 1.5).collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        while seen.head() == own {
            assert!(Instant::now() < deadline, "the other head is not used");
            seen.sight.follow(&mut seen.network, u64::MAX, || learnt.clone());
            std::thread::sleep(Duration::from_millis(5));
        }
        // The stores know of none.
        while seen.head() != own {
            assert!(Instant::now() < deadline, "it stays");
            seen.go_on();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
