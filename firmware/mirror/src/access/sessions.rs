//! The paired browsers. Each has a token of its own, of which only the hash is kept here.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tracing::info;

use crate::access::{AccessError, hex, random};
use crate::private;
use crate::shared::lock;

/// The file that holds them.
const NAME: &str = "paired-browsers.json";
/// Browsers at most. One more takes the place of the one that was longest not here: most of the old ones have lost their cookie,
/// and whoever stands in front of the mirror cannot remove one before being paired.
pub const MOST: usize = 16;
/// Ends a file whose browsers are in the order of their last visits. Earlier versions wrote them in the order of their pairing, and
/// without it: they read this file too, but none with a key or a format that they do not know.
const IN_ORDER_OF_VISITS: &[u8] = b"\n";
/// "Last used" is written no more often than this, in seconds: flash wears.
const NOTE_EVERY: u64 = 3600;
/// Letters of a browser's name at most.
const LONGEST_NAME: usize = 40;

/// A paired browser, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Paired {
    /// Short name for programs.
    pub id: String,
    /// Name that its owner gave it.
    pub name: String,
    /// When it was paired, in seconds since 1970 by the mirror's clock, right or wrong.
    pub paired_at: u64,
    /// When it was here last, in seconds since 1970 by the mirror's clock, right or wrong.
    pub seen_at: u64,
    /// Shut out, but only until the mirror's next start: the disk did not take the end of its pairing.
    pub shut: bool,
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    id: String,
    name: String,
    /// SHA-256 of the token, hexadecimal.
    token_hash: String,
    paired_at: u64,
    seen_at: u64,
    /// See [`Paired::shut`]; what is written has none of them.
    #[serde(skip)]
    shut: bool,
    /// Which visit of all was its last one. Not by the clock, which may be decades off at a start and right later. What is written
    /// is in this order.
    #[serde(skip)]
    visit: u64,
}

impl Stored {
    fn paired(&self) -> Paired {
        Paired {
            id: self.id.clone(),
            // Earlier versions stored more of it.
            name: shown_name(&self.name),
            paired_at: self.paired_at,
            seen_at: self.seen_at,
            shut: self.shut,
        }
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    browsers: Vec<Stored>,
}

/// The paired browsers of this mirror. What asks, [`Sessions::find`] and its like, never waits for the disk.
pub struct Sessions {
    path: PathBuf,
    browsers: Mutex<Vec<Stored>>,
    /// Visits so far.
    visits: AtomicU64,
    /// Told when a pairing has ended.
    ends: watch::Sender<()>,
    /// Held while the file is written, and by nobody who asks.
    writing: Mutex<()>,
}

/// A visit of a paired browser.
#[derive(Debug, PartialEq, Eq)]
pub struct Visit {
    /// The browser's.
    pub id: String,
    /// The first one for a while: it is to be written down ([`Sessions::write_visits`]), and the browser's cookie to be renewed.
    pub is_noted: bool,
}

impl Sessions {
    /// None, and none stored so far.
    pub fn none(folder: &Path) -> Sessions {
        Sessions {
            path: folder.join(NAME),
            browsers: Mutex::default(),
            visits: AtomicU64::default(),
            ends: watch::Sender::new(()),
            writing: Mutex::default(),
        }
    }

    fn next_visit(&self) -> u64 {
        self.visits.fetch_add(1, Ordering::Relaxed)
    }

    /// Reads the stored ones.
    ///
    /// # Errors
    /// A file that cannot be read or understood: then nobody is let in.
    pub fn load(&self) -> Result<(), AccessError> {
        let Some(bytes) = private::read(&self.path)? else { return Ok(()) };
        let mut stored = parse(&bytes)?;
        if !bytes.ends_with(IN_ORDER_OF_VISITS) {
            stored.sort_by_key(|browser| browser.seen_at);
        }
        for browser in &mut stored {
            browser.visit = self.next_visit();
        }
        stored.sort_by_key(|browser| browser.paired_at);
        *lock(&self.browsers) = stored;
        Ok(())
    }

    /// Pairs a browser, in place of another where there are [`MOST`]; and its token, which is nowhere else. Waits for the disk.
    ///
    /// # Errors
    /// No entropy, or a disk that does not take it: then it is not paired.
    pub fn add(&self, name: &str, now: u64) -> Result<(Paired, String), AccessError> {
        let (id, token) = (hex(&random::<4>()?), hex(&random::<32>()?));
        let stored = Stored {
            id,
            name: shown_name(name),
            token_hash: hash(&token),
            paired_at: now,
            seen_at: now,
            shut: false,
            visit: self.next_visit(),
        };
        let paired = stored.paired();
        self.store(Some(stored))?;
        Ok((paired, token))
    }

    /// The browser with this token.
    pub fn find(&self, token: &str, now: u64) -> Option<Visit> {
        let given = hash(token);
        let mut browsers = lock(&self.browsers);
        let is_it =
            |stored: &&mut Stored| bool::from(stored.token_hash.as_bytes().ct_eq(given.as_bytes()));
        let found = browsers.iter_mut().find(is_it).filter(|stored| !stored.shut)?;
        found.visit = self.next_visit();
        let is_noted = now.abs_diff(found.seen_at) >= NOTE_EVERY;
        if is_noted {
            found.seen_at = now;
        }
        Some(Visit { id: found.id.clone(), is_noted })
    }

    /// Writes down who was here. Only a comfort: a disk that is full does not lock its owner out. Waits for the disk.
    pub fn write_visits(&self) {
        let _ = self.store(None);
    }

    /// Whether this browser is still paired.
    pub fn is_paired(&self, id: &str) -> bool {
        lock(&self.browsers).iter().any(|stored| stored.id == id && !stored.shut)
    }

    /// Waits until this browser is not paired any more.
    pub async fn ended(&self, id: &str) {
        let mut ends = self.ends.subscribe();
        while self.is_paired(id) {
            // Never an error: the sender is ours.
            let _ = ends.changed().await;
        }
    }

    /// All of them, the first one first.
    pub fn list(&self) -> Vec<Paired> {
        lock(&self.browsers).iter().map(Stored::paired).collect()
    }

    /// Ends a pairing at once, on the disk too; false when there was none. Waits for the disk.
    ///
    /// # Errors
    /// A disk that does not take it; the browser is shut out until the mirror starts again, and stays on the list, so that
    /// this can be repeated.
    pub fn revoke(&self, id: &str) -> Result<bool, AccessError> {
        match lock(&self.browsers).iter_mut().find(|stored| stored.id == id) {
            Some(stored) => stored.shut = true,
            None => return Ok(false),
        }
        self.write_ends()?;
        Ok(true)
    }

    /// [`Sessions::revoke`] for every browser.
    ///
    /// # Errors
    /// As [`Sessions::revoke`].
    pub fn revoke_all(&self) -> Result<(), AccessError> {
        lock(&self.browsers).iter_mut().for_each(|stored| stored.shut = true);
        self.write_ends()
    }

    /// Tells of whoever is shut out, and then writes it.
    fn write_ends(&self) -> Result<(), AccessError> {
        self.ends.send_replace(());
        self.store(None)
    }

    /// Writes who is paired, and one more; whoever is shut out is gone for good then.
    fn store(&self, more: Option<Stored>) -> Result<(), AccessError> {
        let _turn = lock(&self.writing);
        let mut paired = lock(&self.browsers).clone();
        paired.retain(|stored| !stored.shut);
        let gone = if more.is_some() { make_room(&mut paired) } else { Vec::new() };
        paired.extend(more.clone());
        paired.sort_by_key(|stored| stored.visit);
        let file = File { format: 1, browsers: paired };
        let mut text =
            serde_json::to_vec_pretty(&file).map_err(|error| damaged(error.to_string()))?;
        text.extend_from_slice(IN_ORDER_OF_VISITS);
        private::write(&self.path, &text)?;
        for Stored { id, .. } in gone {
            info!("the pairing of the browser that was longest not here has ended ({id})");
        }
        // Not replaced: others may have been seen, or shut out, meanwhile.
        let kept = |stored: &Stored| file.browsers.iter().any(|kept| kept.id == stored.id);
        let mut browsers = lock(&self.browsers);
        browsers.retain(kept);
        browsers.extend(more);
        drop(browsers);
        self.ends.send_replace(());
        Ok(())
    }
}

/// Takes those out that were longest not here, until there is room for one more.
fn make_room(browsers: &mut Vec<Stored>) -> Vec<Stored> {
    let mut gone = Vec::new();
    while browsers.len() >= MOST {
        let longest = browsers.iter().enumerate().min_by_key(|(_, stored)| stored.visit);
        let Some((at, _)) = longest else { break };
        gone.push(browsers.remove(at));
    }
    gone
}

fn parse(bytes: &[u8]) -> Result<Vec<Stored>, AccessError> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    match file.format {
        1 => Ok(file.browsers),
        other => Err(damaged(format!("format {other} is unknown"))),
    }
}

fn damaged(reason: String) -> AccessError {
    AccessError::Damaged { name: NAME, reason, next: "pair every browser again" }
}

fn hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

/// Format characters that nobody sees, and separators of lines: they may turn what stands behind them, or make two names look alike.
const UNSEEN: [RangeInclusive<char>; 12] = [
    '\u{ad}'..='\u{ad}',
    '\u{61c}'..='\u{61c}',
    '\u{180e}'..='\u{180e}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{feff}'..='\u{feff}',
    '\u{fff9}'..='\u{fffb}',
    '\u{13430}'..='\u{1343f}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e007f}',
];

/// What can be shown of a name: nothing that controls the letters around it, and not too long.
fn shown_name(name: &str) -> String {
    let is_seen = |letter: &char| {
        !letter.is_control() && !UNSEEN.iter().any(|unseen| unseen.contains(letter))
    };
    let plain: String = name.chars().filter(is_seen).take(LONGEST_NAME).collect();
    match plain.trim() {
        "" => "A browser".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;
    use std::future::poll_fn;
    use std::task::Poll;

    fn open(folder: &Path) -> Result<Sessions, AccessError> {
        let sessions = Sessions::none(folder);
        sessions.load().map(|()| sessions)
    }

    #[test]
    fn a_token_opens_after_a_restart_and_is_not_on_the_disk() {
        let folder = Folder::new("sessions");
        let sessions = open(folder.path()).expect("nothing stored");
        let (paired, token) = sessions.add("  Ada's phone\n", 100).expect("writable");
        let id = paired.id;
        let again = open(folder.path()).expect("stored");
        assert_eq!(again.find(&token, 200), Some(Visit { id: id.clone(), is_noted: false }));
        assert_eq!(again.find(&token[1..], 200), None);
        assert_eq!(again.find("", 200), None);
        assert_eq!(again.list()[0].name, "Ada's phone");
        let text = std::fs::read_to_string(folder.path().join(NAME)).expect("stored");
        assert!(!text.contains(&token) && text.contains(&hash(&token)));
        assert!(again.revoke(&id).expect("writable"));
        assert_eq!(again.find(&token, 300), None);
        assert_eq!(open(folder.path()).expect("stored").find(&token, 300), None);
        assert!(!again.revoke(&id).expect("writable"), "it was gone already");
    }

    #[test]
    fn nothing_unseen_turns_or_hides_a_name() {
        assert_eq!(shown_name("Ada\u{202e}enohp\u{2069}"), "Adaenohp");
        assert_eq!(shown_name("\u{200b}\u{feff}\u{e0041}\t"), "A browser");
        assert_eq!(shown_name("هاتف آدا 📱"), "هاتف آدا 📱");
        let folder = Folder::new("unseen");
        let sessions = open(folder.path()).expect("nothing stored");
        sessions.add("phone", 100).expect("writable");
        let mut browsers = lock(&sessions.browsers).clone();
        browsers[0].name = "pho\u{202e}ne".to_owned();
        let text = serde_json::to_vec_pretty(&File { format: 1, browsers }).expect("plain");
        private::write(&folder.path().join(NAME), &text).expect("writable");
        assert_eq!(open(folder.path()).expect("of an older version").list()[0].name, "phone");
    }

    #[test]
    fn a_removal_that_the_disk_does_not_take_shuts_out_at_once_and_can_be_repeated() {
        let folder = Folder::new("shut");
        let sessions = open(folder.path()).expect("nothing stored");
        let (Paired { id, .. }, token) = sessions.add("lost phone", 100).expect("writable");
        let (Paired { id: other, .. }, _) = sessions.add("tablet", 100).expect("writable");
        // Where the new file would be made there is a folder now.
        let blocked = folder.path().join(NAME).with_extension("part");
        std::fs::create_dir(&blocked).expect("writable");
        assert!(sessions.revoke(&id).is_err());
        assert!(sessions.find(&token, 200).is_none() && !sessions.is_paired(&id));
        let shut: Vec<bool> = sessions.list().iter().map(|paired| paired.shut).collect();
        assert_eq!(shut, [true, false], "on the list, to be removed again");
        std::fs::remove_dir(&blocked).expect("ours");
        assert!(sessions.revoke(&id).expect("writable"));
        let left = |sessions: &Sessions| -> Vec<String> {
            sessions.list().into_iter().map(|paired| paired.id).collect()
        };
        assert_eq!(left(&sessions), [other]);
        assert_eq!(left(&open(folder.path()).expect("stored")), left(&sessions));
    }

    #[test]
    fn a_visit_is_written_down_once_an_hour() {
        let folder = Folder::new("visits");
        let sessions = open(folder.path()).expect("nothing stored");
        let (_, token) = sessions.add("phone", 100).expect("writable");
        let is_noted = |now| sessions.find(&token, now).map(|visit| visit.is_noted);
        assert_eq!(is_noted(100 + NOTE_EVERY - 1), Some(false));
        assert_eq!(is_noted(100 + NOTE_EVERY), Some(true));
        assert_eq!(is_noted(101 + NOTE_EVERY), Some(false), "told once");
        sessions.write_visits();
        let again = open(folder.path()).expect("stored");
        assert_eq!(again.list()[0].seen_at, 100 + NOTE_EVERY);
    }

    #[test]
    fn one_browser_too_many_takes_the_place_of_the_one_that_was_longest_not_here() {
        let folder = Folder::new("most");
        let sessions = open(folder.path()).expect("nothing stored");
        let tokens: Vec<String> = (0..MOST as u64)
            .map(|number| sessions.add(&number.to_string(), number).expect("writable").1)
            .collect();
        assert!(sessions.find(&tokens[0], NOTE_EVERY).is_some());
        let (_, token) = sessions.add("one more", NOTE_EVERY).expect("always room");
        let is_paired = |token: &String| sessions.find(token, NOTE_EVERY).is_some();
        assert!(is_paired(&token) && is_paired(&tokens[0]) && !is_paired(&tokens[1]));
        assert_eq!(open(folder.path()).expect("stored").list(), sessions.list());
        assert_eq!(sessions.list().len(), MOST);
    }

    #[test]
    fn who_was_longest_not_here_is_not_told_by_the_clock() {
        let folder = Folder::new("clock");
        let sessions = open(folder.path()).expect("nothing stored");
        let today = 1_790_000_000;
        let tokens: Vec<String> = (1..MOST as u64)
            .map(|number| sessions.add(&number.to_string(), today + number).expect("writable").1)
            .collect();
        // A board without a battery for its clock starts in 1970.
        let sessions = open(folder.path()).expect("stored");
        let (_, phone) = sessions.add("phone", 10).expect("room");
        assert!(sessions.find(&tokens[0], 20).is_some_and(|visit| visit.is_noted));
        sessions.write_visits();
        let sessions = open(folder.path()).expect("stored");
        sessions.add("tablet", 30).expect("always room");
        let is_paired = |token: &String| sessions.find(token, 40).is_some();
        assert!(is_paired(&phone) && is_paired(&tokens[0]), "here a moment ago");
        assert!(!is_paired(&tokens[1]));
    }

    #[test]
    fn of_a_file_in_the_order_of_pairing_the_clock_tells_who_was_longest_not_here() {
        let folder = Folder::new("pairing-order");
        let sessions = open(folder.path()).expect("nothing stored");
        let tokens: Vec<String> = (1..=MOST as u64)
            .map(|number| sessions.add(&number.to_string(), number).expect("writable").1)
            .collect();
        let mut browsers = lock(&sessions.browsers).clone();
        // The one that was paired first was here last.
        browsers[0].seen_at = 1000;
        let text = serde_json::to_vec_pretty(&File { format: 1, browsers }).expect("plain");
        private::write(&folder.path().join(NAME), &text).expect("writable");
        let sessions = open(folder.path()).expect("of the version before");
        sessions.add("one more", 1001).expect("always room");
        let is_paired = |token: &String| sessions.find(token, 1002).is_some();
        assert!(is_paired(&tokens[0]) && !is_paired(&tokens[1]));
    }

    #[test]
    fn the_end_of_a_pairing_is_waited_for() {
        let folder = Folder::new("ended");
        let sessions = open(folder.path()).expect("nothing stored");
        let pair = |name: &str| sessions.add(name, 100).expect("writable").0.id;
        let ids: Vec<String> = (0..MOST).map(|number| pair(&number.to_string())).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut ended = std::pin::pin!(sessions.ended(&ids[0]));
            let mut has_ended = async || {
                poll_fn(|context| Poll::Ready(ended.as_mut().poll(context).is_ready())).await
            };
            assert!(!has_ended().await);
            sessions.revoke(&ids[1]).expect("writable");
            assert!(!has_ended().await, "another one");
            pair("in its place");
            assert!(!has_ended().await);
            pair("one too many");
            assert!(has_ended().await, "it had to make room");
            sessions.ended(&ids[1]).await;
        });
    }

    #[test]
    fn a_damaged_file_lets_nobody_in() {
        let folder = Folder::new("damaged");
        for text in ["", "{}", "{\"format\":2,\"browsers\":[]}", "[1]"] {
            std::fs::write(folder.path().join(NAME), text).expect("writable");
            assert!(open(folder.path()).is_err(), "{text}");
        }
    }

    #[test]
    fn nobody_is_paired_when_it_cannot_be_stored() {
        let sessions = Sessions::none(Path::new("/dev/null/data"));
        let error = sessions.add("x", 0).expect_err("no folder").to_string();
        assert!(error.contains("data_dir"), "{error}");
        assert!(sessions.list().is_empty());
    }
}
