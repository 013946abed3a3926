//! The hot cache: one sharded, byte-budgeted store behind every way in. Holds nothing that cannot be refetched.
//!
//! | module | what it is |
//! |---|---|
//! | `entry`, `head` | a stored response; its serialised head |
//! | `original` | what the origin said where clients are told something else |
//! | `forms` | the response in content codings, beside it |
//! | `part` | which bytes an incomplete one holds |
//! | `stamp` | which document it is, and what that was merged from |
//! | `slot`, `shard` | one key with its variants; a part of the map, behind one lock |
//! | `store` | look-ups and admission: the walk of an entry |
//! | `charge`, `budget` | what an entry costs; the bytes that all may take, bodies on their way in included |
//! | `eviction` | who goes when room is needed |
//! | `sweep` | takes out what is of no use any more, a little at a time |
//! | `purge`, `tags`, `purges` | removes and marks; finds by tag; makes sure that a response fetched before a purge is not admitted after it |
//! | `counts` | what the metrics tell |
//! | `replay` | a trace of requests through the store, without an origin |

mod budget;
mod charge;
mod counts;
mod entry;
mod eviction;
mod forms;
mod head;
mod original;
mod padded;
mod part;
mod purge;
mod purges;
mod replay;
mod shard;
mod slot;
mod stamp;
mod store;
mod sweep;
mod tags;

pub use budget::Reservation;
pub use charge::{Charge, Overhead};
pub use counts::Cause;
pub use entry::{Entry, Mark};
pub use eviction::EvictionPolicy;
pub use forms::{Form, Forms};
pub use original::Original;
pub use part::Part;
pub use purge::{Mode, Purged};
pub use purges::{Purge, PurgeSeq};
pub use replay::{Replay, Reply, Request, TimeToLive};
pub use stamp::{PartTags, Stamp};
pub use store::{Lookup, Store, StoreLayout, StoreLimits};
pub use sweep::keep_swept;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
