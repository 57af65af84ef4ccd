//! Memory that a mailbox or a decoder gives back to the system holds no picture.

use std::alloc::{GlobalAlloc, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use camera::mailbox::Mailbox;
use frame::jpeg::JpegDecoder;
use frame::{FrameBuffer, Layout, PixelFormat};

/// Every byte of the pictures.
const SHADE: u8 = 0xA7;
/// Picture bytes, and only they, fill blocks as large as this.
const LARGE: usize = 64 * 48 * 3;

/// Large blocks that were freed, and those of them that still held a picture.
static FREED: AtomicU64 = AtomicU64::new(0);
static LEFT: AtomicU64 = AtomicU64::new(0);

struct Looking;

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Looking {
    unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on; memory is zeroed so that `dealloc` may read all of it.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: std::alloc::Layout) {
        if layout.size() >= LARGE {
            // SAFETY: the block is still the caller's, and all of it was written when it was made.
            let bytes = unsafe { std::slice::from_raw_parts(pointer, layout.size()) };
            FREED.fetch_add(1, Ordering::Relaxed);
            LEFT.fetch_add(u64::from(bytes.contains(&SHADE)), Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Looking = Looking;

/// A small picture in memory that has held a larger one, and that in place of one in between.
fn picture(mailbox: &Mailbox) -> FrameBuffer {
    let mut buffer = mailbox.take_free().expect("free memory");
    for (width, height) in [(64, 48), (96, 64), (8, 8)] {
        let layout = Layout::new(PixelFormat::Rgb3, width, height, 0).expect("small");
        let filled = buffer.fill_with(layout, |bytes| {
            bytes.fill(SHADE);
            Ok::<(), ()>(())
        });
        filled.expect("filled");
    }
    buffer
}

/// A JPEG picture without Huffman tables, which a decoder adds in memory of its own, and whose comment is shades. It cannot be decoded,
/// since it has no other tables either.
fn without_tables(shades: usize) -> Vec<u8> {
    let length = u16::try_from(shades + 2).expect("short").to_be_bytes();
    let frame = b"\xFF\xC0\0\x0B\x08\0\x08\0\x08\x01\x01\x11\0";
    let scan = b"\xFF\xDA\0\x08\x01\x01\0\0\x3F\0data\xFF\xD9";
    let mut picture = [b"\xFF\xD8\xFF\xFE", &length[..]].concat();
    picture.reserve_exact(shades + frame.len() + scan.len());
    picture.resize(picture.len() + shades, SHADE);
    picture.extend_from_slice(frame);
    picture.extend_from_slice(scan);
    picture
}

// One test in this file: another one's memory would be looked at too.
#[test]
fn what_is_forgotten_leaves_no_picture_in_memory() {
    let mailbox = Mailbox::new(3);
    mailbox.publish(picture(&mailbox));
    let read = mailbox.receive(Duration::ZERO).expect("one waits");
    mailbox.publish(picture(&mailbox));
    mailbox.publish(picture(&mailbox));
    assert_eq!(FREED.load(Ordering::Relaxed), 3, "each had grown");
    mailbox.forget();
    assert_eq!(FREED.load(Ordering::Relaxed), 5, "the one that waited, and one before it");
    mailbox.recycle(read);
    assert_eq!(FREED.load(Ordering::Relaxed), 6, "the one in use, when it came back");
    mailbox.publish(picture(&mailbox));
    drop(mailbox);
    assert_eq!(FREED.load(Ordering::Relaxed), 8);
    let (mut decoder, mut into) = (JpegDecoder::new(), FrameBuffer::new());
    let pictures = [without_tables(LARGE), without_tables(3 * LARGE)];
    for picture in &pictures {
        assert!(decoder.decode(picture, None, &mut into).is_err());
    }
    assert_eq!(FREED.load(Ordering::Relaxed), 9, "it had grown");
    drop(decoder);
    assert_eq!(FREED.load(Ordering::Relaxed), 10);
    assert_eq!(LEFT.load(Ordering::Relaxed), 0, "blocks that still held a picture");
}
