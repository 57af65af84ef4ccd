//! Small files of the data folder that nobody but this user may read.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use learn::fs::Whole;
pub use learn::fs::advice;

/// Larger files are not ours.
const MOST_BYTES: u64 = 1 << 20;

/// A file of the data folder that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}; {}", path.display(), advice(source))]
pub struct PrivateError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The whole file, `None` where there is none.
///
/// # Errors
/// A file that is there and cannot be read, or is larger than a mebibyte.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, PrivateError> {
    let failed = |source| PrivateError { operation: "read", path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(failed(io::Error::other("it is larger than any file of this kind")));
    }
    Ok(Some(bytes))
}

/// [`replace`], with an error that names the file.
///
/// # Errors
/// As [`replace`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), PrivateError> {
    let failed = |source| PrivateError { operation: "write", path: path.to_owned(), source };
    replace(path, bytes).map_err(failed)
}

/// Puts new content in the file's place, for this user alone, also through a power cut right after.
///
/// # Errors
/// A folder that cannot be written, or a full disk; the old content is then still there.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let beside = path.with_extension("part");
    Whole { path, beside: &beside, mode: 0o600, durable: true }.put(bytes)
}

/// Writes a file beside its place, for anybody to read, and renames it: whoever reads it finds the old content or the new one, and never a
/// part. It does not wait for the disk: a power cut soon after may leave a file that is new there empty.
///
/// # Errors
/// A folder that cannot be written, or a full disk; the old content is then still there.
pub fn put_whole(path: &Path, beside: &Path, bytes: &[u8]) -> io::Result<()> {
    Whole { path, beside, mode: 0o666, durable: false }.put(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_only_folder_is_told_from_a_forbidden_one() {
        let told = |kind: ErrorKind| {
            let path = PathBuf::from("/data/mirror/paired-browsers.json");
            PrivateError { operation: "write", path, source: kind.into() }.to_string()
        };
        let read_only = told(ErrorKind::ReadOnlyFilesystem);
        assert!(read_only.contains("ReadWritePaths"), "{read_only}");
        let full = told(ErrorKind::StorageFull);
        assert!(full.contains("free some room"), "{full}");
        let forbidden = told(ErrorKind::PermissionDenied);
        assert!(forbidden.contains("data_dir"), "{forbidden}");
    }
}
