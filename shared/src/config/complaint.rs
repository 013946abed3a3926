//! What is wrong with a configuration, collected until all of it was looked at.

use std::fmt::Write as _;
use std::ops::Range;

use super::Source;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Where it stands, in bytes of all files together; `None` where nothing stands that should.
    pub span: Option<Range<usize>>,
    /// Dotted path of the field: `rule[2].ttl`.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
    /// What stands there could not be read and was left out.
    unread: bool,
}

/// All mistakes found so far.
#[derive(Debug, Default)]
pub struct Complaints {
    list: Vec<Complaint>,
}

impl Complaints {
    pub fn add(
        &mut self,
        span: impl Into<Option<Range<usize>>>,
        field: impl Into<String>,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.push(span.into(), field.into(), problem.into(), fix.into(), false);
    }

    /// For what can't be read and is left out: that it is missing then is no mistake of its own.
    pub(super) fn add_unread(&mut self, span: Option<Range<usize>>, field: String, problem: String, fix: String) {
        self.push(span, field, problem, fix, true);
    }

    fn push(&mut self, span: Option<Range<usize>>, field: String, problem: String, fix: String, unread: bool) {
        let span = span.filter(|span| *span != (0..0));
        self.list.push(Complaint { span, field, problem, fix, unread });
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// One line each, in the order of the files: `FILE:LINE:COLUMN: FIELD: PROBLEM; fix: FIX`.
    pub fn in_words(&self, source: &Source) -> String {
        let mut list: Vec<&Complaint> = self.list.iter().filter(|complaint| !self.follows(complaint, source)).collect();
        list.sort_by_key(|complaint| complaint.span.as_ref().map_or(usize::MAX, |span| span.start));
        list.dedup();
        list.iter().fold(String::new(), |mut text, complaint| {
            let _ = match complaint.span.as_ref().and_then(|span| source.place(span.start)) {
                Some(place) => write!(text, "{}:{}:{}: ", place.file, place.line, place.column),
                None => write!(text, "{}: ", source.main_file()),
            };
            if !complaint.field.is_empty() {
                let _ = write!(text, "{}: ", complaint.field);
            }
            let _ = writeln!(text, "{}; fix: {}", complaint.problem, complaint.fix);
            text
        })
    }

    /// Whether it says that something is not there which could not be read, or of which a part could not be.
    fn follows(&self, complaint: &Complaint, source: &Source) -> bool {
        let is_absence = ["is missing", "is empty"].iter().any(|words| complaint.problem.starts_with(words));
        let below = |unread: &str| {
            unread
                .strip_prefix(complaint.field.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let file = |complaint: &Complaint| source.place(complaint.span.as_ref()?.start).map(|place| place.file);
        let same_file = |other: &Complaint| file(other) == file(complaint);
        is_absence && self.list.iter().any(|other| other.unread && below(&other.field) && same_file(other))
    }
}
