//! Which of tract's kernels for int8 products are used on a PC. No board has a choice.

use tract_core::prelude::TractResult;

/// Tells tract which features of the processor to leave alone, unless `TRACT_CPU_ISA` in the environment says otherwise.
///
/// The kernel `avx512amx_mmm_i32_16x16` of tract-linalg 0.23.9 loads its right-hand operand 64 rows at a time, but only the
/// left-hand one is padded to that: it reads past the end of the operand, and now and then past the heap, which ends the
/// program. The products are the same with AVX-512 VNNI, which takes its place.
///
/// The kernel `avx2_mmm_i32_8x8` loads its left-hand operand in SSE's encoding among AVX2's. Some processors, and some virtual
/// machines, take a hundred times longer over that: a picture then takes seconds. There the kernel for AVX takes its place, which
/// has one encoding; the products are the same.
#[cfg(target_arch = "x86_64")]
pub fn choose() -> TractResult<()> {
    let without = if mixing::is_slow() { "-amx-int8,-avx2" } else { "-amx-int8" };
    tract_core::knobs::set_config_global("TRACT_CPU_ISA", without)
}

#[cfg(not(target_arch = "x86_64"))]
pub fn choose() -> TractResult<()> {
    Ok(())
}

#[cfg(target_arch = "x86_64")]
mod mixing {
    use std::arch::asm;
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    /// How many times longer counts as slow. Processors that mix well wait a few cycles for the register's other half, five times as
    /// long at most; one that does not took 85 times as long.
    const SLOW: u32 = 20;
    const LOADS: u64 = 200;

    /// Whether a load in SSE's encoding among AVX2's is far slower than one in AVX's. Measured once, in less than a millisecond.
    pub fn is_slow() -> bool {
        static SLOW_HERE: OnceLock<bool> = OnceLock::new();
        *SLOW_HERE.get_or_init(|| {
            // SAFETY: the processor has AVX2.
            is_x86_feature_detected!("avx2") && unsafe { best(mixed) > SLOW * best(pure) }
        })
    }

    /// The shortest of a few runs: the others were interrupted.
    unsafe fn best(run: unsafe fn()) -> Duration {
        let timed = || {
            let began = Instant::now();
            // SAFETY: as promised by the caller.
            unsafe { run() };
            began.elapsed()
        };
        (0..5).map(|_| timed()).min().unwrap_or_default().max(Duration::from_nanos(1))
    }

    /// Loads eight bytes and widens them, again and again, with this instruction for the load.
    macro_rules! loads {
        ($name:ident, $load:literal) => {
            /// # Safety
            /// The processor has AVX2.
            unsafe fn $name() {
                let bytes = [0u8; 8];
                // SAFETY: it reads eight bytes that are there; the registers are named.
                unsafe {
                    asm!(
                        "2:",
                        concat!($load, " xmm8, qword ptr [{bytes}]"),
                        "vpmovsxbw ymm8, xmm8",
                        "dec {count}",
                        "jnz 2b",
                        "vzeroupper",
                        bytes = in(reg) &bytes,
                        count = inout(reg) LOADS => _,
                        out("ymm8") _,
                        options(nostack, readonly),
                    );
                }
            }
        };
    }

    loads!(mixed, "movq");
    loads!(pure, "vmovq");

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn both_ways_of_loading_take_time() {
            if !std::arch::is_x86_feature_detected!("avx2") {
                return;
            }
            // SAFETY: the processor has AVX2.
            let [mixed, pure] = unsafe { [best(mixed), best(pure)] };
            println!("{LOADS} mixed loads {mixed:?}, as many pure ones {pure:?}");
            // A turn of the loop takes a cycle at least, and no processor has ten in a nanosecond.
            let least = Duration::from_nanos(LOADS / 10);
            assert!(mixed >= least && pure >= least);
            assert_eq!(is_slow(), is_slow(), "it is measured once");
        }
    }
}
