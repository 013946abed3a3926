//! Parts of responses that are stored in part, or not at all.

use crate::e2e::plain_proxy::plain;
use crate::e2e::ranges::{DIGITS, FRESH, part, parts_of, ranged, told};
use crate::harness::client::{End, Request, get, post};
use crate::harness::origin::{Answer, Gate, ScriptedOrigin};
use crate::harness::witness::Witness;

#[test]
fn a_part_that_came_is_kept_and_answers_what_it_holds() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/a", ranged(DIGITS, &FRESH));
    let pond = plain(&origin, &[]);
    let witness = Witness::of(&pond);
    for (range, expected, detail, asked) in [
        ("bytes=5-9", (206, "bytes 5-9/20", "56789"), "miss/not-cached", 1),
        ("bytes=5-9", (206, "bytes 5-9/20", "56789"), "hit", 1),
        ("bytes=6-7", (206, "bytes 6-7/20", "67"), "hit", 1),
        ("bytes=4-7", (206, "bytes 4-7/20", "4567"), "miss/partial", 2),
        ("bytes=4-9", (206, "bytes 4-9/20", "456789"), "hit", 2),
        ("bytes=-2", (206, "bytes 18-19/20", "ij"), "miss/partial", 3),
        ("bytes=18-", (206, "bytes 18-19/20", "ij"), "hit", 3),
        ("bytes=9-18", (206, "bytes 9-18/20", "9abcdefghi"), "miss/partial", 4),
        ("bytes=4-", (206, "bytes 4-19/20", "456789abcdefghij"), "hit", 4),
    ] {
        let answer = witness.ask(&part("/a", range));
        let (status, told_range, body) = told(&answer);
        assert_eq!(((status, told_range, body.as_str()), answer.detail()), (expected, detail), "{range}");
        assert_eq!(origin.count("/a"), asked, "{range}");
    }
    let several = witness.ask(&part("/a", "bytes=5-6,18-19"));
    assert_eq!((several.status(), several.detail()), (206, "hit"));
    assert_eq!(parts_of(several.field("content-type").unwrap_or_default(), &several.body).len(), 2);
    let known = witness.ask(&part("/a", "bytes=5-6").field("If-None-Match", "\"v\""));
    assert_eq!((known.status(), known.detail()), (304, "hit"));
    let held = part("/a", "bytes=5-6").field("Cache-Control", "only-if-cached");
    assert_eq!(witness.ask(&held).detail(), "hit");
    let missing = part("/a", "bytes=0-6").field("Cache-Control", "only-if-cached");
    assert_eq!(witness.ask(&missing).status(), 504);
    assert_eq!(origin.count("/a"), 4);
    // What is missing completes it.
    assert_eq!(witness.ask(&part("/a", "bytes=0-3")).detail(), "miss/partial");
    let whole = witness.get("/a");
    assert_eq!((told(&whole), whole.detail()), ((200, "", DIGITS.to_owned()), "hit"));
    assert_eq!(witness.ask(&part("/a", "bytes=30-")).status(), 416);
    assert_eq!(origin.count("/a"), 5);
    witness.all_agree();
}

#[test]
fn a_part_is_never_taken_for_the_whole() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    type Asking = fn(&str) -> Request;
    let requests: [(Asking, &str); 7] = [
        (Request::get, "miss/partial"),
        (Request::head, "miss/partial"),
        (|path| Request::get(path).field("Cache-Control", "only-if-cached"), "error/only-if-cached"),
        (|path| part(path, "bytes=0-10"), "miss/partial"),
        (|path| part(path, "bytes=0-9,12-13"), "miss/partial"),
        (|path| part(path, "bytes=0-9").field("If-Range", "\"w\""), "miss/partial"),
        (|path| part(path, "bytes=90-"), "pass/range"),
    ];
    for (index, (request, detail)) in requests.into_iter().enumerate() {
        let path = format!("/{index}");
        origin.answer_by(&path, ranged(DIGITS, &FRESH));
        for detail in ["miss/not-cached", "hit"] {
            assert_eq!(part(&path, "bytes=0-9").ask(pond.proxy()).detail(), detail);
        }
        assert_eq!(request(&path).ask(pond.proxy()).detail(), detail, "{index}");
    }
    // The whole takes the place of the part.
    assert_eq!(part("/0", "bytes=3-15").ask(pond.proxy()).detail(), "hit");
    assert_eq!(get(pond.proxy(), "/0").detail(), "hit");
}

#[test]
fn parts_are_purged() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/a", ranged(DIGITS, &FRESH));
    let pond = plain(&origin, &[]);
    let detail = || part("/a", "bytes=0-9").ask(pond.proxy()).detail().to_owned();
    assert_eq!((detail().as_str(), detail().as_str()), ("miss/not-cached", "hit"));
    for (purge, first) in [("all", "miss/partial"), ("all&mode=delete", "miss/not-cached")] {
        assert_eq!(post(pond.admin(), &format!("/purge?{purge}"), "").json()["objects"], 1);
        assert_eq!((detail().as_str(), detail().as_str()), (first, "hit"), "{purge}");
    }
    // A request that changes it.
    post(pond.proxy(), "/a", "x");
    assert_eq!(detail(), "miss/not-cached");
}

#[test]
fn a_part_that_is_all_of_it_is_the_whole() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/a", ranged(DIGITS, &[("Cache-Control", "max-age=600"), ("Content-MD5", "x")]));
    let pond = plain(&origin, &[]);
    let all = part("/a", "bytes=0-").ask(pond.proxy());
    assert_eq!((told(&all), all.detail()), ((206, "bytes 0-19/20", DIGITS.to_owned()), "miss/not-cached"));
    let whole = get(pond.proxy(), "/a");
    assert_eq!((told(&whole), whole.detail()), ((200, "", DIGITS.to_owned()), "hit"));
    assert_eq!(whole.field("content-md5"), None, "of that message only");
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn parts_of_different_things_are_not_put_together() {
    for (first, second, joins) in
        [("\"v\"", "\"v\"", true), ("\"v\"", "\"w\"", false), ("W/\"v\"", "W/\"v\"", false), ("", "", false)]
    {
        let origin = ScriptedOrigin::start();
        let pond = plain(&origin, &[]);
        for (tag, range) in [(first, "bytes=0-9"), (second, "bytes=10-19")] {
            origin.answer_by("/a", ranged(DIGITS, &[("Cache-Control", "max-age=600"), ("ETag", tag)]));
            assert_eq!(part("/a", range).ask(pond.proxy()).outcome(), "miss");
        }
        assert_eq!(part("/a", "bytes=12-13").ask(pond.proxy()).detail(), "hit", "the newer one is there");
        let whole = get(pond.proxy(), "/a");
        assert_eq!(whole.outcome(), if joins { "hit" } else { "miss" }, "{first} and {second}");
        assert_eq!(whole.text(), DIGITS);
    }
}

#[test]
fn an_origin_without_ranges_gets_them() {
    let origin = ScriptedOrigin::start();
    origin.answer("/a", Answer::ok(DIGITS).field("Cache-Control", "max-age=600"));
    let pond = plain(&origin, &[]);
    let first = part("/a", "bytes=2-3").ask(pond.proxy());
    assert_eq!((told(&first), first.detail()), ((206, "bytes 2-3/20", "23".to_owned()), "miss/not-cached"));
    assert_eq!(
        origin.requests("/a").first().and_then(|seen| seen.field("range").map(str::to_owned)).as_deref(),
        Some("bytes=2-3")
    );
    assert_eq!((get(pond.proxy(), "/a").detail(), origin.count("/a")), ("hit", 1));
}

#[test]
fn what_is_no_simple_part_is_handed_through() {
    let whole = ("Cache-Control", "max-age=600");
    let (long, odd) = ("bytes 0-5/20", "bytes 5-0/20");
    let several = "--b\r\nContent-Range: bytes 0-0/20\r\n\r\n0\r\n--b--\r\n";
    let cases: [(Answer, &str); 8] = [
        (Answer::status(206, "0").field("Content-Range", long), "pass/range"),
        (Answer::status(206, "0").field("Content-Range", odd), "pass/range"),
        (Answer::status(206, "0").field("Content-Range", "bytes 0-0/*"), "pass/range"),
        (Answer::status(206, "0").field("Content-Range", "items 0-0/20"), "pass/range"),
        (Answer::status(206, "0"), "pass/range"),
        (Answer::status(206, several).field("Content-Type", "multipart/byteranges; boundary=b"), "pass/range"),
        (Answer::status(416, "none").field("Content-Range", "bytes */20"), "pass/range"),
        (
            Answer::status(206, "0").field("Content-Range", "bytes 0-0/20").field("Cache-Control", "no-store"),
            "miss/no-store",
        ),
    ];
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    let witness = Witness::of(&pond);
    for (index, (answer, detail)) in cases.into_iter().enumerate() {
        let path = format!("/{index}");
        origin.answer(&path, answer.field(whole.0, whole.1));
        for asked in 1..=2 {
            let got = witness.ask(&part(&path, "bytes=0-0"));
            assert_eq!((got.detail(), origin.count(&path)), (detail, asked), "{index}");
            assert_eq!(got.status(), if index == 6 { 416 } else { 206 });
        }
        origin.answer(&path, Answer::ok(DIGITS));
        assert_eq!(witness.get(&path).text(), DIGITS, "{index}");
    }
    // In chunks the length is known at the end only: then it is kept if it is what it said.
    for (path, body, then) in [("/true", "01234", "hit"), ("/false", "0123", "miss")] {
        let answer = Answer::status(206, body).field("Content-Range", "bytes 0-4/20").field(whole.0, whole.1);
        origin.answer(path, answer.chunked());
        assert_eq!(witness.ask(&part(path, "bytes=0-4")).detail(), "miss/not-cached");
        assert_eq!(witness.ask(&part(path, "bytes=0-3")).outcome(), then, "{path}");
    }
    witness.all_agree();
}

#[test]
fn a_part_that_broke_off_is_not_kept() {
    let origin = ScriptedOrigin::start();
    let gate = Gate::closed();
    let answer =
        Answer::status(206, "0123").field("Content-Range", "bytes 0-999999/2000000").field(FRESH[0].0, FRESH[0].1);
    origin.answer("/a", answer.then_dies_when(&gate));
    let pond = plain(&origin, &[]);
    gate.open();
    let broken = part("/a", "bytes=0-").ask(pond.proxy());
    assert_eq!((broken.status(), broken.end, broken.text().as_str()), (206, End::Cut, "0123"));
    origin.answer_by("/a", ranged(DIGITS, &FRESH));
    assert_eq!(part("/a", "bytes=0-1").ask(pond.proxy()).detail(), "miss/not-cached");
}

#[test]
fn parts_of_variants_are_kept_apart() {
    let origin = ScriptedOrigin::start();
    let fields = [("Cache-Control", "max-age=600"), ("Vary", "Accept-Language"), ("ETag", "\"v\"")];
    let (german, english) = (ranged("null eins zwei", &fields), ranged("zero one two", &fields));
    origin.answer_by(
        "/a",
        move |seen| if seen.field("accept-language") == Some("de") { german(seen) } else { english(seen) },
    );
    let pond = plain(&origin, &[]);
    let ask = |language: &str, range: &str| part("/a", range).field("Accept-Language", language).ask(pond.proxy());
    for (language, body, detail) in
        [("de", "null", "miss/not-cached"), ("en", "zero", "miss/vary"), ("de", "null", "hit"), ("en", "zero", "hit")]
    {
        let answer = ask(language, "bytes=0-3");
        assert_eq!((answer.text().as_str(), answer.detail()), (body, detail));
    }
    assert_eq!(ask("en", "bytes=4-").text(), " one two");
    assert_eq!((ask("en", "bytes=0-").text().as_str(), ask("en", "bytes=0-").detail()), ("zero one two", "hit"));
    assert_eq!((ask("de", "bytes=1-2").text().as_str(), origin.count("/a")), ("ul", 3));
}
