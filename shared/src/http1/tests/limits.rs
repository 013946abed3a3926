//! Limits, exactly at and one over.

use super::*;

fn filled(before: &str, after: &str, length: usize) -> String {
    format!("{before}{}{after}", "f".repeat(length - before.len() - after.len()))
}

/// Verdicts on the whole head, and on the head that comes byte by byte.
fn both<T>(bytes: &str, take: impl Fn(&mut BytesMut) -> Result<Option<T>, Refusal>) -> [Result<bool, u16>; 2] {
    let all_at_once = refused(take(&mut BytesMut::from(bytes))).map(|head| head.is_some());
    let mut buf = BytesMut::new();
    let mut one_by_one = Ok(false);
    for byte in bytes.bytes() {
        buf.extend_from_slice(&[byte]);
        one_by_one = refused(take(&mut buf)).map(|head| head.is_some());
        if one_by_one != Ok(false) {
            break;
        }
    }
    [all_at_once, one_by_one]
}

#[test]
fn head_bytes() {
    for limit in [64, 1024, 32 * 1024] {
        let limits = Limits { head_bytes: limit, ..Limits::default() };
        for (over, expected) in [(0, Ok(true)), (1, Err(431))] {
            let request = filled("GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n", limit + over);
            assert_eq!(both(&request, |buf| take_request(buf, &limits)), [expected; 2], "request of {limit} + {over}");
            let response = filled("HTTP/1.1 200 OK\r\nX: ", "\r\n\r\n", limit + over);
            assert_eq!(
                both(&response, |buf| take_response(buf, &limits)),
                [expected; 2],
                "response of {limit} + {over}"
            );
            let reason = filled("HTTP/1.1 200 ", "\r\n\r\n", limit + over);
            assert_eq!(both(&reason, |buf| take_response(buf, &limits)), [expected; 2], "reason of {limit} + {over}");
        }
    }
}

#[test]
fn what_follows_a_head_does_not_count() {
    let limits = Limits { head_bytes: 64, ..Limits::default() };
    let head = filled("GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n", 64);
    let mut buf = BytesMut::from(&*format!("\r\n{head}{}", "body".repeat(1000)));
    assert!(take_request(&mut buf, &limits).unwrap().is_some());
    assert_eq!(buf.len(), 4000);
}

#[test]
fn field_lines() {
    for limit in [1, 2, 100, 128] {
        let limits = Limits { fields: limit, ..Limits::default() };
        for (over, expected) in [(0, Ok(true)), (1, Err(431))] {
            let lines = "X:\r\n".repeat(limit + over - 1);
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            assert_eq!(
                both(&request, |buf| take_request(buf, &limits)),
                [expected; 2],
                "request with {limit} + {over}"
            );
            let response = format!("HTTP/1.1 200 OK\r\nY: z\r\n{lines}\r\n");
            assert_eq!(
                both(&response, |buf| take_response(buf, &limits)),
                [expected; 2],
                "response with {limit} + {over}"
            );
        }
    }
}

#[test]
fn more_field_lines_than_can_be_held_are_refused_whatever_the_limit() {
    let limits = Limits { fields: usize::MAX, ..Limits::default() };
    for (count, expected) in [(128, Ok(true)), (129, Err(431))] {
        let response = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(count));
        assert_eq!(both(&response, |buf| take_response(buf, &limits)), [expected; 2], "{count}");
    }
}

#[test]
fn too_many_field_lines_are_refused_before_the_head_ends() {
    assert_eq!(request(format!("GET / HTTP/1.1\r\n{}", "X:\r\n".repeat(129))).err(), Some(431));
}

#[test]
fn target_bytes() {
    for limit in [1, 100, 8 * 1024] {
        let limits = Limits { target_bytes: limit, ..Limits::default() };
        for (over, expected) in [(0, Ok(true)), (1, Err(414))] {
            let target = filled("/", "", limit + over);
            let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(both(&request, |buf| take_request(buf, &limits)), [expected; 2], "{limit} + {over}");
        }
    }
}

/// RFC 9110 §4.1 recommends 8,000 bytes.
#[test]
fn the_default_takes_long_targets() {
    assert!(is_taken(&request(format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", filled("/", "", 8000)))));
}

#[test]
fn a_target_that_does_not_end_is_too_long_before_the_head_is_too_large() {
    for length in [8 * 1024 + 1, 32 * 1024, 40 * 1024] {
        assert_eq!(request(format!("GET {}", filled("/", "", length))).err(), Some(414), "{length}");
    }
    let small = Limits { head_bytes: 64, ..Limits::default() };
    let target = format!("GET {}", filled("/", "", 64));
    assert_eq!(both(&target, |buf| take_request(buf, &small)), [Err(414); 2]);
}

#[test]
fn both_too_long_and_too_many_is_too_long() {
    let target = filled("/", "", 8 * 1024 + 1);
    let request = format!("GET {target} HTTP/1.1\r\n{}\r\n", "X:\r\n".repeat(200));
    assert_eq!(both(&request, |buf| take_request(buf, &Limits::default())), [Err(414); 2]);
}

/// "A server that receives a method longer than any that it implements SHOULD respond with a 501" (RFC 9112 §3).
#[test]
fn method_bytes() {
    for (length, expected) in [(17, Ok(true)), (32, Ok(true)), (33, Err(501)), (10_000, Err(501)), (40_000, Err(501))] {
        let request = format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(length));
        assert_eq!(both(&request, |buf| take_request(buf, &Limits::default())), [expected; 2], "{length}");
    }
}
