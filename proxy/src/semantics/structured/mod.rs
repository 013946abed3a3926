//! Structured fields (RFC 9651), of which our targeted directives, the groups and `Cache-Status` are made.

use millpond_shared::http1::Fields;
use sfv::{FieldType, Parser};

#[cfg(test)]
mod vectors;

/// All lines of a field as one value; `None` if it is missing, or if any of it is malformed (RFC 9651 §4.2: then the
/// field is ignored as a whole).
pub(super) fn field<T: FieldType>(fields: &Fields, name: &str) -> Option<T> {
    if fields.contains(name) { parsed(fields.get_all(name)) } else { None }
}

/// A text as one value; `None` if it is malformed.
pub(super) fn text<T: FieldType>(text: &str) -> Option<T> {
    parsed([text.as_bytes()].into_iter())
}

/// The value that the lines form together, in their order.
fn parsed<'a, T: FieldType>(lines: impl Iterator<Item = &'a [u8]>) -> Option<T> {
    Parser::new(&lines.collect::<Vec<_>>().join(&b", "[..])).parse().ok()
}
