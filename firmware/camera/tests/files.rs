//! The source suite on files, and what files can be wrong in.

mod suite;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use camera::{CaptureRequest, Delivery, DemoClip, Source, SourceError, SourceSpec};
use frame::{FrameBuffer, PixelFormat};
use jpeg_encoder::{ColorType, Encoder};

/// A folder that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("camera-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a scratch folder");
        Scratch(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn jpeg(shade: u8) -> Vec<u8> {
    let rgb: Vec<u8> = (0..48 * 32 * 3).map(|i| shade ^ (i % 200) as u8).collect();
    let mut file = Vec::new();
    Encoder::new(&mut file, 85).encode(&rgb, 48, 32, ColorType::Rgb).expect("encodes");
    file
}

fn png(side: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, side, side);
    encoder.set_color(png::ColorType::Rgba);
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(&vec![90; (side * side * 4) as usize]).expect("pixels");
    drop(writer);
    file
}

fn y4m(pictures: usize) -> Vec<u8> {
    let mut file = b"YUV4MPEG2 W16 H8 F25:1 Ip C420jpeg\n".to_vec();
    for k in 0..pictures {
        file.extend(b"FRAME\n");
        file.extend(vec![k as u8; 16 * 8 * 3 / 2]);
    }
    file
}

fn request() -> CaptureRequest {
    CaptureRequest {
        formats: vec![PixelFormat::Yuyv],
        width: 640,
        height: 480,
        rate: 0,
        buffers: 4,
    }
}

fn open(path: &Path) -> Result<Box<dyn Source>, SourceError> {
    camera::open(&SourceSpec::Path(path.into()), &request(), DemoClip::new(&[]))
}

fn run(source: &mut dyn Source) -> Result<suite::Seen, String> {
    suite::run(source, 100, Duration::from_secs(1))
}

#[test]
fn every_kind_of_file_keeps_to_the_suite() {
    let scratch = Scratch::new("kinds");
    let clip = [jpeg(1), jpeg(60), jpeg(200)].concat();
    for (path, pictures, size) in [
        (scratch.file("a.y4m", &y4m(3)), 3, (16, 8)),
        (scratch.file("b.mjpeg", &clip), 3, (48, 32)),
        (scratch.file("c.MJPG", &clip), 3, (48, 32)),
    ] {
        let seen = run(open(&path).expect("opens").as_mut()).expect("keeps to the suite");
        assert_eq!(
            (seen.pictures, seen.ended, seen.size),
            (pictures, true, size),
            "{}",
            path.display()
        );
    }
    let folder = Scratch::new("folder");
    folder.file("2.jpg", &jpeg(9));
    folder.file("1.png", &png(20));
    folder.file("notes.txt", b"no picture");
    let mut source = open(&folder.0).expect("opens");
    assert!(!source.is_live() && source.describe().ends_with("2 pictures"));
    let seen = run(source.as_mut()).expect("keeps to the suite");
    assert_eq!((seen.pictures, seen.size), (2, (48, 32)), "in the order of their names");
}

#[test]
fn an_mjpeg_file_is_played_at_the_rate_that_is_asked_for() {
    let scratch = Scratch::new("rate");
    let clip = scratch.file("slow.mjpeg", &[jpeg(1), jpeg(2)].concat());
    let request = CaptureRequest { rate: 4, ..request() };
    let began = Instant::now();
    let source = camera::open(&SourceSpec::Path(clip), &request, DemoClip::new(&[]));
    run(source.expect("opens").as_mut()).expect("keeps to the suite");
    assert!(began.elapsed() >= Duration::from_millis(250), "a quarter of a second a picture");
}

#[test]
fn the_demo_never_ends() {
    let clip: &'static [u8] = [jpeg(1), jpeg(60)].concat().leak();
    let mut source =
        camera::open(&SourceSpec::Demo, &request(), DemoClip::new(clip)).expect("opens");
    let seen = run(source.as_mut()).expect("keeps to the suite");
    assert_eq!((seen.pictures, seen.ended), (100, false));
    assert!(camera::open(&SourceSpec::Demo, &request(), DemoClip::new(b"nothing")).is_err());
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
    let scratch = Scratch::new("wrong");
    let cases = [
        ("none.y4m", None, "No such file"),
        ("film.mp4", Some(vec![1, 2, 3]), "convert it"),
        ("text.y4m", Some(b"hello\n".to_vec()), "not a YUV4MPEG2"),
        ("endless.y4m", Some(vec![b'A'; 5000]), "does not end"),
        ("empty.y4m", Some(Vec::new()), "does not end"),
    ];
    for (name, bytes, part) in cases {
        let path = bytes.map_or(scratch.0.join(name), |b| scratch.file(name, &b));
        let error = open(&path).err().unwrap_or_else(|| panic!("{name} was opened")).to_string();
        assert!(error.contains(name) && error.contains(part), "{error}");
    }
    let empty = Scratch::new("empty");
    let error = open(&empty.0).err().expect("nothing in it").to_string();
    assert!(error.contains("no .jpg or .png"), "{error}");
    let cut = scratch.file("cut.y4m", &y4m(2)[..200]);
    let error = run(open(&cut).expect("opens").as_mut()).expect_err("incomplete");
    assert!(error.contains("cut.y4m") && error.contains("incomplete"), "{error}");
    let last = scratch.file("last.y4m", &y4m(3)[..y4m(3).len() - 20]);
    let seen = run(open(&last).expect("opens").as_mut()).expect("whole pictures come first");
    assert_eq!((seen.pictures, seen.ended), (2, true), "what is cut off is the end");
    // A picture, then one that never ends.
    let mut tail = jpeg(1);
    tail.extend(b"\xFF\xD8");
    tail.extend([b"\xFF\xFE\xFF\xFF".as_slice(), &[0; 65533]].concat().repeat(33 << 4));
    let tail = scratch.file("tail.mjpeg", &tail);
    let seen = run(open(&tail).expect("opens").as_mut()).expect("a whole picture comes first");
    assert_eq!((seen.pictures, seen.ended), (1, true), "a bad tail is the end");
    let noise = scratch.file("noise.mjpeg", &[0xFF; 1000]);
    let error = run(open(&noise).expect("opens").as_mut()).expect_err("no picture");
    assert!(error.contains("noise.mjpeg"), "{error}");
}

#[test]
fn a_broken_picture_costs_only_itself() {
    let folder = Scratch::new("broken");
    folder.file("1.png", &png(20)[..60]);
    folder.file("2.jpg", b"not a picture");
    let gone = folder.file("3.jpg", &jpeg(1));
    folder.file("4.png", &png(20));
    let mut source = open(&folder.0).expect("opens");
    std::fs::remove_file(&gone).expect("ours");
    let mut buffer = FrameBuffer::new();
    assert_eq!(source.file(), None, "no picture yet");
    for name in ["1.png", "2.jpg", "3.jpg"] {
        let error = source.next(&mut buffer, Duration::ZERO).expect_err("broken");
        assert!(error.is_frame_only() && error.to_string().contains(name), "{error}");
        assert!(source.file().is_some_and(|file| file.ends_with(name)));
        let said = |word| error.to_string().contains(word);
        assert_eq!((said("PNG"), said("JPEG")), (name == "1.png", name == "2.jpg"), "{error}");
    }
    assert_eq!(source.next(&mut buffer, Duration::ZERO).expect("a whole one"), Delivery::Frame);
    assert_eq!(source.next(&mut buffer, Duration::ZERO).expect("the end"), Delivery::End);
}

#[test]
fn a_camera_that_is_not_there_is_named_with_the_next_step() {
    let spec = SourceSpec::Camera("/dev/video63".into());
    let error = camera::open(&spec, &request(), DemoClip::new(&[]))
        .err()
        .expect("no such device")
        .to_string();
    assert!(error.contains("/dev/video63") && error.contains("plugged in"), "{error}");
    let spec = SourceSpec::Camera("/dev/null".into());
    assert!(camera::open(&spec, &request(), DemoClip::new(&[])).is_err());
}
