//! HTTP caching as decisions: RFC 9111, with RFC 9110 (preconditions, hop-by-hop fields), RFC 5861 (stale windows) and
//! RFC 9211 (`Cache-Status`), RFC 9213 (targeted directives) and RFC 9875 (groups). Pure: heads and times in, verdicts out; time is given in seconds since the Unix epoch.
//!
//! In the order of a request's walk:
//!
//! | module | decides |
//! |---|---|
//! | [`request`] | may the cache look at this request at all, and what does the client ask of it? |
//! | [`vary`] | does a stored variant belong to this request? |
//! | [`language`] | in which of the origin's languages is it answered? |
//! | [`range`] | which parts does it ask for, and which does a response hold? |
//! | [`reuse`] | may the stored response be sent now, stale or after validation only? |
//! | [`validate`] | which conditions go to the origin; does its 304 confirm ours; is the client's copy current? |
//! | [`storability`] | may this response be stored? |
//! | [`freshness`] | how old is it, how long is it fresh, how long may it be served stale? |
//! | [`failure`] | does its answer say that the origin fails, and when is it to be asked again? |
//! | [`invalidation`] | what does a POST, PUT or DELETE make invalid? |
//! | [`groups`] | which other responses does it make invalid? |
//! | [`coding`] | in which content coding of ours does it go out, and with which tag? |
//! | [`hop`] | which fields end at this hop? |
//! | [`expectation`] | what does the client wait for before it sends its body? |
//! | [`cache_status`] | how is the client told? |
//!
//! They share [`policy`] (what a rule says), [`cache_control`] and [`targeted`] (directives), [`date`] (HTTP dates),
//! `status` (what a status code implies), `negotiation` (fields whose order does not matter), `entity_tag` and `list`
//! (quoted members of a list), `structured` (RFC 9651). `oracle` reads the RFC a second time, for the tests.
//!
//! docs/CONFORMANCE.md has the requirements one by one, each with the test that holds it.

pub mod cache_control;
pub mod cache_status;
pub mod coding;
pub mod date;
mod entity_tag;
pub mod expectation;
pub mod failure;
pub mod freshness;
pub mod groups;
pub mod hop;
pub mod invalidation;
pub mod language;
mod list;
mod negotiation;
#[cfg(test)]
mod oracle;
pub mod policy;
pub mod range;
pub mod request;
pub mod reuse;
#[cfg(test)]
mod sample;
mod status;
pub mod storability;
mod structured;
pub mod targeted;
pub mod validate;
pub mod vary;
