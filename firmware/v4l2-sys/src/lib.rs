//! `linux/videodev2.h` for the `v4l` crate, as committed bindings instead of a build step.
//!
//! The published `v4l2-sys-mit` runs bindgen and so needs libclang and the target's headers on every build machine.
//! The interface is the kernel's stable one and equal on all 64-bit little-endian targets, so one file serves them.
//! It was made by bindgen 0.65 from Linux 6.1's header:
//!
//! ```text
//! bindgen --use-core --no-layout-tests --allowlist-type '(v4l2|V4L2)_.*|time_t|timeval' --allowlist-var 'V4L2_.*' \
//!     --opaque-type 'v4l2_ctrl_.*' --blocklist-item '(V4L2|v4l2)_.*(HEVC|MPEG|H264|FWHT|VP8|VP9|AV1|FLASH|FM_|RDS|DETECT).*' \
//!     wrapper.h    # one line: #include <linux/videodev2.h>
//! ```
#![allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    clippy::all,
    unsafe_op_in_unsafe_fn
)]

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!(
    "the bindings are those of 64-bit little-endian targets; make them anew for this one"
);

include!("bindings.rs");

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    /// Sizes that the kernel encodes in its ioctl numbers (linux/videodev2.h), and offsets that follow from them.
    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<v4l2_capability>(), 104);
        assert_eq!(size_of::<v4l2_fmtdesc>(), 64);
        assert_eq!(size_of::<v4l2_format>(), 208);
        assert_eq!(size_of::<v4l2_requestbuffers>(), 20);
        assert_eq!(size_of::<v4l2_buffer>(), 88);
        assert_eq!(size_of::<v4l2_streamparm>(), 204);
        assert_eq!(size_of::<v4l2_frmsizeenum>(), 44);
        assert_eq!(size_of::<v4l2_frmivalenum>(), 52);
        assert_eq!(offset_of!(v4l2_buffer, timestamp), 24);
        assert_eq!(offset_of!(v4l2_buffer, m), 64);
        assert_eq!(offset_of!(v4l2_format, fmt), 8);
    }
}
