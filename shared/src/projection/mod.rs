//! Projections, declared: what the dispatcher routes by, the shard applies and renders, the proxy addresses (pure).
//!
//! `written` mirrors the TOML; `judge` builds [`Projection`]s from it; `filter` is the `where`; `measures` is what
//! counters and groups keep; `output` the rendered forms.

mod filter;
mod judge;
mod measures;
mod output;
mod written;

pub use filter::{Bound, Condition, Filter, Limit, Side};
pub use judge::{Templates, judge};
pub use measures::{Counting, Grouping, Measure, Measures, Span, Windows};
pub use output::{Format, Output, TemplateFile};
pub use written::WrittenProjection;

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::event::{Path, View};
use crate::template::Template;
use crate::version::ShardId;

/// A declared derivation of documents from events.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    pub name: String,
    pub kind: Kind,
    pub filter: Filter,
    /// Names the document an event belongs to.
    pub key: Template,
    /// What items sort by; the event's time unless declared.
    pub order: Option<Template>,
    /// Fields of an item (`feed`, `edges`) or of the document (`latest`), in the order of their names; none for other kinds.
    pub item: Vec<(String, Template)>,
    /// Title of the document; `{key}` stands for its key in plain text.
    pub title: String,
    /// Scheme and host that clients reach the outputs at, without a slash behind.
    pub site: Option<String>,
    /// How long a proxy may go on using what it has fetched of a document that has changed since, so that it fetches and
    /// the shard renders no oftener.
    pub refresh: Option<Duration>,
    pub outputs: Vec<Output>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// The newest `keep` items by (order, id), without those that were removed.
    Feed { keep: usize, removal: Option<Removal> },
    /// The same without removals, told to the home feeds that follow it.
    Followed(Followed),
    /// The newest items of all feeds that a key follows.
    Home(Gathering),
    /// The item with the greatest (order, id).
    Latest,
    /// Whom the key points to, each once.
    Edges(Pointing),
    /// Numbers by window of time.
    Counter(Counting),
    /// Numbers by window of time and member.
    Group(Grouping),
}

/// What an `edges` keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Pointing {
    /// Whom an edge points to. An event that does not say is left out.
    pub to: Template,
    /// Which events remove their edge.
    pub removal: Option<Filter>,
    /// The newest so many edges have a place, removed ones too.
    pub keep: usize,
}

/// A feed that a `home` gathers from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The newest so many items are kept.
    pub keep: usize,
    /// Name of the `home`.
    pub home: String,
    /// How many of the newest items a key is told that comes to follow: as many as it keeps.
    pub told: usize,
    /// Most followers that it tells one by one. With more it is a great feed: it tells shards, and is merged at read.
    pub fanout_max: usize,
}

/// What a `home` gathers.
#[derive(Clone, Debug, PartialEq)]
pub struct Gathering {
    /// The newest so many items are kept.
    pub keep: usize,
    /// Name of the projection whose feeds are followed.
    pub feed: String,
    /// The edges, as they are declared: `to` names the feeds.
    pub pointing: Pointing,
    /// Most followers that a feed tells one by one.
    pub fanout_max: usize,
}

/// Which events take items out of a feed.
#[derive(Clone, Debug, PartialEq)]
pub struct Removal {
    pub filter: Filter,
    /// The `id` of the item that is to go.
    pub id: Template,
    /// How many removals a feed remembers.
    pub keep: usize,
}

impl Kind {
    pub fn as_str(&self) -> &'static str {
        match self {
            Kind::Feed { .. } | Kind::Followed(_) => "feed",
            Kind::Home(_) => "home",
            Kind::Latest => "latest",
            Kind::Edges(_) => "edges",
            Kind::Counter(_) => "counter",
            Kind::Group(_) => "group",
        }
    }

    /// Most items that a document lists; `None` for kinds whose documents are no lists.
    pub fn lists(&self) -> Option<usize> {
        match self {
            Kind::Feed { keep, .. } => Some(*keep),
            Kind::Followed(followed) => Some(followed.keep),
            Kind::Home(gathering) => Some(gathering.keep),
            Kind::Edges(pointing) => Some(pointing.keep),
            Kind::Latest | Kind::Counter(_) | Kind::Group(_) => None,
        }
    }
}

impl Projection {
    /// Key of the document the event belongs to; `None` where neither `where` nor that of `remove_on` holds, no key can be
    /// built, or an edge points to nobody.
    pub fn route(&self, view: &View<'_>) -> Option<String> {
        if !self.filter.holds(view) && !self.removes(view) {
            return None;
        }
        let points = match &self.kind {
            Kind::Edges(pointing) => pointing.to.text(view).is_ok_and(|to| !to.is_empty()),
            Kind::Home(gathering) => gathering.pointing.to.key(view).is_some(),
            _ => true,
        };
        if points { self.key.key(view) } else { None }
    }

    /// Whether the event takes an item out of a feed, or an edge away.
    pub fn removes(&self, view: &View<'_>) -> bool {
        let removal = match &self.kind {
            Kind::Feed { removal, .. } => removal.as_ref().map(|removal| &removal.filter),
            Kind::Edges(pointing) => pointing.removal.as_ref(),
            Kind::Home(gathering) => gathering.pointing.removal.as_ref(),
            Kind::Followed(_) | Kind::Latest | Kind::Counter(_) | Kind::Group(_) => None,
        };
        removal.is_some_and(|filter| filter.holds(view))
    }

    /// Every path that [`Projection::route`] looks at.
    pub fn route_paths(&self) -> Vec<&Path> {
        let mut paths: Vec<&Path> = self.filter.paths().chain(self.key.paths()).collect();
        match &self.kind {
            Kind::Feed { removal, .. } => paths.extend(removal.iter().flat_map(|removal| removal.filter.paths())),
            Kind::Edges(pointing) | Kind::Home(Gathering { pointing, .. }) => {
                paths.extend(pointing.to.paths().chain(pointing.removal.iter().flat_map(Filter::paths)));
            }
            Kind::Followed(_) | Kind::Latest | Kind::Counter(_) | Kind::Group(_) => {}
        }
        paths
    }

    /// Every path that the state of a document is made from.
    pub fn paths(&self) -> Vec<&Path> {
        let mut paths: Vec<&Path> = self.order.iter().flat_map(Template::paths).collect();
        paths.extend(self.item.iter().flat_map(|(_, template)| template.paths()));
        match &self.kind {
            Kind::Feed { removal: Some(removal), .. } => paths.extend(removal.filter.paths().chain(removal.id.paths())),
            Kind::Feed { removal: None, .. } | Kind::Followed(_) | Kind::Latest => {}
            Kind::Edges(Pointing { to, removal, .. })
            | Kind::Home(Gathering { pointing: Pointing { to, removal, .. }, .. }) => {
                paths.extend(to.paths().chain(removal.iter().flat_map(Filter::paths)));
            }
            Kind::Counter(counting) => paths.extend(counting.measures.paths()),
            Kind::Group(grouping) => paths.extend(grouping.counting.measures.paths().chain(&grouping.by)),
        }
        paths
    }

    /// Number that changes with everything that changes the stored state: kind, `where`, key, order, item, and what the
    /// kind keeps.
    ///
    /// A store records it; state of one declaration is never mixed with that of another.
    pub fn state_fingerprint(&self) -> u64 {
        let (keep, more) = match &self.kind {
            Kind::Feed { keep, removal: None } => (*keep, String::new()),
            Kind::Feed { keep, removal: Some(removal) } => (*keep, format!("{removal:?}")),
            Kind::Followed(Followed { keep, home, .. }) => (*keep, format!("followed by {home}")),
            Kind::Home(Gathering { keep, feed, pointing, .. }) => (*keep, format!("{feed} {pointing:?}")),
            Kind::Latest => (1, String::new()),
            Kind::Edges(Pointing { to, removal, keep }) => (*keep, format!("{to:?} {removal:?}")),
            Kind::Counter(counting) => (0, format!("{counting:?}")),
            // What of it is listed, and in which order, is a matter of the outputs.
            Kind::Group(Grouping { counting, by, members, .. }) => (0, format!("{counting:?} {by:?} {members}")),
        };
        let parts = (self.kind.as_str(), keep, &self.filter, &self.key, &self.order, &self.item);
        xxh3_64(format!("1 {parts:?}{more}").as_bytes())
    }

    /// Number that changes with everything that changes the bytes of an output, the state's fingerprint included.
    ///
    /// Part of every `ETag`, so that a changed declaration never passes for an unchanged document.
    pub fn output_fingerprint(&self, output: &Output) -> u64 {
        let listed = match &self.kind {
            Kind::Group(grouping) => format!("{} {:?}", grouping.top, grouping.rank),
            _ => String::new(),
        };
        let page = output.page.map(|page| format!(" in pages of {page}")).unwrap_or_default();
        let parts = (self.state_fingerprint(), &self.name, &self.title, &output.format, output.path.as_str());
        xxh3_64(format!("1 {parts:?} {:?} {listed}{page}", self.site).as_bytes())
    }
}

/// Tag of the document on every output and page: `projection/key`.
pub fn document_tag(projection: &str, key: &str) -> String {
    [projection, "/", key].concat()
}

/// Tag of what one shard has for the documents that it merges at read: each shard has its own of the same key.
pub fn part_tag(shard: ShardId, projection: &str, key: &str) -> String {
    format!("{projection}/{shard}{key}")
}
