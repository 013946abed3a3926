//! URL rules: which requests, which origin, how cached (pure). The first rule that matches wins.
//!
//! `written` mirrors the TOML, `judge` builds the [`RuleSet`] with every mistake told (`times`: what is about lifetimes),
//! `pattern` matches paths, `trust` knows whose word is taken about clients, `guarded` which fields are such words, `limit`
//! how much of a rule clients get, `languages` what its origin tells apart; `compress` and `downstream` are what becomes of
//! responses on their way to clients, `media_type` tells types of responses apart.

mod compress;
mod downstream;
pub mod guarded;
mod judge;
mod languages;
mod limit;
mod media_type;
mod pattern;
mod times;
mod trust;
mod written;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use millpond_shared::http1::{Fields, Refusal, RequestHead, normal};

pub use compress::Compress;
pub use downstream::{Downstream, Say, TagField};
pub use judge::{Known, ROLE_ORIGINS, judge};
pub use pattern::Pattern;
pub use trust::{Forwarding, Network, NoNetwork, Sender};
pub use written::{WrittenOrigin, WrittenOriginTls, WrittenRule};

use crate::limits::Limiter;
use crate::semantics::policy::Policy;

/// Longest that an origin may stay silent, before its head and between pieces of its body, unless a rule says otherwise;
/// then 504, or a cut body.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// All rules, in one immutable snapshot: a reload swaps it whole or not at all.
#[derive(Debug, Default)]
pub struct RuleSet {
    pub rules: Vec<Arc<Rule>>,
    pub paths: Paths,
    pub forwarding: Forwarding,
    /// Most bytes of a request's body; a larger one is answered 413.
    pub body_max: Option<u64>,
}

/// In which spelling a path is matched, keyed and forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paths {
    /// In its normal form ([`normal`]): no rule is passed by with another spelling of the same path.
    #[default]
    Normal,
    /// As the client wrote it.
    AsTheyCame,
}

/// One rule, judged.
#[derive(Debug)]
pub struct Rule {
    pub name: String,
    pub matches: Match,
    /// Name of the origin; scope of the rule's cache keys.
    pub origin: String,
    pub query: Query,
    pub policy: Policy,
    pub tags: Tags,
    pub bypass: Vec<Bypass>,
    /// Guarded fields that origins get all the same; a request with one of them passes by the cache.
    pub forward: Vec<String>,
    /// Media types that are stored, in lower case, `type/*` among them; empty: any.
    pub content_types: Vec<String>,
    /// The languages that the origin tells apart, its default first; empty: any.
    pub languages: Vec<String>,
    /// In which content codings responses are sent; `None`: as they come.
    pub compress: Option<Compress>,
    /// What clients are told in place of what the origin says.
    pub downstream: Downstream,
    /// Longest that the origin may stay silent.
    pub timeout: Duration,
    /// How often, and how many at a time, requests are let through.
    pub limit: Option<Arc<Limiter>>,
    /// Whether a safe request may be sent again when a pooled connection turns out to be closed.
    pub retry: bool,
}

/// Which requests a rule is for.
#[derive(Debug, Default)]
pub struct Match {
    /// Host without port, in lower case; `None`: any.
    pub host: Option<String>,
    pub path: Pattern,
    /// Empty: any.
    pub methods: Vec<Method>,
}

/// Which query parameters are part of the cache key, and thereby of what the origin is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The whole query as it came.
    AsItCame,
    /// These names, sorted; anything else is neither in the key nor forwarded.
    Only(Vec<String>),
}

/// Labels on stored responses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Response field whose list members are tags.
    pub header: Option<String>,
    /// Tags of every response of the rule.
    pub add: Vec<String>,
}

/// What in a request makes it pass by the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bypass {
    Header(String),
    Cookie(String),
    Query(String),
}

impl RuleSet {
    /// The path and query that are matched, keyed and forwarded.
    pub fn path<'a>(&self, path_and_query: &'a str) -> Result<Cow<'a, str>, Refusal> {
        match self.paths {
            Paths::Normal => normal(path_and_query),
            Paths::AsTheyCame => Ok(Cow::Borrowed(path_and_query)),
        }
    }

    /// The first rule that matches, and its place.
    pub fn find(&self, request: &RequestHead) -> Option<(usize, &Arc<Rule>)> {
        self.find_for(&request.method, request.authority.host(), path_of(request.target.path_and_query()))
    }

    pub fn find_for(&self, method: &Method, host: &str, path: &str) -> Option<(usize, &Arc<Rule>)> {
        self.rules.iter().enumerate().find(|(_, rule)| rule.matches.holds(method, host, path))
    }
}

impl RuleSet {
    /// What clients have used of a limit stays used when the rules are read again and that limit has not changed.
    pub fn keep_limits_of(&mut self, earlier: &RuleSet) {
        for rule in self.rules.iter_mut().filter_map(Arc::get_mut) {
            let before = earlier.rules.iter().find(|before| before.name == rule.name);
            let (Some(limiter), Some(before)) = (&rule.limit, before.and_then(|before| before.limit.as_ref())) else {
                continue;
            };
            if limiter.limit() == before.limit() {
                rule.limit = Some(Arc::clone(before));
            }
        }
    }
}

impl Rule {
    /// A rule for every request, with nothing set but what it must have.
    pub fn everything(name: &str, origin: &str) -> Rule {
        Rule {
            name: name.to_owned(),
            matches: Match::default(),
            origin: origin.to_owned(),
            query: Query::AsItCame,
            policy: Policy::default(),
            tags: Tags::default(),
            bypass: Vec::new(),
            forward: Vec::new(),
            content_types: Vec::new(),
            languages: Vec::new(),
            compress: None,
            downstream: Downstream::default(),
            timeout: TIMEOUT,
            limit: None,
            retry: true,
        }
    }

    /// Whether something in the request makes it pass by the cache.
    pub fn bypasses(&self, fields: &Fields, path_and_query: &str) -> bool {
        self.bypass.iter().any(|bypass| bypass.holds(fields, path_and_query))
            // What it changes at the origin is not in the key.
            || self.forward.iter().any(|name| fields.contains(name))
    }

    /// Whether a request's `Accept-Language` is reduced to one of the origin's languages.
    pub fn reduces(&self, fields: &Fields) -> bool {
        !self.languages.is_empty() && fields.contains("accept-language")
    }

    /// Whether the rule lets a response with this `Content-Type` be stored.
    pub fn stores(&self, content_type: Option<&[u8]>) -> bool {
        if self.content_types.is_empty() {
            return true;
        }
        media_type::is_any_of(&media_type::of(content_type), &self.content_types)
    }
}

impl Match {
    fn holds(&self, method: &Method, host: &str, path: &str) -> bool {
        self.host.as_deref().is_none_or(|wanted| wanted == host)
            && (self.methods.is_empty() || self.methods.contains(method))
            && self.path.matches(path)
    }

    /// Whether every request that `other` matches is matched by this. May say no where the answer is yes.
    pub fn covers(&self, other: &Match) -> bool {
        (self.host.is_none() || self.host == other.host)
            && (self.methods.is_empty()
                || (!other.methods.is_empty() && other.methods.iter().all(|method| self.methods.contains(method))))
            && self.path.covers(&other.path)
    }
}

impl Bypass {
    pub fn holds(&self, fields: &Fields, path_and_query: &str) -> bool {
        match self {
            Bypass::Header(name) => fields.contains(name),
            Bypass::Cookie(name) => cookies(fields).any(|cookie| cookie == name),
            Bypass::Query(name) => parameters(path_and_query).any(|(found, _)| found == name),
        }
    }
}

/// The path of a path with query.
pub fn path_of(path_and_query: &str) -> &str {
    path_and_query.split_once('?').map_or(path_and_query, |(path, _)| path)
}

/// Query parameters as (name, whole `name=value` text), in their order.
pub fn parameters(path_and_query: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = path_and_query.split_once('?').map_or("", |(_, query)| query);
    query.split('&').filter(|text| !text.is_empty()).map(|text| (text.split_once('=').map_or(text, |(n, _)| n), text))
}

fn cookies(fields: &Fields) -> impl Iterator<Item = &str> {
    fields
        .get_all("cookie")
        .filter_map(|value| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, _)| name.trim())
}
