//! A mirror draws for months: nothing may be allocated per picture.

mod common;
#[path = "common/scenes.rs"]
mod scenes;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use common::{Crowd, Pose};
use overlay::preview::PreviewPainter;
use overlay::{Alignment, Canvas, MirrorGeometry, Painter, Scene, Status, Style};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the pointer came from `System` with this layout.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    work();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// People who move: every picture has other sizes of everything.
fn crowds() -> Vec<Crowd> {
    (0..12)
        .map(|step| {
            let arms = step as f32 / 12.0;
            let one = Pose { foot: (60.0, 240.0), tall: 200.0, arms, stride: arms / 3.0, track: 0 };
            let two =
                Pose { foot: (140.0, 220.0), tall: 170.0, arms: 1.0 - arms, stride: 0.2, track: 1 };
            Crowd::new(192, 256, &[one, two])
        })
        .collect()
}

/// One test, since the counter is common to all threads.
#[test]
fn drawing_allocates_nothing_in_the_steady_state() {
    let geometry = MirrorGeometry {
        camera_height_m: 1.85,
        camera_offset_m: 0.0,
        pitch_deg: 15.0,
        field_of_view_deg: 45.0,
        screen_width_m: 0.30,
        screen_height_m: 0.53,
        screen_bottom_m: 1.25,
    };
    let crowds = crowds();
    let statuses = scenes::statuses();
    for alignment in [Alignment::Picture { mirrored: true }, Alignment::Reflection(geometry)] {
        let mut painter = Painter::new(540, 960, Style::default(), alignment);
        let mut canvas = Canvas::new(540, 960);
        let mut round = || {
            for (step, crowd) in crowds.iter().enumerate() {
                let scene = Scene {
                    mask: Some(crowd.mask()),
                    status: Status::Running,
                    camera_active: true,
                    watched: step % 2 == 0,
                    dimmed: Some(step as u32),
                    fps: Some(10.0 + step as f32),
                    code: Some("493 027"),
                    notice: Some("A notice that is long enough to need two lines."),
                    page_address: Some("https://192.168.1.7:8443/"),
                    page_hint: Some("Your browser warns once."),
                };
                painter.draw(&scene, Instant::now(), &mut canvas);
            }
            for (_, status) in &statuses {
                let page_address = Some("http://127.0.0.1:8080");
                let scene = Scene { page_address, ..Scene::of_status(*status) };
                painter.draw(&scene, Instant::now(), &mut canvas);
            }
        };
        assert!(allocations(&mut round) > 0, "the counter counts");
        assert_eq!(allocations(&mut round), 0, "{alignment:?}");
    }
    let mut preview = PreviewPainter::new(Style::default());
    let mut picture = vec![0_u8; 240 * 320 * 3];
    let mut round = || {
        for crowd in &crowds {
            preview.blend_over(&mut picture, (240, 320), &crowd.mask()).expect("sizes agree");
        }
    };
    assert!(allocations(&mut round) > 0);
    assert_eq!(allocations(&mut round), 0);
}
