//! Times a network and prints its answer as JSON, for `tests/peers/network.py`.
//!
//! usage: network MODEL-FOLDER FRAMES PICTURE [THREADS]
//!
//! The picture has one of the network's input sizes, and that is the size it runs at.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use vision::{EngineOptions, ModelFiles, Student};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (folder, frames, picture, options) = match arguments.as_slice() {
        [folder, frames, picture] => (folder, frames, picture, EngineOptions::default()),
        [folder, frames, picture, threads] => {
            (folder, frames, picture, EngineOptions { threads: threads.parse()? })
        }
        _ => return Err("usage: network MODEL-FOLDER FRAMES PICTURE [THREADS]".into()),
    };
    let (size, pixels) = planes(Path::new(picture))?;
    let mut student = Student::load_for(size, &ModelFiles::read(Path::new(folder))?, &options)?;
    let mut times = Vec::new();
    for _ in 0..frames.parse::<usize>()?.max(1) {
        let began = Instant::now();
        student.run(&pixels)?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let report = serde_json::json!({
        "median_ms": times[times.len() / 2],
        "pixels": pixels,
        "class_logits": student.output().class_logits,
    });
    println!("{report}");
    Ok(())
}

/// Width and height of a picture, and its R, G, B planes.
type Planes = ((u32, u32), Vec<u8>);

/// Of a PNG.
fn planes(path: &Path) -> Result<Planes, Box<dyn Error>> {
    let file = std::io::BufReader::new(std::fs::File::open(path)?);
    let mut reader = png::Decoder::new(file).read_info()?;
    let mut rgb = vec![0; reader.output_buffer_size().ok_or("too large")?];
    let info = reader.next_frame(&mut rgb)?;
    let area = rgb.len() / 3;
    let places = (0..3).flat_map(|c| (0..area).map(move |i| 3 * i + c));
    Ok(((info.width, info.height), places.map(|at| rgb[at]).collect()))
}
