//! Drawing time of the overlay, alone and against filling and copying the same canvas once: the
//! least that any drawing costs.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::Crowd;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use overlay::preview::PreviewPainter;
use overlay::{Alignment, Canvas, MirrorGeometry, Painter, Scene, Status, Style};

const SIZES: [(u32, u32); 2] = [(1080, 1920), (1280, 720)];
const ROUNDS: usize = 60;

fn main() {
    divan::main();
    for size in SIZES {
        print_ratio(size);
    }
}

fn picture() -> Alignment {
    Alignment::Picture { mirrored: true }
}

fn reflection() -> Alignment {
    Alignment::Reflection(MirrorGeometry {
        camera_height_m: 1.85,
        camera_offset_m: 0.0,
        pitch_deg: 15.0,
        field_of_view_deg: 45.0,
        screen_width_m: 0.30,
        screen_height_m: 0.53,
        screen_bottom_m: 1.25,
    })
}

fn scene(crowd: &Crowd) -> Scene<'_> {
    let mask = Some(crowd.mask());
    Scene { mask, camera_active: true, fps: Some(15.0), ..Scene::of_status(Status::Running) }
}

#[divan::bench(args = SIZES)]
fn fill_and_copy(bencher: Bencher, (width, height): (u32, u32)) {
    let (mut canvas, mut copy) = (Canvas::new(width, height), Canvas::new(width, height));
    bencher.counter(BytesCount::of_slice(canvas.pixels())).bench_local(|| {
        black_box(&mut canvas).clear();
        copy.pixels_mut().copy_from_slice(black_box(&canvas).pixels());
        black_box(&copy);
    });
}

fn bench_draw(bencher: Bencher, size: (u32, u32), crowd: &Crowd, alignment: Alignment) {
    let mut painter = Painter::new(size.0, size.1, Style::default(), alignment);
    let mut canvas = Canvas::new(size.0, size.1);
    bencher.bench_local(|| painter.draw(black_box(&scene(crowd)), Instant::now(), &mut canvas));
}

#[divan::bench(args = SIZES)]
fn one_large_person(bencher: Bencher, size: (u32, u32)) {
    bench_draw(bencher, size, &Crowd::large(), picture());
}

#[divan::bench(args = SIZES)]
fn two_people(bencher: Bencher, size: (u32, u32)) {
    bench_draw(bencher, size, &Crowd::pair(), picture());
}

#[divan::bench(args = SIZES)]
fn two_reflections(bencher: Bencher, size: (u32, u32)) {
    bench_draw(bencher, size, &Crowd::pair(), reflection());
}

#[divan::bench]
fn preview_480x640(bencher: Bencher) {
    let crowd = Crowd::pair();
    let mut painter = PreviewPainter::new(Style::default());
    let mut picture = vec![128_u8; 480 * 640 * 3];
    bencher.bench_local(|| painter.blend_over(&mut picture, (480, 640), &crowd.mask()));
}

/// Fastest of `ROUNDS` calls after a few to warm up: other programs on the machine only slow down.
fn fastest(mut work: impl FnMut()) -> Duration {
    (0..5).for_each(|_| work());
    let time = |_| {
        let started = Instant::now();
        work();
        started.elapsed()
    };
    (0..ROUNDS).map(time).min().unwrap_or_default()
}

fn print_ratio(size: (u32, u32)) {
    let crowd = Crowd::large();
    let mut painter = Painter::new(size.0, size.1, Style::default(), picture());
    let (mut canvas, mut copy) = (Canvas::new(size.0, size.1), Canvas::new(size.0, size.1));
    let draw = fastest(|| painter.draw(black_box(&scene(&crowd)), Instant::now(), &mut canvas));
    let least = fastest(|| {
        black_box(&mut canvas).clear();
        copy.pixels_mut().copy_from_slice(black_box(&canvas).pixels());
        black_box(&copy);
    });
    println!(
        "{} x {}: a person on {:.0} % of the picture {:.2} ms, fill and copy {:.2} ms, ratio {:.2}",
        size.0,
        size.1,
        crowd.filled() * 100.0,
        draw.as_secs_f64() * 1e3,
        least.as_secs_f64() * 1e3,
        draw.as_secs_f64() / least.as_secs_f64(),
    );
}
