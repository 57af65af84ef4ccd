//! People drawn with discs and bars: the overlay's input in tests, examples and benchmarks.
#![allow(dead_code)] // each user takes what it needs

use overlay::{MaskView, PersonView, Rect};
use proto::taxonomy::Part;

/// Labels on a grid, and the people in it.
pub struct Crowd {
    pub width: u32,
    pub height: u32,
    pub parts: Vec<u8>,
    pub person: Vec<u8>,
    pub people: Vec<PersonView>,
}

/// Where somebody stands and how.
#[derive(Clone, Copy)]
pub struct Pose {
    /// Column of the body's middle and row of the soles, in grid pixels.
    pub foot: (f32, f32),
    /// From sole to crown in grid pixels.
    pub tall: f32,
    /// How far the arms are raised: 0 hanging, 1 straight up.
    pub arms: f32,
    /// Distance of the feet, as a share of the height.
    pub stride: f32,
    pub track: u32,
}

impl Crowd {
    pub fn new(width: u32, height: u32, poses: &[Pose]) -> Crowd {
        let count = (width * height) as usize;
        let mut crowd = Crowd {
            width,
            height,
            parts: vec![0; count],
            person: vec![0; count],
            people: Vec::new(),
        };
        for (index, pose) in poses.iter().enumerate() {
            crowd.add(index as u8 + 1, pose);
        }
        crowd
    }

    /// Two people in an upright picture of 192 x 256: one with an arm raised, one behind.
    pub fn pair() -> Crowd {
        let left = Pose { foot: (74.0, 246.0), tall: 222.0, arms: 0.72, stride: 0.16, track: 0 };
        let right = Pose { foot: (146.0, 214.0), tall: 170.0, arms: 0.12, stride: 0.1, track: 1 };
        Crowd::new(192, 256, &[right, left])
    }

    /// One person who fills about half of an upright picture.
    pub fn large() -> Crowd {
        let pose = Pose { foot: (96.0, 254.0), tall: 250.0, arms: 0.3, stride: 0.34, track: 0 };
        let mut crowd = Crowd::new(192, 256, &[pose]);
        // Wide clothes.
        crowd.disc(1, Part::Torso, (96.0, 128.0), 88.0, 76.0);
        crowd.bound();
        crowd
    }

    pub fn mask(&self) -> MaskView<'_> {
        MaskView {
            width: self.width,
            height: self.height,
            parts: &self.parts,
            person: &self.person,
            content: Rect::new(0, 0, self.width, self.height),
            people: &self.people,
        }
    }

    /// Share of the grid that people fill.
    pub fn filled(&self) -> f32 {
        let count = self.person.iter().filter(|&&slot| slot != 0).count();
        count as f32 / self.person.len() as f32
    }

    fn add(&mut self, slot: u8, pose: &Pose) {
        use Part::*;
        let Pose { foot, tall, arms, stride, track } = *pose;
        let at = |x: f32, y: f32| (foot.0 + x * tall, foot.1 - y * tall);
        let wide = |share: f32| share * tall;
        // The person's left is on the right of a picture that is not mirrored.
        for (side, [upper_leg, lower_leg, sole]) in [
            (1.0, [UpperLegLeft, LowerLegLeft, FootLeft]),
            (-1.0, [UpperLegRight, LowerLegRight, FootRight]),
        ] {
            let (hip, knee) = (at(side * 0.06, 0.5), at(side * (0.06 + stride * 0.22), 0.28));
            let ankle = at(side * stride * 0.5, 0.05);
            self.bar(slot, upper_leg, hip, knee, wide(0.062), wide(0.048));
            self.bar(slot, lower_leg, knee, ankle, wide(0.046), wide(0.026));
            self.bar(
                slot,
                sole,
                ankle,
                at(side * (stride * 0.5 + 0.035), 0.02),
                wide(0.024),
                wide(0.02),
            );
        }
        self.bar(slot, Torso, at(0.0, 0.78), at(0.0, 0.52), wide(0.098), wide(0.088));
        self.bar(slot, Torso, at(0.0, 0.86), at(0.0, 0.8), wide(0.03), wide(0.04));
        for (side, [upper_arm, lower_arm, hand]) in [
            (1.0, [UpperArmLeft, LowerArmLeft, HandLeft]),
            (-1.0, [UpperArmRight, LowerArmRight, HandRight]),
        ] {
            // One arm goes up, the other half as far.
            let raise = (if side > 0.0 { arms } else { arms * 0.35 }) * std::f32::consts::PI;
            let step = |from: (f32, f32), angle: f32, length: f32| {
                (from.0 + side * angle.sin() * wide(length), from.1 + angle.cos() * wide(length))
            };
            let shoulder = at(side * 0.105, 0.79);
            let elbow = step(shoulder, raise.max(0.16), 0.17);
            let wrist = step(elbow, raise * 1.12 + 0.05, 0.14);
            let tip = step(wrist, raise * 1.12 + 0.05, 0.05);
            self.bar(slot, upper_arm, shoulder, elbow, wide(0.036), wide(0.03));
            self.bar(slot, lower_arm, elbow, wrist, wide(0.028), wide(0.02));
            self.bar(slot, hand, wrist, tip, wide(0.02), wide(0.017));
        }
        self.disc(slot, Hair, at(0.0, 0.945), wide(0.062), wide(0.066));
        self.disc(slot, Face, at(0.0, 0.922), wide(0.046), wide(0.06));
        self.people.push(PersonView { slot, track, bounds: Rect::new(0, 0, 0, 0) });
        self.bound();
    }

    fn put(&mut self, slot: u8, part: Part, inside: impl Fn(f32, f32) -> bool) {
        for y in 0..self.height {
            for x in 0..self.width {
                if inside(x as f32 + 0.5, y as f32 + 0.5) {
                    let index = (y * self.width + x) as usize;
                    (self.parts[index], self.person[index]) = (part.index(), slot);
                }
            }
        }
    }

    fn disc(&mut self, slot: u8, part: Part, (mx, my): (f32, f32), rx: f32, ry: f32) {
        self.put(slot, part, |x, y| ((x - mx) / rx).hypot((y - my) / ry) <= 1.0);
    }

    fn bar(&mut self, slot: u8, part: Part, a: (f32, f32), b: (f32, f32), ra: f32, rb: f32) {
        let (lx, ly) = (b.0 - a.0, b.1 - a.1);
        self.put(slot, part, |x, y| {
            let along = ((x - a.0) * lx + (y - a.1) * ly) / (lx * lx + ly * ly).max(1e-6);
            let along = along.clamp(0.0, 1.0);
            let away = (x - a.0 - lx * along).hypot(y - a.1 - ly * along);
            away <= ra + (rb - ra) * along
        });
    }

    /// Recomputes everybody's bounds.
    fn bound(&mut self) {
        let width = self.width;
        for view in &mut self.people {
            let (mut left, mut top, mut right, mut bottom) = (u32::MAX, u32::MAX, 0, 0);
            for (index, _) in self.person.iter().enumerate().filter(|(_, slot)| **slot == view.slot)
            {
                let (x, y) = (index as u32 % width, index as u32 / width);
                (left, right) = (left.min(x), right.max(x + 1));
                (top, bottom) = (top.min(y), bottom.max(y + 1));
            }
            view.bounds =
                Rect::new(left, top, right.saturating_sub(left), bottom.saturating_sub(top));
        }
    }
}
