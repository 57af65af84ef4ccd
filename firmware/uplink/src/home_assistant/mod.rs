//! Home Assistant: one device with its entities, on the home's own broker, over a connection of its own.
//!
//! The discovery message follows Home Assistant's MQTT integration, "Device discovery payload": `dev`, `o`, `cmps`.
//! No picture, and nothing of the fleet's protocol, is ever sent here. Taking part is switched *off* at once; switching
//! it *on* from here only asks, and the switch stays off until somebody agrees at the mirror itself.

mod messages;

use std::collections::BTreeSet;
use std::future::Future;
use std::time::{Duration, Instant};

use proto::DeviceId;
use serde_json::Value;

use crate::transport::{Event, Requests, Transport};

pub use messages::Topics;

/// How often the state is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Seconds for which the broker keeps what the mirror said of itself, and Home Assistant believes what it heard. Where the broker loses
/// its power together with the mirror, it has no will to publish.
const LASTS: u32 = 30 * 60;

/// How often it is said again: twice may get lost.
const AGAIN: Duration = Duration::from_secs(10 * 60);

/// The mirror, as Home Assistant is told of it.
pub struct Mirror {
    /// Its name there, another one for every mirror of the home.
    pub device: DeviceId,
    /// Firmware version.
    pub firmware: String,
    /// Whether it belongs to a fleet.
    pub member: bool,
}

/// What the entities show.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Whether the household takes part in the fleet.
    pub takes_part: bool,
    /// Whether somebody asked to take part and the mirror waits for an answer in front of it.
    pub asks: bool,
    /// Whether a sensor is open.
    pub camera_active: bool,
    /// Epsilon spent so far; `None` where the ledger cannot tell. Unit, adjacency, delta and trust stand in `privacy`.
    pub epsilon_spent: Option<f64>,
    /// Epsilon left, 0 where no update fits it any more; `None` where the ledger cannot tell.
    pub epsilon_left: Option<f64>,
    /// Updates that may still leave; `None` where the ledger cannot tell.
    pub updates_left: Option<u64>,
    /// The whole statement, in a sentence.
    pub privacy: String,
    /// Updates that counted; `None` where the ledger cannot tell.
    pub rounds: Option<u64>,
    /// When the last one did, RFC 3339.
    pub last_update: Option<String>,
    /// Model version in use; `None` until the network has loaded.
    pub model: Option<u64>,
    /// Newest model version that is there to install; `None` until the network has loaded.
    pub newest_model: Option<u64>,
}

/// What somebody pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// Stop taking part, now.
    OptOut,
    /// Ask at the mirror whether to take part.
    AskOptIn,
    /// Delete what was learned and collected.
    Delete,
    /// Try the newest model now.
    InstallModel,
}

/// Why nothing is said to Home Assistant, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The broker is not there, or ends the connection, for this reason. It is tried again by itself.
    Away(String),
    /// The broker is not there because of a certificate's time; the text has the next step.
    Untrusted(String),
    /// The broker refuses something. What else is said goes on.
    Denied {
        /// What, and why.
        reason: String,
        /// Whether its access list is the reason.
        is_access: bool,
    },
    /// The first attempt is under way.
    NotYet,
}

/// The mirror, as this module sees it.
pub trait Home: Send {
    /// What to show.
    fn state(&self) -> State;
    /// Does what was pressed.
    fn command(&mut self, command: Command);
    /// How the connection does, told at every look and at every change.
    fn connection(&mut self, state: Result<(), &Trouble>);
}

/// What was last said on this connection.
struct Talk {
    mirror: Mirror,
    topics: Topics,
    connection: Result<(), Trouble>,
    /// Whether discovery and subscriptions are out.
    greeted: bool,
    /// When the broker was last told that the mirror is there.
    present: Option<Instant>,
    /// The state that was told since.
    said: Option<Value>,
    /// Commands that the journal was told on this connection.
    told: BTreeSet<Command>,
}

impl Talk {
    fn new(mirror: Mirror) -> Talk {
        let topics = Topics::new(mirror.device.clone());
        let connection = Err(Trouble::NotYet);
        let told = BTreeSet::new();
        Talk { mirror, topics, connection, greeted: false, present: None, said: None, told }
    }

    /// Whether there is a broker to talk to.
    fn is_connected(&self) -> bool {
        matches!(self.connection, Ok(()) | Err(Trouble::Denied { .. }))
    }

    fn handle(&mut self, event: Event, home: &mut dyn Home) {
        match event {
            Event::Connected => {
                self.connection = Ok(());
                self.begin_anew();
                self.told.clear();
            }
            Event::Disconnected(reason) => self.connection = Err(Trouble::Away(reason)),
            Event::Untrusted(reason) => self.connection = Err(Trouble::Untrusted(reason)),
            Event::Refused { reason, is_access } => {
                if self.connection.is_ok() {
                    self.connection = Err(Trouble::Denied { reason, is_access });
                }
            }
            // A birth that the broker had kept comes with every subscription, and would be answered with another one; a new connection
            // greets anyway. And nobody presses a button that the broker remembers: it would be pressed again at every connection.
            Event::Message { retained: true, .. } | Event::Wake | Event::Stop => {}
            Event::Message { topic, payload, .. } => self.message(&topic, &payload, home),
        }
    }

    fn message(&mut self, topic: &str, payload: &[u8], home: &mut dyn Home) {
        if topic == self.topics.birth() && payload == b"online" {
            // Home Assistant has just started and knows nothing.
            self.begin_anew();
        }
        let Some(command) = self.topics.command(topic, payload) else { return };
        // Whoever may write there may press buttons all day long.
        if self.told.insert(command) {
            tracing::info!(?command, "from Home Assistant");
        }
        home.command(command);
        // Said again even where nothing changed: a switch that stays off must jump back.
        self.said = None;
    }

    fn begin_anew(&mut self) {
        (self.greeted, self.present, self.said) = (false, None, None);
    }

    fn speak(&mut self, home: &dyn Home, now: Instant, out: &mut dyn Requests) {
        if !self.is_connected() {
            return;
        }
        let topics = &self.topics;
        if !self.greeted {
            self.greeted = self.greet(out);
        }
        let is_due = |at| now.saturating_duration_since(at) >= AGAIN;
        if self.present.is_none_or(is_due)
            && out.retain_for(&topics.availability(), b"online".to_vec(), LASTS)
        {
            (self.present, self.said) = (Some(now), None);
        }
        let state = topics.state_payload(&home.state());
        let changed = self.said.as_ref() != Some(&state);
        if changed && out.retain_for(&topics.state(), state.to_string().into_bytes(), LASTS) {
            self.said = Some(state);
        }
    }

    fn greet(&self, out: &mut dyn Requests) -> bool {
        let Mirror { firmware, member, .. } = &self.mirror;
        let discovery = self.topics.discovery_payload(firmware, *member);
        self.topics.filters().iter().all(|filter| out.subscribe(filter))
            && out.publish(&self.topics.discovery(), discovery.to_string().into_bytes(), true)
    }
}

/// Runs until [`Event::Stop`].
pub fn run(
    mirror: Mirror,
    mut home: impl Home,
    mut transport: impl Transport,
) -> impl Future<Output = ()> + Send {
    let mut talk = Talk::new(mirror);
    async move {
        loop {
            match tokio::time::timeout(LOOK, transport.next()).await {
                Ok(Event::Stop) => break,
                Ok(event) => talk.handle(event, &mut home),
                Err(_) => {}
            }
            home.connection(talk.connection.as_ref().copied());
            talk.speak(&home, Instant::now(), &mut transport);
        }
        if talk.is_connected() {
            transport.publish(&talk.topics.availability(), b"offline".to_vec(), true);
        }
        transport.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn topics() -> Topics {
        Topics::new("mirror-17".parse().unwrap())
    }

    fn mirror() -> Mirror {
        Mirror { device: "mirror-17".parse().unwrap(), firmware: "0.1.0".into(), member: true }
    }

    pub(super) fn state() -> State {
        State {
            takes_part: false,
            asks: false,
            camera_active: true,
            epsilon_spent: Some(3.55),
            epsilon_left: Some(4.45),
            updates_left: Some(2),
            privacy: "one household's device over its life; zero-out; delta 1e-5".into(),
            rounds: Some(1),
            last_update: None,
            model: Some(3),
            newest_model: Some(4),
        }
    }

    struct Fake {
        state: State,
        commands: Vec<Command>,
        connections: Vec<Result<(), Trouble>>,
    }

    impl Fake {
        fn new() -> Fake {
            Fake { state: state(), commands: vec![], connections: vec![] }
        }
    }

    impl Home for Fake {
        fn state(&self) -> State {
            self.state.clone()
        }

        fn command(&mut self, command: Command) {
            match command {
                Command::OptOut => self.state.takes_part = false,
                Command::AskOptIn => self.state.asks = true,
                _ => {}
            }
            self.commands.push(command);
        }

        fn connection(&mut self, state: Result<(), &Trouble>) {
            self.connections.push(state.map_err(Trouble::clone));
        }
    }

    /// A connection that has these events, and stops.
    struct Script(std::vec::IntoIter<Event>, Record);

    impl Requests for Script {
        fn publish(&mut self, topic: &str, payload: Vec<u8>, retain: bool) -> bool {
            self.1.publish(topic, payload, retain)
        }

        fn retain_for(&mut self, topic: &str, payload: Vec<u8>, seconds: u32) -> bool {
            self.1.retain_for(topic, payload, seconds)
        }

        fn subscribe(&mut self, filter: &str) -> bool {
            self.1.subscribe(filter)
        }

        fn unsubscribe(&mut self, filter: &str) -> bool {
            self.1.unsubscribe(filter)
        }
    }

    impl Transport for Script {
        async fn next(&mut self) -> Event {
            self.0.next().unwrap_or(Event::Stop)
        }

        async fn close(self) {}
    }

    impl Home for &mut Fake {
        fn state(&self) -> State {
            Fake::state(self)
        }

        fn command(&mut self, command: Command) {
            Fake::command(self, command);
        }

        fn connection(&mut self, state: Result<(), &Trouble>) {
            Fake::connection(self, state);
        }
    }

    /// Topic, payload, and for how many seconds the broker is to keep it, where that ends.
    #[derive(Default)]
    struct Record(Vec<(String, Vec<u8>, Option<u32>)>);

    impl Requests for Record {
        fn publish(&mut self, topic: &str, payload: Vec<u8>, _: bool) -> bool {
            self.0.push((topic.into(), payload, None));
            true
        }

        fn retain_for(&mut self, topic: &str, payload: Vec<u8>, seconds: u32) -> bool {
            self.0.push((topic.into(), payload, Some(seconds)));
            true
        }

        fn subscribe(&mut self, filter: &str) -> bool {
            self.0.push((filter.into(), b"subscribe".to_vec(), None));
            true
        }

        fn unsubscribe(&mut self, _: &str) -> bool {
            true
        }
    }

    fn message(topic: &str, payload: &str) -> Event {
        let payload = payload.as_bytes().to_vec();
        Event::Message { topic: topic.into(), payload, retained: false }
    }

    #[test]
    fn the_home_is_told_why_there_is_no_connection() {
        let refused = Event::Disconnected("bad user name or password".into());
        let reason = "a subscription (NotAuthorized)".to_owned();
        let denied = Event::Refused { reason: reason.clone(), is_access: true };
        let untrusted = Event::Untrusted("ended".into());
        let script = vec![Event::Wake, refused, untrusted, Event::Connected, denied];
        let transport = Script(script.into_iter(), Record::default());
        let mut fake = Fake::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run(mirror(), &mut fake, transport));
        let early = Err(Trouble::NotYet);
        let refused = Err(Trouble::Away("bad user name or password".into()));
        let untrusted = Err(Trouble::Untrusted("ended".into()));
        let denied = Err(Trouble::Denied { reason, is_access: true });
        assert_eq!(fake.connections, [early, refused, untrusted, Ok(()), denied]);
    }

    #[test]
    fn a_command_that_the_broker_kept_is_none() {
        let (mut home, mut talk) = (Fake::new(), Talk::new(mirror()));
        for (name, payload) in [("delete", "PRESS"), ("take_part", "OFF"), ("model", "INSTALL")] {
            let topic = format!("mirror-home/mirror-17/set/{name}");
            let payload = payload.as_bytes().to_vec();
            talk.handle(Event::Message { topic, payload, retained: true }, &mut home);
        }
        assert_eq!(home.commands, []);
        talk.handle(message("mirror-home/mirror-17/set/delete", "PRESS"), &mut home);
        assert_eq!(home.commands, [Command::Delete]);
    }

    #[test]
    fn on_only_asks_and_the_switch_jumps_back_while_off_is_off_at_once() {
        let (mut home, mut out) = (Fake::new(), Record::default());
        let mut talk = Talk::new(mirror());
        let mut step = |event, home: &mut Fake| {
            talk.handle(event, home);
            out.0.clear();
            talk.speak(home, Instant::now(), &mut out);
            let state = out.0.iter().find(|(topic, ..)| topic.ends_with("/state")).cloned();
            state.map(|(_, payload, _)| serde_json::from_slice::<Value>(&payload).unwrap())
        };
        assert!(step(Event::Connected, &mut home).is_some());
        assert_eq!(step(Event::Wake, &mut home), None, "nothing changed");

        let said = step(message("mirror-home/mirror-17/set/take_part", "ON"), &mut home).unwrap();
        assert_eq!((said["take_part"].as_str(), said["asks"].as_str()), (Some("OFF"), Some("ON")));

        home.state.takes_part = true; // agreed at the mirror
        assert_eq!(step(Event::Wake, &mut home).unwrap()["take_part"], "ON");
        let said = step(message("mirror-home/mirror-17/set/take_part", "OFF"), &mut home).unwrap();
        assert_eq!(said["take_part"], "OFF");
        for nonsense in ["", "on", "ON ", "TRUE"] {
            step(message("mirror-home/mirror-17/set/take_part", nonsense), &mut home);
        }
        assert_eq!(home.commands, [Command::AskOptIn, Command::OptOut]);
    }

    #[test]
    fn each_command_is_in_the_journal_once_in_a_connection() {
        let mut home = Fake::new();
        let mut talk = Talk::new(mirror());
        let press = |talk: &mut Talk, home: &mut Fake| {
            for (name, payload) in [("delete", "PRESS"), ("take_part", "OFF")] {
                talk.handle(message(&format!("mirror-home/mirror-17/set/{name}"), payload), home);
            }
        };
        press(&mut talk, &mut home);
        let both = BTreeSet::from([Command::OptOut, Command::Delete]);
        assert_eq!(talk.told, both);
        press(&mut talk, &mut home);
        assert_eq!((&talk.told, home.commands.len()), (&both, 4));
        talk.handle(Event::Connected, &mut home);
        assert_eq!(talk.told, BTreeSet::new(), "what is pressed later is told again");
    }

    #[test]
    fn what_the_mirror_says_of_itself_lapses_and_is_said_again_in_time() {
        let (home, start) = (Fake::new(), Instant::now());
        let mut talk = Talk::new(mirror());
        talk.handle(Event::Connected, &mut Fake::new());
        let mut after = |minutes: u64| {
            let mut out = Record::default();
            talk.speak(&home, start + Duration::from_secs(60 * minutes), &mut out);
            let lasting = out.0.into_iter().filter(|(.., lasts)| lasts.is_some());
            let name = |topic: String| topic.rsplit('/').next().unwrap().to_owned();
            lasting.map(|(topic, _, lasts)| (name(topic), lasts.unwrap())).collect::<Vec<_>>()
        };
        let both = ["availability", "state"].map(|name| (name.to_owned(), LASTS));
        assert_eq!(after(0), both);
        assert!(after(9).is_empty());
        assert_eq!(after(10), both, "although nothing has changed");
        assert!(after(19).is_empty());
        assert_eq!(after(20), both);
        // What the broker keeps no longer, Home Assistant may still have: it forgets it by itself.
        let discovery = topics().discovery_payload("0.1.0", true);
        for reading in ["camera", "asks", "rounds", "privacy"] {
            assert_eq!(discovery["cmps"][reading]["exp_aft"], LASTS, "{reading}");
        }
    }

    #[test]
    fn a_restarted_home_assistant_is_told_everything_again() {
        let (mut home, mut out) = (Fake::new(), Record::default());
        let mut talk = Talk::new(mirror());
        for event in [Event::Connected, message("homeassistant/status", "online")] {
            talk.handle(event, &mut home);
            talk.speak(&home, Instant::now(), &mut out);
        }
        assert_eq!(discoveries(&out), 2);
    }

    #[test]
    fn a_birth_that_the_broker_kept_is_greeted_once() {
        let (mut home, mut out) = (Fake::new(), Record::default());
        let mut talk = Talk::new(mirror());
        let kept = || {
            let (topic, payload) = ("homeassistant/status".into(), b"online".to_vec());
            Event::Message { topic, payload, retained: true }
        };
        // It comes again with every subscription.
        for event in [Event::Connected, kept(), kept()] {
            talk.handle(event, &mut home);
            talk.speak(&home, Instant::now(), &mut out);
        }
        assert_eq!(discoveries(&out), 1);
    }

    fn discoveries(out: &Record) -> usize {
        out.0.iter().filter(|(topic, ..)| topic.ends_with("/config")).count()
    }
}
