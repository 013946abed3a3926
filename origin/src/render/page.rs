//! What of a document is rendered: all of its items, or those of one page (pure).

use millpond_shared::projection::{Output, Projection};
use millpond_shared::template::decode_key;

use super::address;
use crate::projection::{Before, Document, Item};

/// What every format is given.
pub(super) struct Page<'a> {
    pub projection: &'a Projection,
    pub output: &'a Output,
    pub key: &'a str,
    /// The key in plain text.
    pub plain: String,
    pub title: String,
    pub document: &'a Document,
    /// Where it begins; at the newest item without.
    pub before: Option<&'a Before>,
    /// The newest first.
    pub items: Vec<&'a Item>,
    /// Where the next one begins, if there is one.
    pub next: Option<Before>,
}

impl<'a> Page<'a> {
    pub fn new(
        projection: &'a Projection,
        output: &'a Output,
        key: &'a str,
        before: Option<&'a Before>,
        document: &'a Document,
    ) -> Page<'a> {
        let plain = decode_key(key);
        let title = projection.title.replace("{key}", &plain);
        let (items, next) = listed(document, before, output.page);
        Page { projection, output, key, plain, title, document, before, items, next }
    }

    /// What the items take as JSON, in bytes, with a comma behind each.
    pub fn items_bytes(&self) -> usize {
        self.items.iter().map(|item| item.body().len() + 1).sum()
    }

    /// The field `Link` (RFC 8288), by which pages of every format name others; `None` if this is the only one.
    pub fn link_field(&self) -> Option<String> {
        // By paths: behind a proxy it is the client who knows the host.
        let path = self.output.path.path_of(self.key);
        let first = self.before.map(|_| format!("<{path}>; rel=\"first\""));
        let next = self.next.as_ref().map(|next| format!("<{}>; rel=\"next\"", address::of_page(&path, next)));
        let links: Vec<String> = first.into_iter().chain(next).collect();
        (!links.is_empty()).then(|| links.join(", "))
    }
}

/// The items of the page that begins below a place, and where the next begins if there is one.
///
/// A page has `size` items, and more only where several of one order and one id, which no cursor tells apart, stand at
/// its end.
fn listed<'a>(document: &'a Document, before: Option<&Before>, size: Option<usize>) -> (Vec<&'a Item>, Option<Before>) {
    let mut below = document.items_below(before).peekable();
    let mut items: Vec<&Item> = below.by_ref().take(size.unwrap_or(usize::MAX)).collect();
    while let Some(further) = below.next_if(|further| items.last().is_some_and(|last| last.rank() == further.rank())) {
        items.push(further);
    }
    let next = below.peek().and(items.last()).map(|last| Before::of(last));
    (items, next)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use millpond_shared::event::View;
    use millpond_shared::version::Version;
    use proptest::prelude::*;

    use super::super::testing::pages_of;
    use super::*;
    use crate::projection::testing::{declared, event};
    use crate::projection::{Arrival, Effect};

    const KINDS: [&str; 3] = [
        "kind = \"feed\"\n",
        "kind = \"feed\"\nremove_on = { where = { \"data.removes\" = true }, id = \"{data.of}\" }\n",
        "kind = \"edges\"\nto = \"{data.of}\"\nremove_on = { where = { \"data.removes\" = true } }\n",
    ];

    fn projection(kind: &str, keep: usize, page: usize) -> Projection {
        let declaration = format!(
            "name = \"p\"\n{kind}keep = {keep}\nkey = \"{{data.user}}\"\norder = \"{{data.order}}\"\n\
             item = {{ id = \"{{data.of}}\" }}\n\
             [[projection.output]]\npath = \"/{{key}}\"\nformat = \"json\"\npage = {page}\n"
        );
        declared(&declaration).remove(0)
    }

    /// An item of this order, about one of a few things, or its removal.
    #[derive(Clone, Debug)]
    struct Act {
        order: i64,
        of: u8,
        removes: bool,
    }

    fn take(document: &mut Arc<Document>, projection: &Projection, position: u64, act: &Act) {
        let Act { order, of, removes } = act;
        let event =
            event(&format!("e{position}"), 1, &format!(r#"{{"order":{order},"of":"{of}","removes":{removes}}}"#));
        let effect = Effect::of(projection, &View::new(&event).expect("JSON"), &mut Vec::new()).expect("an order");
        let arrival = Arrival { version: Version::new(1, position), place: (0, position), received: 1 };
        Document::apply(document, &projection.kind, effect, arrival);
    }

    fn ranks<'a>(items: impl IntoIterator<Item = &'a Item>) -> Vec<(i64, String)> {
        items.into_iter().map(|item| (item.order, item.id().to_owned())).collect()
    }

    fn act(orders: std::ops::Range<i64>) -> impl Strategy<Value = Act> {
        (orders, 0u8..12, prop::bool::weighted(0.2)).prop_map(|(order, of, removes)| Act { order, of, removes })
    }

    proptest! {
        /// Page after page, while items come in above and anywhere, and go: what stood there at the start and stands there
        /// at the end was seen, nothing twice, and in order.
        #[test]
        fn who_reads_on_misses_nothing_and_sees_nothing_twice(
            kind in prop::sample::select(&KINDS[..]),
            keep in 4usize..30,
            page in 1usize..4,
            before in prop::collection::vec(act(0..40), 0..40),
            meanwhile in prop::collection::vec(prop::collection::vec(act(0..80), 0..4), 0..40),
        ) {
            let projection = projection(kind, keep, page);
            let mut document = Arc::new(Document::empty(&projection.kind));
            let mut position = 0;
            let mut take_all = |document: &mut Arc<Document>, acts: &[Act]| for act in acts {
                position += 1;
                take(document, &projection, position, act);
            };
            take_all(&mut document, &before);
            let mut stayed: BTreeSet<(i64, String)> = ranks(document.items()).into_iter().collect();
            let (mut seen, mut place) = (Vec::new(), None);
            let mut meanwhile = meanwhile.into_iter();
            loop {
                let (items, next) = listed(&document, place.as_ref(), Some(page));
                prop_assert!(next.as_ref().is_none_or(|next| document.has_place(next)));
                prop_assert!(items.len() == page || next.is_none());
                seen.extend(ranks(items));
                let Some(next) = next else { break };
                place = Some(next.to_string().parse().expect("a cursor"));
                take_all(&mut document, &meanwhile.next().unwrap_or_default());
                let there: BTreeSet<_> = ranks(document.items()).into_iter().collect();
                stayed.retain(|item| there.contains(item));
            }
            prop_assert!(seen.is_sorted_by(|a, b| a > b), "{:?}", seen);
            let seen: BTreeSet<_> = seen.into_iter().collect();
            prop_assert!(stayed.is_subset(&seen), "{:?} of {:?}", seen, stayed);
        }
    }

    #[test]
    fn what_no_cursor_tells_apart_stays_together() {
        let projection = projection(KINDS[2], 9, 1);
        let mut document = Arc::new(Document::empty(&projection.kind));
        // One event id for two edges, as a producer may have it that uses ids again.
        for (position, (id, of)) in (1..).zip([("new", "a"), ("same", "b"), ("same", "c"), ("old", "d")]) {
            let order = if id == "old" {
                1
            } else if id == "new" {
                3
            } else {
                2
            };
            let event = event(id, 1, &format!(r#"{{"order":{order},"of":"{of}"}}"#));
            let effect = Effect::of(&projection, &View::new(&event).expect("JSON"), &mut Vec::new()).expect("an order");
            let arrival = Arrival { version: Version::new(1, position), place: (0, position), received: 1 };
            Document::apply(&mut document, &projection.kind, effect, arrival);
        }
        let (mut pages, mut place) = (Vec::new(), None);
        loop {
            let (items, next) = listed(&document, place.as_ref(), Some(1));
            pages.push(items.iter().map(|item| item.id().to_owned()).collect::<Vec<_>>());
            let Some(next) = next else { break };
            place = Some(next);
        }
        assert_eq!(pages, [vec!["new"], vec!["same", "same"], vec!["old"]]);
    }

    /// Cursors can be made up without end; nobody shall keep what they name.
    #[test]
    fn a_place_is_one_of_an_item_or_made_up() {
        for kind in KINDS {
            let projection = projection(kind, 3, 1);
            let mut document = Arc::new(Document::empty(&projection.kind));
            for (position, (order, of, removes)) in
                (1..).zip([(1, 1, false), (2, 2, false), (3, 3, false), (4, 4, false), (5, 3, true)])
            {
                take(&mut document, &projection, position, &Act { order, of, removes });
            }
            let place = |order: i64, id: &str| Before::of(&Item::new(order, id, ""));
            for item in document.items() {
                assert!(document.has_place(&Before::of(item)), "{kind}");
            }
            assert!(document.has_place(&place(4, "e4")));
            for (order, id) in [(4, "e"), (4, "e44"), (3, "e4"), (9, "e9"), (1, "e1"), (i64::MIN, "")] {
                assert!(!document.has_place(&place(order, id)), "{kind} {order} {id}");
            }
            // Of a feed a removed item keeps its place; the newest event of an edge has it.
            let of_removed = if kind.contains("edges") { place(5, "e5") } else { place(3, "e3") };
            assert!(document.has_place(&of_removed) || !kind.contains("remove_on"), "{kind}");
        }
    }

    #[test]
    fn pages_name_each_other() {
        let declaration = r#"
            name = "p"
            kind = "feed"
            key = "{data.user}"
            item = { id = "{id}" }
            [[projection.output]]
            path = "/users/{key}/feed.json"
            format = "json"
            page = 2
        "#;
        let events: Vec<(String, i64)> = (1..=5).map(|n| (format!("e{n}"), n)).collect();
        let events: Vec<(&str, i64, &str)> = events.iter().map(|(id, time)| (id.as_str(), *time, "{}")).collect();
        let pages = pages_of(declaration, "a%20b", &events);
        let link = |at: usize| pages[at].link.as_deref().unwrap_or_default();
        let cursors: Vec<String> = [4, 2].iter().map(|n| Before::of(&item(*n)).to_string()).collect();
        let next = |cursor: &str| format!("</users/a%20b/feed.json?before={cursor}>; rel=\"next\"");
        let first = "</users/a%20b/feed.json>; rel=\"first\"";
        assert_eq!(pages.len(), 3);
        assert_eq!(link(0), next(&cursors[0]));
        assert_eq!(link(1), format!("{first}, {}", next(&cursors[1])));
        assert_eq!(link(2), first);
        let ids = r#""items":[{"id":"e3"},{"id":"e2"}]"#;
        let expected =
            format!(r#"{{"key":"a b","title":"a b",{ids},"next":"/users/a%20b/feed.json?before={}"}}"#, cursors[1]);
        assert_eq!(std::str::from_utf8(&pages[1].body), Ok(expected.as_str()));
    }

    fn item(n: i64) -> Item {
        Item::new(n, &format!("e{n}"), "")
    }
}
