//! The text console that shares the frame buffer: told to stay quiet while the mirror draws.

use std::ffi::c_uint;
use std::fs::File;
use std::io;
use std::sync::Once;

use rustix::ioctl::{IntegerSetter, Opcode, ioctl};
use tracing::{debug, warn};

// linux/kd.h
const KDSETMODE: Opcode = 0x4B3A;
const KD_TEXT: c_uint = 0;
const KD_GRAPHICS: c_uint = 1;

static TOLD: Once = Once::new();

/// The console in front, in graphics mode: no cursor, no messages, no blanking. In text mode again on drop, also where a mirror that was
/// killed left it in graphics mode.
#[derive(Debug)]
pub(crate) struct Console {
    terminal: File,
}

impl Console {
    /// Silences the console in front. That takes write access to it and the right to configure terminals; `None` without
    /// them, told once: the cursor then blinks through the picture.
    pub(crate) fn silence() -> Option<Console> {
        match Console::try_silence() {
            Ok(console) => Some(console),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                TOLD.call_once(|| {
                    warn!(
                        "the text console's cursor may blink through the picture: /dev/tty0: {error}; give the mirror the group tty and \
                         CAP_SYS_TTY_CONFIG (in a drop-in of its service: SupplementaryGroups=tty, and CAP_SYS_TTY_CONFIG in \
                         CapabilityBoundingSet= and AmbientCapabilities=), or put vt.global_cursor_default=0 on the kernel's command line"
                    );
                });
                None
            }
            // A kernel without consoles has none to silence.
            Err(error) => {
                debug!("the text console is left as it is: /dev/tty0: {error}");
                None
            }
        }
    }

    fn try_silence() -> io::Result<Console> {
        // The group tty may write to it and not read.
        let terminal = File::options().write(true).open("/dev/tty0")?;
        set_mode(&terminal, KD_GRAPHICS)?;
        Ok(Console { terminal })
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Err(error) = set_mode(&self.terminal, KD_TEXT) {
            warn!("the text console does not come back: /dev/tty0: {error}");
        }
    }
}

fn set_mode(terminal: &File, mode: c_uint) -> io::Result<()> {
    // SAFETY: KDSETMODE takes the mode as a plain integer.
    let request = unsafe { IntegerSetter::<KDSETMODE>::new_usize(mode as usize) };
    // SAFETY: as above; the kernel reads and writes no memory of ours.
    unsafe { ioctl(terminal, request)? };
    Ok(())
}
