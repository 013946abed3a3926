//! `home`: which feeds it gathers from, and which edges say so.

use std::collections::{BTreeMap, HashMap};

use super::super::written::WrittenProjection;
use super::super::{Filter, Followed, Gathering, Kind, Pointing, Projection};
use super::Judge;
use super::kind::{KEEP_DEFAULT, KEEP_MAX, span};
use crate::config::{At, Complaints};
use crate::template::Template;

/// Most followers that a feed can be told to tell one by one.
const FANOUT_MAX: usize = 1_000_000;
/// Telling so many takes about a twentieth of a second of one core.
const FANOUT_DEFAULT: usize = 10_000;

/// What a `home` has of its edges.
struct Borrowed {
    filter: Filter,
    key: Template,
    order: Option<Template>,
    pointing: Pointing,
}

impl<'j> Judge<'j> {
    pub(super) fn home(&mut self, paths: &mut HashMap<String, String>) -> Option<Projection> {
        let written = &self.at.value;
        let name = self.name();
        self.fields_fit("home");
        let conditions = written.filter.iter().flatten().next().map(|(_, at)| at.span.clone());
        for (field, place) in [("where", conditions), ("key", span(&written.key))] {
            let Some(span) = place else { continue };
            let problem = "has no effect on kind = \"home\": that of its edges counts";
            self.wrong(field, &At { value: (), span }, problem, "remove it");
        }
        let keep = self.number("keep", written.keep.as_ref(), KEEP_DEFAULT, KEEP_MAX, "items");
        let feed = self.other("feed", written.feed.as_ref(), "feed", "posts");
        let edges = self.other("edges", written.edges.as_ref(), "edges", "follows");
        if let (Some(at), Some(feed)) = (&written.feed, feed) {
            self.feed_can_be_followed(at, feed, keep);
        }
        let fanout = written.fanout.as_ref().and_then(|fanout| fanout.max.as_ref());
        let fanout_max = self.number("fanout.max", fanout, FANOUT_DEFAULT, FANOUT_MAX, "followers");
        let borrowed = edges.and_then(|edges| self.borrowed(edges));
        let outputs = self.outputs(borrowed.as_ref().map(|borrowed| &borrowed.key), paths);
        let (title, site, refresh) = (self.title(), self.site(), self.refresh());
        let Borrowed { filter, key, order, pointing } = borrowed?;
        let gathering = Gathering { keep, feed: feed?.value.name.as_ref()?.value.clone(), pointing, fanout_max };
        Some(Projection {
            name: name?,
            kind: Kind::Home(gathering),
            filter,
            key,
            order,
            item: Vec::new(),
            title,
            site,
            refresh,
            outputs: outputs?,
        })
    }

    /// The projection that a `home` names.
    fn other(
        &mut self,
        field: &str,
        written: Option<&At<String>>,
        kind: &str,
        sample: &str,
    ) -> Option<&'j At<WrittenProjection>> {
        let all = self.all;
        let Some(at) = written else {
            self.missing(field, &format!("name a projection of kind = \"{kind}\", as in {field} = \"{sample}\""));
            return None;
        };
        let is_it = |other: &&At<WrittenProjection>| {
            let has = |written: &Option<At<String>>, text: &str| written.as_ref().is_some_and(|at| at.value == text);
            has(&other.value.name, &at.value) && has(&other.value.kind, kind)
        };
        let found = all.iter().find(is_it);
        if found.is_none() {
            let problem = format!("no projection of kind = \"{kind}\" is called `{}`", at.value);
            self.wrong(field, at, problem, "declare it in this file, or name another");
        }
        found
    }

    /// The fields of the items that a `home` gathers.
    pub(super) fn followed_item(&self) -> Option<&At<BTreeMap<String, At<String>>>> {
        let name = &self.at.value.feed.as_ref()?.value;
        let is_it =
            |other: &&At<WrittenProjection>| other.value.name.as_ref().is_some_and(|other| other.value == *name);
        self.all.iter().find(is_it)?.value.item.as_ref()
    }

    fn feed_can_be_followed(&mut self, at: &At<String>, feed: &At<WrittenProjection>, keep: usize) {
        if feed.value.remove_on.is_some() {
            let problem = format!("`{}` has remove_on, of which a home feed would not hear", at.value);
            self.wrong("feed", at, problem, "remove it there, or name another feed");
        }
        let kept = feed.value.keep.as_ref().map_or(KEEP_DEFAULT, |keep| keep.value);
        if kept < keep {
            let problem = format!("`{}` keeps {kept} items, fewer than the {keep} of the home feed", at.value);
            self.wrong("feed", at, problem, format!("give it keep = {keep}"));
        }
        let is_the_same = |other: &At<WrittenProjection>| {
            let is_home = other.value.kind.as_ref().is_some_and(|kind| kind.value == "home");
            is_home && other.value.feed.as_ref().is_some_and(|feed| feed.value == at.value)
        };
        if self.all.iter().find(|other| is_the_same(other)).is_some_and(|first| first.span != self.at.span) {
            let problem = format!("another home gathers from `{}`", at.value);
            self.wrong("feed", at, problem, "declare the feed twice, each with its own name, or keep one home");
        }
    }

    /// What the edges say. Mistakes in it are told where the edges are judged themselves.
    fn borrowed(&self, edges: &At<WrittenProjection>) -> Option<Borrowed> {
        let mut complaints = Complaints::default();
        let mut judge = Judge {
            field: String::new(),
            at: edges,
            all: self.all,
            templates: self.templates,
            complaints: &mut complaints,
        };
        let filter = judge.filter("where", edges.value.filter.as_ref());
        let order = edges.value.order.as_ref().and_then(|order| judge.template("order", order));
        Some(Borrowed { filter, key: judge.key()?, order, pointing: judge.edges()? })
    }
}

/// Makes the feeds that a `home` gathers from tell it.
pub(super) fn mark_followed(projections: &mut [Projection]) {
    let home = |projection: &Projection| match &projection.kind {
        Kind::Home(gathering) => Some((projection.name.clone(), gathering.clone())),
        _ => None,
    };
    let homes: Vec<(String, Gathering)> = projections.iter().filter_map(home).collect();
    for (home, Gathering { keep: told, feed, fanout_max, .. }) in homes {
        for projection in projections.iter_mut().filter(|projection| projection.name == feed) {
            if let Kind::Feed { keep, removal: None } = projection.kind {
                projection.kind = Kind::Followed(Followed { keep, home: home.clone(), told, fanout_max });
            }
        }
    }
}
