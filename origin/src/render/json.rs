//! Plain JSON: a feed's items with key and title, the one item of a `latest`, or measured numbers (pure).
//!
//! Bodies of items are objects already: they are put together, not read again.

use millpond_shared::projection::Kind;
use serde_json::Value;

use super::{Page, address, measured};

pub(super) fn body(page: &Page<'_>) -> Result<Vec<u8>, String> {
    match &page.projection.kind {
        Kind::Feed { .. } | Kind::Followed(_) | Kind::Home(_) | Kind::Edges(_) => Ok(feed(page)),
        Kind::Latest => {
            page.items.first().map(|item| item.body().as_bytes().to_vec()).ok_or("it has no item".to_owned())
        }
        Kind::Counter(counting) => measured::counter(page, counting),
        Kind::Group(grouping) => measured::group(page, grouping),
    }
}

fn feed(page: &Page<'_>) -> Vec<u8> {
    let next = address::of_next(page);
    let mut out = Vec::with_capacity(page.items_bytes() + next.as_ref().map_or(0, String::len) + 128);
    put_head(&mut out, &[("key", &page.plain), ("title", &page.title)]);
    for (index, item) in page.items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item.body().as_bytes());
    }
    out.push(b']');
    if let Some(next) = next {
        out.extend_from_slice(format!(",\"next\":{}", Value::from(next)).as_bytes());
    }
    out.push(b'}');
    out
}

/// `{"name":"value",…,"items":[`
pub(super) fn put_head(out: &mut Vec<u8>, fields: &[(&str, &str)]) {
    out.push(b'{');
    for (name, value) in fields {
        out.extend_from_slice(format!("{}:{},", Value::from(*name), Value::from(*value)).as_bytes());
    }
    out.extend_from_slice(b"\"items\":[");
}

#[cfg(test)]
mod tests {
    use super::super::testing::{rendered, text};

    #[test]
    fn a_feed_lists_its_items_newest_first() {
        let declaration = r#"
            name = "p"
            kind = "feed"
            key = "{data.user}"
            title = "Edits \"by\" {key}"
            item = { n = "{data.n}", id = "{id}" }
        "#;
        let feed = rendered(declaration, "a%2Fb%22", &[("a", 1, r#"{"n":1}"#), ("b", 2, r#"{"n":{"x":[]}}"#)]);
        assert_eq!(
            text(&feed),
            r#"{"key":"a/b\"","title":"Edits \"by\" a/b\"","items":[{"id":"b","n":{"x":[]}},{"id":"a","n":1}]}"#
        );
        assert_eq!(feed.content_type.as_ref(), "application/json");
    }

    #[test]
    fn latest_is_its_item() {
        let declaration = r#"
            name = "p"
            kind = "latest"
            key = "{data.user}"
            item = { n = "{data.n}" }
        "#;
        let latest = rendered(declaration, "k", &[("b", 2, r#"{"n":2}"#), ("a", 1, r#"{"n":1}"#)]);
        assert_eq!(text(&latest), r#"{"n":2}"#);
    }
}
