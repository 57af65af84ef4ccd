//! What a person sees, compared with pictures that somebody looked at and found good.
//!
//! `UPDATE_GOLDEN=1 cargo test -p overlay --test golden` writes them anew; look at them then.

mod common;
#[path = "common/image.rs"]
mod image;
#[path = "common/scenes.rs"]
mod scenes;

use std::path::{Path, PathBuf};
use std::time::Instant;

use common::{Crowd, Pose};
use overlay::preview::{PreviewError, PreviewPainter};
use overlay::{Alignment, Canvas, MirrorGeometry, Painter, Scene, Status, Style};
use proto::taxonomy::Part;

const SIZE: (u32, u32) = (540, 960);
/// A channel may differ by this much: sines and roots of another processor, rounded.
const CHANNEL_TOLERANCE: u8 = 6;
/// Share of channels that may differ by more, where rounding moves an edge.
const SHARE_TOLERANCE: f64 = 0.0005;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("png")
}

fn check_rgb(name: &str, (width, height): (u32, u32), rgb: &[u8]) {
    let path = golden(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        image::write_rgb(&path, width, height, rgb);
        return;
    }
    let (golden_width, golden_height, expected) = image::read(&path);
    assert_eq!((golden_width, golden_height), (width, height), "{name}");
    let differing = rgb.iter().zip(&expected).filter(|(a, b)| a.abs_diff(**b) > CHANNEL_TOLERANCE);
    let share = differing.count() as f64 / rgb.len() as f64;
    if share > SHARE_TOLERANCE {
        let actual = std::env::temp_dir().join(format!("overlay-{name}.png"));
        image::write_rgb(&actual, width, height, rgb);
        panic!(
            "{name}: {:.3} % differs from {}; now it is {}. If it is meant to be so, \
             UPDATE_GOLDEN=1 accepts it",
            share * 100.0,
            path.display(),
            actual.display()
        );
    }
}

fn check(name: &str, scene: &Scene<'_>, alignment: Alignment) {
    let mut painter = Painter::new(SIZE.0, SIZE.1, Style::default(), alignment);
    let mut canvas = Canvas::new(SIZE.0, SIZE.1);
    painter.draw(scene, Instant::now(), &mut canvas);
    assert!(canvas.pixels().iter().all(|&pixel| pixel >> 24 == 0), "{name}: top bytes");
    check_rgb(name, SIZE, &image::bytes(&canvas));
}

fn picture() -> Alignment {
    Alignment::Picture { mirrored: true }
}

#[test]
fn overlay_of_two_people() {
    let crowd = Crowd::pair();
    let scene = Scene {
        mask: Some(crowd.mask()),
        camera_active: true,
        fps: Some(14.8),
        notice: Some("Updated to version 1.2."),
        ..Scene::of_status(Status::Running)
    };
    check("overlay", &scene, picture());
}

#[test]
fn overlay_while_somebody_watches_from_elsewhere() {
    let crowd = Crowd::pair();
    let scene = Scene {
        mask: Some(crowd.mask()),
        camera_active: true,
        watched: true,
        fps: Some(14.8),
        ..Scene::of_status(Status::Running)
    };
    check("overlay-watched", &scene, picture());
}

#[test]
fn words_that_nobody_has_looked_at_for_long() {
    let scene = Scene {
        camera_active: true,
        dimmed: Some(5),
        page_address: Some("https://192.168.1.7:8443/"),
        page_hint: Some("Your browser warns once: go on, then compare the fingerprint."),
        ..Scene::of_status(Status::CameraOff { by: "on the mirror's page", on_page: true })
    };
    check("dimmed", &scene, picture());
}

#[test]
fn overlay_with_a_notice_that_points_to_the_page() {
    let crowd = Crowd::large();
    let scene = Scene {
        mask: Some(crowd.mask()),
        camera_active: true,
        notice: Some(
            "After wrong codes a browser was paired: “Ada's phone”. If it is none of yours, remove it on the mirror's page.",
        ),
        page_address: Some("https://192.168.1.7:8443/"),
        page_hint: Some("Your browser warns once: go on, then compare the fingerprint."),
        ..Scene::of_status(Status::Running)
    };
    check("overlay-address", &scene, picture());
}

#[test]
fn overlay_with_a_code_that_somebody_asked_for_elsewhere() {
    let crowd = Crowd::pair();
    let scene = Scene {
        mask: Some(crowd.mask()),
        camera_active: true,
        code: Some("493 027"),
        notice: Some(
            "If you asked for it, type this code into your browser. Certificate \
             A1B2 C3D4 E5F6 A7B8 C9D0 E1F2 A3B4 C5D6 E7F8 A9B0 C1D2 E3F4 A5B6 C7D8 E9F0 A1B2",
        ),
        page_address: Some("https://192.168.1.7:8443/"),
        page_hint: Some("Your browser warns once: go on, then compare the fingerprint."),
        ..Scene::of_status(Status::Running)
    };
    check("overlay-code", &scene, picture());
}

#[test]
fn overlay_on_the_reflection() {
    let geometry = MirrorGeometry {
        camera_height_m: 1.85,
        camera_offset_m: 0.0,
        pitch_deg: 15.0,
        field_of_view_deg: 45.0,
        screen_width_m: 0.82,
        screen_height_m: 1.46,
        screen_bottom_m: 0.6,
    };
    let near = Pose { foot: (126.0, 246.0), tall: 170.0, arms: 0.2, stride: 0.1, track: 2 };
    let far = Pose { foot: (76.0, 196.0), tall: 126.0, arms: 0.8, stride: 0.2, track: 5 };
    let crowd = Crowd::new(192, 256, &[far, near]);
    let mask = Some(crowd.mask());
    let scene = Scene { mask, camera_active: true, ..Scene::of_status(Status::Running) };
    check("reflection", &scene, Alignment::Reflection(geometry));
}

#[test]
fn status_screens() {
    for (name, status) in scenes::statuses() {
        let scene = Scene {
            camera_active: matches!(status, Status::NoModel { .. } | Status::Thermal { .. }),
            page_address: Some(match status {
                Status::CameraOff { on_page: false, .. } => {
                    "on this device only; page.access = \"paired\" lets phones in"
                }
                Status::Pairing { .. } => "https://192.168.1.7:8443/",
                _ => "http://127.0.0.1:8080",
            }),
            page_hint: matches!(status, Status::Pairing { .. })
                .then_some("Your browser warns once: go on, then compare the fingerprint."),
            ..Scene::of_status(status)
        };
        check(name, &scene, picture());
    }
}

/// The same scene on the same canvas gives the same pixels, whatever was drawn before.
#[test]
fn drawing_leaves_no_trace() {
    let crowd = Crowd::pair();
    let running = Scene {
        mask: Some(crowd.mask()),
        camera_active: true,
        fps: Some(30.0),
        ..Scene::of_status(Status::Running)
    };
    let mut painter = Painter::new(SIZE.0, SIZE.1, Style::default(), picture());
    let (mut canvas, mut first) = (Canvas::new(SIZE.0, SIZE.1), Canvas::new(SIZE.0, SIZE.1));
    painter.draw(&running, Instant::now(), &mut first);
    for (_, status) in scenes::statuses() {
        painter.draw(&Scene::of_status(status), Instant::now(), &mut canvas);
    }
    painter.draw(&running, Instant::now(), &mut canvas);
    assert!(canvas == first);
}

#[test]
fn preview_colours_people_and_leaves_the_rest_alone() {
    let (width, height) = (360_u32, 480_u32);
    let original: Vec<u8> = (0..width * height)
        .flat_map(|index| {
            let (x, y) = (index % width, index / width);
            let tile = if (x / 30 + y / 30) % 2 == 0 { 0 } else { 24 };
            [90 + (x / 6) as u8 + tile, 100 + tile, 70 + (y / 8) as u8 + tile]
        })
        .collect();
    let crowd = Crowd::pair();
    let mut painter = PreviewPainter::new(Style::default());
    let mut coloured = original.clone();
    painter.blend_over(&mut coloured, (width, height), &crowd.mask()).expect("sizes agree");
    check_rgb("preview", (width, height), &coloured);
    let mut changed = 0;
    for (index, (before, after)) in
        original.chunks_exact(3).zip(coloured.chunks_exact(3)).enumerate()
    {
        let (x, y) = (index as u32 % width, index as u32 / width);
        let (u, v) = (x * 192 / width, y * 256 / height);
        let near = |du: i32, dv: i32| {
            let (u, v) = (u as i32 + du, v as i32 + dv);
            let inside = (0..192).contains(&u) && (0..256).contains(&v);
            inside && crowd.person[(v * 192 + u) as usize] != 0
        };
        changed += u32::from(before != after);
        let close = (-2..=2).any(|du| (-2..=2).any(|dv| near(du, dv)));
        assert!(close || before == after, "{x} {y} is nobody and was coloured");
    }
    let share = f64::from(changed) / f64::from(width * height);
    assert!((share / f64::from(crowd.filled()) - 1.0).abs() < 0.05, "{share}");
}

#[test]
fn preview_refuses_sizes_that_do_not_fit() {
    let crowd = Crowd::pair();
    let mut painter = PreviewPainter::new(Style::default());
    let mut picture = vec![7_u8; 30];
    let bad = painter.blend_over(&mut picture, (4, 3), &crowd.mask());
    assert_eq!(bad, Err(PreviewError::Picture { width: 4, height: 3, bytes: 30 }));
    let mask = crowd.mask();
    let short = overlay::MaskView { parts: &mask.parts[1..], ..mask };
    let bad = painter.blend_over(&mut picture, (5, 2), &short);
    assert_eq!(bad, Err(PreviewError::Mask { width: 192, height: 256 }));
    assert!(picture.iter().all(|&value| value == 7));
}

/// Every pixel well inside a part has that part's colour, only brighter or darker.
#[test]
fn parts_are_where_the_labels_say() {
    let crowd = Crowd::pair();
    for mirrored in [false, true] {
        let mask = Some(crowd.mask());
        let scene = Scene { mask, ..Scene::of_status(Status::Running) };
        let alignment = Alignment::Picture { mirrored };
        let mut painter = Painter::new(SIZE.0, SIZE.1, Style::default(), alignment);
        let mut canvas = Canvas::new(SIZE.0, SIZE.1);
        painter.draw(&scene, Instant::now(), &mut canvas);
        // As wide as the screen, in its middle.
        let scale = f64::from(SIZE.0) / 192.0;
        let top = (f64::from(SIZE.1) - 256.0 * scale) / 2.0;
        let mut checked = 0;
        for v in 3..253_usize {
            for u in 3..189_usize {
                let part = crowd.parts[v * 192 + u];
                let plain = part != 0
                    && (v - 3..=v + 3)
                        .all(|v| (u - 3..=u + 3).all(|u| crowd.parts[v * 192 + u] == part));
                if !plain {
                    continue;
                }
                let across = if mirrored { 191 - u } else { u };
                let (x, y) = ((across as f64 + 0.5) * scale, top + (v as f64 + 0.5) * scale);
                let pixel = canvas.row(y as u32)[x as usize];
                assert!(is_shade_of(pixel, part), "{u} {v}: {pixel:06X} is not part {part}");
                checked += 1;
            }
        }
        assert!(checked > 2000, "{checked}");
    }
}

fn is_shade_of(pixel: u32, part: u8) -> bool {
    let part = Part::from_index(part).expect("a part");
    let full = overlay::part_rgb(part).map(f64::from);
    let shown = [pixel >> 16, pixel >> 8 & 0xFF, pixel & 0xFF].map(f64::from);
    let level = shown.iter().sum::<f64>() / full.iter().sum::<f64>();
    level > 0.3 && full.iter().zip(shown).all(|(full, shown)| (full * level - shown).abs() < 2.0)
}
