//! The client, against servers that are scripted byte by byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Client, ClientError};

const LONG: Duration = Duration::from_secs(30);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Every connection gets the next script: one answer for each request, then the connection is closed.
async fn server(scripts: Vec<Vec<&'static str>>) -> (Client, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(listener.local_addr().unwrap().to_string());
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        for script in scripts {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(play(stream, script));
        }
    });
    (client, accepted)
}

async fn play(mut stream: TcpStream, script: Vec<&'static str>) {
    for answer in script {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => seen.push(byte),
                Err(_) => return,
            }
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

fn request(method: Method) -> Request<Bytes> {
    Request::builder().method(method).uri("/a").body(Bytes::new()).unwrap()
}

#[tokio::test]
async fn a_connection_is_kept_and_used_again() {
    let (client, accepted) = server(vec![vec![OK, OK, OK]]).await;
    for _ in 0..3 {
        let answer = client.call(request(Method::GET), LONG).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (200, b"ok".as_slice()));
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_answer_that_says_close_or_is_followed_by_more_ends_the_connection() {
    for last in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and what nobody asked for",
    ] {
        let (client, accepted) = server(vec![vec![last], vec![OK]]).await;
        for _ in 0..2 {
            assert_eq!(client.call(request(Method::GET), LONG).await.unwrap().body().as_ref(), b"ok", "{last}");
        }
        assert_eq!(accepted.load(Ordering::SeqCst), 2, "{last}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_closes_unanswered_is_replaced_if_the_request_may_be_repeated() {
    // The first connection takes a second request and closes without a word.
    let (client, accepted) = server(vec![vec![OK, ""], vec![OK]]).await;
    client.call(request(Method::GET), LONG).await.unwrap();
    client.call(request(Method::GET), LONG).await.unwrap();
    assert_eq!(accepted.load(Ordering::SeqCst), 2);

    let (client, _) = server(vec![vec![OK, ""], vec![OK]]).await;
    client.call(request(Method::GET), LONG).await.unwrap();
    let error = client.call(request(Method::POST), LONG).await.unwrap_err();
    assert!(matches!(error, ClientError::Closed { .. }), "what may have been done is not done again: {error}");
}

#[tokio::test]
async fn a_fresh_connection_that_closes_unanswered_is_an_error() {
    let (client, accepted) = server(vec![vec![""], vec![OK]]).await;
    let error = client.call(request(Method::GET), LONG).await.unwrap_err();
    assert!(matches!(error, ClientError::Closed { .. }), "{error}");
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_cut_or_malformed_answer_is_never_taken_for_whole() {
    for bad in [
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nok",
        "garbage\r\n\r\n",
    ] {
        let (client, _) = server(vec![vec![bad]]).await;
        let error = client.call(request(Method::GET), LONG).await.unwrap_err();
        assert!(matches!(error, ClientError::Malformed { .. }), "{bad}: {error}");
    }
}

#[tokio::test]
async fn interim_answers_are_passed_over_and_head_has_no_body() {
    let (client, _) = server(vec![vec![
        "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",
        OK,
    ]])
    .await;
    assert_eq!(client.call(request(Method::GET), LONG).await.unwrap().body().as_ref(), b"ok");
    assert!(client.call(request(Method::HEAD), LONG).await.unwrap().body().is_empty());
    assert_eq!(client.call(request(Method::GET), LONG).await.unwrap().body().as_ref(), b"ok");
}

#[tokio::test]
async fn nobody_waits_longer_than_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(listener.local_addr().unwrap().to_string());
    let error = client.call(request(Method::GET), Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
    drop(listener);
    let error = client.call(request(Method::GET), LONG).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    assert!(error.to_string().contains(client.authority()), "{error}");
}

#[tokio::test]
async fn a_stream_is_read_as_it_comes_and_a_cut_one_ends_in_an_error() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-a: b\r\n\r\n4\r\none\n\r\n";
    let (client, _) = server(vec![vec![head]]).await;
    let (parts, mut pieces) = client.open_stream(request(Method::GET)).await.unwrap();
    assert_eq!(parts.headers["x-a"], "b");
    assert_eq!(pieces.next().await.unwrap().unwrap().as_ref(), b"one\n");
    assert!(pieces.next().await.unwrap().is_err());
    assert!(pieces.next().await.is_none());
}
