//! What devices and the fleet agree on, without any I/O.
//!
//! The class list ([`taxonomy`]) is shared by every message and file: a model manifest, a parsing and a colour all
//! speak of the same sixteen parts in the same order.

pub mod taxonomy;

pub use taxonomy::{Part, PppClass};
