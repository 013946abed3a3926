//! Our decisions, put together as the gateway puts them together.

use http::Method;
use millpond_shared::http1::{Fields, FieldsBuilder, RequestHead, ResponseHead};

use super::super::freshness::{self, Times};
use super::super::policy::Policy;
use super::super::request::{self, Ask, RequestVerdict};
use super::super::reuse::{self, Reuse};
use super::super::validate::{self, Validators};
use super::super::vary::{Selection, Vary};
use super::super::{date, hop, invalidation, storability};
use super::traffic::conditions;
use super::{Decision, Result};
use crate::outcome::Reason;

struct Stored {
    path: String,
    head: ResponseHead,
    selection: Selection,
    times: Times,
    body: u64,
    /// Shown to be outdated.
    invalid: bool,
}

pub struct Subject {
    policy: Policy,
    stored: Vec<Stored>,
}

impl Subject {
    pub fn new() -> Subject {
        Subject { policy: Policy::plain_http_when_disconnected(), stored: Vec::new() }
    }

    pub fn decide(&self, head: &RequestHead, now: u64) -> Decision {
        let RequestVerdict::Lookup(ask) = request::judge(head) else { return Decision::Pass };
        let stored = self.chosen(head).map(|at| &self.stored[at]);
        let reuse =
            stored.map(|stored| reuse::judge(&stored.times, &ask, now, stored.invalid.then_some(Reason::Purged)));
        if reuse::only_if_cached(&ask, reuse.as_ref()).is_some() {
            return Decision::OnlyIfCached;
        }
        let send = |age: u64| {
            let stored = stored.expect("it was judged");
            let had = validate::not_modified(&head.fields, stored.head.status, stored.head.fields.iter());
            Decision::Send { body: stored.body, age: age as i64, had }
        };
        match reuse {
            Some(Reuse::Fresh { age }) => send(age),
            Some(Reuse::StaleRevalidate { age }) => Decision::Refresh(Box::new(send(age))),
            Some(Reuse::Validate { .. }) if !ask.head_only => {
                let mut fields = FieldsBuilder::new();
                let validators = stored.map(|stored| Validators::of(&stored.head.fields));
                validators.iter().for_each(|validators| validate::put_conditions(validators, &mut fields));
                Decision::Forward { conditions: conditions(&fields.build()) }
            }
            _ => Decision::Forward { conditions: conditions(&head.fields) },
        }
    }

    fn chosen(&self, head: &RequestHead) -> Option<usize> {
        let path = head.target.path_and_query();
        let answers = |stored: &Stored| stored.path == path && stored.selection.matches(&head.fields);
        let answering = self.stored.iter().enumerate().filter(|(_, stored)| answers(stored));
        let generated = |stored: &Stored| stored.times.received as i64 - stored.times.initial_age as i64;
        answering.max_by_key(|(_, stored)| (!stored.selection.is_none(), generated(stored))).map(|(at, _)| at)
    }

    fn ask(head: &RequestHead) -> Ask {
        match request::judge(head) {
            RequestVerdict::Lookup(ask) => ask,
            RequestVerdict::Pass(_) => Ask::plain(),
        }
    }

    fn entry(&self, head: &RequestHead, response: &ResponseHead, body: u64, sent: u64, now: u64) -> Stored {
        let selection = match Vary::of(&response.fields) {
            Vary::On(names) => Selection::of(&names, &head.fields),
            Vary::None | Vary::Any => Selection::NONE,
        };
        Stored {
            path: head.target.path_and_query().to_owned(),
            head: stored_head(response, now),
            selection,
            times: freshness::times(response, &self.policy, sent, now),
            body,
            invalid: false,
        }
    }

    fn store(&mut self, new: Stored) {
        self.stored.retain(|old| old.path != new.path || old.selection != new.selection);
        self.stored.push(new);
    }

    pub fn answered(
        &mut self,
        head: &RequestHead,
        (response, body): (&ResponseHead, u64),
        (sent, now): (u64, u64),
    ) -> Result {
        for path in invalidation::invalidated(head, "http", response) {
            self.stored.retain(|stored| stored.path != path);
        }
        let chosen = self.chosen(head);
        if head.method == Method::HEAD
            && response.status.as_u16() == 200
            && let Some(at) = chosen
        {
            self.learn_from_head(head, response, at, (sent, now));
        }
        let ask = Subject::ask(head);
        if let Some(stored) = chosen.map(|at| &self.stored[at])
            && head.method == Method::GET
            && matches!(response.status.as_u16(), 500 | 502 | 503 | 504)
        {
            let accepted = ask.directives.stale_if_error.filter(|_| !stored.invalid);
            if reuse::may_serve_on_error(&stored.times, accepted, freshness::age(&stored.times, now)) {
                return Subject::stored(stored, head, now);
            }
        }
        if storability::judge(&head.method, &ask, response, &self.policy).is_ok() {
            self.store(self.entry(head, response, body, sent, now));
        }
        Result::Answer { body }
    }

    fn stored(stored: &Stored, head: &RequestHead, now: u64) -> Result {
        let had = validate::not_modified(&head.fields, stored.head.status, stored.head.fields.iter());
        Result::Stored { body: stored.body, age: freshness::age(&stored.times, now) as i64, had }
    }

    pub fn disconnected(&self, head: &RequestHead, now: u64) -> Result {
        let RequestVerdict::Lookup(ask) = request::judge(head) else { return Result::Error(502) };
        let Some(stored) = self.chosen(head).map(|at| &self.stored[at]) else { return Result::Error(502) };
        let age = freshness::age(&stored.times, now);
        let accepted = ask.directives.stale_if_error.filter(|_| !stored.invalid);
        if reuse::may_serve_on_error(&stored.times, accepted, age)
            || (!stored.invalid && reuse::may_serve_disconnected(&stored.times, age))
        {
            return Subject::stored(stored, head, now);
        }
        Result::Error(if stored.times.must_revalidate { 504 } else { 502 })
    }

    pub fn validated(&mut self, head: &RequestHead, news: &ResponseHead, (sent, now): (u64, u64)) -> Option<Result> {
        let at = self.chosen(head)?;
        let old = &self.stored[at];
        if !validate::confirms(&old.head.fields, &news.fields) {
            return None;
        }
        let fields = validate::updated(&old.head.fields, &news.fields);
        let updated = ResponseHead { status: old.head.status, minor: old.head.minor, fields };
        let entry = self.entry(head, &updated, old.body, sent, now);
        let result = Subject::stored(&entry, head, now);
        match storability::judge(&head.method, &Subject::ask(head), &updated, &self.policy) {
            Ok(()) => self.store(entry),
            Err(_) if storability::judge(&Method::GET, &Ask::plain(), &updated, &self.policy).is_ok() => {}
            Err(_) => self.stored.retain(|stored| stored.path != head.target.path_and_query()),
        }
        Some(result)
    }

    fn learn_from_head(&mut self, head: &RequestHead, news: &ResponseHead, at: usize, (sent, now): (u64, u64)) {
        let old = &self.stored[at];
        let confirmed = old.head.status == news.status && validate::head_confirms(&old.head.fields, 4, &news.fields);
        let fields = validate::updated(&old.head.fields, &news.fields);
        let updated = ResponseHead { status: old.head.status, minor: old.head.minor, fields };
        let entry = self.entry(head, &updated, old.body, sent, now);
        let ask = Ask { head_only: false, ..Subject::ask(head) };
        if confirmed && storability::judge(&Method::GET, &ask, &updated, &self.policy).is_ok() {
            self.store(entry);
        } else {
            self.stored[at].invalid = true;
        }
    }
}

/// The fields that are stored: without `Age`, and with a `Date`.
fn stored_head(response: &ResponseHead, now: u64) -> ResponseHead {
    let has_date = response.fields.get("date").is_some_and(|value| date::parse(value).is_some());
    let goes = |name: &str| name.eq_ignore_ascii_case("age") || (!has_date && name.eq_ignore_ascii_case("date"));
    let mut fields: Vec<(String, Vec<u8>)> = hop::end_to_end(&response.fields)
        .filter(|(name, _)| !goes(name))
        .map(|(name, value)| (name.to_owned(), value.to_vec()))
        .collect();
    if !has_date {
        fields.push(("Date".to_owned(), date::format(now).into_bytes()));
    }
    let fields: Fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    ResponseHead { status: response.status, minor: response.minor, fields }
}
