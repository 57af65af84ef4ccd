//! Which display: `auto|drm|fbdev|window|headless[:DIR]`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Which kind of display to open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DisplaySpec {
    /// DRM, then fbdev, then a window.
    #[default]
    Auto,
    /// DRM/KMS.
    Drm,
    /// Frame buffer device.
    Fbdev,
    /// Window on an X11 desktop.
    Window,
    /// PNG files in a folder; without a folder canvases are counted and dropped.
    Headless(Option<PathBuf>),
}

/// A text that names no display.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// None of the known words.
    #[error("unknown display `{0}`: choose auto, drm, fbdev, window, headless or headless:FOLDER")]
    Unknown(String),
    /// `headless:` and nothing after it.
    #[error("`headless:` lacks its folder: write headless:FOLDER, or headless to write nothing")]
    NoFolder,
}

impl FromStr for DisplaySpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<DisplaySpec, SpecError> {
        match text {
            "auto" => Ok(DisplaySpec::Auto),
            "drm" => Ok(DisplaySpec::Drm),
            "fbdev" => Ok(DisplaySpec::Fbdev),
            "window" => Ok(DisplaySpec::Window),
            "headless" => Ok(DisplaySpec::Headless(None)),
            "headless:" => Err(SpecError::NoFolder),
            _ => match text.strip_prefix("headless:") {
                Some(folder) => Ok(DisplaySpec::Headless(Some(folder.into()))),
                None => Err(SpecError::Unknown(text.to_string())),
            },
        }
    }
}

impl fmt::Display for DisplaySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DisplaySpec::Auto => f.write_str("auto"),
            DisplaySpec::Drm => f.write_str("drm"),
            DisplaySpec::Fbdev => f.write_str("fbdev"),
            DisplaySpec::Window => f.write_str("window"),
            DisplaySpec::Headless(None) => f.write_str("headless"),
            DisplaySpec::Headless(Some(folder)) => write!(f, "headless:{}", folder.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spec_reads_back() {
        for text in ["auto", "drm", "fbdev", "window", "headless", "headless:/tmp/a:b c"] {
            let spec: DisplaySpec = text.parse().expect(text);
            assert_eq!(spec.to_string(), text);
        }
    }

    #[test]
    fn wrong_specs_name_the_choices() {
        for text in ["", "DRM", "hologram", "headless/tmp", "auto "] {
            let error = text.parse::<DisplaySpec>().expect_err(text);
            assert_eq!(error, SpecError::Unknown(text.to_string()));
            assert!(error.to_string().contains("headless:FOLDER"));
        }
        assert_eq!("headless:".parse::<DisplaySpec>(), Err(SpecError::NoFolder));
    }
}
