//! The encrypted store: named byte strings, each sealed with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03).
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 4 | `MHV1` |
//! | 4 | 24 | nonce, drawn for every write |
//! | 28 | n + 16 | ciphertext and tag; the name is authenticated with it |
//!
//! The key is `SHA-256("mirror vault key 1" | key file | credential)`: 32 bytes of the operating system's entropy in a
//! file of its own folder, readable by the mirror's user only, and, where systemd gives one, a credential that is sealed
//! to this machine's TPM. Removing the key file makes everything unreadable at once.
//!
//! **Limits**
//! - Without a credential the key lies on the same disk: a copy of the store alone is useless, a copy of the whole disk
//!   is not.
//! - Flash memory may keep an old copy of a removed key file in blocks that it no longer shows.
//! - An older sealed file, put back under its own name, opens: the store keeps secrets, the ledger keeps order.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use learn::edges::{Digest, EdgeError, Sealer, Storage};
use zeroize::Zeroizing;

use crate::edges::EntropySource;
use crate::hold::hold;

/// How every sealed file begins.
pub const MAGIC: &[u8; 4] = b"MHV1";
const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;
const KEY_NAME: &str = "vault-key";
/// Lies there, empty, from the beginning of a deletion to its end.
const DELETION_NAME: &str = "deletion-begun";
const KEY_CONTEXT: &[u8] = b"mirror vault key 1";

/// A credential of fewer bytes protects nothing.
const SHORTEST_CREDENTIAL: usize = 16;
/// Name of the credential where systemd hands it over: `LoadCredentialEncrypted=mirror-vault:FILE`.
const CREDENTIAL_NAME: &str = "mirror-vault";

/// The secret of this machine that is mixed into the key, from the folder that systemd names in `CREDENTIALS_DIRECTORY`;
/// `None` without a folder, or without a secret of ours in it.
///
/// # Errors
/// [`EdgeError`] naming the file that cannot be read or is too short.
pub fn machine_credential(folder: Option<&Path>) -> Result<Option<Zeroizing<Vec<u8>>>, EdgeError> {
    let Some(path) = folder.map(|folder| folder.join(CREDENTIAL_NAME)) else { return Ok(None) };
    let name = path.display().to_string();
    let secret = match std::fs::read(path) {
        Ok(secret) => Zeroizing::new(secret),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(EdgeError::Seal(format!(
                "the credential {name} cannot be read ({error}); look at LoadCredentialEncrypted in the mirror's service"
            )));
        }
    };
    if secret.len() < SHORTEST_CREDENTIAL {
        let length = secret.len();
        return Err(EdgeError::Seal(format!(
            "the credential {name} has {length} bytes; make one of at least {SHORTEST_CREDENTIAL}"
        )));
    }
    Ok(Some(secret))
}

/// Sealed files in one store, their key in another.
pub struct Vault {
    files: Arc<dyn Storage>,
    keys: Arc<dyn Storage>,
    entropy: EntropySource,
    credential: Option<Zeroizing<Vec<u8>>>,
    /// `None` until something is sealed or opened, and after [`Vault::erase_key`].
    key: Mutex<Option<Zeroizing<[u8; KEY_BYTES]>>>,
}

impl Vault {
    /// A vault over `files` with its key in `keys`. The key is made when the first thing is sealed.
    pub fn new(
        files: Arc<dyn Storage>,
        keys: Arc<dyn Storage>,
        entropy: EntropySource,
        credential: Option<Zeroizing<Vec<u8>>>,
    ) -> Vault {
        Vault { files, keys, entropy, credential, key: Mutex::new(None) }
    }

    /// Seals and stores `plain` under `name`, atomically.
    ///
    /// # Errors
    /// [`EdgeError`] of the store, the key's store or the entropy; the old content is then still there.
    pub fn put(&self, name: &str, plain: &[u8]) -> Result<(), EdgeError> {
        self.files.replace(name, &self.seal_as(name, plain)?)
    }

    /// The plain bytes under `name`, or `None` where there are none.
    ///
    /// # Errors
    /// [`EdgeError::Seal`] where the bytes were changed, moved from another name or belong to another key.
    pub fn get(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, EdgeError> {
        match self.files.read(name)? {
            None => Ok(None),
            Some(sealed) => self.open_as(name, &sealed).map(Some),
        }
    }

    /// Copies what lies under `name`, sealed as it is, to `copy`, where nothing lies there yet.
    ///
    /// # Errors
    /// [`EdgeError`] of the store.
    pub(crate) fn set_aside(&self, name: &str, copy: &str) -> Result<(), EdgeError> {
        if self.files.read(copy)?.is_some() {
            return Ok(());
        }
        match self.files.read(name)? {
            None => Ok(()),
            Some(sealed) => self.files.replace(copy, &sealed),
        }
    }

    /// The plain bytes that were sealed under `name` and set aside as `copy`, or `None` where there are none.
    ///
    /// # Errors
    /// As [`Vault::get`].
    pub(crate) fn get_aside(
        &self,
        name: &str,
        copy: &str,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, EdgeError> {
        match self.files.read(copy)? {
            None => Ok(None),
            Some(sealed) => self.open_as(name, &sealed).map(Some),
        }
    }

    /// Removes `name`.
    ///
    /// # Errors
    /// [`EdgeError`] of the store.
    pub fn remove(&self, name: &str) -> Result<(), EdgeError> {
        self.files.remove(name)
    }

    /// Every name, sorted.
    ///
    /// # Errors
    /// [`EdgeError`] of the store.
    pub fn names(&self) -> Result<Vec<String>, EdgeError> {
        self.files.names()
    }

    /// Notes that everything is to be deleted, so that a start after a power cut can tell that from a key that is lost.
    /// [`Vault::clear`] takes the note away, as the making of a key does. Where nothing lies, nothing is written.
    ///
    /// # Errors
    /// [`EdgeError`] of the store.
    pub(crate) fn begin_deletion(&self) -> Result<(), EdgeError> {
        if self.files.names()?.is_empty() { Ok(()) } else { self.files.replace(DELETION_NAME, &[]) }
    }

    /// Whether a deletion was begun, has taken the key, and is not over.
    ///
    /// # Errors
    /// [`EdgeError`] of either store.
    pub(crate) fn is_half_deleted(&self) -> Result<bool, EdgeError> {
        Ok(self.files.read(DELETION_NAME)?.is_some() && !self.has_key()?)
    }

    /// Removes every name; one that cannot be removed keeps no other, but the note of a deletion, which goes last.
    ///
    /// # Errors
    /// The first [`EdgeError`] of the store.
    pub fn clear(&self) -> Result<(), EdgeError> {
        let mut names = self.files.names()?;
        names.retain(|name| name != DELETION_NAME);
        let removed: Vec<_> = names.iter().map(|name| self.files.remove(name)).collect();
        removed.into_iter().collect::<Result<(), EdgeError>>()?;
        self.files.remove(DELETION_NAME)
    }

    /// Sealed bytes that lie under `name`, without opening them.
    ///
    /// # Errors
    /// [`EdgeError`] of the store.
    pub(crate) fn sealed_bytes(&self, name: &str) -> Result<u64, EdgeError> {
        self.files.size(name)
    }

    /// Bytes on the disk that `plain` bytes take.
    pub const fn sealed_size(plain: usize) -> u64 {
        (MAGIC.len() + NONCE_BYTES + 16 + plain) as u64
    }

    /// A sealer for things that carry their own format, bound to `name`.
    pub(crate) fn sealer<'a>(&'a self, name: &'a str) -> NamedSealer<'a> {
        NamedSealer { vault: self, name }
    }

    /// Whether there is a key to open anything with.
    ///
    /// # Errors
    /// [`EdgeError`] of the key's store.
    pub(crate) fn has_key(&self) -> Result<bool, EdgeError> {
        Ok(self.keys.read(KEY_NAME)?.is_some())
    }

    /// Removes the key for good: whatever was sealed before is noise from here on, even where copies of it remain.
    ///
    /// # Errors
    /// [`EdgeError`] of the key's store.
    pub fn erase_key(&self) -> Result<(), EdgeError> {
        let mut key = self.lock();
        *key = None;
        self.keys.remove(KEY_NAME)
    }

    fn seal_as(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, EdgeError> {
        let cipher = self.cipher(true)?;
        let mut nonce = [0; NONCE_BYTES];
        (self.entropy)().fill(&mut nonce)?;
        let payload = Payload { msg: plain, aad: name.as_bytes() };
        let sealed = cipher
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| EdgeError::Seal(format!("{name} is too large to be sealed")))?;
        Ok([MAGIC.as_slice(), &nonce, &sealed].concat())
    }

    fn open_as(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, EdgeError> {
        let foreign = || {
            EdgeError::Seal(format!(
                "{name} was changed, or was sealed elsewhere or with another credential"
            ))
        };
        let body = sealed.strip_prefix(MAGIC).ok_or_else(foreign)?;
        let (nonce, body) = body.split_first_chunk::<NONCE_BYTES>().ok_or_else(foreign)?;
        let payload = Payload { msg: body, aad: name.as_bytes() };
        let plain = self.cipher(false)?.decrypt(&XNonce::from(*nonce), payload);
        plain.map(Zeroizing::new).map_err(|_| foreign())
    }

    fn cipher(&self, make: bool) -> Result<XChaCha20Poly1305, EdgeError> {
        let mut held = self.lock();
        let key = match held.take() {
            Some(key) => key,
            None => self.load(make)?,
        };
        let cipher = XChaCha20Poly1305::new(&Key::from(*key));
        *held = Some(key);
        Ok(cipher)
    }

    fn load(&self, make: bool) -> Result<Zeroizing<[u8; KEY_BYTES]>, EdgeError> {
        let file = match self.keys.read(KEY_NAME)?.map(Zeroizing::new) {
            Some(file) if file.len() == KEY_BYTES => file,
            Some(file) => {
                let length = file.len();
                return Err(EdgeError::Seal(format!(
                    "{KEY_NAME} has {length} bytes instead of {KEY_BYTES}; put the whole one back into the folder keys, or delete everything"
                )));
            }
            None if make => self.fresh_key()?,
            None => {
                return Err(EdgeError::Seal(format!(
                    "{KEY_NAME} is gone; put it back into the folder keys, or delete everything"
                )));
            }
        };
        let mut material = Zeroizing::new(KEY_CONTEXT.to_vec());
        material.extend_from_slice(&file);
        material.extend_from_slice(self.credential.as_deref().map_or(&[], Vec::as_slice));
        Ok(Zeroizing::new(Digest::of(&material).0))
    }

    fn fresh_key(&self) -> Result<Zeroizing<Vec<u8>>, EdgeError> {
        let mut file = Zeroizing::new(vec![0; KEY_BYTES]);
        (self.entropy)().fill(&mut file)?;
        // What it will seal is none of what a deletion before it left.
        self.files.remove(DELETION_NAME)?;
        self.keys.replace(KEY_NAME, &file)?;
        Ok(file)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Zeroizing<[u8; KEY_BYTES]>>> {
        // The key is either there or not; no code panics between.
        hold(&self.key)
    }
}

/// Seals for one name; see [`Vault::sealer`].
pub(crate) struct NamedSealer<'a> {
    vault: &'a Vault,
    name: &'a str,
}

impl Sealer for NamedSealer<'_> {
    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, EdgeError> {
        self.vault.seal_as(self.name, plain)
    }

    fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, EdgeError> {
        self.vault.open_as(self.name, sealed)
    }
}
