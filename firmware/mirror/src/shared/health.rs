//! The states of a mirror's parts that a person may want to know, and the sentences that someone should read.

use std::time::Instant;

use crate::shared::SwitchedBy;

/// What the camera, or whatever stands in for it, is doing.
#[derive(Clone, Debug, PartialEq)]
pub enum CameraState {
    /// Being opened for the first time.
    Starting,
    /// Delivering pictures.
    On,
    /// Switched off by a person or a setting; not an error.
    Off {
        /// Who did it.
        by: SwitchedBy,
    },
    /// Gone or failing; it is tried again.
    Lost {
        /// Device, or the source's name.
        device: String,
        /// What went wrong, with the next step.
        reason: String,
        /// Whether its cable is worth a look.
        absent: bool,
        /// When it is tried again.
        retry_at: Instant,
    },
    /// A file was played to its end.
    Ended,
}

/// What the network is doing.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelState {
    /// Being read and checked.
    Loading,
    /// Parsing pictures.
    Ready {
        /// Name and version from its manifest.
        name: String,
    },
    /// Cannot be used.
    Failed {
        /// What went wrong, with the next step.
        reason: String,
        /// Whether it came with the program, and not from a folder.
        built_in: bool,
    },
}

/// Where the overlay is shown.
#[derive(Clone, Debug, PartialEq)]
pub enum DisplayState {
    /// Being opened for the first time.
    Opening,
    /// Showing.
    Open {
        /// What it is.
        name: String,
    },
    /// Not there; it is tried again.
    Missing {
        /// What went wrong, with the next step.
        reason: String,
    },
}

/// What a notice is about, most important first: the glass has room for one. There is at most one notice for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A part of the program that fails again and again.
    Program,
    /// A browser that was paired, or wrong codes.
    Pairing,
    /// The mirror's data folder.
    Storage,
    /// Something that was switched off, which the storage refuses to note.
    Withdrawal,
    /// The screen's shape.
    Screen,
    /// The temperature sensor.
    Temperature,
    /// A camera that sees nothing.
    Dark,
    /// The local page.
    Page,
    /// The page's door to the home network.
    Network,
    /// Learning at home.
    Learning,
    /// A head that cannot be used.
    Head,
    /// What is off because its words have changed, until somebody answers.
    Words,
    /// A question that somebody should answer on the page.
    Question,
    /// Membership in a fleet.
    Fleet,
    /// Home Assistant.
    HomeAssistant,
    /// The source of pictures.
    Source,
    /// The end of the mirror's certificate.
    Certificate,
}

const TOPICS: usize = Topic::Certificate as usize + 1;

/// What people deal with on the mirror's page: who is paired, what was learnt or switched off, and questions.
const FOR_THE_PAGE: [Topic; 5] =
    [Topic::Pairing, Topic::Withdrawal, Topic::Learning, Topic::Words, Topic::Question];

/// Letters of a notice. Some quote what others sent or named: nobody is to fill the glass with it, or keep the mirror busy drawing it.
const MOST_LETTERS: usize = 400;

/// What is kept of a notice: its first letters, and a mark if there are more.
fn kept_of(notice: &str) -> (&str, &'static str) {
    match notice.char_indices().nth(MOST_LETTERS) {
        Some((end, _)) => (&notice[..end], "…"),
        None => (notice, ""),
    }
}

/// Sentences that someone should read, most important first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notices([Option<String>; TOPICS]);

impl Notices {
    /// Replaces the notice on a topic. Of one that is longer than `MOST_LETTERS` only so many are kept.
    pub fn set(&mut self, topic: Topic, notice: Option<String>) {
        self.0[topic as usize] = notice.map(|mut notice| {
            let (letters, mark) = kept_of(&notice);
            let end = letters.len();
            notice.truncate(end);
            notice.push_str(mark);
            notice
        });
    }

    /// Whether [`Notices::set`] with this notice would change nothing.
    pub fn has(&self, topic: Topic, notice: Option<&str>) -> bool {
        match (self.get(topic), notice.map(kept_of)) {
            (Some(kept), Some((letters, mark))) => kept.strip_prefix(letters) == Some(mark),
            (kept, notice) => kept.is_none() && notice.is_none(),
        }
    }

    /// The notice on a topic.
    pub fn get(&self, topic: Topic) -> Option<&str> {
        self.0[topic as usize].as_deref()
    }

    /// The most important one.
    pub fn first(&self) -> Option<&str> {
        self.iter().next()
    }

    /// Whether the most important one is dealt with on the mirror's page.
    pub fn first_is_for_the_page(&self) -> bool {
        let first = self.0.iter().position(Option::is_some);
        FOR_THE_PAGE.iter().any(|topic| first == Some(*topic as usize))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flatten().map(String::as_str)
    }
}

/// The states a person may want to know.
#[derive(Clone, Debug)]
pub struct Health {
    /// The camera.
    pub camera: CameraState,
    /// Whether light falls on a sensor that the mirror reads: a camera, no file, is open.
    pub sensor_open: bool,
    /// The network.
    pub model: ModelState,
    /// Set while the network rests because the board is too hot: degrees Celsius.
    pub too_hot: Option<f64>,
    /// Description of the open source.
    pub source: String,
    /// Whether it is the demo scene, whose people nobody's reflection is.
    pub demo: bool,
    /// Whether nobody asked for that: it stands in for a camera that is not there.
    pub stands_in: bool,
    /// The display.
    pub display: DisplayState,
    /// Address of the page while it is served.
    pub page: Option<String>,
    /// Where the home network finds the page, while it does.
    pub network: Option<String>,
    /// Whether the page's door to the home network is open, and this machine in no network.
    pub alone: bool,
    /// What someone should read.
    pub notices: Notices,
    /// A code to be shown, because somebody asked for one.
    pub pairing: Option<PairingCode>,
}

impl Health {
    /// Of a mirror that starts, with this state of its camera.
    pub fn of_start(camera: CameraState) -> Health {
        Health {
            camera,
            sensor_open: false,
            model: ModelState::Loading,
            too_hot: None,
            source: String::new(),
            demo: false,
            stands_in: false,
            display: DisplayState::Opening,
            page: None,
            network: None,
            alone: false,
            notices: Notices::default(),
            pairing: None,
        }
    }

    /// Who switched the camera off, while it is off.
    pub fn off_by(&self) -> Option<SwitchedBy> {
        match self.camera {
            CameraState::Off { by } => Some(by),
            _ => None,
        }
    }
}

/// A pairing code for the mirror's screen.
#[derive(Clone, PartialEq, Eq)]
pub struct PairingCode {
    /// The digits, in groups.
    pub code: String,
    /// Where the page is.
    pub address: Option<String>,
    /// SHA-256 of the certificate.
    pub fingerprint: String,
    /// What to do with it, and what to compare, where it is shown over the overlay.
    pub words: String,
    /// Whether it was asked for at the mirror: then it may have the whole screen.
    pub at_device: bool,
    /// When it stops being good, or leaves the screen.
    pub until: Instant,
    /// Wrong guesses have ended it.
    pub spoiled: bool,
}

/// Without the digits: a code is on the screen and nowhere else.
impl std::fmt::Debug for PairingCode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PairingCode").field("until", &self.until).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_that_others_made_long_is_cut_between_letters() {
        let mut notices = Notices::default();
        let long = "ä艾".repeat(MOST_LETTERS);
        notices.set(Topic::Fleet, Some(long.clone()));
        let kept = notices.get(Topic::Fleet).expect("kept");
        assert_eq!(kept, format!("{}…", "ä艾".repeat(MOST_LETTERS / 2)));
        assert!(notices.has(Topic::Fleet, Some(&long)), "the same one is no news");
        assert!(!notices.has(Topic::Fleet, Some("ä")) && !notices.has(Topic::Fleet, None));
        let whole = &long[..long.len() / 2];
        notices.set(Topic::Fleet, Some(whole.to_owned()));
        assert_eq!(notices.get(Topic::Fleet), Some(whole));
        assert!(!notices.has(Topic::Fleet, Some(&long)), "there is more of it");
    }

    #[test]
    fn a_part_that_fails_again_and_again_is_told_first() {
        let mut notices = Notices::default();
        for topic in [Topic::Source, Topic::Storage, Topic::Pairing, Topic::Program] {
            notices.set(topic, Some(format!("{topic:?}")));
        }
        let order: Vec<&str> = notices.iter().collect();
        assert_eq!(order, ["Program", "Pairing", "Storage", "Source"]);
        assert!(!notices.first_is_for_the_page());
        notices.set(Topic::Program, None);
        assert!(notices.first_is_for_the_page());
    }
}
