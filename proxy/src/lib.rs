//! The Shard API proxy: a caching reverse proxy on pingora-core. Holds nothing that cannot be refetched.
//!
//! A request's walk, from top to bottom; imports point down this list only:
//!
//! | module | what it does |
//! |---|---|
//! | [`front`] | accepts clients on pingora's listeners, reads requests, writes answers (HTTP/1.1, HTTP/2) |
//! | [`tls`] | certificates for clients, by server name |
//! | [`gateway`] | the walk: match, look up, join or start a flight, ask, store, answer |
//! | [`flight`] | one fetch per key, however many ask for it |
//! | [`cache`] | the store: entries by key, tags, purges, the budget |
//! | [`compress`] | bytes into content codings |
//! | [`upstreams`] | origins: servers of an existing API, shards, roles of this process |
//! | [`live`] | follows the shards' change streams |
//! | [`semantics`], [`rules`], [`key`], [`proxy_protocol`] | pure: HTTP caching as decisions; URL rules; the cache key; whose a connection is |
//! | [`limits`] | how often and how many at a time: requests by rule, connections by client |
//! | [`config`] | the `[proxy]` section |
//! | [`outcome`], [`record`], [`observe`], [`counters`] | the words for what became of a request; counts and log |

pub mod cache;
pub mod compress;
pub mod config;
pub mod counters;
pub mod flight;
pub mod front;
pub mod gateway;
pub mod key;
pub mod limits;
pub mod live;
pub mod observe;
pub mod outcome;
pub mod proxy_protocol;
pub mod record;
pub mod rules;
pub mod semantics;
pub mod tls;
pub mod upstreams;
