//! How the canvas is turned on the panel.

/// Clockwise turn of the canvas on its way to the panel.
///
/// A panel that hangs turned counter-clockwise by 90 degrees needs `Clockwise90` to show an
/// upright picture.
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
    /// All four.
    pub const ALL: [Rotation; 4] =
        [Rotation::None, Rotation::Clockwise90, Rotation::Half, Rotation::Clockwise270];

    /// From degrees clockwise; only 0, 90, 180 and 270 exist.
    pub fn from_degrees(degrees: u32) -> Option<Rotation> {
        Rotation::ALL.into_iter().find(|rotation| rotation.degrees() == degrees)
    }

    /// Degrees clockwise.
    pub fn degrees(self) -> u32 {
        match self {
            Rotation::None => 0,
            Rotation::Clockwise90 => 90,
            Rotation::Half => 180,
            Rotation::Clockwise270 => 270,
        }
    }

    /// Whether width and height change places.
    pub fn swaps_axes(self) -> bool {
        matches!(self, Rotation::Clockwise90 | Rotation::Clockwise270)
    }

    /// Size of the panel for a canvas of `size`, and just as well the other way round.
    pub fn turn(self, size: (u32, u32)) -> (u32, u32) {
        if self.swaps_axes() { (size.1, size.0) } else { size }
    }

    /// Where the panel's pixels lie in a canvas of `size`, row after row: panel pixel `(x, y)` is
    /// canvas pixel number `start + x * step_x + y * step_y`.
    pub(crate) fn walk(self, (width, height): (u32, u32)) -> Walk {
        let (width, height) = (width as isize, height as isize);
        let (start, step_x, step_y) = match self {
            Rotation::None => (0, 1, width),
            Rotation::Clockwise90 => ((height - 1) * width, -width, 1),
            Rotation::Half => (height * width - 1, -1, -width),
            Rotation::Clockwise270 => (width - 1, width, -1),
        };
        Walk { start, step_x, step_y }
    }
}

/// See [`Rotation::walk`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    pub start: isize,
    pub step_x: isize,
    pub step_y: isize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degrees_round_trip() {
        for rotation in Rotation::ALL {
            assert_eq!(Rotation::from_degrees(rotation.degrees()), Some(rotation));
        }
        for degrees in [1, 45, 91, 360, u32::MAX] {
            assert_eq!(Rotation::from_degrees(degrees), None);
        }
    }

    /// The canvas's top-left corner comes to lie where a clockwise turn puts it.
    #[test]
    fn corners_of_a_walk() {
        let (width, height) = (5, 3);
        let at = |rotation: Rotation, x: isize, y: isize| {
            let walk = rotation.walk((width, height));
            walk.start + x * walk.step_x + y * walk.step_y
        };
        assert_eq!(at(Rotation::None, 0, 0), 0);
        assert_eq!(at(Rotation::Clockwise90, 2, 0), 0);
        assert_eq!(at(Rotation::Half, 4, 2), 0);
        assert_eq!(at(Rotation::Clockwise270, 0, 4), 0);
        // The canvas's bottom-right corner is opposite.
        assert_eq!(at(Rotation::Clockwise90, 0, 4), 14);
        assert_eq!(at(Rotation::Clockwise270, 2, 0), 14);
    }
}
