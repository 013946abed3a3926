//! The line before each chunk (RFC 9112 §7.1).

use super::Refusal;
use super::head::{is_token_byte, is_value_byte};

/// Longest chunk-size line in bytes, extensions and line end included.
const LINE_MAX: usize = 256;
/// Most digits of a size, leading zeros included: it stays below 2^60.
const DIGITS_MAX: usize = 15;

/// Reads `1*HEXDIG [ chunk-ext ] CRLF` at the front of `bytes`: the size and the length of the line; `None` before its
/// end is there. No blanks around the size, no bare CR or LF anywhere.
pub(super) fn size(bytes: &[u8]) -> Result<Option<(u64, usize)>, Refusal> {
    let window = bytes.get(..LINE_MAX).unwrap_or(bytes);
    let line_end = memchr::memchr(b'\n', window);
    let line = window.get(..line_end.unwrap_or(window.len())).unwrap_or_default();
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at_checked(digits).unwrap_or_default();
    if (digits.is_empty() && !rest.is_empty()) || digits.len() > DIGITS_MAX {
        return Err(Refusal::bad("a chunk size is not a hexadecimal number of up to 15 digits"));
    }
    if rest.first().is_some_and(|b| !b";\r".contains(b)) {
        return Err(Refusal::bad("a chunk size is followed by something other than an extension or CR LF"));
    }
    let Some(line_end) = line_end else {
        return if window.len() < LINE_MAX {
            Ok(None)
        } else {
            Err(Refusal::bad("a chunk-size line is longer than 256 bytes"))
        };
    };
    let extensions = rest.strip_suffix(b"\r").ok_or(Refusal::bad("a chunk-size line ends in LF without CR"))?;
    if digits.is_empty() || !are_extensions(extensions) {
        return Err(Refusal::bad("a chunk-size line is malformed"));
    }
    let hex = |b: &u8| u64::from(char::from(*b).to_digit(16).unwrap_or(0));
    Ok(Some((digits.iter().fold(0, |size, digit| size << 4 | hex(digit)), line_end + 1)))
}

/// `*( ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] BWS )` without blanks at either end (RFC 9112 §7.1.1).
/// They are ignored, but not without having been understood: an extension is no place to hide a line.
fn are_extensions(mut text: &[u8]) -> bool {
    while let Some(named) = text.strip_prefix(b";") {
        let Some(rest) = past_token(past_blanks(named)) else { return false };
        let rest = match past_blanks(rest).strip_prefix(b"=").map(past_blanks) {
            Some(value) => match past_token(value).or_else(|| past_quoted(value)) {
                Some(rest) => rest,
                None => return false,
            },
            None => rest,
        };
        let next = past_blanks(rest);
        text = if next.is_empty() { rest } else { next };
    }
    text.is_empty()
}

fn past_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|b| b" \t".contains(b)).count();
    text.get(blanks..).unwrap_or_default()
}

fn past_token(text: &[u8]) -> Option<&[u8]> {
    let length = text.iter().take_while(|b| is_token_byte(**b)).count();
    text.get(length..).filter(|_| length > 0)
}

/// Past a quoted string (RFC 9110 §5.6.4).
fn past_quoted(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"\"")?;
    loop {
        let (&b, behind) = rest.split_first()?;
        rest = match b {
            b'"' => return Some(behind),
            b'\\' => behind.split_first().filter(|(quoted, _)| is_value_byte(**quoted))?.1,
            _ if is_value_byte(b) => behind,
            _ => return None,
        };
    }
}
