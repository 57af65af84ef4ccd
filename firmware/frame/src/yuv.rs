//! YUV to RGB as ITU-R BT.601 defines it for limited range (Y 16 to 235, U and V 16 to 240).
//!
//! R = [`LUMA`] (Y - 16) + [`RED_FROM_V`] (V - 128), and so on; every crate takes the factors from
//! here, so that the preview, the network and the tests see the same colours.

/// 255 / 219.
pub const LUMA: f32 = 1.164_383_6;
/// 2 (1 - 0.299) 255 / 224.
pub const RED_FROM_V: f32 = 1.596_026_8;
/// -2 (1 - 0.114) (0.114 / 0.587) 255 / 224.
pub const GREEN_FROM_U: f32 = -0.391_762_3;
/// -2 (1 - 0.299) (0.299 / 0.587) 255 / 224.
pub const GREEN_FROM_V: f32 = -0.812_967_6;
/// 2 (1 - 0.114) 255 / 224.
pub const BLUE_FROM_U: f32 = 2.017_232_1;

/// Fraction bits of the integer form.
const BITS: u32 = 16;

const fn fixed(factor: f32) -> i32 {
    let scaled = factor * (1 << BITS) as f32;
    (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

/// Red, green and blue of one pixel, rounded and cut to 0..=255.
pub fn to_rgb(y: u8, u: u8, v: u8) -> [u8; 3] {
    let luma = const { fixed(LUMA) } * (i32::from(y) - 16) + (1 << (BITS - 1));
    let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
    let byte = |value: i32| (value >> BITS).clamp(0, 255) as u8;
    [
        byte(luma + const { fixed(RED_FROM_V) } * v),
        byte(luma + const { fixed(GREEN_FROM_U) } * u + const { fixed(GREEN_FROM_V) } * v),
        byte(luma + const { fixed(BLUE_FROM_U) } * u),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition in f64, from Kr = 0.299 and Kb = 0.114.
    fn reference(y: u8, u: u8, v: u8) -> [f64; 3] {
        let (kr, kb) = (0.299, 0.114);
        let luma = (f64::from(y) - 16.0) / 219.0;
        let (pb, pr) = ((f64::from(u) - 128.0) / 112.0, (f64::from(v) - 128.0) / 112.0);
        let (red, blue) = (luma + (1.0 - kr) * pr, luma + (1.0 - kb) * pb);
        let green = (luma - kr * red - kb * blue) / (1.0 - kr - kb);
        [red, green, blue].map(|value| (255.0 * value).clamp(0.0, 255.0))
    }

    #[test]
    fn every_colour_lies_within_half_a_step_of_the_definition() {
        for y in (0..=255).step_by(3) {
            for u in (0..=255).step_by(5) {
                for v in (0..=255).step_by(5) {
                    let (y, u, v) = (y as u8, u as u8, v as u8);
                    for (given, want) in to_rgb(y, u, v).into_iter().zip(reference(y, u, v)) {
                        // The integer factors may move a value that lies halfway.
                        let off = (f64::from(given) - want).abs();
                        assert!(off < 0.51, "{y} {u} {v}: {given} for {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn black_white_and_grey_are_exact() {
        assert_eq!(to_rgb(16, 128, 128), [0; 3]);
        assert_eq!(to_rgb(235, 128, 128), [255; 3]);
        assert_eq!(to_rgb(126, 128, 128), [128; 3]);
    }
}
