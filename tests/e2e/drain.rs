//! SIGTERM: what was begun is finished, what is idle is let go, and then it ends, with exit code 0.

use std::time::Duration;

use millpond_shared::clock;

use crate::e2e::proxy_before;
use crate::harness::client::{Connection, End, Request, get};
use crate::harness::eventually;
use crate::harness::origin::{Answer, Gate, ScriptedOrigin};
use crate::harness::process::Millpond;

/// The drain limit of the product unless configured.
const DRAIN: Duration = Duration::from_secs(10);

#[test]
fn the_request_in_flight_is_finished_and_idle_clients_are_let_go() {
    let origin = ScriptedOrigin::start();
    let (head, rest) = (Gate::closed(), Gate::closed());
    origin.answer("/api/quick", Answer::ok("quick"));
    origin.answer("/api/slow", Answer::ok("first half, ").held_by(&head).then_when(&rest, "second half"));
    let mut pond = proxy_before(&[&origin], "ttl = \"1h\"");

    let mut idle = Connection::open(pond.proxy());
    assert_eq!(idle.ask(&Request::get("/api/quick")).status(), 200);
    let mut silent = Connection::open(pond.proxy());
    let (mut waiting, mut reading) = (Connection::open(pond.proxy()), Connection::open(pond.proxy()));
    waiting.send_request(&Request::get("/api/slow"));
    reading.send_request(&Request::get("/api/quick?slow"));
    assert_eq!(reading.receive("GET").status(), 200);
    origin.wait_for_requests("/api/slow", 1);

    let began = clock::monotonic();
    pond.signal("TERM");
    assert!(idle.is_closed(), "an idle connection is closed without a word");
    assert!(silent.is_closed(), "so is one on which nothing was asked yet");
    assert!(reading.is_closed());
    head.open();
    let begun = waiting.head().expect("the request in flight is answered");
    rest.open();
    let answer = waiting.rest("GET", begun);
    assert_eq!((answer.text().as_str(), answer.end), ("first half, second half", End::Length));
    assert!(waiting.is_closed());
    assert_eq!(pond.wait(), Some(0));
    assert!(began.elapsed() < DRAIN / 2, "it took {:?}", began.elapsed());
}

#[test]
fn nobody_new_is_let_in() {
    let origin = ScriptedOrigin::start();
    let gate = Gate::closed();
    origin.answer("/api/slow", Answer::ok("slow").held_by(&gate));
    let mut pond = proxy_before(&[&origin], "");
    let mut waiting = Connection::open(pond.proxy());
    waiting.send_request(&Request::get("/api/slow"));
    origin.wait_for_requests("/api/slow", 1);
    pond.signal("TERM");
    eventually("the port to be closed", || match std::net::TcpStream::connect(pond.proxy()) {
        Err(_) => Ok(()),
        Ok(_) => Err("it still takes connections".to_owned()),
    });
    gate.open();
    assert_eq!(waiting.receive("GET").text(), "slow");
    assert_eq!(pond.wait(), Some(0));
}

/// An origin that never answers cannot keep the process: the drain has a limit.
#[test]
fn the_drain_ends_when_its_time_is_up() {
    let origin = ScriptedOrigin::start();
    let never = Gate::closed();
    origin.answer("/api/never", Answer::ok("").held_by(&never));
    let config = format!(
        "proxy = {{ listen = [\"127.0.0.1:0\"], drain = \"1s\" }}\norigin.api.servers = [\"{}\"]\n\
         [[rule]]\nmatch = \"/**\"\norigin = \"api\"\n",
        origin.address()
    );
    let mut pond = Millpond::run(&config, &["proxy"]);
    let mut waiting = Connection::open(pond.proxy());
    waiting.send_request(&Request::get("/api/never"));
    origin.wait_for_requests("/api/never", 1);
    let began = clock::monotonic();
    pond.signal("TERM");
    assert_eq!(pond.wait(), Some(0));
    assert!(began.elapsed() >= Duration::from_secs(1), "it was given its time");
    assert!(began.elapsed() < DRAIN, "it took {:?}", began.elapsed());
    pond.log().wait_for_line("connections did not end in time");
    never.open();
}

/// Signals are heard from the moment it says that it is ready.
#[test]
fn a_signal_right_behind_the_ready_line_is_heard() {
    let origin = ScriptedOrigin::start();
    for signal in ["TERM", "INT"] {
        let mut pond = proxy_before(&[&origin], "");
        pond.signal(signal);
        assert_eq!(pond.wait(), Some(0), "SIG{signal}");
        let mut pond =
            Millpond::start(&["proxy", "--listen", "127.0.0.1:0", "--to", &origin.address().to_string()], &["proxy"]);
        pond.signal(signal);
        assert_eq!(pond.wait(), Some(0), "SIG{signal} to `millpond proxy`");
    }
    let pond = proxy_before(&[&origin], "");
    pond.signal("HUP");
    pond.log().wait_for_line("reload");
    assert_eq!(get(pond.proxy(), "/api/a").status(), 404);
}

#[test]
fn a_port_that_is_taken_is_told_and_ends_it() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], "");
    let taken = pond.proxy().to_string();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let args = ["proxy", "--listen", &taken, "--to", &origin.address().to_string()];
    let finished = crate::harness::process::finish(&args, dir.path());
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""));
    assert!(finished.stderr.contains(&format!("cannot listen on {taken}")), "{}", finished.stderr);
}
