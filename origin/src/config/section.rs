//! One section under judgement: what every section needs to complain about.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use millpond_shared::config::{At, Complaints};
use millpond_shared::http1::Authority;
use millpond_shared::template::Template;

/// A section, and where its mistakes are told.
pub(super) struct Section<'a> {
    /// Dotted path of the section: `source[2]`.
    pub path: String,
    /// Where it begins.
    pub start: usize,
    pub complaints: &'a mut Complaints,
}

impl<'a> Section<'a> {
    pub fn new<T>(path: impl Into<String>, at: &At<T>, complaints: &'a mut Complaints) -> Section<'a> {
        Section { path: path.into(), start: at.span.start, complaints }
    }

    pub fn wrong<T>(&mut self, field: &str, at: &At<T>, problem: impl Into<String>, fix: impl Into<String>) {
        self.complaints.add(at.span.clone(), format!("{}.{field}", self.path), problem, fix);
    }

    pub fn missing(&mut self, field: &str, fix: impl Into<String>) {
        self.complaints.add(self.start..self.start + 1, format!("{}.{field}", self.path), "is missing", fix);
    }

    /// The value if it is in `range`, else the default, with a complaint; `text` writes a value as the file would.
    pub fn in_range<T, N: PartialOrd + Copy>(
        &mut self,
        field: &str,
        written: Option<&At<T>>,
        value: impl Fn(&T) -> N,
        default: N,
        range: RangeInclusive<N>,
        text: impl Fn(N) -> String,
    ) -> N {
        let Some(at) = written else { return default };
        let found = value(&at.value);
        if range.contains(&found) {
            return found;
        }
        let fix = format!("use {} to {}", text(*range.start()), text(*range.end()));
        self.wrong(field, at, format!("{} is out of range", text(found)), fix);
        default
    }

    /// A whole number in `range`.
    pub fn number<N: PartialOrd + Copy + Display>(
        &mut self,
        field: &str,
        written: Option<&At<N>>,
        default: N,
        range: RangeInclusive<N>,
    ) -> N {
        self.in_range(field, written, |number| *number, default, range, |number| number.to_string())
    }

    /// An address to listen on.
    pub fn listen(&mut self, field: &str, written: Option<&At<String>>) -> Option<SocketAddr> {
        let at = written?;
        let address = at.value.parse().ok();
        if address.is_none() {
            let fix = "write an IP address and a port, as in \"127.0.0.1:7100\"";
            self.wrong(field, at, format!("`{}` is no address", at.value), fix);
        }
        address
    }

    /// Host and port of another role.
    pub fn peer(&mut self, field: &str, written: Option<&At<String>>) -> Option<String> {
        let at = written?;
        if Authority::parse(&at.value).is_some_and(|authority| authority.port().is_some_and(|port| port > 0)) {
            return Some(at.value.clone());
        }
        let fix = "write a host and a port, as in \"127.0.0.1:7100\"";
        self.wrong(field, at, format!("`{}` is no address", at.value), fix);
        None
    }

    pub fn template(&mut self, field: &str, written: Option<&At<String>>) -> Option<Template> {
        let at = written?;
        match at.value.parse() {
            Ok(template) => Some(template),
            Err(problem) => {
                self.wrong(field, at, problem, "write text with holes, as in \"{data.user}\"");
                None
            }
        }
    }
}
