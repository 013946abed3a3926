//! Header (or trailer) fields as they stood in the head: order, case and bytes kept.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

/// The fields of one head. Clones share the bytes.
#[derive(Clone, Default)]
pub struct Fields {
    bytes: Bytes,
    lines: Vec<Line>,
}

/// Where one field stands in the bytes.
#[derive(Clone, Copy)]
pub(super) struct Line {
    name: (u32, u32),
    value: (u32, u32),
}

impl Line {
    pub(super) fn new(name: Range<usize>, value: Range<usize>) -> Line {
        let span = |range: Range<usize>| (range.start as u32, range.end as u32);
        Line { name: span(name), value: span(value) }
    }
}

impl Fields {
    /// Fields whose names and values stand where `lines` say. Names are tokens.
    pub(super) fn new(bytes: Bytes, lines: Vec<Line>) -> Fields {
        Fields { bytes, lines }
    }

    /// The bytes that the fields stand in: of a parsed head, the whole of it.
    pub fn raw(&self) -> &[u8] {
        &self.bytes
    }

    /// The same fields in memory of their own, to be kept for long: a parsed head is part of a larger read buffer.
    pub fn detached(&self) -> Fields {
        Fields { bytes: Bytes::from(Box::<[u8]>::from(&*self.bytes)), lines: self.lines.as_slice().into() }
    }

    pub fn len(&self) -> usize {
        self.lines.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes of the head the fields came from: what they cost in memory.
    pub fn weight(&self) -> usize {
        self.bytes.len() + self.lines.len() * size_of::<Line>()
    }

    /// Name and value of each field line, in their order. Names are as written; compare without case.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.lines.iter().map(|line| (self.name(line), self.slice(line.value)))
    }

    /// Value of the first line called `name` (any case).
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.lines.iter().find(|line| self.is_called(line, name)).map(|line| self.slice(line.value))
    }

    /// The same as text; `None` also when it is not UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Values of all lines called `name` (any case), in their order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.lines.iter().filter(move |line| self.is_called(line, name)).map(|line| self.slice(line.value))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Members of the comma-separated list that all lines called `name` form together (RFC 9110 §5.6.1),
    /// trimmed, empty ones and those that are not UTF-8 left out. Does not look into quoted strings.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.get_all(name)
            .flat_map(|value| value.split(|&b| b == b','))
            .filter_map(|member| std::str::from_utf8(member).ok())
            .map(|member| member.trim_matches(BLANKS))
            .filter(|member| !member.is_empty())
    }

    fn is_called(&self, line: &Line, name: &str) -> bool {
        self.slice(line.name).eq_ignore_ascii_case(name.as_bytes())
    }

    fn name(&self, line: &Line) -> &str {
        // A name was accepted as a token, which is ASCII.
        std::str::from_utf8(self.slice(line.name)).unwrap_or("")
    }

    fn slice(&self, (start, end): (u32, u32)) -> &[u8] {
        self.bytes.get(start as usize..end as usize).unwrap_or(&[])
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        f.debug_map().entries(self.iter().map(|(name, value)| (name.to_owned(), text(value)))).finish()
    }
}

/// Optional white space (RFC 9110 §5.6.3); around a value, it is not part of it.
const BLANKS: [char; 2] = [' ', '\t'];

/// Builds [`Fields`] that did not come from a socket.
#[derive(Default)]
pub struct FieldsBuilder {
    bytes: Vec<u8>,
    lines: Vec<Line>,
}

impl FieldsBuilder {
    pub fn new() -> FieldsBuilder {
        FieldsBuilder::default()
    }

    /// Appends a field. Bytes that may not stand in a name or value are left out, and so are blanks around the value
    /// and a field without a name: what is built can be written and read back.
    pub fn push(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut FieldsBuilder {
        let name_start = self.bytes.len();
        self.bytes.extend(name.bytes().filter(|&b| super::head::is_token_byte(b)));
        let value_start = self.bytes.len();
        if name_start == value_start {
            return self;
        }
        let is_blank = |b: &u8| BLANKS.contains(&char::from(*b));
        let bytes = value.as_ref().iter().copied().filter(|&b| super::head::is_value_byte(b));
        self.bytes.extend(bytes.skip_while(is_blank));
        let blanks = self.bytes.iter().skip(value_start).rev().take_while(|b| is_blank(b)).count();
        self.bytes.truncate(self.bytes.len() - blanks);
        self.lines.push(Line::new(name_start..value_start, value_start..self.bytes.len()));
        self
    }

    pub fn build(&mut self) -> Fields {
        // Without room to grow, so that `weight` is what they cost: they may be kept for long.
        let bytes = std::mem::take(&mut self.bytes).into_boxed_slice();
        let lines = std::mem::take(&mut self.lines).into_boxed_slice();
        Fields::new(Bytes::from(bytes), lines.into_vec())
    }
}

impl<'a, V: AsRef<[u8]>> FromIterator<(&'a str, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (&'a str, V)>>(pairs: I) -> Fields {
        let mut builder = FieldsBuilder::new();
        for (name, value) in pairs {
            builder.push(name, value);
        }
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_without_case_and_lines_form_one_list() {
        let fields: Fields = [("Vary", "Accept, , Cookie"), ("X", "1"), ("vary", "Range")].into_iter().collect();
        assert_eq!(fields.get("VARY"), Some(&b"Accept, , Cookie"[..]));
        assert_eq!(fields.list("vary").collect::<Vec<_>>(), ["Accept", "Cookie", "Range"]);
        assert_eq!(fields.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["Vary", "X", "vary"]);
    }

    #[test]
    fn a_built_value_cannot_split_a_line() {
        let fields: Fields = [("X-A", "a\r\nSet-Cookie: b")].into_iter().collect();
        assert_eq!(fields.get("x-a"), Some(&b"aSet-Cookie: b"[..]));
    }
}
