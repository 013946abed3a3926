//! The origin roles: events in, documents out. The only crate that opens redb.
//!
//! ```text
//! POST ─▶ api::ingest ─▶ queue (event queues) ─▶ dispatch ─▶ queue (shard queues) ◀─pull─ shard ─▶ store
//!                                                                                          │ projection
//! GET  ─▶ api::documents ◀─────────────────────────────────────────────────────── render ◀─┘
//! ```
//!
//! Imports point down this list: `api` → `queue`, `dispatch`, `shard` → `store`, `database` → `projection`, `render` → shared.
//! `http` is the small server and client that every role's socket is made of.

pub mod api;
mod blocking;
pub mod config;
pub mod database;
pub mod dispatch;
pub mod http;
pub mod projection;
pub mod queue;
pub mod render;
pub mod shard;
#[cfg(test)]
mod simulation;
pub mod store;
mod timing;
