//! From TOML text to the written types, past the first mistake.
//!
//! `serde` stops at its first error. To go on, the value the error points at is reported, taken out of the parsed
//! document, and the rest is read again, until nothing is left to complain about.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Complaints;

/// The text of all configuration files. A span is a byte range in this text.
#[derive(Debug, Default)]
pub struct Source {
    files: Vec<File>,
    text: String,
    /// A file was no TOML.
    broken: bool,
}

#[derive(Debug)]
struct File {
    name: String,
    range: Range<usize>,
}

/// A place in a file; line and column count from 1.
#[derive(Debug, PartialEq, Eq)]
pub struct Place<'a> {
    pub file: &'a str,
    pub line: usize,
    pub column: usize,
}

/// Mistakes of one file that are reported before reading gives up.
const MISTAKES_MAX: usize = 100;

impl Source {
    /// Adds a file's text and reads it as `T`, as far as it can be read.
    pub fn read<T: DeserializeOwned + Default>(&mut self, name: &str, text: &str, complaints: &mut Complaints) -> T {
        let start = self.text.len();
        self.text.push_str(text);
        self.text.push('\n');
        self.files.push(File { name: name.to_owned(), range: start..self.text.len() });

        // Read behind as many blanks as there is text before, so that every span is a place in the whole.
        let padded = format!("{}{text}", " ".repeat(start));
        let (document, syntax_errors) = DeTable::parse_recoverable(&padded);
        if !syntax_errors.is_empty() {
            for error in syntax_errors {
                let message = error.message();
                let fix = if message == "duplicate key" { "keep one of the two" } else { "mend the syntax" };
                complaints.add(error.span(), "", format!("this is not TOML: {message}"), fix);
            }
            self.broken = true;
            return T::default();
        }
        read_document(document, complaints)
    }

    /// Whether every file was TOML: if not, what is missing may stand where nobody could read it.
    pub fn is_whole(&self) -> bool {
        !self.broken
    }

    /// Where byte `at` of the whole stands.
    pub fn place(&self, at: usize) -> Option<Place<'_>> {
        let file = self.files.iter().find(|file| file.range.contains(&at))?;
        let before = self.text.get(file.range.start..at)?;
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |text| text.chars().count()) + 1;
        Some(Place { file: &file.name, line, column })
    }

    /// Name of the file that was read first.
    pub fn main_file(&self) -> &str {
        self.files.first().map_or("config", |file| &file.name)
    }
}

fn read_document<T: DeserializeOwned + Default>(mut document: Spanned<DeTable<'_>>, complaints: &mut Complaints) -> T {
    for _ in 0..MISTAKES_MAX {
        let error = match T::deserialize(toml::Deserializer::from(document.clone())) {
            Ok(read) => return read,
            Err(error) => error,
        };
        let found = error.span().and_then(|span| remove(document.get_mut(), &span, ""));
        let field = found.clone().unwrap_or_default();
        let (problem, fix) = in_words(error.message(), &field);
        complaints.add_unread(error.span(), field, problem, fix);
        if found.is_none() {
            break;
        }
    }
    T::default()
}

/// Takes the innermost key or value that `span` points into out of the table; its dotted path.
fn remove(table: &mut DeTable<'_>, span: &Range<usize>, path: &str) -> Option<String> {
    let inside = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    let mut hit = None;
    for (key, value) in table.iter_mut() {
        let path = below(path, key.get_ref());
        if inside(key.span()) {
            hit = Some((key.clone(), path));
            break;
        }
        if let Some(removed) = remove_below(value, span, &path) {
            return Some(removed);
        }
        if inside(value.span()) {
            hit = Some((key.clone(), path));
        }
    }
    let (key, path) = hit?;
    table.remove(&key);
    Some(path)
}

/// The dotted path of a key below `path`, quoted where TOML would have to.
fn below(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    match (path, bare) {
        ("", _) => key.to_owned(),
        (path, true) => format!("{path}.{key}"),
        (path, false) => format!("{path}.\"{key}\""),
    }
}

fn remove_below(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>, path: &str) -> Option<String> {
    match value.get_mut() {
        DeValue::Table(table) => remove(table, span, path),
        DeValue::Array(array) => {
            let found = array.iter_mut().enumerate().find_map(|(index, element)| {
                let path = format!("{path}[{index}]");
                let own = element.span();
                remove_below(element, span, &path)
                    .map(|removed| (None, removed))
                    .or_else(|| (own.start <= span.start && span.end <= own.end).then_some((Some(index), path)))
            });
            let (index, path) = found?;
            if let Some(index) = index {
                *array = array.clone().into_iter().enumerate().filter(|(at, _)| *at != index).map(|(_, e)| e).collect();
            }
            Some(path)
        }
        _ => None,
    }
}

/// The library's message as a problem and a fix.
fn in_words(message: &str, field: &str) -> (String, String) {
    let name = field.rsplit('.').next().unwrap_or(field).trim_matches('"');
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let known: Vec<&str> = rest.split('`').skip(1).step_by(2).skip(1).collect();
        let fix = match nearest(name, &known) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None if known.is_empty() => "remove it".to_owned(),
            None => format!("remove it, or use one of {}", known.join(", ")),
        };
        return (format!("unknown field `{name}`"), fix);
    }
    // A custom error of ours already holds its fix behind a colon.
    match message.split_once(": ") {
        Some((problem, fix)) if !message.starts_with("invalid type") && !message.starts_with("invalid value") => {
            (problem.to_owned(), fix.to_owned())
        }
        _ => match message.split_once(", expected ") {
            Some((problem, expected)) => (problem.to_owned(), format!("write {}", in_our_words(expected))),
            // All that is told of a choice between kinds of values is what they are.
            None if message.starts_with("a ") => ("invalid type".to_owned(), format!("write {message}")),
            None => (message.to_owned(), "correct the value".to_owned()),
        },
    }
}

/// What the library expects, for people who write TOML and not Rust.
fn in_our_words(expected: &str) -> &str {
    match expected {
        "a sequence" => "a list, in [ ]",
        "a map" => "a table",
        "a boolean" => "true or false",
        "path string" => "a path, in quotes",
        "u8" | "u16" | "u32" | "u64" | "usize" | "i64" => "a whole number",
        other if other.starts_with("struct ") => "a table of its fields",
        other => other,
    }
}

/// The known name that `name` was probably meant to be: at most two slips away, and less than half its length.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), *candidate))
        .filter(|(slips, candidate)| *slips <= 2 && slips * 2 < candidate.len().max(name.len()))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::super::{At, Seconds};
    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Written {
        ttl: Option<At<Seconds>>,
        rule: Option<Vec<Rule>>,
    }

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rule {
        name: Option<At<String>>,
        ttl: Option<At<Seconds>>,
        tags: Option<Vec<At<String>>>,
    }

    fn read(text: &str) -> (Written, String) {
        let (mut source, mut complaints) = (Source::default(), Complaints::default());
        source.read::<Written>("first.toml", "\n\n# another file\n", &mut complaints);
        let written = source.read("a.toml", text, &mut complaints);
        let words = complaints.in_words(&source);
        (written, words)
    }

    #[test]
    fn all_mistakes_are_reported_and_the_rest_is_read() {
        let (written, words) = read(
            "ttl = \"30x\"\n[[rule]]\nname = \"a\"\ntll = \"1s\"\ntags = [\"x\", 7]\n[[rule]]\nname = 5\nttl = \"9s\"\n",
        );
        let lines: Vec<&str> = words.lines().collect();
        assert_eq!(
            lines,
            [
                "a.toml:1:7: ttl: `30x` is not a duration; fix: write a whole number and ms, s, m, h or d, as in \"30s\"",
                "a.toml:4:1: rule[0].tll: unknown field `tll`; fix: did you mean `ttl`?",
                "a.toml:5:14: rule[0].tags[1]: invalid type: integer `7`; fix: write a string",
                "a.toml:7:8: rule[1].name: invalid type: integer `5`; fix: write a string",
            ]
        );
        assert!(written.ttl.is_none());
        let rules = written.rule.expect("the rules were read");
        assert_eq!(rules[0].name.as_ref().expect("name").value, "a");
        assert_eq!(rules[0].tags.as_ref().expect("tags").len(), 1);
        assert!(rules[1].ttl.is_some());
    }

    #[test]
    fn broken_toml_is_told_with_its_line() {
        let (_, words) = read("ttl = \"1s\"\n[[rule]\nname = \n");
        assert!(words.lines().all(|line| line.contains("this is not TOML")), "{words}");
        assert!(words.contains("a.toml:2:"), "{words}");
    }
}
