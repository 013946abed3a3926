//! `kind`, and what each kind keeps.

use std::ops::Range;

use super::super::written::{WrittenProjection, WrittenRemoval};
use super::super::{Filter, Kind, Pointing, Removal};
use super::Judge;
use crate::config::At;
use crate::template::Template;

/// Most items a feed can be told to keep.
pub(super) const KEEP_MAX: usize = 10_000;
pub(super) const KEEP_DEFAULT: usize = 50;
/// Most edges a key can be told to keep.
const EDGES_MAX: usize = 10_000;
pub(super) const EDGES_DEFAULT: usize = 1_000;
/// Most removals a feed can be told to remember.
const REMOVALS_MAX: usize = 10_000;
const REMOVALS_DEFAULT: usize = 1_000;

/// Bytes of the configuration.
type Place = Range<usize>;

/// Where something was written.
pub(super) fn span<T>(at: &Option<At<T>>) -> Option<Place> {
    at.as_ref().map(|at| at.span.clone())
}

/// Fields that some kinds have and others don't: name, kinds that do, where it was written.
fn fields_of_kinds(written: &WrittenProjection) -> Vec<(&'static str, &'static [&'static str], Option<Place>)> {
    const ITEMS: &[&str] = &["feed", "latest", "edges"];
    const LISTS: &[&str] = &["feed", "edges"];
    const FEEDS: &[&str] = &["feed", "home", "edges"];
    const NUMBERS: &[&str] = &["counter", "group"];
    vec![
        ("order", ITEMS, span(&written.order)),
        ("item", ITEMS, span(&written.item)),
        ("keep", FEEDS, span(&written.keep)),
        ("to", &["edges"], span(&written.to)),
        ("feed", &["home"], span(&written.feed)),
        ("edges", &["home"], span(&written.edges)),
        ("fanout.max", &["home"], written.fanout.as_ref().and_then(|fanout| span(&fanout.max))),
        ("remove_on", LISTS, span(&written.remove_on)),
        ("site", FEEDS, span(&written.site)),
        ("count", NUMBERS, span(&written.count)),
        ("sum", NUMBERS, span(&written.sum)),
        ("min", NUMBERS, span(&written.min)),
        ("max", NUMBERS, span(&written.max)),
        ("distinct", NUMBERS, span(&written.distinct)),
        ("windows", NUMBERS, span(&written.windows)),
        ("by", &["group"], span(&written.by)),
        ("top", &["group"], span(&written.top)),
        ("rank", &["group"], span(&written.rank)),
        ("members", &["group"], span(&written.members)),
    ]
}

impl Judge<'_> {
    pub(super) fn kind(&mut self) -> Option<Kind> {
        let Some(kind) = &self.at.value.kind else {
            self.missing("kind", "say kind = \"feed\", \"latest\", \"edges\", \"home\", \"counter\" or \"group\"");
            return None;
        };
        let name = kind.value.as_str();
        if !["feed", "latest", "edges", "counter", "group"].contains(&name) {
            let fix = "use `feed`, `latest`, `edges`, `home`, `counter` or `group`";
            self.wrong("kind", kind, format!("`{name}` is no kind"), fix);
            return None;
        }
        self.fields_fit(name);
        match name {
            "feed" => self.feed(),
            "latest" => Some(Kind::Latest),
            "edges" => self.edges().map(Kind::Edges),
            "counter" => self.counting().map(Kind::Counter),
            _ => self.grouping().map(Kind::Group),
        }
    }

    /// Tells which fields have no effect on this kind.
    pub(super) fn fields_fit(&mut self, name: &str) {
        for (field, kinds, place) in fields_of_kinds(&self.at.value) {
            let Some(span) = place.filter(|_| !kinds.contains(&name)) else { continue };
            let problem = format!("has no effect on kind = \"{name}\"");
            let others = kinds.iter().map(|kind| format!("kind = \"{kind}\"")).collect::<Vec<_>>().join(" or ");
            self.wrong(field, &At { value: (), span }, problem, format!("remove it, or say {others}"));
        }
    }

    fn feed(&mut self) -> Option<Kind> {
        let keep = self.number("keep", self.at.value.keep.as_ref(), KEEP_DEFAULT, KEEP_MAX, "items");
        let removal = match &self.at.value.remove_on {
            None => None,
            Some(written) => Some(self.removal(written)?),
        };
        Some(Kind::Feed { keep, removal })
    }

    pub(super) fn edges(&mut self) -> Option<Pointing> {
        let keep = self.number("keep", self.at.value.keep.as_ref(), EDGES_DEFAULT, EDGES_MAX, "edges");
        let removal = self.at.value.remove_on.as_ref().map(|at| {
            for (field, span) in [("id", span(&at.value.id)), ("keep", span(&at.value.keep))] {
                let Some(span) = span else { continue };
                let problem = "has no effect on kind = \"edges\": `to` says which edge goes";
                self.wrong(&format!("remove_on.{field}"), &At { value: (), span }, problem, "remove it");
            }
            self.removing(at)
        });
        let Some(to) = &self.at.value.to else {
            self.missing("to", "say whom an edge points to, as in to = \"{data.followed}\"");
            return None;
        };
        Some(Pointing { to: self.template("to", to)?, removal, keep })
    }

    fn removal(&mut self, at: &At<WrittenRemoval>) -> Option<Removal> {
        let written = &at.value;
        let filter = self.removing(at);
        if self.at.value.item.as_ref().is_some_and(|item| !item.value.contains_key("id")) {
            let problem = "items have no id, by which one could be removed";
            self.wrong("remove_on", at, problem, "add id to `item`, as in id = \"{data.post}\"");
        }
        let keep = self.number("remove_on.keep", written.keep.as_ref(), REMOVALS_DEFAULT, REMOVALS_MAX, "removals");
        let Some(id) = &written.id else {
            self.wrong("remove_on.id", at, "is missing", "say which item goes, as in id = \"{data.post}\"");
            return None;
        };
        let id = self.template("remove_on.id", id)?;
        Some(Removal { filter, id, keep })
    }

    /// Which events remove.
    fn removing(&mut self, at: &At<WrittenRemoval>) -> Filter {
        let filter = self.filter("remove_on.where", at.value.filter.as_ref());
        if at.value.filter.as_ref().is_none_or(|filter| filter.is_empty()) {
            let fix = "say which events remove, as in where = { type = \"deleted\" }";
            self.wrong("remove_on.where", at, "is missing", fix);
        }
        filter
    }

    /// A number from 1 on.
    pub(super) fn number(
        &mut self,
        field: &str,
        written: Option<&At<usize>>,
        default: usize,
        max: usize,
        of: &str,
    ) -> usize {
        let Some(at) = written else { return default };
        if !(1..=max).contains(&at.value) {
            let verb = if ["members", "followers"].contains(&of) { "use" } else { "keep" };
            self.wrong(field, at, format!("{} is out of range", at.value), format!("{verb} 1 to {max} {of}"));
        }
        at.value
    }

    /// What items sort by, and what they hold; nothing for kinds without items.
    pub(super) fn item(&mut self) -> (Option<Template>, Option<Vec<(String, Template)>>) {
        let written = &self.at.value;
        let has_items = written.kind.as_ref().is_none_or(|kind| !["counter", "group"].contains(&kind.value.as_str()));
        if !has_items {
            return (None, Some(Vec::new()));
        }
        let order = written.order.as_ref().and_then(|order| self.template("order", order));
        let Some(item) = &written.item else {
            self.missing("item", "say what an item holds, as in item = { id = \"{id}\", title = \"{data.page}\" }");
            return (order, None);
        };
        if item.value.is_empty() {
            self.wrong("item", item, "is empty", "give it at least one field, as in { id = \"{id}\" }");
        }
        let fields: Vec<Option<(String, Template)>> = item
            .value
            .iter()
            .map(|(name, written)| Some((name.clone(), self.template(&format!("item.{name}"), written)?)))
            .collect();
        (order, fields.into_iter().collect())
    }
}
