//! The same requests told three times: in `Cache-Status`, in the metrics, in the access log. The words must agree.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::Value;

use super::client::{Connection, Request, Response};
use super::eventually;
use super::metrics::Metrics;
use super::process::{Millpond, lock};

/// Sends requests to a proxy with an admin socket and a JSON log, and remembers what the answers said.
pub struct Witness<'a> {
    pond: &'a Millpond,
    told: Mutex<Vec<Told>>,
}

/// What one answer said of itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    status: u16,
    outcome: String,
    reason: Option<String>,
}

impl Told {
    fn by_answer(answer: &Response) -> Told {
        let detail = answer.detail();
        let (outcome, reason) = detail.split_once('/').map_or((detail, None), |(outcome, why)| (outcome, Some(why)));
        Told { status: answer.status(), outcome: outcome.to_owned(), reason: reason.map(str::to_owned) }
    }

    fn by_log(line: &Value) -> Told {
        let text = |name: &str| line.get(name).and_then(Value::as_str).map(str::to_owned);
        let status = line.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
        Told { status: status.unwrap_or(0), outcome: text("outcome").unwrap_or_default(), reason: text("reason") }
    }
}

impl Witness<'_> {
    pub fn of(pond: &Millpond) -> Witness<'_> {
        Witness { pond, told: Mutex::default() }
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.ask(&Request::get(target))
    }

    #[track_caller]
    pub fn ask(&self, request: &Request) -> Response {
        self.ask_on(&mut Connection::open(self.pond.proxy()), request)
    }

    #[track_caller]
    pub fn ask_on(&self, connection: &mut Connection, request: &Request) -> Response {
        let answer = connection.ask(request);
        self.note(&answer);
        answer
    }

    /// Remembers an answer that was got in another way.
    pub fn note(&self, answer: &Response) {
        lock(&self.told).push(Told::by_answer(answer));
    }

    /// Asks until the outcome is this one; every answer before it must have been one of `meanwhile`.
    #[track_caller]
    pub fn get_until(&self, target: &str, outcome: &str, meanwhile: &[&str]) -> Response {
        eventually(&format!("{outcome} of {target}"), || {
            let answer = self.get(target);
            if answer.outcome() == outcome {
                return Ok(answer);
            }
            assert!(meanwhile.contains(&answer.outcome()), "{} before {outcome}", answer.detail());
            Err(answer.detail().to_owned())
        })
    }

    /// Metrics and log tell of exactly the requests whose answers were seen, in the same words.
    ///
    /// A request is counted once its answer is through, so they may lag behind a little.
    #[track_caller]
    pub fn all_agree(&self) {
        let mut told = lock(&self.told).clone();
        told.sort();
        eventually("the log to tell what the answers told", || {
            let mut logged: Vec<Told> = self.pond.access_log().iter().map(Told::by_log).collect();
            logged.sort();
            if logged == told { Ok(()) } else { Err(format!("log {logged:?}, answers {told:?}")) }
        });
        let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
        for one in &told {
            *counts.entry((one.outcome.clone(), format!("{}xx", one.status / 100))).or_default() += 1;
        }
        eventually("the metrics to count what the answers told", || {
            let metrics = Metrics::of(self.pond.admin());
            let mut counted: BTreeMap<(String, String), u64> = BTreeMap::new();
            for sample in metrics.all("millpond_requests_total") {
                let label = |name: &str| sample.labels.get(name).cloned().unwrap_or_default();
                *counted.entry((label("outcome"), label("code_class"))).or_default() += sample.value as u64;
            }
            let sum = metrics.sum("millpond_requests_total", &[]) as usize;
            if counted == counts && sum == told.len() {
                Ok(())
            } else {
                Err(format!("metrics {counted:?} (sum {sum}), answers {counts:?} (sum {})", told.len()))
            }
        });
    }
}
