//! How long a client is waited for, told by a clock that runs ahead while nobody has anything to do.

use std::collections::BTreeMap;

use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use super::*;
use crate::config::ProxyConfig;
use crate::counters::Counters;
use crate::front::connection::Drain;
use crate::gateway::{Gateway, Snapshot};
use crate::live::Live;
use crate::observe::Observer;
use crate::rules::RuleSet;
use crate::upstreams::Upstreams;

/// A proxy without a rule: every request is answered 404.
fn around() -> Arc<Around> {
    let (registry, store) = (Registry::new(), Arc::new(ProxyConfig::on(Vec::new()).store()));
    let live = Arc::new(Live::new(Arc::clone(&store), []));
    let observer = Arc::new(Observer::new(&registry, Arc::clone(&store), false).expect("metrics"));
    let counters = Arc::new(Counters::new(&registry).expect("metrics"));
    let snapshot = Snapshot { rules: RuleSet::default(), upstreams: Upstreams::new(BTreeMap::new()) };
    let (gateway, drain) = (Gateway::new(snapshot, store, live, counters), Drain::default());
    Arc::new(Around { gateway, observer, balancers: Vec::new(), connections: None, drain })
}

/// Serves a client; what the client has of the connection.
fn served(around: &Arc<Around>) -> (DuplexStream, JoinHandle<()>) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let around = Arc::clone(around);
    let arrival = Arrival { scheme: "http", peer: None };
    let serving = tokio::spawn(async move { serve(&around, Box::new(ours), BytesMut::new(), arrival).await });
    (theirs, serving)
}

/// Whether something happens between two times from now on, in seconds.
async fn happens_between<T>(earliest: u64, latest: u64, what: impl Future<Output = T>) -> T {
    let mut what = pin!(what);
    assert!(timeout(Duration::from_secs(earliest), what.as_mut()).await.is_err(), "it comes too early");
    timeout(Duration::from_secs(latest - earliest), what).await.expect("it comes in time")
}

/// A client that asked once, and had its answer.
async fn asked(stream: DuplexStream) -> (::h2::client::SendRequest<Bytes>, JoinHandle<Result<(), ::h2::Error>>) {
    let (mut requests, connection) = ::h2::client::handshake(stream).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request = Request::get("http://a/").body(()).expect("a request");
    let (response, _) = requests.send_request(request, true).expect("sent");
    assert_eq!(response.await.expect("an answer").status(), 404);
    (requests, connection)
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_preface_is_closed() {
    let (mut client, serving) = served(&around());
    client.write_all(b"PRI * HTTP/2.0\r\n").await.expect("room");
    happens_between(9, 11, serving).await.expect("no panic");
    assert!(client.read_to_end(&mut Vec::new()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_is_told_to_go() {
    let (client, serving) = served(&around());
    let (_requests, connection) = asked(client).await;
    // It asked in the first minute: the second is the one without a request.
    happens_between(119, 123, serving).await.expect("no panic");
    assert!(connection.await.expect("no panic").is_ok(), "with a word");
}

/// Not even a ping is answered, and a head that was begun is no request.
#[tokio::test(start_paused = true)]
async fn a_client_that_keeps_silent_is_cut_off() {
    let (mut client, serving) = served(&around());
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("room");
    client.write_all(b"\0\0\x10\x01\x01\0\0\0\x01half").await.expect("room");
    happens_between(60, 64, serving).await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_the_idle() {
    let around = around();
    let (polite, serving_polite) = served(&around);
    let (_requests, connection) = asked(polite).await;
    let (mut silent, serving_silent) = served(&around);
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("room");
    around.drain.begin();
    timeout(Duration::from_secs(1), serving_polite).await.expect("at once").expect("no panic");
    assert!(connection.await.expect("no panic").is_ok(), "with a word");
    happens_between(1, 4, serving_silent).await.expect("no panic");
}
