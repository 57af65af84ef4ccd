//! The suite on the headless display, its files, and what `open` refuses.

mod suite;

use std::fs::{self, File, Permissions};
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use display::blit::{PixelLayout, Surface, blit};
use display::{
    Display, DisplayError, DisplayRequest, DisplaySpec, HeadlessDisplay, Rotation, open,
};
use overlay::Canvas;

/// A folder of this test's own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("display-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Folder(path)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .expect("folder")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn small(rotation: Rotation) -> DisplayRequest {
    DisplayRequest { headless_size: (90, 160), rotation, ..DisplayRequest::default() }
}

fn read_png(path: &Path) -> ((u32, u32), Vec<u8>) {
    let decoder = png::Decoder::new(BufReader::new(File::open(path).expect("file")));
    let mut reader = decoder.read_info().expect("png");
    let mut pixels = vec![0; reader.output_buffer_size().expect("size")];
    let info = reader.next_frame(&mut pixels).expect("png");
    ((info.width, info.height), pixels)
}

fn panel_rgb(canvas: &Canvas, rotation: Rotation) -> Vec<u8> {
    let size = rotation.turn((canvas.width(), canvas.height()));
    let surface = Surface::packed(size, PixelLayout::Rgbx);
    let mut panel = vec![0; surface.bytes()];
    blit(canvas, rotation, &surface, &mut panel);
    panel.chunks_exact(4).flat_map(|pixel| pixel[..3].to_vec()).collect()
}

#[test]
fn suite_in_every_rotation_and_the_last_card_is_in_the_file() {
    for rotation in Rotation::ALL {
        let folder = Folder::new(&format!("suite-{}", rotation.degrees()));
        let spec = DisplaySpec::Headless(Some(folder.0.clone()));
        let mut display = open(&spec, &small(rotation)).expect("open");
        assert_eq!(display.size(), rotation.turn((90, 160)));
        let report = suite::run(display.as_mut(), 10).expect("suite");
        assert_eq!(report.presents, 13);
        let mut canvas = Canvas::new(display.size().0, display.size().1);
        suite::draw_card(&mut canvas, suite::LAST_STEP);
        let (size, pixels) = read_png(&folder.0.join("latest.png"));
        assert_eq!(size, (90, 160));
        assert!(pixels == panel_rgb(&canvas, rotation), "{rotation:?}");
    }
}

#[test]
fn without_a_folder_canvases_are_counted() {
    let mut display = HeadlessDisplay::open(None, &small(Rotation::None)).expect("open");
    let report = suite::run(&mut display, 5).expect("suite");
    assert_eq!(display.presented(), u64::from(report.presents));
    assert!(display.name().contains("writing nothing"));
}

#[test]
fn every_third_canvas_is_written_whole_and_under_its_number() {
    let folder = Folder::new("every");
    let request = DisplayRequest { headless_every: 3, ..small(Rotation::None) };
    let mut display = HeadlessDisplay::open(Some(&folder.0), &request).expect("open");
    let mut canvas = Canvas::new(90, 160);
    for step in 0..5 {
        suite::draw_card(&mut canvas, step);
        display.present(&canvas).expect("present");
    }
    assert_eq!(folder.names(), ["frame-000000.png", "frame-000003.png", "latest.png"]);
    suite::draw_card(&mut canvas, 3);
    for name in ["frame-000003.png", "latest.png"] {
        assert!(read_png(&folder.0.join(name)).1 == panel_rgb(&canvas, Rotation::None), "{name}");
    }
}

#[test]
fn files_are_for_their_owner_alone() {
    let folder = Folder::new("owner");
    fs::create_dir_all(&folder.0).expect("folder");
    let left = folder.0.join(".latest.png.part");
    fs::write(&left, b"half of one that anybody may read").expect("file");
    fs::set_permissions(&left, Permissions::from_mode(0o644)).expect("ours");
    let mut display = HeadlessDisplay::open(Some(&folder.0), &small(Rotation::None)).expect("open");
    display.present(&Canvas::new(90, 160)).expect("present");
    for name in ["frame-000000.png", "latest.png"] {
        let rights = fs::metadata(folder.0.join(name)).expect(name).permissions().mode();
        assert_eq!(rights & 0o777, 0o600, "{name}");
    }
}

#[test]
fn an_unwritable_folder_is_named() {
    let folder = Folder::new("file");
    fs::create_dir_all(&folder.0).expect("folder");
    let file = folder.0.join("file");
    fs::write(&file, b"in the way").expect("file");
    let error = HeadlessDisplay::open(Some(&file.join("sub")), &small(Rotation::None));
    let message = error.expect_err("a file is no folder").to_string();
    assert!(message.contains("file/sub") && message.contains("writable"), "{message}");
}

#[test]
fn a_folder_that_vanishes_is_an_error_that_ends_when_it_comes_back() {
    let folder = Folder::new("vanishes");
    let mut display = HeadlessDisplay::open(Some(&folder.0), &small(Rotation::None)).expect("open");
    let canvas = Canvas::new(90, 160);
    fs::remove_dir_all(&folder.0).expect("remove");
    let error = display.present(&canvas).expect_err("no folder");
    assert!(error.is_transient() && error.to_string().contains("frame-000000.png"), "{error}");
    fs::create_dir_all(&folder.0).expect("folder");
    display.present(&canvas).expect("present");
    assert_eq!(folder.names(), ["frame-000000.png", "latest.png"]);
}

#[test]
fn senseless_requests_are_refused() {
    let spec = DisplaySpec::Headless(None);
    for size in [(0, 10), (10, 0), (10, display::MAX_SIDE + 1)] {
        let request = DisplayRequest { headless_size: size, ..DisplayRequest::default() };
        let error = open(&spec, &request).err().expect("no such panel");
        assert!(error.to_string().contains("each side"), "{error}");
        assert!(!error.is_transient());
    }
    let request = DisplayRequest { headless_every: 0, ..DisplayRequest::default() };
    let error = open(&spec, &request).err().expect("no such step");
    assert!(error.to_string().contains("headless_every = 0"), "{error}");
}

/// Nothing that could open: everything tried is listed in order, each with its reason.
#[test]
fn auto_without_any_display_lists_what_was_tried() {
    let request = DisplayRequest {
        drm_device: "/dev/dri/card-none".into(),
        fbdev_device: "/dev/fb-none".into(),
        x11_display: Some(":65000".into()),
        ..DisplayRequest::default()
    };
    if Path::new("/dev/dri/card0").exists() {
        println!("a graphics card exists here: `auto` would open it, so nothing was checked");
        return;
    }
    let error = open(&DisplaySpec::Auto, &request).err().expect("nothing to open");
    let DisplayError::NoDisplay { tried } = &error else { panic!("{error}") };
    let kinds: Vec<&str> = tried.iter().map(|attempt| attempt.kind).collect();
    assert_eq!(kinds, ["drm", "fbdev", "window"]);
    let message = error.to_string();
    for part in ["/dev/dri/card-none", "/dev/fb-none", "DISPLAY=:65000", "--display headless"] {
        assert!(message.contains(part), "{message}");
    }
}
