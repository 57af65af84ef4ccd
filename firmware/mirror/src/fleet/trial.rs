//! A model of the fleet is tried on a thread of its own, while pictures go on being parsed with the old one.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};

use anyhow::{Context, Result};
use frame::Orientation;
use home::{Home, HomeError, ModelTrouble, for_journal};
use learn::head::{Subset, numbers};
use proto::status::JobFault;
use tracing::{info, warn};
use uplink::edges::ModelTrial;
use vision::Parser;

use super::check;
use crate::learning::at_size_of;
use crate::model::ModelSource;
use crate::report;

/// Over the stores of [`Home`] and the network's files.
pub struct Trial {
    home: Arc<Home>,
    model: ModelSource,
    running: Option<Receiver<Result<(), JobFault>>>,
}

impl Trial {
    /// No trial yet.
    pub fn new(home: Arc<Home>, model: ModelSource) -> Trial {
        let model = at_size_of(&home, &model).without_smoothing();
        Trial { home, model, running: None }
    }
}

impl ModelTrial for Trial {
    fn base(&self) -> proto::Digest {
        proto::Digest(self.home.shipped().digest.0)
    }

    fn version(&self) -> u64 {
        self.home.fleet_version()
    }

    fn begin(&mut self, version: u64, parameters: Vec<u8>) -> Result<(), JobFault> {
        let (sender, receiver) = mpsc::channel();
        let (home, model) = (Arc::clone(&self.home), self.model.clone());
        let work = move || {
            if let Err(error) = home::lowest_priority() {
                warn!("the trial of a model runs at normal priority: {error}");
            }
            // Whoever waits for it may have stopped.
            let _ = sender.send(attempt(&home, &model, version, &parameters));
        };
        let started = std::thread::Builder::new().name("trial".into()).spawn(work);
        if let Err(error) = started {
            warn!("the trial of model {version}: {}", report::no_thread(&error));
            return Err(JobFault::Storage);
        }
        self.running = Some(receiver);
        Ok(())
    }

    fn poll(&mut self) -> Option<Result<(), JobFault>> {
        let outcome = match self.running.as_ref()?.try_recv() {
            Err(TryRecvError::Empty) => return None,
            Ok(outcome) => outcome,
            // It panicked.
            Err(TryRecvError::Disconnected) => Err(JobFault::Unusable),
        };
        self.running = None;
        Some(outcome)
    }
}

fn attempt(
    home: &Home,
    model: &ModelSource,
    version: u64,
    parameters: &[u8],
) -> Result<(), JobFault> {
    let unusable = |error: anyhow::Error| {
        warn!("model {version} is put away: {error:#}");
        JobFault::Unusable
    };
    // Of the mirror's own network, which another model would not mend.
    let own = |error: anyhow::Error| {
        warn!("model {version} cannot be tried here, and is tried again: {error:#}");
        JobFault::Storage
    };
    let mut parser = model.parser(Orientation::default()).map_err(own)?;
    let check = check::pictures(&mut parser).map_err(own)?;
    runs(&mut parser, home, parameters).map_err(unusable)?;
    drop(parser);
    let mut trunk = model.student().map_err(own)?;
    match home.try_model(version, parameters, &check, &mut trunk) {
        Ok(()) => {
            info!("model {version} was tried");
            Ok(())
        }
        Err(error) => {
            warn!("model {version} is put away: {}", for_journal(&error));
            Err(fault(&error))
        }
    }
}

/// The engine that ships must be able to build and run it.
fn runs(parser: &mut Parser, home: &Home, parameters: &[u8]) -> Result<()> {
    let shipped = home.shipped();
    // What are no such numbers is refused, by name, by whoever tries it.
    let Ok(values) = numbers::decode(parameters, shipped.layout.subset_len(Subset::Full)) else {
        return Ok(());
    };
    parser.use_trainable(&values)?;
    check::pictures(parser).map(drop).context("running it")
}

fn fault(trouble: &ModelTrouble) -> JobFault {
    match trouble {
        ModelTrouble::PublicCheck { .. } => JobFault::PublicCheck,
        ModelTrouble::Home(HomeError::Edge(_) | HomeError::DiskFull { .. }) => JobFault::Storage,
        ModelTrouble::Unusable { .. } | ModelTrouble::Home(_) => JobFault::Unusable,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fleet::small;
    use crate::testing::{Folder, settings};

    #[test]
    fn a_mirror_whose_own_network_fails_does_not_put_that_down_to_the_model() {
        let folder = Folder::new("trial");
        let home = small::home(&folder.path().join("home"));
        let mut vision = settings().vision;
        vision.model = folder.path().join("nothing there").display().to_string();
        let outcome = attempt(&home, &ModelSource::new(&vision), 4, b"parameters");
        assert_eq!(outcome, Err(JobFault::Storage));
    }

    #[test]
    fn the_assessment_says_how_soon_the_fleet_hears_of_a_trial() {
        const ASSESSMENT: &str = include_str!("../../../home/privacy-impact.md");
        let words: Vec<&str> = ASSESSMENT.split_whitespace().collect();
        assert_eq!(super::super::member::TRIAL, Duration::from_secs(10 * 60));
        assert!(words.join(" ").contains("no sooner than ten minutes after the trial began"));
    }
}
