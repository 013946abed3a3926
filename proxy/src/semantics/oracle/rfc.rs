//! RFC 9111 read a second time: as it is written, sentence by sentence, over values instead of text. Where the RFC
//! leaves a choice, the comment says which one is ours.

use super::traffic::{Answered, Asked, Directive, Tag, Varies, Wishes};
use super::{Decision, Result};

/// A stored response with what §4.2.3 needs of its making.
#[derive(Clone, Debug)]
struct Stored {
    uri: u64,
    response: Answered,
    request_foo: Option<u64>,
    request_bar: Option<u64>,
    request_time: i64,
    response_time: i64,
    /// §4.3.5: a HEAD has shown that it is not what the origin has now.
    considered_stale: bool,
}

#[derive(Default)]
pub struct Cache {
    stored: Vec<Stored>,
}

fn has(directives: &[Directive], name: &str) -> bool {
    directives.iter().any(|(other, _)| *other == name)
}

/// §4.2.1: of several values "either the first occurrence should be used or the response should be considered stale";
/// ours is the smallest. §4.2.1, too: invalid freshness information means stale.
fn value(directives: &[Directive], name: &str) -> Option<i64> {
    let values = directives.iter().filter(|(other, _)| *other == name);
    values.map(|(_, value)| value.flatten().map_or(0, |seconds| seconds as i64)).min()
}

impl Answered {
    /// RFC 9213 §2.2: a usable targeted field is the policy, "and it MUST ignore the Cache-Control and Expires".
    fn is_targeted(&self) -> bool {
        self.targeted.as_ref().is_some_and(|targeted| !targeted.is_empty())
    }

    fn directives(&self) -> Vec<Directive> {
        if !self.is_targeted() {
            return self.control.clone().unwrap_or_default();
        }
        // RFC 9651 §3.2: of members with one name the last counts, at the place of the first.
        let all = self.targeted.clone().unwrap_or_default();
        let is_last = |at: usize, name: &str| !all.iter().skip(at + 1).any(|(other, _)| *other == name);
        all.iter().enumerate().filter(|(at, (name, _))| is_last(*at, name)).map(|(_, directive)| *directive).collect()
    }

    fn expires(&self) -> Option<Option<u64>> {
        self.expires.filter(|_| !self.is_targeted())
    }

    fn says(&self, name: &str) -> bool {
        has(&self.directives(), name)
    }

    fn states(&self, name: &str) -> Option<i64> {
        value(&self.directives(), name)
    }

    /// RFC 9110 §15.1.
    fn is_heuristically_cacheable(&self) -> bool {
        [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501].contains(&self.status)
    }

    fn has_validator(&self) -> bool {
        self.tag.is_some() || self.modified.is_some()
    }
}

impl Stored {
    fn new(asked: &Asked, response: &Answered, request_time: u64, response_time: u64) -> Stored {
        Stored {
            uri: asked.uri,
            response: response.clone(),
            request_foo: asked.foo,
            request_bar: asked.bar,
            request_time: request_time as i64,
            response_time: response_time as i64,
            considered_stale: false,
        }
    }

    fn date_value(&self) -> i64 {
        self.response.date.flatten().map_or(self.response_time, |date| date as i64)
    }

    /// §4.2.1, "using the first match".
    fn explicit_lifetime(&self) -> Option<i64> {
        if let Some(seconds) = self.response.states("s-maxage") {
            return Some(seconds);
        }
        if let Some(seconds) = self.response.states("max-age") {
            return Some(seconds);
        }
        let expires = self.response.expires()?;
        // §5.3: an invalid date is a time in the past.
        Some(expires.map_or(0, |expires| (expires as i64 - self.date_value()).max(0)))
    }

    /// §4.2.2. Ours: a tenth, and a day at most.
    fn freshness_lifetime(&self) -> i64 {
        if let Some(explicit) = self.explicit_lifetime() {
            return explicit;
        }
        let allowed = self.response.is_heuristically_cacheable() || self.response.says("public");
        let modified = self.response.modified.filter(|_| allowed);
        modified.map_or(0, |modified| ((self.date_value() - modified as i64).max(0) / 10).min(86_400))
    }

    /// §4.2.3, conservatively.
    fn current_age(&self, now: i64) -> i64 {
        let age_value = self.response.age.flatten().unwrap_or(0) as i64;
        let apparent_age = (self.response_time - self.date_value()).max(0);
        let response_delay = self.response_time - self.request_time;
        let corrected_age_value = age_value + response_delay;
        let corrected_initial_age = apparent_age.max(corrected_age_value);
        let resident_time = now - self.response_time;
        corrected_initial_age + resident_time
    }

    fn is_fresh(&self, now: i64) -> bool {
        self.freshness_lifetime() > self.current_age(now) && !self.considered_stale
    }

    fn staleness(&self, now: i64) -> i64 {
        self.current_age(now) - self.freshness_lifetime()
    }

    /// §4.2.4: "prohibited by an explicit in-protocol directive".
    fn may_not_be_stale(&self) -> bool {
        let prohibiting = ["no-cache", "must-revalidate", "proxy-revalidate", "s-maxage"];
        prohibiting.iter().any(|name| self.response.says(name))
    }

    /// §4.1.
    fn is_selected_by(&self, asked: &Asked) -> bool {
        let (foo, bar) = (self.request_foo == asked.foo, self.request_bar == asked.bar);
        match self.response.vary {
            None => true,
            Some(Varies::Foo) => foo,
            Some(Varies::Both) => foo && bar,
            Some(Varies::Anything) => false,
        }
    }

    /// RFC 9110 §13.1.2, with the weak comparison, and only for a 200 (RFC 9111 §4.3.2).
    fn is_had_by(&self, asked: &Asked) -> bool {
        let same = |ours: Tag| asked.has.is_some_and(|theirs| theirs.number == ours.number);
        self.response.status == 200 && self.response.tag.is_some_and(same)
    }
}

impl Cache {
    pub fn decide(&self, asked: &Asked, now: u64) -> Decision {
        let now = now as i64;
        // §4: "MUST write through requests with methods that are unsafe". Ours: GET and HEAD are looked up.
        if asked.method != "GET" && asked.method != "HEAD" {
            return Decision::Pass;
        }
        let wishes = &asked.wishes;
        let Some(stored) = self.chosen(asked) else { return Cache::forward(asked, None) };
        let (age, staleness) = (stored.current_age(now), stored.staleness(now));
        let send = Decision::Send { body: stored.response.body, age, had: stored.is_had_by(asked) };
        // §4: no-cache asks for validation, and so does a client's.
        if stored.response.says("no-cache") || wishes.no_cache || stored.considered_stale {
            return Cache::forward(asked, Some(stored));
        }
        // §5.2.1.1. What is stored is always a part of a second older than 0.
        if wishes.max_age.is_some_and(|most| age > most as i64 || most == 0) {
            return Cache::forward(asked, Some(stored));
        }
        if stored.is_fresh(now) {
            // §5.2.1.3.
            let lasting = wishes.min_fresh.is_none_or(|least| stored.freshness_lifetime() >= age + least as i64);
            return if lasting { send } else { Cache::forward(asked, Some(stored)) };
        }
        if stored.may_not_be_stale() || wishes.min_fresh.is_some() {
            return Cache::forward(asked, Some(stored));
        }
        // §5.2.1.2.
        let accepted = wishes.max_stale.is_some_and(|most| most.is_none_or(|most| staleness <= most as i64));
        // RFC 5861 §3, unless the client "does not wish to receive a stale response" (§5.2.1.1).
        let window = stored.response.states("stale-while-revalidate").unwrap_or(0);
        let in_window = wishes.max_age.is_none() && window > 0 && staleness <= window;
        if accepted || in_window { Decision::Refresh(Box::new(send)) } else { Cache::forward(asked, Some(stored)) }
    }

    fn forward(asked: &Asked, stored: Option<&Stored>) -> Decision {
        if asked.wishes.only_if_cached {
            return Decision::OnlyIfCached;
        }
        let mut conditions = Vec::new();
        if asked.method == "HEAD" {
            // As it came.
            conditions.extend(asked.has.map(|tag| format!("\"other\", {}", tag.text())));
        } else if let Some(stored) = stored {
            // §4.3.1: the entity tag MUST, the date SHOULD be sent.
            conditions.extend(stored.response.tag.map(|tag| tag.text()));
            conditions.extend(stored.response.modified.map(super::super::date::format));
        } else {
            // §4.3.2: "MUST NOT evaluate" where nothing is stored.
            conditions.extend(asked.has.map(|tag| format!("\"other\", {}", tag.text())));
        }
        Decision::Forward { conditions }
    }

    /// §4.1 and §4: those with a valid Vary first, then the most recent one.
    fn chosen(&self, asked: &Asked) -> Option<&Stored> {
        let answering = self.stored.iter().filter(|stored| stored.uri == asked.uri && stored.is_selected_by(asked));
        answering.max_by_key(|stored| {
            (stored.response.vary.is_some(), stored.response_time - stored.current_age(stored.response_time))
        })
    }

    fn chosen_mut(&mut self, asked: &Asked) -> Option<&mut Stored> {
        let at = {
            let chosen = self.chosen(asked)?;
            self.stored.iter().position(|stored| std::ptr::eq(stored, chosen))?
        };
        self.stored.get_mut(at)
    }

    /// §3, the list of conditions.
    fn may_store(asked: &Asked, response: &Answered, wishes: &Wishes) -> bool {
        let understood = ![299, 599].contains(&response.status);
        let must_understand = response.says("must-understand");
        let allows_sharing = ["must-revalidate", "public", "s-maxage"].iter().any(|name| response.says(name));
        asked.method == "GET"
            && !wishes.no_store
            && (!must_understand || understood)
            // §5.2.2.3: "the cache SHOULD ignore the no-store directive if it understands".
            && (!response.says("no-store") || must_understand)
            && !response.says("private")
            && (!asked.authorized || allows_sharing)
            && (response.says("public")
                || response.expires().is_some()
                || response.says("max-age")
                || response.says("s-maxage")
                || response.is_heuristically_cacheable())
    }

    /// Ours: what could never be used is not stored: neither fresh, nor stale within a window, nor to be validated. An
    /// `Expires` without a `Date` beside it is taken to lie ahead.
    fn is_useful(stored: &Stored) -> bool {
        let response = &stored.response;
        let windows = ["stale-while-revalidate", "stale-if-error"].map(|name| response.states(name).unwrap_or(0));
        let states_expires = stored.explicit_lifetime().is_some();
        let seconds = response.states("s-maxage").or(response.states("max-age"));
        let ahead = seconds.is_none() && response.date.flatten().is_none() && response.expires().flatten().is_some();
        let lifetime = stored.explicit_lifetime().unwrap_or(0);
        let lives = (lifetime > 0 || ahead) && !response.says("no-cache");
        let may_be_stale = states_expires && windows.iter().any(|window| *window > 0) && !stored.may_not_be_stale();
        response.vary != Some(Varies::Anything) && (response.has_validator() || lives || may_be_stale)
    }

    fn store(&mut self, new: Stored) {
        let same = |old: &Stored| {
            let (foo, bar) = (old.request_foo == new.request_foo, old.request_bar == new.request_bar);
            old.uri == new.uri
                && old.response.vary == new.response.vary
                && match new.response.vary {
                    Some(Varies::Foo) => foo,
                    Some(Varies::Both) => foo && bar,
                    _ => true,
                }
        };
        self.stored.retain(|old| !same(old));
        self.stored.push(new);
    }

    /// The origin's full answer to a request that had gone forward.
    pub fn answered(&mut self, asked: &Asked, response: &Answered, sent: u64, now: u64) -> Result {
        let unsafe_method = asked.method == "POST" || asked.method == "ODD";
        // §4.4: "non-error" is 2xx and 3xx.
        if unsafe_method && (200..400).contains(&response.status) {
            self.stored.retain(|stored| stored.uri != asked.uri && Some(stored.uri) != response.location);
        }
        if asked.method == "HEAD" && response.status == 200 {
            self.learn_from_head(asked, response, sent, now);
        }
        let failed = [500, 502, 503, 504].contains(&response.status);
        if failed
            && asked.method == "GET"
            && let Some(stored) = self.chosen(asked)
            && Cache::in_error_window(stored, asked, now as i64)
        {
            return Cache::stale(stored, asked, now);
        }
        let new = Stored::new(asked, response, sent, now);
        if Cache::may_store(asked, response, &asked.wishes) && Cache::is_useful(&new) {
            self.store(new);
        }
        Result::Answer { body: response.body }
    }

    /// RFC 5861 §4. A response that a HEAD has shown to be outdated is not for a client to accept.
    fn in_error_window(stored: &Stored, asked: &Asked, now: i64) -> bool {
        let by_client = asked.wishes.stale_if_error.filter(|_| !stored.considered_stale).unwrap_or(0) as i64;
        let window = stored.response.states("stale-if-error").unwrap_or(0).max(by_client);
        window > 0 && stored.staleness(now) <= window && !stored.may_not_be_stale()
    }

    fn stale(stored: &Stored, asked: &Asked, now: u64) -> Result {
        let age = stored.current_age(now as i64);
        Result::Stored { body: stored.response.body, age, had: stored.is_had_by(asked) }
    }

    /// There was no contact with the origin: the cache is disconnected (§2, §4.2.4). Ours: for a week, unless the
    /// origin names a window itself.
    pub fn disconnected(&self, asked: &Asked, now: u64) -> Result {
        let lookup = asked.method == "GET" || asked.method == "HEAD";
        let Some(stored) = self.chosen(asked).filter(|_| lookup) else { return Result::Error(502) };
        let unnamed = stored.response.states("stale-if-error").is_none() && !stored.considered_stale;
        let week = unnamed && stored.staleness(now as i64) <= 7 * 86_400 && !stored.may_not_be_stale();
        if Cache::in_error_window(stored, asked, now as i64) || week {
            return Cache::stale(stored, asked, now);
        }
        // §5.2.2.2: "the generated status code SHOULD be 504".
        let strict = ["must-revalidate", "proxy-revalidate", "s-maxage"].iter().any(|name| stored.response.says(name));
        Result::Error(if strict { 504 } else { 502 })
    }

    /// A 304 to a validation: §4.3.4. `None`: it confirms nothing that is stored.
    pub fn validated(&mut self, asked: &Asked, news: &Answered, sent: u64, now: u64) -> Option<Result> {
        let stored = self.chosen(asked)?.clone();
        let ours = &stored.response;
        let confirmed = match news.tag {
            Some(strong) if !strong.weak => ours.tag == Some(strong),
            Some(weak) => {
                let dates = news.modified.is_none() || ours.modified.is_none() || news.modified == ours.modified;
                ours.tag.is_some_and(|tag| tag.number == weak.number) && dates
            }
            None => news.modified.is_none() || news.modified == ours.modified,
        };
        if !confirmed {
            return None;
        }
        let updated = Cache::updated(&stored, asked, news, sent, now);
        let age = updated.current_age(now as i64);
        let result = Result::Stored { body: ours.body, age, had: updated.is_had_by(asked) };
        // Whether it could be stored had somebody else asked.
        let anybody = Asked { authorized: false, ..asked.clone() };
        let for_others = updated.response.vary != Some(Varies::Anything)
            && Cache::may_store(&anybody, &updated.response, &Wishes::default())
            && Cache::is_useful(&updated);
        if updated.response.vary != Some(Varies::Anything)
            && Cache::may_store(asked, &updated.response, &asked.wishes)
            && Cache::is_useful(&updated)
        {
            self.store(updated);
        } else if !for_others {
            // Ours: the 304 forbids what the stored response allowed.
            self.stored.retain(|stored| stored.uri != asked.uri);
        }
        Some(result)
    }

    /// §3.2: "MUST add each header field in the provided response to the stored response, replacing field values".
    fn updated(stored: &Stored, asked: &Asked, news: &Answered, sent: u64, now: u64) -> Stored {
        let old = stored.response.clone();
        let present = |directives: &Option<Vec<Directive>>| directives.clone().filter(|all| !all.is_empty());
        let response = Answered {
            control: present(&news.control).or(old.control),
            targeted: present(&news.targeted).or(old.targeted),
            expires: news.expires.or(old.expires),
            modified: news.modified.or(old.modified),
            tag: news.tag.or(old.tag),
            vary: news.vary.or(old.vary),
            location: news.location.or(old.location),
            // Of the old response.
            date: news.date,
            age: news.age,
            ..old
        };
        Stored::new(asked, &response, sent, now)
    }

    /// §4.3.5. The lengths are always the same here.
    fn learn_from_head(&mut self, asked: &Asked, news: &Answered, sent: u64, now: u64) {
        let Some(stored) = self.chosen(asked).cloned() else { return };
        let ours = &stored.response;
        let same_tag = news.tag.is_none() || news.tag == ours.tag;
        let same_date = news.modified.is_none() || news.modified == ours.modified;
        let updated = Cache::updated(&stored, asked, news, sent, now);
        let get = Asked { method: "GET", ..asked.clone() };
        let keep = Cache::may_store(&get, &updated.response, &asked.wishes) && Cache::is_useful(&updated);
        if ours.status == 200 && same_tag && same_date && keep {
            self.store(updated);
        } else if let Some(stored) = self.chosen_mut(asked) {
            stored.considered_stale = true;
        }
    }
}
