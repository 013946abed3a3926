//! The limit of a rule, from what was written.

use millpond_shared::config::{At, Complaints};

use super::written::WrittenLimit;
use crate::limits::{Limit, REQUESTS_MAX, Rate};

/// `rule`: the path of the rule's field, for complaints. `None`: nothing to go by was written.
pub fn judge(rule: &str, at: &At<WrittenLimit>, complaints: &mut Complaints) -> Option<Limit> {
    let before = complaints.len();
    let WrittenLimit { rate, burst, concurrent, per, hits } = &at.value;
    let field = |name: &str| format!("{rule}.limit.{name}");
    if rate.is_none() && concurrent.is_none() {
        let fix = "give one of them, as in { rate = \"100/s\" }, or remove it";
        complaints.add(at.span.clone(), format!("{rule}.limit"), "is missing both rate and concurrent", fix);
    }
    let parsed = rate.as_ref().and_then(|rate| match rate.value.parse::<Rate>() {
        Ok(parsed) => Some(parsed),
        Err(none) => {
            complaints.add(rate.span.clone(), field("rate"), format!("`{}` is no rate", rate.value), none.fix);
            None
        }
    });
    for (name, number) in [("burst", burst), ("concurrent", concurrent)] {
        if let Some(number) = number.as_ref().filter(|number| !(1..=REQUESTS_MAX).contains(&number.value)) {
            let problem = format!("{} is out of range", number.value);
            complaints.add(number.span.clone(), field(name), problem, format!("use 1 to {REQUESTS_MAX}"));
        }
    }
    let counts_hits = hits.as_ref().filter(|hits| hits.value);
    let needs_rate = [("burst", burst.as_ref().map(|at| &at.span)), ("hits", counts_hits.map(|at| &at.span))];
    for (name, span) in needs_rate.into_iter().filter_map(|(name, span)| Some((name, span?))) {
        if rate.is_none() {
            let fix = "give a rate, as in \"100/s\", or remove it";
            complaints.add(span.clone(), field(name), "has no effect without rate", fix);
        }
    }
    let rate = match (parsed, burst) {
        (Some(rate), Some(burst)) => Some(rate.with_burst(burst.value)),
        (rate, _) => rate,
    };
    (complaints.len() == before).then_some(Limit {
        rate,
        concurrent: concurrent.as_ref().map(|at| at.value),
        per: per.as_ref().map(|at| at.value).unwrap_or_default(),
        hits: counts_hits.is_some(),
    })
}
