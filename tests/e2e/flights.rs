//! One fetch, many clients: who waits for it, what they get, and what happens when it dies.

use crate::e2e::proxy_before;
use crate::harness::client::{Connection, End, Request, get};
use crate::harness::metrics::Metrics;
use crate::harness::origin::{Answer, Gate, ScriptedOrigin};
use crate::harness::witness::Witness;

#[test]
fn fifty_misses_at_once_make_one_fetch() {
    let origin = ScriptedOrigin::start();
    let (head, rest) = (Gate::closed(), Gate::closed());
    origin.answer("/api/a", Answer::ok("first half, ").held_by(&head).then_when(&rest, "second half"));
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let witness = Witness::of(&pond);

    let mut clients: Vec<Connection> = (0..50).map(|_| Connection::open(pond.proxy())).collect();
    clients.iter_mut().for_each(|client| client.send_request(&Request::get("/api/a")));
    origin.wait_for_requests("/api/a", 1);
    head.open();
    // Everyone has joined before the body is whole: whoever came later would be a hit.
    let heads: Vec<_> = clients.iter_mut().map(|client| client.head().expect("an answer")).collect();
    rest.open();
    for (client, head) in clients.iter_mut().zip(heads) {
        let answer = client.rest("GET", head);
        assert_eq!((answer.text().as_str(), answer.end), ("first half, second half", End::Length));
        witness.note(&answer);
    }

    witness.all_agree();
    let metrics = Metrics::of(pond.admin());
    let count = |outcome| metrics.sum("millpond_requests_total", &[("outcome", outcome)]);
    assert_eq!((count("miss"), count("collapsed")), (1.0, 49.0));
    // The last byte may reach a client before it is stored.
    witness.get_until("/api/a", "hit", &["collapsed"]);
    assert_eq!(origin.count("/api/a"), 1);
}

/// A fill that dies must never look like a short answer: to nobody, however the origin framed it.
#[test]
fn a_fill_that_dies_ends_cleanly_for_nobody() {
    const WAITERS: usize = 100;
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    for (path, answer) in [("/api/length", Answer::ok("begun ")), ("/api/chunked", Answer::ok("begun ").chunked())] {
        let gate = Gate::closed();
        origin.answer(path, answer.then_dies_when(&gate));
        let mut clients: Vec<Connection> = (0..WAITERS).map(|_| Connection::open(pond.proxy())).collect();
        clients.iter_mut().for_each(|client| client.send_request(&Request::get(path)));
        let heads: Vec<_> = clients.iter_mut().map(|client| client.head().expect("an answer")).collect();
        gate.open();
        for (client, head) in clients.iter_mut().zip(heads) {
            let answer = client.rest("GET", head);
            assert_eq!(answer.end, End::Cut, "{path}: {answer:?}");
        }
        assert_eq!(origin.count(path), 1);

        origin.answer(path, Answer::ok("whole"));
        let answer = get(pond.proxy(), path);
        assert_eq!((answer.text().as_str(), answer.detail()), ("whole", "miss/not-cached"), "nothing of it was kept");
    }
    pond.wait_for_access(2 * WAITERS, |line| line["reason"] == "origin-truncated" && line["broken_off"] == true);
}

/// Whoever asked first has no part in the fill: it may leave.
#[test]
fn a_fill_outlives_the_client_that_caused_it() {
    let origin = ScriptedOrigin::start();
    let gate = Gate::closed();
    origin.answer("/api/a", Answer::ok("first half, ").then_when(&gate, "second half"));
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let [mut first, mut second] = [(); 2].map(|()| {
        let mut client = Connection::open(pond.proxy());
        client.send_request(&Request::get("/api/a"));
        let head = client.head().expect("an answer");
        (client, head)
    });
    assert_eq!((first.1.outcome(), second.1.outcome()), ("miss", "collapsed"));
    first.0.some();
    drop(first);
    gate.open();
    let answer = second.0.rest("GET", second.1);
    assert_eq!((answer.text().as_str(), answer.end), ("first half, second half", End::Length));
    Witness::of(&pond).get_until("/api/a", "hit", &["collapsed"]);
    assert_eq!(origin.count("/api/a"), 1);
}

/// What turns out to be for one client only is fetched by each of those that waited for it.
#[test]
fn nobody_is_given_what_was_meant_for_another() {
    const CLIENTS: usize = 20;
    let origin = ScriptedOrigin::start();
    let gate = Gate::closed();
    let held = gate.clone();
    origin.answer_by("/api/me", move |request| {
        let name = request.field("x-name").unwrap_or("nobody");
        Answer::ok(name).field("Cache-Control", "private").held_by(&held)
    });
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let witness = Witness::of(&pond);
    let mut clients: Vec<Connection> = (0..CLIENTS).map(|_| Connection::open(pond.proxy())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send_request(&Request::get("/api/me").field("X-Name", &number.to_string()));
    }
    origin.wait_for_requests("/api/me", 1);
    gate.open();
    for (number, client) in clients.iter_mut().enumerate() {
        let answer = client.receive("GET");
        assert_eq!((answer.text(), answer.detail()), (number.to_string(), "miss/private"));
        witness.note(&answer);
    }
    assert_eq!(origin.count("/api/me"), CLIENTS);
    witness.all_agree();
}

#[test]
fn waiters_of_another_variant_fetch_their_own() {
    let origin = ScriptedOrigin::start();
    let gate = Gate::closed();
    let held = gate.clone();
    origin.answer_by("/api/a", move |request| {
        let language = request.field("accept-language").unwrap_or("none");
        Answer::ok(language).field("Vary", "Accept-Language").held_by(&held)
    });
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let languages = ["en", "de", "en", "de", "fr"];
    let mut clients = languages.map(|language| {
        let mut client = Connection::open(pond.proxy());
        client.send_request(&Request::get("/api/a").field("Accept-Language", language));
        client
    });
    origin.wait_for_requests("/api/a", 1);
    gate.open();
    for (client, language) in clients.iter_mut().zip(languages) {
        assert_eq!(client.receive("GET").text(), language);
        let again = client.ask(&Request::get("/api/a").field("Accept-Language", language));
        assert_eq!((again.text().as_str(), again.detail()), (language, "hit"));
    }
}
