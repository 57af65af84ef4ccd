//! The shipped model, and the pictures and expected outputs that came with it.
#![allow(dead_code)] // each test uses its share

use std::path::{Path, PathBuf};

use frame::{FrameBuffer, Layout, PixelFormat};
use serde::Deserialize;
use vision::{EngineOptions, ModelFiles, Parser, ParserOptions, Student};

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/student")
}

pub fn files() -> ModelFiles<'static> {
    ModelFiles::read(&folder()).expect("the shipped model is readable")
}

pub fn student() -> Student {
    Student::load(&files(), &EngineOptions::default()).expect("the shipped model loads")
}

pub fn student_for(width: u32, height: u32) -> Student {
    let student = Student::load_for((width, height), &files(), &EngineOptions::default());
    student.expect("the shipped model loads at this size")
}

pub fn parser(smoothing: bool) -> Parser {
    let options = ParserOptions { smoothing, ..ParserOptions::default() };
    Parser::new(student(), frame::Orientation::default(), &options)
}

#[derive(Deserialize)]
pub struct Fixtures {
    pub onnxruntime: String,
    pub fixture: Vec<Fixture>,
}

#[derive(Deserialize)]
pub struct Fixture {
    pub picture: String,
    /// Height and width of the input.
    pub size: [usize; 2],
    pub queries: Tensor,
    pub memory_a: Tensor,
    pub memory_b: Tensor,
    pub mask_features: Tensor,
    pub class_logits: Tensor,
    pub mask_logits: Tensor,
}

#[derive(Deserialize)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub file: String,
    pub scale: Option<f32>,
    pub zero: Option<f32>,
}

impl Tensor {
    pub fn values(&self) -> Vec<f32> {
        let bytes =
            std::fs::read(folder().join("fixtures").join(&self.file)).expect("fixture file");
        let values: Vec<f32> = match (self.scale, self.zero) {
            (Some(scale), Some(zero)) => {
                bytes.iter().map(|&b| (f32::from(b) - zero) * scale).collect()
            }
            _ => bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
        };
        assert_eq!(values.len(), self.shape.iter().product::<usize>(), "{}", self.file);
        values
    }
}

pub fn fixtures() -> Fixtures {
    let text =
        std::fs::read_to_string(folder().join("fixtures/fixtures.toml")).expect("fixtures.toml");
    toml::from_str(&text).expect("fixtures.toml is well formed")
}

/// Width, height and packed RGB of a fixture's picture.
pub fn picture(name: &str) -> (u32, u32, Vec<u8>) {
    let file = std::fs::File::open(folder().join("fixtures").join(name)).expect("fixture picture");
    let mut reader = png::Decoder::new(std::io::BufReader::new(file)).read_info().expect("a PNG");
    let mut bytes = vec![0; reader.output_buffer_size().expect("small")];
    let info = reader.next_frame(&mut bytes).expect("a whole PNG");
    assert_eq!(info.color_type, png::ColorType::Rgb);
    bytes.truncate(info.buffer_size());
    (info.width, info.height, bytes)
}

pub fn planes(width: u32, height: u32, rgb: &[u8]) -> Vec<u8> {
    let area = (width * height) as usize;
    (0..3).flat_map(|c| (0..area).map(move |i| rgb[3 * i + c])).collect()
}

pub fn buffer(width: u32, height: u32, rgb: &[u8]) -> FrameBuffer {
    let layout = Layout::new(PixelFormat::Rgb3, width, height, 0).expect("valid");
    let mut buffer = FrameBuffer::new();
    buffer
        .fill_with(layout, |bytes| {
            bytes.copy_from_slice(rgb);
            Ok::<(), ()>(())
        })
        .expect("filled");
    buffer
}
