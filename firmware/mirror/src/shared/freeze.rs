//! Whoever waits for the next picture, to correct it.

use std::sync::Mutex;

use tokio::sync::oneshot;

use crate::parsed::Parsed;
use crate::shared::lock;

/// At most one.
#[derive(Default)]
pub struct Freeze(Mutex<Option<oneshot::Sender<Parsed>>>);

impl Freeze {
    /// Asks for the next picture with its parsing; `None` while somebody else waits for it.
    pub fn ask(&self) -> Option<oneshot::Receiver<Parsed>> {
        let mut waiting = lock(&self.0);
        if is_awaited(&waiting) {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        *waiting = Some(sender);
        Some(receiver)
    }

    /// Whether somebody waits.
    pub fn is_asked(&self) -> bool {
        is_awaited(&lock(&self.0))
    }

    /// Whoever waits, if a picture `may_show`.
    pub fn take(&self, may_show: impl FnOnce() -> bool) -> Option<oneshot::Sender<Parsed>> {
        lock(&self.0).take_if(|_| may_show()).filter(|waiting| !waiting.is_closed())
    }

    /// Lets nobody wait any more.
    pub fn forget(&self) {
        *lock(&self.0) = None;
    }
}

/// Whoever asked may have gone away.
fn is_awaited(waiting: &Option<oneshot::Sender<Parsed>>) -> bool {
    waiting.as_ref().is_some_and(|waiting| !waiting.is_closed())
}
