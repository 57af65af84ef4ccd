//! Which kernels for int8 products are used on a PC. No board has a choice.

#[cfg(target_arch = "x86_64")]
mod avx2;

use tract_core::prelude::TractResult;

/// Tells tract which features of the processor to leave alone, unless `TRACT_CPU_ISA` in the environment says otherwise.
///
/// The kernel `avx512amx_mmm_i32_16x16` of tract-linalg 0.23.9 loads its right-hand operand 64 rows at a time, but only the
/// left-hand one is padded to that: it reads past the end of the operand, and now and then past the heap, which ends the
/// program. The products are the same with AVX-512 VNNI, which takes its place.
#[cfg(target_arch = "x86_64")]
pub fn choose() -> TractResult<()> {
    tract_core::knobs::set_config_global("TRACT_CPU_ISA", "-amx-int8")
}

#[cfg(not(target_arch = "x86_64"))]
pub fn choose() -> TractResult<()> {
    Ok(())
}
