//! The words by which a person names a source; what `auto` and `camera` mean is known to the program's settings.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// Which source is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// A V4L2 device.
    Camera(PathBuf),
    /// The built-in scene.
    Demo,
    /// A folder of pictures, a `.y4m` or a `.mjpeg` file.
    Path(PathBuf),
}

/// A text that names no source.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "a source is auto, camera, demo, a device such as /dev/video0, or the path of a folder or file"
)]
pub struct UnknownSource;

/// Whether a path is a file or a folder, and no device.
fn is_stored(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() || found.is_dir())
}

impl FromStr for SourceSpec {
    type Err = UnknownSource;

    fn from_str(text: &str) -> Result<SourceSpec, UnknownSource> {
        match text {
            "" => Err(UnknownSource),
            "demo" => Ok(SourceSpec::Demo),
            // Not what lies in /dev/shm.
            device if device.starts_with("/dev/") && !is_stored(device) => {
                Ok(SourceSpec::Camera(device.into()))
            }
            path => Ok(SourceSpec::Path(path.into())),
        }
    }
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceSpec::Demo => f.write_str("demo"),
            SourceSpec::Camera(path) | SourceSpec::Path(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_devices_and_paths() {
        let parse = |text: &str| text.parse::<SourceSpec>();
        assert_eq!(parse("demo"), Ok(SourceSpec::Demo));
        assert_eq!(parse("/dev/video7"), Ok(SourceSpec::Camera("/dev/video7".into())));
        assert!(is_stored(&std::env::temp_dir().display().to_string()) && !is_stored("/dev/null"));
        assert_eq!(parse("clips/a.y4m"), Ok(SourceSpec::Path("clips/a.y4m".into())));
        assert_eq!(parse(""), Err(UnknownSource));
        for text in ["demo", "/dev/video3", "somewhere"] {
            assert_eq!(parse(text).expect("a source").to_string(), text);
        }
    }
}
