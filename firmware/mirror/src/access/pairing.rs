//! The code on the mirror's screen. Whoever can read it stands in front of the mirror.
//!
//! Pure: time comes in as a duration since any fixed moment, so that tests decide when it passes.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use subtle::ConstantTimeEq;

use crate::access::{AccessError, random};
use crate::shared::lock;

/// A code is good for this long.
pub const VALID: Duration = Duration::from_secs(120);
/// Guesses at one code.
pub const ATTEMPTS: u32 = 3;
/// Codes that the home network may ask for in [`WINDOW`]: twelve guesses an hour at a million codes, each of them
/// shown on the mirror.
pub const CODES: usize = 4;
/// See [`CODES`].
pub const WINDOW: Duration = Duration::from_secs(3600);

const DIGITS: usize = 6;
const CODE_COUNT: u32 = 1_000_000;

/// Who asks for a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Somebody at the mirror itself.
    Device,
    /// Somebody on the home network.
    Network,
}

/// A code that is on the screen now.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown {
    /// Six digits.
    pub code: String,
    /// Time that it is still good for.
    pub left: Duration,
    /// Guesses left.
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
    /// When the home network asked for codes that nobody used.
    asked: VecDeque<Duration>,
}

struct Current {
    code: [u8; DIGITS],
    until: Duration,
    attempts: u32,
}

impl Current {
    fn shown(&self, now: Duration, fresh: bool) -> Shown {
        Shown {
            code: String::from_utf8_lossy(&self.code).into_owned(),
            left: self.until - now,
            attempts: self.attempts,
            fresh,
        }
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
    /// Too many codes that nobody used; no entropy.
    pub fn begin(&self, asker: Asker, now: Duration) -> Result<Shown, Refusal> {
        let mut state = lock(&self.0);
        if let Some(current) = state.current.as_ref().filter(|current| now < current.until) {
            return Ok(current.shown(now, false));
        }
        if asker == Asker::Network {
            while state.asked.front().is_some_and(|asked| now.saturating_sub(*asked) >= WINDOW) {
                state.asked.pop_front();
            }
            if let (true, Some(first)) = (state.asked.len() >= CODES, state.asked.front()) {
                return Err(Refusal::TooMany { wait: WINDOW.saturating_sub(now - *first) });
            }
            state.asked.push_back(now);
        }
        let current = Current { code: code()?, until: now + VALID, attempts: ATTEMPTS };
        let shown = current.shown(now, true);
        state.current = Some(current);
        Ok(shown)
    }

    /// Uses a code up; any number of guesses takes the same time to compare.
    ///
    /// # Errors
    /// A wrong code, or none to compare with.
    pub fn finish(&self, given: &str, now: Duration) -> Result<(), Refusal> {
        let mut state = lock(&self.0);
        let Some(current) = state.current.as_mut().filter(|current| now < current.until) else {
            state.current = None;
            return Err(Refusal::NoCode);
        };
        let digits: Vec<u8> = given.bytes().filter(|byte| !b" -".contains(byte)).collect();
        if bool::from(current.code.as_slice().ct_eq(&digits)) {
            *state = State::default();
            return Ok(());
        }
        current.attempts -= 1;
        let left = current.attempts;
        if left == 0 {
            state.current = None;
            return Err(Refusal::LastWrong);
        }
        Err(Refusal::Wrong { left })
    }

    /// Time and guesses left of the code on the screen.
    pub fn current(&self, now: Duration) -> Option<(Duration, u32)> {
        let state = lock(&self.0);
        let current = state.current.as_ref().filter(|current| now < current.until)?;
        Some((current.until - now, current.attempts))
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

    fn begin(pairing: &Pairing, now: Duration) -> Shown {
        pairing.begin(Asker::Network, now).unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    #[test]
    fn a_code_is_good_once_and_may_be_typed_with_a_gap() {
        let pairing = Pairing::new();
        let shown = begin(&pairing, START);
        assert!(shown.code.len() == 6 && shown.code.bytes().all(|byte| byte.is_ascii_digit()));
        let spaced = format!("{} {}", &shown.code[..3], &shown.code[3..]);
        assert!(pairing.finish(&spaced, START).is_ok());
        assert!(matches!(pairing.finish(&shown.code, START), Err(Refusal::NoCode)));
    }

    #[test]
    fn a_code_dies_after_two_minutes() {
        let pairing = Pairing::new();
        let shown = begin(&pairing, START);
        assert!(pairing.current(START + VALID - Duration::from_millis(1)).is_some());
        assert!(matches!(pairing.finish(&shown.code, START + VALID), Err(Refusal::NoCode)));
        assert_eq!(pairing.current(START + VALID), None);
    }

    #[test]
    fn three_wrong_guesses_end_a_code() {
        let pairing = Pairing::new();
        let shown = begin(&pairing, START);
        let wrong = if shown.code == "000000" { "000001" } else { "000000" };
        assert!(matches!(pairing.finish(wrong, START), Err(Refusal::Wrong { left: 2 })));
        assert!(matches!(pairing.finish("", START), Err(Refusal::Wrong { left: 1 })));
        assert!(matches!(pairing.finish("1234567", START), Err(Refusal::LastWrong)));
        assert!(matches!(pairing.finish(&shown.code, START), Err(Refusal::NoCode)));
    }

    #[test]
    fn asking_again_neither_changes_the_code_nor_gives_more_guesses() {
        let pairing = Pairing::new();
        let shown = begin(&pairing, START);
        let _ = pairing.finish("x", START);
        let again = begin(&pairing, START + Duration::from_secs(30));
        assert_eq!((again.code, again.attempts), (shown.code, ATTEMPTS - 1));
        assert_eq!(again.left, VALID - Duration::from_secs(30));
    }

    #[test]
    fn the_network_gets_four_unused_codes_an_hour_and_the_device_is_never_locked_out() {
        let pairing = Pairing::new();
        let at = |number: u32| START + VALID * number;
        for number in 0..CODES as u32 {
            begin(&pairing, at(number));
        }
        let refused = pairing.begin(Asker::Network, at(CODES as u32));
        assert!(matches!(refused, Err(Refusal::TooMany { .. })));
        assert!(pairing.begin(Asker::Device, at(CODES as u32)).is_ok());
        begin(&pairing, START + WINDOW);
    }

    #[test]
    fn codes_differ() {
        let codes: std::collections::BTreeSet<_> =
            (0..64).map(|_| code().expect("entropy")).collect();
        assert!(codes.len() > 60);
    }
}
