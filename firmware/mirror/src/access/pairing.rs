//! The code on the mirror's screen. Whoever can read it stands in front of the mirror.
//!
//! Nobody in the home can keep the others from pairing by asking for codes, or by guessing at them, within a few hours: both
//! are counted for each address. Whoever takes several addresses, or their time, can; `mirror pair` on the mirror gives
//! codes all the same, which end only after [`ATTEMPTS_AT_DEVICE`] wrong guesses. That takes ten addresses a code, none of which
//! has guesses left at the next one for an hour.
//!
//! What guessing can reach, among a million codes: all addresses together have [`GUESSES`] at the codes that the network asked
//! for, a chance of 1 in 20,800. They do not come back with time, but with the next pairing and with the mirror's next start.
//! At a code that somebody asked for at the mirror they have [`ATTEMPTS_AT_DEVICE`], 1 in 33,300. The glass tells of wrong
//! guesses, and of who was paired, for a while ([`Pairing::news`]).
//!
//! Pure: time comes in as a duration since any fixed moment, so that tests decide when it passes.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use subtle::ConstantTimeEq;
use tracing::warn;

use crate::access::news::News;
use crate::access::{AccessError, random};
use crate::shared::lock;

/// A code is good for this long: whoever types slowly is to come to its end. Guesses are limited by their count. Whoever asks for codes
/// again and again can cover the overlay with them for most of an hour; the notice says that somebody asks, and the setting who may.
pub const VALID: Duration = Duration::from_secs(300);
/// Guesses at one code that the network asked for.
pub const ATTEMPTS: u32 = 6;
/// Guesses at one code that was asked for at the mirror: so many that a few addresses cannot end it.
pub const ATTEMPTS_AT_DEVICE: u32 = 30;
/// Guesses of one address at one code. The code that it asked for itself ends with them; another's goes on.
pub const ATTEMPTS_OF_ONE: u32 = 3;
/// Codes that the home network may ask for in [`WINDOW`].
pub const CODES: usize = 8;
/// Codes that one address may ask for in [`WINDOW`].
pub const CODES_OF_ONE: usize = 4;
/// Wrong guesses of one address in [`WINDOW`] at the network's codes. At the mirror's own it has [`ATTEMPTS_OF_ONE`]
/// besides: whoever mistypes too often is sent there, and waits who does so there, too.
pub const GUESSES_OF_ONE: u32 = 6;
/// See [`CODES`] and [`GUESSES_OF_ONE`].
pub const WINDOW: Duration = Duration::from_secs(3600);
/// Wrong guesses of all addresses together at the network's codes until a browser is paired.
pub const GUESSES: u32 = 48;

const DIGITS: usize = 6;
const CODE_COUNT: u32 = 1_000_000;

/// Who asks for a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Somebody at the mirror itself.
    Device,
    /// Somebody on the home network, at this address.
    Network(IpAddr),
}

impl Asker {
    fn at(address: IpAddr) -> Asker {
        Asker::Network(address.to_canonical())
    }
}

/// A code that is on the screen now.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown {
    /// Six digits.
    pub code: String,
    /// Time that it is still good for.
    pub left: Duration,
    /// Guesses that are left to whoever asked.
    pub attempts: u32,
    /// Whether it was made just now.
    pub fresh: bool,
    /// Whether somebody asked for it at the mirror.
    pub at_device: bool,
}

/// Why nothing was paired.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum Refusal {
    #[error("too many codes were asked for; wait {} min, or {AT_THE_MIRROR}", minutes(*wait))]
    TooMany { wait: Duration },
    #[error("there is no code now; ask for a new one")]
    NoCode,
    #[error("that is not the code; tries left: {left}")]
    Wrong { left: u32 },
    #[error("that was not the code either; ask for a new one")]
    LastWrong,
    #[error("no more tries at this code; it ends in {} s, then ask for a new one", wait.as_secs() + 1)]
    Spent { wait: Duration },
    #[error("{}", too_many_wrong(*wait, *at_device))]
    TooManyWrong { wait: Duration, at_device: bool },
    #[error("too many wrong codes were typed in this home; {AT_THE_MIRROR}")]
    Locked,
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// What ends a wait; many a mirror has nothing to type on.
const AT_THE_MIRROR: &str =
    "start the mirror anew; where it has a keyboard, `mirror pair` gives a code at once";

fn too_many_wrong(wait: Duration, at_device: bool) -> String {
    let otherwise = if at_device { "use another device" } else { AT_THE_MIRROR };
    format!("too many wrong codes came from here; wait {} min, or {otherwise}", minutes(wait))
}

fn minutes(time: Duration) -> u64 {
    time.as_secs().div_ceil(60).max(1)
}

/// The pairing in progress, if there is one.
#[derive(Default)]
pub struct Pairing(Mutex<State>);

#[derive(Default)]
struct State {
    current: Option<Current>,
    /// When the home network asked for codes that nobody used, and who did.
    asked: VecDeque<(Duration, IpAddr)>,
    /// Wrong guesses of the last [`WINDOW`].
    wrong: VecDeque<Wrong>,
    /// Those that count for [`GUESSES`].
    guessed: u32,
    /// What the glass tells of all this.
    news: News,
}

/// A wrong guess.
struct Wrong {
    at: Duration,
    from: IpAddr,
    /// Whether the code was asked for at the mirror.
    at_device: bool,
}

struct Current {
    code: [u8; DIGITS],
    until: Duration,
    asker: Asker,
    /// Wrong guesses of each address.
    wrong: HashMap<IpAddr, u32>,
}

impl Current {
    fn is_at_device(&self) -> bool {
        self.asker == Asker::Device
    }

    /// Guesses left to all together.
    fn attempts(&self) -> u32 {
        let most = if self.is_at_device() { ATTEMPTS_AT_DEVICE } else { ATTEMPTS };
        most.saturating_sub(self.wrong.values().sum())
    }

    fn attempts_of(&self, address: IpAddr) -> u32 {
        let wrong = self.wrong.get(&address).copied().unwrap_or(0);
        ATTEMPTS_OF_ONE.saturating_sub(wrong).min(self.attempts())
    }

    fn shown(&self, attempts: u32, now: Duration, fresh: bool) -> Shown {
        let code = String::from_utf8_lossy(&self.code).into_owned();
        let left = self.until - now;
        Shown { code, left, attempts, fresh, at_device: self.is_at_device() }
    }
}

impl State {
    fn forget_old(&mut self, now: Duration) {
        let is_old = |at: Duration| now.saturating_sub(at) >= WINDOW;
        while self.asked.front().is_some_and(|(at, _)| is_old(*at)) {
            self.asked.pop_front();
        }
        while self.wrong.front().is_some_and(|wrong| is_old(wrong.at)) {
            self.wrong.pop_front();
        }
        self.current.take_if(|current| now >= current.until);
    }

    /// Notes that this address asks for a code, if there is one for it.
    fn note_asked(&mut self, address: IpAddr, now: Duration) -> Result<(), Refusal> {
        if self.is_locked() {
            return Err(Refusal::Locked);
        }
        self.guesses_of(address, false, now)?;
        let own: Vec<Duration> =
            self.asked.iter().filter(|(_, who)| *who == address).map(|(asked, _)| *asked).collect();
        let first = match self.asked.front() {
            Some((first, _)) if self.asked.len() >= CODES => Some(first),
            _ => own.first().filter(|_| own.len() >= CODES_OF_ONE),
        };
        if let Some(first) = first {
            return Err(Refusal::TooMany { wait: WINDOW.saturating_sub(now - *first) });
        }
        self.asked.push_back((now, address));
        Ok(())
    }

    /// Whether one more code of the network's would allow more than [`GUESSES`].
    fn is_locked(&self) -> bool {
        self.guessed + ATTEMPTS > GUESSES
    }

    /// Guesses, 1 and more, that the [`WINDOW`] leaves to an address at the mirror's own codes, or at the network's.
    fn guesses_of(&self, address: IpAddr, at_device: bool, now: Duration) -> Result<u32, Refusal> {
        let most = if at_device { ATTEMPTS_OF_ONE } else { GUESSES_OF_ONE };
        let is_its = |wrong: &&Wrong| wrong.from == address && wrong.at_device == at_device;
        let its: Vec<Duration> = self.wrong.iter().filter(is_its).map(|wrong| wrong.at).collect();
        match (most.saturating_sub(its.len() as u32), its.first()) {
            (0, Some(first)) => {
                let wait = WINDOW.saturating_sub(now - *first);
                Err(Refusal::TooManyWrong { wait, at_device })
            }
            (left, _) => Ok(left),
        }
    }

    /// Guesses, 1 and more, that are left to somebody at this code.
    fn attempts(&self, current: &Current, asker: Asker, now: Duration) -> Result<u32, Refusal> {
        let Asker::Network(address) = asker else { return Ok(current.attempts()) };
        let left = self.guesses_of(address, current.is_at_device(), now)?;
        match left.min(current.attempts_of(address)) {
            0 => Err(Refusal::Spent { wait: current.until - now }),
            attempts => Ok(attempts),
        }
    }

    fn note_wrong(&mut self, current: &mut Current, from: IpAddr, now: Duration) {
        // Guesses that count are few; what is refused before it is compared must not fill the journal.
        warn!("pairing: a wrong code was typed on the home network");
        *current.wrong.entry(from).or_default() += 1;
        let at_device = current.is_at_device();
        self.wrong.push_back(Wrong { at: now, from, at_device });
        self.guessed += u32::from(!at_device);
        let its = self.wrong.iter().filter(|wrong| wrong.from == from).count();
        if its >= ATTEMPTS_OF_ONE as usize || current.attempts() == 0 || self.is_locked() {
            self.news.note_wrong(now);
        }
    }
}

impl Pairing {
    /// Nothing in progress.
    pub fn new() -> Pairing {
        Pairing::default()
    }

    /// Makes a code, or gives the one that is on the screen already: nobody can take another's code away by asking. Whoever asks
    /// at the mirror makes it one that was asked for there.
    ///
    /// # Errors
    /// Too many codes that nobody used; no more guesses at the one on the screen; no entropy.
    pub fn begin(&self, asker: Asker, now: Duration) -> Result<Shown, Refusal> {
        let asker = match asker {
            Asker::Network(address) => Asker::at(address),
            Asker::Device => Asker::Device,
        };
        let mut state = lock(&self.0);
        state.forget_old(now);
        if let Some(current) = state.current.as_mut().filter(|_| asker == Asker::Device) {
            current.asker = asker;
        }
        if let Some(current) = &state.current {
            let attempts = state.attempts(current, asker, now)?;
            return Ok(current.shown(attempts, now, false));
        }
        if let Asker::Network(address) = asker {
            state.note_asked(address, now)?;
        }
        let current = Current { code: code()?, until: now + VALID, asker, wrong: HashMap::new() };
        let shown = current.shown(state.attempts(&current, asker, now)?, now, true);
        state.current = Some(current);
        Ok(shown)
    }

    /// Uses a code up; any number of guesses takes the same time to compare.
    ///
    /// # Errors
    /// A wrong code, none to compare with, or no more guesses for this address.
    pub fn finish(&self, given: &str, from: IpAddr, now: Duration) -> Result<(), Refusal> {
        let from = from.to_canonical();
        let mut state = lock(&self.0);
        state.forget_old(now);
        let Some(mut current) = state.current.take() else { return Err(Refusal::NoCode) };
        if let Err(refusal) = state.attempts(&current, Asker::Network(from), now) {
            state.current = Some(current);
            return Err(refusal);
        }
        let digits: Vec<u8> = given.bytes().filter(|byte| !b" -".contains(byte)).collect();
        if bool::from(current.code.as_slice().ct_eq(&digits)) {
            state.asked.clear();
            state.wrong.retain(|wrong| wrong.from != from);
            state.guessed = 0;
            return Ok(());
        }
        state.note_wrong(&mut current, from, now);
        let left = state.attempts(&current, Asker::Network(from), now);
        let is_own = current.asker == Asker::Network(from);
        if current.attempts() == 0 || is_own && left.is_err() {
            return Err(Refusal::LastWrong);
        }
        state.current = Some(current);
        Err(left.map_or_else(|refusal| refusal, |left| Refusal::Wrong { left }))
    }

    /// Ends the code that is shown; what was guessed before still counts.
    pub fn end(&self) {
        lock(&self.0).current = None;
    }

    /// Notes that this browser was paired.
    pub fn note_paired(&self, id: String, name: String, now: Duration) {
        lock(&self.0).news.note_paired(id, &name, now);
    }

    /// What those who live here should know about pairing now: of browsers that are paired still, as `is_paired` knows by their ids.
    pub fn news(&self, now: Duration, is_paired: impl Fn(&str) -> bool) -> Option<String> {
        lock(&self.0).news.text(now, is_paired)
    }
}

/// Six digits, each code as likely as any other.
fn code() -> Result<[u8; DIGITS], AccessError> {
    // The largest multiple of a million below 2^32; what lies above would make small codes likelier.
    const FAIR: u32 = u32::MAX / CODE_COUNT * CODE_COUNT;
    let number = loop {
        let drawn = u32::from_le_bytes(random()?);
        if drawn < FAIR {
            break drawn % CODE_COUNT;
        }
    };
    let mut code = [0; DIGITS];
    code.copy_from_slice(format!("{number:06}").as_bytes());
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::news::{PAIRED_TOLD, WRONG_TOLD};

    const START: Duration = Duration::from_secs(1000);
    const PHONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const GUEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 66));

    fn begin(pairing: &Pairing, now: Duration) -> Shown {
        let shown = pairing.begin(Asker::Network(PHONE), now);
        shown.unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    /// An address for every number.
    fn other(number: u8) -> IpAddr {
        IpAddr::from([198, 51, 100, number])
    }

    #[test]
    fn a_code_is_good_once_and_may_be_typed_with_a_gap() {
        let pairing = Pairing::new();
        let shown = begin(&pairing, START);
        assert!(shown.code.len() == 6 && shown.code.bytes().all(|byte| byte.is_ascii_digit()));
        let spaced = format!("{} {}", &shown.code[..3], &shown.code[3..]);
        assert!(pairing.finish(&spaced, PHONE, START).is_ok());
        assert!(matches!(pairing.finish(&shown.code, PHONE, START), Err(Refusal::NoCode)));
    }

    #[test]
    fn a_code_dies_after_five_minutes() {
        let pairing = Pairing::new();
        let shown = begin(&pairing, START);
        let almost = START + VALID - Duration::from_millis(1);
        assert!(matches!(pairing.finish("x", PHONE, almost), Err(Refusal::Wrong { .. })));
        assert!(matches!(pairing.finish(&shown.code, PHONE, START + VALID), Err(Refusal::NoCode)));
    }

    #[test]
    fn three_wrong_guesses_end_an_own_code() {
        let pairing = Pairing::new();
        let shown = begin(&pairing, START);
        let wrong = if shown.code == "000000" { "000001" } else { "000000" };
        let guess = |code: &str| pairing.finish(code, PHONE, START);
        assert!(matches!(guess(wrong), Err(Refusal::Wrong { left: 2 })));
        assert!(matches!(guess(""), Err(Refusal::Wrong { left: 1 })));
        assert!(matches!(guess("1234567"), Err(Refusal::LastWrong)));
        assert!(matches!(guess(&shown.code), Err(Refusal::NoCode)));
    }

    #[test]
    fn another_s_code_outlives_a_guest_s_guesses() {
        for asker in [Asker::Device, Asker::Network(PHONE)] {
            let pairing = Pairing::new();
            let shown = pairing.begin(asker, START).expect("a first code");
            let guess = |code: &str| pairing.finish(code, GUEST, START);
            assert!(matches!([guess("x"), guess("x")], [Err(Refusal::Wrong { .. }), Err(_)]));
            let is_out = |refusal: &Refusal| match asker {
                Asker::Device => matches!(refusal, Refusal::TooManyWrong { .. }),
                Asker::Network(_) => matches!(refusal, Refusal::Spent { .. }),
            };
            assert!(guess("x").is_err_and(|refusal| is_out(&refusal)));
            assert!(guess(&shown.code).is_err_and(|refusal| is_out(&refusal)), "the right one");
            let again = pairing.begin(Asker::Network(GUEST), START);
            assert!(again.is_err_and(|refusal| is_out(&refusal)));
            assert!(pairing.finish(&shown.code, PHONE, START).is_ok());
        }
    }

    /// Guesses at the code on the screen, from as many addresses as it takes, until it ends; how many there were.
    fn guess_to_the_end(pairing: &Pairing, first: u8, now: Duration) -> u32 {
        let mut guesses = 0;
        for number in first..=u8::MAX {
            for _ in 0..ATTEMPTS_OF_ONE {
                guesses += 1;
                match pairing.finish("x", other(number), now).expect_err("wrong") {
                    Refusal::LastWrong => return guesses,
                    Refusal::Wrong { .. } => {}
                    _ => break,
                }
            }
        }
        panic!("{guesses} guesses, and it goes on");
    }

    #[test]
    fn all_addresses_together_have_six_guesses_at_a_code_and_thirty_at_the_mirror_s_own() {
        for (asker, guesses) in [(Asker::Device, ATTEMPTS_AT_DEVICE), (Asker::at(PHONE), ATTEMPTS)]
        {
            let pairing = Pairing::new();
            let shown = pairing.begin(asker, START).expect("a first code");
            assert_eq!(guess_to_the_end(&pairing, 0, START), guesses);
            assert!(matches!(pairing.finish(&shown.code, PHONE, START), Err(Refusal::NoCode)));
        }
    }

    #[test]
    fn two_addresses_cannot_end_what_was_asked_for_at_the_mirror() {
        let pairing = Pairing::new();
        for number in 0..20 {
            let now = START + VALID * number;
            let shown = pairing.begin(Asker::Device, now).expect("at the mirror always");
            for guest in [GUEST, other(1)] {
                assert!([(); 4].iter().all(|()| pairing.finish("x", guest, now).is_err()));
            }
            assert!(pairing.finish(&shown.code, PHONE, now).is_ok());
        }
    }

    #[test]
    fn nor_what_the_network_has_asked_for_before() {
        let pairing = Pairing::new();
        pairing.begin(Asker::Network(GUEST), START).expect("a first code");
        let shown = pairing.begin(Asker::Device, START).expect("the same one");
        assert!(shown.at_device && begin(&pairing, START).at_device, "it stays the mirror's own");
        for guest in [GUEST, other(1)] {
            assert!([(); 4].iter().all(|()| pairing.finish("x", guest, START).is_err()));
        }
        assert!(pairing.finish(&shown.code, PHONE, START).is_ok());
    }

    #[test]
    fn guesses_at_the_network_s_codes_do_not_come_back_with_time() {
        let pairing = Pairing::new();
        let year = (0..).map(|number| START + WINDOW * number).take(24 * 365);
        let ask = |now| pairing.begin(Asker::Network(PHONE), now);
        let guesses: u32 = year
            .clone()
            .filter(|now| ask(*now).is_ok())
            .map(|now| guess_to_the_end(&pairing, 0, now))
            .sum();
        assert_eq!(guesses, GUESSES);
        let now = START + WINDOW * 24 * 365;
        assert!(matches!(ask(now), Err(Refusal::Locked)));
        let shown = pairing.begin(Asker::Device, now).expect("at the mirror always");
        assert!(pairing.finish(&shown.code, PHONE, now).is_ok());
        assert!(ask(now).is_ok(), "somebody was there");
    }

    #[test]
    fn whoever_mistypes_too_often_is_sent_to_the_mirror() {
        let pairing = Pairing::new();
        for _ in 0..GUESSES_OF_ONE / ATTEMPTS_OF_ONE {
            begin(&pairing, START);
            let guesses =
                [(); ATTEMPTS_OF_ONE as usize].map(|()| pairing.finish("x", PHONE, START));
            assert!(matches!(guesses.last(), Some(Err(Refusal::LastWrong))));
        }
        let again = pairing.begin(Asker::Network(PHONE), START + WINDOW / 2);
        assert!(matches!(&again, Err(Refusal::TooManyWrong { wait, .. }) if *wait == WINDOW / 2));
        let shown = pairing.begin(Asker::Device, START).expect("at the mirror always");
        assert!(pairing.finish(&shown.code, PHONE, START).is_ok());
        begin(&pairing, START);
    }

    #[test]
    fn wrong_guesses_and_whoever_came_after_them_are_told_of_for_half_a_day() {
        let pairing = Pairing::new();
        let news = |now| pairing.news(now, |_| true).unwrap_or_default();
        begin(&pairing, START);
        let guess = |code: &str| pairing.finish(code, PHONE, START).is_ok();
        assert!(!guess("x") && !guess("x") && news(START).is_empty(), "two are a slip");
        assert!(!guess("x") && news(START).contains("wrong codes"), "{}", news(START));
        let shown = begin(&pairing, START);
        assert!(guess(&shown.code));
        pairing.note_paired("1".into(), "Ada's phone".into(), START);
        let late = START + WRONG_TOLD - Duration::from_secs(1);
        assert!(news(late).contains("wrong codes") && news(late).contains("Ada's phone"));
        assert!(news(START + WRONG_TOLD).is_empty());
        pairing.note_paired("2".into(), "Tablet".into(), START + WRONG_TOLD);
        assert_eq!(news(START + WRONG_TOLD), "A browser was paired: “Tablet”.");
        assert!(news(START + WRONG_TOLD + PAIRED_TOLD).is_empty());
    }

    #[test]
    fn whoever_has_to_wait_is_told_of_what_needs_no_keyboard() {
        let wait = Duration::from_secs(61);
        for refusal in [
            Refusal::TooMany { wait },
            Refusal::TooManyWrong { wait, at_device: false },
            Refusal::Locked,
        ] {
            let text = refusal.to_string();
            assert!(text.contains("start the mirror anew"), "{text}");
        }
    }

    #[test]
    fn whoever_came_after_wrong_codes_is_told_of_until_removed() {
        let pairing = Pairing::new();
        let news =
            |paired: &[&str]| pairing.news(START, |id| paired.contains(&id)).unwrap_or_default();
        begin(&pairing, START);
        assert!([(); 3].iter().all(|()| pairing.finish("x", PHONE, START).is_err()));
        pairing.note_paired("1".into(), "Stranger".into(), START);
        pairing.note_paired("2".into(), "Tablet".into(), START);
        let both = news(&["1", "2"]);
        assert!(both.contains("“Stranger”, “Tablet”") && both.contains("Remove"), "{both}");
        let own = news(&["2"]);
        assert!(own.contains("“Tablet”") && !own.contains("Stranger"), "{own}");
        assert_eq!(news(&[]), "", "it was done");
        for number in 3..6 {
            pairing.note_paired(number.to_string(), number.to_string(), START);
        }
        let many = news(&["1", "2", "3", "4", "5"]);
        assert!(many.contains("“Stranger”, “Tablet”, “3”, and 2 more"), "{many}");
        begin(&pairing, START);
        let later = START + Duration::from_secs(1);
        assert!([(); 3].iter().all(|()| pairing.finish("x", GUEST, later).is_err()));
        let again = pairing.news(later, |_| false);
        assert!(again.is_some_and(|text| text.contains("typed wrong codes")), "they go on");
    }

    #[test]
    fn asking_again_neither_changes_the_code_nor_gives_more_guesses() {
        let pairing = Pairing::new();
        let shown = begin(&pairing, START);
        let _ = pairing.finish("x", PHONE, START);
        let again = begin(&pairing, START + Duration::from_secs(30));
        assert_eq!((again.code, again.attempts), (shown.code, ATTEMPTS_OF_ONE - 1));
        assert_eq!(again.left, VALID - Duration::from_secs(30));
    }

    #[test]
    fn an_address_gets_four_unused_codes_an_hour_and_others_theirs() {
        let pairing = Pairing::new();
        let at = |number: u32| START + VALID * number;
        let mut now = (0..).map(at);
        let mut ask = |asker| pairing.begin(asker, now.next().expect("for ever"));
        for _ in 0..CODES_OF_ONE {
            assert!(ask(Asker::Network(GUEST)).is_ok());
        }
        let refused = |answer| matches!(answer, Err(Refusal::TooMany { .. }));
        assert!(refused(ask(Asker::Network(GUEST))));
        for number in CODES_OF_ONE..CODES {
            assert!(ask(Asker::Network(other(number as u8))).is_ok());
        }
        assert!(refused(ask(Asker::Network(PHONE))), "all together have had theirs");
        assert!(ask(Asker::Device).is_ok(), "the device is never locked out");
        begin(&pairing, START + WINDOW);
    }

    #[test]
    fn codes_differ() {
        let codes: std::collections::BTreeSet<_> =
            (0..64).map(|_| code().expect("entropy")).collect();
        assert!(codes.len() > 60);
    }
}
