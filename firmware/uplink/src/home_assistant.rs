//! Home Assistant: one device with its entities, on the home's own broker, over a connection of its own.
//!
//! The discovery message follows Home Assistant's MQTT integration, "Device discovery payload": `dev`, `o`, `cmps`.
//! No picture, and nothing of the fleet's protocol, is ever sent here. Taking part is switched *off* at once; switching
//! it *on* from here only asks, and the switch stays off until somebody agrees at the mirror itself.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use proto::DeviceId;
use serde_json::{Value, json};

use crate::transport::{Event, Requests, Retained, Transport};

/// Home Assistant's default prefix.
const PREFIX: &str = "homeassistant";

/// How often the state is looked at.
const LOOK: Duration = Duration::from_secs(5);

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

/// The mirror, as this module sees it.
pub trait Home: Send {
    /// What to show.
    fn state(&self) -> State;
    /// Does what was pressed.
    fn command(&mut self, command: Command);
    /// How the connection does, told at every look and at every change: `Err` says why there is none. It is tried again by
    /// itself.
    fn connection(&mut self, state: Result<(), &str>);
}

/// Topics of one mirror.
pub struct Topics {
    device: DeviceId,
}

impl Topics {
    /// Those of `device`.
    pub fn new(device: DeviceId) -> Topics {
        Topics { device }
    }

    fn of(&self, what: &str) -> String {
        format!("mirror-home/{}/{what}", self.device)
    }

    /// Where discovery is published, retained.
    pub fn discovery(&self) -> String {
        format!("{PREFIX}/device/{}/config", self.device)
    }

    /// Where the state is published, retained.
    pub fn state(&self) -> String {
        self.of("state")
    }

    /// `online` or `offline`, retained.
    pub fn availability(&self) -> String {
        self.of("availability")
    }

    /// What the broker says when the connection breaks.
    pub fn will(&self) -> Retained {
        Retained { topic: self.availability(), payload: b"offline".to_vec() }
    }

    /// What is subscribed.
    pub fn filters(&self) -> [String; 2] {
        [self.of("set/+"), format!("{PREFIX}/status")]
    }

    /// The command that a message stands for, if it is one.
    pub fn command(&self, topic: &str, payload: &[u8]) -> Option<Command> {
        let name = topic.strip_prefix(&self.of("set/"))?;
        match (name, payload) {
            ("take_part", b"OFF") => Some(Command::OptOut),
            ("take_part", b"ON") => Some(Command::AskOptIn),
            ("delete", b"PRESS") => Some(Command::Delete),
            ("model", b"INSTALL") => Some(Command::InstallModel),
            _ => None,
        }
    }

    /// The discovery message.
    pub fn discovery_payload(&self, firmware: &str) -> Value {
        let device = self.device.as_str();
        let template = |field: &str| format!("{{{{ value_json.{field} }}}}");
        let entity = |platform: &str, key: &str, name: &str, more: Value| {
            let mut entity = json!({
                "p": platform,
                "name": name,
                "uniq_id": format!("{device}_{key}"),
            });
            if let (Some(entity), Value::Object(more)) = (entity.as_object_mut(), more) {
                entity.extend(more);
            }
            entity
        };
        let sensor = |key: &str, name: &str, more: Value| {
            let mut entity = entity("sensor", key, name, more);
            entity["val_tpl"] = template(key).into();
            entity["stat_t"] = self.state().into();
            entity
        };
        let measured =
            |unit: &str| json!({"stat_cla": "measurement", "unit_of_meas": unit, "sug_dsp_prc": 2});
        json!({
            "dev": {"ids": [device], "name": "Mirror", "mdl": "Fitness mirror", "sw": firmware},
            "o": {"name": "mirror", "sw": firmware},
            "avty": [{"t": self.availability()}],
            "qos": 1,
            "cmps": {
                "take_part": entity("switch", "take_part", "Take part in the fleet", json!({
                    "stat_t": self.state(),
                    "val_tpl": template("take_part"),
                    "cmd_t": self.of("set/take_part"),
                    "opt": false,
                    "ic": "mdi:account-group",
                })),
                "asks": entity("binary_sensor", "asks", "Waits for an answer at the mirror", json!({
                    "stat_t": self.state(),
                    "val_tpl": template("asks"),
                    "ent_cat": "diagnostic",
                })),
                "camera": entity("binary_sensor", "camera", "Camera active", json!({
                    "stat_t": self.state(),
                    "val_tpl": template("camera"),
                    "dev_cla": "running",
                })),
                "epsilon_spent": sensor("epsilon_spent", "Epsilon spent", measured("ε")),
                "epsilon_left": sensor("epsilon_left", "Epsilon left", measured("ε")),
                "updates_left": sensor("updates_left", "Updates left", json!({"stat_cla": "measurement"})),
                "privacy": sensor("privacy", "Privacy statement", json!({"ent_cat": "diagnostic"})),
                "rounds": sensor("rounds", "Rounds contributed", json!({"stat_cla": "total_increasing"})),
                "last_update": sensor("last_update", "Last update", json!({"dev_cla": "timestamp"})),
                "model": sensor("model", "Model version", json!({"ent_cat": "diagnostic"})),
                "delete": entity("button", "delete", "Delete what was learned", json!({
                    "cmd_t": self.of("set/delete"),
                    "ent_cat": "config",
                    "ic": "mdi:delete-forever",
                })),
                "model_update": entity("update", "model_update", "Model", json!({
                    "stat_t": self.state(),
                    // Home Assistant takes no null for a version, and passes over an empty object.
                    "val_tpl": "{{ ({'installed_version': value_json.model, 'latest_version': value_json.newest_model} if value_json.model else {}) | to_json }}",
                    "cmd_t": self.of("set/model"),
                    "pl_inst": "INSTALL",
                })),
            },
        })
    }

    /// The state message. Home Assistant takes a privacy statement of at most 255 characters.
    pub fn state_payload(&self, state: &State) -> Value {
        let switch = |on: bool| if on { "ON" } else { "OFF" };
        json!({
            "take_part": switch(state.takes_part),
            "asks": switch(state.asks),
            "camera": switch(state.camera_active),
            "epsilon_spent": state.epsilon_spent,
            "epsilon_left": state.epsilon_left,
            "updates_left": state.updates_left,
            "privacy": state.privacy.chars().take(255).collect::<String>(),
            "rounds": state.rounds,
            "last_update": state.last_update,
            "model": state.model.map(|version| version.to_string()),
            "newest_model": state.newest_model.map(|version| version.to_string()),
        })
    }
}

/// What was last said on this connection.
struct Talk {
    topics: Topics,
    firmware: String,
    /// Or why there is no connection.
    connected: Result<(), String>,
    /// What the broker has refused on this connection. What else is said goes on.
    denied: Option<String>,
    greeted: bool,
    said: Option<Value>,
    /// Commands that the journal was told on this connection.
    told: BTreeSet<Command>,
}

impl Talk {
    fn new(topics: Topics, firmware: String) -> Talk {
        let connected = Err("no answer yet".to_owned());
        let told = BTreeSet::new();
        Talk { topics, firmware, connected, denied: None, greeted: false, said: None, told }
    }

    fn connection(&self) -> Result<(), &str> {
        match (&self.connected, &self.denied) {
            (Ok(()), None) => Ok(()),
            (Err(reason), _) | (Ok(()), Some(reason)) => Err(reason),
        }
    }

    fn handle(&mut self, event: Event, home: &mut dyn Home) {
        match event {
            Event::Connected => {
                (self.connected, self.greeted, self.said) = (Ok(()), false, None);
                self.denied = None;
                self.told.clear();
            }
            Event::Disconnected(reason) => self.connected = Err(reason),
            Event::Refused(reason) => {
                self.denied.get_or_insert(reason);
            }
            Event::Message { topic, payload, retained } => {
                // Home Assistant has just started and knows nothing. A birth that the broker had kept comes with every
                // subscription, and would be answered with another one; a new connection greets anyway.
                let born = topic == format!("{PREFIX}/status") && payload == b"online";
                let restarted = born && !retained;
                self.greeted &= !restarted;
                self.said = self.said.take().filter(|_| !restarted);
                let command = self.topics.command(&topic, &payload);
                // Nobody presses a button that the broker remembers: it would be pressed again at every connection.
                if let Some(command) = command.filter(|_| !retained) {
                    // Whoever may write there may press buttons all day long.
                    if self.told.insert(command) {
                        tracing::info!(?command, "from Home Assistant");
                    }
                    home.command(command);
                    // Said again even where nothing changed: a switch that stays off must jump back.
                    self.said = None;
                }
            }
            Event::Wake | Event::Stop => {}
        }
    }

    fn speak(&mut self, home: &dyn Home, out: &mut dyn Requests) {
        if self.connected.is_err() {
            return;
        }
        let topics = &self.topics;
        if !self.greeted {
            let discovery = topics.discovery_payload(&self.firmware).to_string().into_bytes();
            self.greeted = topics.filters().iter().all(|filter| out.subscribe(filter))
                && out.publish(&topics.discovery(), discovery, true)
                && out.publish(&topics.availability(), b"online".to_vec(), true);
        }
        let state = topics.state_payload(&home.state());
        let changed = self.said.as_ref() != Some(&state);
        if changed && out.publish(&topics.state(), state.to_string().into_bytes(), true) {
            self.said = Some(state);
        }
    }
}

/// Runs until [`Event::Stop`].
pub fn run(
    device: DeviceId,
    firmware: String,
    mut home: impl Home,
    mut transport: impl Transport,
) -> impl Future<Output = ()> + Send {
    let topics = Topics::new(device);
    let mut talk = Talk::new(topics, firmware);
    async move {
        loop {
            match tokio::time::timeout(LOOK, transport.next()).await {
                Ok(Event::Stop) => break,
                Ok(event) => talk.handle(event, &mut home),
                Err(_) => {}
            }
            home.connection(talk.connection());
            talk.speak(&home, &mut transport);
        }
        if talk.connected.is_ok() {
            transport.publish(&talk.topics.availability(), b"offline".to_vec(), true);
        }
        transport.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys that Home Assistant's documentation lists, in their short form, for what is used here.
    const COMMON: [&str; 7] = ["p", "name", "uniq_id", "ic", "ent_cat", "dev_cla", "val_tpl"];

    fn documented(platform: &str) -> (&'static [&'static str], &'static [&'static str]) {
        // (required, optional)
        match platform {
            "switch" => (&["cmd_t"], &["stat_t", "opt", "pl_on", "pl_off", "ret"]),
            "binary_sensor" => (&["stat_t"], &["pl_on", "pl_off", "exp_aft", "off_dly"]),
            "sensor" => (&["stat_t"], &["stat_cla", "unit_of_meas", "sug_dsp_prc", "exp_aft"]),
            "button" => (&["cmd_t"], &["pl_prs", "ret"]),
            "update" => (&[], &["stat_t", "cmd_t", "pl_inst", "l_ver_t", "l_ver_tpl", "ret"]),
            other => panic!("{other} is not among the platforms used here"),
        }
    }

    fn topics() -> Topics {
        Topics::new("mirror-17".parse().unwrap())
    }

    #[test]
    fn discovery_is_what_home_assistant_documents() {
        let payload = topics().discovery_payload("0.1.0");
        assert!(payload["o"]["name"].is_string() && payload["dev"]["ids"][0] == "mirror-17");
        let components = payload["cmps"].as_object().unwrap();
        let mut ids = BTreeSet::new();
        for (key, entity) in components {
            let (required, optional) = documented(entity["p"].as_str().unwrap());
            let entity = entity.as_object().unwrap();
            for needed in required.iter().chain(&["p", "uniq_id"]) {
                assert!(entity.contains_key(*needed), "{key} lacks {needed}");
            }
            for (field, _) in entity {
                let field = field.as_str();
                let known =
                    [&COMMON[..], required, optional].iter().any(|set| set.contains(&field));
                assert!(known, "{key} has {field}");
            }
            assert!(ids.insert(entity["uniq_id"].to_string()), "{key} has another's id");
        }
        let text = payload.to_string();
        assert!(!text.contains("camera.mqtt") && !text.contains("\"image\""));
        assert!(text.len() < 8192, "{}", text.len());
    }

    #[test]
    fn every_template_names_a_field_of_the_state() {
        let state = state();
        let fields = topics().state_payload(&state);
        for entity in topics().discovery_payload("0.1.0")["cmps"].as_object().unwrap().values() {
            let Some(template) = entity["val_tpl"].as_str() else { continue };
            for part in template.split("value_json.").skip(1) {
                let end = part.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap();
                assert!(fields.get(&part[..end]).is_some(), "{template}");
            }
        }
    }

    fn state() -> State {
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
        connections: Vec<Result<(), String>>,
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

        fn connection(&mut self, state: Result<(), &str>) {
            self.connections.push(state.map_err(str::to_owned));
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

        fn connection(&mut self, state: Result<(), &str>) {
            Fake::connection(self, state);
        }
    }

    #[derive(Default)]
    struct Record(Vec<(String, Vec<u8>)>);

    impl Requests for Record {
        fn publish(&mut self, topic: &str, payload: Vec<u8>, _: bool) -> bool {
            self.0.push((topic.into(), payload));
            true
        }

        fn retain_for(&mut self, topic: &str, payload: Vec<u8>, _: u32) -> bool {
            self.publish(topic, payload, true)
        }

        fn subscribe(&mut self, filter: &str) -> bool {
            self.0.push((filter.into(), b"subscribe".to_vec()));
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
        let denied = Event::Refused("a subscription (NotAuthorized)".into());
        let script = vec![Event::Wake, refused, Event::Connected, denied];
        let transport = Script(script.into_iter(), Record::default());
        let mut fake = Fake::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let device = "mirror-17".parse().unwrap();
        runtime.block_on(run(device, "0.1.0".into(), &mut fake, transport));
        let refused = Err("bad user name or password".to_owned());
        let denied = Err("a subscription (NotAuthorized)".to_owned());
        assert_eq!(fake.connections, [Err("no answer yet".to_owned()), refused, Ok(()), denied]);
    }

    #[test]
    fn a_command_that_the_broker_kept_is_none() {
        let (mut home, topics) = (Fake::new(), topics());
        let mut talk = Talk::new(topics, "0.1.0".into());
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
        let mut talk = Talk::new(topics(), "0.1.0".into());
        let mut step = |event, home: &mut Fake| {
            talk.handle(event, home);
            out.0.clear();
            talk.speak(home, &mut out);
            let state = out.0.iter().find(|(topic, _)| topic.ends_with("/state")).cloned();
            state.map(|(_, payload)| serde_json::from_slice::<Value>(&payload).unwrap())
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
        let mut talk = Talk::new(topics(), "0.1.0".into());
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
    fn a_restarted_home_assistant_is_told_everything_again() {
        let (mut home, mut out) = (Fake::new(), Record::default());
        let mut talk = Talk::new(topics(), "0.1.0".into());
        for event in [Event::Connected, message("homeassistant/status", "online")] {
            talk.handle(event, &mut home);
            talk.speak(&home, &mut out);
        }
        assert_eq!(discoveries(&out), 2);
    }

    #[test]
    fn a_birth_that_the_broker_kept_is_greeted_once() {
        let (mut home, mut out) = (Fake::new(), Record::default());
        let mut talk = Talk::new(topics(), "0.1.0".into());
        let kept = || {
            let (topic, payload) = ("homeassistant/status".into(), b"online".to_vec());
            Event::Message { topic, payload, retained: true }
        };
        // It comes again with every subscription.
        for event in [Event::Connected, kept(), kept()] {
            talk.handle(event, &mut home);
            talk.speak(&home, &mut out);
        }
        assert_eq!(discoveries(&out), 1);
    }

    fn discoveries(out: &Record) -> usize {
        out.0.iter().filter(|(topic, _)| topic.ends_with("/config")).count()
    }
}
