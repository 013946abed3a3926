//! The pool, on real sockets. The time is given to it, so nothing waits for it to pass.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const IDLE: Duration = Duration::from_secs(60);

/// A server that keeps what it accepts.
struct Server {
    listener: TcpListener,
    endpoint: Endpoint,
}

impl Server {
    async fn new() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().into();
        Server { listener, endpoint }
    }

    /// A new connection: our end, what it is known by, and the server's end.
    async fn connect(&self, pool: &Pool) -> (Connection, Identity, TcpStream) {
        let (connection, reused) = pool.connection(&self.endpoint, true).await.unwrap();
        assert!(!reused);
        let (accepted, _) = self.listener.accept().await.unwrap();
        let identity = identity(&connection);
        (connection, identity, accepted)
    }
}

fn pool(per_server: usize, total: usize) -> Pool {
    Pool::within(Limits { per_server, total, idle: IDLE })
}

impl Pool {
    fn put(&self, server: &Server, connection: Connection, now: Instant) {
        let mut shelf = self.shelf().lock();
        shelf.now = now;
        shelf.put(server.endpoint.place(), connection);
    }

    fn take(&self, server: &Server) -> Option<Connection> {
        self.shelf().lock().take(server.endpoint.place())
    }

    /// What is on the shelf, the most recently used first.
    fn take_all(&self, server: &Server) -> Vec<Identity> {
        std::iter::from_fn(|| self.take(server)).map(|connection| identity(&connection)).collect()
    }

    fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }
}

/// A connection is known again by where its socket lies, which does not move.
type Identity = *const ();

fn identity(connection: &Connection) -> Identity {
    std::ptr::from_ref(&*connection.stream).cast()
}

/// Lets the runtime see what arrived: the connection becomes readable.
async fn arrived(connection: &mut Connection) {
    std::future::poll_fn(|context| {
        if connection.is_quiet() {
            // No sleep: the driver is turned between two polls.
            context.waker().wake_by_ref();
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn the_connection_used_last_is_used_next() {
    let (server, pool, now) = (Server::new().await, pool(4, 4), clock::monotonic());
    let (first, first_id, _first) = server.connect(&pool).await;
    let (second, second_id, _second) = server.connect(&pool).await;
    pool.put(&server, first, now);
    pool.put(&server, second, now);
    assert_eq!(pool.kept(), 2);
    assert_eq!(pool.take_all(&server), [second_id, first_id]);
    assert_eq!(pool.kept(), 0);
}

#[tokio::test]
async fn what_is_kept_is_found_again_but_not_for_another_server() {
    let (server, other, pool) = (Server::new().await, Server::new().await, pool(4, 4));
    let (connection, id, _accepted) = server.connect(&pool).await;
    pool.keep(server.endpoint.place(), connection);
    assert!(pool.take(&other).is_none());
    let (connection, reused) = pool.connection(&server.endpoint, false).await.unwrap();
    assert!(reused);
    assert_eq!(identity(&connection), id);
}

#[tokio::test]
async fn the_reaper_closes_what_is_too_old_or_was_closed() {
    let (server, pool, now) = (Server::new().await, pool(4, 4), clock::monotonic());
    let (old, _, mut old_accepted) = server.connect(&pool).await;
    let (mut closed, _, accepted) = server.connect(&pool).await;
    let (good, good_id, _good) = server.connect(&pool).await;
    drop(accepted);
    arrived(&mut closed).await;
    pool.put(&server, old, now);
    pool.put(&server, closed, now + IDLE / 2);
    pool.put(&server, good, now + IDLE / 2);
    pool.shelf().lock().sweep(now + IDLE);
    assert_eq!(old_accepted.read(&mut [0]).await.unwrap(), 0, "the server sees the end of the old one");
    assert_eq!(pool.kept(), 1);
    assert_eq!(pool.take_all(&server), [good_id]);
    pool.shelf().lock().sweep(now + IDLE);
    assert!(pool.shelf().lock().by_server.is_empty(), "nothing is left of the server either");
}

#[tokio::test(start_paused = true)]
async fn the_reaper_runs_while_something_is_kept() {
    let (server, pool) = (Server::new().await, Pool::within(Limits { idle: Duration::ZERO, ..LIMITS }));
    let (connection, _, mut accepted) = server.connect(&pool).await;
    pool.keep(server.endpoint.place(), connection);
    assert_eq!(accepted.read(&mut [0]).await.unwrap(), 0, "nothing but the reaper closes it");
    assert_eq!(pool.kept(), 0);
    assert!(pool.shelf().lock().reaper.is_none(), "it went when the shelf was empty");
    let (connection, _, _accepted) = server.connect(&pool).await;
    pool.keep(server.endpoint.place(), connection);
    assert!(pool.shelf().lock().reaper.is_some(), "the next connection started another");
}

#[tokio::test]
async fn a_connection_the_server_closed_is_not_used() {
    let (server, pool, now) = (Server::new().await, pool(4, 4), clock::monotonic());
    let (mut connection, _, accepted) = server.connect(&pool).await;
    drop(accepted);
    arrived(&mut connection).await;
    pool.put(&server, connection, now);
    assert!(pool.take(&server).is_none());
    assert_eq!(pool.kept(), 0);
}

#[tokio::test]
async fn a_connection_with_a_byte_nobody_asked_for_is_not_used() {
    let (server, pool, now) = (Server::new().await, pool(4, 4), clock::monotonic());
    let (mut connection, _, mut accepted) = server.connect(&pool).await;
    accepted.write_all(b"HTTP/1.1 200 OK").await.unwrap();
    arrived(&mut connection).await;
    pool.put(&server, connection, now);
    assert!(pool.take(&server).is_none());
}

#[tokio::test]
async fn one_more_than_a_server_s_bound_closes_the_oldest() {
    let (server, pool, now) = (Server::new().await, pool(2, 9), clock::monotonic());
    let mut known = Vec::new();
    for _ in 0..3 {
        let (connection, id, accepted) = server.connect(&pool).await;
        pool.put(&server, connection, now);
        known.push((id, accepted));
    }
    assert_eq!(pool.kept(), 2);
    assert_eq!(pool.take_all(&server), [known[2].0, known[1].0]);
}

#[tokio::test]
async fn all_servers_together_have_a_bound_and_the_oldest_of_any_makes_room() {
    let (one, other, pool, now) = (Server::new().await, Server::new().await, pool(9, 2), clock::monotonic());
    let (oldest, _, _oldest) = one.connect(&pool).await;
    let (older, older_id, _older) = other.connect(&pool).await;
    let (newest, newest_id, _newest) = other.connect(&pool).await;
    pool.put(&one, oldest, now);
    pool.put(&other, older, now + IDLE / 4);
    pool.put(&other, newest, now + IDLE / 2);
    assert_eq!(pool.kept(), 2);
    assert!(pool.take(&one).is_none());
    assert_eq!(pool.take_all(&other), [newest_id, older_id]);
}

#[tokio::test]
async fn another_thread_s_connections_count_but_stay_its_own() {
    let (server, pool, now) = (Server::new().await, pool(9, 1), clock::monotonic());
    let (first, _, _first) = server.connect(&pool).await;
    let (second, _, _second) = server.connect(&pool).await;
    pool.put(&server, first, now);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(pool.take(&server).is_none());
            pool.put(&server, second, now);
            assert!(pool.take(&server).is_none(), "there was no room for it");
        });
    });
    assert_eq!(pool.kept(), 1);
    assert!(pool.take(&server).is_some());
}
