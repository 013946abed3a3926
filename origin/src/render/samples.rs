//! One sample of every output, kept in `tests/outputs`, where parsers and schemas of others are held against them
//! (`tests/validators`). They live apart since those parsers would bring a hundred crates into every build.
//!
//! After an output was changed on purpose: `MILLPOND_CASES=write cargo test -p millpond-origin samples`, then read the
//! difference.

use std::path::Path;

use super::testing::{pages_of, rendered};

const FEED: &str = r#"
    name = "posts"
    kind = "feed"
    key = "{data.user}"
    title = "Posts by <{key}>"
    item = { id = "{data.id}", url = "{data.url}", title = "{data.title}", content_text = "{data.text}", content_html = "{data.html}", date_published = "{data.time}", author = "{data.author}", tags = "{data.tags}", summary = "{data.summary}", score = "{data.score}" }
"#;

const POSTS: [(&str, i64, &str); 4] = [
    (
        "e1",
        1_442_018_818_771_000_000,
        r#"{"id":"https://a.example/1","url":"https://a.example/1","title":"T <&> \"q\"","html":"<p>x &amp; y</p>",
            "text":"x & y","time":"2015-09-12T00:46:58.771Z","author":"A & B","tags":["t","<u>"],"summary":"S < s","score":5}"#,
    ),
    (
        "e 2",
        1_442_018_819_000_000_000,
        r#"{"id":"12:30","url":"/2?q=ü x","text":"a < b\r\n\tc","time":1442018819,"author":{"name":"猫"}}"#,
    ),
    ("e3", 1_442_018_820_000_000_000, "{}"),
    (
        "e4",
        1_442_018_821_000_000_000,
        r#"{"title":"a\u0000\u000b\uffff]]><![CDATA[","html":"\u0000","tags":"one","time":"soon"}"#,
    ),
];

const COUNTER: &str = r#"
    name = "counts"
    kind = "counter"
    key = "{data.user}"
    count = true
    sum = ["data.n"]
    min = ["data.n"]
    max = ["data.x"]
    distinct = ["data.page"]
    windows = [{ every = "1h", keep = "2h" }, { every = "all" }]
"#;

const GROUP: &str = r#"
    name = "countries"
    kind = "group"
    key = "{data.user}"
    by = ["data.country"]
    count = true
    sum = ["data.n"]
    top = 1
    windows = [{ every = "1h", keep = "2h" }, { every = "all" }]
"#;

const MEASURED: [(&str, i64, &str); 3] = [
    ("a", 1_000_000_000, r#"{"n":0.1,"page":"p","country":"Italy"}"#),
    ("b", 3_600_000_000_000, r#"{"n":-2,"page":"q"}"#),
    ("c", 3_700_000_000_000, r#"{"n":"none","page":"q","country":"Italy"}"#),
];

#[test]
fn samples_are_what_is_rendered() {
    for (file, declaration, format, events) in [
        ("feed.json", FEED, "jsonfeed", &POSTS[..]),
        ("feed.atom", FEED, "atom", &POSTS),
        ("feed.rss", FEED, "rss", &POSTS),
        ("activities.json", FEED, "activitystreams", &POSTS),
        ("items.xml", FEED, "xml", &POSTS),
        ("counts.json", COUNTER, "json", &MEASURED),
        ("counts.xml", COUNTER, "xml", &MEASURED),
        ("countries.json", GROUP, "json", &MEASURED),
    ] {
        // Only feeds name themselves, so that a site would have no effect on other outputs.
        let site = if ["json", "xml"].contains(&format) { "" } else { "site = \"https://feeds.example\"" };
        let output = format!("[[projection.output]]\npath = \"/users/{{key}}/{file}\"\nformat = \"{format}\"\n");
        let body = rendered(&format!("{declaration}{site}\n{output}"), "a%20b", events).body;
        assert_kept(file, &body);
    }
}

#[test]
fn samples_of_pages_are_what_is_rendered() {
    for (file, format) in [
        ("feed.json", "jsonfeed"),
        ("feed.atom", "atom"),
        ("feed.rss", "rss"),
        ("activities.json", "activitystreams"),
        ("items.json", "json"),
    ] {
        let output =
            format!("[[projection.output]]\npath = \"/users/{{key}}/{file}\"\nformat = \"{format}\"\npage = 3\n");
        let pages = pages_of(&format!("{FEED}site = \"https://feeds.example\"\n{output}"), "a%20b", &POSTS);
        assert_eq!(pages.len(), 2, "{file}");
        for (page, number) in pages.iter().zip(1..) {
            let (name, extension) = file.split_once('.').expect("an extension");
            assert_kept(&format!("{name}-page-{number}.{extension}"), &page.body);
        }
    }
}

/// Compares with what is kept, or keeps it.
fn assert_kept(file: &str, body: &[u8]) {
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/outputs")).join(file);
    if std::env::var("MILLPOND_CASES").is_ok_and(|value| value == "write") {
        std::fs::write(&file, body).expect("the folder can be written");
    }
    let kept = std::fs::read(&file).unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(&kept), String::from_utf8_lossy(body), "{}", file.display());
}
