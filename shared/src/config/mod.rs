//! Reading configuration so that every mistake is reported at once, each with file, line, field and fix.
//!
//! Two steps. [`Source::read`] turns TOML into the *written* types, which mirror the file: every field optional,
//! unknown fields refused, each value remembering where it stood ([`At`]). The crates then *judge* what was written
//! and build what is used, adding [`Complaint`]s to the same list. Nothing is opened before the list is empty.

mod at;
mod complaint;
mod reader;
mod units;

pub use at::At;
pub use complaint::{Complaint, Complaints};
pub use reader::Source;
pub use units::{Seconds, Size};
