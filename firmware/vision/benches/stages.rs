//! Time of each stage, and of the whole against the network alone (the peer in the same run).

#[path = "../tests/common/mod.rs"]
mod common;

use divan::Bencher;
use frame::{Frame, Layout, Orientation, PixelFormat};
use vision::{Converter, GridSize};

fn main() {
    divan::main();
}

#[divan::bench(args = [PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::Rgb3])]
fn convert_640x480(bencher: Bencher, format: PixelFormat) {
    let layout = Layout::new(format, 640, 480, 0).expect("valid");
    let bytes: Vec<u8> = (0..layout.byte_len()).map(|i| (i * 31 % 251) as u8).collect();
    let grid = GridSize { height: 256, width: 192 };
    let mut converter = Converter::new(grid, 114);
    let mut out = vec![0; 3 * grid.area()];
    bencher.bench_local(|| {
        let frame = Frame::new(layout, &bytes).expect("long enough");
        converter.convert(&frame, Orientation::default(), &mut out).expect("converts")
    });
}

#[divan::bench]
fn network(bencher: Bencher) {
    let (width, height, rgb) = common::picture(&common::fixtures().fixture[0].picture);
    let pixels = common::planes(width, height, &rgb);
    let mut student = common::student();
    bencher.bench_local(|| student.run(&pixels).expect("runs").queries);
}

#[divan::bench]
fn whole(bencher: Bencher) {
    let (width, height, rgb) = common::picture(&common::fixtures().fixture[0].picture);
    let buffer = common::buffer(width, height, &rgb);
    let mut parser = common::parser(true);
    bencher.bench_local(|| parser.parse(&buffer.frame()).expect("parses").persons.len());
}
