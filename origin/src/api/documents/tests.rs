//! What a shard server answers, by the fields of its answers.

use futures_util::StreamExt;
use millpond_shared::shard_map::{FirstMap, ShardMap};
use millpond_shared::version::Version;
use millpond_shared::wire::Change;
use tokio::sync::watch;

use super::*;
use crate::projection::testing::{declared, event};
use crate::queue::testing::{NoMaps, OneMap};
use crate::shard::testing::{Call, Site};

const DECLARATION: &str = r#"
    name = "p"
    kind = "feed"
    key = "{data.user}"
    item = { id = "{id}" }
    [[projection.output]]
    path = "/users/{key}/feed.json"
    format = "json"
    cache_control = "public, max-age=5"
"#;

const REFRESHED: &str = r#"
    name = "p"
    kind = "feed"
    key = "{data.user}"
    item = { id = "{id}" }
    refresh = "1500ms"
    [[projection.output]]
    path = "/users/{key}/feed.json"
    format = "json"
"#;

/// One document, `a b`, at position 1, on shard 0 of two; a key of the other shard; the documents' door.
struct Scene {
    site: Site,
    documents: Documents,
    elsewhere: String,
    stop: watch::Sender<bool>,
}

async fn scene() -> Scene {
    scene_of(DECLARATION).await
}

async fn scene_of(declaration: &str) -> Scene {
    let map = Arc::new(ShardMap::even(1, 2));
    let shard = map.owner_of("p", "a%20b").shard;
    let site = Site { shard, map: map.clone(), ..Site::new(declared(declaration)) };
    let opened = site.open();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn({
        let shard = opened.clone();
        async move { shard.run(stopped).await }
    });
    site.push(event("1", 5_000, r#"{"user":"a b"}"#));
    opened.applied().wait_for(|applied| *applied == 1).await.expect("applied");
    let elsewhere = (0..).map(|n| n.to_string()).find(|key| map.owner_of("p", key).shard != shard);
    let first = FirstMap { version: 1, shards: 2 };
    let known = KnownMap::new(Arc::new(OneMap(MapState::first(first))), first);
    known.tell(MapState::first(first));
    let documents = Documents::new(site.projections.clone(), known, [opened]);
    Scene { site, documents, elsewhere: elsewhere.expect("a key"), stop }
}

impl Scene {
    async fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        Origin::answer(&self.documents, request.body(Bytes::new()).expect("a request")).await
    }

    async fn get(&self, path: &str, fields: &[(&str, &str)]) -> Response<Bytes> {
        self.ask("GET", path, fields).await
    }
}

fn field<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

fn words(response: &Response<Bytes>) -> String {
    let body: serde_json::Value = serde_json::from_slice(response.body()).expect("JSON");
    format!("{} {}", body["error"].as_str().expect("error"), body["fix"].as_str().expect("fix"))
}

#[tokio::test]
async fn a_document_comes_with_all_that_a_proxy_needs() {
    let scene = scene().await;
    for path in ["/users/a%20b/feed.json", "/users/%61%20b/feed.json?x=1"] {
        let response = scene.get(path, &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.body(), r#"{"key":"a b","title":"a b","items":[{"id":"1"}]}"#.as_bytes());
        for (name, expected) in [
            ("content-type", "application/json"),
            ("last-modified", "Thu, 01 Jan 1970 00:00:05 GMT"),
            ("cache-control", "public, max-age=5"),
            ("cache-tag", "p/a%20b"),
            ("millpond-version", "1-1"),
            ("millpond-position", "1"),
            ("millpond-shard", &scene.site.shard.to_string()),
        ] {
            assert_eq!(field(&response, name), expected, "{name}");
        }
        assert!(field(&response, "etag").starts_with("\"1-1-"));
    }
}

#[tokio::test]
async fn head_tells_the_length_and_304_the_validators() {
    let scene = scene().await;
    let whole = scene.get("/users/a%20b/feed.json", &[]).await;
    let head = scene.ask("HEAD", "/users/a%20b/feed.json", &[]).await;
    assert_eq!((head.status(), head.body().len()), (StatusCode::OK, 0));
    assert_eq!(field(&head, "content-length"), whole.body().len().to_string());

    let etag = field(&whole, "etag").to_owned();
    for method in ["GET", "HEAD"] {
        let same = scene.ask(method, "/users/a%20b/feed.json", &[("if-none-match", &etag)]).await;
        assert_eq!((same.status(), same.body().len()), (StatusCode::NOT_MODIFIED, 0));
        for name in ["etag", "cache-control", "cache-tag", "millpond-version", "millpond-position", "last-modified"] {
            assert_eq!(field(&same, name), field(&whole, name), "{name}");
        }
    }
}

#[tokio::test]
async fn a_proxy_is_told_for_how_long_a_changed_document_will_do() {
    let (plain, refreshed) = (scene().await, scene_of(REFRESHED).await);
    let path = "/users/a%20b/feed.json";
    assert_eq!(field(&plain.get(path, &[]).await, "millpond-refresh"), "");
    let whole = refreshed.get(path, &[]).await;
    let same = refreshed.get(path, &[("if-none-match", field(&whole, "etag"))]).await;
    assert_eq!((same.status(), field(&same, "millpond-refresh")), (StatusCode::NOT_MODIFIED, "1500"));
    assert_eq!(field(&whole, "millpond-refresh"), "1500");
    let owner = |key: &String| refreshed.site.map.owner_of("p", key).shard;
    let unused = (0..).map(|n| format!("nobody-{n}")).find(|key| owner(key) == refreshed.site.shard);
    let nothing = refreshed.get(&format!("/users/{}/feed.json", unused.expect("a key")), &[]).await;
    assert_eq!((nothing.status(), field(&nothing, "millpond-refresh")), (StatusCode::NOT_FOUND, ""));
}

#[tokio::test]
async fn who_asks_for_the_newest_is_told_where_the_queue_ends_or_that_nobody_knows() {
    let scene = scene().await;
    let ask = async |fields: &[(&str, &str)]| {
        let response = scene.get("/users/a%20b/feed.json", fields).await;
        assert_eq!(response.status(), StatusCode::OK);
        ["millpond-newest", "millpond-map-version", "millpond-behind", "cache-control"]
            .map(|name| field(&response, name).to_owned())
    };
    let newest = [("millpond-newest", "?1")];
    assert_eq!(ask(&newest).await, ["1", "1", "", "public, max-age=5"]);
    scene.site.queue.is_cut_off.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(ask(&newest).await, ["", "", "unknown", "no-store"]);
    assert_eq!(ask(&[]).await, ["", "", "", "public, max-age=5"], "nobody asked the queue");
}

#[tokio::test]
async fn who_asks_for_the_newest_is_told_if_nobody_knows_whose_the_document_is() {
    let Scene { site, documents, stop: _stop, .. } = scene().await;
    let first = FirstMap { version: 1, shards: 2 };
    let known = KnownMap::new(Arc::new(NoMaps), first);
    known.tell(MapState::first(first));
    let documents = Documents { map: known, ..documents };
    let request = Request::get("/users/a%20b/feed.json").header(headers::NEWEST, "?1");
    let response = Origin::answer(&documents, request.body(Bytes::new()).expect("a request")).await;
    assert_eq!((response.status(), field(&response, "millpond-behind")), (StatusCode::OK, "unknown"));
    assert!(!site.queue.calls.lock().contains(&Call::Other("newest")), "it would not help");
}

#[tokio::test]
async fn a_document_without_events_can_be_kept_until_the_first() {
    let scene = scene().await;
    let mut unused = (0..).map(|n| format!("nobody-{n}"));
    let unused = unused.find(|key| scene.site.map.owner_of("p", key).shard == scene.site.shard).expect("a key");
    let response = scene.get(&format!("/users/{unused}/feed.json"), &[("if-none-match", "*")]).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(words(&response).contains(&format!("`p/{unused}`")));
    assert_eq!(field(&response, "cache-tag"), format!("p/{unused}"));
    assert_eq!((field(&response, "millpond-version"), field(&response, "millpond-position")), ("1-0", "1"));
    assert_eq!(field(&response, "cache-control"), "public, max-age=5");
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let scene = scene().await;
    let path = "/users/a%20b/feed.json";
    for (response, status, says) in [
        (scene.get("/users/a/b/feed.json", &[]).await, 404, "/users/{key}/feed.json"),
        (scene.get("/_millpond/shards/0/changes", &[]).await, 404, "/users/{key}/feed.json"),
        (scene.get(&format!("/users/{}/feed.json", scene.elsewhere), &[]).await, 421, "[shard_map]"),
        (scene.ask("POST", path, &[]).await, 405, "GET, HEAD"),
        (scene.get(path, &[("millpond-least-position", "-1")]).await, 400, "decimal"),
        (scene.get(path, &[("millpond-least-position", "2")]).await, 503, "position 1, 2 is asked for"),
    ] {
        assert_eq!(response.status().as_u16(), status);
        assert!(words(&response).contains(says), "{status}: {}", words(&response));
        assert_eq!(field(&response, "cache-control"), "no-store", "{status}");
        assert_eq!(field(&response, "retry-after"), if status == 503 { "1" } else { "" });
        assert_eq!(field(&response, "allow"), if status == 405 { "GET, HEAD" } else { "" });
    }
    let reached = scene.get(path, &[("millpond-least-position", "1")]).await;
    assert_eq!(reached.status(), StatusCode::OK);
}

async fn handled(scene: &Scene, method: &str, path: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).body(Bytes::new()).expect("a request");
    scene.documents.handle(request).await
}

#[tokio::test]
async fn the_change_stream_is_lines_of_json() {
    let scene = scene().await;
    let path = headers::changes_path(scene.site.shard, Some(0));
    let Answer::Stream(parts, mut pieces) = handled(&scene, "GET", &path).await else { panic!("no stream") };
    assert_eq!(parts.headers["content-type"], "application/x-ndjson");
    let first = pieces.next().await.expect("a piece");
    let messages: Vec<_> =
        first.split_inclusive(|b| *b == b'\n').map(|line| ChangeMessage::from_line(line).expect("a line")).collect();
    let documents = vec![Change { tag: "p/a%20b".to_owned(), version: Version::new(1, 1) }];
    assert!(matches!(messages[0], ChangeMessage::Hello { resumed: true, at: 1, .. }), "{messages:?}");
    assert_eq!(messages[1], ChangeMessage::Changes { at: 1, documents });

    scene.stop.send_replace(true);
    while pieces.next().await.is_some() {}
    let Answer::Full(stopped) = handled(&scene, "GET", &path).await else { panic!("a stopped shard streams") };
    assert_eq!(stopped.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn the_change_stream_is_refused_in_words() {
    let scene = scene().await;
    let (here, away) = (scene.site.shard, 1 - scene.site.shard);
    for (method, path, status) in [
        ("POST", format!("/_millpond/shards/{here}/changes"), 405),
        ("GET", format!("/_millpond/shards/{away}/changes"), 421),
        ("GET", format!("/_millpond/shards/{here}/changes?after=x"), 400),
        ("GET", format!("/_millpond/shards/{here}/changes?before=1"), 400),
        ("GET", format!("/_millpond/shards/{here}/change"), 404),
        ("GET", "/_millpond/shards/+1/changes".to_owned(), 404),
    ] {
        let Answer::Full(response) = handled(&scene, method, &path).await else { panic!("{method} {path}") };
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        assert!(!words(&response).is_empty());
    }
    assert!(scene.documents.follow(away, Follow::default()).is_none());
    assert!(scene.documents.follow(here, Follow::default()).is_some());
}
