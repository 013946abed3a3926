//! The hot cache: one sharded, byte-budgeted store behind every way in. Holds nothing that cannot be refetched.
//!
//! `entry` is a stored response; `store` keeps them by key, least recently used out first; `tags` finds them by tag;
//! `purges` makes sure that a response fetched before a purge is not admitted after it.

mod entry;
mod purges;
mod store;
mod tags;

pub use entry::{Entry, Mark, Stamp};
pub use purges::{Purge, PurgeSeq};
pub use store::{Lookup, Mode, Purged, Store, StoreLimits};

#[cfg(test)]
mod tests;
