//! What counters and groups measure, and over which windows.

use super::super::measures::{Counting, Grouping, Measure, Measures, Span, Windows};
use super::super::written::WrittenWindows;
use super::Judge;
use crate::config::At;

/// Most windows that one row keeps.
const WINDOWS_MAX: u64 = 10_000;
/// Most rows of windows of a projection.
const ROWS_MAX: usize = 8;
/// Most members of a window that a group can be told to count.
const MEMBERS_MAX: usize = 100_000;
const MEMBERS_DEFAULT: usize = 1_000;
/// Most members of all windows of one document together.
const CELLS_MAX: u64 = 1_000_000;
/// Most members that a group can be told to list.
const TOP_MAX: usize = 1_000;
const TOP_DEFAULT: usize = 50;
/// Most paths that members are made of.
const BY_MAX: usize = 8;

impl Judge<'_> {
    pub(super) fn counting(&mut self) -> Option<Counting> {
        let written = &self.at.value;
        let measures = Measures {
            count: written.count.as_ref().is_some_and(|count| count.value),
            sum: self.paths("sum", written.sum.as_ref()),
            min: self.paths("min", written.min.as_ref()),
            max: self.paths("max", written.max.as_ref()),
            distinct: self.paths("distinct", written.distinct.as_ref()),
        };
        let lists = [&written.sum, &written.min, &written.max, &written.distinct];
        if measures.is_empty() && lists.iter().all(|list| list.is_none()) {
            self.missing("count", "say what to measure, as in count = true or sum = [\"data.price\"]");
        }
        Some(Counting { measures, windows: self.windows()? })
    }

    fn windows(&mut self) -> Option<Vec<Windows>> {
        let Some(list) = &self.at.value.windows else { return Some(vec![Windows::All]) };
        if list.value.is_empty() || list.value.len() > ROWS_MAX {
            let fix =
                format!("name 1 to {ROWS_MAX}, as in [{{ every = \"1h\", keep = \"7d\" }}, {{ every = \"all\" }}]");
            self.wrong("windows", list, format!("has {} rows of windows", list.value.len()), fix);
        }
        let mut rows = Vec::new();
        for (index, at) in list.value.iter().enumerate() {
            let field = format!("windows[{index}]");
            let Some(row) = self.row(&field, at) else { continue };
            if rows.iter().any(|other| every(other) == every(&row)) {
                self.wrong(&field, at, "has windows as long as those of another row", "keep one of the two");
            }
            rows.push(row);
        }
        (rows.len() == list.value.len()).then_some(rows)
    }

    fn row(&mut self, field: &str, at: &At<WrittenWindows>) -> Option<Windows> {
        let WrittenWindows { every, keep } = &at.value;
        let Some(every) = every else {
            self.wrong(&format!("{field}.every"), at, "is missing", "say how long a window is, as in every = \"1h\"");
            return None;
        };
        if every.value == "all" {
            if let Some(keep) = keep {
                let problem = "has no effect: there is one window over all time";
                self.wrong(&format!("{field}.keep"), keep, problem, "remove it");
            }
            return Some(Windows::All);
        }
        let length: Span = match every.value.parse::<crate::config::Seconds>() {
            Ok(length) if !length.0.is_zero() => length.into(),
            _ => {
                let problem = format!("`{}` is no length of time", every.value);
                self.wrong(
                    &format!("{field}.every"),
                    every,
                    problem,
                    "write it as in \"1m\", \"1h\", \"1d\" or \"all\"",
                );
                return None;
            }
        };
        let Some(keep) = keep else {
            let fix = format!("say how long windows are kept, as in keep = \"{}\"", Span(length.0 * 24));
            self.wrong(&format!("{field}.keep"), at, "is missing", fix);
            return None;
        };
        let row = Windows::Tumbling { every: length, keep: keep.value.into() };
        let (kept, each) = (Span::from(keep.value).nanoseconds(), length.nanoseconds());
        if keep.value.0.is_zero() || kept % each != 0 {
            let fix = format!("use a multiple of it, as in \"{}\"", Span(length.0 * 24));
            self.wrong(&format!("{field}.keep"), keep, format!("is no multiple of every = \"{}\"", every.value), fix);
            return None;
        }
        if row.count_max() > WINDOWS_MAX {
            let problem = format!("keeps {} windows of each document", row.count_max());
            self.wrong(&format!("{field}.keep"), keep, problem, format!("keep at most {WINDOWS_MAX}"));
        }
        Some(row)
    }

    pub(super) fn grouping(&mut self) -> Option<Grouping> {
        let written = &self.at.value;
        let by = self.paths("by", written.by.as_ref());
        match &written.by {
            None => self.missing("by", "say what makes a member, as in by = [\"data.country\"]"),
            Some(list) if list.value.len() > BY_MAX => {
                let problem = format!("names {} paths", list.value.len());
                self.wrong("by", list, problem, format!("name at most {BY_MAX}"));
            }
            Some(_) => {}
        }
        let top = self.number("top", written.top.as_ref(), TOP_DEFAULT, TOP_MAX, "members");
        let members = self.number("members", written.members.as_ref(), MEMBERS_DEFAULT, MEMBERS_MAX, "members");
        let counting = self.counting()?;
        if let Some(at) = written.top.as_ref().filter(|_| top > members) {
            let problem = format!("lists more members than the {members} that are counted");
            self.wrong("top", at, problem, "lower it, or raise `members`");
        }
        let windows: u64 = counting.windows.iter().map(|row| row.count_max()).sum();
        if windows.saturating_mul(members as u64) > CELLS_MAX {
            let problem = format!("{windows} windows of {members} members each are too many for one document");
            let fix = format!("keep windows × members at most {CELLS_MAX}: lower `members`, or `keep` of the windows");
            match &written.members {
                Some(at) => self.wrong("members", at, problem, fix),
                None => self.wrong("members", &At { value: (), span: self.start() }, problem, fix),
            }
        }
        let rank = self.rank(&counting.measures)?;
        Some(Grouping { counting, by, rank, top, members })
    }

    fn rank(&mut self, measures: &Measures) -> Option<Measure> {
        let mut named = measures.named();
        let Some(at) = &self.at.value.rank else { return named.next().map(|(_, measure)| measure) };
        let all: Vec<(String, Measure)> = named.collect();
        let found = all.iter().find(|(name, _)| *name == at.value).map(|(_, measure)| *measure);
        if found.is_none() {
            let names: Vec<String> = all.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            let problem = format!("`{}` is not measured", at.value);
            self.wrong("rank", at, problem, format!("use one of {}", names.join(", ")));
        }
        found
    }

    fn start(&self) -> std::ops::Range<usize> {
        self.at.span.start..self.at.span.start + 1
    }
}

fn every(row: &Windows) -> Option<Span> {
    match row {
        Windows::All => None,
        Windows::Tumbling { every, .. } => Some(*every),
    }
}
