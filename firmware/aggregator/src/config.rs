//! The settings file: every key, checked once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use learn::averaging::Step;
use proto::Channel;
use serde::Deserialize;

use crate::engine::Rules;
use crate::rollout_rules::{RolloutRules, Stage, is_group};

/// Why the settings were refused. Each names the file and the next step, and the key where the file can be read as settings.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ConfigError {
    #[error("cannot read {path}: {source}; give the settings file with --config")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: mend what follows; the sample `aggregator.toml` has every setting: {reason}")]
    Syntax { path: PathBuf, reason: String },
    #[error("{path}: {key} = {value}: {next}")]
    Value { path: PathBuf, key: &'static str, value: String, next: &'static str },
}

/// Seconds of a round's lead and window together, at most: a week.
const LONGEST_SECONDS: u64 = 604_800;

/// A key whose value does not hold.
struct Wrong {
    key: &'static str,
    value: String,
    next: &'static str,
}

/// Refuses the value of a key unless it holds; `next` says what would.
fn row(
    key: &'static str,
    value: impl ToString,
    holds: bool,
    next: &'static str,
) -> Result<(), Wrong> {
    match holds {
        true => Ok(()),
        false => Err(Wrong { key, value: value.to_string(), next }),
    }
}

/// Whether a number lies between 0 and 1.
fn is_fraction(value: f64) -> bool {
    value > 0.0 && value < 1.0
}

/// Whether a number is 0, 1 or between them.
fn is_share(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    channel: Channel,
    data: PathBuf,
    model: PathBuf,
    broker: BrokerConfig,
    #[serde(default)]
    page: PageConfig,
    #[serde(default)]
    rounds: RawRounds,
    #[serde(default)]
    rollout: RawRollout,
    #[serde(default)]
    gate: GateConfig,
}

/// The broker and how to reach it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfig {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// First part of the workers' client ids; the channel, the worker's number and a tag that
    /// nobody can guess follow.
    #[serde(default = "default_client")]
    pub client: String,
    /// Connections that share the work.
    #[serde(default = "default_workers")]
    pub workers: u16,
    /// Certificates; without them the connection is in the clear, which only a broker on this machine is allowed.
    pub tls: Option<TlsConfig>,
}

/// PEM files of mutual TLS.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate of the authority that signed the broker's.
    pub authority: PathBuf,
    /// This server's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The operators' page.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct PageConfig {
    /// Address; loopback only.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
}

impl Default for PageConfig {
    fn default() -> PageConfig {
        PageConfig { listen: default_listen() }
    }
}

/// The holdout.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// Folder of households that no mirror has.
    pub holdout: Option<PathBuf>,
    /// Pictures of each that are looked at.
    #[serde(default = "default_pictures")]
    pub pictures: usize,
}

impl Default for GateConfig {
    fn default() -> GateConfig {
        GateConfig { holdout: None, pictures: default_pictures() }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRounds {
    minimum_cohort: Option<u64>,
    maximum_cohort: Option<u64>,
    lead_seconds: Option<u64>,
    window_seconds: Option<u64>,
    update_cosine: Option<f64>,
    wanted_cosine: Option<f64>,
    momentum: Option<f32>,
    rate: Option<f32>,
    tolerance: Option<f64>,
    keep: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRollout {
    stages: Option<Vec<Stage>>,
    stage_seconds: Option<u64>,
    minimum_reports: Option<u64>,
    minimum_failures: Option<u64>,
    error_threshold: Option<f64>,
}

fn default_client() -> String {
    "aggregator".into()
}

fn default_workers() -> u16 {
    2
}

/// Pictures of each household of the holdout that are looked at, where nobody says otherwise.
pub fn default_pictures() -> usize {
    2
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8090))
}

/// Checked settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The part of the fleet.
    pub channel: Channel,
    /// Folder of database, keys and socket.
    pub data: PathBuf,
    /// Folder of the network that the mirrors ship with.
    pub model: PathBuf,
    /// The broker.
    pub broker: BrokerConfig,
    /// The page.
    pub page: PageConfig,
    /// The holdout.
    pub gate: GateConfig,
    /// Rounds and roll-outs.
    pub rules: Rules,
}

impl Config {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Config::parse(path, &text)
    }

    /// Checks the text of a file.
    pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let raw: RawConfig = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            reason: error.to_string().trim().to_owned(),
        })?;
        let wrong = |Wrong { key, value, next }| {
            let path = path.to_owned();
            ConfigError::Value { path, key, value, next }
        };
        let config = Config {
            rules: rules(&raw).map_err(wrong)?,
            channel: raw.channel,
            data: raw.data,
            model: raw.model,
            broker: raw.broker,
            page: raw.page,
            gate: raw.gate,
        };
        config.check().map_err(wrong)?;
        Ok(config)
    }

    /// The first key whose value does not hold.
    fn check(&self) -> Result<(), Wrong> {
        self.check_access()?;
        check_rounds(&self.rules)?;
        check_rollout(&self.rules.rollout)
    }

    fn check_access(&self) -> Result<(), Wrong> {
        let Config { data, model, broker, page, gate, .. } = self;
        // Joined to a file's name, an empty path is whatever folder one stands in.
        let next = "name a folder; its path is best from the root on";
        for (key, folder) in [("data", data), ("model", model)] {
            row(key, "\"\"", !folder.as_os_str().is_empty(), next)?;
        }
        row(
            "broker.host",
            "\"\"",
            !broker.host.is_empty(),
            "name the broker's host, or its address",
        )?;
        row("broker.port", broker.port, broker.port > 0, "use 1 to 65535, as the broker listens")?;
        let is_local = ["localhost", "127.0.0.1", "::1"].contains(&broker.host.as_str());
        let is_safe = broker.tls.is_some() || is_local;
        row("broker.host", &broker.host, is_safe, "a broker elsewhere needs [broker.tls]")?;
        let workers = broker.workers;
        row("broker.workers", workers, (1..=64).contains(&workers), "use 1 to 64")?;
        let next = "only a loopback address; reach it through ssh -L";
        row("page.listen", page.listen, page.listen.ip().is_loopback(), next)?;
        let next = "at least 1, or nothing can be judged";
        row("gate.pictures", gate.pictures, gate.pictures > 0, next)
    }

    /// Where the database lies.
    pub fn database(&self) -> PathBuf {
        self.data.join("fleet.redb")
    }

    /// Where a running server listens for commands.
    pub fn socket(&self) -> PathBuf {
        self.data.join("control.sock")
    }
}

fn check_rounds(rules: &Rules) -> Result<(), Wrong> {
    let (minimum, maximum) = (rules.minimum_cohort, rules.maximum_cohort);
    row("rounds.minimum_cohort", minimum, minimum >= 2, "at least 2")?;
    let next = "at least rounds.minimum_cohort";
    row("rounds.maximum_cohort", maximum, maximum >= minimum, next)?;
    let (lead, window) = (rules.lead_seconds, rules.window_seconds);
    let is_window = (1..=LONGEST_SECONDS).contains(&window);
    row("rounds.window_seconds", window, is_window, "1 to 604800, a week")?;
    let next = "together with rounds.window_seconds at most 604800, a week";
    row("rounds.lead_seconds", lead, lead <= LONGEST_SECONDS - window, next)?;
    let cosine = rules.update_cosine;
    let next = "between 0 and 1; `simulate` measures it";
    row("rounds.update_cosine", cosine, is_fraction(cosine), next)?;
    let cosine = rules.wanted_cosine;
    row("rounds.wanted_cosine", cosine, is_fraction(cosine), "between 0 and 1")?;
    row("rounds.tolerance", rules.tolerance, is_share(rules.tolerance), "between 0 and 1")?;
    let next = "at least 1: the round at hand needs its names";
    row("rounds.keep", rules.keep_rounds, rules.keep_rounds > 0, next)
}

fn check_rollout(rules: &RolloutRules) -> Result<(), Wrong> {
    let next =
        "groups of 1 to 64 of a-z, 0-9 and '-', and rising parts of a thousand that end with 1000";
    let stages = &rules.stages;
    row("rollout.stages", format!("{stages:?}"), are_stages(stages), next)?;
    let threshold = rules.error_threshold;
    row("rollout.error_threshold", threshold, is_share(threshold), "between 0 and 1")
}

/// Whether these go further and further, to everybody, and name groups that there can be.
fn are_stages(stages: &[Stage]) -> bool {
    let is_named = |stage: &Stage| match stage {
        Stage::Permille(_) => true,
        Stage::Group(name) => is_group(name),
    };
    let parts = stages.iter().filter_map(|stage| match stage {
        Stage::Permille(permille) => Some(*permille),
        Stage::Group(_) => None,
    });
    stages.iter().all(is_named)
        && parts.is_sorted_by(|a, b| a < b)
        && stages.last() == Some(&Stage::Permille(1000))
}

fn step(rounds: &RawRounds) -> Result<Step, Wrong> {
    let momentum = rounds.momentum.unwrap_or(Step::PLAIN.momentum());
    let rate = rounds.rate.unwrap_or(Step::PLAIN.rate());
    let wrong = |key, value: f32, next| move || Wrong { key, value: value.to_string(), next };
    let step = Step::PLAIN.with_momentum(momentum);
    let step = step.ok_or_else(wrong("rounds.momentum", momentum, "from 0 on, and below 1"))?;
    step.with_rate(rate).ok_or_else(wrong("rounds.rate", rate, "above 0; 1 is the usual one"))
}

fn rules(raw: &RawConfig) -> Result<Rules, Wrong> {
    let (rounds, rollout, usual) = (&raw.rounds, &raw.rollout, Rules::default());
    Ok(Rules {
        minimum_cohort: rounds.minimum_cohort.unwrap_or(usual.minimum_cohort),
        maximum_cohort: rounds.maximum_cohort.unwrap_or(usual.maximum_cohort),
        lead_seconds: rounds.lead_seconds.unwrap_or(usual.lead_seconds),
        window_seconds: rounds.window_seconds.unwrap_or(usual.window_seconds),
        update_cosine: rounds.update_cosine.unwrap_or(usual.update_cosine),
        wanted_cosine: rounds.wanted_cosine.unwrap_or(usual.wanted_cosine),
        step: step(rounds)?,
        tolerance: rounds.tolerance.unwrap_or(usual.tolerance),
        keep_rounds: rounds.keep.unwrap_or(usual.keep_rounds),
        rollout: RolloutRules {
            stages: rollout.stages.clone().unwrap_or(usual.rollout.stages),
            stage_seconds: rollout.stage_seconds.unwrap_or(usual.rollout.stage_seconds),
            minimum_reports: rollout.minimum_reports.unwrap_or(usual.rollout.minimum_reports),
            minimum_failures: rollout.minimum_failures.unwrap_or(usual.rollout.minimum_failures),
            error_threshold: rollout.error_threshold.unwrap_or(usual.rollout.error_threshold),
        },
        ..usual
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../aggregator.toml");

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("aggregator.toml"), text)
    }

    #[test]
    fn the_sample_is_valid_and_says_the_defaults() {
        let config = parse(SAMPLE).unwrap();
        assert_eq!(config.rules, Rules::default());
        assert_eq!(config.page.listen, default_listen());
        assert_eq!(config.gate.pictures, default_pictures());
    }

    #[test]
    fn the_sample_comes_in_at_the_sample_brokers_listener_for_servers() {
        let BrokerConfig { host, port, .. } = parse(SAMPLE).unwrap().broker;
        let broker = include_str!("../../../board/broker/mosquitto.conf");
        assert!(broker.lines().any(|line| line == format!("listener {port} {host}")));
    }

    #[test]
    fn mistakes_are_named_with_key_and_next_step() {
        let changed = |from: &str, to: &str| {
            assert!(SAMPLE.contains(from), "{from}");
            parse(&SAMPLE.replace(from, to)).unwrap_err().to_string()
        };
        let cases = [
            ("data = \"/var/lib/mirror-aggregator\"", "data = \"\"", "data"),
            ("model = \"/usr/share/mirror/student-0.11.0\"", "model = \"\"", "model"),
            ("host = \"127.0.0.1\"", "host = \"\"", "broker.host"),
            ("port = 8884", "port = 0", "broker.port"),
            ("workers = 2", "workers = 0", "broker.workers"),
            ("workers = 2", "workers = 65", "broker.workers"),
            ("127.0.0.1:8090", "0.0.0.0:8090", "page.listen"),
            ("minimum_cohort = 100", "minimum_cohort = 1", "rounds.minimum_cohort"),
            ("minimum_cohort = 100", "minimal_cohort = 100", "minimal_cohort"),
            ("maximum_cohort = 1000000", "maximum_cohort = 99", "rounds.maximum_cohort"),
            ("lead_seconds = 60", "lead_seconds = 518401", "rounds.lead_seconds"),
            ("window_seconds = 86400", "window_seconds = 0", "rounds.window_seconds"),
            ("window_seconds = 86400", "window_seconds = 604801", "rounds.window_seconds"),
            ("update_cosine = 0.3", "update_cosine = nan", "rounds.update_cosine"),
            ("wanted_cosine = 0.1", "wanted_cosine = 1.0", "rounds.wanted_cosine"),
            ("momentum = 0.0", "momentum = 1.0", "rounds.momentum"),
            ("rate = 1.0", "rate = 0.0", "rounds.rate"),
            ("tolerance = 0.0", "tolerance = -0.1", "rounds.tolerance"),
            ("keep = 20", "keep = 0", "rounds.keep"),
            ("[20, 200, 1000]", "[20, 10, 1000]", "rollout.stages"),
            ("[20, 200, 1000]", "[20, 200, \"pilot\"]", "rollout.stages"),
            ("[20, 200, 1000]", "[\"\", 1000]", "rollout.stages"),
            ("[20, 200, 1000]", "[\"pi\\nlot\", 1000]", "rollout.stages"),
            ("error_threshold = 0.1", "error_threshold = 1.1", "rollout.error_threshold"),
            ("pictures = 2", "pictures = 0", "gate.pictures"),
        ];
        for (from, to, key) in cases {
            let error = changed(from, to);
            // Named as the culprit, and not in passing; what the parser refuses itself it quotes.
            let is_named = error.contains(&format!(": {key} = ")) || to.starts_with(key);
            assert!(error.contains("aggregator.toml") && is_named, "{error}");
        }
        let clear = "channel = \"a\"\ndata = \"d\"\nmodel = \"m\"\n[broker]\nhost = \"example.org\"\nport = 1883\n";
        let error = parse(clear).unwrap_err().to_string();
        assert!(error.contains(": broker.host = ") && error.contains("[broker.tls]"), "{error}");
    }
}
