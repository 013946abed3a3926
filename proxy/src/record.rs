//! What became of one request: what metrics count and the access log tells.

use std::sync::Arc;

use http::StatusCode;

use crate::observe::{Counted, NO_RULE};
use crate::outcome::{Outcome, Reason};
use crate::rules::Rule;

/// The account of one request.
#[derive(Clone, Debug)]
pub struct Record {
    /// `None`: no rule matched, or the request was refused before rules were asked.
    pub rule: Option<Arc<Rule>>,
    pub outcome: Outcome,
    pub reason: Option<Reason>,
    /// Status that the client was sent.
    pub status: StatusCode,
    /// Bytes sent, head included.
    pub bytes: u64,
    /// Whether the client left before the answer was through, or the answer broke off.
    pub broken_off: bool,
}

impl Record {
    /// Name of the rule; `none` where there was none.
    pub fn rule_name(&self) -> &str {
        self.rule.as_ref().map_or(NO_RULE, |rule| &rule.name)
    }

    /// What of it is counted.
    pub fn counted(&self) -> Counted {
        let reason = self.reason.filter(|_| self.outcome != Outcome::Hit);
        Counted { outcome: self.outcome, reason, status: self.status.as_u16(), bytes: self.bytes }
    }
}
