//! What a person's labels tell of where they stand: from feet and head in the grid to distance and eyes in the room (the frames of
//! reference are those of [`crate::geometry`]).

use proto::taxonomy::Part;

use crate::geometry::Pinhole;
use crate::scene::{MaskView, PersonView, Rect};

/// Height from the chin to the top of the hair in metres, used when no feet are seen; adults
/// measure 0.20 to 0.26.
const HEAD_HEIGHT_M: f64 = 0.23;
/// Distances are kept in this range; nobody stands closer or is recognised further away.
const DISTANCE_RANGE_M: (f64, f64) = (0.4, 8.0);
/// Eyes lie this far below the top of the head, as a share of [`HEAD_HEIGHT_M`].
const EYE_SHARE: f64 = 0.5;
/// Eye height when no part of the head is seen.
const USUAL_EYE_HEIGHT_M: f64 = 1.6;
/// A part must have this many grid pixels to be trusted as a landmark.
const LANDMARK_PIXELS: u32 = 6;

/// Rows and columns of a person's landmarks, in grid pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Landmarks {
    /// Lower edge of the lowest foot, when feet are seen whole.
    floor: Option<f64>,
    /// Upper edge of the hair (or face) and lower edge of the face, when seen whole.
    head: Option<(f64, f64)>,
    /// Middle column of the head.
    head_column: Option<f64>,
    /// Upper edge and middle column of everything.
    top: (f64, f64),
}

impl Landmarks {
    /// Reads them from the labels within the person's bounds.
    pub fn find(mask: &MaskView<'_>, person: &PersonView) -> Landmarks {
        let (mut feet, mut head, mut face) = (Extent::EMPTY, Extent::EMPTY, Extent::EMPTY);
        let Rect { x: left, y: top, width, .. } = person.bounds;
        let right = person.bounds.right().min(mask.width);
        let bottom = person.bounds.bottom().min(mask.height);
        for v in top..bottom {
            let start = (v * mask.width) as usize;
            for u in left..right {
                let index = start + u as usize;
                if mask.person[index] != person.slot {
                    continue;
                }
                match Part::from_index(mask.parts[index]) {
                    Some(Part::FootLeft | Part::FootRight) => feet.add(u, v),
                    Some(Part::Hair) => head.add(u, v),
                    Some(Part::Face) => {
                        head.add(u, v);
                        face.add(u, v);
                    }
                    _ => {}
                }
            }
        }
        let (content_top, content_bottom) = (mask.content.y, mask.content.bottom());
        // Whatever touches the picture's edge goes on outside.
        let feet_whole = feet.is_trusted() && feet.bottom < content_bottom;
        let head_whole =
            face.is_trusted() && head.top > content_top && face.bottom < content_bottom;
        let column = |extent: &Extent| f64::from(extent.left + extent.right) / 2.0;
        Landmarks {
            floor: feet_whole.then(|| f64::from(feet.bottom)),
            head: head_whole.then(|| (f64::from(head.top), f64::from(face.bottom))),
            head_column: head.is_trusted().then(|| column(&head)),
            top: (f64::from(top), f64::from(left) + f64::from(width) / 2.0),
        }
    }

    /// Distance from the mirror in metres: from the feet's contact with the ground, else from the
    /// head's size, else `None`. Kept within [`DISTANCE_RANGE_M`].
    pub fn distance(&self, camera: &Pinhole) -> Option<f64> {
        let by_floor = self.floor.and_then(|row| camera.floor_distance(row));
        let by_head = || {
            let (top, bottom) = self.head?;
            camera.distance_of_height(top, bottom, HEAD_HEIGHT_M)
        };
        let distance = by_floor.or_else(by_head)?;
        Some(distance.clamp(DISTANCE_RANGE_M.0, DISTANCE_RANGE_M.1))
    }

    /// Position `(X, Y)` of the eyes of a person at `distance`.
    pub fn eye(&self, camera: &Pinhole, distance: f64) -> (f64, f64) {
        let column = self.head_column.unwrap_or(self.top.1);
        if let Some((top, bottom)) = self.head {
            let height_at = |row| camera.to_room(column, row, distance).1;
            let y = height_at(top) + (height_at(bottom) - height_at(top)) * EYE_SHARE;
            return (camera.across(column, y, distance), y);
        }
        let (x, y) = camera.to_room(column, self.top.0, distance);
        if self.head_column.is_some() {
            return (x, y - HEAD_HEIGHT_M * EYE_SHARE);
        }
        (x, USUAL_EYE_HEIGHT_M)
    }
}

/// Bounding box of some labels; right and bottom exclusive.
struct Extent {
    left: u32,
    top: u32,
    right: u32,
    bottom: u32,
    pixels: u32,
}

impl Extent {
    const EMPTY: Extent = Extent { left: u32::MAX, top: u32::MAX, right: 0, bottom: 0, pixels: 0 };

    fn add(&mut self, u: u32, v: u32) {
        self.left = self.left.min(u);
        self.right = self.right.max(u + 1);
        self.top = self.top.min(v);
        self.bottom = self.bottom.max(v + 1);
        self.pixels += 1;
    }

    fn is_trusted(&self) -> bool {
        self.pixels >= LANDMARK_PIXELS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::tests::{CONTENT, GEOMETRY, Room, SCREEN, photograph};
    use crate::geometry::{MirrorGeometry, Reflection};

    /// Where the line from the eye to the point's mirror image crosses the mirror, in pixels.
    fn reflection_pixel(geometry: &MirrorGeometry, eye: Room, point: Room) -> (f64, f64) {
        let share = eye.2 / (eye.2 + point.2);
        let (x, y) = (eye.0 + (point.0 - eye.0) * share, eye.1 + (point.1 - eye.1) * share);
        let (width, height) = (geometry.screen_width_m, geometry.screen_height_m);
        let top = geometry.screen_bottom_m + height;
        ((x + width / 2.0) / width * f64::from(SCREEN.0), (top - y) / height * f64::from(SCREEN.1))
    }

    fn landmarks_of(geometry: &MirrorGeometry, x: f64, tall: f64, distance: f64) -> Landmarks {
        let at = |y: f64| photograph(geometry, (x, y, distance));
        Landmarks {
            floor: Some(at(0.0).1),
            head: Some((at(tall).1, at(tall - HEAD_HEIGHT_M).1)),
            head_column: Some(at(tall - HEAD_HEIGHT_M * EYE_SHARE).0),
            top: (at(tall).1, at(tall).0),
        }
    }

    fn geometries() -> Vec<MirrorGeometry> {
        let mut all = Vec::new();
        for pitch_deg in [-5.0, 0.0, 15.0, 30.0] {
            for camera_height_m in [1.2, 1.85, 2.2] {
                all.push(MirrorGeometry { pitch_deg, camera_height_m, ..GEOMETRY });
            }
        }
        all
    }

    #[test]
    fn overlay_of_an_upright_body_lies_exactly_on_its_reflection() {
        for geometry in geometries() {
            for (x, tall, distance) in [(0.0, 1.75, 2.0), (0.4, 1.6, 1.2), (-0.6, 1.95, 3.5)] {
                let camera = Pinhole::new(&geometry, CONTENT);
                let landmarks = landmarks_of(&geometry, x, tall, distance);
                let found = landmarks.distance(&camera).expect("feet are seen");
                assert!((found - distance).abs() < 1e-9, "{found} instead of {distance}");
                let eye = landmarks.eye(&camera, found);
                let true_eye = (x, tall - HEAD_HEIGHT_M * EYE_SHARE, distance);
                assert!((eye.0 - true_eye.0).hypot(eye.1 - true_eye.1) < 1e-9, "{eye:?}");
                let reflection = Reflection::new(&geometry, camera, found, eye, SCREEN);
                for point in [(x + 0.3, 0.9), (x - 0.2, 1.4), (x, 0.0), (x + 0.1, tall)] {
                    let point = (point.0, point.1, distance);
                    let (u, v) = photograph(&geometry, point);
                    let (sx, sy) = reflection.to_screen(u, v);
                    let (ex, ey) = reflection_pixel(&geometry, true_eye, point);
                    assert!((sx - ex).hypot(sy - ey) < 1e-6, "{sx} {sy} instead of {ex} {ey}");
                }
            }
        }
    }

    #[test]
    fn depth_of_the_body_moves_the_overlay_by_little() {
        let camera = Pinhole::new(&GEOMETRY, CONTENT);
        let (tall, distance) = (1.75, 2.0);
        let landmarks = landmarks_of(&GEOMETRY, 0.0, tall, distance);
        let eye = landmarks.eye(&camera, distance);
        let reflection = Reflection::new(&GEOMETRY, camera, distance, eye, SCREEN);
        let true_eye = (0.0, tall - HEAD_HEIGHT_M * EYE_SHARE, distance);
        let mut worst = 0.0_f64;
        // Hands held 15 cm before or behind the body, in the middle of the screen.
        for z in [distance - 0.15, distance + 0.15] {
            for (x, y) in [(0.25, 1.5), (-0.25, 1.3), (0.1, 1.1)] {
                let (u, v) = photograph(&GEOMETRY, (x, y, z));
                let (sx, sy) = reflection.to_screen(u, v);
                let (ex, ey) = reflection_pixel(&GEOMETRY, true_eye, (x, y, z));
                worst = worst.max((sx - ex).hypot(sy - ey) / f64::from(SCREEN.0) * 0.30);
            }
        }
        assert!(worst < 0.03, "{:.1} cm", worst * 100.0);
    }

    #[test]
    fn head_tells_the_distance_when_feet_are_cut_off() {
        for geometry in geometries() {
            let camera = Pinhole::new(&geometry, CONTENT);
            for distance in [0.8, 1.5, 3.0] {
                let whole = landmarks_of(&geometry, 0.1, 1.7, distance);
                let cut = Landmarks { floor: None, ..whole };
                let found = cut.distance(&camera).expect("the head is seen");
                assert!((found - distance).abs() < 1e-9);
            }
        }
        let nothing = Landmarks::default();
        assert_eq!(nothing.distance(&Pinhole::new(&GEOMETRY, CONTENT)), None);
    }

    #[test]
    fn landmarks_come_from_whole_parts_only() {
        let (width, height) = (20_u32, 30_u32);
        let mut parts = vec![0_u8; 600];
        let mut person = vec![0_u8; 600];
        let mut put = |part: Part, left: u32, top: u32, right: u32, bottom: u32| {
            for v in top..bottom {
                for u in left..right {
                    parts[(v * width + u) as usize] = part.index();
                    person[(v * width + u) as usize] = 3;
                }
            }
        };
        put(Part::Hair, 8, 2, 12, 4);
        put(Part::Face, 8, 4, 12, 8);
        put(Part::Torso, 6, 8, 14, 20);
        put(Part::FootLeft, 6, 26, 9, 28);
        put(Part::FootRight, 11, 24, 14, 26);
        let view = PersonView { slot: 3, track: 0, bounds: Rect::new(6, 2, 8, 26) };
        let mask = MaskView {
            width,
            height,
            parts: &parts,
            person: &person,
            content: Rect::new(0, 0, width, height),
            people: &[view],
        };
        let whole = Landmarks::find(&mask, &view);
        assert_eq!(whole.floor, Some(28.0));
        assert_eq!(whole.head, Some((2.0, 8.0)));
        assert_eq!(whole.head_column, Some(10.0));
        // The same person in a picture that ends at the feet and begins at the hair.
        let cut = MaskView { content: Rect::new(0, 2, width, 26), ..mask };
        let landmarks = Landmarks::find(&cut, &view);
        assert_eq!((landmarks.floor, landmarks.head), (None, None));
        assert_eq!(landmarks.head_column, Some(10.0));
        let nobody = PersonView { slot: 4, ..view };
        assert_eq!(Landmarks::find(&mask, &nobody).floor, None);
    }
}
