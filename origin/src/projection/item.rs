//! One item of a document: an event, rendered once by the `item` templates (pure).

use bytes::Bytes;
use millpond_shared::event::{View, parse_time};
use millpond_shared::projection::Projection;
use millpond_shared::template::Template;
use serde_json::Value;

/// What a feed lists, and what a `latest` document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What items sort by: nanoseconds since the Unix epoch, or the whole number that `order` gave.
    pub order: i64,
    /// Id of the event.
    pub id: Box<str>,
    /// The item as a JSON object, its fields in the declared order.
    pub body: Bytes,
}

/// The event's `order` is neither a time nor a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unordered;

/// What an item takes in memory beside its id and its body, in bytes: two reference counts, lengths, pointers, and
/// the allocator's rounding of three blocks.
const OVERHEAD_BYTES: usize = 120;

impl Item {
    /// The item that `view` becomes in documents of `projection`.
    pub fn of(projection: &Projection, view: &View<'_>) -> Result<Item, Unordered> {
        let order = Item::order_of(projection, view)?;
        Ok(Item { order, id: view.event.id.as_ref().into(), body: body(&projection.item, view) })
    }

    /// What the event sorts by among items.
    pub fn order_of(projection: &Projection, view: &View<'_>) -> Result<i64, Unordered> {
        match &projection.order {
            None => Ok(view.event.time),
            Some(template) => order(template, view).ok_or(Unordered),
        }
    }

    /// What items sort by, the greatest first.
    pub fn rank(&self) -> (i64, &str) {
        (self.order, &self.id)
    }

    /// What the item takes in memory, in bytes.
    pub fn weight(&self) -> usize {
        self.id.len() + self.body.len() + OVERHEAD_BYTES
    }
}

/// A time, or a whole number as it is.
fn order(template: &Template, view: &View<'_>) -> Option<i64> {
    match template.value(view)?.as_ref() {
        Value::Number(number) => number.as_i64(),
        text => parse_time(text),
    }
}

/// Room made for a body before it is written, in bytes: most are shorter.
const BODY_BYTES: usize = 512;

/// The object, without the fields that the event lacks.
fn body(fields: &[(String, Template)], view: &View<'_>) -> Bytes {
    let mut out = Vec::with_capacity(BODY_BYTES);
    out.push(b'{');
    for (name, template) in fields {
        let Some(value) = template.value(view) else { continue };
        if out.len() > 1 {
            out.push(b',');
        }
        put_json(&mut out, name);
        out.push(b':');
        put_json(&mut out, &value);
    }
    out.push(b'}');
    // Exactly as large as it is: an item lives as long as its document keeps it.
    Bytes::from(out.into_boxed_slice())
}

fn put_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    // Writing a text or a `Value` to memory can't fail: its keys are strings and its numbers are finite.
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::testing::{declared, event};

    fn item(declaration: &str, data: &str) -> Result<Item, Unordered> {
        let event = event("7", 5, data);
        Item::of(&declared(declaration)[0], &View::new(&event).expect("JSON"))
    }

    const WITHOUT_ORDER: &str = r#"
        name = "p"
        kind = "latest"
        key = "{data.user}"
        item = { title = "on {data.page}", id = "{id}", n = "{data.n}", all = "{data}" }
    "#;

    #[test]
    fn a_body_holds_its_fields_by_name_with_their_types() {
        let item = item(WITHOUT_ORDER, r#"{"page":"\"A\"","n":1.5}"#).expect("ordered");
        assert_eq!(item.body, r#"{"all":{"n":1.5,"page":"\"A\""},"id":"7","n":1.5,"title":"on \"A\""}"#.as_bytes());
        assert_eq!(item.rank(), (5, "7"));
    }

    #[test]
    fn a_missing_value_is_left_out_and_a_missing_hole_is_empty() {
        let item = item(WITHOUT_ORDER, r#"{"n":null}"#).expect("ordered");
        assert_eq!(item.body, r#"{"all":{"n":null},"id":"7","title":"on "}"#.as_bytes());
    }

    #[test]
    fn order_is_a_time_or_a_whole_number() {
        let declaration = format!("{WITHOUT_ORDER}\norder = \"{{data.o}}\"");
        for (data, expected) in [
            (r#"{"o":"1970-01-01T00:00:01Z"}"#, Ok(1_000_000_000)),
            (r#"{"o":42}"#, Ok(42)),
            (r#"{"o":-42}"#, Ok(-42)),
            (r#"{"o":42.5}"#, Err(Unordered)),
            (r#"{"o":18446744073709551615}"#, Err(Unordered)),
            (r#"{"o":"soon"}"#, Err(Unordered)),
            (r#"{"o":null}"#, Err(Unordered)),
            (r#"{"o":[1]}"#, Err(Unordered)),
            ("{}", Err(Unordered)),
        ] {
            assert_eq!(item(&declaration, data).map(|item| item.order), expected, "{data}");
        }
    }
}
