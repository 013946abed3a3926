//! Counters and groups as JSON (pure).
//!
//! ```text
//! { "key", "title", "totals": NUMBERS, "series": [{ "every": "1h", "keep": "7d", "windows": [{ "start", … NUMBERS }] }] }
//! NUMBERS of a counter: "count": 7, "sum": { "data.added": 12.5 }, "min", "max", "distinct" likewise
//! NUMBERS of a group: "members": [{ "by": { "data.country": "Italy" }, … }], "rest": { … }, "complete": true
//! ```
//!
//! Only what is declared is there: `totals` with a window over all time, `series` with others. Windows without events
//! are left out; the oldest comes first. A least or greatest value that no event had is `null`.

use millpond_shared::event::{Path, time_text};
use millpond_shared::projection::{Counting, Grouping, Measure, Measures, Windows};
use serde_json::Value;

use super::Page;
use crate::projection::{KeyState, Measured, Members, Numbers, Series};

pub(super) fn counter(page: &Page<'_>, counting: &Counting) -> Result<Vec<u8>, String> {
    let KeyState::Counter(counter) = &page.document.state else { return Err("it is no counter".to_owned()) };
    let mut out = Vec::with_capacity(counter.weight());
    let rows: Vec<_> = counter.rows(counting).collect();
    document(&mut out, page, &rows, |object, numbers| {
        put_numbers(object, &counting.measures, numbers);
        Ok(())
    })?;
    Ok(out)
}

pub(super) fn group(page: &Page<'_>, grouping: &Grouping) -> Result<Vec<u8>, String> {
    let KeyState::Group(group) = &page.document.state else { return Err("it is no group".to_owned()) };
    let mut out = Vec::with_capacity(group.weight());
    let rows: Vec<_> = group.rows(grouping).collect();
    document(&mut out, page, &rows, |object, members| put_members(object, grouping, members))?;
    Ok(out)
}

fn document<T>(
    out: &mut Vec<u8>,
    page: &Page<'_>,
    rows: &[(Windows, &Series<T>)],
    put: impl Fn(&mut Object<'_>, &T) -> Result<(), String>,
) -> Result<(), String> {
    let mut object = Object::start(out);
    object.text("key", &page.plain);
    object.text("title", &page.title);
    let totals = rows.iter().find(|(windows, _)| *windows == Windows::All);
    if let Some((_, content)) = totals.and_then(|(_, series)| series.iter().next()) {
        let mut totals = Object::start(object.name("totals"));
        put(&mut totals, content)?;
        totals.end();
    }
    let mut list = Vec::new();
    for (windows, series) in rows {
        let Windows::Tumbling { every, keep } = windows else { continue };
        let mut row = Object::start(comma(&mut list));
        row.text("every", &every.to_string());
        row.text("keep", &keep.to_string());
        let mut windows = Vec::new();
        for (start, content) in series.iter() {
            let mut window = Object::start(comma(&mut windows));
            window.text("start", &time_text(start));
            put(&mut window, content)?;
            window.end();
        }
        row.list("windows", &windows);
        row.end();
    }
    if !list.is_empty() {
        object.list("series", &list);
    }
    object.end();
    Ok(())
}

fn put_members(object: &mut Object<'_>, grouping: &Grouping, members: &Members) -> Result<(), String> {
    let measures = &grouping.counting.measures;
    let ranked = members.ranked(grouping);
    let mut list = Vec::new();
    for (values, numbers) in ranked.top {
        let values: Vec<Value> =
            serde_json::from_str(values).map_err(|error| format!("a member is no list of values: {error}"))?;
        let mut member = Object::start(comma(&mut list));
        let mut by = Object::start(member.name("by"));
        for (path, value) in grouping.by.iter().zip(&values) {
            by.name(path.as_str()).extend_from_slice(value.to_string().as_bytes());
        }
        by.end();
        put_numbers(&mut member, measures, numbers);
        member.end();
    }
    object.list("members", &list);
    if let Some(numbers) = ranked.rest {
        let mut rest = Object::start(object.name("rest"));
        put_numbers(&mut rest, measures, &numbers);
        rest.end();
    }
    object.name("complete").extend_from_slice(if ranked.complete { b"true" } else { b"false" });
    Ok(())
}

/// Name of a list of measures, their paths, and what each is by its place.
type Listed<'a> = (&'a str, &'a [Path], fn(usize) -> Measure);

fn put_numbers(object: &mut Object<'_>, measures: &Measures, numbers: &Numbers) {
    let measured = |measure| match numbers.get(measures, measure) {
        Measured::Nothing => "null".to_owned(),
        Measured::Whole(number) => number.to_string(),
        Measured::Number(number) => number.to_string(),
    };
    if measures.count {
        object.name("count").extend_from_slice(measured(Measure::Count).as_bytes());
    }
    let lists: [Listed<'_>; 4] = [
        ("sum", &measures.sum, Measure::Sum),
        ("min", &measures.min, Measure::Min),
        ("max", &measures.max, Measure::Max),
        ("distinct", &measures.distinct, Measure::Distinct),
    ];
    for (name, paths, measure) in lists.into_iter().filter(|(_, paths, _)| !paths.is_empty()) {
        let mut list = Object::start(object.name(name));
        for (index, path) in paths.iter().enumerate() {
            list.name(path.as_str()).extend_from_slice(measured(measure(index)).as_bytes());
        }
        list.end();
    }
}

/// A JSON object that is being written.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl Object<'_> {
    fn start(out: &mut Vec<u8>) -> Object<'_> {
        out.push(b'{');
        Object { out, is_empty: true }
    }

    /// Puts the name of a member; its value must follow.
    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(Value::from(name).to_string().as_bytes());
        self.out.push(b':');
        self.out
    }

    fn text(&mut self, name: &str, text: &str) {
        let text = Value::from(text).to_string();
        self.name(name).extend_from_slice(text.as_bytes());
    }

    /// A list of elements with commas between them.
    fn list(&mut self, name: &str, elements: &[u8]) {
        let out = self.name(name);
        out.push(b'[');
        out.extend_from_slice(elements);
        out.push(b']');
    }

    fn end(self) {
        self.out.push(b'}');
    }
}

/// The list, with a comma behind what is there.
fn comma(list: &mut Vec<u8>) -> &mut Vec<u8> {
    if !list.is_empty() {
        list.push(b',');
    }
    list
}

#[cfg(test)]
mod tests {
    use super::super::testing::{rendered, text};

    #[test]
    fn a_counter_tells_totals_and_series() {
        let declaration = r#"
            name = "p"
            kind = "counter"
            key = "{data.user}"
            title = "Edits by {key}"
            count = true
            sum = ["data.n"]
            min = ["data.n"]
            max = ["data.n", "data.x"]
            distinct = ["data.page"]
            windows = [{ every = "all" }, { every = "1s", keep = "2s" }, { every = "1h", keep = "24h" }]
        "#;
        let events = [
            ("a", 3_500_000_000, r#"{"n":0.1,"page":"p"}"#),
            ("b", 4_000_000_000, r#"{"n":-2,"page":"q"}"#),
            ("c", 900_000_000, r#"{"n":0.2,"page":"p"}"#),
        ];
        let expected = concat!(
            r#"{"key":"k\"","title":"Edits by k\"","totals":{"count":3,"sum":{"data.n":-1.7},"min":{"data.n":-2},"#,
            r#""max":{"data.n":0.2,"data.x":null},"distinct":{"data.page":2}},"series":[{"every":"1s","keep":"2s","#,
            r#""windows":[{"start":"1970-01-01T00:00:03Z","count":1,"sum":{"data.n":0.1},"min":{"data.n":0.1},"#,
            r#""max":{"data.n":0.1,"data.x":null},"distinct":{"data.page":1}},{"start":"1970-01-01T00:00:04Z","#,
            r#""count":1,"sum":{"data.n":-2},"min":{"data.n":-2},"max":{"data.n":-2,"data.x":null},"#,
            r#""distinct":{"data.page":1}}]},{"every":"1h","keep":"1d","windows":[{"start":"1970-01-01T00:00:00Z","#,
            r#""count":3,"sum":{"data.n":-1.7},"min":{"data.n":-2},"max":{"data.n":0.2,"data.x":null},"#,
            r#""distinct":{"data.page":2}}]}]}"#,
        );
        assert_eq!(text(&rendered(declaration, "k%22", &events)), expected);
    }

    #[test]
    fn a_group_lists_its_first_members() {
        let declaration = r#"
            name = "p"
            kind = "group"
            key = "{data.user}"
            by = ["data.country", "data.new"]
            sum = ["data.n"]
            rank = "sum data.n"
            top = 2
        "#;
        let events = [
            ("a", 1, r#"{"country":"Italy","new":true,"n":5}"#),
            ("b", 2, r#"{"n":7}"#),
            ("c", 3, r#"{"country":"Chile","new":false,"n":1}"#),
            ("d", 4, r#"{"country":["x"],"n":1}"#),
        ];
        let expected = concat!(
            r#"{"key":"k","title":"k","totals":{"members":[{"by":{"data.country":null,"data.new":null},"sum":"#,
            r#"{"data.n":8}},{"by":{"data.country":"Italy","data.new":true},"sum":{"data.n":5}}],"#,
            r#""rest":{"sum":{"data.n":1}},"complete":true}}"#,
        );
        assert_eq!(text(&rendered(declaration, "k", &events)), expected);
    }
}
