//! A declared source, as ingest uses it.

use std::time::Duration;

use millpond_shared::template::Template;
use millpond_shared::wanted::Wanted;

use super::auth::Auth;
use super::bucket::Rate;

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
    /// Who may send.
    pub auth: Auth,
    /// How fast it may send; `None`: as fast as it is taken.
    pub rate: Option<Rate>,
}

impl Source {
    /// What it asks of the payloads of its events; `None` if nothing.
    pub fn wanted(&self) -> Option<Wanted> {
        let id = match &self.id {
            IdRule::Template(template) => Some(template),
            IdRule::Member | IdRule::Assigned | IdRule::Hash => None,
        };
        let optional = [&self.time, &self.subject, &self.partition].into_iter().flatten();
        let wanted = Wanted::of(optional.chain(id).chain([&self.kind]).flat_map(Template::paths));
        (wanted != Wanted::default()).then_some(wanted)
    }

    /// The path of its requests: what is declared, or below it the image of its impressions.
    pub fn target(&self) -> String {
        match self.auth {
            Auth::SignedUrl(_) => format!("{}/e.gif", self.path),
            Auth::None | Auth::Webhooks(_) => self.path.clone(),
        }
    }
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
