//! The whole fleet in one process: a broker, the real server, and mirrors that really train on households of their own.
//!
//! Real are: the server with its database, gate and page, MQTT with shared subscriptions, the mirrors' protocol, training,
//! clipping and exact integer noise. Not real are: TLS (the broker is of this process), the mirrors' clocks, which go
//! twenty times as fast, and the amount of noise, which is far too small for privacy unless another is asked for.

pub mod broker;
pub mod mirror;
mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use learn::edges::SystemClock;
use learn::privacy::NoiseMultiplier;
use proto::DeviceId;
use proto::signing::KeyRing;

use crate::cli::DemoArgs;
use crate::commands::{STOPPING, say, stop_signal};
use crate::config::{BrokerConfig, default_pictures};
use crate::contributor::{Contributor, budget_of};
use crate::engine::{Engine, EngineError, Parts, RoundRequest, RoundStatus, Rules};
use crate::households::Households;
use crate::keys::Keys;
use crate::page;
use crate::records::Parameters;
use crate::rollout_rules::{RolloutRules, Stage};
use crate::serve::Server;
use crate::store::Store;
use crate::student::{Holdout, Trunk};

use mirror::{Mirror, World};

/// Seconds of a round's window, by the server's clock.
const WINDOW: u64 = 60;

/// Longest wait for a round, or for a model to be everywhere.
const PATIENCE: Duration = Duration::from_secs(2 * WINDOW);

const TICK: Duration = Duration::from_millis(100);

/// Shows the fleet.
///
/// # Errors
/// Folders that are not there, a port that is taken, a fleet that gets stuck.
pub fn run(args: &DemoArgs) -> Result<()> {
    let stop = stop_signal()?;
    let folder = Scratch::new()?;
    let demo = Demo::start(args, &folder.0, &stop)?;
    let shown = demo.rounds(args);
    if args.keep_open && shown.is_ok() && !stop.load(Ordering::SeqCst) {
        say(format!("\nThe page stays at {} until Ctrl+C.", demo.page))?;
        while !stop.load(Ordering::SeqCst) {
            std::thread::sleep(TICK);
        }
    }
    if stop.load(Ordering::SeqCst) {
        say(STOPPING)?;
    }
    demo.stop()?;
    shown
}

/// A folder that goes with the demonstration.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch> {
        let path = std::env::temp_dir().join(format!("aggregator-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Demo {
    server: Server,
    mirrors: Vec<Mirror>,
    page: String,
    stop: Arc<AtomicBool>,
}

impl Demo {
    fn start(args: &DemoArgs, folder: &Path, stop: &Arc<AtomicBool>) -> Result<Demo> {
        let folders = Folders::of(args);
        let trunk = folders.trunk()?;
        let noise: NoiseMultiplier = args.noise_multiplier.parse().context("--noise-multiplier")?;
        let world = Arc::new(world(trunk, &folders, noise, args.rounds.into())?);
        let count = usize::from(args.devices);
        let known = world.households.households.len();
        ensure!(known >= count, "there are {known} households; ask for at most as many mirrors");
        let engine = engine(&folders, folder, count as u64)?;
        let names: Vec<DeviceId> = (0..count)
            .map(|number| format!("mirror-{number}").parse())
            .collect::<Result<_, _>>()?;
        let keys = KeyRing::single(engine.key().verifying_key());
        let mut trust = Vec::new();
        for (number, name) in names.iter().enumerate() {
            engine.enrol(name.as_str(), &format!("{number:064x}"))?;
            trust.push((engine.secret(name), keys.clone()));
        }
        let channel = engine.channel().clone();
        let broker = broker::start()?;
        let server = Server::start(engine, &broker_config(broker))?;
        let listen = ([127, 0, 0, 1], args.page_port).into();
        let (page, _) = page::start(listen, Arc::clone(&server.office))
            .context("another --page-port, or 0 for any, helps")?;
        let start =
            |((number, name), trust)| Mirror::start(&world, number, name, &channel, trust, broker);
        let mirrors = names.iter().enumerate().zip(trust).map(start).collect::<Result<Vec<_>>>()?;
        say(format!("Broker at {broker}, {count} mirrors, the operators' page at {page}"))?;
        Ok(Demo { server, mirrors, page, stop: Arc::clone(stop) })
    }

    fn engine(&self) -> &Engine {
        &self.server.office.engine
    }

    fn rounds(&self, args: &DemoArgs) -> Result<()> {
        self.honest_refusal()?;
        say(format!("\n{}\n", purpose(args.noise_multiplier.parse()?)))?;
        say(table::HEAD)?;
        self.wait("every mirror at the broker", || self.is_everywhere())?;
        for number in 1..=u64::from(args.rounds) {
            let request = RoundRequest {
                parameters: Parameters::Sparse,
                noise_multiplier: args.noise_multiplier.clone(),
                force: true,
            };
            let round = self.engine().start_round(&request)?.id;
            self.wait("the end of a round", || Ok(self.round(round)?.round.phase.is_final()))?;
            self.wait("every mirror on the newest model", || self.is_everywhere())?;
            if self.stop.load(Ordering::SeqCst) {
                return Ok(());
            }
            let status = self.engine().status()?;
            if number == 1 {
                say(table::start(&status.rounds))?;
            }
            say(table::line(&status, number))?;
        }
        say(format!("\n{}", table::summary(&self.engine().status()?)))?;
        Ok(())
    }

    /// What the server says to the same fleet under the noise that a household's budget is made for.
    fn honest_refusal(&self) -> Result<()> {
        let request = RoundRequest {
            parameters: Parameters::Sparse,
            noise_multiplier: NoiseMultiplier::DEFAULT.to_string(),
            force: false,
        };
        match self.engine().start_round(&request) {
            Err(EngineError::NoSignal(reason)) => {
                say(format!(
                    "\nAsked for a round with the noise that protects a household:\n{reason}"
                ))?;
                Ok(())
            }
            Err(error) => Err(error.into()),
            Ok(round) => {
                // So large a fleet carries it; the demonstration goes on with its own noise all the same.
                self.engine().abort_round(round.id, "the demonstration asks for another noise")?;
                Ok(())
            }
        }
    }

    fn round(&self, number: u64) -> Result<RoundStatus> {
        let rounds = self.engine().status()?.rounds;
        let mut rounds = rounds.into_iter();
        rounds.find(|round| round.round.id == number).context("the round is gone")
    }

    /// Whether every mirror is there and has tried the newest version.
    fn is_everywhere(&self) -> Result<bool> {
        let newest = self.engine().announced()?.map_or(0, |model| model.version);
        let tried = |mirror: &Mirror| {
            let snapshot = mirror.watch.read();
            snapshot.connected && snapshot.model_tried >= newest
        };
        Ok(self.mirrors.iter().all(tried))
    }

    fn wait(&self, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
        let began = Instant::now();
        while !self.stop.load(Ordering::SeqCst) && !holds()? {
            if began.elapsed() > PATIENCE {
                let notes: Vec<String> =
                    self.mirrors.iter().filter_map(|mirror| mirror.watch.read().note).collect();
                bail!("waited {} s for {what}; mirrors say: {notes:?}", PATIENCE.as_secs());
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    fn stop(self) -> Result<()> {
        self.mirrors.into_iter().try_for_each(Mirror::stop)?;
        self.server.stop();
        Ok(())
    }
}

/// What the rounds' noise is good for.
fn purpose(noise: NoiseMultiplier) -> String {
    if noise.as_f64() < NoiseMultiplier::DEFAULT.as_f64() {
        return format!(
            "What follows uses noise multiplier {noise}, to show the way and not to protect anybody."
        );
    }
    format!(
        "What follows uses noise multiplier {noise}, no less than real mirrors. Where so few updates drown in it, the gate keeps the model."
    )
}

/// Where the network and the households are.
struct Folders {
    model: PathBuf,
    households: PathBuf,
}

impl Folders {
    /// Those that were asked for, or those of the source tree that this program was built from.
    fn of(args: &DemoArgs) -> Folders {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
        let or = |given: &Option<PathBuf>, name| given.clone().unwrap_or_else(|| models.join(name));
        Folders {
            model: or(&args.model, "student"),
            households: or(&args.households, "households"),
        }
    }

    fn trunk(&self) -> Result<Trunk> {
        Trunk::load(&self.model).with_context(|| {
            format!("no network in {}; name its folder with --model", self.model.display())
        })
    }

    fn households_missing(&self) -> String {
        let at = self.households.display();
        format!("no households in {at}; name a folder that has train and test with --households")
    }
}

fn world(trunk: Trunk, folders: &Folders, noise: NoiseMultiplier, rounds: u64) -> Result<World> {
    let households = Households::read(&folders.households.join("train"))
        .with_context(|| folders.households_missing())?;
    // Every mirror's ledger holds what these rounds cost, whatever that is.
    let owner = Contributor::new(budget_of(noise, rounds)?)?;
    Ok(World { trunk, households, owner, noise })
}

fn engine(folders: &Folders, folder: &Path, devices: u64) -> Result<Engine> {
    let keys = Keys::create(folder)?;
    let trunk = folders.trunk()?;
    let (layout, shipped) = (trunk.layout().clone(), trunk.parameters().to_vec());
    let gate = Holdout::new(trunk, &folders.households.join("test"), default_pictures())
        .with_context(|| folders.households_missing())?;
    let engine = Engine::new(Parts {
        store: Arc::new(Store::create(&folder.join("fleet.redb"))?),
        key: keys.signing,
        secrets: keys.devices,
        clock: Arc::new(SystemClock),
        gate: Box::new(gate),
        layout,
        shipped,
        channel: "demo".parse()?,
        rules: rules(devices),
    })?;
    engine.ship("as the mirrors ship")?;
    Ok(engine)
}

/// Rounds that end when everybody has reported, and versions that go everywhere at once.
fn rules(devices: u64) -> Rules {
    Rules {
        minimum_cohort: 2,
        maximum_cohort: devices,
        lead_seconds: 0,
        window_seconds: WINDOW,
        // As the banner over the rounds says.
        any_noise: true,
        rollout: RolloutRules {
            stages: vec![Stage::Permille(1000)],
            stage_seconds: 1,
            ..Rules::default().rollout
        },
        ..Rules::default()
    }
}

fn broker_config(at: std::net::SocketAddr) -> BrokerConfig {
    BrokerConfig {
        host: at.ip().to_string(),
        port: at.port(),
        client: "aggregator".to_owned(),
        workers: 2,
        tls: None,
    }
}
