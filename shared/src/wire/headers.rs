//! Fields that the roles exchange beside those of HTTP.

/// Answer of a shard: version of the document, `epoch-position`.
pub const VERSION: &str = "millpond-version";
/// Answer of a shard: position it had applied when it rendered the document.
pub const POSITION: &str = "millpond-position";
/// Answer of a shard: its number.
pub const SHARD: &str = "millpond-shard";
/// Answer of a shard that was started again and has not caught up, or that is asked for [`NEWEST`] and is not: how many
/// positions it has still to apply, or `unknown` while it can't reach its queue. The document may be older than one that was given before; the answer must not be stored.
pub const BEHIND: &str = "millpond-behind";
/// Answer of a shard: for how many milliseconds a copy of it may be used though its document changes, as long as nobody
/// was given a newer version.
pub const REFRESH: &str = "millpond-refresh";
/// Request to a shard: the least position it must have applied before it answers. Behind it, it waits briefly or
/// answers 503.
pub const LEAST_POSITION: &str = "millpond-least-position";
/// Request to a shard, of a proxy that does not know how far documents had come before it was started: the answer shall be
/// as new as what the shard's queue holds now, or say that it is not ([`BEHIND`]). Its value is not looked at.
/// Answer to that: the position at which the queue ended. Missing where the shard could not find out.
pub const NEWEST: &str = "millpond-newest";
/// Request to a shard: version of the shard map by which it is asked; it waits briefly to hear of it. Answer of a shard
/// that does not own the document (421): the version by which it does not. Answer to [`NEWEST`]: the version that held.
pub const MAP_VERSION: &str = "millpond-map-version";
/// Answer of a shard: tag of the document, `projection/key`. Of a document that was merged when it was read, a list: the
/// document's own tag comes first, and then one for each part that it was rendered from, as the change stream names it;
/// `home/ann, posts/3*, posts/3*bob`. [`VERSION`] is the greatest of all of them then, which are positions in one
/// shard's queue.
pub const CACHE_TAG: &str = "cache-tag";
/// Most tags of parts that an answer names; one that is merged from more must not be stored.
pub const PARTS_MAX: usize = 64;

/// Path of a shard server's change stream: `/_millpond/shards/SHARD/changes[?after=POSITION]`.
pub fn changes_path(shard: crate::version::ShardId, after: Option<u64>) -> String {
    match after {
        Some(after) => format!("/_millpond/shards/{shard}/changes?after={after}"),
        None => format!("/_millpond/shards/{shard}/changes"),
    }
}
