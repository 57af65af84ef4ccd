//! A picture's memory on loan from the mailbox: it goes back even when its user panics.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use camera::mailbox::Mailbox;
use frame::FrameBuffer;

/// A buffer that returns to its mailbox when dropped.
pub struct Taken<'a> {
    mailbox: &'a Mailbox,
    /// Present until dropped or published.
    buffer: Option<FrameBuffer>,
}

impl<'a> Taken<'a> {
    /// Memory for a new picture, if some is free.
    pub fn free(mailbox: &'a Mailbox) -> Option<Taken<'a>> {
        mailbox.take_free().map(|buffer| Taken { mailbox, buffer: Some(buffer) })
    }

    /// The newest picture, waiting for one at most `timeout`.
    pub fn newest(mailbox: &'a Mailbox, timeout: Duration) -> Option<Taken<'a>> {
        mailbox.receive(timeout).map(|buffer| Taken { mailbox, buffer: Some(buffer) })
    }

    /// Hands the picture to whoever waits for the newest one.
    pub fn publish(mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.mailbox.publish(buffer);
        }
    }
}

const PRESENT: &str = "only `publish` and `drop` take the buffer, and both end the loan";

impl Deref for Taken<'_> {
    type Target = FrameBuffer;

    fn deref(&self) -> &FrameBuffer {
        self.buffer.as_ref().expect(PRESENT)
    }
}

impl DerefMut for Taken<'_> {
    fn deref_mut(&mut self) -> &mut FrameBuffer {
        self.buffer.as_mut().expect(PRESENT)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.mailbox.recycle(buffer);
        }
    }
}
