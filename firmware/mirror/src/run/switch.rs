//! The camera switch and its memory: who switched the camera off once finds it off after a restart.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::private;
use crate::shared::SwitchedBy;

/// What is remembered in the file.
const OFF: &str = "off\n";
const ON: &str = "on\n";

/// A trouble with the data folder, told so that a person can mend it.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write to {}: {source}; the camera switch will not be remembered: {}",
    folder.display(),
    private::advice(source)
)]
pub struct StorageError {
    folder: PathBuf,
    source: io::Error,
}

/// The switch's file in the data folder.
#[derive(Clone, Debug)]
pub struct SwitchFile {
    folder: PathBuf,
    path: PathBuf,
}

impl SwitchFile {
    /// In this folder.
    pub fn new(folder: &Path) -> SwitchFile {
        SwitchFile { folder: folder.to_owned(), path: folder.join("camera-switch") }
    }

    /// Makes the folder, for this user alone, and sees whether files can be written there.
    ///
    /// # Errors
    /// When they cannot.
    pub fn prepare(&self) -> Result<(), StorageError> {
        let probe = self.folder.join(".writable");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .and_then(|()| File::create(&probe).map(drop))
            .and_then(|()| fs::remove_file(&probe))
            .map_err(|source| self.error(source))
    }

    /// Why the camera must stay off, if it must. A file that cannot be read or understood counts as
    /// off: nobody is filmed against their will because of a broken disk.
    pub fn off_by(&self) -> Option<SwitchedBy> {
        match fs::read_to_string(&self.path) {
            Ok(text) if text == ON => None,
            Ok(text) if text == OFF => Some(SwitchedBy::Page),
            Err(error) if is_missing(&error) => None,
            Ok(_) | Err(_) => Some(SwitchedBy::Unreadable),
        }
    }

    /// Remembers the switch, also through a power cut right after. "Off" is remembered on a full disk, too: an empty file is not
    /// "on", and needs no room where there was a file.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn store(&self, on: bool) -> Result<(), StorageError> {
        let text = if on { ON } else { OFF };
        private::replace(&self.path, text.as_bytes())
            .or_else(|error| if on { Err(error) } else { self.empty().map_err(|_| error) })
            .map_err(|source| self.error(source))
    }

    fn empty(&self) -> io::Result<()> {
        File::create(&self.path)?.sync_all()
    }

    fn error(&self, source: io::Error) -> StorageError {
        StorageError { folder: self.folder.clone(), source }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn the_switch_is_remembered() {
        let root = Folder::new("switch");
        let folder = root.path().join("data");
        let file = SwitchFile::new(&folder);
        assert_eq!(file.off_by(), None, "never switched");
        file.prepare().expect("a temporary folder");
        file.store(false).expect("writable");
        assert_eq!(SwitchFile::new(&folder).off_by(), Some(SwitchedBy::Page));
        file.store(true).expect("writable");
        assert_eq!(file.off_by(), None);
    }

    #[test]
    fn off_is_remembered_where_no_new_file_can_be_written() {
        let folder = Folder::new("full");
        let file = SwitchFile::new(folder.path());
        file.store(true).expect("writable");
        // Stands for a full disk: what would be written first has no place.
        fs::create_dir(file.path.with_extension("part")).expect("writable");
        assert!(file.store(true).is_err());
        assert_eq!(file.off_by(), None, "on as before");
        file.store(false).expect("the file that is there is emptied");
        assert!(file.off_by().is_some());
    }

    #[test]
    fn what_cannot_be_understood_means_off() {
        let folder = Folder::new("garbage");
        let file = SwitchFile::new(folder.path());
        file.prepare().expect("a temporary folder");
        for text in ["", "o", "ON", "\u{0}\u{0}\u{0}"] {
            fs::write(&file.path, text).expect("writable");
            assert_eq!(file.off_by(), Some(SwitchedBy::Unreadable), "{text:?}");
        }
        fs::remove_file(&file.path).expect("ours");
        fs::create_dir(&file.path).expect("writable");
        assert!(file.off_by().is_some(), "a folder in its place");
    }

    #[test]
    fn a_trouble_names_the_folder_and_the_next_step() {
        let file = SwitchFile::new(Path::new("/dev/null/data"));
        let error = file.prepare().expect_err("no folder").to_string();
        assert!(error.contains("/dev/null/data") && error.contains("data_dir"), "{error}");
        assert_eq!(file.off_by(), None, "nothing was ever stored there");
        let error = file.error(ErrorKind::ReadOnlyFilesystem.into()).to_string();
        assert!(error.contains("ReadWritePaths"), "{error}");
    }
}
