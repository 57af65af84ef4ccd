//! Copy and rotation of a full canvas, alone and against a plain copy of the same bytes: the least
//! that showing a picture costs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use display::Rotation;
use display::blit::{PixelLayout, Surface, blit};
use divan::Bencher;
use divan::counter::BytesCount;
use overlay::Canvas;

const SIZE: (u32, u32) = (1080, 1920);
const DEGREES: [u32; 4] = [0, 90, 180, 270];
const ROUNDS: usize = 100;

fn main() {
    divan::main();
    print_ratios();
}

fn canvas() -> Canvas {
    let mut canvas = Canvas::new(SIZE.0, SIZE.1);
    for (index, pixel) in (0..).zip(canvas.pixels_mut()) {
        *pixel = index & 0xFF_FFFF;
    }
    canvas
}

fn rotation(degrees: u32) -> Rotation {
    Rotation::from_degrees(degrees).expect("one of the four")
}

#[divan::bench]
fn plain_copy(bencher: Bencher) {
    let (canvas, mut copy) = (canvas(), Canvas::new(SIZE.0, SIZE.1));
    bencher
        .counter(BytesCount::of_slice(canvas.pixels()))
        .bench_local(|| copy.pixels_mut().copy_from_slice(black_box(&canvas).pixels()));
}

#[divan::bench(args = DEGREES)]
fn to_32_bits(bencher: Bencher, degrees: u32) {
    bench_blit(bencher, degrees, PixelLayout::Bgrx);
}

#[divan::bench(args = DEGREES)]
fn to_rgb565(bencher: Bencher, degrees: u32) {
    bench_blit(bencher, degrees, PixelLayout::Rgb565);
}

fn bench_blit(bencher: Bencher, degrees: u32, layout: PixelLayout) {
    let (canvas, rotation) = (canvas(), rotation(degrees));
    let surface = Surface::packed(rotation.turn(SIZE), layout);
    let mut memory = vec![0; surface.bytes()];
    bencher
        .counter(BytesCount::of_slice(canvas.pixels()))
        .bench_local(|| blit(black_box(&canvas), rotation, &surface, &mut memory));
}

/// Fastest of many rounds, the two taking turns, so that a busy machine slows both.
fn print_ratios() {
    let canvas = canvas();
    let bytes: Vec<u8> = canvas.pixels().iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
    let mut memory = vec![0; bytes.len()];
    for degrees in DEGREES {
        let rotation = rotation(degrees);
        let surface = Surface::packed(rotation.turn(SIZE), PixelLayout::Bgrx);
        let (mut plain, mut turned) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            plain = plain.min(time(|| memory.copy_from_slice(black_box(&bytes))));
            turned = turned.min(time(|| blit(&canvas, rotation, &surface, &mut memory)));
        }
        let ratio = turned.as_secs_f64() / plain.as_secs_f64();
        println!("{degrees:3} degrees: {turned:.2?}, plain copy {plain:.2?}, ratio {ratio:.2}");
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}
