//! What a producer is told about its batch (pure).

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use millpond_shared::version::{Offset, QueueId};
use serde::Serialize;

use crate::http::json;

/// The body of the answer to a batch.
///
/// * `202`: everything that is neither in `rejected` nor a duplicate was stored and is on disk.
/// * `400`: nothing was stored or known, and every element is in `rejected`: sending it again will not help.
/// * `503` with `Retry-After`: some elements found no room. What is counted as accepted is on disk all the same; send
///   the whole batch again, and what is stored already counts as duplicate. (Elements without an id of their own can't
///   be recognised: of those send only the ones that say `retry`.)
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Report {
    pub accepted: usize,
    pub duplicates: usize,
    pub rejected: Vec<Rejected>,
    /// By event queue: the last offset that an element of this batch was stored at.
    pub position: BTreeMap<QueueId, Offset>,
    /// Elements that were rejected beyond those that are told.
    #[serde(skip_serializing_if = "is_zero")]
    pub rejected_untold: usize,
    /// `memory` if this was answered before anything was stored: then `accepted` only says what will be tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Rejected elements of a stream of lines that are told, the first ones.
const REJECTED_TOLD_MAX: usize = 1_000;

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// An element that was not stored.
#[derive(Debug, PartialEq, Serialize)]
pub struct Rejected {
    /// Its place in the batch, from 0.
    pub index: usize,
    pub reason: String,
    /// Whether nothing is wrong with it, so that it may be sent again as it is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retry: bool,
}

/// Seconds after which a batch that found no room may be sent again.
const RETRY_AFTER: &str = "1";

impl Report {
    pub fn stored(&mut self, queue: QueueId, offset: Offset) {
        self.accepted += 1;
        let position = self.position.entry(queue).or_default();
        *position = offset.max(*position);
    }

    pub fn rejected(&mut self, index: usize, reason: impl Into<String>) {
        self.rejected.push(Rejected { index, reason: reason.into(), retry: false });
    }

    pub fn refused(&mut self, index: usize, reason: impl Into<String>) {
        self.rejected.push(Rejected { index, reason: reason.into(), retry: true });
    }

    /// What becomes of so many events will be known later.
    pub fn taken_in_memory(&mut self, events: usize) {
        self.accepted += events;
        self.ack = Some("memory");
    }

    /// How many elements may be sent again as they are.
    pub fn refused_count(&self) -> usize {
        self.rejected.iter().filter(|rejected| rejected.retry).count()
    }

    /// Adds what became of the elements behind the first `before` ones.
    pub fn absorb(&mut self, other: Report, before: usize) {
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        for (queue, offset) in other.position {
            let position = self.position.entry(queue).or_default();
            *position = offset.max(*position);
        }
        for rejected in other.rejected {
            if self.rejected.len() < REJECTED_TOLD_MAX || (rejected.retry && self.is_settled()) {
                self.rejected.push(Rejected { index: before + rejected.index, ..rejected });
            } else {
                self.rejected_untold += 1;
            }
        }
    }

    /// Whether it stored nothing, since all that was good of it was known.
    pub fn is_known(&self) -> bool {
        self.accepted == 0 && self.duplicates > 0 && self.is_settled()
    }

    /// Whether sending it again would change nothing.
    pub fn is_settled(&self) -> bool {
        self.rejected.iter().all(|rejected| !rejected.retry)
    }

    pub fn answer(mut self) -> Response<Bytes> {
        self.rejected.sort_by_key(|rejected| rejected.index);
        let refused = self.rejected.iter().find(|rejected| rejected.retry);
        let status = if refused.is_some() {
            StatusCode::SERVICE_UNAVAILABLE
        } else if self.accepted + self.duplicates == 0 && !self.rejected.is_empty() {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::ACCEPTED
        };
        if status != StatusCode::ACCEPTED {
            let first = refused.or(self.rejected.first());
            self.error = first.map(|first| format!("event {}: {}", first.index, first.reason));
        }
        let mut response = json(status, &self);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(build: impl FnOnce(&mut Report)) -> (u16, bool, String) {
        let mut report = Report::default();
        build(&mut report);
        let response = report.answer();
        let retry = response.headers().contains_key(header::RETRY_AFTER);
        (response.status().as_u16(), retry, String::from_utf8(response.body().to_vec()).unwrap())
    }

    #[test]
    fn reports_of_a_stream_add_up_and_stay_short() {
        let (status, _, body) = told(|report| {
            for group in 0..3 {
                let mut part = Report::default();
                part.stored(group, 5);
                (0..600).for_each(|index| part.rejected(index, "bad"));
                report.absorb(part, group as usize * 601);
            }
        });
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &body["accepted"], &body["rejected_untold"]), (202, &3.into(), &800.into()));
        assert_eq!(body["position"], serde_json::json!({"0": 5, "1": 5, "2": 5}));
        assert_eq!(body["rejected"][999]["index"], 601 + 399);

        let (status, ..) = told(|report| {
            (0..2000).for_each(|index| report.rejected(index, "bad"));
            let mut full = Report::default();
            full.refused(0, "full");
            report.absorb(full, 2000);
        });
        assert_eq!(status, 503, "what may be sent again is told even then");
    }

    #[test]
    fn the_status_tells_what_to_do() {
        let (status, retry, body) = told(|report| {
            report.stored(2, 8);
            report.stored(2, 7);
            report.duplicates = 1;
            report.rejected(1, "bad");
        });
        let expected = r#"{"accepted":2,"duplicates":1,"rejected":[{"index":1,"reason":"bad"}],"position":{"2":8}}"#;
        assert_eq!((status, retry, body.trim_end()), (202, false, expected));

        assert_eq!(told(|_| ()).0, 202, "an empty array is stored as a whole");
        let (status, retry, body) = told(|report| {
            report.rejected(1, "worse");
            report.rejected(0, "bad");
        });
        assert_eq!((status, retry), (400, false));
        assert!(body.contains(r#""error":"event 0: bad""#), "{body}");
        assert_eq!(
            told(|report| {
                report.duplicates = 1;
                report.rejected(0, "bad");
            })
            .0,
            202
        );

        let (status, retry, body) = told(|report| {
            report.stored(0, 1);
            report.rejected(1, "bad");
            report.refused(2, "full");
        });
        assert_eq!((status, retry), (503, true), "what was not stored must not look accepted");
        assert!(body.contains(r#""accepted":1"#) && body.contains(r#""error":"event 2: full""#), "{body}");
        assert!(body.contains(r#"{"index":2,"reason":"full","retry":true}"#), "{body}");
    }
}
