//! Flushing of denormal floats, which some cores compute a hundred times slower than others.

/// Sets flush-to-zero (and denormals-are-zero on x86) on this thread until dropped.
///
/// The article behind the product recommends it. Measured effect on the shipped student: see
/// `README.md` (none on x86-64: the weights and activations hold no denormals).
pub struct FlushDenormals(u64);

impl FlushDenormals {
    /// Switches flushing on and remembers what was set before.
    pub fn new() -> FlushDenormals {
        let before = read();
        write(before | FLUSH);
        FlushDenormals(before)
    }
}

impl Drop for FlushDenormals {
    fn drop(&mut self) {
        write(self.0);
    }
}

// MXCSR: flush-to-zero is bit 15, denormals-are-zero bit 6.
#[cfg(target_arch = "x86_64")]
const FLUSH: u64 = 0x8040;
// FPCR: FZ is bit 24.
#[cfg(target_arch = "aarch64")]
const FLUSH: u64 = 1 << 24;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const FLUSH: u64 = 0;

#[cfg(target_arch = "x86_64")]
fn read() -> u64 {
    let mut value = 0u32;
    // SAFETY: stores four bytes to a local; SSE is part of x86-64.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &mut value, options(nostack, preserves_flags))
    };
    u64::from(value)
}

#[cfg(target_arch = "x86_64")]
fn write(value: u64) {
    let value = value as u32;
    // SAFETY: loads a value that was read before, plus two defined bits; no exception is unmasked.
    unsafe {
        std::arch::asm!("ldmxcsr [{}]", in(reg) &value, options(nostack, readonly, preserves_flags))
    };
}

#[cfg(target_arch = "aarch64")]
fn read() -> u64 {
    let value: u64;
    // SAFETY: reads a control register that user programs may read.
    unsafe {
        std::arch::asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags))
    };
    value
}

#[cfg(target_arch = "aarch64")]
fn write(value: u64) {
    // SAFETY: writes back a value that was read before, plus one defined bit.
    unsafe {
        std::arch::asm!("msr fpcr, {}", in(reg) value, options(nomem, nostack, preserves_flags))
    };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn read() -> u64 {
    0
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn write(_: u64) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn flushes_while_it_lives() {
        let halve = || black_box(f32::MIN_POSITIVE) * black_box(0.5);
        assert!(halve() > 0.0);
        let guard = FlushDenormals::new();
        assert_eq!(halve(), 0.0);
        drop(guard);
        assert!(halve() > 0.0);
    }
}
