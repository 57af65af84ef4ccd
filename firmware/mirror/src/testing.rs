//! What unit tests share: the settings of a mirror that has no file of them, and folders that are gone when a test ends.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use settings::{Layers, Settings};

/// The defaults.
pub fn settings() -> Settings {
    Layers::defaults().and_then(Layers::finish).expect("the defaults").settings
}

/// A folder of one test's own, empty at first. It is removed at the end, also of a test that fails; what has files open in it is declared
/// after it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mirror-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // A process of the same number may have been killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("a temporary folder");
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_fails_leaves_no_folder() {
        let path = std::panic::catch_unwind(|| {
            let folder = Folder::new("failing");
            std::fs::write(folder.path().join("a file"), "").expect("writable");
            std::panic::panic_any(folder.path().to_owned());
        });
        let path = path.expect_err("it fails");
        assert!(!path.downcast::<PathBuf>().expect("as thrown").exists());
    }
}
