//! YUV to RGB as ITU-R BT.601 defines it, for limited range (Y 16 to 235, U and V 16 to 240) and for full range (0 to 255).
//!
//! Every crate takes the factors from here, so that the preview, the network and the tests see the same colours.

/// The factors of one range: R = `luma` (Y - `black`) + `red_from_v` (V - 128), and so on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matrix {
    /// The Y of black.
    pub black: f32,
    /// What a step of Y adds to red, green and blue.
    pub luma: f32,
    /// What a step of V adds to red.
    pub red_from_v: f32,
    /// What a step of U adds to green.
    pub green_from_u: f32,
    /// What a step of V adds to green.
    pub green_from_v: f32,
    /// What a step of U adds to blue.
    pub blue_from_u: f32,
}

/// Limited range: the factors of full range times 255 / 219 for Y, 255 / 224 for U and V.
pub const LIMITED: Matrix = Matrix {
    black: 16.0,
    luma: 1.164_383_6,
    red_from_v: 1.596_026_8,
    green_from_u: -0.391_762_3,
    green_from_v: -0.812_967_6,
    blue_from_u: 2.017_232_1,
};

/// Full range: 2 (1 - 0.299) for red, 2 (1 - 0.114) for blue, and for green these times -0.299 / 0.587 and -0.114 / 0.587.
pub const FULL: Matrix = Matrix {
    black: 0.0,
    luma: 1.0,
    red_from_v: 1.402,
    green_from_u: -0.344_136_3,
    green_from_v: -0.714_136_3,
    blue_from_u: 1.772,
};

impl Matrix {
    /// The factors of full or of limited range.
    pub const fn of(full_range: bool) -> Matrix {
        if full_range { FULL } else { LIMITED }
    }
}

/// Fraction bits of the integer form.
const BITS: u32 = 16;

/// A [`Matrix`] in integers, for single pixels. Made once for a picture.
#[derive(Clone, Copy, Debug)]
pub struct Pixels {
    black: i32,
    luma: i32,
    red_from_v: i32,
    green_from_u: i32,
    green_from_v: i32,
    blue_from_u: i32,
}

impl Pixels {
    /// For pictures of full or of limited range.
    pub const fn of(full_range: bool) -> Pixels {
        let matrix = Matrix::of(full_range);
        Pixels {
            black: matrix.black as i32,
            luma: fixed(matrix.luma),
            red_from_v: fixed(matrix.red_from_v),
            green_from_u: fixed(matrix.green_from_u),
            green_from_v: fixed(matrix.green_from_v),
            blue_from_u: fixed(matrix.blue_from_u),
        }
    }

    /// Red, green and blue of one pixel, rounded and cut to 0..=255.
    pub(crate) fn to_rgb(&self, y: u8, u: u8, v: u8) -> [u8; 3] {
        let luma = self.luma * (i32::from(y) - self.black) + (1 << (BITS - 1));
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        let byte = |value: i32| (value >> BITS).clamp(0, 255) as u8;
        [
            byte(luma + self.red_from_v * v),
            byte(luma + self.green_from_u * u + self.green_from_v * v),
            byte(luma + self.blue_from_u * u),
        ]
    }
}

const fn fixed(factor: f32) -> i32 {
    let scaled = factor * (1 << BITS) as f32;
    (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition in f64, from Kr = 0.299 and Kb = 0.114.
    fn reference(full_range: bool, y: u8, u: u8, v: u8) -> [f64; 3] {
        let (kr, kb) = (0.299, 0.114);
        let (black, luma, chroma) =
            if full_range { (0.0, 255.0, 127.5) } else { (16.0, 219.0, 112.0) };
        let luma = (f64::from(y) - black) / luma;
        let (pb, pr) = ((f64::from(u) - 128.0) / chroma, (f64::from(v) - 128.0) / chroma);
        let (red, blue) = (luma + (1.0 - kr) * pr, luma + (1.0 - kb) * pb);
        let green = (luma - kr * red - kb * blue) / (1.0 - kr - kb);
        [red, green, blue].map(|value| (255.0 * value).clamp(0.0, 255.0))
    }

    #[test]
    fn every_colour_lies_within_half_a_step_of_the_definition() {
        for full_range in [false, true] {
            for y in (0..=255).step_by(3) {
                for u in (0..=255).step_by(5) {
                    for v in (0..=255).step_by(5) {
                        check(full_range, y as u8, u as u8, v as u8);
                    }
                }
            }
        }
    }

    fn check(full_range: bool, y: u8, u: u8, v: u8) {
        let given = Pixels::of(full_range).to_rgb(y, u, v);
        for (given, want) in given.into_iter().zip(reference(full_range, y, u, v)) {
            // The integer factors may move a value that lies halfway.
            let off = (f64::from(given) - want).abs();
            assert!(off < 0.51, "{full_range} {y} {u} {v}: {given} for {want}");
        }
    }

    #[test]
    fn black_white_and_grey_are_exact() {
        let limited = |y| Pixels::of(false).to_rgb(y, 128, 128);
        assert_eq!([16, 235, 126].map(limited), [[0; 3], [255; 3], [128; 3]]);
        let full = |y| Pixels::of(true).to_rgb(y, 128, 128);
        assert_eq!([0, 255, 128].map(full), [[0; 3], [255; 3], [128; 3]]);
    }
}
