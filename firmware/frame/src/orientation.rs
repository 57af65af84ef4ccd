//! How the picture must be turned so that the person stands upright.

/// A clockwise turn of the camera's picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Rotation {
    #[default]
    None,
    Clockwise90,
    Half,
    Clockwise270,
}

impl Rotation {
    /// From degrees clockwise; only 0, 90, 180 and 270 exist.
    pub fn from_degrees(degrees: u32) -> Option<Rotation> {
        match degrees {
            0 => Some(Rotation::None),
            90 => Some(Rotation::Clockwise90),
            180 => Some(Rotation::Half),
            270 => Some(Rotation::Clockwise270),
            _ => None,
        }
    }

    /// Quarter turns clockwise, 0 to 3.
    fn quarters(self) -> usize {
        match self {
            Rotation::None => 0,
            Rotation::Clockwise90 => 1,
            Rotation::Half => 2,
            Rotation::Clockwise270 => 3,
        }
    }

    /// Whether width and height change places.
    pub fn swaps_axes(self) -> bool {
        matches!(self, Rotation::Clockwise90 | Rotation::Clockwise270)
    }
}

/// Rotation first, then an optional left-right flip of the turned picture.
///
/// The upright picture that results is *not* mirrored with respect to the world: a flip undoes a
/// camera that mirrors by itself. Mirroring for the person's eye is the overlay's business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orientation {
    /// Clockwise turn applied to the camera's picture.
    pub rotation: Rotation,
    /// Left-right flip applied after the turn.
    pub flip_horizontal: bool,
}

impl Orientation {
    /// Size of the upright picture for a camera picture of `width` x `height` pixels.
    pub fn upright_size(self, width: u32, height: u32) -> (u32, u32) {
        if self.rotation.swaps_axes() { (height, width) } else { (width, height) }
    }

    /// This turn, and `next` after it.
    pub fn then(self, next: Orientation) -> Orientation {
        // After a flip a turn goes the other way.
        let turned = if self.flip_horizontal {
            4 - next.rotation.quarters()
        } else {
            next.rotation.quarters()
        };
        let quarters = self.rotation.quarters() + turned;
        let all = [Rotation::None, Rotation::Clockwise90, Rotation::Half, Rotation::Clockwise270];
        Orientation {
            rotation: all[quarters % 4],
            flip_horizontal: self.flip_horizontal != next.flip_horizontal,
        }
    }

    /// What takes this back: a flip after a turn is its own, a turn alone goes the other way.
    pub fn inverse(self) -> Orientation {
        let rotation = match self.rotation {
            Rotation::Clockwise90 if !self.flip_horizontal => Rotation::Clockwise270,
            Rotation::Clockwise270 if !self.flip_horizontal => Rotation::Clockwise90,
            rotation => rotation,
        };
        Orientation { rotation, ..self }
    }

    /// Camera coordinates of the upright pixel `(x, y)`; the camera's picture is `width` x `height`.
    ///
    /// `x` and `y` must lie inside the upright picture.
    pub fn to_camera(self, x: u32, y: u32, width: u32, height: u32) -> (u32, u32) {
        let (upright_width, _) = self.upright_size(width, height);
        let x = if self.flip_horizontal { upright_width - 1 - x } else { x };
        match self.rotation {
            Rotation::None => (x, y),
            Rotation::Clockwise90 => (y, height - 1 - x),
            Rotation::Half => (width - 1 - x, height - 1 - y),
            Rotation::Clockwise270 => (width - 1 - y, x),
        }
    }

    /// A box in the camera's picture of `width` x `height`: left, top, width and height, from those in
    /// the upright picture.
    ///
    /// The box must lie inside the upright picture; it may be empty.
    pub fn box_to_camera(self, bounds: [u32; 4], width: u32, height: u32) -> [u32; 4] {
        let [x, y, across, down] = bounds;
        let (upright_width, _) = self.upright_size(width, height);
        let x = if self.flip_horizontal { upright_width - x - across } else { x };
        match self.rotation {
            Rotation::None => [x, y, across, down],
            Rotation::Clockwise90 => [y, height - x - across, down, across],
            Rotation::Half => [width - x - across, height - y - down, across, down],
            Rotation::Clockwise270 => [width - y - down, x, down, across],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 3 x 2 picture, written as text, must turn as one turns a sheet of paper.
    #[test]
    fn turns_like_a_sheet_of_paper() {
        let picture = ["abc", "def"];
        let check = |rotation, flip_horizontal, expect: &[&str]| {
            let orientation = Orientation { rotation, flip_horizontal };
            let (width, height) = orientation.upright_size(3, 2);
            let turned: Vec<String> = (0..height)
                .map(|y| {
                    (0..width)
                        .map(|x| {
                            let (cx, cy) = orientation.to_camera(x, y, 3, 2);
                            picture[cy as usize].as_bytes()[cx as usize] as char
                        })
                        .collect()
                })
                .collect();
            assert_eq!(turned, expect, "{orientation:?}");
        };
        check(Rotation::None, false, &["abc", "def"]);
        check(Rotation::None, true, &["cba", "fed"]);
        check(Rotation::Clockwise90, false, &["da", "eb", "fc"]);
        check(Rotation::Half, false, &["fed", "cba"]);
        check(Rotation::Clockwise270, false, &["cf", "be", "ad"]);
        check(Rotation::Clockwise90, true, &["ad", "be", "cf"]);
    }

    #[test]
    fn two_turns_are_as_one() {
        let all = || {
            let rotations = [0, 90, 180, 270]
                .map(|degrees| Rotation::from_degrees(degrees).expect("a quarter"));
            let flips = |rotation| {
                [false, true].map(|flip_horizontal| Orientation { rotation, flip_horizontal })
            };
            rotations.into_iter().flat_map(flips)
        };
        for (first, next) in all().flat_map(|first| all().map(move |next| (first, next))) {
            let (both, (width, height)) = (first.then(next), (7, 5));
            let between = first.upright_size(width, height);
            assert_eq!(both.upright_size(width, height), next.upright_size(between.0, between.1));
            for (x, y) in [(0, 0), (3, 1), (2, 4)] {
                let (bx, by) = next.to_camera(x, y, between.0, between.1);
                let step_by_step = first.to_camera(bx, by, width, height);
                assert_eq!(
                    both.to_camera(x, y, width, height),
                    step_by_step,
                    "{first:?}, {next:?}"
                );
            }
            assert_eq!(first.then(first.inverse()), Orientation::default());
        }
    }

    /// A box must cover the camera pixels of its upright pixels, and no other.
    #[test]
    fn a_box_goes_where_its_pixels_go() {
        let (width, height) = (7, 5);
        for degrees in [0, 90, 180, 270] {
            for flip_horizontal in [false, true] {
                let rotation = Rotation::from_degrees(degrees).expect("a quarter");
                let orientation = Orientation { rotation, flip_horizontal };
                let pixels = (1..4).flat_map(|x| (2..4).map(move |y| (x, y)));
                let mut wanted: Vec<_> =
                    pixels.map(|(x, y)| orientation.to_camera(x, y, width, height)).collect();
                let [x, y, w, h] = orientation.box_to_camera([1, 2, 3, 2], width, height);
                let mut covered: Vec<_> =
                    (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))).collect();
                wanted.sort_unstable();
                covered.sort_unstable();
                assert_eq!(covered, wanted, "{orientation:?}");
                let (across, down) = orientation.upright_size(width, height);
                let [_, _, w, h] = orientation.box_to_camera([across, down, 0, 0], width, height);
                assert_eq!((w, h), (0, 0), "nothing stays nothing");
            }
        }
    }
}
