//! Which stored variant belongs to a request (RFC 9111 §4.1, RFC 9110 §12.5.5).

use std::borrow::Cow;

use millpond_shared::http1::Fields;

use super::list::{self, Quoted};

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
/// Values are compared after what §4.1 allows for every field: lines are joined, and blanks around commas outside
/// quotes do not count. Order and case do count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selection {
    /// `None`: the request does not have the field, which is not the same as an empty one.
    fields: Vec<(String, Option<Vec<u8>>)>,
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
        let field = |name: &String| (name.clone(), normal(request, name).map(Cow::into_owned));
        Selection { fields: names.iter().map(field).collect() }
    }

    /// Whether this request selects the same variant.
    pub fn matches(&self, request: &Fields) -> bool {
        self.fields.iter().all(|(name, value)| normal(request, name).as_deref() == value.as_deref())
    }

    /// The selecting fields as they are to be sent when the variant is refreshed without a client's request
    /// (RFC 9111 §4.3.1).
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)))
    }

    /// Bytes it takes, itself included.
    pub fn weight(&self) -> usize {
        let owned = |(name, value): &(String, Option<Vec<u8>>)| {
            size_of::<(String, Option<Vec<u8>>)>() + name.capacity() + value.as_ref().map_or(0, Vec::capacity)
        };
        size_of::<Selection>() + self.fields.iter().map(owned).sum::<usize>()
    }
}

/// The value of a request field in its normal form.
fn normal<'a>(request: &'a Fields, name: &'a str) -> Option<Cow<'a, [u8]>> {
    let mut lines = request.get_all(name);
    let first = lines.next()?;
    let mut rest = lines.peekable();
    // The usual case costs nothing: one line, no list.
    if rest.peek().is_none() && !first.contains(&b',') {
        return Some(Cow::Borrowed(list::trim(first)));
    }
    let members = std::iter::once(first).chain(rest).flat_map(|line| list::raw_members(line, Quoted::Strings));
    let mut joined = Vec::with_capacity(first.len());
    for (at, member) in members.enumerate() {
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
    fn a_selection_can_be_sent_again() {
        let names = ["absent".to_owned(), "accept".to_owned()];
        let selection = Selection::of(&names, &fields("Accept: a\nAccept: b"));
        assert_eq!(selection.fields().collect::<Vec<_>>(), [("accept", &b"a, b"[..])]);
        let resent: Fields = selection.fields().collect();
        assert!(selection.matches(&resent));
        assert!(selection.weight() > "absentaccepta, b".len());
    }
}
