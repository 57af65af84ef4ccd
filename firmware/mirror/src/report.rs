//! What the program says to whoever called it, and with which exit code it ends.

use std::io::{self, Write};

use anyhow::Error;
use settings::SettingsError;

/// A command line or a settings file that cannot be used; exit code 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// An error with its causes; a cause that the text already quotes is not repeated.
pub fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Why a thread could not be started, and what to do.
pub fn no_thread(error: &io::Error) -> String {
    format!("cannot start a thread: {error}; free memory, or raise the limit of threads")
}

/// Says on standard error what went wrong, where no log is kept. Nobody may be there to read it.
pub fn tell(error: &Error) {
    let _ = writeln!(io::stderr(), "mirror: {}", describe(error));
}

/// 2 for wrong usage or settings, 1 for everything else.
pub fn exit_code(error: &Error) -> u8 {
    let wrong_usage = error.chain().any(|cause| cause.is::<Usage>() || cause.is::<SettingsError>())
        || error.is::<Usage>();
    if wrong_usage { 2 } else { 1 }
}

/// Prints to standard output. A reader that has gone away (`mirror config show | head`) is fine.
///
/// # Errors
/// Any other failure, such as a full disk behind a redirection.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn causes_are_told_once() {
        let cause = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = Error::new(cause).context("cannot read a: no such file").context("loading");
        assert_eq!(describe(&error), "loading: cannot read a: no such file");
    }

    #[test]
    fn wrong_settings_are_told_from_failures() {
        assert_eq!(exit_code(&anyhow!("disk full")), 1);
        assert_eq!(exit_code(&Error::new(Usage("no".into())).context("settings")), 2);
    }
}
