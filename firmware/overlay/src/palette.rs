//! Colours: one per part, one per person, and those of texts and icons.
//!
//! On a mirror black is transparent and every colour is light added to a reflection, so all of them
//! are bright. The person's left is warm (coral, amber, yellow), the right is cool (indigo, azure,
//! cyan): the one contrast that people with any colour vision deficiency keep. Along a limb the
//! colours grow lighter towards hand and foot, so that neighbours differ in lightness too.

use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use proto::taxonomy::{PART_COUNT, Part};

/// Colour of every part by its index in a label map; the background is black, which is mirror.
pub(crate) const PALETTE: [Rgb888; PART_COUNT] = [
    Rgb888::new(0x00, 0x00, 0x00), // background
    Rgb888::new(0x9F, 0x63, 0xFF), // hair
    Rgb888::new(0xFF, 0x98, 0xE4), // face
    Rgb888::new(0x12, 0xE0, 0x9C), // torso
    Rgb888::new(0xFF, 0x6A, 0x33), // upper arm, left
    Rgb888::new(0x3A, 0x80, 0xFF), // upper arm, right
    Rgb888::new(0xFF, 0xA8, 0x1F), // lower arm, left
    Rgb888::new(0x2B, 0xBE, 0xFF), // lower arm, right
    Rgb888::new(0xFF, 0xE4, 0x52), // hand, left
    Rgb888::new(0x7D, 0xF3, 0xFF), // hand, right
    Rgb888::new(0xFF, 0x3F, 0x6B), // upper leg, left
    Rgb888::new(0x62, 0x56, 0xFF), // upper leg, right
    Rgb888::new(0xFF, 0x8B, 0x96), // lower leg, left
    Rgb888::new(0x6F, 0x9E, 0xFF), // lower leg, right
    Rgb888::new(0xFF, 0xC4, 0x9E), // foot, left
    Rgb888::new(0xB0, 0xD6, 0xFF), // foot, right
];

/// Outlines of people: a track keeps its colour for as long as it is followed.
const TRACKS: [Rgb888; 8] = [
    Rgb888::new(0xFF, 0xFF, 0xFF),
    Rgb888::new(0xFF, 0xD2, 0x3F),
    Rgb888::new(0x5C, 0xFF, 0xC8),
    Rgb888::new(0xFF, 0x7A, 0xD6),
    Rgb888::new(0x7A, 0xC2, 0xFF),
    Rgb888::new(0xC8, 0xFF, 0x5C),
    Rgb888::new(0xFF, 0x9C, 0x5C),
    Rgb888::new(0xCB, 0xA4, 0xFF),
];

/// Headlines.
pub(crate) const TEXT: Rgb888 = Rgb888::new(0xF4, 0xF7, 0xFA);
/// Advice.
pub(crate) const TEXT_SOFT: Rgb888 = Rgb888::new(0xC3, 0xCF, 0xDB);
/// Details for whoever repairs the mirror.
pub(crate) const TEXT_FAINT: Rgb888 = Rgb888::new(0x8D, 0x9C, 0xAC);
/// Everything is well, wait.
pub(crate) const CALM: Rgb888 = Rgb888::new(0x6F, 0xC8, 0xFF);
/// Somebody should do something.
pub(crate) const WARNING: Rgb888 = Rgb888::new(0xFF, 0xB8, 0x3D);
/// Something is too hot or broken.
pub(crate) const ALARM: Rgb888 = Rgb888::new(0xFF, 0x6B, 0x57);
/// The camera sees: the colour phones and laptops use for it.
pub(crate) const CAMERA_ACTIVE: Rgb888 = Rgb888::new(0x3B, 0xF0, 0x7A);

/// The colour of a part.
pub(crate) const fn part_colour(part: Part) -> Rgb888 {
    PALETTE[part.index() as usize]
}

/// Red, green and blue of a part, 0 to 255 each; the background is black, which is mirror.
pub fn part_rgb(part: Part) -> [u8; 3] {
    let colour = part_colour(part);
    [colour.r(), colour.g(), colour.b()]
}

/// The outline colour of the person followed under this number; it repeats every eight.
pub(crate) const fn track_colour(track: u32) -> Rgb888 {
    TRACKS[track as usize % TRACKS.len()]
}

/// The number of different outline colours.
pub(crate) const TRACK_COLOURS: usize = TRACKS.len();

/// A colour made darker, `level` 0 to 1, as `0x00RRGGBB`.
pub(crate) fn dimmed(colour: Rgb888, level: f32) -> u32 {
    let channel = |value: u8| (f32::from(value) * level.clamp(0.0, 1.0) + 0.5) as u32;
    channel(colour.r()) << 16 | channel(colour.g()) << 8 | channel(colour.b())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How people without red, green or blue cones see linear RGB: Machado, Oliveira, Fernandes,
    /// "A physiologically-based model for simulation of color vision deficiency" (2009), severity 1.
    const VISIONS: [[[f64; 3]; 3]; 4] = [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    ];

    fn linear(colour: Rgb888) -> [f64; 3] {
        [colour.r(), colour.g(), colour.b()].map(|value| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        })
    }

    fn times(matrix: &[[f64; 3]; 3], v: [f64; 3]) -> [f64; 3] {
        [0, 1, 2].map(|i| (0..3).map(|j| matrix[i][j] * v[j]).sum())
    }

    /// Björn Ottosson's Oklab (2020): distances in it are roughly perceived differences.
    fn oklab(rgb: [f64; 3]) -> [f64; 3] {
        let cones = times(
            &[
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ],
            rgb.map(|value| value.clamp(0.0, 1.0)),
        );
        times(
            &[
                [0.2104542553, 0.7936177850, -0.0040720468],
                [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660],
            ],
            cones.map(f64::cbrt),
        )
    }

    fn difference(a: Rgb888, b: Rgb888, vision: &[[f64; 3]; 3]) -> f64 {
        let (a, b) = (oklab(times(vision, linear(a))), oklab(times(vision, linear(b))));
        (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn every_part_is_bright_on_black() {
        for part in &Part::ALL[1..] {
            let lightness = oklab(linear(part_colour(*part)))[0];
            assert!(lightness > 0.55, "{} has lightness {lightness:.2}", part.name());
        }
        assert_eq!(part_colour(Part::Background), Rgb888::BLACK);
    }

    #[test]
    fn left_and_right_differ_for_every_colour_vision() {
        for part in Part::ALL {
            let other = part.other_side();
            if other <= part {
                continue;
            }
            for (index, vision) in VISIONS.iter().enumerate() {
                let difference = difference(part_colour(part), part_colour(other), vision);
                assert!(difference > 0.1, "{} {index}: {difference:.3}", part.name());
            }
        }
    }

    #[test]
    fn neighbours_on_the_body_differ_for_every_colour_vision() {
        use Part::*;
        let neighbours = [
            (Hair, Face),
            (Face, Torso),
            (Hair, Torso),
            (Torso, UpperArmLeft),
            (Torso, UpperArmRight),
            (Torso, UpperLegLeft),
            (Torso, UpperLegRight),
            (UpperArmLeft, LowerArmLeft),
            (UpperArmRight, LowerArmRight),
            (LowerArmLeft, HandLeft),
            (LowerArmRight, HandRight),
            (UpperLegLeft, LowerLegLeft),
            (UpperLegRight, LowerLegRight),
            (LowerLegLeft, FootLeft),
            (LowerLegRight, FootRight),
            (HandLeft, UpperLegLeft),
            (HandRight, UpperLegRight),
        ];
        for (a, b) in neighbours {
            for (index, vision) in VISIONS.iter().enumerate() {
                let difference = difference(part_colour(a), part_colour(b), vision);
                assert!(difference > 0.07, "{} {} {index}: {difference:.3}", a.name(), b.name());
            }
        }
    }

    #[test]
    fn no_two_parts_and_no_two_people_share_a_colour() {
        for (index, colour) in PALETTE.iter().enumerate() {
            assert!(!PALETTE[..index].contains(colour));
        }
        for (index, colour) in TRACKS.iter().enumerate() {
            assert!(!TRACKS[..index].contains(colour));
        }
        assert_eq!(track_colour(3), track_colour(11));
    }
}
