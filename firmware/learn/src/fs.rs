//! [`Storage`] on a directory of a real file system, and files that are whole or not there.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::edges::{EdgeError, MonotonicCounter, Storage};

/// Held for as long as the directory is open: two processes never share a ledger.
const LOCK_NAME: &str = "lock";

/// What is kept here is for the mirror's own user.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// "Input/output error", which has no kind of its own.
const EIO: i32 = 5;

/// What to do where the data folder cannot be used. To the service everything is read-only but the folder that systemd gives it.
pub fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::ReadOnlyFilesystem => {
            "mount the data folder writable, and under systemd name it in ReadWritePaths"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some room on the disk",
        _ if error.raw_os_error() == Some(EIO) => {
            "the disk or card may be failing: put in another one"
        }
        ErrorKind::PermissionDenied
        | ErrorKind::NotFound
        | ErrorKind::NotADirectory
        | ErrorKind::AlreadyExists => {
            "make the data folder writable, or name another one with data_dir"
        }
        _ => "look at the data folder and its disk",
    }
}

/// Suffix of files that are being written and not yet in place.
const UNFINISHED: &str = ".tmp";

/// A directory, locked against other processes. Every write is synchronised, the directory included.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Opens or creates the directory, locks it, and removes half-written files of an earlier crash.
    ///
    /// # Errors
    /// [`EdgeError::InUse`] where another process has it open, [`EdgeError::Storage`] where it cannot be made, listed, synchronised or
    /// locked.
    pub fn open(path: &Path) -> Result<Directory, EdgeError> {
        let shown = path.display().to_string();
        let failed = |operation| {
            let name = shown.clone();
            move |source| EdgeError::Storage { operation, name, source }
        };
        let mut folder = DirBuilder::new();
        folder.recursive(true).mode(FOLDER_MODE).create(path).map_err(failed("create"))?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(FILE_MODE);
        let lock = options.open(path.join(LOCK_NAME)).map_err(failed("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => EdgeError::InUse(path.display().to_string()),
            TryLockError::Error(source) => failed("lock")(source),
        })?;
        let directory = Directory { path: path.to_owned(), _lock: lock };
        for name in directory.entries()? {
            if name.ends_with(UNFINISHED) {
                directory.delete(&name)?;
            }
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_directory(parent).map_err(failed("synchronise the parent of"))?;
        }
        Ok(directory)
    }

    /// Where the directory lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn locate(&self, name: &str) -> Result<PathBuf, EdgeError> {
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        let reserved = name == LOCK_NAME || name.ends_with(UNFINISHED) || name.starts_with('.');
        if name.is_empty() || name.len() > 100 || reserved || !name.bytes().all(plain) {
            return Err(EdgeError::Name(name.to_owned()));
        }
        Ok(self.path.join(name))
    }

    fn entries(&self) -> Result<Vec<String>, EdgeError> {
        let failed = storage_error("list", &self.path);
        let entries = fs::read_dir(&self.path).map_err(&failed)?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string().ok()));
        let mut names: Vec<String> =
            names.collect::<Result<Vec<_>, _>>().map_err(failed)?.into_iter().flatten().collect();
        names.sort();
        Ok(names)
    }

    fn delete(&self, name: &str) -> Result<(), EdgeError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => sync_directory(&self.path),
        }
        .map_err(storage_error("remove", &path))
    }
}

/// Names and bytes of the files in a directory that others may hold: the lock left out, none where there is no directory.
///
/// # Errors
/// [`EdgeError::Storage`] where the directory cannot be listed.
pub fn list(path: &Path) -> Result<Vec<(String, u64)>, EdgeError> {
    let failed = storage_error("list", path);
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(&failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != LOCK_NAME {
            // A file that cannot be measured is there all the same.
            files.push((name, entry.metadata().map_or(0, |metadata| metadata.len())));
        }
    }
    files.sort();
    Ok(files)
}

impl Storage for Directory {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, EdgeError> {
        let path = self.locate(name)?;
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(storage_error("read", &path)(error)),
        }
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), EdgeError> {
        let path = self.locate(name)?;
        append_to(&path, bytes)
            .and_then(|()| sync_directory(&self.path))
            .map_err(storage_error("append to", &path))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), EdgeError> {
        let path = self.locate(name)?;
        let unfinished = self.path.join(format!("{name}{UNFINISHED}"));
        let whole = Whole { path: &path, beside: &unfinished, mode: FILE_MODE, durable: true };
        whole.put(bytes).map_err(storage_error("replace", &path))
    }

    fn truncate(&self, name: &str, length: u64) -> Result<(), EdgeError> {
        let path = self.locate(name)?;
        let shorten = || {
            let file = OpenOptions::new().write(true).open(&path)?;
            file.set_len(length)?;
            synchronise(&file, &path)
        };
        shorten().map_err(storage_error("truncate", &path))
    }

    fn remove(&self, name: &str) -> Result<(), EdgeError> {
        self.locate(name)?;
        self.delete(name)
    }

    fn names(&self) -> Result<Vec<String>, EdgeError> {
        let mut names = self.entries()?;
        names.retain(|name| self.locate(name).is_ok());
        Ok(names)
    }

    fn everything(&self) -> Result<Vec<String>, EdgeError> {
        Ok(list(&self.path)?.into_iter().map(|(name, _)| name).collect())
    }

    fn size(&self, name: &str) -> Result<u64, EdgeError> {
        let path = self.locate(name)?;
        match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(storage_error("measure", &path)(error)),
        }
    }
}

fn storage_error(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> EdgeError + use<> {
    let name = path.display().to_string();
    move |source| EdgeError::Storage { operation, name: name.clone(), source }
}

fn append_to(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)?;
    let before = file.metadata()?.len();
    let result = file.write_all(bytes).and_then(|()| synchronise(&file, path));
    if result.is_err() {
        // Best effort: readers recognise a torn end anyway.
        let _ = file.set_len(before);
    }
    result
}

/// A file that takes its place whole: made beside it and renamed, so that whoever reads finds the old content or the new one, whatever ends
/// the program or fills the disk.
#[derive(Clone, Copy, Debug)]
pub struct Whole<'a> {
    /// Its place.
    pub path: &'a Path,
    /// Where it is made: in the same folder. What lies there, of an attempt that a power cut came into, is removed.
    pub beside: &'a Path,
    /// Its permissions, less the umask.
    pub mode: u32,
    /// Whether content and name are on the medium before it is said to be done. Without that a power cut soon after may leave a file that is
    /// new there empty.
    pub durable: bool,
}

impl Whole<'_> {
    /// With these bytes in it.
    ///
    /// # Errors
    /// Of the disk. The old content is then still there, unless only the folder could not be synchronised, and nothing lies beside it.
    pub fn put(&self, bytes: &[u8]) -> io::Result<()> {
        self.make(|file| file.write_all(bytes), |error| error)
    }

    /// With what `fill` puts into the empty file beside its place; `failed` says what an error of the disk comes to.
    ///
    /// # Errors
    /// Of `fill`, or of the disk; see [`Whole::put`].
    pub fn make<E>(
        &self,
        fill: impl FnOnce(&mut File) -> Result<(), E>,
        failed: impl Fn(io::Error) -> E,
    ) -> Result<(), E> {
        let mut file = self.begin().map_err(&failed)?;
        let made = fill(&mut file).and_then(|()| self.settle(&file).map_err(&failed));
        made.inspect_err(|_| {
            // Frees the space where the disk was full; the original error is the one that matters.
            let _ = fs::remove_file(self.beside);
        })
    }

    fn begin(&self) -> io::Result<File> {
        match fs::remove_file(self.beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(self.mode).open(self.beside)
    }

    fn settle(&self, file: &File) -> io::Result<()> {
        if !self.durable {
            return rename(self.beside, self.path);
        }
        synchronise(file, self.beside)?;
        rename(self.beside, self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        sync_directory(folder.unwrap_or(Path::new(".")))
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    synchronise(&File::open(path)?, path)
}

/// Waits until the file, or the directory, is on the medium as it is now.
fn synchronise(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    noted::note("synchronise", path);
    Ok(())
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    noted::note("rename", from);
    Ok(())
}

/// Nobody but a test looks at what reached the medium, and in which order.
#[cfg(not(test))]
mod noted {
    pub fn note(_: &str, _: &std::path::Path) {}
}

#[cfg(test)]
mod noted {
    use std::cell::RefCell;
    use std::path::Path;

    thread_local! {
        static STEPS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    pub fn note(step: &str, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        STEPS.with_borrow_mut(|steps| steps.push(format!("{step} {name}")));
    }

    /// The steps of this thread since it was last asked.
    pub fn take() -> Vec<String> {
        STEPS.take()
    }
}

/// A counter in another store, for platforms whose only place apart from the ledger is a second partition.
///
/// It detects a restored ledger only as long as both places are not restored together.
pub struct StoredCounter<S> {
    store: S,
}

/// The file that holds it: 8 bytes, little-endian.
pub const COUNTER_NAME: &str = "ledger-counter";

/// The number in a counter's file.
///
/// # Errors
/// [`EdgeError::Counter`] where it is not 8 bytes long.
pub fn decode_counter(bytes: &[u8]) -> Result<u64, EdgeError> {
    let broken = || {
        EdgeError::Counter(format!(
            "{COUNTER_NAME} holds {} bytes, not 8; no release is possible. Stop the mirror and remove that file of the folder counter: its \
             next start counts the ledger's records anew",
            bytes.len()
        ))
    };
    Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| broken())?))
}

impl<S: Storage> StoredCounter<S> {
    /// Keeps the counter in `store`, which must not be the ledger's own.
    pub fn new(store: S) -> StoredCounter<S> {
        StoredCounter { store }
    }
}

impl<S: Storage> MonotonicCounter for StoredCounter<S> {
    fn value(&self) -> Result<Option<u64>, EdgeError> {
        let Some(bytes) = self.store.read(COUNTER_NAME)? else {
            return Ok(Some(0));
        };
        decode_counter(&bytes).map(Some)
    }

    fn raise(&self, value: u64) -> Result<(), EdgeError> {
        if self.value()?.is_some_and(|current| current >= value) {
            return Ok(());
        }
        self.store.replace(COUNTER_NAME, &value.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_to_be_done_before_it_is_on_the_medium() {
        let name = format!("learn-durable-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let directory = Directory::open(&path).unwrap();
        let folder = format!("synchronise {name}");
        let folder = folder.as_str();
        noted::take();
        directory.append("ledger", b"one").unwrap();
        assert_eq!(noted::take(), ["synchronise ledger", folder]);
        directory.replace("state", b"new").unwrap();
        assert_eq!(noted::take(), ["synchronise state.tmp", "rename state.tmp", folder]);
        directory.truncate("ledger", 1).unwrap();
        assert_eq!(noted::take(), ["synchronise ledger"]);
        directory.remove("state").unwrap();
        assert_eq!(noted::take(), [folder]);
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn whoever_is_refused_hears_of_the_folder_and_of_the_next_step() {
        let folder = std::env::temp_dir().join(format!("learn-told-{}", std::process::id()));
        let directory = Directory::open(&folder).unwrap();
        let told = |error: EdgeError, next: &str| {
            let text = error.to_string();
            assert!(text.contains(folder.to_str().unwrap()) && text.contains(next), "{text}");
            text
        };
        let used = told(Directory::open(&folder).unwrap_err(), "data_dir");
        assert!(used.contains("another mirror uses"), "{used}");
        fs::create_dir(folder.join("state")).unwrap();
        let unread = told(directory.read("state").unwrap_err(), "look at the data folder");
        assert!(unread.contains("state") && !unread.contains("data_dir"), "{unread}");
        told(directory.replace("state", b"new").unwrap_err(), "look at the data folder");
        // A file where a folder should be, and a folder that is gone.
        fs::write(folder.join("file"), b"").unwrap();
        for place in ["file", "file/below"] {
            told(Directory::open(&folder.join(place)).unwrap_err(), "data_dir");
        }
        let gone = folder.join("gone");
        let closed = Directory::open(&gone).unwrap();
        fs::remove_dir_all(&gone).unwrap();
        told(closed.append("state", b"new").unwrap_err(), "data_dir");
        let failing = io::Error::from_raw_os_error(EIO);
        assert!(advice(&failing).contains("failing"));
        let broken = decode_counter(&[0; 7]).unwrap_err().to_string();
        assert!(broken.contains("7 bytes") && broken.contains("remove that file"), "{broken}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_takes_its_place_whole_whatever_lies_beside_it() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let folder = std::env::temp_dir().join(format!("learn-whole-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (path, beside) = (folder.join("key"), folder.join("key.new"));
        let (other, elsewhere) = (folder.join("other"), b"of somebody else");
        fs::write(&other, elsewhere).unwrap();
        symlink(&other, &beside).unwrap();
        let whole = Whole { path: &path, beside: &beside, mode: 0o600, durable: true };
        whole.put(b"one").unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), fs::read(&other).unwrap()),
            (b"one".into(), elsewhere.into())
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // Full in the middle of it.
        let full = |file: &mut File| {
            file.write_all(b"tw")?;
            Err(io::Error::from(ErrorKind::StorageFull))
        };
        assert!(whole.make(full, |error| error).is_err());
        assert!(fs::read(&path).unwrap() == b"one" && !beside.exists());
        noted::take();
        Whole { durable: false, ..whole }.put(b"three").unwrap();
        assert_eq!(noted::take(), ["rename key.new"], "nobody waits for the medium");
        assert_eq!(fs::read(&path).unwrap(), b"three");
        fs::remove_dir_all(&folder).unwrap();
    }
}
