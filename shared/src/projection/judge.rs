//! From what was written to [`Projection`]s, with every mistake told.

use std::collections::HashMap;

use serde_json::Value;

use super::written::{Scalar, WrittenCondition, WrittenOutput};
use super::{Condition, Filter, Format, Kind, Output, Projection, WrittenProjection};
use crate::config::{At, Complaints};
use crate::route::PathPattern;
use crate::template::Template;

/// Most items a feed can be told to keep.
pub const KEEP_MAX: usize = 10_000;
const KEEP_DEFAULT: usize = 50;
const CACHE_CONTROL_DEFAULT: &str = "public, max-age=0";

/// Builds all projections that are free of mistakes; tells those of the others.
pub fn judge(written: &[At<WrittenProjection>], complaints: &mut Complaints) -> Vec<Projection> {
    let mut paths = HashMap::new();
    let mut names = HashMap::new();
    written
        .iter()
        .enumerate()
        .filter_map(|(index, projection)| {
            let mut judge = Judge { field: format!("projection[{index}]"), at: projection, complaints };
            let built = judge.projection(&mut paths);
            if let Some(name) = &projection.value.name
                && let Some(earlier) = names.insert(name.value.clone(), index)
            {
                judge.wrong("name", name, format!("projection[{earlier}] has the same name"), "give it its own name");
            }
            built
        })
        .collect()
}

struct Judge<'a> {
    field: String,
    at: &'a At<WrittenProjection>,
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
        let name = match &written.name {
            None => {
                self.missing("name", "name it, as in name = \"user-edits\"");
                None
            }
            Some(name) if name.value.is_empty() || !name.value.bytes().all(is_name_byte) => {
                self.wrong("name", name, format!("`{}` is no name", name.value), "use letters, digits, - and _ only");
                None
            }
            Some(name) => Some(name.value.clone()),
        };
        let kind = self.kind();
        let filter = self.filter();
        let key = self.key();
        let order = written.order.as_ref().and_then(|order| self.template("order", order));
        let item = self.item();
        let outputs = self.outputs(kind, key.as_ref(), paths);
        let title = written.title.as_ref().map_or_else(|| "{key}".to_owned(), |title| title.value.clone());
        Some(Projection { name: name?, kind: kind?, filter, key: key?, order, item: item?, title, outputs: outputs? })
    }

    fn kind(&mut self) -> Option<Kind> {
        let written = &self.at.value;
        let Some(kind) = &written.kind else {
            self.missing("kind", "say kind = \"feed\" or kind = \"latest\"");
            return None;
        };
        match kind.value.as_str() {
            "feed" => {
                let keep = written.keep.as_ref().map_or(KEEP_DEFAULT, |keep| keep.value);
                if let Some(at) = &written.keep
                    && !(1..=KEEP_MAX).contains(&keep)
                {
                    self.wrong("keep", at, format!("{keep} is out of range"), format!("keep 1 to {KEEP_MAX} items"));
                }
                Some(Kind::Feed { keep })
            }
            "latest" => {
                if let Some(keep) = &written.keep {
                    self.wrong("keep", keep, "has no effect on kind = \"latest\"", "remove it, or say kind = \"feed\"");
                }
                Some(Kind::Latest)
            }
            other => {
                self.wrong("kind", kind, format!("`{other}` is no kind"), "use `feed` or `latest`");
                None
            }
        }
    }

    fn filter(&mut self) -> Filter {
        let mut conditions = Vec::new();
        for (path, condition) in self.at.value.filter.iter().flatten() {
            let field = format!("where.\"{path}\"");
            match path.parse() {
                Ok(parsed) => conditions.push((parsed, built_condition(&condition.value))),
                Err(error) => {
                    self.wrong(&field, condition, format!("{error}"), "name an attribute or a member of data")
                }
            }
            if matches!(&condition.value, WrittenCondition::AnyOf(values) if values.is_empty()) {
                self.wrong(&field, condition, "an empty list can never match", "list at least one value");
            }
        }
        Filter(conditions)
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

    fn item(&mut self) -> Option<Vec<(String, Template)>> {
        let Some(item) = &self.at.value.item else {
            self.missing("item", "say what an item holds, as in item = { id = \"{id}\", title = \"{data.page}\" }");
            return None;
        };
        if item.value.is_empty() {
            self.wrong("item", item, "is empty", "give it at least one field, as in { id = \"{id}\" }");
        }
        let mut fields = Vec::new();
        for (name, written) in &item.value {
            fields.push((name.clone(), self.template(&format!("item.{name}"), written)?));
        }
        Some(fields)
    }

    fn outputs(
        &mut self,
        kind: Option<Kind>,
        key: Option<&Template>,
        paths: &mut HashMap<String, String>,
    ) -> Option<Vec<Output>> {
        let written = self.at.value.output.as_deref().unwrap_or_default();
        if written.is_empty() {
            self.missing("output", "add [[projection.output]] with a path and a format");
            return None;
        }
        let outputs: Vec<Option<Output>> =
            written.iter().enumerate().map(|(index, at)| self.output(index, at, kind, key, paths)).collect();
        outputs.into_iter().collect()
    }

    fn output(
        &mut self,
        index: usize,
        at: &At<WrittenOutput>,
        kind: Option<Kind>,
        key: Option<&Template>,
        paths: &mut HashMap<String, String>,
    ) -> Option<Output> {
        let field = |name: &str| format!("output[{index}].{name}");
        let start = At { value: (), span: at.span.start..at.span.start + 1 };
        let path = match &at.value.path {
            None => {
                self.wrong(
                    &field("path"),
                    &start,
                    "is missing",
                    "give it a URL path, as in \"/users/{key}/feed.json\"",
                );
                None
            }
            Some(written) => {
                let place = format!("{}.output[{index}]", self.field);
                if let Some(earlier) = paths.insert(written.value.clone(), place) {
                    let problem = format!("{earlier} has the same path");
                    self.wrong(&field("path"), written, problem, "give every output its own path");
                }
                match PathPattern::parse(&written.value, key.map_or(0, Template::slashes)) {
                    Ok(pattern) => Some(pattern),
                    Err(problem) => {
                        self.wrong(&field("path"), written, problem, "write a path as in \"/users/{key}/feed.json\"");
                        None
                    }
                }
            }
        };
        let format = match at.value.format.as_ref() {
            None => {
                self.wrong(&field("format"), &start, "is missing", "say format = \"json\", \"jsonfeed\" or \"atom\"");
                None
            }
            Some(written) => match written.value.as_str() {
                "json" => Some(Format::Json),
                "jsonfeed" => Some(Format::JsonFeed),
                "atom" => Some(Format::Atom),
                other => {
                    let problem = format!("`{other}` is no format");
                    self.wrong(&field("format"), written, problem, "use `json`, `jsonfeed` or `atom`");
                    None
                }
            },
        };
        if let (Some(written), Some(format)) = (&at.value.format, format) {
            self.format_fits(&field("format"), written, format, kind);
        }
        let cache_control = at.value.cache_control.as_ref().map_or(CACHE_CONTROL_DEFAULT, |value| &value.value);
        if let Some(written) = &at.value.cache_control
            && http::HeaderValue::from_str(&written.value).is_err()
        {
            self.wrong(&field("cache_control"), written, "is no header value", "write it as in \"public, max-age=60\"");
        }
        Some(Output { path: path?, format: format?, cache_control: cache_control.to_owned() })
    }

    /// Feed formats need a feed, and items with the fields their specifications ask for.
    fn format_fits(&mut self, field: &str, written: &At<String>, format: Format, kind: Option<Kind>) {
        if format == Format::Json {
            return;
        }
        if kind == Some(Kind::Latest) {
            let problem = format!("`{}` is a list of items, kind = \"latest\" has one", format.as_str());
            self.wrong(field, written, problem, "use format = \"json\", or kind = \"feed\"");
            return;
        }
        let needs: &[(&[&str], &str)] = match format {
            Format::JsonFeed => &[(&["id"], "JSON Feed 1.1"), (&["content_text", "content_html"], "JSON Feed 1.1")],
            _ => &[(&["id"], "RFC 4287"), (&["title"], "RFC 4287")],
        };
        let has = |name: &&str| self.at.value.item.as_ref().is_some_and(|item| item.value.contains_key(*name));
        let absent: Vec<_> = needs.iter().filter(|(names, _)| !names.iter().any(has)).collect();
        for (names, specification) in absent {
            let names = names.join(" or ");
            let problem = format!("items have no {names}, which {specification} requires");
            self.wrong(field, written, problem, format!("add {names} to `item`"));
        }
    }
}

fn built_condition(written: &WrittenCondition) -> Condition {
    let value = |scalar: &Scalar| match scalar {
        Scalar::Text(text) => Value::from(text.as_str()),
        Scalar::Flag(flag) => Value::from(*flag),
        Scalar::Whole(number) => Value::from(*number),
        Scalar::Number(number) => Value::from(*number),
    };
    Condition::AnyOf(match written {
        WrittenCondition::One(scalar) => vec![value(scalar)],
        WrittenCondition::AnyOf(scalars) => scalars.iter().map(value).collect(),
    })
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-' || b == b'_'
}
