//! Who may use the page from the home network: the mirror's certificate, pairing with the code on its screen, and
//! the browsers that were paired.
//!
//! Invariants: there is no password; a code exists only for two minutes after somebody asked for one, and is shown on
//! the mirror itself; of a browser's token only the hash is stored; the private key is readable by this user alone.

pub mod certificate;
pub mod pairing;
pub mod sessions;

use std::path::Path;

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
    #[error("{0} browsers are paired already; remove one of them on the page first")]
    TooMany(usize),
}

/// Everything about access, shared by both doors.
pub struct Access {
    /// Present while the network's door is wanted and the data folder could be used.
    pub certificate: Option<Certificate>,
    /// The code on the screen.
    pub pairing: Pairing,
    /// The paired browsers.
    pub sessions: Sessions,
}

impl Access {
    /// For a mirror that only its own browser may use.
    pub fn device_only(folder: &Path) -> Access {
        Access { certificate: None, pairing: Pairing::new(), sessions: Sessions::none(folder) }
    }

    /// Reads certificate and paired browsers, or makes them.
    ///
    /// # Errors
    /// A folder that cannot be used, or a file in it that is damaged.
    pub fn open(folder: &Path) -> Result<Access, AccessError> {
        Ok(Access {
            certificate: Some(Certificate::load_or_make(folder, &certificate::names())?),
            pairing: Pairing::new(),
            sessions: Sessions::open(folder)?,
        })
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

/// A folder of this process' own for a test; it does not exist yet.
#[cfg(test)]
fn test_folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("mirror-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}
