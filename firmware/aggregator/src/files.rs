//! Files that are whole or not there, whatever ends the program or fills the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes a file for this user alone: `make` fills and syncs an empty one beside it, which then gets its name. Nothing is left of an
/// attempt that fails; what a power cut leaves of one, the next removes.
///
/// `failed` says what an error of the disk comes to.
pub fn whole<E>(
    path: &Path,
    failed: impl Fn(io::Error) -> E,
    make: impl FnOnce(&Path, File) -> Result<(), E>,
) -> Result<(), E> {
    let made = path.with_extension("new");
    let file = begin(&made).map_err(&failed)?;
    let outcome = make(&made, file).and_then(|()| settle(&made, path).map_err(&failed));
    if outcome.is_err() {
        // It may have its name already.
        let _ = fs::remove_file(&made);
    }
    outcome
}

/// The same with this text in it.
///
/// # Errors
/// Of the disk.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let fill =
        |_: &Path, mut file: File| file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    whole(path, |error| error, fill)
}

fn begin(made: &Path) -> io::Result<File> {
    match fs::remove_file(made) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(made)
}

fn settle(made: &Path, path: &Path) -> io::Result<()> {
    fs::rename(made, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
