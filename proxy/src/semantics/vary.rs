//! Which stored variant belongs to a request (RFC 9111 §4.1, RFC 9110 §12.5.5).

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

use millpond_shared::http1::Fields;

use super::list::{self, Quoted};
use super::negotiation;

/// What the `Vary` lines of a response say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// One response for all requests.
    None,
    /// `*` among the members: no request can be known to match.
    Any,
    /// The selecting fields: names in lower case, sorted, each once.
    On(Vec<String>),
}

impl Vary {
    pub fn of(response: &Fields) -> Vary {
        let members = response.get_all("vary").flat_map(|line| list::members(line, Quoted::Strings));
        let mut names: Vec<String> = members.map(|name| String::from_utf8_lossy(name).to_ascii_lowercase()).collect();
        names.sort_unstable();
        names.dedup();
        if names.iter().any(|name| name == "*") {
            Vary::Any
        } else if names.is_empty() {
            Vary::None
        } else {
            Vary::On(names)
        }
    }
}

/// The selecting fields of one request, with their values: two requests with equal selections match.
///
/// Values are compared after what §4.1 allows: lines are joined, blanks around commas outside quotes do not count, and
/// a field of which more is known is brought to its normal form (`negotiation`). Otherwise order and case count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selection {
    fields: Vec<Selecting>,
}

#[derive(Clone, Debug)]
struct Selecting {
    name: String,
    /// Its normal form. `None`: the request does not have the field, which is not the same as an empty one.
    value: Option<Vec<u8>>,
    /// Where it is one line that was written otherwise, that line: most requests with this value are written alike, and
    /// need not be brought to the normal form.
    written: Option<Box<[u8]>>,
}

impl PartialEq for Selecting {
    fn eq(&self, other: &Selecting) -> bool {
        self.name == other.name && self.value == other.value
    }
}

impl Eq for Selecting {}

impl Hash for Selecting {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, &self.value).hash(state);
    }
}

impl Selection {
    /// That of a response without `Vary`: every request matches.
    pub const NONE: Selection = Selection { fields: Vec::new() };

    /// Whether every request matches.
    pub fn is_none(&self) -> bool {
        self.fields.is_empty()
    }

    /// The selection of a request by the names of [`Vary::On`].
    pub fn of(names: &[String], request: &Fields) -> Selection {
        Selection { fields: names.iter().map(|name| Selecting::of(name, request)).collect() }
    }

    /// Whether this request selects the same variant.
    pub fn matches(&self, request: &Fields) -> bool {
        self.fields.iter().all(|field| field.matches(request))
    }

    /// The selecting fields as they are to be sent when the variant is refreshed without a client's request
    /// (RFC 9111 §4.3.1).
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().filter_map(|field| {
            let value = field.written.as_deref().or(field.value.as_deref())?;
            Some((field.name.as_str(), value))
        })
    }

    /// Bytes it takes, itself included.
    pub fn weight(&self) -> usize {
        size_of::<Selection>() + self.fields.iter().map(Selecting::weight).sum::<usize>()
    }
}

impl Selecting {
    fn of(name: &str, request: &Fields) -> Selecting {
        let value = normal(request, name).map(Cow::into_owned);
        let only = only_line(request, name).filter(|line| value.as_deref() != Some(list::trim(line)));
        Selecting { name: name.to_owned(), written: only.map(Box::from), value }
    }

    fn matches(&self, request: &Fields) -> bool {
        let as_written = self.written.is_some() && only_line(request, &self.name) == self.written.as_deref();
        as_written || normal(request, &self.name).as_deref() == self.value.as_deref()
    }

    fn weight(&self) -> usize {
        let value = self.value.as_ref().map_or(0, Vec::capacity) + self.written.as_ref().map_or(0, |line| line.len());
        size_of::<Selecting>() + self.name.capacity() + value
    }
}

/// The value of a field that stands in one line.
fn only_line<'a>(request: &'a Fields, name: &'a str) -> Option<&'a [u8]> {
    let mut lines = request.get_all(name);
    lines.next().filter(|_| lines.next().is_none())
}

/// The value of a request field in its normal form.
fn normal<'a>(request: &'a Fields, name: &'a str) -> Option<Cow<'a, [u8]>> {
    let lines = || request.get_all(name);
    let first = lines().next()?;
    let members = || lines().flat_map(|line| list::raw_members(line, Quoted::Strings));
    if let Some(known) = negotiation::normal(name, members()) {
        return Some(Cow::Owned(known));
    }
    // The usual case costs nothing: one line, no list.
    if lines().nth(1).is_none() && !first.contains(&b',') {
        return Some(Cow::Borrowed(list::trim(first)));
    }
    let mut joined = Vec::with_capacity(first.len());
    for (at, member) in members().enumerate() {
        if at > 0 {
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(member);
    }
    Some(Cow::Owned(joined))
}

#[cfg(test)]
mod tests {
    use super::super::sample::fields;
    use super::*;

    fn on(names: &[&str]) -> Vary {
        Vary::On(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn what_vary_says() {
        for (lines, expected) in [
            ("", Vary::None),
            ("Vary:", Vary::None),
            ("Vary: ,", Vary::None),
            ("Vary: Foo", on(&["foo"])),
            ("Vary: Foo, bar\nvary: FOO,,Baz", on(&["bar", "baz", "foo"])),
            ("Vary: *", Vary::Any),
            ("Vary: *, *", Vary::Any),
            ("Vary: *\nVary: *", Vary::Any),
            ("Vary: , *", Vary::Any),
            ("Vary:\nVary: *", Vary::Any),
            ("Vary: *, Foo", Vary::Any),
            ("Vary: Foo, *", Vary::Any),
        ] {
            assert_eq!(Vary::of(&fields(lines)), expected, "{lines}");
        }
    }

    #[test]
    fn matching() {
        let names = ["foo".to_owned(), "bar".to_owned()];
        for (stored, presented, expected) in [
            ("Foo: 1", "Foo: 1", true),
            ("Foo: 1", "FOO: 1\nOther: 2", true),
            ("Foo: 1", "Foo: 2", false),
            ("Foo: 1", "", false),
            ("", "Foo: 1", false),
            ("", "", true),
            ("Foo:", "", false),
            ("Foo:", "Foo:", true),
            ("Foo: 1\nBar: a", "Bar: a\nFoo: 1", true),
            ("Foo: 1\nBar: a", "Foo: 1\nBar: b", false),
            ("Foo: 1\nBar: a", "Foo: 1", false),
            ("Foo: 1,2", "Foo: 1 ,\t2", true),
            ("Foo: 1, 2", "Foo: 1\nBaz: 3\nFoo: 2", true),
            ("Foo: 1, 2", "Foo: 2, 1", false),
            ("Foo: 1, 2", "Foo: 1 2", false),
            ("Foo: 1,,2", "Foo: 1,2", false),
            ("Foo: a", "Foo: A", false),
            (r#"Foo: "a,b""#, r#"Foo: "a, b""#, false),
            (r#"Foo: "a,b",c"#, r#"Foo: "a,b" , c"#, true),
        ] {
            let (stored, presented) = (fields(stored), fields(presented));
            let selection = Selection::of(&names, &stored);
            assert_eq!(selection.matches(&presented), expected, "{stored:?} {presented:?}");
            assert_eq!(selection == Selection::of(&names, &presented), expected, "{stored:?} {presented:?}");
        }
    }

    #[test]
    fn preferences_match_by_what_they_mean() {
        let names = ["accept-encoding".to_owned(), "accept-language".to_owned()];
        for (stored, presented, expected) in [
            ("Accept-Encoding: gzip, br", "Accept-Encoding: br,GZIP", true),
            ("Accept-Encoding: gzip, br", "Accept-Encoding: gzip\nAccept-Encoding: br", true),
            ("Accept-Encoding: gzip, br", "Accept-Encoding: gzip, br;q=0.9", false),
            ("Accept-Encoding: gzip", "", false),
            ("Accept-Encoding: gzip;q=2, br", "Accept-Encoding: br, gzip;q=2", false),
            ("Accept-Encoding: gzip;q=2, br", "Accept-Encoding: gzip;q=2,br", true),
            ("Accept-Language: EN", "Accept-Language: en", true),
            ("Accept-Language: de, en;q=0.5", "Accept-Language: en;q=0.500,de", true),
            ("Accept-Language: de, en;q=0.5", "Accept-Language: en, de;q=0.5", false),
        ] {
            let (stored, presented) = (fields(stored), fields(presented));
            let selection = Selection::of(&names, &stored);
            assert_eq!(selection.matches(&presented), expected, "{stored:?} {presented:?}");
            assert_eq!(selection == Selection::of(&names, &presented), expected, "{stored:?} {presented:?}");
            assert!(selection.matches(&stored) && selection.matches(&selection.fields().collect()), "{stored:?}");
        }
    }

    #[test]
    fn a_selection_can_be_sent_again() {
        let names = ["absent".to_owned(), "accept".to_owned()];
        let selection = Selection::of(&names, &fields("Accept: a\nAccept: b"));
        assert_eq!(selection.fields().collect::<Vec<_>>(), [("accept", &b"a, b"[..])]);
        let resent: Fields = selection.fields().collect();
        assert!(selection.matches(&resent));
        assert!(selection.weight() > "absentaccepta, b".len());
    }
}
