//! Media types of responses, and patterns of them.

use std::borrow::Cow;

use http::HeaderName;

/// The media type in a `Content-Type`, without its parameters, in lower case; empty if there is none.
pub fn of(content_type: Option<&[u8]>) -> Cow<'_, str> {
    let text = content_type.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
    let media_type = text.split(';').next().unwrap_or_default().trim();
    match media_type.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(media_type.to_ascii_lowercase()),
        false => Cow::Borrowed(media_type),
    }
}

/// Whether one of the patterns is for it: `type/subtype` or `type/*`.
pub fn is_any_of(media_type: &str, patterns: &[String]) -> bool {
    patterns.iter().any(|wanted| match wanted.strip_suffix('*') {
        Some(start) => media_type.starts_with(start),
        None => media_type == *wanted,
    })
}

/// Whether a text, in lower case, is a pattern.
pub fn is_pattern(text: &str) -> bool {
    let is_token = |text: &str| HeaderName::from_bytes(text.as_bytes()).is_ok() && !text.contains('*');
    text.split_once('/').is_some_and(|(kind, rest)| is_token(kind) && (rest == "*" || is_token(rest)))
}
