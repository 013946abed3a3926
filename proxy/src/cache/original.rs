//! What the origin said where clients are told something else.

use millpond_shared::http1::{Fields, FieldsBuilder};

/// The origin's own lines of fields that the stored head does not have as it sent them: directives for this cache alone,
/// and fields in whose place the rule has put its own. By these the response is judged, for as long as it is stored, and
/// a 304 that leaves them out confirms them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Original {
    /// Names of the fields of the head that are not the origin's.
    replaced: Box<[Box<str>]>,
    lines: Box<[Line]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    name: Box<str>,
    value: Box<[u8]>,
}

impl Original {
    /// `None`: the head is all the origin said.
    pub fn of<'a>(replaced: &[&str], lines: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Option<Box<Original>> {
        let replaced: Box<[Box<str>]> = replaced.iter().map(|name| Box::from(*name)).collect();
        let line = |(name, value): (&str, &[u8])| Line { name: name.into(), value: value.into() };
        let lines: Box<[Line]> = lines.into_iter().map(line).collect();
        (!replaced.is_empty() || !lines.is_empty()).then(|| Box::new(Original { replaced, lines }))
    }

    /// The fields as the origin sent them, given those of the head.
    pub fn restored<'a>(&self, head: impl Iterator<Item = (&'a str, &'a [u8])>) -> Fields {
        let mut fields = FieldsBuilder::new();
        let is_replaced = |name: &str| self.replaced.iter().any(|replaced| replaced.eq_ignore_ascii_case(name));
        for (name, value) in head.filter(|(name, _)| !is_replaced(name)) {
            fields.push(name, value);
        }
        for Line { name, value } in &self.lines {
            fields.push(name, value);
        }
        fields.build()
    }

    /// Sizes in bytes of the allocations that it has, its own included.
    pub(super) fn allocations(&self) -> impl Iterator<Item = usize> {
        let names = self.replaced.iter().map(|name| name.len());
        let lines = self.lines.iter().flat_map(|line| [line.name.len(), line.value.len()]);
        let own = [size_of::<Original>(), size_of_val(&*self.replaced), size_of_val(&*self.lines)];
        own.into_iter().chain(names).chain(lines)
    }
}
