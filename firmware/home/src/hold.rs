//! Locks of this crate.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, and goes on with what a thread left that died holding the lock: it is whole, as memory is changed only after the disk was, and as a
/// whole.
pub(crate) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
