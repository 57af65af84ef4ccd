//! The steady state allocates nothing outside the network: the count per picture equals the network's own.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counted(mut work: impl FnMut()) -> u64 {
    let before = COUNT.load(Ordering::Relaxed);
    for _ in 0..5 {
        work();
    }
    COUNT.load(Ordering::Relaxed) - before
}

// One test in this file: another one's allocations would be counted too.
#[test]
fn parsing_allocates_only_inside_the_network() {
    let (width, height, rgb) = common::picture(&common::fixtures().fixture[0].picture);
    let buffer = common::buffer(width, height, &rgb);
    let pixels = common::planes(width, height, &rgb);
    let mut parser = common::parser(true);
    let mut student = common::student();
    for _ in 0..3 {
        parser.parse(&buffer.frame()).expect("parses");
        student.run(&pixels).expect("runs");
    }
    let network = counted(|| assert!(student.run(&pixels).expect("runs").queries > 0));
    let whole =
        counted(|| assert!(parser.parse(&buffer.frame()).expect("parses").persons.len() < 100));
    println!("5 pictures: {network} allocations in the network, {whole} in all");
    assert_eq!(whole, network);
}
