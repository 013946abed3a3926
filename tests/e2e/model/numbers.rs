//! Counters and groups, the naive way: windows and members by sorting, numbers by looking at every event again.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Event, scalar, time_text};

const HOUR: i128 = 3_600_000_000_000;
const DAY: i128 = 24 * HOUR;
/// How many windows are kept.
const HOURS: i128 = 48;
const DAYS: i128 = 30;
/// Most members that are listed.
const TOP: usize = 10;
/// As many different values are counted exactly.
const EXACT_MAX: usize = 512;

/// A document of `page-counts`.
pub(super) fn page_counts(page: &str, events: &[&Event]) -> Value {
    let windows: Vec<Value> = windows(events, HOUR, HOURS)
        .into_iter()
        .map(|(start, events)| {
            let mut window = counts(&events);
            window["start"] = time_text(start).into();
            window
        })
        .collect();
    json!({
        "key": page,
        "title": page,
        "totals": counts(events),
        "series": [{ "every": "1h", "keep": "2d", "windows": windows }],
    })
}

fn counts(events: &[&Event]) -> Value {
    let users: BTreeSet<String> = events.iter().filter_map(|event| scalar(event.data.get("user"))).collect();
    assert!(users.len() <= EXACT_MAX, "too many users to be told exactly");
    let deltas = || events.iter().filter_map(|event| tenths(event, "delta"));
    json!({
        "count": events.len(),
        "sum": { "data.added": sum(events, "added"), "data.deleted": sum(events, "deleted") },
        "min": { "data.delta": deltas().min().map(number) },
        "max": { "data.delta": deltas().max().map(number) },
        "distinct": { "data.user": users.len() },
    })
}

/// A document of `channel-countries`.
pub(super) fn channel_countries(channel: &str, events: &[&Event]) -> Value {
    let windows: Vec<Value> = windows(events, DAY, DAYS)
        .into_iter()
        .map(|(start, events)| {
            let mut window = countries(&events);
            window.insert("start".to_owned(), time_text(start).into());
            Value::Object(window)
        })
        .collect();
    json!({
        "key": channel,
        "title": channel,
        "totals": countries(events),
        "series": [{ "every": "1d", "keep": "30d", "windows": windows }],
    })
}

fn countries(events: &[&Event]) -> Map<String, Value> {
    let mut members: BTreeMap<String, Vec<&Event>> = BTreeMap::new();
    for event in events {
        let country = event.data.get("countryName").filter(|name| !name.is_array() && !name.is_object());
        members.entry(json!([country]).to_string()).or_default().push(event);
    }
    let mut ranked: Vec<(String, Vec<&Event>)> = members.into_iter().collect();
    ranked.sort_by(|(a_name, a), (b_name, b)| (b.len(), a_name).cmp(&(a.len(), b_name)));
    let rest: Vec<&Event> =
        ranked.split_off(TOP.min(ranked.len())).into_iter().flat_map(|(_, events)| events).collect();
    let numbers = |events: &[&Event]| json!({ "count": events.len(), "sum": { "data.added": sum(events, "added") } });
    let listed = ranked.iter().map(|(name, events)| {
        let values: Vec<Value> = serde_json::from_str(name).expect("a list");
        let mut member = numbers(events);
        member["by"] = json!({ "data.countryName": values[0] });
        member
    });
    let mut told = Map::from_iter([("members".to_owned(), listed.collect()), ("complete".to_owned(), true.into())]);
    if !rest.is_empty() {
        told.insert("rest".to_owned(), numbers(&rest));
    }
    told
}

/// What `countries.html.j2` makes of a document.
pub(super) fn countries_page(channel: &str, document: &Value) -> Value {
    let escaped = |text: &str| {
        let pairs = [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#x27;"), ('/', "&#x2f;")];
        pairs.into_iter().fold(text.to_owned(), |text, (c, escape)| text.replace(c, escape))
    };
    let mut html = format!("<!DOCTYPE html>\n<html lang=\"en\">\n<title>{}</title>\n<table>", escaped(channel));
    for member in document["totals"]["members"].as_array().expect("members") {
        let country = scalar(member["by"].get("data.countryName")).unwrap_or_default();
        let (count, added) = (&member["count"], &member["sum"]["data.added"]);
        html += &format!("\n<tr><td>{}<td>{count}<td>{added}", escaped(&country));
    }
    (html + "\n</table>").into()
}

/// Windows that have events, by their starts: the newest, and those that follow each other before it.
fn windows<'a>(events: &[&'a Event], every: i128, keep: i128) -> BTreeMap<i128, Vec<&'a Event>> {
    let mut windows: BTreeMap<i128, Vec<&Event>> = BTreeMap::new();
    for event in events {
        windows.entry(event.time.div_euclid(every) * every).or_default().push(event);
    }
    let newest = *windows.keys().max().expect("an event");
    windows.retain(|start, _| *start > newest - every * keep);
    windows
}

fn sum(events: &[&Event], name: &str) -> Value {
    number(events.iter().filter_map(|event| tenths(event, name)).sum())
}

/// No event has a number with more than one digit behind the point.
fn tenths(event: &Event, name: &str) -> Option<i128> {
    let number = event.data.get(name).filter(|value| value.is_number())?;
    Some(match number.as_i64() {
        Some(whole) => i128::from(whole) * 10,
        None => (number.as_f64().expect("a number") * 10.0) as i128,
    })
}

/// As JSON has it: whole where it can be.
fn number(tenths: i128) -> Value {
    if tenths % 10 == 0 { json!(i64::try_from(tenths / 10).expect("64 bits")) } else { json!(tenths as f64 / 10.0) }
}
