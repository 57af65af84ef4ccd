//! Runs the source suite on a real device or file: `camera-suite /dev/video0`.

#[path = "../tests/suite/mod.rs"]
mod suite;

use std::process::ExitCode;
use std::time::Duration;

use camera::{CaptureRequest, DemoClip, SourceSpec};
use frame::PixelFormat;

/// Every format is asked for alone, so that each is really captured where the driver has it.
const FORMATS: [PixelFormat; 4] =
    [PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::Rgb3, PixelFormat::Mjpg];

fn main() -> ExitCode {
    let Some(source) = std::env::args().nth(1) else {
        eprintln!("usage: camera-suite SOURCE");
        return ExitCode::from(2);
    };
    let spec: SourceSpec = match source.parse() {
        Ok(spec) => spec,
        Err(error) => {
            eprintln!("camera-suite: {error}");
            return ExitCode::from(2);
        }
    };
    let mut captured = 0;
    for format in FORMATS {
        let request =
            CaptureRequest { formats: vec![format], width: 640, height: 480, rate: 10, buffers: 4 };
        let result = camera::open(&spec, &request, DemoClip::new(&[]))
            .map_err(|e| e.to_string())
            .and_then(|mut source| {
                println!("camera-suite: {}", source.describe());
                suite::run(source.as_mut(), 8, Duration::from_secs(20))
            });
        match result {
            Ok(seen) => {
                captured += 1;
                println!("camera-suite: {format}: {seen:?}");
            }
            // A driver need not have every format; that it says so with both names is what is wanted.
            Err(reason) if reason.contains("was asked for") => {
                println!("camera-suite: {format}: {reason}")
            }
            Err(reason) => {
                println!("camera-suite: FAIL: {format}: {reason}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("camera-suite: {captured} formats captured");
    if captured > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
