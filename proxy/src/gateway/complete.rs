//! Completing what is stored of a response in part: only the rest is asked for, and what is stored goes before it
//! (RFC 9111 §3.3, §3.4).

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use millpond_shared::http1::{Fields, ResponseHead};

use super::parts::{as_whole, part_of};
use crate::cache::{Entry, Part};
use crate::semantics::{range, validate};
use crate::upstreams::{Answer, Conditions};

/// What is stored from the first byte on.
pub(super) struct Beginning {
    entry: Arc<Entry>,
    bytes: Bytes,
    /// Bytes of the whole representation.
    complete: u64,
    /// Its strong entity tag: what comes later is of the same representation only if it has it, too.
    tag: Box<[u8]>,
}

impl Beginning {
    /// `None`: the first byte is missing, or nothing could be joined to it.
    pub fn of(entry: &Arc<Entry>) -> Option<Beginning> {
        let part = entry.part()?;
        let tag = range::strong_tag(&entry.fields())?.into();
        let bytes = entry.slice(&(0..part.beginning()))?;
        (!bytes.is_empty()).then(|| Beginning { entry: Arc::clone(entry), bytes, complete: part.complete(), tag })
    }

    pub fn conditions(&self) -> Conditions<'_> {
        Conditions::Rest { from: self.bytes.len() as u64, tag: &self.tag }
    }

    /// What came of asking for the rest.
    pub fn continued(&self, answer: Answer) -> Continued {
        match answer.head.status {
            StatusCode::PARTIAL_CONTENT => {}
            StatusCode::RANGE_NOT_SATISFIABLE => return Continued::Other,
            _ => return Continued::Whole(answer),
        }
        let rest = Part::of(self.bytes.len() as u64..self.complete, self.complete);
        let fields = &answer.head.fields;
        let is_rest =
            rest.is_some_and(|rest| part_of(fields).as_ref() == Some(&rest) && answer.body.length == Some(rest.held()));
        if !is_rest || range::strong_tag(fields) != Some(&*self.tag) {
            return Continued::Other;
        }
        let head = self.head_with(&answer.head);
        Continued::Joined(Answer { head, body: answer.body.after(self.bytes.clone()), ..answer })
    }

    /// The stored head with the fields that the part brought (RFC 9111 §3.4).
    fn head_with(&self, part: &ResponseHead) -> ResponseHead {
        let whole = as_whole(part);
        // We are in the stored Via, and will be written into the new one.
        let stored = self.entry.original_fields();
        let stored: Fields = stored.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("via")).collect();
        ResponseHead { fields: validate::updated(&stored, &whole.fields), ..whole }
    }
}

/// What came of asking for the rest.
pub(super) enum Continued {
    /// The rest, with what was stored before it: as good as an answer with the whole.
    Joined(Answer),
    /// The whole, or an answer that has nothing to do with it.
    Whole(Answer),
    /// A part of something else: the whole has to be asked for.
    Other,
}
