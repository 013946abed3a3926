//! Where a body ends (RFC 9112 §6). Anything that two recipients could measure differently is refused.

use http::{Method, StatusCode};

use super::{Fields, Minor, Refusal};

/// How the body of a message is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body at all.
    None,
    /// `Content-Length` bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Everything up to the end of the connection; responses only.
    UntilClose,
}

/// Framing of a request.
pub fn request_framing(fields: &Fields, minor: Minor) -> Result<Framing, Refusal> {
    match declared(fields, minor)? {
        Some(framing) => Ok(framing),
        None => Ok(Framing::None),
    }
}

/// Framing of the response to a request with `method`.
pub fn response_framing(
    method: &Method,
    status: StatusCode,
    fields: &Fields,
    minor: Minor,
) -> Result<Framing, Refusal> {
    if *method == Method::CONNECT && status.is_success() {
        // A tunnel; what the fields say about a body is to be ignored (RFC 9112 §6.3).
        return Ok(Framing::UntilClose);
    }
    let declared = declared(fields, minor)?;
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    Ok(if bodiless { Framing::None } else { declared.unwrap_or(Framing::UntilClose) })
}

fn declared(fields: &Fields, minor: Minor) -> Result<Option<Framing>, Refusal> {
    let chunked = transfer_encoding(fields)?;
    let length = content_length(fields)?;
    match (chunked, length) {
        (true, Some(_)) => Err(Refusal::bad("the message has both Transfer-Encoding and Content-Length")),
        (true, None) if minor == Minor::Zero => Err(Refusal::bad("an HTTP/1.0 message has a Transfer-Encoding")),
        (true, None) => Ok(Some(Framing::Chunked)),
        (false, Some(length)) => Ok(Some(Framing::Length(length))),
        (false, None) => Ok(None),
    }
}

/// Whether the message is chunked. Exactly one coding, `chunked`, is understood.
fn transfer_encoding(fields: &Fields) -> Result<bool, Refusal> {
    let mut lines = fields.get_all("transfer-encoding");
    let Some(value) = lines.next() else { return Ok(false) };
    if lines.next().is_none() && value.eq_ignore_ascii_case(b"chunked") {
        return Ok(true);
    }
    let codings: Vec<&str> = fields.list("transfer-encoding").collect();
    let is_chunked = |coding: &str| coding.eq_ignore_ascii_case("chunked");
    let is_name = |coding: &str| coding.bytes().all(super::head::is_token_byte);
    match codings.split_last() {
        // Well delimited, but what is delimited can't be read (RFC 9112 §6.1).
        Some((last, before))
            if is_chunked(last)
                && !before.is_empty()
                && before.iter().all(|coding| is_name(coding) && !is_chunked(coding)) =>
        {
            Err(Refusal {
                status: StatusCode::NOT_IMPLEMENTED,
                why: "the Transfer-Encoding names a coding other than chunked",
            })
        }
        _ => Err(Refusal::bad("the Transfer-Encoding is not exactly `chunked`")),
    }
}

fn content_length(fields: &Fields) -> Result<Option<u64>, Refusal> {
    let mut lines = fields.get_all("content-length");
    let Some(value) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(Refusal::bad("there is more than one Content-Length field"));
    }
    // 18 digits stay below 2^63; a sign, a blank, a comma or a hex digit is no digit.
    let valid = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    if !valid {
        return Err(Refusal::bad("the Content-Length is not a decimal number of bytes"));
    }
    Ok(Some(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))))
}
