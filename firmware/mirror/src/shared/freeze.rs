//! Whoever waits for the next picture, to correct it.

use std::sync::Mutex;

use tokio::sync::oneshot;

use crate::parsed::Parsed;
use crate::shared::lock;

/// At most one.
#[derive(Default)]
pub struct Freeze(Mutex<Option<oneshot::Sender<Parsed>>>);

impl Freeze {
    /// Asks for the next picture with its parsing; whoever asked before gets none.
    pub fn ask(&self) -> oneshot::Receiver<Parsed> {
        let (sender, receiver) = oneshot::channel();
        *lock(&self.0) = Some(sender);
        receiver
    }

    /// Whether somebody waits.
    pub fn is_asked(&self) -> bool {
        lock(&self.0).as_ref().is_some_and(|waiting| !waiting.is_closed())
    }

    /// Whoever waits, if a picture `may_show`.
    pub fn take(&self, may_show: impl FnOnce() -> bool) -> Option<oneshot::Sender<Parsed>> {
        lock(&self.0).take_if(|_| may_show())
    }

    /// Lets nobody wait any more.
    pub fn forget(&self) {
        *lock(&self.0) = None;
    }
}
