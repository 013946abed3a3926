//! The sections of the configuration that belong to the origin: as they are written, and judged.

pub mod auth;
pub mod databases;
pub mod engine;
pub mod place;
mod rate;
pub mod roles;
mod section;
pub mod shards;
pub mod source;
