//! Showing a picture allocates nothing once the display is open.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use display::blit::{PixelLayout, Surface, blit};
use display::{DisplayRequest, DisplaySpec, Rotation, open};
use overlay::Canvas;

thread_local! {
    /// Of this thread only: the test harness allocates on others.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands everything to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    work();
    COUNT.with(Cell::get) - before
}

#[test]
fn copying_in_every_rotation_and_layout() {
    let canvas = Canvas::new(540, 960);
    for layout in [PixelLayout::Bgrx, PixelLayout::Rgbx, PixelLayout::Rgb565] {
        for rotation in Rotation::ALL {
            let surface = Surface::packed(rotation.turn((540, 960)), layout);
            let mut memory = vec![0; surface.bytes()];
            let count = allocations(|| blit(&canvas, rotation, &surface, &mut memory));
            assert_eq!(count, 0, "{layout:?} {rotation:?}");
        }
    }
}

#[test]
fn presenting_without_a_folder() {
    let spec = DisplaySpec::Headless(None);
    let mut display = open(&spec, &DisplayRequest::default()).expect("open");
    let (width, height) = display.size();
    let canvas = Canvas::new(width, height);
    let count = allocations(|| {
        for _ in 0..100 {
            display.present(&canvas).expect("present");
        }
    });
    assert_eq!(count, 0);
}
