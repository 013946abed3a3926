//! One fetch, many clients: who waits for it, what they get, and what happens when it dies.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millpond_shared::clock;

use crate::e2e::proxy_before;
use crate::e2e::sharing::wait_for_waiters;
use crate::harness::client::{Connection, End, Request, get};
use crate::harness::metrics::Metrics;
use crate::harness::origin::{Answer, Gate, ScriptedOrigin};
use crate::harness::process::Millpond;
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

/// Those who waited in vain ask neither all at once, nor one after another.
#[test]
fn those_who_waited_in_vain_ask_so_many_at_a_time() {
    const CLIENTS: usize = 100;
    const AT_A_TIME: usize = 32;
    let origin = ScriptedOrigin::start();
    let (first, others) = (Gate::closed(), Gate::closed());
    let (asked, asking, most) = (AtomicUsize::new(0), AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let (before_first, before_others, seen) = (first.clone(), others.clone(), Arc::clone(&most));
    origin.answer_by("/api/me", move |_| {
        let now = asking.fetch_add(1, Ordering::SeqCst) + 1;
        if asked.fetch_add(1, Ordering::SeqCst) == 0 {
            before_first.wait();
        } else {
            seen.fetch_max(now, Ordering::SeqCst);
            before_others.wait();
        }
        asking.fetch_sub(1, Ordering::SeqCst);
        Answer::ok("mine").field("Cache-Control", "private")
    });
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let mut clients: Vec<Connection> = (0..CLIENTS).map(|_| Connection::open(pond.proxy())).collect();
    clients.iter_mut().for_each(|client| client.send_request(&Request::get("/api/me")));
    wait_for_waiters(&pond, CLIENTS - 1);
    first.open();
    origin.wait_for_requests("/api/me", 1 + AT_A_TIME);
    wait_for_waiters(&pond, CLIENTS - 1 - AT_A_TIME);
    assert_eq!(origin.count("/api/me"), 1 + AT_A_TIME);
    others.open();
    for client in &mut clients {
        let answer = client.receive("GET");
        assert_eq!((answer.text().as_str(), answer.detail()), ("mine", "miss/private"));
    }
    assert_eq!(origin.count("/api/me"), CLIENTS);
    let most = most.load(Ordering::SeqCst);
    assert!(most <= AT_A_TIME, "{most} at a time");
}

/// The first of them brings what the others can have.
#[test]
fn those_who_waited_for_another_variant_do_not_all_ask_for_theirs() {
    const CLIENTS: usize = 100;
    let origin = ScriptedOrigin::start();
    let gate = Gate::closed();
    let held = gate.clone();
    origin.answer_by("/api/a", move |request| {
        let language = request.field("accept-language").unwrap_or("none");
        let answer = Answer::ok(language).field("Vary", "Accept-Language");
        if language == "en" { answer.held_by(&held) } else { answer }
    });
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let mut first = Connection::open(pond.proxy());
    first.send_request(&Request::get("/api/a").field("Accept-Language", "en"));
    origin.wait_for_requests("/api/a", 1);
    let mut others: Vec<Connection> = (0..CLIENTS).map(|_| Connection::open(pond.proxy())).collect();
    others.iter_mut().for_each(|client| client.send_request(&Request::get("/api/a").field("Accept-Language", "de")));
    wait_for_waiters(&pond, CLIENTS);
    gate.open();
    assert_eq!(first.receive("GET").text(), "en");
    others.iter_mut().for_each(|client| assert_eq!(client.receive("GET").text(), "de"));
    let asked = origin.count("/api/a");
    assert!(asked <= 1 + 32, "{asked} requests");
}

/// A body whose end is that of the connection: what broke off must not look whole.
#[test]
fn a_cut_answer_does_not_look_whole_to_a_client_of_version_1_0() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], "");
    for (path, cache_control) in [("/api/shared", "max-age=60"), ("/api/own", "no-store")] {
        let gate = Gate::closed();
        let dying = Answer::ok("begun ").field("Cache-Control", cache_control).chunked();
        origin.answer(path, dying.then_when(&gate, "and ").then_dies());
        let mut client = Connection::open(pond.proxy());
        client.send(format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n"));
        let head = client.head().expect("an answer");
        assert_eq!((head.field("content-length"), head.field("transfer-encoding")), (None, None));
        gate.open();
        assert_eq!(client.rest("GET", head).end, End::Cut, "{path}");
        // And what is whole looks so.
        origin.answer(path, Answer::ok("whole").chunked().field("Cache-Control", "no-store"));
        let mut client = Connection::open(pond.proxy());
        client.send(format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n"));
        let answer = client.receive("GET");
        assert_eq!((answer.text().as_str(), answer.end), ("whole", End::Close), "{path}");
    }
}

/// Of a body that is too large to be stored the log holds a part at a time: the slowest reader must not be everybody's.
#[test]
fn one_slow_reader_does_not_slow_the_others() {
    // More than sockets and the log take in between.
    const LENGTH: usize = 24 << 20;
    let origin = ScriptedOrigin::start();
    let gate = Gate::closed();
    let answer = Answer::ok("a").field("Cache-Control", "max-age=60").chunked();
    origin.answer("/large", answer.then_when(&gate, "b".repeat(LENGTH - 1)));
    let to = origin.address().to_string();
    let pond = Millpond::start(&["proxy", "--listen", "127.0.0.1:0", "--to", &to, "--memory", "1MiB"], &["proxy"]);
    let mut readers = [(); 3].map(|()| {
        let mut client = Connection::open(pond.proxy());
        client.send_request(&Request::get("/large"));
        client
    });
    let heads = readers.each_mut().map(|client| client.head().expect("an answer"));
    gate.open();
    let [mut slow, mut second, mut third] = readers;
    let [slow_head, second_head, third_head] = heads;
    let (second, third) = std::thread::scope(|scope| {
        let second = scope.spawn(|| second.rest("GET", second_head));
        let third = scope.spawn(|| third.rest("GET", third_head));
        (second.join().expect("no panic"), third.join().expect("no panic"))
    });
    assert_eq!([(second.body.len(), second.end), (third.body.len(), third.end)], [(LENGTH, End::Chunked); 2]);
    let slow = slow.rest("GET", slow_head);
    assert_eq!(slow.end, End::Cut, "it can tell, after {} bytes", slow.body.len());
    assert_eq!(origin.count("/large"), 1);
}

/// An origin that drips bytes keeps a connection and memory only as long as somebody reads them.
#[test]
fn a_fill_that_nobody_reads_has_an_end() {
    const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let to = listener.local_addr().expect("it is bound").to_string();
    let pond = Millpond::start(&["proxy", "--listen", "127.0.0.1:0", "--to", &to], &["proxy"]);
    let mut client = Connection::open(pond.proxy());
    client.send_request(&Request::get("/a"));
    let (mut origin, _) = listener.accept().expect("a connection");
    let mut request = BufReader::new(origin.try_clone().expect("a handle"));
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        request.read_line(&mut line).expect("a line");
    }
    let head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1000000\r\n\r\nbegun";
    origin.write_all(head).expect("it is taken");
    assert_eq!(client.head().expect("an answer").outcome(), "miss");
    drop(client);
    origin.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out");
    let began = clock::monotonic();
    // Whether the proxy has closed the connection; else there is one drip more.
    let given_up = |origin: &mut TcpStream, request: &mut BufReader<TcpStream>| match request.read(&mut [0]) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            origin.write_all(b".").is_err()
        }
        read => read.unwrap_or(0) == 0,
    };
    while !given_up(&mut origin, &mut request) {
        assert!(began.elapsed() < 3 * UNREAD_TIMEOUT, "nobody reads it, and it goes on");
    }
    assert!(began.elapsed() >= UNREAD_TIMEOUT / 2, "too early");
    let mut again = Connection::open(pond.proxy());
    again.send_request(&Request::get("/a"));
    listener.accept().expect("another fetch");
}
