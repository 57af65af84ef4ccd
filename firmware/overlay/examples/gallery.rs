//! Writes every screen as a PNG file, to be looked at: `cargo run --example gallery -- FOLDER`.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/image.rs"]
mod image;
#[path = "../tests/common/scenes.rs"]
mod scenes;

use std::path::{Path, PathBuf};
use std::time::Instant;

use common::{Crowd, Pose};
use overlay::preview::PreviewPainter;
use overlay::{Alignment, Canvas, MirrorGeometry, Painter, Scene, Status, Style};

const SIZES: [(u32, u32); 7] =
    [(1080, 1920), (1920, 1080), (1280, 720), (640, 480), (320, 240), (240, 240), (480, 1920)];
const ADDRESS: &str = "http://127.0.0.1:8080";

fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "gallery".to_owned()));
    std::fs::create_dir_all(&folder).expect("a writable folder");
    for size in SIZES {
        overlay(&folder, size);
        watched(&folder, size);
        statuses(&folder, size);
        words(&folder, size);
    }
    reflection(&folder);
    preview(&folder);
    println!("wrote the screens to {}", folder.display());
}

fn file(folder: &Path, name: &str, (width, height): (u32, u32)) -> PathBuf {
    folder.join(format!("{name}-{width}x{height}.png"))
}

fn overlay(folder: &Path, size: (u32, u32)) {
    let crowd = Crowd::pair();
    let scene = Scene {
        mask: Some(crowd.mask()),
        camera_active: true,
        fps: Some(14.8),
        notice: Some("Updated to version 1.2. What is new is on the mirror's page."),
        page_address: Some(ADDRESS),
        ..Scene::of_status(Status::Running)
    };
    let alignment = Alignment::Picture { mirrored: true };
    let mut painter = Painter::new(size.0, size.1, Style::default(), alignment);
    let mut canvas = Canvas::new(size.0, size.1);
    painter.draw(&scene, Instant::now(), &mut canvas);
    image::write(&file(folder, "overlay", size), &canvas);
}

/// The badge while somebody watches, over words that are dark.
fn watched(folder: &Path, size: (u32, u32)) {
    let scene = Scene {
        camera_active: true,
        watched: true,
        dimmed: Some(5),
        fps: Some(14.8),
        page_address: Some(ADDRESS),
        ..Scene::of_status(Status::NoModel {
            reason: "models/student/trunk.onnx: hash differs",
            built_in: true,
        })
    };
    let alignment = Alignment::Picture { mirrored: true };
    let mut painter = Painter::new(size.0, size.1, Style::default(), alignment);
    let mut canvas = Canvas::new(size.0, size.1);
    painter.draw(&scene, Instant::now(), &mut canvas);
    image::write(&file(folder, "watched", size), &canvas);
}

fn statuses(folder: &Path, size: (u32, u32)) {
    let alignment = Alignment::Picture { mirrored: true };
    let mut painter = Painter::new(size.0, size.1, Style::default(), alignment);
    let mut canvas = Canvas::new(size.0, size.1);
    for (name, status) in scenes::statuses() {
        let camera_active = matches!(status, Status::NoModel { .. } | Status::Thermal { .. });
        let page_address = Some(ADDRESS);
        let scene = Scene { camera_active, page_address, ..Scene::of_status(status) };
        painter.draw(&scene, Instant::now(), &mut canvas);
        image::write(&file(folder, name, size), &canvas);
    }
}

/// The longest words that there are.
fn words(folder: &Path, size: (u32, u32)) {
    let scene = Scene {
        page_address: Some("on this device only; page.access = \"paired\" lets phones in"),
        notice: Some(
            "The mirror cannot write to /home/somebody/.local/state/mirror (Read-only file system (os error 30)): what is switched on the \
             page will not be remembered. Make the folder writable, or name another one with data_dir.",
        ),
        ..Scene::of_status(Status::Starting { step: "opening the camera" })
    };
    let alignment = Alignment::Picture { mirrored: true };
    let mut painter = Painter::new(size.0, size.1, Style::default(), alignment);
    let mut canvas = Canvas::new(size.0, size.1);
    painter.draw(&scene, Instant::now(), &mut canvas);
    image::write(&file(folder, "words", size), &canvas);
}

/// Somebody two metres before a 24-inch mirror.
fn reflection(folder: &Path) {
    let geometry = MirrorGeometry {
        camera_height_m: 1.85,
        camera_offset_m: 0.0,
        pitch_deg: 15.0,
        field_of_view_deg: 45.0,
        screen_width_m: 0.30,
        screen_height_m: 0.53,
        screen_bottom_m: 1.25,
    };
    let pose = Pose { foot: (96.0, 250.0), tall: 190.0, arms: 0.6, stride: 0.1, track: 2 };
    let crowd = Crowd::new(192, 256, &[pose]);
    let mask = Some(crowd.mask());
    let scene = Scene { mask, camera_active: true, ..Scene::of_status(Status::Running) };
    let size = SIZES[0];
    let alignment = Alignment::Reflection(geometry);
    let mut painter = Painter::new(size.0, size.1, Style::default(), alignment);
    let mut canvas = Canvas::new(size.0, size.1);
    painter.draw(&scene, Instant::now(), &mut canvas);
    image::write(&file(folder, "reflection", size), &canvas);
}

fn preview(folder: &Path) {
    let (width, height) = (480_u32, 640_u32);
    let mut picture: Vec<u8> = (0..width * height)
        .flat_map(|index| {
            let (x, y) = (index % width, index / width);
            let tile = if (x / 40 + y / 40) % 2 == 0 { 0 } else { 24 };
            [90 + (x / 6) as u8 + tile, 100 + tile, 70 + (y / 8) as u8 + tile]
        })
        .collect();
    let crowd = Crowd::pair();
    let mut painter = PreviewPainter::new(Style::default());
    painter.blend_over(&mut picture, (width, height), &crowd.mask()).expect("sizes agree");
    image::write_rgb(&file(folder, "preview", (width, height)), width, height, &picture);
}
