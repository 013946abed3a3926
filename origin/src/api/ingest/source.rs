//! A declared source, as ingest uses it.

use std::time::Duration;

use millpond_shared::template::Template;

/// A producer of events.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub name: String,
    /// URL path that takes its events.
    pub path: String,
    pub shape: Shape,
    /// Type of its events.
    pub kind: Template,
    pub id: IdRule,
    /// When an event happened; `None`: the member `time`, else when it was taken.
    pub time: Option<Template>,
    /// `None`: the member `subject`, if there is one.
    pub subject: Option<Template>,
    /// What keeps events in order; `None`: nothing does.
    pub partition: Option<Template>,
    /// How long a repeated id is recognised.
    pub window: Duration,
    /// Largest body of one request, in bytes.
    pub body_max: u64,
}

/// What is POSTed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Objects with the members of CloudEvents: `id`, `type`, `subject`, `time`, `data`.
    Event,
    /// Objects that are the payload themselves.
    Data,
}

/// Where the id of an event comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum IdRule {
    /// The member `id`; a random one where there is none.
    Member,
    /// Always a random one.
    Assigned,
    /// The first 16 bytes of the SHA-256 of the element as it was sent, in hexadecimal.
    Hash,
    Template(Template),
}
