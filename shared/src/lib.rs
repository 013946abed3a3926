//! What Millpond's proxy and origin must agree on.
//!
//! The two crates never import each other: everything that crosses from one to the other, on a socket or on a
//! disk, is declared here once. No runtime: nothing in this crate awaits or spawns.
//!
//! | module | what it holds |
//! |---|---|
//! | [`clock`] | the only place that reads a clock |
//! | [`config`] | reading TOML so that every mistake is reported at once, with its line and its fix |
//! | [`http1`] | the HTTP/1.1 codec: heads, framing, bodies, the serialiser (pure) |
//! | [`event`] | an event and the dotted paths into it |
//! | [`found`] | what stands at a path into an event, looked at where it is |
//! | [`listening`] | sockets that take connections |
//! | [`template`] | `"{data.user}"`: text with holes filled from an event |
//! | [`projection`] | the declaration of a projection: what the dispatcher routes by and the shard renders |
//! | [`route`] | from a URL to a document and back |
//! | [`shard_map`] | key → slot → shard |
//! | [`splitmix`] | numbers that follow from a seed |
//! | [`stored`] | values as bytes, on disk and on the wire |
//! | [`version`] | positions, offsets, versions |
//! | [`wanted`] | reading only those members of a payload that somebody asks for |
//! | [`wire`] | frames, the change stream, and the traits by which roles call each other |

pub mod clock;
pub mod config;
pub mod event;
pub mod found;
pub mod http1;
pub mod listening;
pub mod projection;
pub mod route;
pub mod shard_map;
pub mod splitmix;
pub mod stored;
pub mod template;
pub mod version;
pub mod wanted;
pub mod wire;
