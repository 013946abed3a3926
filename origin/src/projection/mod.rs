//! Applying events to documents (pure).
//!
//! `item` renders an event once, by the declaration's templates; `document` keeps the newest items by (order, id).
//! The same set of events gives the same items, byte for byte, in whatever order they arrive.

mod document;
mod item;
#[cfg(test)]
pub(crate) mod testing;

pub use document::{Arrival, Document, keep_of};
pub use item::{Item, Unordered};
