//! The README's picture: `cargo run -p system-tests --example readme-picture -- firmware/mirror/assets/overlay.png`.
//!
//! Left the local page's preview of one picture of the demo scene, right what the mirror's display shows at that moment,
//! both through the shipped network.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use frame::jpeg::JpegDecoder;
use frame::{FrameBuffer, Orientation};
use overlay::preview::PreviewPainter;
use overlay::{Alignment, Canvas, MaskView, Painter, PersonView, Scene, Status, Style};
use vision::{EngineOptions, ModelFiles, Parser, ParserOptions, Student};

/// Size of each half.
const HALF: (u32, u32) = (420, 560);
/// Columns of grey between the halves.
const GAP: u32 = 12;
const GREY: u8 = 0x88;
/// Which picture of the clip, counted from nought; the ones before it settle tracks and smoothing.
const PICTURE: usize = 15;

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::args().nth(1).ok_or("usage: readme-picture OUT.png")?);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let clip = std::fs::read(root.join("firmware/mirror/assets/demo.mjpeg"))?;
    let files = ModelFiles::read(&root.join("models/student"))?;
    let student = Student::load(&files, &EngineOptions::default())?;
    let mut parser = Parser::new(student, Orientation::default(), &ParserOptions::default());
    let (mut picture, mut decoder, mut at) = (FrameBuffer::new(), JpegDecoder::new(), 0);
    for _ in 0..=PICTURE {
        let range = camera::mjpeg::next_picture(&clip[at..]).ok_or("the clip is too short")?;
        decoder.decode(&clip[at + range.start..at + range.end], None, &mut picture)?;
        at += range.end;
        parser.parse(&picture.frame())?;
    }
    let left = preview(&parser, &picture)?;
    let right = screen(&parser)?;
    write(&out, &left, &right)?;
    println!("{}: {} KB", out.display(), std::fs::metadata(&out)?.len() / 1000);
    Ok(())
}

/// Lends the newest parsing to `draw` as the overlay wants it.
fn with_mask<T>(parser: &Parser, draw: impl FnOnce(MaskView<'_>) -> T) -> T {
    let parsing = parser.parsing();
    let content = parsing.letterbox.content();
    let people: Vec<PersonView> = parsing
        .persons
        .iter()
        .map(|person| PersonView {
            slot: person.slot,
            track: person.track,
            bounds: (person.bounds.x, person.bounds.y, person.bounds.width, person.bounds.height),
        })
        .collect();
    draw(MaskView {
        width: parsing.grid.width as u32,
        height: parsing.grid.height as u32,
        parts: &parsing.parts,
        person: &parsing.person,
        content: (content.x, content.y, content.width, content.height),
        people: &people,
    })
}

/// The picture, enlarged, with its parts coloured.
fn preview(parser: &Parser, picture: &FrameBuffer) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut small = Vec::new();
    let size = frame::rgb::upright(&picture.frame(), Orientation::default(), &mut small)?;
    let mut rgb = enlarged(&small, size);
    let mut painter = PreviewPainter::new(Style::default());
    with_mask(parser, |mask| painter.blend_over(&mut rgb, HALF, &mask))?;
    Ok(rgb)
}

/// Bilinear, to the size of a half.
fn enlarged(rgb: &[u8], (width, height): (u32, u32)) -> Vec<u8> {
    let place = |index: u32, from: u32, to: u32| {
        let at =
            ((index as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, from as f32 - 1.0);
        let first = at as usize;
        (first, (first + 1).min(from as usize - 1), at.fract())
    };
    let mut out = Vec::with_capacity((HALF.0 * HALF.1 * 3) as usize);
    for y in 0..HALF.1 {
        let (above, below, down) = place(y, height, HALF.1);
        for x in 0..HALF.0 {
            let (before, behind, along) = place(x, width, HALF.0);
            for channel in 0..3 {
                let value = |x, y| f32::from(rgb[(y * width as usize + x) * 3 + channel]);
                let upper = value(before, above) * (1.0 - along) + value(behind, above) * along;
                let lower = value(before, below) * (1.0 - along) + value(behind, below) * along;
                out.push((upper * (1.0 - down) + lower * down).round() as u8);
            }
        }
    }
    out
}

/// What the mirror's display shows, not mirrored, so that both halves can be compared.
fn screen(parser: &Parser) -> Result<Vec<u8>, Box<dyn Error>> {
    let alignment = Alignment::Picture { mirrored: false };
    let mut painter = Painter::new(HALF.0, HALF.1, Style::default(), alignment);
    let mut canvas = Canvas::new(HALF.0, HALF.1);
    with_mask(parser, |mask| {
        let running = Scene::of_status(Status::Running);
        painter.draw(&Scene { mask: Some(mask), camera_active: true, ..running }, &mut canvas);
    });
    Ok(canvas.pixels().iter().flat_map(|pixel| pixel.to_be_bytes()[1..].to_vec()).collect())
}

fn write(path: &Path, left: &[u8], right: &[u8]) -> Result<(), Box<dyn Error>> {
    let row = (HALF.0 * 3) as usize;
    let gap = vec![GREY; (GAP * 3) as usize];
    let halves = left.chunks_exact(row).zip(right.chunks_exact(row));
    let bytes: Vec<u8> = halves.flat_map(|(l, r)| [l, &gap, r].concat()).collect();
    let file = BufWriter::new(File::create(path)?);
    let mut encoder = png::Encoder::new(file, 2 * HALF.0 + GAP, HALF.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    encoder.write_header()?.write_image_data(&bytes)?;
    Ok(())
}
