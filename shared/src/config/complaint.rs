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
        let span = span.into().filter(|span| *span != (0..0));
        self.list.push(Complaint { span, field: field.into(), problem: problem.into(), fix: fix.into() });
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// One line each, in the order of the files: `FILE:LINE:COLUMN: FIELD: PROBLEM; fix: FIX`.
    pub fn in_words(&self, source: &Source) -> String {
        let mut list: Vec<&Complaint> = self.list.iter().collect();
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
}
