//! The settings file: every key, checked once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use proto::Channel;
use serde::Deserialize;

use crate::engine::Rules;
use crate::rollout::{RolloutRules, Stage};

/// Why the settings were refused. Each names the file, the key and the next step.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ConfigError {
    #[error("cannot read {path}: {source}; give the settings file with --config")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {reason}")]
    Syntax { path: PathBuf, reason: String },
    #[error("{path}: {key} = {value}: {next}")]
    Value { path: PathBuf, key: &'static str, value: String, next: &'static str },
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
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// Folder of households that no mirror has.
    pub holdout: Option<PathBuf>,
    /// Pictures of each that are looked at; 2 by default.
    pub pictures: Option<usize>,
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
        let rules = rules(&raw);
        let config = Config {
            channel: raw.channel,
            data: raw.data,
            model: raw.model,
            broker: raw.broker,
            page: raw.page,
            gate: raw.gate,
            rules,
        };
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let wrong = |key, value: String, next| {
            Err(ConfigError::Value { path: path.to_owned(), key, value, next })
        };
        let (rules, broker) = (&self.rules, &self.broker);
        let fraction = |value: f64| value > 0.0 && value < 1.0;
        let local = ["localhost", "127.0.0.1", "::1"].contains(&broker.host.as_str());
        if broker.tls.is_none() && !local {
            return wrong(
                "broker.host",
                broker.host.clone(),
                "a broker elsewhere needs [broker.tls]",
            );
        }
        if broker.workers == 0 || broker.workers > 64 {
            return wrong("broker.workers", broker.workers.to_string(), "use 1 to 64");
        }
        if !self.page.listen.ip().is_loopback() {
            let value = self.page.listen.to_string();
            return wrong("page.listen", value, "only a loopback address; reach it through ssh -L");
        }
        if self.gate.pictures == Some(0) {
            return wrong("gate.pictures", "0".into(), "at least 1, or nothing can be judged");
        }
        if rules.keep_rounds == 0 {
            let next = "at least 1: the round at hand needs its names";
            return wrong("rounds.keep", "0".into(), next);
        }
        if rules.minimum_cohort < 2 || rules.maximum_cohort < rules.minimum_cohort {
            let value = rules.minimum_cohort.to_string();
            return wrong("rounds.minimum_cohort", value, "at least 2, and at most the maximum");
        }
        if rules.window_seconds == 0 || rules.window_seconds + rules.lead_seconds > 604_800 {
            let value = rules.window_seconds.to_string();
            return wrong(
                "rounds.window_seconds",
                value,
                "lead and window together last up to a week",
            );
        }
        if !fraction(rules.update_cosine) {
            let value = rules.update_cosine.to_string();
            return wrong("rounds.update_cosine", value, "between 0 and 1; `simulate` measures it");
        }
        if !fraction(rules.wanted_cosine) {
            let value = rules.wanted_cosine.to_string();
            return wrong("rounds.wanted_cosine", value, "between 0 and 1");
        }
        let steps = rules.rate.is_finite() && rules.rate > 0.0;
        if !(0.0..1.0).contains(&rules.momentum) || !steps {
            let value = rules.momentum.to_string();
            return wrong("rounds.momentum", value, "in [0, 1), with a rate above 0");
        }
        if !(0.0..=1.0).contains(&rules.tolerance) {
            return wrong("rounds.tolerance", rules.tolerance.to_string(), "between 0 and 1");
        }
        let rollout = &rules.rollout;
        let parts = rollout.stages.iter().filter_map(|stage| match stage {
            Stage::Permille(permille) => Some(*permille),
            Stage::Group(_) => None,
        });
        let parts: Vec<u16> = parts.collect();
        let rising = parts.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || rollout.stages.last() != Some(&Stage::Permille(1000)) {
            let value = format!("{:?}", rollout.stages);
            let next = "groups, and rising parts of a thousand that end with 1000";
            return wrong("rollout.stages", value, next);
        }
        if !(0.0..=1.0).contains(&rollout.error_threshold) {
            let value = rollout.error_threshold.to_string();
            return wrong("rollout.error_threshold", value, "between 0 and 1");
        }
        Ok(())
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

fn rules(raw: &RawConfig) -> Rules {
    let (rounds, rollout, usual) = (&raw.rounds, &raw.rollout, Rules::default());
    Rules {
        minimum_cohort: rounds.minimum_cohort.unwrap_or(usual.minimum_cohort),
        maximum_cohort: rounds.maximum_cohort.unwrap_or(usual.maximum_cohort),
        lead_seconds: rounds.lead_seconds.unwrap_or(usual.lead_seconds),
        window_seconds: rounds.window_seconds.unwrap_or(usual.window_seconds),
        update_cosine: rounds.update_cosine.unwrap_or(usual.update_cosine),
        wanted_cosine: rounds.wanted_cosine.unwrap_or(usual.wanted_cosine),
        momentum: rounds.momentum.unwrap_or(usual.momentum),
        rate: rounds.rate.unwrap_or(usual.rate),
        tolerance: rounds.tolerance.unwrap_or(usual.tolerance),
        keep_rounds: rounds.keep.unwrap_or(usual.keep_rounds),
        rollout: RolloutRules {
            stages: rollout.stages.clone().unwrap_or(usual.rollout.stages),
            stage_seconds: rollout.stage_seconds.unwrap_or(usual.rollout.stage_seconds),
            minimum_reports: rollout.minimum_reports.unwrap_or(usual.rollout.minimum_reports),
            minimum_failures: rollout.minimum_failures.unwrap_or(usual.rollout.minimum_failures),
            error_threshold: rollout.error_threshold.unwrap_or(usual.rollout.error_threshold),
        },
    }
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
            ("minimum_cohort = 100", "minimum_cohort = 1", "rounds.minimum_cohort"),
            ("minimum_cohort = 100", "minimal_cohort = 100", "minimal_cohort"),
            ("127.0.0.1:8090", "0.0.0.0:8090", "page.listen"),
            ("[20, 200, 1000]", "[20, 10, 1000]", "rollout.stages"),
            ("update_cosine = 0.3", "update_cosine = nan", "rounds.update_cosine"),
            ("workers = 2", "workers = 0", "broker.workers"),
            ("keep = 20", "keep = 0", "rounds.keep"),
            ("pictures = 2", "pictures = 0", "gate.pictures"),
        ];
        for (from, to, key) in cases {
            let error = changed(from, to);
            assert!(error.contains("aggregator.toml") && error.contains(key), "{error}");
        }
        let clear = "channel = \"a\"\ndata = \"d\"\nmodel = \"m\"\n[broker]\nhost = \"example.org\"\nport = 1883\n";
        assert!(parse(clear).unwrap_err().to_string().contains("[broker.tls]"));
    }
}
