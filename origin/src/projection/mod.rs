//! Applying events to documents (pure).
//!
//! `item` renders an event once, by the declaration's templates; `items` keeps the newest by (order, id); `state` is what
//! the shard knows of a kind; `document` is a key's state with its version.
//! The same set of events gives the same items, byte for byte, in whatever order they arrive.

mod document;
mod item;
mod items;
mod state;
#[cfg(test)]
pub(crate) mod testing;

pub use document::{Applied, Arrival, Document};
pub use item::{Item, Unordered};
pub use items::Items;
pub use state::{Effect, KeyState, keep_of};
