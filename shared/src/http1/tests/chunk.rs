//! Chunk-size lines and what follows the data of a chunk.

use super::body::read;
use super::*;

/// Reads one chunk behind `line`, its line end included, and the last chunk.
fn chunk(line: &[u8], size: usize) -> Result<usize, u16> {
    let bytes = [line, "d".repeat(size).as_bytes(), b"\r\n0\r\n\r\n"].concat();
    let found = read(Framing::Chunked, &[&bytes]);
    assert!(found.outcome.is_err() || found.rest.is_empty(), "{}", shown(line));
    found.outcome.map(|_| found.data.len())
}

#[test]
fn sizes_are_hexadecimal() {
    for (line, size) in [
        ("1", Some(1)),
        ("a", Some(10)),
        ("A", Some(10)),
        ("fF", Some(255)),
        ("0000000000001f", Some(31)),
        ("00000000000001f", Some(31)),
        // 1*HEXDIG has no end; ours has, since zeros are as good as anything to hide behind.
        ("000000000000001f", None),
        ("ffffffffffffffff", None),
        ("10000000000000001", None),
        ("", None),
        (" ", None),
        (" 1", None),
        ("\t1", None),
        // BWS is allowed before an extension alone, and nobody sends it.
        ("1 ", None),
        ("1\t", None),
        ("1 ;a", None),
        ("+1", None),
        ("-1", None),
        ("0x1", None),
        ("x1", None),
        ("1h", None),
        ("1_0", None),
        ("1.0", None),
        ("1,1", None),
        ("1 1", None),
        ("g", None),
        ("\"1\"", None),
        ("\0", None),
        ("1\0", None),
    ] {
        assert_eq!(chunk(format!("{line}\r\n").as_bytes(), size.unwrap_or(1)).ok(), size, "{line:?}");
    }
}

#[test]
fn extensions_are_names_with_or_without_values() {
    for (extension, is_valid) in [
        (";a", true),
        (";a=b", true),
        (";a=\"b\"", true),
        (";a=\"\"", true),
        (";a=\"b c;d=e\t\"", true),
        (";a=\"\\\"\"", true),
        (";a=\"\\\\\"", true),
        (";a=\"\u{e9}\"", true),
        (";a;b=c;d=\"e\";f", true),
        ("; a", true),
        (";a ;b", true),
        (";\ta = b\t; c", true),
        (";", false),
        (";;", false),
        (";a;", false),
        (";;a", false),
        (";a;;b", false),
        (";=b", false),
        (";a=", false),
        (";a=;b", false),
        (";a==b", false),
        (";a=b=c", false),
        (";a b", false),
        (";a=b c", false),
        (";a ", false),
        (";a=b ", false),
        ("; ", false),
        (";a=\"", false),
        (";a=\"b", false),
        (";a=\"b\"c", false),
        (";a=\"\\\"", false),
        (";\"a\"", false),
        (";a=\u{e9}", false),
        (";a=\"\0\"", false),
        (";a=\"\\\0\"", false),
        (",a", false),
        ("a=b", false),
        // Where a reader that takes LF for the end of any line would see the next chunk.
        (";\n", false),
        (";a\n", false),
        (";a\n1", false),
        (";a=\"\n\"", false),
        (";a\r", false),
        (";a\rb", false),
        (";a=\"\r\"", false),
        (";a=\"\\\r\"", false),
    ] {
        let expected = if is_valid { Ok(5) } else { Err(400) };
        assert_eq!(chunk(format!("5{extension}\r\n").as_bytes(), 5), expected, "{extension:?}");
        let last = format!("0{extension}\r\n\r\n");
        assert_eq!(read(Framing::Chunked, &[last.as_bytes()]).outcome.is_ok(), is_valid, "last chunk, {extension:?}");
    }
}

#[test]
fn every_byte_in_a_chunk_size_line() {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as usize);
    for byte in 0..=255 {
        for (before, after, expected) in [
            ("", "\r\n", digit(byte)),
            ("", "5\r\n", digit(byte).map(|digit| digit * 16 + 5)),
            ("5", "\r\n", digit(byte).map(|digit| 0x50 + digit)),
            // An extension called 5 starts with a semicolon.
            ("1", "5\r\n", digit(byte).map(|digit| 0x105 + digit * 16).or((byte == b';').then_some(1))),
            ("5;a", "\r\n", is_tchar(byte).then_some(5)),
            ("5;", "a\r\n", (is_tchar(byte) || matches!(byte, b' ' | b'\t')).then_some(5)),
            ("5;a", "b\r\n", (is_tchar(byte) || matches!(byte, b';' | b'=')).then_some(5)),
            ("5;a=b", "c\r\n", (is_tchar(byte) || byte == b';').then_some(5)),
            // Neither the quote that ends the string nor the backslash that quotes the one that does.
            ("5;a=\"b", "\"\r\n", (is_field_text(byte) && !matches!(byte, b'"' | b'\\')).then_some(5)),
            ("5;a=\"\\", "\"\r\n", is_field_text(byte).then_some(5)),
            // In place of CR and of LF.
            ("5", "\n", (byte == b'\r').then_some(5)),
            ("5\r", "", (byte == b'\n').then_some(5)),
        ] {
            let line = around(before, byte, after);
            let found = match expected {
                // Not a chunk, but the end of the body.
                Some(0) => read(Framing::Chunked, &[&line, b"\r\n"]).outcome.map(|_| 0),
                Some(size) => chunk(&line, size),
                None => chunk(&line, 5),
            };
            assert_eq!(found.ok(), expected, "{}", shown(&line));
        }
    }
}

#[test]
fn the_data_of_a_chunk_is_followed_by_cr_lf() {
    for byte in 0..=255 {
        for (before, after, is_right) in [("", "\n", byte == b'\r'), ("\r", "", byte == b'\n')] {
            let bytes = [b"3\r\nabc", &around(before, byte, after)[..], b"0\r\n\r\n"].concat();
            assert_eq!(read(Framing::Chunked, &[&bytes]).outcome.is_ok(), is_right, "{}", shown(&bytes));
        }
    }
    for bytes in [
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nab\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r\n\r\n",
    ] {
        let found = read(Framing::Chunked, &[bytes.as_bytes()]);
        assert_eq!(found.outcome.err(), Some(400), "{bytes:?}");
    }
}

#[test]
fn what_is_already_wrong_is_refused_before_the_line_ends() {
    for bytes in
        [" ", "g", "+", "\r", "\n", "5 ", "5x", "5\n", "5,", "1234567890abcdef", "5\r\nabcdex", "5\r\nabcde\rx"]
    {
        assert_eq!(read(Framing::Chunked, &[bytes.as_bytes()]).outcome.err(), Some(400), "{bytes:?}");
    }
}

#[test]
fn a_chunk_size_line_has_at_most_256_bytes() {
    for (length, expected) in [(255, Ok(1)), (256, Ok(1)), (257, Err(400)), (100_000, Err(400))] {
        let line = format!("1;{}\r\n", "x".repeat(length - 4));
        assert_eq!(chunk(line.as_bytes(), 1), expected, "{length}");
    }
    let unfinished = format!("1;{}", "x".repeat(254));
    assert_eq!(read(Framing::Chunked, &[unfinished.as_bytes()]).outcome.err(), Some(400));
}

/// "A server ought to limit the total length of chunk extensions" (RFC 9112 §7.1.1).
#[test]
fn extensions_may_not_outweigh_the_data() {
    let chunks = |count: usize, size: usize, extension: usize| {
        let extension = if extension == 0 { String::new() } else { format!(";{}", "x".repeat(extension)) };
        let chunk = format!("{size:x}{extension}\r\n{}\r\n", "d".repeat(size));
        let bytes = format!("{}0\r\n\r\n", chunk.repeat(count));
        read(Framing::Chunked, &[bytes.as_bytes()]).outcome.is_ok()
    };
    assert!(chunks(100_000, 1, 0), "single bytes");
    assert!(chunks(100_000, 1, 10), "short extensions");
    assert!(chunks(10_000, 100, 85), "signatures beside data");
    assert!(chunks(60, 1, 250), "long extensions, seldom");
    assert!(!chunks(100, 1, 250), "long extensions");
    assert!(!chunks(1_000, 1, 50), "middling extensions");
}
