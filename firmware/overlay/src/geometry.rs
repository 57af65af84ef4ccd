//! From the network's grid to the screen: a picture shown as it is, or laid on the reflection.
//!
//! Frames of reference:
//! - **grid**: `u` to the right, `v` down, in grid pixels; pixel `i` covers `i..i + 1`.
//! - **screen**: `x` to the right, `y` down, in screen pixels, seen by the viewer.
//! - **room**, metres: `X` to the right of a viewer who faces the mirror, `Y` up from the floor, `Z`
//!   from the mirror's surface towards the viewer. The middle of the screen is at `X = 0`.
//!
//! Every mapping keeps rows: a screen row shows one grid row, stretched and shifted. That is exact
//! for an upright body in a plane parallel to the mirror and a camera that is tilted but not rolled.

use crate::scene::Rect;

/// How the overlay lies on the screen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Alignment {
    /// The camera's view, as large as fits on the screen.
    Picture {
        /// Left and right as a mirror shows them.
        mirrored: bool,
    },
    /// On the viewer's reflection.
    Reflection(MirrorGeometry),
}

/// Where camera and screen are; the mirror's surface is the plane of both.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MirrorGeometry {
    /// Height of the lens above the floor in metres.
    pub camera_height_m: f64,
    /// Sideways offset of the lens from the screen's middle in metres, positive to the viewer's
    /// right.
    pub camera_offset_m: f64,
    /// Downward tilt of the optical axis in degrees.
    pub pitch_deg: f64,
    /// Horizontal field of view of the upright picture in degrees.
    pub field_of_view_deg: f64,
    /// Width of the lit area in metres.
    pub screen_width_m: f64,
    /// Height of the lit area in metres.
    pub screen_height_m: f64,
    /// Height of the lit area's lower edge above the floor in metres.
    pub screen_bottom_m: f64,
}

/// One screen row in the grid: the screen position `x` shows `(u0 + du * x, v)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GridRow {
    /// Grid row, continuous.
    pub v: f64,
    /// Grid column at the screen's left edge.
    pub u0: f64,
    /// Grid columns per screen pixel; negative when mirrored.
    pub du: f64,
}

/// A mapping between grid and screen for one person.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Projection {
    /// See [`PictureFit`].
    Picture(PictureFit),
    /// See [`Reflection`].
    Reflection(Reflection),
}

impl Projection {
    /// The grid row under the screen row `y` (continuous: the middle of row 0 is 0.5), or `None`
    /// where no grid row can be.
    pub fn row(&self, y: f64) -> Option<GridRow> {
        match self {
            Projection::Picture(fit) => Some(fit.row(y)),
            Projection::Reflection(reflection) => reflection.row(y),
        }
    }

    /// The screen position of a grid position.
    #[cfg(test)]
    fn to_screen(&self, u: f64, v: f64) -> (f64, f64) {
        match self {
            Projection::Picture(fit) => fit.to_screen(u, v),
            Projection::Reflection(reflection) => reflection.to_screen(u, v),
        }
    }
}

/// Left, upper, right and lower edge of a picture on the screen, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edges {
    /// Left.
    pub left: f32,
    /// Upper.
    pub top: f32,
    /// Right.
    pub right: f32,
    /// Lower.
    pub bottom: f32,
}

/// The picture as large as fits on the screen, centred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PictureFit {
    /// Screen pixels per grid pixel, across and down.
    scale: (f64, f64),
    left: f64,
    top: f64,
    content: Rect,
    mirrored: bool,
}

impl PictureFit {
    /// Fits the grid's content rectangle (sides above 0) onto a screen:
    /// `x = left + (u - content.x) * scale`, or from the right when mirrored.
    pub fn new(content: Rect, screen: (u32, u32), mirrored: bool) -> PictureFit {
        let (width, height) = (f64::from(content.width), f64::from(content.height));
        let (screen_width, screen_height) = (f64::from(screen.0), f64::from(screen.1));
        let scale = (screen_width / width).min(screen_height / height);
        PictureFit {
            scale: (scale, scale),
            left: (screen_width - width * scale) / 2.0,
            top: (screen_height - height * scale) / 2.0,
            content,
            mirrored,
        }
    }

    /// The content rectangle on the whole of a picture that it was made from, not mirrored. Only
    /// rounding to grid pixels makes the two scales differ.
    pub fn stretched(content: Rect, picture: (u32, u32)) -> PictureFit {
        let (width, height) = (f64::from(content.width), f64::from(content.height));
        PictureFit {
            scale: (f64::from(picture.0) / width, f64::from(picture.1) / height),
            left: 0.0,
            top: 0.0,
            content,
            mirrored: false,
        }
    }

    /// Where the picture is on the screen.
    pub fn edges(&self) -> Edges {
        let right = self.left + f64::from(self.content.width) * self.scale.0;
        let bottom = self.top + f64::from(self.content.height) * self.scale.1;
        let (left, top) = (self.left as f32, self.top as f32);
        Edges { left, top, right: right as f32, bottom: bottom as f32 }
    }

    /// See [`Projection::row`].
    fn row(&self, y: f64) -> GridRow {
        let [x, top, width] = [self.content.x, self.content.y, self.content.width].map(f64::from);
        let du = 1.0 / self.scale.0;
        let v = top + (y - self.top) / self.scale.1;
        if self.mirrored {
            GridRow { v, u0: x + width + self.left * du, du: -du }
        } else {
            GridRow { v, u0: x - self.left * du, du }
        }
    }

    /// See [`Projection::to_screen`].
    #[cfg(test)]
    fn to_screen(&self, u: f64, v: f64) -> (f64, f64) {
        let [x, top, width] = [self.content.x, self.content.y, self.content.width].map(f64::from);
        let across = if self.mirrored { x + width - u } else { u - x };
        (self.left + across * self.scale.0, self.top + (v - top) * self.scale.1)
    }
}

/// A tilted pinhole camera in the mirror's plane, in grid pixels.
///
/// It looks along `+Z`, tilted down by the pitch `p`. For a point at distance `Z`, with
/// `q = (h - Y) / Z`, the slope below the horizontal:
/// `t = (v - cv) / f = (q - tan p) / (1 + q tan p)` and `depth = Z (q sin p + cos p)`;
/// the picture's right is the viewer's left, so `u = cu - f (X - o) / depth`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pinhole {
    height: f64,
    offset: f64,
    sin: f64,
    cos: f64,
    focal: f64,
    centre: (f64, f64),
}

impl Pinhole {
    /// The camera whose upright picture fills the grid's content rectangle:
    /// `f = (width / 2) / tan(field of view / 2)`, square pixels, optical axis in the middle.
    pub fn new(geometry: &MirrorGeometry, content: Rect) -> Pinhole {
        let Rect { x, y, width, height } = content;
        let [x, y, width, height] = [x, y, width, height].map(f64::from);
        let half_angle = (geometry.field_of_view_deg.clamp(1.0, 179.0) / 2.0).to_radians();
        let (sin, cos) = geometry.pitch_deg.clamp(-89.0, 89.0).to_radians().sin_cos();
        Pinhole {
            height: geometry.camera_height_m,
            offset: geometry.camera_offset_m,
            sin,
            cos,
            focal: width / 2.0 / half_angle.tan(),
            centre: (x + width / 2.0, y + height / 2.0),
        }
    }

    /// Slope `q` below the horizontal of the grid row `v`; infinite or turned over for rows that
    /// look straight down or further.
    fn slope(&self, v: f64) -> f64 {
        let t = (v - self.centre.1) / self.focal;
        (t * self.cos + self.sin) / (self.cos - t * self.sin)
    }

    /// The grid row of a slope, or `None` behind the camera.
    fn row_of_slope(&self, slope: f64) -> Option<f64> {
        let ahead = self.cos + slope * self.sin;
        (ahead > 1e-6).then(|| self.centre.1 + self.focal * (slope * self.cos - self.sin) / ahead)
    }

    /// Depth along the optical axis of what is seen at `slope` and at `distance` from the mirror.
    fn depth(&self, slope: f64, distance: f64) -> f64 {
        distance * (slope * self.sin + self.cos)
    }

    /// Room position `(X, Y)` of a grid position that shows something at `distance`.
    pub fn to_room(&self, u: f64, v: f64, distance: f64) -> (f64, f64) {
        let y = self.height - distance * self.slope(v);
        (self.across(u, y, distance), y)
    }

    /// Room position `X` of a grid column that shows something at height `y` and at `distance`.
    pub(crate) fn across(&self, u: f64, y: f64, distance: f64) -> f64 {
        let depth = self.depth((self.height - y) / distance, distance);
        self.offset - (u - self.centre.0) / self.focal * depth
    }

    /// Distance of something on the floor seen at row `v`: `D = h / q`. `None` at or above the
    /// horizon.
    pub fn floor_distance(&self, v: f64) -> Option<f64> {
        let slope = self.slope(v);
        (slope > 1e-3 && slope.is_finite()).then(|| self.height / slope)
    }

    /// Distance of something upright of known height that spans rows `top..bottom`:
    /// `D = height / (q(bottom) - q(top))`. `None` for an empty span.
    pub fn distance_of_height(&self, top: f64, bottom: f64, height: f64) -> Option<f64> {
        let span = self.slope(bottom) - self.slope(top);
        (span > 1e-3 && span.is_finite()).then(|| height / span)
    }
}

/// The overlay on one person's reflection.
///
/// A viewer whose eyes are at `E` sees the reflection of a body point `P` where the line from `E`
/// to the mirror image of `P` crosses the mirror. For a body in one plane parallel to the mirror
/// that is the midpoint, `(P + E) / 2`: the reflection has half size at any distance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reflection {
    camera: Pinhole,
    distance: f64,
    eye: (f64, f64),
    /// Screen pixels per metre, across and down.
    density: (f64, f64),
    /// Room position of the screen's left and upper edges.
    corner: (f64, f64),
}

impl Reflection {
    /// For a person at `distance` metres with the eyes at `eye`, on a screen of this many pixels.
    pub fn new(
        geometry: &MirrorGeometry,
        camera: Pinhole,
        distance: f64,
        eye: (f64, f64),
        screen: (u32, u32),
    ) -> Reflection {
        let (width, height) = (geometry.screen_width_m, geometry.screen_height_m);
        Reflection {
            camera,
            distance,
            eye,
            density: (f64::from(screen.0) / width, f64::from(screen.1) / height),
            corner: (-width / 2.0, geometry.screen_bottom_m + height),
        }
    }

    /// See [`Projection::row`].
    fn row(&self, y: f64) -> Option<GridRow> {
        let Pinhole { height, offset, focal, centre, .. } = self.camera;
        let mirror_y = self.corner.1 - y / self.density.1;
        let body_y = 2.0 * mirror_y - self.eye.1;
        let slope = (height - body_y) / self.distance;
        let v = self.camera.row_of_slope(slope)?;
        let depth = self.camera.depth(slope, self.distance);
        let body_x0 = 2.0 * self.corner.0 - self.eye.0;
        let per_metre = -focal / depth;
        let u0 = centre.0 + (body_x0 - offset) * per_metre;
        Some(GridRow { v, u0, du: 2.0 / self.density.0 * per_metre })
    }

    /// See [`Projection::to_screen`].
    #[cfg(test)]
    pub fn to_screen(&self, u: f64, v: f64) -> (f64, f64) {
        let (body_x, body_y) = self.camera.to_room(u, v, self.distance);
        let (x, y) = ((body_x + self.eye.0) / 2.0, (body_y + self.eye.1) / 2.0);
        ((x - self.corner.0) * self.density.0, (self.corner.1 - y) * self.density.1)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const GEOMETRY: MirrorGeometry = MirrorGeometry {
        camera_height_m: 1.85,
        camera_offset_m: 0.05,
        pitch_deg: 15.0,
        field_of_view_deg: 45.0,
        screen_width_m: 0.30,
        screen_height_m: 0.53,
        screen_bottom_m: 1.25,
    };
    pub(crate) const CONTENT: Rect = Rect::new(0, 0, 192, 256);
    pub(crate) const SCREEN: (u32, u32) = (1080, 1920);

    pub(crate) type Room = (f64, f64, f64);

    /// Projects by rotating into the camera's axes: an independent way to the same picture.
    pub(crate) fn photograph(geometry: &MirrorGeometry, (x, y, z): Room) -> (f64, f64) {
        let p = geometry.pitch_deg.to_radians();
        let (dx, dy) = (x - geometry.camera_offset_m, y - geometry.camera_height_m);
        let forward = -dy * p.sin() + z * p.cos();
        let down = -dy * p.cos() - z * p.sin();
        let focal = 96.0 / (geometry.field_of_view_deg / 2.0).to_radians().tan();
        (96.0 - focal * dx / forward, 128.0 + focal * down / forward)
    }

    #[test]
    fn rows_and_points_agree_for_every_projection() {
        let camera = Pinhole::new(&GEOMETRY, CONTENT);
        let projections = [
            Projection::Picture(PictureFit::new(Rect::new(8, 4, 150, 200), SCREEN, false)),
            Projection::Picture(PictureFit::new(Rect::new(8, 4, 150, 200), SCREEN, true)),
            Projection::Picture(PictureFit::new(Rect::new(0, 0, 192, 144), (640, 480), true)),
            Projection::Picture(PictureFit::stretched(Rect::new(3, 0, 190, 144), (640, 480))),
            Projection::Reflection(Reflection::new(&GEOMETRY, camera, 1.7, (0.1, 1.6), SCREEN)),
        ];
        for projection in projections {
            for (x, y) in [(0.5, 0.5), (300.0, 700.0), (1079.5, 1919.5)] {
                let row = projection.row(y).expect("in front of the camera");
                let (back_x, back_y) = projection.to_screen(row.u0 + row.du * x, row.v);
                assert!((back_x - x).abs() < 1e-6 && (back_y - y).abs() < 1e-6, "{projection:?}");
            }
        }
    }

    #[test]
    fn picture_is_centred_whole_and_mirrored() {
        let fit = PictureFit::new(Rect::new(10, 20, 100, 50), (400, 400), false);
        assert_eq!(fit.to_screen(10.0, 20.0), (0.0, 100.0));
        assert_eq!(fit.to_screen(110.0, 70.0), (400.0, 300.0));
        let mirrored = PictureFit::new(Rect::new(10, 20, 100, 50), (400, 400), true);
        assert_eq!(mirrored.to_screen(10.0, 20.0), (400.0, 100.0));
    }

    #[test]
    fn the_viewer_s_right_stays_on_the_right() {
        let camera = Pinhole::new(&GEOMETRY, CONTENT);
        let reflection = Reflection::new(&GEOMETRY, camera, 2.0, (0.0, 1.6), SCREEN);
        let (u, v) = photograph(&GEOMETRY, (0.2, 1.4, 2.0));
        assert!(u < 96.0, "the camera sees the viewer's right on its left");
        assert!(reflection.to_screen(u, v).0 > 540.0);
    }

    #[test]
    fn horizon_and_looking_back_give_no_distance() {
        let level = MirrorGeometry { pitch_deg: 0.0, ..GEOMETRY };
        let camera = Pinhole::new(&level, CONTENT);
        assert_eq!(camera.floor_distance(128.0), None);
        assert_eq!(camera.floor_distance(20.0), None);
        assert_eq!(camera.distance_of_height(50.0, 50.0, 0.23), None);
        let down = MirrorGeometry { pitch_deg: 80.0, ..GEOMETRY };
        assert_eq!(Pinhole::new(&down, CONTENT).row_of_slope(-20.0), None);
    }
}
