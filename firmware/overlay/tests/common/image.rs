//! Canvases as PNG files.
#![allow(dead_code)] // each user takes what it needs

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use overlay::Canvas;

/// Writes red, green and blue bytes.
pub fn write_rgb(path: &Path, width: u32, height: u32, rgb: &[u8]) {
    let file = BufWriter::new(File::create(path).expect("a writable folder"));
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header().expect("a valid header");
    writer.write_image_data(rgb).expect("a writable disk");
}

/// Writes a canvas.
pub fn write(path: &Path, canvas: &Canvas) {
    write_rgb(path, canvas.width(), canvas.height(), &bytes(canvas));
}

/// The canvas as red, green and blue bytes.
pub fn bytes(canvas: &Canvas) -> Vec<u8> {
    canvas.pixels().iter().flat_map(|pixel| pixel.to_be_bytes()[1..].to_vec()).collect()
}

/// Reads an RGB file: width, height, bytes.
pub fn read(path: &Path) -> (u32, u32, Vec<u8>) {
    let file = File::open(path)
        .unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 writes it", path.display()));
    let mut reader = png::Decoder::new(BufReader::new(file)).read_info().expect("a PNG file");
    let mut bytes = vec![0; reader.output_buffer_size().expect("a small picture")];
    let info = reader.next_frame(&mut bytes).expect("a whole PNG file");
    assert_eq!(info.color_type, png::ColorType::Rgb, "{}", path.display());
    (info.width, info.height, bytes)
}
