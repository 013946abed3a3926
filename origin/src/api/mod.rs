//! What the origin roles answer on their sockets.

pub mod queues;
