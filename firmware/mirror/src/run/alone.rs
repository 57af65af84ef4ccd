//! One mirror to a data folder: two would undo each other's camera switch and pairings, and one that waits for the camera would open
//! it as soon as the other has closed it for somebody's privacy.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Locked while a mirror runs; its content says nothing.
const NAME: &str = "running";

/// The folder is another's.
#[derive(Debug, thiserror::Error)]
#[error("another mirror runs with the data folder {}; stop it, or name another folder with data_dir", .0.display())]
pub struct NotAlone(PathBuf);

/// Makes the data folder, for this user alone, and takes it for as long as the answer lives. `None` where it cannot be written: no
/// mirror can store anything there.
///
/// # Errors
/// Another process has taken it.
pub fn take(folder: &Path) -> Result<Option<File>, NotAlone> {
    let Ok(file) = open(folder) else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(NotAlone(folder.to_owned())),
        // A file system without locks.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

fn open(folder: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600).open(folder.join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_mirror_s_for_as_long_as_that_runs() {
        let folder = std::env::temp_dir().join(format!("mirror-alone-{}", std::process::id()));
        let first = take(&folder).expect("nobody has it");
        assert!(first.is_some());
        let told = take(&folder).expect_err("the first one has it").to_string();
        assert!(told.contains(folder.to_str().expect("text")), "{told}");
        assert!(told.contains("stop it") && told.contains("data_dir"), "{told}");
        drop(first);
        assert!(take(&folder).expect("nobody has it any more").is_some());
        std::fs::remove_dir_all(&folder).expect("ours");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_nobody_s() {
        let nowhere = Path::new("/dev/null/data");
        assert!(take(nowhere).expect("nobody can have it").is_none());
        assert!(take(nowhere).expect("nobody can have it").is_none());
    }
}
