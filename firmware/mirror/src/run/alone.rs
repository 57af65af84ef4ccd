//! One mirror to a data folder: two would undo each other's camera switch and pairings, and one that waits for the camera would open
//! it as soon as the other has closed it for somebody's privacy.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tracing::warn;

/// The folder is another's.
#[derive(Debug, thiserror::Error)]
#[error("another mirror runs with the data folder {}; stop it, or name another folder with data_dir", .0.display())]
pub struct NotAlone(PathBuf);

/// Makes the data folder, for this user alone, and takes it for as long as the answer lives. `None`, with a warning, where nobody can:
/// a folder that cannot be made or opened, or a file system without locks.
///
/// # Errors
/// Another process has taken it.
pub fn take(folder: &Path) -> Result<Option<File>, NotAlone> {
    let opened = open(folder).map_err(TryLockError::Error);
    match opened.and_then(|file| file.try_lock().map(|()| file)) {
        Ok(file) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(NotAlone(folder.to_owned())),
        Err(TryLockError::Error(error)) => {
            warn!(
                "cannot keep other mirrors from the data folder {}: {error}; run no second one with it, or name another folder with data_dir",
                folder.display()
            );
            Ok(None)
        }
    }
}

/// The folder itself: a file in it might be another user's, and there is none to be made where nothing can be written.
fn open(folder: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    File::open(folder)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, read_dir, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::Folder;

    #[test]
    fn a_folder_is_one_mirror_s_for_as_long_as_that_runs() {
        let folder = Folder::new("alone");
        let data = folder.path().join("data");
        let first = take(&data).expect("nobody has it");
        assert!(first.is_some());
        let told = take(&data).expect_err("the first one has it").to_string();
        assert!(told.contains(data.to_str().expect("text")), "{told}");
        assert!(told.contains("stop it") && told.contains("data_dir"), "{told}");
        drop(first);
        assert!(take(&data).expect("nobody has it any more").is_some());
    }

    #[test]
    fn a_folder_is_taken_without_a_file_so_also_where_none_can_be_written() {
        let folder = Folder::new("read-only");
        set_permissions(folder.path(), Permissions::from_mode(0o500)).expect("ours");
        let first = take(folder.path()).expect("nobody has it");
        assert!(first.is_some() && take(folder.path()).is_err());
        // Root could write.
        assert_eq!(read_dir(folder.path()).expect("readable").count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_nobody_s() {
        let nowhere = Path::new("/dev/null/data");
        assert!(take(nowhere).expect("nobody can have it").is_none());
        assert!(take(nowhere).expect("nobody can have it").is_none());
    }
}
