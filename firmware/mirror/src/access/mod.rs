//! Who may use the page from the home network: the mirror's certificate, pairing with the code on its screen, and
//! the browsers that were paired.
//!
//! Invariants: there is no password; a code exists only for five minutes after somebody asked for one, is shown on
//! the mirror itself, and dies after few guesses ([`pairing`]); of a browser's token only the hash is stored; the private key is readable by this user alone.

pub mod certificate;
mod news;
pub mod pairing;
pub mod sessions;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::private::PrivateError;
use certificate::Certificate;
use pairing::Pairing;
use sessions::Sessions;

/// Why the home network cannot be let in.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum AccessError {
    #[error(transparent)]
    File(#[from] PrivateError),
    #[error("{name} is damaged ({reason}); remove it, and {next}")]
    Damaged { name: &'static str, reason: String, next: &'static str },
    #[error("no certificate for this mirror: {0}")]
    Certificate(String),
    #[error("the operating system gave no entropy ({0}); nothing can be paired until it does")]
    Entropy(String),
}

/// Everything about access, shared by both doors.
pub struct Access {
    folder: PathBuf,
    certificate: OnceLock<Certificate>,
    /// The code on the screen.
    pub pairing: Pairing,
    /// The paired browsers.
    pub sessions: Sessions,
}

impl Access {
    /// Nobody but this machine's own browser, until [`Access::open`].
    pub fn closed(folder: &Path) -> Access {
        Access {
            folder: folder.to_owned(),
            certificate: OnceLock::new(),
            pairing: Pairing::new(),
            sessions: Sessions::none(folder),
        }
    }

    /// Reads certificate and paired browsers, or makes them; once that went well, it does nothing. Waits for the disk.
    ///
    /// # Errors
    /// A folder that cannot be used, or a file in it that is damaged; may be tried again.
    pub fn open(&self) -> Result<(), AccessError> {
        if self.certificate.get().is_some() {
            return Ok(());
        }
        let certificate = Certificate::load_or_make(&self.folder, &certificate::names())?;
        self.sessions.load()?;
        self.certificate.get_or_init(|| certificate);
        Ok(())
    }

    /// Present where the network's door is wanted and the data folder could be used.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.get()
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], AccessError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| AccessError::Entropy(error.to_string()))?;
    Ok(bytes)
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
