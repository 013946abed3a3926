//! From what was written to [`Projection`]s, with every mistake told.
//!
//! `kind` judges what a kind keeps, `home` what it gathers, `measures` what counters and groups measure, `filter` conditions, `output` the
//! rendered forms.

mod filter;
mod home;
mod kind;
mod measures;
mod output;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{Projection, WrittenProjection};
use crate::config::{At, Complaints, Seconds};
use crate::event::Path;
use crate::template::Template;

/// Longest time for which copies of a changed document can be told to be used.
const REFRESH_MAX: Duration = Duration::from_secs(3_600);

/// Gives the text of a template file once it was read and compiled, and the problem and the fix where it was not.
pub type Templates<'a> = &'a dyn Fn(&At<PathBuf>) -> Result<String, (String, String)>;

/// Builds all projections that are free of mistakes; tells those of the others.
pub fn judge(
    written: &[At<WrittenProjection>],
    templates: Templates<'_>,
    complaints: &mut Complaints,
) -> Vec<Projection> {
    let mut paths = HashMap::new();
    let mut names = HashMap::new();
    let mut projections: Vec<Projection> = written
        .iter()
        .enumerate()
        .filter_map(|(index, projection)| {
            let mut judge = Judge {
                field: format!("projection[{index}]"),
                at: projection,
                all: written,
                templates,
                complaints: &mut *complaints,
            };
            let built = judge.projection(&mut paths);
            if let Some(name) = &projection.value.name
                && let Some(earlier) = names.insert(name.value.clone(), index)
            {
                judge.wrong("name", name, format!("projection[{earlier}] has the same name"), "give it its own name");
            }
            built
        })
        .collect();
    home::mark_followed(&mut projections);
    projections
}

struct Judge<'a> {
    field: String,
    at: &'a At<WrittenProjection>,
    /// All that are written.
    all: &'a [At<WrittenProjection>],
    templates: Templates<'a>,
    complaints: &'a mut Complaints,
}

impl Judge<'_> {
    fn wrong<T>(&mut self, field: &str, at: &At<T>, problem: impl Into<String>, fix: impl Into<String>) {
        self.complaints.add(at.span.clone(), format!("{}.{field}", self.field), problem, fix);
    }

    fn missing(&mut self, field: &str, fix: &str) {
        let at = self.at.span.start..self.at.span.start + 1;
        self.complaints.add(at, format!("{}.{field}", self.field), "is missing", fix);
    }

    fn projection(&mut self, paths: &mut HashMap<String, String>) -> Option<Projection> {
        let written = &self.at.value;
        if written.kind.as_ref().is_some_and(|kind| kind.value == "home") {
            return self.home(paths);
        }
        let name = self.name();
        let kind = self.kind();
        let filter = self.filter("where", written.filter.as_ref());
        let key = self.key();
        let (order, item) = self.item();
        let outputs = self.outputs(key.as_ref(), paths);
        let title = self.title();
        let site = self.site();
        let refresh = self.refresh();
        Some(Projection {
            name: name?,
            kind: kind?,
            filter,
            key: key?,
            order,
            item: item?,
            title,
            site,
            refresh,
            outputs: outputs?,
        })
    }

    fn name(&mut self) -> Option<String> {
        match &self.at.value.name {
            None => {
                self.missing("name", "name it, as in name = \"user-edits\"");
                None
            }
            Some(name) if name.value.is_empty() || !name.value.bytes().all(is_name_byte) => {
                self.wrong("name", name, format!("`{}` is no name", name.value), "use letters, digits, - and _ only");
                None
            }
            Some(name) => Some(name.value.clone()),
        }
    }

    fn key(&mut self) -> Option<Template> {
        let Some(written) = &self.at.value.key else {
            self.missing("key", "name the document an event belongs to, as in key = \"{data.user}\"");
            return None;
        };
        let key = self.template("key", written)?;
        if key.paths().next().is_none() {
            self.wrong("key", written, "is the same for every event", "put a hole into it, as in \"{data.user}\"");
        }
        Some(key)
    }

    fn template(&mut self, field: &str, written: &At<String>) -> Option<Template> {
        match written.value.parse() {
            Ok(template) => Some(template),
            Err(problem) => {
                self.wrong(field, written, problem, "write text with holes, as in \"{data.user}\"");
                None
            }
        }
    }

    /// The paths of a list, none of them twice.
    fn paths(&mut self, field: &str, written: Option<&At<Vec<At<String>>>>) -> Vec<Path> {
        let mut paths = Vec::new();
        for (index, at) in written.iter().flat_map(|list| &list.value).enumerate() {
            let field = format!("{field}[{index}]");
            match at.value.parse::<Path>() {
                Err(error) => self.wrong(&field, at, format!("{error}"), "write a path, as in \"data.user\""),
                Ok(path) if paths.contains(&path) => self.wrong(&field, at, "stands in the list twice", "remove it"),
                Ok(path) => paths.push(path),
            }
        }
        if let Some(list) = written.filter(|list| list.value.is_empty()) {
            self.wrong(field, list, "is an empty list", "name at least one path, or remove it");
        }
        paths
    }

    fn title(&self) -> String {
        self.at.value.title.as_ref().map_or_else(|| "{key}".to_owned(), |title| title.value.clone())
    }

    fn refresh(&mut self) -> Option<Duration> {
        let at = self.at.value.refresh.as_ref()?;
        let Seconds(refresh) = at.value;
        if refresh.is_zero() || refresh > REFRESH_MAX {
            let fix = "write more than \"0s\" and at most \"1h\", as in \"1s\", or remove it";
            self.wrong("refresh", at, "is out of range", fix);
        }
        Some(refresh)
    }

    /// The start of absolute URLs, without a slash at its end.
    fn site(&mut self) -> Option<String> {
        let at = self.at.value.site.as_ref()?;
        let uri = at.value.parse::<http::Uri>().ok();
        let scheme = uri.as_ref().and_then(http::Uri::scheme_str);
        let bare = uri.as_ref().is_some_and(|uri| uri.path() == "/" && uri.query().is_none());
        if !matches!(scheme, Some("http" | "https")) || !bare {
            let problem = format!("`{}` is not the start of a URL", at.value);
            self.wrong("site", at, problem, "write scheme and host, as in \"https://feeds.example\"");
            return None;
        }
        Some(at.value.trim_end_matches('/').to_owned())
    }
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-' || b == b'_'
}
