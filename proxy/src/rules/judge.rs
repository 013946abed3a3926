//! From what was written to a [`RuleSet`], with every mistake told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::{HeaderName, Method};
use millpond_shared::config::{At, Complaints};
use millpond_shared::http1::normal;

use super::guarded::{WRITTEN, is_guarded};
use super::written::{MatchTable, WrittenCookies, WrittenMatch};
use super::{Bypass, Match, Paths, Query, Rule, RuleSet, Tags, WrittenRule, limit, media_type};
use crate::limits::Limiter;
use crate::semantics::policy::{ClientDirectives, Cookies, Policy};

/// What rules may refer to.
#[derive(Debug, Default)]
pub struct Known {
    /// Names of origins: `shards` and `ingest` where the configuration has them, and those of `[origin.NAME]` with
    /// the place they are declared at.
    pub origins: BTreeMap<String, std::ops::Range<usize>>,
}

/// Names that are no `[origin.NAME]` but roles.
pub const ROLE_ORIGINS: [&str; 2] = ["shards", "ingest"];

pub fn judge(written: &[At<WrittenRule>], known: &Known, complaints: &mut Complaints) -> RuleSet {
    let mut rules: Vec<(usize, Rule)> = Vec::new();
    for (index, at) in written.iter().enumerate() {
        let mut judge = Judge { field: format!("rule[{index}]"), at, known, complaints };
        let Some(rule) = judge.rule(index) else { continue };
        if let Some((earlier, _)) = rules.iter().find(|(_, earlier)| earlier.matches.covers(&rule.matches)) {
            let problem = format!("can never match: rule[{earlier}] takes every request it is for");
            judge.wrong("match", judge.match_span(), problem, "move it before that rule, or narrow that rule");
        }
        if let Some((earlier, _)) = rules.iter().find(|(_, earlier)| earlier.name == rule.name) {
            let span = at.value.name.as_ref().map_or_else(|| judge.span(), |name| name.span.clone());
            judge.wrong("name", span, format!("rule[{earlier}] has the same name"), "give it its own name");
        }
        rules.push((index, rule));
    }
    let used: BTreeSet<&str> = rules.iter().map(|(_, rule)| rule.origin.as_str()).collect();
    let unused = known.origins.iter().filter(|(name, _)| !ROLE_ORIGINS.contains(&name.as_str()));
    for (name, span) in unused.filter(|(name, _)| rules.len() == written.len() && !used.contains(name.as_str())) {
        let problem = "no rule sends requests here";
        complaints.add(
            span.clone(),
            format!("origin.{name}"),
            problem,
            "name it as the origin of a rule, or remove it",
        );
    }
    let rules = rules.into_iter().map(|(_, rule)| Arc::new(rule)).collect();
    RuleSet { rules, paths: Paths::Normal, ..RuleSet::default() }
}

pub(super) struct Judge<'a> {
    field: String,
    pub(super) at: &'a At<WrittenRule>,
    known: &'a Known,
    complaints: &'a mut Complaints,
}

pub(super) type Span = std::ops::Range<usize>;

impl Judge<'_> {
    pub(super) fn wrong(&mut self, field: &str, span: Span, problem: impl Into<String>, fix: impl Into<String>) {
        self.complaints.add(span, format!("{}.{field}", self.field), problem, fix);
    }

    /// First byte of the rule: the place of what is missing.
    fn span(&self) -> Span {
        self.at.span.start..self.at.span.start + 1
    }

    fn match_span(&self) -> Span {
        self.at.value.matches.as_ref().map_or_else(|| self.span(), |matches| matches.span.clone())
    }

    fn rule(&mut self, index: usize) -> Option<Rule> {
        let written = &self.at.value;
        let matches = self.matches();
        let origin = self.origin();
        let query = self.query();
        let (stale, failures) = (self.stale(), self.failures());
        let (client, cookies) = (self.client(), self.cookies());
        let policy = Policy { ttl: self.ttl(), stale, failures, cookies, client, ..Policy::default() };
        let tags = self.tags();
        let bypass = self.bypass();
        let (forward, content_types, timeout) = (self.forward(), self.content_types(), self.timeout());
        let (languages, compress, downstream) = (self.languages(), self.compress(), self.downstream());
        let limit = written.limit.as_ref().and_then(|at| limit::judge(&self.field, at, self.complaints));
        let limit = limit.map(|limit| Arc::new(Limiter::new(limit)));
        let name = written.name.as_ref().map_or_else(|| format!("rule-{index}"), |name| name.value.clone());
        if let Some(at) = written.name.as_ref().filter(|name| !is_name(&name.value)) {
            self.wrong("name", at.span.clone(), format!("`{name}` is no name"), "use letters, digits, - and _");
        }
        let matches = matches?;
        self.no_effect_on_unsafe_methods(&matches);
        let rule = Rule::everything(&name, &origin?);
        Some(Rule {
            matches,
            query,
            policy,
            tags,
            bypass,
            forward,
            content_types,
            languages,
            compress,
            downstream,
            limit,
            timeout,
            ..rule
        })
    }

    /// `None` if any part of it is wrong: the rest would match something else than what is meant.
    fn matches(&mut self) -> Option<Match> {
        let before = self.complaints.len();
        let Some(written) = &self.at.value.matches else {
            let fix = "say which requests it is for, as in match = \"/api/**\"";
            self.wrong("match", self.span(), "is missing", fix);
            return None;
        };
        let table = match &written.value {
            WrittenMatch::Path(path) => &MatchTable {
                path: Some(At { value: path.clone(), span: written.span.clone() }),
                ..MatchTable::default()
            },
            WrittenMatch::Table(table) => table,
        };
        let mut matches = Match::default();
        if let Some(path) = &table.path {
            match path.value.parse() {
                Ok(_) if normal(&path.value).as_deref() != Ok(path.value.as_str()) => {
                    let problem = format!("`{}` can never match: paths are matched in their normal form", path.value);
                    let fix = match normal(&path.value) {
                        Ok(normal) => format!("write \"{normal}\""),
                        Err(_) => "write % as %25".to_owned(),
                    };
                    self.wrong("match.path", path.span.clone(), problem, fix);
                    return None;
                }
                Ok(pattern) => matches.path = pattern,
                Err(problem) => {
                    self.wrong("match.path", path.span.clone(), problem, "write a pattern as in \"/api/**\"");
                    return None;
                }
            }
        }
        if let Some(host) = &table.host {
            let parsed = millpond_shared::http1::Authority::parse(&host.value);
            let is_name = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b));
            match parsed.filter(|authority| authority.port().is_none() && is_name(authority.host())) {
                Some(authority) => matches.host = Some(authority.host().to_owned()),
                None => {
                    let problem = format!("`{}` is no host name", host.value);
                    self.wrong("match.host", host.span.clone(), problem, "write it without scheme and port");
                }
            }
        }
        for method in table.method.iter().flatten() {
            match Method::from_bytes(method.value.as_bytes()) {
                Ok(parsed) if method.value == method.value.to_ascii_uppercase() => matches.methods.push(parsed),
                _ => {
                    let problem = format!("`{}` is no method", method.value);
                    self.wrong("match.method", method.span.clone(), problem, "write it in capitals, as in \"GET\"");
                }
            }
        }
        (self.complaints.len() == before).then_some(matches)
    }

    fn origin(&mut self) -> Option<String> {
        let Some(origin) = &self.at.value.origin else {
            self.wrong("origin", self.span(), "is missing", self.naming_one());
            return None;
        };
        if !self.known.origins.contains_key(&origin.value) {
            let problem = format!("there is no origin `{}`", origin.value);
            let fix = match ROLE_ORIGINS.contains(&origin.value.as_str()) {
                true => format!("declare {} in this configuration", role_needs(&origin.value)),
                false => format!("declare [origin.{}], or {}", origin.value, self.naming_one()),
            };
            self.wrong("origin", origin.span.clone(), problem, fix);
            return None;
        }
        Some(origin.value.clone())
    }

    fn naming_one(&self) -> String {
        let names: Vec<&str> = self.known.origins.keys().map(String::as_str).collect();
        match names.as_slice() {
            [] => "declare one, as in [origin.api], and name it".to_owned(),
            names => format!("name one of: {}", names.join(", ")),
        }
    }

    fn query(&mut self) -> Query {
        let Some(key) = &self.at.value.key else { return Query::AsItCame };
        let Some(query) = &key.value.query else {
            self.wrong(
                "key",
                key.span.clone(),
                "is empty",
                "name parameters, as in { query = [\"page\"] }, or remove it",
            );
            return Query::AsItCame;
        };
        let mut names: Vec<String> = query.value.iter().map(|name| name.value.clone()).collect();
        for name in query.value.iter().filter(|name| name.value.is_empty() || name.value.contains(['&', '=', '#'])) {
            let problem = format!("`{}` is no parameter name", name.value);
            self.wrong("key.query", name.span.clone(), problem, "write the bare name, as in \"page\"");
        }
        names.sort();
        if names.windows(2).any(|pair| pair.first() == pair.last()) {
            self.wrong("key.query", query.span.clone(), "names a parameter twice", "name each once");
        }
        Query::Only(names)
    }

    /// What roles answer is the same for everybody.
    fn cookies(&self) -> Cookies {
        let is_role = |origin: &At<String>| ROLE_ORIGINS.contains(&origin.value.as_str());
        match self.at.value.cookies.as_ref().map(|cookies| cookies.value) {
            None if self.at.value.origin.as_ref().is_some_and(is_role) => Cookies::Shared,
            None | Some(WrittenCookies::Private) => Cookies::Private,
            Some(WrittenCookies::Ignore) => Cookies::Ignored,
            Some(WrittenCookies::Share) => Cookies::Shared,
        }
    }

    fn client(&mut self) -> ClientDirectives {
        let heeded = ClientDirectives::default();
        let Some(client) = &self.at.value.client else { return heeded };
        let written = &client.value;
        let judged = ClientDirectives {
            no_cache: written.no_cache.unwrap_or(heeded.no_cache),
            no_store: written.no_store.unwrap_or(heeded.no_store),
            max_age: written.max_age.unwrap_or(heeded.max_age),
            min_fresh: written.min_fresh.unwrap_or(heeded.min_fresh),
            max_stale: written.max_stale.unwrap_or(heeded.max_stale),
            stale_if_error: written.stale_if_error.unwrap_or(heeded.stale_if_error),
            only_if_cached: written.only_if_cached.unwrap_or(heeded.only_if_cached),
        };
        if judged == heeded {
            let fix = "name what is not to be heeded, as in { no_cache = false }, or remove it";
            self.wrong("client", client.span.clone(), "changes nothing: all of them are heeded anyway", fix);
        }
        judged
    }

    fn tags(&mut self) -> Tags {
        let Some(tags) = &self.at.value.tags else { return Tags::default() };
        let header = tags.value.header.as_ref();
        if let Some(header) = header.filter(|header| HeaderName::from_bytes(header.value.as_bytes()).is_err()) {
            let problem = format!("`{}` is no field name", header.value);
            self.wrong("tags.header", header.span.clone(), problem, "write it as in \"Cache-Tag\"");
        }
        let add = tags.value.add.iter().flatten();
        for tag in add
            .clone()
            .filter(|tag| tag.value.is_empty() || !tag.value.bytes().all(|b| b.is_ascii_graphic() && b != b','))
        {
            let problem = format!("`{}` is no tag", tag.value);
            self.wrong("tags.add", tag.span.clone(), problem, "use visible ASCII without commas");
        }
        let tags_built =
            Tags { header: header.map(|header| header.value.clone()), add: add.map(|tag| tag.value.clone()).collect() };
        if tags_built == Tags::default() {
            self.wrong("tags", tags.span.clone(), "is empty", "give header or add, or remove it");
        }
        tags_built
    }

    fn bypass(&mut self) -> Vec<Bypass> {
        let mut all = Vec::new();
        for written in self.at.value.bypass.iter().flatten() {
            let parsed = match written.value.split_once(':') {
                Some((_, "")) => None,
                Some(("header", name)) => {
                    HeaderName::from_bytes(name.as_bytes()).ok().map(|_| Bypass::Header(name.to_owned()))
                }
                Some(("cookie", name)) => Some(Bypass::Cookie(name.to_owned())),
                Some(("query", name)) => Some(Bypass::Query(name.to_owned())),
                _ => None,
            };
            match parsed {
                Some(bypass) => {
                    self.bypass_can_work(written, &bypass);
                    all.push(bypass);
                }
                None => {
                    let problem = format!("`{}` names nothing to look for", written.value);
                    let fix = "write \"header:NAME\", \"cookie:NAME\" or \"query:NAME\"";
                    self.wrong("bypass", written.span.clone(), problem, fix);
                }
            }
        }
        all
    }

    fn forward(&mut self) -> Vec<String> {
        let Some(list) = &self.at.value.forward else { return Vec::new() };
        if list.value.is_empty() {
            self.wrong(
                "forward",
                list.span.clone(),
                "is empty",
                "name fields, as in [\"X-Original-URL\"], or remove it",
            );
        }
        let mut names: Vec<String> = Vec::new();
        for name in &list.value {
            let is = |other: &str| name.value.eq_ignore_ascii_case(other);
            let (problem, fix) = if HeaderName::from_bytes(name.value.as_bytes()).is_err() {
                ("is no field name", "write it as in \"X-Original-URL\"")
            } else if WRITTEN.into_iter().any(is) {
                ("is written by the proxy", "say whose word is taken for it in proxy.trusted")
            } else if !is_guarded(&name.value) {
                ("has no effect: the field needs no leave", "remove it")
            } else if names.iter().any(|earlier| is(earlier)) {
                ("is named twice", "name it once")
            } else {
                names.push(name.value.clone());
                continue;
            };
            self.wrong("forward", name.span.clone(), format!("`{}` {problem}", name.value), fix);
        }
        names
    }

    fn content_types(&mut self) -> Vec<String> {
        let list = self.at.value.content_type.as_ref();
        list.map_or_else(Vec::new, |list| {
            self.media_types("content_type", list, "is empty, so nothing would be stored")
        })
    }

    /// A list of patterns; `is_empty`: what is wrong where there are none.
    pub(super) fn media_types(&mut self, field: &str, list: &At<Vec<At<String>>>, is_empty: &str) -> Vec<String> {
        if list.value.is_empty() {
            let fix = "name media types, as in [\"application/json\"], or remove it";
            self.wrong(field, list.span.clone(), is_empty, fix);
        }
        let mut types: Vec<String> = Vec::new();
        for written in &list.value {
            let media_type = written.value.to_ascii_lowercase();
            let (problem, fix) = if !media_type::is_pattern(&media_type) {
                ("is no media type", "write it without parameters, as in \"application/json\" or \"image/*\"")
            } else if types.contains(&media_type) {
                ("is named twice", "name it once")
            } else {
                types.push(media_type);
                continue;
            };
            self.wrong(field, written.span.clone(), format!("`{}` {problem}", written.value), fix);
        }
        types
    }

    /// A parameter that is in the key is forwarded and told apart; bypassing on it as well is a contradiction.
    fn bypass_can_work(&mut self, written: &At<String>, bypass: &Bypass) {
        let keyed = self.at.value.key.as_ref().and_then(|key| key.value.query.as_ref());
        if let (Bypass::Query(name), Some(keyed)) = (bypass, keyed)
            && keyed.value.iter().any(|key| key.value == *name)
        {
            let problem = format!("parameter `{name}` is in the key and bypasses the cache");
            self.wrong("bypass", written.span.clone(), problem, "remove it from key.query or from bypass");
        }
    }

    /// Only answers to GET are stored.
    fn no_effect_on_unsafe_methods(&mut self, matches: &Match) {
        if matches.methods.is_empty()
            || matches.methods.contains(&Method::GET)
            || matches.methods.contains(&Method::HEAD)
        {
            return;
        }
        let written = &self.at.value;
        let settings = [
            ("ttl", written.ttl.as_ref().map(|at| at.span.clone())),
            ("stale", written.stale.as_ref().map(|at| at.span.clone())),
            ("tags", written.tags.as_ref().map(|at| at.span.clone())),
            ("cookies", written.cookies.as_ref().map(|at| at.span.clone())),
            ("client", written.client.as_ref().map(|at| at.span.clone())),
            ("bypass", written.bypass.as_ref().and_then(|list| list.first()).map(|at| at.span.clone())),
            ("content_type", written.content_type.as_ref().map(|at| at.span.clone())),
            ("downstream", written.downstream.as_ref().map(|at| at.span.clone())),
        ];
        for (field, span) in settings.into_iter().filter_map(|(field, span)| span.map(|span| (field, span))) {
            let fix = "remove it, or add GET to match.method";
            self.wrong(field, span, "has no effect: the rule matches no method whose answers are stored", fix);
        }
    }
}

fn role_needs(role: &str) -> &'static str {
    match role {
        "shards" => "[[projection]], and [shards] or the addresses of [shard_map],",
        _ => "[ingest] and [[source]]",
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.')
}
