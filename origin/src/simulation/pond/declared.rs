//! What every history declares: one projection of each kind, all about the same few users.

use std::sync::{Arc, OnceLock};

use millpond_shared::projection::Projection;

use crate::projection::testing::{EDITS_AND_LAST, declared};

/// How many items a document of `edits` or `home` keeps.
pub const KEEP: usize = 3;
/// How many a user may follow.
pub const FOLLOWS_MAX: usize = 2;

/// Beside those of [`EDITS_AND_LAST`].
const FURTHER: &str = r#"
    [[projection]]
    name = "counts"
    kind = "counter"
    key = "{data.user}"
    count = true
    sum = ["data.n"]
    [[projection.output]]
    path = "/users/{key}/counts.json"
    format = "json"
    [[projection]]
    name = "numbers"
    kind = "group"
    key = "{data.user}"
    by = ["data.n"]
    count = true
    top = 10
    [[projection.output]]
    path = "/users/{key}/numbers.json"
    format = "json"
    [[projection]]
    name = "follows"
    kind = "edges"
    where = { "data.what" = "follow" }
    key = "{data.user}"
    to = "{data.whom}"
    keep = 2
    item = { id = "{data.whom}" }
    remove_on = { where = { "data.what" = "unfollow" } }
    [[projection.output]]
    path = "/users/{key}/follows.json"
    format = "json"
    [[projection]]
    name = "home"
    kind = "home"
    feed = "edits"
    edges = "follows"
    keep = 3
    fanout = { max = 1 }
    [[projection.output]]
    path = "/users/{key}/home.json"
    format = "json"
"#;

/// What every history declares.
pub fn projections() -> &'static Arc<Vec<Projection>> {
    static DECLARED: OnceLock<Arc<Vec<Projection>>> = OnceLock::new();
    DECLARED.get_or_init(|| Arc::new(declared(&format!("{EDITS_AND_LAST}{FURTHER}"))))
}
