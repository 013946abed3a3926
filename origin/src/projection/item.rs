//! One item of a document: an event, rendered once by the `item` templates (pure).

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use millpond_shared::event::{View, parse_time};
use millpond_shared::found::put_json;
use millpond_shared::projection::Projection;
use millpond_shared::template::Template;
use serde_json::Value;

/// What a feed lists, and what a `latest` document is. Its clones share their texts.
#[derive(Clone)]
pub struct Item {
    /// What items sort by: nanoseconds since the Unix epoch, or the whole number that `order` gave.
    pub order: i64,
    /// The id, and the body behind it; before and behind them maybe those of others ([`Texts`]).
    text: Arc<str>,
    /// Where the id begins, where the body does, and where that ends, in bytes.
    at: (u32, u32, u32),
}

/// The event's `order` is neither a time nor a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unordered;

/// What an item takes in memory beside its id and its body, in bytes: its place in a list that has room for others, two
/// reference counts, and the allocator's rounding.
const OVERHEAD_BYTES: usize = size_of::<Item>() + 48;

impl Item {
    /// `body`: a JSON object as text; empty where the event takes something away.
    pub fn new(order: i64, id: &str, body: &str) -> Item {
        Item::whole(order, &[id, body].concat(), id.len())
    }

    /// The item that `view` becomes in documents of `projection`. Its text is put together in `scratch`, whatever that holds.
    pub fn of(projection: &Projection, view: &View<'_>, scratch: &mut Vec<u8>) -> Result<Item, Unordered> {
        let (order, id) = (Item::order_of(projection, view)?, view.event.id.as_ref());
        scratch.clear();
        scratch.extend_from_slice(id.as_bytes());
        put_body(scratch, &projection.item, view);
        // An id and JSON: this can't fail.
        let text = std::str::from_utf8(scratch).unwrap_or_default();
        Ok(Item::whole(order, text, id.len()))
    }

    /// Of an id of so many bytes, and the body behind it.
    fn whole(order: i64, text: &str, id: usize) -> Item {
        let at = (0, number(id), number(text.len()));
        // Exactly as large as it is: an item lives as long as its document keeps it.
        Item { order, text: text.into(), at }
    }

    /// Id of the event.
    pub fn id(&self) -> &str {
        self.part(self.at.0, self.at.1)
    }

    /// The item as a JSON object, its fields in the declared order.
    pub fn body(&self) -> &str {
        self.part(self.at.1, self.at.2)
    }

    fn part(&self, start: u32, end: u32) -> &str {
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }

    /// The item without its content.
    pub fn without_body(&self) -> Item {
        Item::new(self.order, self.id(), "")
    }

    /// Whether its texts stand in `text`.
    pub(super) fn is_in(&self, text: &Arc<str>) -> bool {
        Arc::ptr_eq(&self.text, text)
    }

    /// Where its texts stand.
    #[cfg(test)]
    pub(super) fn block(&self) -> &str {
        &self.text
    }

    /// Length of its texts, in bytes.
    pub(super) fn text_bytes(&self) -> usize {
        (self.at.2 - self.at.0) as usize
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
        (self.order, self.id())
    }

    /// How its rank compares with another. Its id is read only if need be: of an item that was filed long ago it is far
    /// from the processor.
    pub fn cmp_rank(&self, (order, id): (i64, &str)) -> Ordering {
        self.order.cmp(&order).then_with(|| self.id().cmp(id))
    }

    /// What the item takes in memory, in bytes.
    pub fn weight(&self) -> usize {
        self.text_bytes() + OVERHEAD_BYTES
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Item) -> bool {
        (self.rank(), self.body()) == (other.rank(), other.body())
    }
}

impl Eq for Item {}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("order", &self.order).field("id", &self.id()).field("body", &self.body()).finish()
    }
}

/// Places in texts are kept short. No event is as large as this has no number for: what is, would lose its text.
fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// Items whose texts are put into one block: a document that is read has one instead of as many as it has items.
pub(super) struct Texts {
    text: String,
    items: VecDeque<Item>,
}

impl Texts {
    /// With room for so many items, and so many bytes of texts.
    pub(super) fn with_room(items: usize, bytes: usize) -> Texts {
        Texts { text: String::with_capacity(bytes), items: VecDeque::with_capacity(items) }
    }

    pub(super) fn push(&mut self, order: i64, id: &str, body: &str) {
        let start = self.text.len();
        self.text.push_str(id);
        self.text.push_str(body);
        let at = (number(start), number(start + id.len()), number(self.text.len()));
        self.items.push_back(Item { order, text: Arc::default(), at });
    }

    /// The items, and the block they share.
    pub(super) fn items(mut self) -> (VecDeque<Item>, Arc<str>) {
        let text: Arc<str> = self.text.into();
        self.items.iter_mut().for_each(|item| item.text = text.clone());
        (self.items, text)
    }
}

/// A time, or a whole number as it is.
fn order(template: &Template, view: &View<'_>) -> Option<i64> {
    match template.value(view)?.as_ref() {
        Value::Number(number) => number.as_i64(),
        text => parse_time(text),
    }
}

/// The object, without the fields that the event lacks.
fn put_body(out: &mut Vec<u8>, fields: &[(String, Template)], view: &View<'_>) {
    out.push(b'{');
    let mut is_first = true;
    for (name, template) in fields {
        let before = out.len();
        if !is_first {
            out.push(b',');
        }
        put_json(out, name);
        out.push(b':');
        if template.put_json(view, out) {
            is_first = false;
        } else {
            out.truncate(before);
        }
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::testing::{declared, event};

    fn item(declaration: &str, data: &str) -> Result<Item, Unordered> {
        let event = event("7", 5, data);
        Item::of(&declared(declaration)[0], &View::new(&event).expect("JSON"), &mut b"before".to_vec())
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
        assert_eq!(item.body(), r#"{"all":{"n":1.5,"page":"\"A\""},"id":"7","n":1.5,"title":"on \"A\""}"#);
        assert_eq!(item.rank(), (5, "7"));
    }

    #[test]
    fn a_missing_value_is_left_out_and_a_missing_hole_is_empty() {
        let item = item(WITHOUT_ORDER, r#"{"n":null}"#).expect("ordered");
        assert_eq!(item.body(), r#"{"all":{"n":null},"id":"7","title":"on "}"#);
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
