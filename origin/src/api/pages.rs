//! Which page of a document is asked for: `?before=CURSOR` (pure).

use bytes::Bytes;
use http::{Response, StatusCode};
use millpond_shared::projection::Kind;

use crate::http::refusal;
use crate::projection::Before;
use crate::render::BEFORE;

/// Where the page begins that `query` asks for: at the newest item without `before`. 400 if that is no cursor.
///
/// Like every parameter that it does not know, a document that is no list ignores it.
pub(super) fn asked(kind: &Kind, query: Option<&str>) -> Result<Option<Before>, Box<Response<Bytes>>> {
    if kind.lists().is_none() {
        return Ok(None);
    }
    let parameters = query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut given = parameters.filter(|(name, _)| *name == BEFORE).map(|(_, value)| value);
    let Some(cursor) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(wrong("stands there twice"));
    }
    cursor.parse().map(Some).map_err(|why: crate::projection::NoCursor| wrong(&why.to_string()))
}

fn wrong(problem: &str) -> Box<Response<Bytes>> {
    let fix = "take it as the page before names it in `next`, or leave it out for the first page";
    Box::new(refusal(StatusCode::BAD_REQUEST, format!("`{BEFORE}` {problem}"), fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEED: Kind = Kind::Feed { keep: 5, removal: None };

    #[test]
    fn a_page_is_asked_for_by_one_cursor() {
        let place: Before = "AQAAAAAAAAAAYQ".parse().expect("a cursor");
        for (query, expected) in [
            (None, None),
            (Some(""), None),
            (Some("x=1&beforehand=AQ&after=2"), None),
            (Some("before=AQAAAAAAAAAAYQ"), Some(place.clone())),
            (Some("x=1&before=AQAAAAAAAAAAYQ&y"), Some(place)),
        ] {
            assert_eq!(asked(&FEED, query).expect("good"), expected, "{query:?}");
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused_with_words_where_there_are_pages() {
        let words = |query| {
            let refused = *asked(&FEED, Some(query)).expect_err("refused");
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{query}");
            let body: serde_json::Value = serde_json::from_slice(refused.body()).expect("JSON");
            assert!(body["fix"].as_str().is_some_and(|fix| fix.contains("`next`")), "{body}");
            body["error"].as_str().expect("text").to_owned()
        };
        for query in ["before", "before=", "before=2", "before=AQAAAAAAAAAAYQ%20", "before=AQAAAAAAAAAAYQ=="] {
            assert_eq!(words(query), "`before` is no cursor of this server", "{query}");
            assert_eq!(asked(&Kind::Latest, Some(query)).expect("ignored"), None, "{query}");
        }
        assert_eq!(words("before=AQAAAAAAAAAAYQ&before=AQAAAAAAAAAAYQ"), "`before` stands there twice");
    }
}
