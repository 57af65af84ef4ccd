//! What can be wrong with a display, and the next step.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a display cannot be opened, or a canvas not be shown.
#[derive(Debug, thiserror::Error)]
pub enum DisplayError {
    /// There is no such device file.
    #[error("{} does not exist; {next}", device.display())]
    Missing {
        /// The device file.
        device: PathBuf,
        /// What to do.
        next: String,
    },
    /// The device file may not be opened.
    #[error(
        "no permission to open {}; add the user to the group `video` \
         (sudo usermod -aG video USER) and log in again",
        device.display()
    )]
    Permission {
        /// The device file.
        device: PathBuf,
    },
    /// Another program is master of the device, a desktop or another mirror.
    #[error(
        "{}: another program owns the display; stop that desktop or other mirror \
         (`sudo fuser -v {}` names it)",
        device.display(), device.display()
    )]
    Busy {
        /// The device file.
        device: PathBuf,
    },
    /// No connector has a screen.
    #[error("{}: no screen is connected; plug one in and switch it on (looked at: {connectors})",
        device.display())]
    NotConnected {
        /// The device file.
        device: PathBuf,
        /// The connectors that were looked at.
        connectors: String,
    },
    /// The screen went away while it was in use.
    #[error("{}: the screen at {connector} was unplugged; plug it in again", device.display())]
    Unplugged {
        /// The device file.
        device: PathBuf,
        /// Where the screen was.
        connector: String,
    },
    /// A screen came back, the same one or another, there or at another connector.
    #[error("{}: there is a screen at {connector} again; open the display again",
        device.display())]
    Returned {
        /// The device file.
        device: PathBuf,
        /// Where the screen is now.
        connector: String,
    },
    /// The previous picture did not come on in time.
    #[error(
        "{}: the picture was not on the screen after {milliseconds} ms; \
         if it stays so, see the kernel's log (dmesg)",
        device.display()
    )]
    TimedOut {
        /// The device file.
        device: PathBuf,
        /// How long was waited.
        milliseconds: u128,
    },
    /// The device works in a way that is not understood here.
    #[error("{} cannot be used as a display: {reason}; {next}", device.display())]
    Unsuitable {
        /// The device file.
        device: PathBuf,
        /// What is missing.
        reason: String,
        /// What to do.
        next: String,
    },
    /// The kernel refused something.
    #[error("{}: cannot {action}: {source}; the kernel's log (dmesg) may say more",
        device.display())]
    Device {
        /// The device file.
        device: PathBuf,
        /// What was wanted.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no X11 server to open a window on.
    #[error(
        "no window can be opened: {reason}; start from a desktop session (DISPLAY set), \
         or choose another display"
    )]
    NoDesktop {
        /// What is missing.
        reason: String,
    },
    /// The X11 server refused something or went away.
    #[error("window: cannot {action}: {reason}; open the display again")]
    Window {
        /// What was wanted.
        action: &'static str,
        /// What the server said.
        reason: String,
    },
    /// A PNG cannot be written.
    #[error("cannot write {}: {source}; make the folder writable, free space, or name another",
        path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A canvas of the wrong size.
    #[error(
        "a canvas of {} x {} pixels was presented, the display takes {} x {}; \
         draw at the display's size",
        given.0, given.1, wanted.0, wanted.1
    )]
    Size {
        /// The canvas's width and height.
        given: (u32, u32),
        /// The display's.
        wanted: (u32, u32),
    },
    /// A request that cannot be met.
    #[error("{what} = {reason}")]
    Request {
        /// The part of the request.
        what: &'static str,
        /// Its value and what it must be.
        reason: String,
    },
    /// `auto` found nothing.
    #[error(
        "no display can be used:{}\n\
         next step: solve one of these, or choose `--display headless` to go on without a screen",
        list(tried)
    )]
    NoDisplay {
        /// Everything that was tried, in order.
        tried: Vec<Attempt>,
    },
}

impl DisplayError {
    /// Whether presenting again on the same open display may succeed. Otherwise it is to be opened
    /// again.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            DisplayError::Unplugged { .. }
                | DisplayError::Busy { .. }
                | DisplayError::TimedOut { .. }
                | DisplayError::Write { .. }
                | DisplayError::Size { .. }
        )
    }
}

/// One display that `auto` tried.
#[derive(Debug)]
pub struct Attempt {
    /// Kind of display: `drm`, `fbdev` or `window`.
    pub kind: &'static str,
    /// Why not.
    pub error: DisplayError,
}

impl Attempt {
    pub(crate) fn new(kind: &'static str, error: DisplayError) -> Attempt {
        Attempt { kind, error }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.error)
    }
}

fn list(tried: &[Attempt]) -> String {
    tried.iter().map(|attempt| format!("\n  {attempt}")).collect()
}
