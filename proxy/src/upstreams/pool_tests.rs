//! The pool, on real sockets. Times are given to it, so nothing waits for them.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;

const IDLE: Duration = Duration::from_secs(60);

/// A server that keeps what it accepts.
struct Server {
    listener: TcpListener,
    address: Address,
}

impl Server {
    async fn new() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::new(listener.local_addr().unwrap());
        Server { listener, address }
    }

    /// A new connection: our end, its number, and the server's end.
    async fn connect(&self, pool: &Pool) -> (Connection, u16, TcpStream) {
        let (connection, reused) = pool.connection(&self.address, true).await.unwrap();
        assert!(!reused);
        let (accepted, peer) = self.listener.accept().await.unwrap();
        (connection, peer.port(), accepted)
    }
}

fn pool(per_server: usize, total: usize) -> Pool {
    Pool::within(Limits { per_server, total, idle: IDLE })
}

impl Pool {
    fn put(&self, server: &Server, connection: Connection, now: Instant) {
        self.shelf().lock().put(server.address.id, connection, now);
    }

    fn take(&self, server: &Server, now: Instant) -> Option<Connection> {
        self.shelf().lock().take(server.address.id, now)
    }

    fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }
}

/// The port of our end, by which a connection is known again.
fn port(connection: &Connection) -> u16 {
    let digest = connection.stream.get_socket_digest().unwrap();
    digest.local_addr().and_then(|address| address.as_inet()).unwrap().port()
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
    let (first, first_port, _first) = server.connect(&pool).await;
    let (second, second_port, _second) = server.connect(&pool).await;
    pool.put(&server, first, now);
    pool.put(&server, second, now);
    assert_eq!(pool.kept(), 2);
    let ports = [(); 2].map(|()| port(&pool.take(&server, now).unwrap()));
    assert_eq!(ports, [second_port, first_port]);
    assert!(pool.take(&server, now).is_none());
    assert_eq!(pool.kept(), 0);
}

#[tokio::test]
async fn what_is_kept_is_found_again_and_another_server_s_is_not() {
    let (server, other, pool) = (Server::new().await, Server::new().await, pool(4, 4));
    let (connection, own_port, _accepted) = server.connect(&pool).await;
    pool.keep(server.address.id, connection);
    assert!(pool.take(&other, clock::monotonic()).is_none());
    let (connection, reused) = pool.connection(&server.address, false).await.unwrap();
    assert!(reused);
    assert_eq!(port(&connection), own_port);
}

#[tokio::test]
async fn a_connection_older_than_the_limit_is_not_used() {
    let (server, pool, now) = (Server::new().await, pool(4, 4), clock::monotonic());
    let (old, _, _old) = server.connect(&pool).await;
    let (young, young_port, _young) = server.connect(&pool).await;
    pool.put(&server, old, now);
    pool.put(&server, young, now + IDLE / 2);
    assert_eq!(port(&pool.take(&server, now + IDLE).unwrap()), young_port);
    assert!(pool.take(&server, now + IDLE).is_none());
    assert_eq!(pool.kept(), 0);
}

#[tokio::test]
async fn the_reaper_closes_what_is_too_old_or_was_closed() {
    let (server, pool, now) = (Server::new().await, pool(4, 4), clock::monotonic());
    let (old, _, _old) = server.connect(&pool).await;
    let (mut closed, _, accepted) = server.connect(&pool).await;
    let (good, good_port, _good) = server.connect(&pool).await;
    drop(accepted);
    // The end was read: it is seen again by whoever looks.
    arrived(&mut closed).await;
    pool.put(&server, old, now);
    pool.put(&server, closed, now + IDLE / 2);
    pool.put(&server, good, now + IDLE / 2);
    pool.shelf().lock().sweep(now + IDLE);
    assert_eq!(pool.kept(), 1);
    assert_eq!(port(&pool.take(&server, now + IDLE).unwrap()), good_port);
    pool.shelf().lock().sweep(now + IDLE);
    assert!(pool.shelf().lock().by_server.is_empty(), "nothing is left of the server either");
}

#[tokio::test]
async fn a_connection_the_server_closed_is_not_used() {
    let (server, pool, now) = (Server::new().await, pool(4, 4), clock::monotonic());
    let (mut connection, _, accepted) = server.connect(&pool).await;
    drop(accepted);
    arrived(&mut connection).await;
    pool.put(&server, connection, now);
    assert!(pool.take(&server, now).is_none());
    assert_eq!(pool.kept(), 0);
}

#[tokio::test]
async fn a_connection_with_a_byte_nobody_asked_for_is_not_used() {
    let (server, pool, now) = (Server::new().await, pool(4, 4), clock::monotonic());
    let (mut connection, _, mut accepted) = server.connect(&pool).await;
    accepted.write_all(b"HTTP/1.1 200 OK").await.unwrap();
    arrived(&mut connection).await;
    pool.put(&server, connection, now);
    assert!(pool.take(&server, now).is_none());
}

#[tokio::test]
async fn one_server_more_than_its_bound_closes_the_oldest() {
    let (server, pool, now) = (Server::new().await, pool(2, 9), clock::monotonic());
    let mut accepted = Vec::new();
    for _ in 0..3 {
        let (connection, port, server_s) = server.connect(&pool).await;
        pool.put(&server, connection, now);
        accepted.push((port, server_s));
    }
    assert_eq!(pool.kept(), 2);
    let ports = [(); 2].map(|()| port(&pool.take(&server, now).unwrap()));
    assert_eq!(ports, [accepted[2].0, accepted[1].0]);
}

#[tokio::test]
async fn all_servers_together_have_a_bound_and_the_oldest_of_any_makes_room() {
    let (one, other, pool, now) = (Server::new().await, Server::new().await, pool(9, 2), clock::monotonic());
    let (oldest, _, _oldest) = one.connect(&pool).await;
    let (older, older_port, _older) = other.connect(&pool).await;
    let (newest, newest_port, _newest) = other.connect(&pool).await;
    pool.put(&one, oldest, now);
    pool.put(&other, older, now + IDLE / 4);
    pool.put(&other, newest, now + IDLE / 2);
    assert_eq!(pool.kept(), 2);
    assert!(pool.take(&one, now).is_none());
    let ports = [(); 2].map(|()| port(&pool.take(&other, now).unwrap()));
    assert_eq!(ports, [newest_port, older_port]);
}

#[tokio::test]
async fn another_thread_s_connections_count_but_stay_its_own() {
    let (server, pool, now) = (Server::new().await, Arc::new(pool(9, 1)), clock::monotonic());
    let (first, _, _first) = server.connect(&pool).await;
    let (second, _, _second) = server.connect(&pool).await;
    pool.put(&server, first, now);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(pool.take(&server, now).is_none());
            pool.put(&server, second, now);
            assert!(pool.take(&server, now).is_none(), "there was no room for it");
        });
    });
    assert_eq!(pool.kept(), 1);
    assert!(pool.take(&server, now).is_some());
}
