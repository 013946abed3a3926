//! HTTP/2 frame by frame: each mistake of a client is answered with the code that RFC 9113 names for it, and what looks
//! odd but is none is let pass.

use crate::e2e::plain_proxy::plain;
use crate::harness::client::get;
use crate::harness::http2::{
    ACK, CONTINUATION, Came, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PADDED, PING, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, field_block, frame, headers,
};
use crate::harness::origin::{Answer, ScriptedOrigin};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

type Fields = [(&'static str, &'static str); 4];
const GET: Fields = [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "a")];
const POST: Fields = [(":method", "POST"), (":scheme", "http"), (":path", "/a"), (":authority", "a")];
const WITH_PRIORITY: u8 = 0x20;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// A GET that ends its stream.
fn asks(stream: u32) -> Vec<u8> {
    headers(stream, END_STREAM, &GET)
}

/// A POST whose body is still to come.
fn begins(stream: u32) -> Vec<u8> {
    headers(stream, 0, &POST)
}

/// HEADERS that end their stream, with this block behind the fields of a good request.
fn asks_with(block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&field_block(&GET), block].concat())
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// A case: its name, the frames, the stream that is looked at, and what comes of it.
type Case = (&'static str, Vec<Vec<u8>>, u32, Came);

fn judge(cases: Vec<Case>) {
    let origin = ScriptedOrigin::start();
    origin.answer("/a", Answer::ok("reached").field("Cache-Control", "no-store"));
    let pond = plain(&origin, &[]);
    let mut wrong = Vec::new();
    for (name, frames, stream, expected) in cases {
        let mut client = Frames::open(pond.proxy());
        client.try_send(&frames.concat());
        let came = client.receive(stream);
        if came != expected {
            wrong.push(format!("{name}: {came:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(get(pond.proxy(), "/a").text(), "reached", "the others are served on");
}

fn reached() -> Came {
    Came::Answer("reached".to_owned())
}

#[test]
fn what_looks_odd_and_is_none() {
    let block = field_block(&GET);
    let (one, other) = block.split_at(10);
    judge(vec![
        ("unknown frames", vec![frame(0x16, 0xff, 0, b"abc"), frame(0x16, 0, 5, b"abc"), asks(1)], 1, reached()),
        ("unknown flags", vec![frame(PING, 0xfe, 0, b"12345678"), asks(1)], 1, reached()),
        ("an unknown setting", vec![setting(0x99, 5), asks(1)], 1, reached()),
        ("the reserved bit of a stream", vec![asks(0x8000_0001)], 1, reached()),
        ("an ACK that nobody asked for", vec![frame(PING, ACK, 0, b"12345678"), asks(1)], 1, reached()),
        ("the priority of an idle stream", vec![frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), asks(3)], 3, reached()),
        ("padding", vec![frame(HEADERS, 0xd, 1, &[&[3], &block[..], &[0; 3]].concat())], 1, reached()),
        ("a block in two", vec![frame(HEADERS, END_STREAM, 1, one), frame(CONTINUATION, 4, 1, other)], 1, reached()),
        ("the largest window", vec![setting(4, (1 << 31) - 1), asks(1)], 1, reached()),
        (
            "a table of 4096 bytes",
            vec![frame(HEADERS, 5, 1, &[&[0x3f, 0xe1, 0x1f], &block[..]].concat())],
            1,
            reached(),
        ),
        ("trailers", vec![begins(1), frame(DATA, 0, 1, b"b"), headers(1, END_STREAM, &[("x", "y")])], 1, reached()),
        (
            "a stream that is closed is nothing to the next",
            vec![begins(1), frame(RST_STREAM, 0, 1, &CANCEL), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), asks(3)],
            3,
            reached(),
        ),
    ]);
}

/// RFC 9113 §4.1, §4.2, §6: frames on streams where they may not be, and of sizes that they can't have.
#[test]
fn frames_out_of_place_or_size() {
    let away = |code| Came::GoAway(code);
    let placeless = [
        ("DATA", frame(DATA, 0, 0, b"a")),
        ("HEADERS", headers(0, END_STREAM, &GET)),
        ("PRIORITY", frame(PRIORITY, 0, 0, &[0; 5])),
        ("RST_STREAM", frame(RST_STREAM, 0, 0, &[0; 4])),
        ("CONTINUATION", frame(CONTINUATION, END_HEADERS, 0, b"")),
        ("SETTINGS of a stream", frame(SETTINGS, 0, 1, b"")),
        ("PING of a stream", frame(PING, 0, 1, &[0; 8])),
        ("GOAWAY of a stream", frame(GOAWAY, 0, 1, &[0; 8])),
        ("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
    ];
    let sizes = [
        ("a frame that is too long", frame(DATA, 0, 1, &[0; 16_385])),
        ("HEADERS that are too long", frame(HEADERS, 5, 1, &[0; 16_385])),
        ("HEADERS without room for what their flags say", frame(HEADERS, PADDED, 1, b"")),
        ("HEADERS without room for a priority", frame(HEADERS, WITH_PRIORITY, 1, &[0; 3])),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0; 4])),
        ("RST_STREAM", [begins(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat()),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0; 5])),
        ("SETTINGS that acknowledge and tell", frame(SETTINGS, ACK, 0, &[0; 6])),
        ("PING", frame(PING, 0, 0, &[0; 7])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
        ("GOAWAY", frame(GOAWAY, 0, 0, &[0; 7])),
    ];
    let values = [
        ("padding longer than DATA", [begins(1), frame(DATA, PADDED, 1, b"\x05abc")].concat(), PROTOCOL_ERROR),
        ("padding longer than HEADERS", frame(HEADERS, 0xc, 1, b"\xffabc"), PROTOCOL_ERROR),
        ("ENABLE_PUSH of 2", setting(2, 2), PROTOCOL_ERROR),
        ("INITIAL_WINDOW_SIZE above the largest", setting(4, 1 << 31), FLOW_CONTROL_ERROR),
        ("MAX_FRAME_SIZE below the smallest", setting(5, 16_383), PROTOCOL_ERROR),
        ("MAX_FRAME_SIZE above the largest", setting(5, 1 << 24), PROTOCOL_ERROR),
        ("an increment of 0", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        ("an increment of 0 to a stream", [begins(1), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(), PROTOCOL_ERROR),
        ("a window above the largest", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), FLOW_CONTROL_ERROR),
    ];
    let placeless = placeless.into_iter().map(|(name, frames)| (name, vec![frames], 1, away(PROTOCOL_ERROR)));
    let sizes = sizes.into_iter().map(|(name, frames)| (name, vec![frames], 1, away(FRAME_SIZE_ERROR)));
    let values = values.into_iter().map(|(name, frames, code)| (name, vec![frames], 1, away(code)));
    judge(placeless.chain(sizes).chain(values).collect());
}

/// RFC 9113 §5.1, §6.2, §6.10.
#[test]
fn frames_that_their_stream_does_not_await() {
    let (block, away) = (field_block(&GET), |code| Came::GoAway(code));
    let part = || frame(HEADERS, END_STREAM, 1, &block[..10]);
    judge(vec![
        ("DATA to an idle stream", vec![frame(DATA, END_STREAM, 1, b"a")], 1, away(PROTOCOL_ERROR)),
        ("RST_STREAM to an idle stream", vec![frame(RST_STREAM, 0, 1, &CANCEL)], 1, away(PROTOCOL_ERROR)),
        ("WINDOW_UPDATE to an idle stream", vec![frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])], 1, away(PROTOCOL_ERROR)),
        ("an even stream", vec![asks(2)], 2, away(PROTOCOL_ERROR)),
        ("a lower stream", vec![asks(5), asks(3)], 3, away(PROTOCOL_ERROR)),
        ("DATA behind the end", vec![asks(1), frame(DATA, END_STREAM, 1, b"a")], 3, away(STREAM_CLOSED)),
        ("HEADERS behind the end", vec![asks(1), asks(1)], 3, away(STREAM_CLOSED)),
        ("HEADERS behind a reset", vec![begins(1), frame(RST_STREAM, 0, 1, &CANCEL), asks(1)], 3, away(STREAM_CLOSED)),
        (
            "DATA behind a reset",
            vec![begins(1), frame(RST_STREAM, 0, 1, &CANCEL), frame(DATA, END_STREAM, 1, b"a")],
            1,
            Came::Reset(STREAM_CLOSED),
        ),
        ("CONTINUATION of nothing", vec![frame(CONTINUATION, END_HEADERS, 1, b"")], 1, away(PROTOCOL_ERROR)),
        ("another frame within a block", vec![part(), frame(PING, 0, 0, &[0; 8])], 1, away(PROTOCOL_ERROR)),
        ("an unknown frame within a block", vec![part(), frame(0x16, 0, 0, b"")], 1, away(PROTOCOL_ERROR)),
        ("another stream within a block", vec![part(), asks(3)], 1, away(PROTOCOL_ERROR)),
        ("the block of another stream", vec![part(), frame(CONTINUATION, 4, 3, &block[10..])], 1, away(PROTOCOL_ERROR)),
        ("trailers that end nothing", vec![begins(1), headers(1, 0, &[("x", "y")])], 1, Came::Reset(PROTOCOL_ERROR)),
        (
            "trailers with a pseudo-field",
            vec![begins(1), headers(1, END_STREAM, &[(":path", "/")])],
            1,
            Came::Reset(PROTOCOL_ERROR),
        ),
        (
            "trailers of the connection",
            vec![begins(1), headers(1, END_STREAM, &[("connection", "x")])],
            1,
            Came::Reset(PROTOCOL_ERROR),
        ),
        (
            "a stream's window above the largest",
            vec![begins(1), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])],
            1,
            Came::Reset(FLOW_CONTROL_ERROR),
        ),
        (
            "less than the content-length",
            vec![headers(1, 0, &[&POST[..], &[("content-length", "3")]].concat()), frame(DATA, END_STREAM, 1, b"ab")],
            1,
            Came::Reset(PROTOCOL_ERROR),
        ),
        (
            "more than the content-length",
            vec![headers(1, 0, &[&POST[..], &[("content-length", "1")]].concat()), frame(DATA, END_STREAM, 1, b"ab")],
            1,
            Came::Reset(PROTOCOL_ERROR),
        ),
    ]);
}

/// RFC 7541: what can't be decompressed is told from fields that are malformed.
#[test]
fn blocks_that_can_not_be_decompressed() {
    let broken: [(&str, Vec<u8>); 10] = [
        ("index 0", asks_with(&[0x80])),
        ("an index behind the tables", asks_with(&[0xc6])),
        ("an index that runs over", asks_with(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f])),
        ("a string that is cut", asks_with(&[0, 5, b'a'])),
        ("the end symbol", asks_with(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff])),
        ("padding of zeros", asks_with(&[0, 1, b'x', 0x81, 0x18])),
        ("padding of more than seven bits", asks_with(&[0, 1, b'x', 0x82, 0x1f, 0xff])),
        ("a size update behind a field", asks_with(&[0x20])),
        ("a table that is too large", frame(HEADERS, 5, 1, &[0x3f, 0xe2, 0x1f])),
        ("in a second frame", [frame(HEADERS, 1, 1, &field_block(&GET)), frame(CONTINUATION, 4, 1, &[0x80])].concat()),
    ];
    let malformed: [(&str, Vec<u8>); 4] = [
        ("an upper case name", asks_with(&[0, 1, b'X', 1, b'a'])),
        ("an upper case name, compressed", asks_with(&[0, 0x82, 0xfc, 0x7f, 1, b'a'])),
        ("an unknown pseudo-field", asks_with(&[0, 2, b':', b'x', 1, b'a'])),
        ("a line feed", asks_with(&[0, 1, b'x', 1, b'\n'])),
    ];
    let case = |code| move |(name, frames)| (name, vec![frames], 1, Came::GoAway(code));
    judge(
        broken
            .into_iter()
            .map(case(COMPRESSION_ERROR))
            .chain(malformed.into_iter().map(case(PROTOCOL_ERROR)))
            .collect(),
    );
}

/// RFC 9113 §10.5: what costs us more than the client.
#[test]
fn floods_are_ended_or_cost_nothing() {
    let calm = || Came::GoAway(ENHANCE_YOUR_CALM);
    let continued = frame(CONTINUATION, 0, 1, &field_block(&[("x", "y")]));
    judge(vec![
        ("CONTINUATION", vec![frame(HEADERS, 1, 1, &field_block(&GET)), continued.repeat(10_000)], 1, calm()),
        (
            "empty CONTINUATION",
            vec![frame(HEADERS, 1, 1, &field_block(&GET)), frame(CONTINUATION, 0, 1, b"").repeat(10_000)],
            1,
            calm(),
        ),
        ("empty DATA", vec![begins(1), frame(DATA, 0, 1, b"").repeat(20_000)], 3, calm()),
        ("PRIORITY", vec![frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]).repeat(20_000), asks(3)], 3, reached()),
        ("SETTINGS", vec![frame(SETTINGS, 0, 0, b"").repeat(2_000), asks(1)], 1, reached()),
    ]);
}

/// RFC 9113 §3.4, §6.5, §6.7.
#[test]
fn the_preface_is_followed_by_settings_and_pings_come_back() {
    let origin = ScriptedOrigin::start();
    origin.answer("/a", Answer::ok("reached"));
    let pond = plain(&origin, &[]);
    for first in [asks(1), frame(PING, 0, 0, b"12345678"), frame(SETTINGS, ACK, 0, b"")] {
        let mut client = Frames::open_without_settings(pond.proxy());
        client.send(&first);
        assert_eq!(client.receive(1), Came::GoAway(PROTOCOL_ERROR), "{first:?}");
    }
    assert_eq!(origin.count("/a"), 0);
    let mut client = Frames::open(pond.proxy());
    client.send(&frame(PING, 0, 0, b"12345678"));
    assert_eq!(client.wait_for(PING), (ACK, b"12345678".to_vec()));
}
