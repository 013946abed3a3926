//! Addresses in feeds: of the feed itself, of what items point to, and names for what has none (pure).

use millpond_shared::template::encode_key_part;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::Page;
use crate::projection::Before;

/// What has to be percent-encoded in a link, of ASCII; what is beyond ASCII always is.
const NOT_IN_LINKS: AsciiSet =
    CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

/// Query parameter that names a page by its cursor.
pub const BEFORE: &str = "before";

/// Where clients get the output: absolute if the projection names its site.
pub(super) fn of_output(page: &Page<'_>) -> String {
    format!("{}{}", page.projection.site.as_deref().unwrap_or_default(), page.output.path.path_of(page.key))
}

/// Where clients get this very page of it.
pub(super) fn of_itself(page: &Page<'_>) -> String {
    let output = of_output(page);
    page.before.map_or_else(|| output.clone(), |before| of_page(&output, before))
}

/// And the next one, if there is one.
pub(super) fn of_next(page: &Page<'_>) -> Option<String> {
    page.next.as_ref().map(|next| of_page(&of_output(page), next))
}

/// The page that begins `before` a place, of an output at `address`.
pub(super) fn of_page(address: &str, before: &Before) -> String {
    format!("{address}?{BEFORE}={before}")
}

/// A URL with nothing in it that has to be percent-encoded.
pub(super) fn link(address: &str) -> String {
    utf8_percent_encode(address, &NOT_IN_LINKS).to_string()
}

/// The absolute URL that `address` stands for; `None` where it is none, and no path of the projection's site.
pub(super) fn absolute(page: &Page<'_>, address: &str) -> Option<String> {
    let link = link(address);
    if is_iri(&link) {
        return Some(link);
    }
    let site = page.projection.site.as_ref()?;
    (link.starts_with('/') && !link.starts_with("//")).then(|| format!("{site}{link}"))
}

/// The id itself if it is an IRI with a scheme (RFC 3987 §2.2), else a URN made of it.
pub(super) fn iri(id: &str) -> String {
    if is_iri(id) { id.to_owned() } else { format!("urn:millpond:item:{}", encode_key_part(id)) }
}

fn is_iri(text: &str) -> bool {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    text.split_once(':').is_some_and(|(scheme, rest)| is_scheme(scheme) && is_iri_text(rest))
}

/// Whether an IRI may go on like this behind its scheme: not empty, no character that has to be percent-encoded, and
/// `%` only before two hexadecimal digits.
fn is_iri_text(text: &str) -> bool {
    let beyond_ascii = |c: char| matches!(c, '\u{a0}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{ffef}' | '\u{10000}'..='\u{dffff}');
    let ascii = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
    let encoded = |part: &str| part.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    !text.is_empty() && text.chars().all(|c| ascii(c) || beyond_ascii(c)) && text.split('%').skip(1).all(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_an_iri_or_becomes_one() {
        for iri_already in ["urn:x:1", "https://a.example/%20", "tag:a.example,2015:ü", "a:b"] {
            assert_eq!(iri(iri_already), iri_already);
        }
        for (id, expected) in [
            ("12:30", "urn:millpond:item:12%3A30"),
            ("a:", "urn:millpond:item:a%3A"),
            (":a", "urn:millpond:item:%3Aa"),
            ("a:b c", "urn:millpond:item:a%3Ab%20c"),
            ("a:%zz", "urn:millpond:item:a%3A%25zz"),
            ("a:b\n", "urn:millpond:item:a%3Ab%0A"),
            ("ü", "urn:millpond:item:%C3%BC"),
            ("a:\u{e000}", "urn:millpond:item:a%3A%EE%80%80"),
        ] {
            assert_eq!(iri(id), expected, "{id}");
        }
    }
}
