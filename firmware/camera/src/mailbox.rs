//! Bounded hand-over of pictures between threads: the newest wins, memory is used again.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use frame::FrameBuffer;
use heapless::Vec as Bounded;

/// Most buffers a mailbox can own.
pub const MOST_BUFFERS: usize = 8;

#[derive(Debug)]
struct Inside {
    free: Bounded<FrameBuffer, MOST_BUFFERS>,
    /// The newest picture nobody has taken.
    unseen: Option<FrameBuffer>,
    dropped: u64,
    closed: bool,
    /// Pictures that come back are forgotten, until the next one is taken.
    forgetful: bool,
}

/// A mailbox with a fixed number of buffers. At most one picture waits in it; a newer one takes its place.
#[derive(Debug)]
pub struct Mailbox {
    inside: Mutex<Inside>,
    arrived: Condvar,
    /// No picture waits any more.
    taken: Condvar,
}

impl Mailbox {
    /// With `buffers` buffers, 2 to [`MOST_BUFFERS`] (others are brought into that range): one that is being filled,
    /// one that is being read, and any more for longer reads.
    pub fn new(buffers: usize) -> Mailbox {
        let mut free = Bounded::new();
        for _ in 0..buffers.clamp(2, MOST_BUFFERS) {
            // Cannot overflow: the range above is the capacity.
            let _ = free.push(FrameBuffer::new());
        }
        Mailbox {
            inside: Mutex::new(Inside {
                free,
                unseen: None,
                dropped: 0,
                closed: false,
                forgetful: false,
            }),
            arrived: Condvar::new(),
            taken: Condvar::new(),
        }
    }

    /// Memory for the next picture. When every buffer is taken, the one that waits unseen is given up.
    pub fn take_free(&self) -> Option<FrameBuffer> {
        let mut inside = self.lock();
        inside.forgetful = false;
        if let Some(buffer) = inside.free.pop() {
            return Some(buffer);
        }
        let overtaken = inside.unseen.take();
        inside.dropped += u64::from(overtaken.is_some());
        overtaken
    }

    /// Makes `buffer` the newest picture; an older unseen one is dropped and its memory kept.
    pub fn publish(&self, buffer: FrameBuffer) {
        let mut inside = self.lock();
        if let Some(older) = inside.unseen.replace(buffer) {
            inside.dropped += 1;
            let _ = inside.free.push(older);
        }
        drop(inside);
        self.arrived.notify_one();
    }

    /// The newest picture, waiting for one at most `timeout`. `None` also after [`Mailbox::close`].
    pub fn receive(&self, timeout: Duration) -> Option<FrameBuffer> {
        let until = Instant::now() + timeout;
        let mut inside = self.lock();
        loop {
            if inside.unseen.is_some() || inside.closed {
                self.taken.notify_all();
                return inside.unseen.take();
            }
            let left = until.checked_duration_since(Instant::now())?;
            inside =
                self.arrived.wait_timeout(inside, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives memory back.
    pub fn recycle(&self, mut buffer: FrameBuffer) {
        let mut inside = self.lock();
        if inside.forgetful {
            buffer.forget();
        }
        // A buffer too many can only be one that was not ours: it is freed.
        let _ = inside.free.push(buffer);
    }

    /// Forgets every picture: the one that waits, old ones in memory that is free, and, when they come back, those in use. For a camera
    /// that is switched off.
    pub fn forget(&self) {
        let mut inside = self.lock();
        inside.forgetful = true;
        if let Some(unseen) = inside.unseen.take() {
            inside.dropped += 1;
            let _ = inside.free.push(unseen);
            self.taken.notify_all();
        }
        inside.free.iter_mut().for_each(FrameBuffer::forget);
    }

    /// Waits at most `timeout` until no picture waits; whether none does. True also after [`Mailbox::close`].
    pub fn wait_until_taken(&self, timeout: Duration) -> bool {
        let is_waited_for = |inside: &mut Inside| inside.unseen.is_some() && !inside.closed;
        let waited = self.taken.wait_timeout_while(self.lock(), timeout, is_waited_for);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Pictures that were overtaken by newer ones.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Wakes whoever waits; nothing more will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
        self.taken.notify_all();
    }

    /// The contents are valid at every step, so a panic elsewhere does not spoil them.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn numbered(mailbox: &Mailbox, number: u64) -> FrameBuffer {
        let mut buffer = mailbox.take_free().expect("free memory");
        buffer.sequence = number;
        buffer
    }

    #[test]
    fn what_is_forgotten_is_gone_and_the_buffers_stay() {
        let mailbox = Mailbox::new(3);
        for number in 1..=2 {
            mailbox.publish(numbered(&mailbox, number));
        }
        let read = mailbox.receive(Duration::ZERO).expect("one waits");
        mailbox.publish(numbered(&mailbox, 3));
        mailbox.forget();
        assert!(mailbox.wait_until_taken(Duration::ZERO));
        mailbox.recycle(read);
        let sequences: Vec<u64> =
            std::iter::from_fn(|| mailbox.take_free()).map(|b| b.sequence).collect();
        assert_eq!(sequences, [0; 3], "three, and all of them new");
        let mut kept = FrameBuffer::new();
        kept.sequence = 7;
        mailbox.recycle(kept);
        assert_eq!(
            mailbox.take_free().expect("given back").sequence,
            7,
            "on again, memory is used again"
        );
    }

    #[test]
    fn the_newest_wins_and_the_rest_are_counted() {
        let mailbox = Mailbox::new(3);
        for number in 0..5 {
            mailbox.publish(numbered(&mailbox, number));
        }
        let newest = mailbox.receive(Duration::ZERO).expect("a picture");
        assert_eq!((newest.sequence, mailbox.dropped()), (4, 4));
        assert!(
            mailbox.wait_until_taken(Duration::ZERO) && mailbox.receive(Duration::ZERO).is_none()
        );
        mailbox.recycle(newest);
    }

    #[test]
    fn memory_is_never_lost_and_never_more() {
        let mailbox = Mailbox::new(3);
        let taken: Vec<FrameBuffer> = (0..3).filter_map(|_| mailbox.take_free()).collect();
        assert_eq!(taken.len(), 3);
        assert!(mailbox.take_free().is_none());
        taken.into_iter().for_each(|b| mailbox.recycle(b));
        assert!((0..3).all(|_| mailbox.take_free().is_some()) && mailbox.take_free().is_none());
    }

    #[test]
    fn a_full_mailbox_gives_up_its_oldest() {
        let mailbox = Mailbox::new(2);
        mailbox.publish(numbered(&mailbox, 1));
        let filling = mailbox.take_free().expect("free memory");
        let given_up = mailbox.take_free().expect("the unseen one");
        assert_eq!((given_up.sequence, mailbox.dropped()), (1, 1));
        drop(filling);
    }

    #[test]
    fn whoever_waits_for_a_picture_to_be_taken_is_woken_by_that_and_by_the_end() {
        let mailbox = Arc::new(Mailbox::new(2));
        assert!(mailbox.wait_until_taken(Duration::ZERO), "none is there");
        let ends: [fn(&Mailbox); 3] =
            [|mailbox| drop(mailbox.receive(Duration::ZERO)), Mailbox::forget, Mailbox::close];
        for end in ends {
            mailbox.publish(FrameBuffer::new());
            assert!(!mailbox.wait_until_taken(Duration::ZERO));
            let waiting = Arc::clone(&mailbox);
            let waiting =
                std::thread::spawn(move || waiting.wait_until_taken(Duration::from_secs(3600)));
            // It waits by then, or has nothing to wait for: woken it is either way.
            std::thread::sleep(Duration::from_millis(20));
            end(&mailbox);
            let deadline = Instant::now() + Duration::from_secs(60);
            while !waiting.is_finished() {
                assert!(Instant::now() < deadline, "it still waits");
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(waiting.join().expect("no panic"));
        }
    }

    #[test]
    fn a_reader_is_woken_by_a_picture_and_by_the_end() {
        let mailbox = Arc::new(Mailbox::new(2));
        let reader = |mailbox: &Arc<Mailbox>| {
            let mailbox = mailbox.clone();
            std::thread::spawn(move || mailbox.receive(Duration::from_secs(20)).map(|b| b.sequence))
        };
        let waiting = reader(&mailbox);
        mailbox.publish(numbered(&mailbox, 7));
        assert_eq!(waiting.join().expect("no panic"), Some(7));
        let waiting = reader(&mailbox);
        mailbox.close();
        assert_eq!(waiting.join().expect("no panic"), None);
    }
}
