//! Progress of work that takes more than two seconds, on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Work that ends sooner shows nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// A terminal's line is rewritten this often; elsewhere (a log, a pipe) a line appears seldom.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Counts done pieces of work.
pub struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    started: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// Of `total` pieces; `what` names them in the plural, such as "pictures".
    pub fn new(what: &'static str, total: u64) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        Progress { what, total, done: 0, started: Instant::now(), shown: None, terminal }
    }

    /// One piece is done.
    pub fn advance(&mut self) {
        self.done += 1;
        let interval = if self.terminal { TERMINAL_INTERVAL } else { LOG_INTERVAL };
        let due = self.shown.is_none_or(|at| at.elapsed() >= interval);
        if due && self.started.elapsed() >= PATIENCE {
            self.shown = Some(Instant::now());
            self.show();
        }
    }

    fn show(&self) {
        let line = self.line(self.started.elapsed());
        let mut err = std::io::stderr().lock();
        // Progress that cannot be shown is no reason to stop working.
        let _ = if self.terminal { write!(err, "\r{line}\x1b[K") } else { writeln!(err, "{line}") };
        let _ = err.flush();
    }

    fn line(&self, elapsed: Duration) -> String {
        let left =
            elapsed.as_secs_f64() / self.done as f64 * self.total.saturating_sub(self.done) as f64;
        format!("{} of {} {}, {:.0} s left", self.done, self.total, self.what, left.ceil())
    }
}

impl Drop for Progress {
    /// Leaves the terminal's line empty for what is printed next.
    fn drop(&mut self) {
        if self.terminal && self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_what_is_done_did() {
        let progress = Progress { done: 25, ..Progress::new("pictures", 100) };
        assert_eq!(progress.line(Duration::from_secs(5)), "25 of 100 pictures, 15 s left");
    }
}
