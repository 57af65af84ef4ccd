//! A scene drawn on a canvas.

use std::time::Instant;

use crate::badge;
use crate::canvas::{Canvas, mix};
use crate::caption::Captions;
use crate::dim::dim;
use crate::distances::Distances;
use crate::figure::Figure;
use crate::geometry::{
    Alignment, Edges, MirrorGeometry, PictureFit, Pinhole, Projection, Reflection,
};
use crate::glow::{Brush, Light, Place, Ramps};
use crate::landmarks::Landmarks;
use crate::poster::Poster;
use crate::scale::unit;
use crate::scene::{MaskView, PersonView, Scene, Status, Style};

/// More people than this are not drawn; the network tells fewer apart.
const MOST_PEOPLE: usize = 16;
/// Shown instead of a mask whose sides do not fit, which only a programming error can produce.
const BAD_MASK: &str = "The overlay got labels of a wrong size. Please report this.";

/// Outline and fading as shares of the geometric mean of the screen's sides.
const OUTLINE: f32 = 0.003;
const FADE: f32 = 0.03;

/// Draws scenes. Keeps rasterised letters and working memory, so that drawing allocates nothing
/// once every letter has been seen and the people have their size.
#[derive(Debug)]
pub struct Painter {
    size: (u32, u32),
    alignment: Alignment,
    ramps: Ramps,
    captions: Captions,
    poster: Poster,
    figure: Figure,
    brush: Brush,
    distances: Distances,
}

impl Painter {
    /// For a canvas of this size in pixels; another size may be drawn on later all the same.
    pub fn new(width: u32, height: u32, style: Style, alignment: Alignment) -> Painter {
        let opacity = style.opacity.clamp(0.0, 1.0);
        let light = Light {
            rim: (opacity * 1.3).min(1.0),
            core: opacity * 0.88,
            halo: 0.24,
            seam: 0.6,
            mark: false,
        };
        Painter {
            size: (width, height),
            alignment,
            ramps: Ramps::new(&light),
            captions: Captions::new((width, height)),
            poster: Poster::default(),
            figure: Figure::default(),
            brush: Brush::default(),
            distances: Distances::default(),
        }
    }

    /// Lays what is drawn from now on otherwise.
    pub fn align(&mut self, alignment: Alignment) {
        self.alignment = alignment;
    }

    /// Draws everything anew: black, then people or status screen, then texts, and last the camera
    /// badge, which nothing covers or darkens. Whoever was seen a moment before `now` is still known.
    pub fn draw(&mut self, scene: &Scene<'_>, now: Instant, canvas: &mut Canvas) {
        self.size = (canvas.width(), canvas.height());
        self.captions.resize(self.size);
        canvas.clear();
        if self.size.0 == 0 || self.size.1 == 0 {
            return;
        }
        let mut notice = scene.notice;
        let is_shown = |mask: &MaskView<'_>| !mask.people.is_empty();
        if scene.status != Status::Running || !scene.mask.as_ref().is_some_and(is_shown) {
            self.forget_people();
        }
        if scene.status != Status::Running {
            self.distances.forget();
            let room = self.captions.room_above(scene);
            self.poster.draw(&scene.status, room, &mut self.captions.font, canvas);
        } else if let Some(mask) = &scene.mask {
            if mask.is_consistent() {
                self.draw_people(mask, now, canvas);
            } else {
                notice = Some(BAD_MASK);
            }
        }
        self.captions.draw(scene, notice, canvas);
        if let Some(minute) = scene.dimmed {
            dim(minute, canvas);
        }
        badge::draw(scene, &mut self.captions.font, canvas);
    }

    /// Of whoever is not shown no outline is kept. How far away they were is kept a moment longer while the overlay is drawn: they
    /// may come back at once.
    fn forget_people(&mut self) {
        if !self.figure.is_forgotten() {
            self.figure.forget();
            self.brush.forget();
        }
    }

    fn draw_people(&mut self, mask: &MaskView<'_>, now: Instant, canvas: &mut Canvas) {
        match self.alignment {
            Alignment::Picture { mirrored } => {
                let fit = PictureFit::new(mask.content, self.size, mirrored);
                for person in mask.people.iter().take(MOST_PEOPLE) {
                    self.draw_person(mask, person, Projection::Picture(fit), canvas);
                }
                fade_edges(&fit, canvas);
            }
            Alignment::Reflection(geometry) => self.draw_reflections(mask, &geometry, now, canvas),
        }
    }

    /// Far people first: near ones cover them, as their reflections do.
    fn draw_reflections(
        &mut self,
        mask: &MaskView<'_>,
        geometry: &MirrorGeometry,
        now: Instant,
        canvas: &mut Canvas,
    ) {
        let camera = Pinhole::new(geometry, mask.content);
        let count = mask.people.len().min(MOST_PEOPLE);
        let mut order = [(0.0, 0, (0.0, 0.0)); MOST_PEOPLE];
        for (index, person) in mask.people[..count].iter().enumerate() {
            let landmarks = Landmarks::find(mask, person);
            let distance = self.distances.update(person.track, landmarks.distance(&camera));
            order[index] = (distance, index, landmarks.eye(&camera, distance));
        }
        self.distances.forget_absent(mask.people, now);
        order[..count].sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for &(distance, index, eye) in &order[..count] {
            let reflection = Reflection::new(geometry, camera, distance, eye, self.size);
            let projection = Projection::Reflection(reflection);
            self.draw_person(mask, &mask.people[index], projection, canvas);
        }
    }

    fn draw_person(
        &mut self,
        mask: &MaskView<'_>,
        person: &PersonView,
        projection: Projection,
        canvas: &mut Canvas,
    ) {
        if !self.figure.read(mask, person) {
            return;
        }
        let place = Place {
            projection,
            content: mask.content,
            track: person.track,
            outline_width: (unit(self.size.0, self.size.1) * OUTLINE).max(1.2),
        };
        self.brush.paint(&self.figure, &self.ramps, &place, canvas);
    }
}

/// Lets people who are cut off by the picture fade out where black bars begin.
fn fade_edges(fit: &PictureFit, canvas: &mut Canvas) {
    let reach = unit(canvas.width(), canvas.height()) * FADE;
    let Edges { left, top, right, bottom } = fit.edges();
    let (width, height) = (canvas.width() as f32, canvas.height() as f32);
    // A picture edge that is the screen's edge needs no fading.
    let inner = |from_start: f32, from_end: f32, start: f32, side: f32| {
        if start < 1.0 { side } else { from_start.min(from_end) }
    };
    let share = |away: f32| ((away / reach).clamp(0.0, 1.0) * 256.0) as u32;
    for y in 0..canvas.height() {
        let middle = y as f32 + 0.5;
        let row_share = share(inner(middle - top, bottom - middle, top, height));
        let row = canvas.row_mut(y);
        if row_share < 256 {
            row.iter_mut().for_each(|pixel| *pixel = mix(0, *pixel, row_share));
        }
        if left < 1.0 {
            continue;
        }
        let (first, last) = (left as usize, (right.ceil() as usize).min(row.len()));
        let count = (reach.ceil() as usize).min((last - first) / 2);
        for x in (first..first + count).chain(last - count..last) {
            let middle = x as f32 + 0.5;
            let share = share(inner(middle - left, right - middle, left, width));
            row[x] = mix(0, row[x], share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::palette::{CAMERA_ACTIVE, WARNING};
    use crate::scene::Rect;
    use embedded_graphics::pixelcolor::{IntoStorage, Rgb888};
    use proto::taxonomy::Part;
    use std::time::Duration;

    /// Pixels of this colour in the upper half, which has the badge.
    fn badge_pixels(canvas: &Canvas, colour: Rgb888) -> usize {
        let rows = &canvas.pixels()[..canvas.pixels().len() / 2];
        rows.iter().filter(|&&pixel| pixel == colour.into_storage()).count()
    }

    #[test]
    fn the_badge_is_there_in_every_state_whenever_the_camera_sees_or_somebody_watches() {
        let reason = "x";
        let statuses = [
            Status::Running,
            Status::Starting { step: reason },
            Status::CameraOff { by: reason, on_page: true },
            Status::CameraLost { device: reason, reason, absent: true, retry_in: Duration::ZERO },
            Status::NoModel { reason, built_in: true },
            Status::Thermal { celsius: 90.0 },
        ];
        for (width, height) in [(320, 240), (48, 48), (1080, 1920)] {
            let style = Style { opacity: 0.0 };
            let mut painter =
                Painter::new(width, height, style, Alignment::Picture { mirrored: true });
            let mut canvas = Canvas::new(width, height);
            for status in statuses {
                // However dark the rest is.
                let dimmed = Some(7);
                let scene = Scene { camera_active: true, dimmed, ..Scene::of_status(status) };
                painter.draw(&scene, Instant::now(), &mut canvas);
                let context = format!("{status:?} on {width} x {height}");
                assert!(badge_pixels(&canvas, CAMERA_ACTIVE) >= 8, "{context}");
                assert_eq!(badge_pixels(&canvas, WARNING), 0, "nobody watches: {context}");
                for camera_active in [true, false] {
                    let scene = Scene { camera_active, watched: true, ..scene };
                    painter.draw(&scene, Instant::now(), &mut canvas);
                    assert!(badge_pixels(&canvas, WARNING) >= 8, "{context}");
                    let is_lit = badge_pixels(&canvas, CAMERA_ACTIVE) >= 8;
                    assert_eq!(is_lit, camera_active, "{context}");
                }
                painter.draw(&Scene { camera_active: false, ..scene }, Instant::now(), &mut canvas);
                assert_eq!(badge_pixels(&canvas, CAMERA_ACTIVE), 0, "{context}");
            }
        }
    }

    #[test]
    fn whoever_is_not_shown_is_not_kept() {
        let (parts, person) = (vec![1_u8; 64], vec![1_u8; 64]);
        let people = [PersonView { slot: 1, track: 0, bounds: Rect::new(2, 2, 4, 4) }];
        let content = Rect::new(0, 0, 8, 8);
        let mask = MaskView {
            width: 8,
            height: 8,
            parts: &parts,
            person: &person,
            content,
            people: &people,
        };
        let shown = Scene { mask: Some(mask), ..Scene::of_status(Status::Running) };
        let nobody = Scene::of_status(Status::Running);
        let off = Scene { status: Status::CameraOff { by: "by a test", on_page: true }, ..shown };
        let alignment = Alignment::Picture { mirrored: true };
        let mut painter = Painter::new(48, 64, Style::default(), alignment);
        let mut canvas = Canvas::new(48, 64);
        let gone = Scene { mask: Some(MaskView { people: &[], ..mask }), ..shown };
        for hidden in [nobody, gone, off] {
            painter.draw(&shown, Instant::now(), &mut canvas);
            assert!(!painter.figure.is_forgotten());
            painter.draw(&hidden, Instant::now(), &mut canvas);
            assert!(painter.figure.is_forgotten());
        }
    }

    #[test]
    fn nobodys_distance_is_kept_once_a_status_hides_them() {
        let content = Rect::new(0, 0, 8, 8);
        let mut parts = [Part::Torso.index(); 64];
        // Feet that end above the picture's lower edge tell how far away somebody is.
        parts[40..56].fill(Part::FootLeft.index());
        let people = [PersonView { slot: 1, track: 3, bounds: Rect::new(0, 0, 8, 7) }];
        let (width, height, person) = (8, 8, &[1; 64]);
        let mask = MaskView { width, height, parts: &parts, person, content, people: &people };
        let geometry = MirrorGeometry {
            camera_height_m: 1.8,
            camera_offset_m: 0.0,
            pitch_deg: 15.0,
            field_of_view_deg: 45.0,
            screen_width_m: 0.3,
            screen_height_m: 0.5,
            screen_bottom_m: 1.2,
        };
        let alignment = Alignment::Reflection(geometry);
        let mut painter = Painter::new(48, 64, Style::default(), alignment);
        let (mut canvas, now) = (Canvas::new(48, 64), Instant::now());
        let shown = Scene { mask: Some(mask), ..Scene::of_status(Status::Running) };
        painter.draw(&shown, now, &mut canvas);
        let gone = Scene { mask: Some(MaskView { people: &[], ..mask }), ..shown };
        painter.draw(&gone, now + Duration::from_secs(1), &mut canvas);
        assert!(!painter.distances.is_forgotten(), "they may come back");
        let off = Scene { status: Status::CameraOff { by: "by a test", on_page: true }, ..shown };
        painter.draw(&off, now + Duration::from_secs(1), &mut canvas);
        assert!(painter.distances.is_forgotten());
        painter.draw(&shown, now, &mut canvas);
        painter.draw(&gone, now + Duration::from_secs(60), &mut canvas);
        assert!(painter.distances.is_forgotten(), "long gone");
    }

    #[test]
    fn every_size_is_drawn_without_a_panic() {
        let long = "a notice that goes on and on and on ".repeat(20);
        let status = Status::CameraLost {
            device: &long,
            reason: &long,
            absent: false,
            retry_in: Duration::MAX,
        };
        let mut painter =
            Painter::new(0, 0, Style::default(), Alignment::Picture { mirrored: true });
        for (width, height) in [(0, 0), (1, 1), (7, 300), (300, 7), (32, 32), (8192, 32)] {
            let mut canvas = Canvas::new(width, height);
            for status in [status, Status::Running] {
                let scene = Scene {
                    camera_active: true,
                    fps: Some(f32::NAN),
                    code: Some(&long),
                    notice: Some(&long),
                    page_address: Some(&long),
                    page_hint: Some(&long),
                    ..Scene::of_status(status)
                };
                painter.draw(&scene, Instant::now(), &mut canvas);
            }
        }
    }

    /// Noise for labels and anything for geometry: people may look odd, the mirror goes on.
    #[test]
    fn nothing_a_parser_or_a_setting_can_say_stops_the_drawing() {
        let mut state = 1_u32;
        let mut random = move |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        for _ in 0..300 {
            let (width, height) = (1 + random(40), 1 + random(40));
            let count = (width * height) as usize;
            let coarse = 1 + random(9) as usize;
            let noise: Vec<u8> = (0..count).map(|_| random(20) as u8).collect();
            let parts: Vec<u8> = (0..count).map(|i| noise[i / coarse]).collect();
            let person: Vec<u8> = (0..count).map(|i| noise[i / coarse] % 4).collect();
            let people: Vec<PersonView> = (1..5)
                .map(|slot| PersonView {
                    slot,
                    track: random(9),
                    bounds: Rect::new(random(50), random(50), random(60), random(60)),
                })
                .collect();
            let (x, y) = (random(width), random(height));
            let content = Rect::new(x, y, 1 + random(width - x), 1 + random(height - y));
            let mask = MaskView {
                width,
                height,
                parts: &parts,
                person: &person,
                content,
                people: &people,
            };
            let mut length = || f64::from(random(200)) / 50.0 - 0.5;
            let geometry = MirrorGeometry {
                camera_height_m: length(),
                camera_offset_m: length() - 1.0,
                pitch_deg: length() * 40.0 - 60.0,
                field_of_view_deg: length() * 50.0,
                screen_width_m: length(),
                screen_height_m: length(),
                screen_bottom_m: length(),
            };
            let scene = Scene { mask: Some(mask), ..Scene::of_status(Status::Running) };
            let (across, down) = (1 + random(90), 1 + random(90));
            for alignment in
                [Alignment::Picture { mirrored: random(2) == 0 }, Alignment::Reflection(geometry)]
            {
                let mut canvas = Canvas::new(across, down);
                let mut painter = Painter::new(across, down, Style::default(), alignment);
                painter.draw(&scene, Instant::now(), &mut canvas);
                assert!(canvas.pixels().iter().all(|&pixel| pixel >> 24 == 0));
            }
        }
    }

    #[test]
    fn a_mask_of_a_wrong_size_is_told() {
        let mask = MaskView {
            width: 8,
            height: 8,
            parts: &[0; 3],
            person: &[0; 64],
            content: Rect::new(0, 0, 8, 8),
            people: &[],
        };
        let mut painter =
            Painter::new(320, 240, Style::default(), Alignment::Picture { mirrored: true });
        let (mut bad, mut told) = (Canvas::new(320, 240), Canvas::new(320, 240));
        let scene = Scene::of_status(Status::Running);
        painter.draw(&Scene { mask: Some(mask), ..scene }, Instant::now(), &mut bad);
        painter.draw(&Scene { notice: Some(BAD_MASK), ..scene }, Instant::now(), &mut told);
        assert!(bad == told && bad.pixels().iter().any(|&pixel| pixel != 0));
    }
}
