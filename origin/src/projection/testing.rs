//! Declarations and events for tests.

use std::path::PathBuf;
use std::time::Duration;

use millpond_shared::config::{At, Complaints, Source};
use millpond_shared::event::Event;
use millpond_shared::projection::{Projection, Span, Windows, WrittenProjection, judge};

#[derive(Default, serde::Deserialize)]
struct Written {
    projection: Vec<At<WrittenProjection>>,
}

/// The projections of a configuration: `[[projection]]` tables, or the inside of a single one, which gets an output
/// unless it has one.
pub(crate) fn declared(text: &str) -> Vec<Projection> {
    let mut text = text.to_owned();
    if !text.contains("[[projection]]") {
        text = format!("[[projection]]\n{text}");
    }
    if !text.contains("[[projection.output]]") {
        text.push_str("\n[[projection.output]]\npath = \"/documents/{key}\"\nformat = \"json\"\n");
    }
    let (mut source, mut complaints) = (Source::default(), Complaints::default());
    let written: Written = source.read("test.toml", &text, &mut complaints);
    let projections = judge(&written.projection, &template, &mut complaints);
    assert!(complaints.is_empty(), "{}", complaints.in_words(&source));
    projections
}

/// A feed `edits` of three items, and their `last`, by user.
pub(crate) const EDITS_AND_LAST: &str = r#"
    [[projection]]
    name = "edits"
    kind = "feed"
    keep = 3
    key = "{data.user}"
    item = { id = "{id}", n = "{data.n}", content_text = "{data.user}" }
    [[projection.output]]
    path = "/users/{key}/feed.json"
    format = "json"
    [[projection]]
    name = "last"
    kind = "latest"
    key = "{data.user}"
    order = "{data.n}"
    item = { id = "{id}", n = "{data.n}" }
    [[projection.output]]
    path = "/users/{key}/last.json"
    format = "json"
"#;

/// A feed `p` of the ids of events by their user, the newest `keep` of them.
pub(crate) fn feed(keep: usize) -> Vec<Projection> {
    declared(&format!(
        "name = \"p\"\nkind = \"feed\"\nkeep = {keep}\nkey = \"{{data.user}}\"\nitem = {{ id = \"{{id}}\" }}"
    ))
}

/// Home feeds and what they are made of, as TOML: `posts`, `follows`, `home`. Each event says `what` its `user` does: it
/// is a `post`, maybe with a `text`, or to `follow` or `unfollow` somebody, `whom`. Feeds keep `keep` items; those with
/// more followers than `fanout_max` are great.
pub(crate) fn home_feeds(keep: usize, fanout_max: usize) -> String {
    format!(
        r#"
        [[projection]]
        name = "posts"
        kind = "feed"
        keep = {keep}
        where = {{ "data.what" = "post" }}
        key = "{{data.user}}"
        item = {{ id = "{{id}}", text = "{{data.text}}" }}
        [[projection.output]]
        path = "/posts/{{key}}"
        format = "json"
        [[projection]]
        name = "follows"
        kind = "edges"
        where = {{ "data.what" = "follow" }}
        remove_on = {{ where = {{ "data.what" = "unfollow" }} }}
        key = "{{data.user}}"
        to = "{{data.whom}}"
        item = {{ id = "{{data.whom}}" }}
        [[projection.output]]
        path = "/follows/{{key}}"
        format = "json"
        [[projection]]
        name = "home"
        kind = "home"
        feed = "posts"
        edges = "follows"
        keep = {keep}
        fanout = {{ max = {fanout_max} }}
        [[projection.output]]
        path = "/home/{{key}}"
        format = "json"
        "#
    )
}

/// Windows of so many milliseconds.
pub(crate) fn tumbling(every: u64, keep: u64) -> Windows {
    let span = |milliseconds| Span(Duration::from_millis(milliseconds));
    Windows::Tumbling { every: span(every), keep: span(keep) }
}

/// A template stands in the name of its file: what is before the last dot but one.
fn template(name: &At<PathBuf>) -> Result<String, (String, String)> {
    let name = name.value.display().to_string();
    let text = name.strip_suffix(".j2").and_then(|name| name.rsplit_once('.')).map(|(text, _)| text.to_owned());
    text.ok_or_else(|| (format!("`{name}` is no name"), "name it as in \"TEXT.html.j2\"".to_owned()))
}

/// An event of source `s` and type `t` that happened at `time` (nanoseconds) and came in `time` milliseconds after
/// the epoch.
pub(crate) fn event(id: &str, time: i64, data: &str) -> Event<'static> {
    Event {
        id: id.to_owned().into(),
        source: "s".into(),
        kind: "t".into(),
        subject: None,
        time,
        received: time.unsigned_abs(),
        data: data.to_owned().into(),
    }
}
