//! Files for this user alone that are whole or not there, whatever ends the program or fills the disk.

use std::io;
use std::path::Path;

use learn::fs::Whole;

/// Makes a file: `make` fills an empty one at the path that it is given, which then takes its place. Nothing is left of an attempt that
/// fails; what a power cut leaves of one, the next removes.
///
/// `failed` says what an error of the disk comes to.
pub fn whole<E>(
    path: &Path,
    failed: impl Fn(io::Error) -> E,
    make: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let beside = path.with_extension("new");
    private(path, &beside).make(|_| make(&beside), failed)
}

/// Makes a file with this text in it, as [`whole`] does.
///
/// # Errors
/// Of the disk.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    private(path, &path.with_extension("new")).put(text.as_bytes())
}

fn private<'a>(path: &'a Path, beside: &'a Path) -> Whole<'a> {
    Whole { path, beside, mode: 0o600, durable: true }
}
