//! Declarations and events for tests.

use millpond_shared::config::{At, Complaints, Source};
use millpond_shared::event::Event;
use millpond_shared::projection::{Projection, WrittenProjection, judge};

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
    let projections = judge(&written.projection, &mut complaints);
    assert!(complaints.is_empty(), "{}", complaints.in_words(&source));
    projections
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
