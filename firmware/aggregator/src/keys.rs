//! The fleet's two secrets: the key that signs, and the secret from which every device's is made.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use learn::edges::{Digest, EdgeError, Entropy, SystemEntropy};

use crate::files;
use crate::hex;
use crate::store::{Store, StoreError};

/// Why the secrets cannot be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum KeyError {
    #[error("cannot {operation} {path}: {source}")]
    File { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error(
        "there is no {0}; restore it from a backup: mirrors believe no other key, and `aggregator init` makes none for a fleet that \
         has a past"
    )]
    Absent(PathBuf),
    #[error("there is no {0}: `aggregator init` did not come to its end; run it again")]
    Unfinished(PathBuf),
    #[error("{0} can be read by others; `chmod 600` it, and consider the fleet's keys known")]
    Open(PathBuf),
    #[error("{0} does not hold 64 hexadecimal digits; restore it from a backup")]
    Content(PathBuf),
    #[error(transparent)]
    Entropy(#[from] EdgeError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Both secrets.
pub struct Keys {
    /// Signs statements and the audit log.
    pub signing: SigningKey,
    /// From which the devices' secrets are made.
    pub devices: [u8; 32],
}

impl Keys {
    /// Makes those that are not there. Only for a fleet without a past: see [`Keys::of`].
    pub fn create(folder: &Path) -> Result<Keys, KeyError> {
        for name in ["signing.key", "devices.key"] {
            let mut secret = [0; 32];
            SystemEntropy.fill(&mut secret)?;
            let path = folder.join(name);
            if !path.try_exists().map_err(failed("look at", &path))? {
                files::write(&path, &hex::encode(&secret)).map_err(failed("write", &path))?;
            }
        }
        let keys = Keys::read(folder)?;
        let public = folder.join("signing.pub");
        let text = format!("{}\n", hex::encode(keys.signing.verifying_key().as_bytes()));
        files::write(&public, &text).map_err(failed("write", &public))?;
        Ok(keys)
    }

    /// The keys of the fleet whose database is `store`; where `make` and nothing was ever decided in it, new ones.
    ///
    /// # Errors
    /// A key that is missing, or cannot be used.
    pub fn of(store: &Store, folder: &Path, make: bool) -> Result<Keys, KeyError> {
        let has_past = store.first_entry()?.is_some();
        if make && !has_past {
            return Keys::create(folder);
        }
        Keys::read(folder).map_err(|error| match error {
            KeyError::Absent(path) if !has_past => KeyError::Unfinished(path),
            error => error,
        })
    }

    /// Reads both.
    pub fn read(folder: &Path) -> Result<Keys, KeyError> {
        Ok(Keys {
            signing: SigningKey::from_bytes(&read(&folder.join("signing.key"))?),
            devices: read(&folder.join("devices.key"))?,
        })
    }
}

/// Whether a folder has the key of a fleet, readable or not.
pub fn is_signing_key_in(folder: &Path) -> bool {
    folder.join("signing.key").exists()
}

const CLIENT_CONTEXT: &[u8] = b"mirror aggregator client 1\n";

/// The same 16 digits at every start, which nobody can guess without the signing key. As part of a
/// client id they keep every other client of the broker from taking over the session.
pub fn client_tag(key: &SigningKey) -> String {
    let digest = Digest::of(&[CLIENT_CONTEXT, key.as_bytes()].concat());
    hex::encode(&digest.0[..8])
}

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> KeyError + 'a {
    move |source| KeyError::File { operation, path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<[u8; 32], KeyError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(KeyError::Absent(path.to_owned()));
        }
        Err(error) => return Err(failed("read", path)(error)),
    };
    let mode = fs::metadata(path).map_err(failed("look at", path))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(KeyError::Open(path.to_owned()));
    }
    hex::decode(text.trim()).ok_or_else(|| KeyError::Content(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Event;

    #[test]
    fn keys_stay_the_same_and_are_nobody_elses() {
        let folder = std::env::temp_dir().join(format!("aggregator-keys-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        assert!(matches!(Keys::read(&folder), Err(KeyError::Absent(_))));
        let first = Keys::create(&folder).unwrap();
        let again = Keys::create(&folder).unwrap();
        assert_eq!(first.signing.to_bytes(), again.signing.to_bytes());
        assert_eq!(first.devices, again.devices);
        fs::set_permissions(folder.join("signing.key"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Keys::read(&folder), Err(KeyError::Open(_))));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_new_fleet_keeps_the_devices_key_that_was_put_into_its_folder() {
        let folder = std::env::temp_dir().join(format!("aggregator-again-{}", std::process::id()));
        let (old, new) = (folder.join("old"), folder.join("new"));
        for folder in [&old, &new] {
            fs::create_dir_all(folder).unwrap();
        }
        let before = Keys::create(&old).unwrap();
        fs::copy(old.join("devices.key"), new.join("devices.key")).unwrap();
        let after = Keys::create(&new).unwrap();
        assert_eq!(after.devices, before.devices);
        assert_ne!(after.signing.to_bytes(), before.signing.to_bytes());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_client_tag_stays_and_is_another_ones_for_another_key() {
        let tag = |key| client_tag(&SigningKey::from_bytes(&[key; 32]));
        assert_eq!(tag(1), tag(1));
        assert_ne!(tag(1), tag(2));
        assert!(tag(1).len() == 16 && tag(1).bytes().all(|digit| digit.is_ascii_hexdigit()));
    }

    #[test]
    fn a_fleet_with_a_past_gets_no_new_keys() {
        let folder = std::env::temp_dir().join(format!("aggregator-past-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let store = Store::create(&folder.join("fleet.redb")).unwrap();
        let unfinished = Keys::of(&store, &folder, false).err().unwrap().to_string();
        assert!(
            unfinished.contains("signing.key") && unfinished.contains("run it again"),
            "{unfinished}"
        );
        let keys = Keys::of(&store, &folder, true).unwrap();
        let public_key = hex::encode(keys.signing.verifying_key().as_bytes());
        let created = Event::Created { public_key };
        store.decide(0, &keys.signing, |decision| decision.record(&created)).unwrap();
        assert_eq!(Keys::of(&store, &folder, true).unwrap().devices, keys.devices);
        for name in ["signing.key", "devices.key"] {
            let text = fs::read_to_string(folder.join(name)).unwrap();
            fs::remove_file(folder.join(name)).unwrap();
            let refused = Keys::of(&store, &folder, true).err().unwrap().to_string();
            assert!(refused.contains(name) && refused.contains("backup"), "{refused}");
            assert!(!folder.join(name).exists());
            files::write(&folder.join(name), &text).unwrap();
        }
        Keys::of(&store, &folder, true).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
