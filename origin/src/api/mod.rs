//! What the origin roles answer on their sockets.

mod answers;
mod changes;
mod conditions;
mod copies;
pub mod desk;
pub mod documents;
pub mod ingest;
mod pages;
pub mod queues;
