//! Once everything has its size, a picture's way from source to screen allocates nothing outside
//! the network: counted by the allocator itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use camera::Delivery;
use camera::mailbox::Mailbox;
use display::{Display, DisplayRequest, HeadlessDisplay};
use frame::{FrameBuffer, Layout as PictureLayout, Orientation, PixelFormat};
use mirror::look::Look;
use mirror::model::ModelSource;
use mirror::shared::{CameraState, ModelState, Shared};
use mirror::timings::Stage;
use mirror::view::View;
use overlay::{Canvas, Painter, Scene, Status};
use settings::Layers;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// Forwards to the system's allocator; only the count is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread during `work`.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    work();
    COUNT.with(Cell::get) - before
}

/// A picture as a camera gives it: people-like blobs that move with `number`.
fn fill(buffer: &mut FrameBuffer, number: u64) {
    let layout = PictureLayout::new(PixelFormat::Yuyv, 640, 480, 0).expect("valid");
    let draw = |bytes: &mut [u8]| -> Result<Delivery, ()> {
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = (place as u64 / 7 + number * 13) as u8;
        }
        Ok(Delivery::Frame)
    };
    buffer.fill_with(layout, |bytes| draw(bytes).map(drop)).expect("cannot fail");
    buffer.sequence = number;
}

#[test]
fn a_picture_s_way_allocates_nothing_outside_the_network() {
    let settings = Layers::defaults().and_then(Layers::finish).expect("the defaults").settings;
    let shared = Shared::new(Instant::now(), None);
    shared.update_health(|health| {
        health.camera = CameraState::On;
        health.model = ModelState::Ready { name: "test".into() };
    });
    let mailbox = Mailbox::new(4);
    let mut parser = ModelSource::new(&settings.vision)
        .parser(Orientation::default())
        .expect("the built-in one");
    let request = DisplayRequest { headless_size: (540, 960), ..DisplayRequest::default() };
    let mut display = HeadlessDisplay::open(None, &request).expect("nothing to open");
    let look = Look::new(&settings);
    let mut painter = Painter::new(540, 960, look.style(), look.alignment(true));
    let mut canvas = Canvas::new(540, 960);
    // Letters are rasterised when they are first seen: show every digit once.
    for fps in [10.2, 34.5, 67.8, 99.9] {
        let scene = Scene { fps: Some(fps), ..Scene::of_status(Status::Running) };
        painter.draw(&scene, &mut canvas);
    }
    let (mut back, mut front) = (View::new(), View::new());
    let (mut health, mut seen) = (shared.health(), 0);

    let mut picture = |number: u64| -> u64 {
        let mut outside = allocations(|| {
            let mut buffer = mailbox.take_free().expect("free memory");
            fill(&mut buffer, number);
            mailbox.publish(buffer);
        });
        let taken = mailbox.receive(Duration::ZERO).expect("just published");
        // The network's own working memory is tract's; the stages around it are counted by the
        // vision crate's test.
        parser.parse(&taken.frame()).expect("a valid picture");
        outside += allocations(|| {
            mailbox.recycle(taken);
            let parsing = parser.parsing();
            shared.timings.record(Stage::Convert, parsing.timings.convert);
            back.fill(parsing);
            assert!(shared.publish_view(&mut back));
            assert!(shared.receive_view(&mut front, Duration::ZERO));
            shared.refresh_health(&mut health, &mut seen);
            let scene = Scene {
                mask: front.mask(),
                camera_active: true,
                fps: Some(shared.timings.fps()),
                ..Scene::of_status(Status::Running)
            };
            painter.draw(&scene, &mut canvas);
            display.present(&canvas).expect("headless");
            shared.timings.record(Stage::Draw, Duration::from_millis(1));
            shared.timings.record_shown();
            shared.counters.overlays.fetch_add(1, Ordering::Relaxed);
        });
        outside
    };
    let warm_up: u64 = (0..12).map(&mut picture).sum();
    let steady: u64 = (12..40).map(&mut picture).sum();
    assert!(warm_up > 0, "the counter counts");
    assert_eq!(steady, 0, "allocations in 28 pictures");
}
