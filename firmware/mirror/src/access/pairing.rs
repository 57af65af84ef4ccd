//! The code on the mirror's screen. Whoever can read it stands in front of the mirror.
//!
//! Nobody in the home can keep the others from pairing by asking for codes, or by guessing at them: both are counted for
//! each address. Whoever takes many addresses can, for an hour at a time, and then `mirror pair` on the mirror still
//! gives codes. All addresses together have [`CODES`] times [`ATTEMPTS`] guesses an hour at codes that the network asked for:
//! 48 among a million codes, each of which was shown on the mirror; one address alone has 12 at its own.
//!
//! Pure: time comes in as a duration since any fixed moment, so that tests decide when it passes.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use subtle::ConstantTimeEq;

use crate::access::{AccessError, random};
use crate::shared::lock;

/// A code is good for this long.
pub const VALID: Duration = Duration::from_secs(120);
/// Guesses at one code.
pub const ATTEMPTS: u32 = 6;
/// Of one address. The code that it asked for itself ends with them; another's goes on.
pub const ATTEMPTS_OF_ONE: u32 = 3;
/// Codes that the home network may ask for in [`WINDOW`].
pub const CODES: usize = 8;
/// Of one address.
pub const CODES_OF_ONE: usize = 4;
/// See [`CODES`].
pub const WINDOW: Duration = Duration::from_secs(3600);

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
}

/// Why nothing was paired.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum Refusal {
    #[error("too many codes were asked for; wait {} minutes, or run `mirror pair` on the mirror", minutes(*wait))]
    TooMany { wait: Duration },
    #[error("there is no code now; ask for a new one")]
    NoCode,
    #[error("that is not the code; {left} more tries")]
    Wrong { left: u32 },
    #[error("that was not the code either; ask for a new one")]
    LastWrong,
    #[error("no more tries at this code; it ends in {} s, then ask for a new one", wait.as_secs() + 1)]
    Spent { wait: Duration },
    #[error(transparent)]
    Access(#[from] AccessError),
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
}

struct Current {
    code: [u8; DIGITS],
    until: Duration,
    asker: Asker,
    /// Wrong guesses of each address.
    wrong: HashMap<IpAddr, u32>,
}

impl Current {
    /// Guesses left to all together.
    fn attempts(&self) -> u32 {
        ATTEMPTS.saturating_sub(self.wrong.values().sum())
    }

    fn attempts_of(&self, asker: Asker) -> u32 {
        let Asker::Network(address) = asker else { return self.attempts() };
        let wrong = self.wrong.get(&address).copied().unwrap_or(0);
        ATTEMPTS_OF_ONE.saturating_sub(wrong).min(self.attempts())
    }

    fn shown(&self, asker: Asker, now: Duration, fresh: bool) -> Result<Shown, Refusal> {
        let left = self.until - now;
        match self.attempts_of(asker) {
            0 => Err(Refusal::Spent { wait: left }),
            attempts => {
                let code = String::from_utf8_lossy(&self.code).into_owned();
                Ok(Shown { code, left, attempts, fresh })
            }
        }
    }
}

impl State {
    /// Notes that this address asks for a code, if there is one for it.
    fn note_asked(&mut self, address: IpAddr, now: Duration) -> Result<(), Refusal> {
        let old = |(asked, _): &(Duration, IpAddr)| now.saturating_sub(*asked) >= WINDOW;
        while self.asked.front().is_some_and(old) {
            self.asked.pop_front();
        }
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
}

impl Pairing {
    /// Nothing in progress.
    pub fn new() -> Pairing {
        Pairing::default()
    }

    /// Makes a code, or gives the one that is on the screen already: nobody can take another's code away by asking.
    ///
    /// # Errors
    /// Too many codes that nobody used; no more guesses at the one on the screen; no entropy.
    pub fn begin(&self, asker: Asker, now: Duration) -> Result<Shown, Refusal> {
        let asker = match asker {
            Asker::Network(address) => Asker::at(address),
            Asker::Device => Asker::Device,
        };
        let mut state = lock(&self.0);
        if let Some(current) = state.current.as_ref().filter(|current| now < current.until) {
            return current.shown(asker, now, false);
        }
        if let Asker::Network(address) = asker {
            state.note_asked(address, now)?;
        }
        let current = Current { code: code()?, until: now + VALID, asker, wrong: HashMap::new() };
        let shown = current.shown(asker, now, true);
        state.current = Some(current);
        shown
    }

    /// Uses a code up; any number of guesses takes the same time to compare.
    ///
    /// # Errors
    /// A wrong code, none to compare with, or no more guesses for this address.
    pub fn finish(&self, given: &str, from: IpAddr, now: Duration) -> Result<(), Refusal> {
        let from = Asker::at(from);
        let mut state = lock(&self.0);
        let Some(current) = state.current.as_mut().filter(|current| now < current.until) else {
            state.current = None;
            return Err(Refusal::NoCode);
        };
        if current.attempts_of(from) == 0 {
            return Err(Refusal::Spent { wait: current.until - now });
        }
        let digits: Vec<u8> = given.bytes().filter(|byte| !b" -".contains(byte)).collect();
        if bool::from(current.code.as_slice().ct_eq(&digits)) {
            *state = State::default();
            return Ok(());
        }
        if let Asker::Network(address) = from {
            *current.wrong.entry(address).or_default() += 1;
        }
        let left = current.attempts_of(from);
        if left > 0 {
            return Err(Refusal::Wrong { left });
        }
        if current.asker != from && current.attempts() > 0 {
            return Err(Refusal::Spent { wait: current.until - now });
        }
        state.current = None;
        Err(Refusal::LastWrong)
    }

    /// Whether there is a code on the screen.
    pub fn is_shown(&self, now: Duration) -> bool {
        lock(&self.0).current.as_ref().is_some_and(|current| now < current.until)
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
    fn a_code_dies_after_two_minutes() {
        let pairing = Pairing::new();
        let shown = begin(&pairing, START);
        assert!(pairing.is_shown(START + VALID - Duration::from_millis(1)));
        assert!(matches!(pairing.finish(&shown.code, PHONE, START + VALID), Err(Refusal::NoCode)));
        assert!(!pairing.is_shown(START + VALID));
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
            assert!(matches!(guess("x"), Err(Refusal::Spent { .. })));
            assert!(
                matches!(guess(&shown.code), Err(Refusal::Spent { .. })),
                "not even the right one"
            );
            let again = pairing.begin(Asker::Network(GUEST), START);
            assert!(matches!(again, Err(Refusal::Spent { .. })));
            assert!(pairing.finish(&shown.code, PHONE, START).is_ok());
        }
    }

    #[test]
    fn all_addresses_together_have_six_guesses_at_a_code() {
        let pairing = Pairing::new();
        let shown = pairing.begin(Asker::Device, START).expect("a first code");
        for number in 0..ATTEMPTS as u8 {
            let last = number + 1 == ATTEMPTS as u8;
            let refusal = pairing.finish("x", other(number), START).expect_err("wrong");
            assert_eq!(matches!(refusal, Refusal::LastWrong), last, "{refusal}");
        }
        assert!(matches!(pairing.finish(&shown.code, PHONE, START), Err(Refusal::NoCode)));
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
