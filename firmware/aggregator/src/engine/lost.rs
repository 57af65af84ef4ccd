//! Whether the fleet was told of rounds and versions that this database does not have: then it is an old copy.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Engine, Result};

/// The highest numbers that were announced with this fleet's key and that the database did not have then.
const ROUND_ANNOUNCED: &str = "round-announced";
const VERSION_ANNOUNCED: &str = "version-announced";

/// Numbers of a round and of a version; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// The round's.
    pub round: u64,
    /// The version's.
    pub version: u64,
}

impl Numbers {
    /// Of a round alone.
    pub fn of_round(round: u64) -> Numbers {
        Numbers { round, version: 0 }
    }

    /// Of a version alone.
    pub fn of_version(version: u64) -> Numbers {
        Numbers { round: 0, version }
    }

    fn exceed(self, other: Numbers) -> bool {
        self.round > other.round || self.version > other.version
    }

    fn or_higher(self, other: Numbers) -> Numbers {
        let (round, version) = (self.round.max(other.round), self.version.max(other.version));
        Numbers { round, version }
    }
}

/// The highest numbers that mirrors know, in a database that lacks some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost(pub Numbers);

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Numbers { round, version } = self.0;
        write!(
            formatter,
            "this database is older than what was announced, and mirrors ignore its next rounds and versions: stop the server, and \
             `aggregator restore --rounds-above {round} --versions-above {version}`"
        )
    }
}

impl Engine {
    /// Notes numbers that were announced with this fleet's key, where the database has no such round or version and was not told
    /// of them by [`Engine::restore`]. Gives what it lacks if it is the first to say so.
    ///
    /// What the broker has kept of them goes with the next announcement, so it is kept here.
    ///
    /// # Errors
    /// Of the database.
    pub fn note_announced(&self, announced: Numbers) -> Result<Option<Lost>> {
        let known = self.known_numbers()?.or_higher(self.noted_numbers()?);
        if !announced.exceed(known) {
            return Ok(None);
        }
        let Numbers { round, version } = known.or_higher(announced);
        self.decide(|decision| {
            decision.put_number(ROUND_ANNOUNCED, round)?;
            decision.put_number(VERSION_ANNOUNCED, version)
        })?;
        self.lost()
    }

    /// What mirrors know and this database does not; `None` where it is not older than what was announced.
    ///
    /// # Errors
    /// Of the database.
    pub fn lost(&self) -> Result<Option<Lost>> {
        let (known, noted) = (self.known_numbers()?, self.noted_numbers()?);
        Ok(noted.exceed(known).then(|| Lost(known.or_higher(noted))))
    }

    fn noted_numbers(&self) -> Result<Numbers> {
        let number = |name| Ok::<_, super::EngineError>(self.store.number(name)?.unwrap_or(0));
        Ok(Numbers { round: number(ROUND_ANNOUNCED)?, version: number(VERSION_ANNOUNCED)? })
    }

    /// The last that the database has, or was told of by [`Engine::restore`].
    fn known_numbers(&self) -> Result<Numbers> {
        let round = self.store.newest_round()?.map_or(0, |round| round.id);
        let version = self.store.newest_model(|_| true)?.map_or(0, |model| model.version);
        let (rounds_above, versions_above) =
            (self.store.rounds_above()?, self.store.versions_above()?);
        Ok(Numbers { round: round.max(rounds_above), version: version.max(versions_above) })
    }
}
