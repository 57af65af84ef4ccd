//! The text console that shares the frame buffer: told to stay quiet while the mirror draws.

use std::ffi::{c_int, c_uint};
use std::fs::File;
use std::io;

use rustix::ioctl::{Getter, IntegerSetter, Opcode, ioctl};
use tracing::{debug, warn};

// linux/kd.h
const KDSETMODE: Opcode = 0x4B3A;
const KDGETMODE: Opcode = 0x4B3B;
const KD_GRAPHICS: c_uint = 1;

/// The console in front, in graphics mode: no cursor, no messages, no blanking. Put back on drop.
#[derive(Debug)]
pub(crate) struct Console {
    terminal: File,
    before: c_uint,
}

impl Console {
    /// Silences the console in front. That takes the right to configure terminals; `None` without
    /// it, and the cursor then blinks through the picture.
    pub(crate) fn silence() -> Option<Console> {
        match Console::try_silence() {
            Ok(console) => Some(console),
            Err(error) => {
                debug!("the text console stays visible: /dev/tty0: {error}");
                None
            }
        }
    }

    fn try_silence() -> io::Result<Console> {
        let terminal = File::options().read(true).write(true).open("/dev/tty0")?;
        // SAFETY: KDGETMODE fills in one int.
        let before = unsafe { ioctl(&terminal, Getter::<KDGETMODE, c_int>::new())? };
        set_mode(&terminal, KD_GRAPHICS)?;
        // Modes are small positive numbers.
        Ok(Console { terminal, before: before.unsigned_abs() })
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Err(error) = set_mode(&self.terminal, self.before) {
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
