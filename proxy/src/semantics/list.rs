//! Members of a comma-separated list whose commas may stand in quotes (RFC 9110 §5.6.1, §5.6.4, §8.8.3).

/// What stands between double quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quoted {
    /// A quoted-string: a backslash quotes the next byte.
    Strings,
    /// The opaque part of an entity tag: a backslash is itself.
    Tags,
}

/// Members of one field line, trimmed, empty ones left out.
pub(super) fn members(value: &[u8], quoted: Quoted) -> impl Iterator<Item = &[u8]> {
    raw_members(value, quoted).filter(|member| !member.is_empty())
}

/// The same with the empty ones.
///
/// A quote that is never closed is an ordinary byte: were the rest of the line taken for its content, an
/// `ext="a, no-store` would hide the `no-store`.
pub(super) fn raw_members(value: &[u8], quoted: Quoted) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    let mut quotes_close = true;
    std::iter::from_fn(move || {
        let line = rest?;
        let end = member_end(line, quoted, &mut quotes_close);
        rest = line.get(end + 1..);
        Some(trim(line.get(..end).unwrap_or(line)))
    })
}

/// Without the blanks and tabs around it (OWS, RFC 9110 §5.6.3).
pub(super) fn trim(value: &[u8]) -> &[u8] {
    let is_blank = |b: &u8| *b == b' ' || *b == b'\t';
    let start = value.iter().position(|b| !is_blank(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !is_blank(b)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or(&[])
}

/// Index of the first comma outside quotes, or the length.
///
/// When one quote does not close, no later one does: remembering that keeps a line of quotes linear.
fn member_end(line: &[u8], quoted: Quoted, quotes_close: &mut bool) -> usize {
    let mut at = 0;
    while let Some(&b) = line.get(at) {
        match b {
            b',' => return at,
            b'"' if *quotes_close => match quoted_end(line, at, quoted) {
                Some(end) => at = end,
                None => {
                    *quotes_close = false;
                    at += 1;
                }
            },
            _ => at += 1,
        }
    }
    at
}

/// Index after the quote that closes the one at `open`.
fn quoted_end(line: &[u8], open: usize, quoted: Quoted) -> Option<usize> {
    let mut at = open + 1;
    loop {
        match line.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' if quoted == Quoted::Strings => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_split_at_commas_outside_quotes() {
        use Quoted::{Strings, Tags};
        for (line, quoted, expected) in [
            ("", Strings, &[][..]),
            (" , ,\t", Strings, &[]),
            ("a, b ,c", Strings, &["a", "b", "c"]),
            (r#"a="x, y", b"#, Strings, &[r#"a="x, y""#, "b"]),
            (r#"a="x\", y", b"#, Strings, &[r#"a="x\", y""#, "b"]),
            (r#""a\", "b""#, Tags, &[r#""a\""#, r#""b""#]),
            (r#""a,b", W/"c,d""#, Tags, &[r#""a,b""#, r#"W/"c,d""#]),
            (r#"ext="a, no-store"#, Strings, &[r#"ext="a"#, "no-store"]),
            (r#"a="b\", c"#, Strings, &[r#"a="b\""#, "c"]),
        ] {
            let found: Vec<_> = members(line.as_bytes(), quoted).map(String::from_utf8_lossy).collect();
            assert_eq!(found, expected, "{line}");
        }
    }

    /// Searching for the end of each quote anew would take 10^12 steps here.
    #[test]
    fn unclosed_quotes_are_read_once() {
        let line = r#"\""#.repeat(1 << 20);
        assert_eq!(members(line.as_bytes(), Quoted::Strings).count(), 1);
    }
}
