//! The hot loop: reads what the client sent, answers every request in it that a fresh stored response answers, and
//! writes all of that at once.
//!
//! Works on a bench of the worker thread, within one poll; a connection that waits holds none of it. What is no plain
//! hit is left to the gateway, in its place in the order.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use millpond_shared::clock::{self, Stopwatch};
use millpond_shared::http1::{Framing, Limits, Refusal, RequestHead, Target, request_framing, take_request};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::futures::Notified;

use super::connection::{Around, Arrival, Connection};
use super::deadline::Waits;
use super::familiar::{self, Familiar};
use super::send::{COPY_MAX, poll_send};
use crate::gateway::{self, Asked};
use crate::observe::{Access, Counted, Tally};
use crate::outcome::Outcome;
use crate::record::Record;
use crate::semantics::request::Ask;

/// Requests that a connection is served before it lets others on its worker have their turn.
const REQUESTS_PER_TURN: usize = 256;
/// Bytes read at a time.
const READ_BYTES: usize = 32 * 1024;
/// Answers are gathered for one write until they come to this many bytes.
const GATHER_BYTES: usize = 128 * 1024;
/// The first line of an HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// What the loop leaves to others.
pub(super) enum Next {
    Request(Box<RequestHead>, Framing),
    Refused(Refusal),
    /// The client speaks HTTP/2; what was read of it is in `input`.
    Http2,
    Closed,
}

/// What a worker thread has for the connection whose turn it is.
struct Bench {
    input: Box<[u8]>,
    output: BytesMut,
    gateway: gateway::Scratch,
    /// Hits whose answers are not sent yet.
    hits: Vec<(Arc<Tally>, Counted)>,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(Bench {
        input: vec![0; READ_BYTES].into(),
        output: BytesMut::with_capacity(GATHER_BYTES),
        gateway: gateway::Scratch::default(),
        hits: Vec::new(),
    });
}

/// One poll of one connection.
struct Turn<'a> {
    around: &'a Around,
    bench: &'a mut Bench,
    /// Milliseconds since the Unix epoch, once they were asked for.
    now_ms: Option<u64>,
    began: Stopwatch,
    arrival: Arrival,
    /// Requests that may still be answered.
    left: usize,
    /// Whether anything was read or written.
    moved: bool,
}

impl Connection {
    /// Answers hits until something else is to be done.
    pub fn poll_next(&mut self, around: &Around, told: Pin<&mut Notified<'_>>, cx: &mut Context<'_>) -> Poll<Next> {
        BENCH.with_borrow_mut(|bench| {
            bench.output.reserve(GATHER_BYTES);
            let began = Stopwatch::start();
            let (arrival, left) = (self.arrival, REQUESTS_PER_TURN);
            let mut turn = Turn { around, bench, now_ms: None, began, arrival, left, moved: false };
            match self.poll_turn(&mut turn, cx) {
                Poll::Ready(next) => Poll::Ready(next),
                Poll::Pending if turn.left == 0 => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Pending => self.poll_waiting(turn.moved, around, told, cx),
            }
        })
    }

    fn poll_turn(&mut self, turn: &mut Turn<'_>, cx: &mut Context<'_>) -> Poll<Next> {
        loop {
            // What the socket had no room for goes first, and everything in its order.
            match self.poll_unsent(turn, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Next::Closed),
                Poll::Ready(Ok(())) => {}
            }
            if let Some(next) = self.next.take() {
                return Poll::Ready(next);
            }
            if turn.left == 0 {
                return Poll::Pending;
            }
            if self.input.is_empty() || self.partial {
                match self.poll_read(turn, cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(false) => continue,
                    Poll::Ready(true) => {}
                }
            }
            self.answer_input(turn);
            if self.send(turn, cx).is_err() {
                return Poll::Ready(Next::Closed);
            }
        }
    }

    /// Reads, and answers what can be answered without being copied; the rest is in `input` then. `false`: the end, or
    /// an error, which is what comes `next`.
    fn poll_read(&mut self, turn: &mut Turn<'_>, cx: &mut Context<'_>) -> Poll<bool> {
        let mut input = std::mem::take(&mut turn.bench.input);
        let mut buffer = ReadBuf::new(&mut input);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        let length = buffer.filled().len();
        let polled = match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if length > 0 => {
                turn.moved = true;
                let read = input.get(..length).unwrap_or_default();
                let answered = if self.partial { 0 } else { self.answer_familiar(turn, read) };
                self.input.extend_from_slice(read.get(answered..).unwrap_or_default());
                self.partial = false;
                Poll::Ready(true)
            }
            Poll::Ready(ended) => {
                self.next = Some(if self.has_begun() && ended.is_ok() { Next::Refused(CUT) } else { Next::Closed });
                Poll::Ready(false)
            }
        };
        turn.bench.input = input;
        polled
    }

    /// Answers requests at the front of `bytes` as long as they are familiar; their length.
    fn answer_familiar(&mut self, turn: &mut Turn<'_>, bytes: &[u8]) -> usize {
        let Some(familiar) = &self.familiar else { return 0 };
        let mut answered = 0;
        while turn.has_room() && self.body.is_empty() {
            let rest = bytes.get(answered..).unwrap_or_default();
            let Some((target, length)) = familiar.recognise(rest) else { break };
            if !turn.answer(familiar.head(), target, familiar.ask(), &mut self.body) {
                break;
            }
            answered += length;
        }
        answered
    }

    /// Answers requests in `input` until one comes that is for others, or not whole.
    fn answer_input(&mut self, turn: &mut Turn<'_>) {
        let mut input = std::mem::take(&mut self.input);
        while !input.is_empty() && turn.has_room() && self.body.is_empty() && self.next.is_none() && !self.partial {
            let answered = self.answer_familiar(turn, &input);
            input.advance(answered);
            if answered == 0 {
                self.take_one(turn, &mut input);
            }
        }
        if !input.is_empty() {
            self.input = input;
        }
    }

    /// Takes one request off `input` and answers it, or says what is to come next.
    fn take_one(&mut self, turn: &mut Turn<'_>, input: &mut BytesMut) {
        if self.fresh && PREFACE.iter().zip(input.iter()).all(|(ours, theirs)| ours == theirs) {
            if input.len() < PREFACE.len() {
                self.partial = true;
            } else {
                self.next = Some(Next::Http2);
            }
            return;
        }
        let taken = take_request(input, &Limits::default()).and_then(|head| {
            head.map(|head| request_framing(&head.fields, head.minor).map(|framing| (head, framing))).transpose()
        });
        match taken {
            Ok(None) => self.partial = true,
            Err(refusal) => self.next = Some(Next::Refused(refusal)),
            Ok(Some((head, framing))) => {
                self.fresh = false;
                let ask = familiar::ask_of(&head, framing);
                match ask.filter(|ask| turn.answer(&head, head.target.path_and_query(), ask, &mut self.body)) {
                    Some(ask) => self.familiar = Familiar::new(&head, ask),
                    None => self.next = Some(Next::Request(Box::new(head), framing)),
                }
            }
        }
    }

    /// Sends what the turn has gathered; what the socket has no room for is kept.
    fn send(&mut self, turn: &mut Turn<'_>, cx: &mut Context<'_>) -> io::Result<()> {
        if turn.bench.hits.is_empty() {
            return Ok(());
        }
        let sent = poll_send(&mut self.stream, &mut turn.bench.output, &mut self.body, cx);
        self.unsent = sent.is_pending();
        self.output.extend_from_slice(&turn.bench.output);
        turn.bench.output.clear();
        self.since = clock::coarse_ms();
        let took = turn.began.elapsed();
        turn.bench.hits.drain(..).for_each(|(tally, counted)| tally.count(counted, took));
        match sent {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }

    /// Goes on sending what was kept.
    fn poll_unsent(&mut self, turn: &mut Turn<'_>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unsent {
            return Poll::Ready(Ok(()));
        }
        let before = self.output.len() + self.body.len();
        let sent = poll_send(&mut self.stream, &mut self.output, &mut self.body, cx);
        if self.output.len() + self.body.len() < before {
            self.since = clock::coarse_ms();
            turn.moved = true;
        }
        if sent.is_ready() {
            self.unsent = false;
            self.output = BytesMut::new();
            self.body = Bytes::new();
        }
        sent
    }

    /// Nothing can be done now: is it time to give up?
    fn poll_waiting(
        &mut self,
        moved: bool,
        around: &Around,
        mut told: Pin<&mut Notified<'_>>,
        cx: &mut Context<'_>,
    ) -> Poll<Next> {
        let waits = match (self.unsent, self.has_begun()) {
            (true, _) => Waits::Room,
            (false, true) => Waits::Head,
            (false, false) => Waits::Idle,
        };
        // Woken by the socket, and waiting for the same as before: whatever else wakes the task is still set to.
        if !(moved && self.waits == Some(waits)) {
            let now = clock::coarse_ms();
            if self.waits.replace(waits) != Some(waits) {
                self.since = now;
            }
            if self.deadline.poll(self.since + waits.limit(), now, cx).is_ready() {
                return Poll::Ready(match waits {
                    Waits::Idle | Waits::Room => Next::Closed,
                    Waits::Head => Next::Refused(TOO_SLOW),
                });
            }
            let _ = told.as_mut().poll(cx);
        }
        // An idle client is let go at once; one that has begun a request gets its answer.
        if waits == Waits::Idle && around.drain.has_begun() { Poll::Ready(Next::Closed) } else { Poll::Pending }
    }

    /// Whether a part of a head was read. One empty line after a body belongs to no request (RFC 9112 §2.2).
    fn has_begun(&self) -> bool {
        !self.input.is_empty() && self.input != b"\r\n"[..]
    }
}

impl Turn<'_> {
    /// Whether one more request may be answered before what was gathered is sent.
    fn has_room(&self) -> bool {
        self.left > 0 && self.bench.output.len() < GATHER_BYTES - COPY_MAX
    }

    /// Appends the answer to a request; a large body is put into `body`, to be sent behind it. `false`: it is no hit.
    fn answer(&mut self, head: &RequestHead, target: &str, ask: &Ask, body: &mut Bytes) -> bool {
        let Turn { around, bench: Bench { output, gateway, hits, .. }, now_ms, arrival, .. } = self;
        if around.drain.has_begun() {
            return false;
        }
        let (scheme, peer) = (arrival.scheme, arrival.peer.map(|peer| peer.ip()));
        let now_ms = *now_ms.get_or_insert_with(clock::coarse_wall_ms);
        let asked = Asked { head, target, ask, scheme, peer, now_ms };
        let found = around.gateway.early_hit(&asked, gateway, |hit| {
            let before = output.len();
            hit.put_head(output);
            match hit.body(&head.method) {
                Some(small) if small.len() <= COPY_MAX => output.extend_from_slice(small),
                Some(large) => *body = large.clone(),
                None => {}
            }
            let bytes = (output.len() - before + body.len()) as u64;
            let counted = Counted { outcome: Outcome::Hit, reason: None, status: hit.status().as_u16(), bytes };
            hits.push((around.observer.tally(Some(hit.rule)), counted));
            around.observer.logs().then(|| Record {
                rule: Some(Arc::clone(hit.rule)),
                outcome: Outcome::Hit,
                reason: None,
                status: hit.status(),
                bytes,
                broken_off: false,
            })
        });
        self.left -= usize::from(found.is_some());
        if let Some(Some(record)) = &found {
            self.log(head, target, record);
        }
        found.is_some()
    }

    /// Its line is written before its answer is sent: the time is that until then.
    fn log(&self, head: &RequestHead, target: &str, record: &Record) {
        let head = RequestHead { target: Target::Origin(target.to_owned()), ..head.clone() };
        let access = Access { head: Some(&head), peer: self.arrival.peer, record, took: self.began.elapsed() };
        self.around.observer.log(&access);
    }
}

const CUT: Refusal = Refusal { status: StatusCode::BAD_REQUEST, why: "the connection ended within a head" };
const TOO_SLOW: Refusal =
    Refusal { status: StatusCode::REQUEST_TIMEOUT, why: "the head of the request took longer than 10 seconds" };
