//! Topics and messages of one mirror: what Home Assistant makes its entities of, and what they show.

use proto::DeviceId;
use serde_json::{Map, Value, json};

use super::{Command, LASTS, State};
use crate::transport::Retained;

/// Home Assistant's default prefix.
const PREFIX: &str = "homeassistant";

/// The name that settings give a mirror, where a home has one.
const ONLY: &str = "mirror";

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
    pub(crate) fn discovery(&self) -> String {
        format!("{PREFIX}/device/{}/config", self.device)
    }

    /// Where the state is published, retained.
    pub fn state(&self) -> String {
        self.of("state")
    }

    /// `online` or `offline`, retained.
    pub(crate) fn availability(&self) -> String {
        self.of("availability")
    }

    /// What Home Assistant says when it has started.
    pub(crate) fn birth(&self) -> String {
        format!("{PREFIX}/status")
    }

    /// What the broker says when the connection breaks.
    pub fn will(&self) -> Retained {
        Retained { topic: self.availability(), payload: b"offline".to_vec() }
    }

    /// What is subscribed.
    pub fn filters(&self) -> [String; 2] {
        [self.of("set/+"), self.birth()]
    }

    /// All that a broker's access list must let the mirror read and write.
    pub fn access(&self) -> [String; 3] {
        [self.of("#"), self.discovery(), self.birth()]
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

    /// The discovery message of a mirror with this firmware, which is or is no `member` of a fleet.
    pub(crate) fn discovery_payload(&self, firmware: &str, member: bool) -> Value {
        let device = self.device.as_str();
        let name = match device {
            ONLY => "Mirror".to_owned(),
            other => format!("Mirror {other}"),
        };
        json!({
            "dev": {"ids": [device], "name": name, "mdl": "Fitness mirror", "sw": firmware},
            "o": {"name": "mirror", "sw": firmware},
            "avty": [{"t": self.availability()}],
            "qos": 1,
            "cmps": self.components(member),
        })
    }

    /// The entities. What a mirror without a fleet has no use for is only its platform: Home Assistant removes it, should it be there from
    /// an earlier time.
    fn components(&self, member: bool) -> Map<String, Value> {
        let of_fleet = self.of_fleet().map(|(key, entity)| match member {
            true => (key, entity),
            false => (key, json!({"p": entity["p"]})),
        });
        let all = self.of_every_mirror().into_iter().chain(of_fleet);
        all.map(|(key, entity)| (key.to_owned(), entity)).collect()
    }

    fn of_every_mirror(&self) -> [Component; 4] {
        let running = json!({"dev_cla": "running"});
        let delete = json!({
            "cmd_t": self.of("set/delete"),
            "ent_cat": "config",
            "ic": "mdi:delete-forever",
        });
        [
            self.reading("binary_sensor", "camera", "Camera active", running),
            self.reading("sensor", "epsilon_spent", "Epsilon spent", measured("ε")),
            self.reading(
                "sensor",
                "privacy",
                "Privacy statement",
                json!({"ent_cat": "diagnostic"}),
            ),
            self.entity("button", "delete", "Delete what was learned", delete),
        ]
    }

    fn of_fleet(&self) -> [Component; 8] {
        let diagnostic = json!({"ent_cat": "diagnostic"});
        let take_part = json!({
            "stat_t": self.state(),
            "val_tpl": template("take_part"),
            "cmd_t": self.of("set/take_part"),
            "opt": false,
            "ic": "mdi:account-group",
        });
        let update = json!({
            "stat_t": self.state(),
            // Home Assistant takes no null for a version, and passes over an empty object.
            "val_tpl": "{{ ({'installed_version': value_json.model, 'latest_version': value_json.newest_model} if value_json.model else {}) | to_json }}",
            "cmd_t": self.of("set/model"),
            "pl_inst": "INSTALL",
        });
        let left = json!({"stat_cla": "measurement"});
        let rounds = json!({"stat_cla": "total_increasing"});
        let last_update = json!({"dev_cla": "timestamp"});
        let asks = "Waits for an answer at the mirror";
        [
            self.entity("switch", "take_part", "Contribute to the fleet", take_part),
            self.reading("binary_sensor", "asks", asks, diagnostic.clone()),
            self.reading("sensor", "epsilon_left", "Epsilon left", measured("ε")),
            self.reading("sensor", "updates_left", "Updates left", left),
            self.reading("sensor", "rounds", "Rounds contributed", rounds),
            self.reading("sensor", "last_update", "Last update", last_update),
            self.reading("sensor", "model", "Model version", diagnostic),
            self.entity("update", "model_update", "Model", update),
        ]
    }

    /// An entity that shows the state's field of its own name, until the mirror has said nothing for long.
    fn reading(&self, platform: &str, key: &'static str, name: &str, more: Value) -> Component {
        let (key, mut entity) = self.entity(platform, key, name, more);
        entity["stat_t"] = self.state().into();
        entity["val_tpl"] = template(key).into();
        entity["exp_aft"] = LASTS.into();
        (key, entity)
    }

    fn entity(&self, platform: &str, key: &'static str, name: &str, mut more: Value) -> Component {
        more["p"] = platform.into();
        more["name"] = name.into();
        more["uniq_id"] = format!("{}_{key}", self.device).into();
        (key, more)
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

/// An entity's key in the discovery message, and what is said of it.
type Component = (&'static str, Value);

fn template(field: &str) -> String {
    format!("{{{{ value_json.{field} }}}}")
}

/// With all decimals that are said: Home Assistant rounds to the nearest, and would show less spent than is.
fn measured(unit: &str) -> Value {
    json!({"stat_cla": "measurement", "unit_of_meas": unit, "sug_dsp_prc": 4})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::tests::{state, topics};
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

    #[test]
    fn discovery_is_what_home_assistant_documents() {
        let payload = topics().discovery_payload("0.1.0", true);
        assert!(payload["o"]["name"].is_string() && payload["dev"]["ids"][0] == "mirror-17");
        let components = payload["cmps"].as_object().unwrap();
        assert_eq!(components.len(), 12);
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
        let payload = topics().discovery_payload("0.1.0", true);
        for entity in payload["cmps"].as_object().unwrap().values() {
            let Some(template) = entity["val_tpl"].as_str() else { continue };
            for part in template.split("value_json.").skip(1) {
                let end = part.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap();
                assert!(fields.get(&part[..end]).is_some(), "{template}");
            }
        }
    }

    #[test]
    fn epsilon_is_shown_with_all_four_decimals() {
        let components = topics().discovery_payload("0.1.0", true)["cmps"].clone();
        for figure in ["epsilon_spent", "epsilon_left"] {
            assert_eq!(components[figure]["sug_dsp_prc"], 4, "{figure}");
        }
    }

    #[test]
    fn a_mirror_without_a_fleet_has_nothing_of_one() {
        let payload = topics().discovery_payload("0.1.0", false);
        let components = payload["cmps"].as_object().unwrap();
        let is_there = |(_, entity): &(&String, &Value)| entity.get("name").is_some();
        let (there, gone): (Vec<_>, Vec<_>) = components.iter().partition(is_there);
        let there: Vec<&String> = there.into_iter().map(|(key, _)| key).collect();
        assert_eq!(there, ["camera", "delete", "epsilon_spent", "privacy"]);
        assert_eq!(gone.len(), 8);
        for (key, entity) in gone {
            assert_eq!(entity, &json!({"p": entity["p"]}), "{key} is removed where it was");
        }
        assert_eq!(components["take_part"]["p"], "switch");
    }

    #[test]
    fn mirrors_of_one_home_have_different_names() {
        let name = |device: &str| {
            let topics = Topics::new(device.parse().unwrap());
            topics.discovery_payload("0.1.0", true)["dev"]["name"].clone()
        };
        assert_eq!([name("mirror"), name("bathroom")], ["Mirror", "Mirror bathroom"]);
    }

    #[test]
    fn an_access_list_that_gives_what_is_named_lets_everything_pass() {
        let [own, discovery, birth] = topics().access();
        let own = own.strip_suffix('#').unwrap().to_owned();
        let [set, status] = topics().filters();
        for topic in [topics().state(), topics().availability(), set] {
            assert!(topic.starts_with(&own), "{topic}");
        }
        assert_eq!((discovery, birth), (topics().discovery(), status));
    }
}
