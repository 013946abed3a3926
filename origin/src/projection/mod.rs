//! Applying events to documents (pure).
//!
//! `state` is what the shard knows of a kind: effects, made from events before anything is locked, and the state of one
//! key, which takes them. `document` is a key's state with its version.
//!
//! | kind | state |
//! |---|---|
//! | `feed`, `latest` | `items`: the newest by (order, id), each rendered once by `item` |
//! | `feed` with `remove_on` | `removable` |
//! | `feed` that a `home` gathers from | `followed`: `items`, and the home feeds that follow (`followers`); of a great one each shard has an `excerpt` |
//! | `home` | `home`: `edges`, and items of the feeds that they point to; `hop` is what the two tell each other |
//! | `edges` | `edges`: one item for each they point to |
//! | `counter` | `counter`: `numbers` by window of time (`series`); `decimal` and `distinct` are what they consist of |
//! | `group` | `group`: the same by member |
//!
//! `before` is where a page of a document that lists items begins; `packing` makes stored states smaller.
//!
//! The same set of events gives the same state, byte for byte, in whatever order they arrive.

mod before;
mod counter;
mod decimal;
mod distinct;
mod document;
mod edges;
mod excerpt;
mod followed;
mod followers;
mod group;
mod home;
mod hop;
mod item;
mod items;
mod numbers;
mod packing;
mod removable;
mod series;
mod state;
#[cfg(test)]
pub(crate) mod testing;

pub use before::{Before, NoCursor};
pub use counter::Counter;
pub use decimal::Decimal;
pub use document::{Applied, Arrival, Document};
pub use edges::Edges;
pub use excerpt::{GREAT_FEEDS, excerpt_key, is_part};
pub use followed::Followed;
pub use followers::{Cursor, Followers};
pub use group::{Group, Members, Ranked};
pub use home::Home;
pub use hop::{Audience, Follow, Hop, News, Told, addressees, is_hop};
pub use item::{Item, Unordered};
pub use items::Items;
pub use numbers::{Measured, Numbers};
pub use packing::Packer;
pub use removable::Removable;
pub use series::Series;
pub use state::{Effect, KeyState, keep_of};
