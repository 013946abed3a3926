//! What a shard has of great feeds: feeds with more followers than they tell one by one (pure).
//!
//! A great feed tells each shard of every new item, once. There the item gets into an **excerpt**: a document of the
//! feed's projection under a key of its own, with as many of the newest items as a home feed keeps. Home feeds of that
//! shard are merged with it when they are read. Another document of each shard lists the great feeds, so that it is known
//! which excerpts there are, or will be: while slots move, one may be listed before its excerpt is there.
//!
//! Whoever comes to follow a great feed is told of its newest items, as by any other feed. So an excerpt need not have
//! what was posted before there was one: what a home feed was told and what excerpts hold overlap, or join, and the
//! newest of both together are the newest of all.

use super::Item;

/// Key of the list of great feeds. Keys of documents are percent-encoded: none has an asterisk.
pub const GREAT_FEEDS: &str = "*";

/// Key of the excerpt of the feed with this key.
pub fn excerpt_key(feed: &str) -> String {
    [GREAT_FEEDS, feed].concat()
}

/// Whether what has this key is no document of the key's slot, but a part of others that each shard has for itself.
pub fn is_part(key: &str) -> bool {
    key.starts_with(GREAT_FEEDS)
}

/// `order` of all that the list of great feeds has.
pub(super) const LISTED_ORDER: i64 = 0;

/// What the list of great feeds has of one.
pub(super) fn listed(feed: &str) -> Item {
    Item::new(LISTED_ORDER, feed, "")
}
