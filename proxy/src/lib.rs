//! The Shard API proxy: a caching reverse proxy on pingora-core.

pub mod outcome;
pub mod semantics;
