//! `[[projection.output]]`: rendered forms, and whether they fit what they are made of.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::output::{Format, Output, TemplateFile};
use super::super::written::WrittenOutput;
use super::Judge;
use super::kind::{EDGES_DEFAULT, KEEP_DEFAULT};
use crate::config::At;
use crate::route::PathPattern;
use crate::template::Template;

const CACHE_CONTROL_DEFAULT: &str = "public, max-age=0";

/// Names of all formats, and what they are.
const FORMATS: [(&str, Format); 6] = [
    ("json", Format::Json),
    ("xml", Format::Xml),
    ("jsonfeed", Format::JsonFeed),
    ("atom", Format::Atom),
    ("rss", Format::Rss),
    ("activitystreams", Format::ActivityStreams),
];

/// Media types of what templates make, by what stands before `.j2` in their names.
const MEDIA_TYPES: [(&str, &str); 7] = [
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("xml", "application/xml; charset=utf-8"),
    ("svg", "image/svg+xml; charset=utf-8"),
    ("json", "application/json"),
    ("csv", "text/csv; charset=utf-8"),
    ("txt", "text/plain; charset=utf-8"),
];

/// One output while it is judged: where it stands, and how it is named.
struct Place<'a> {
    index: usize,
    at: &'a At<WrittenOutput>,
}

impl Place<'_> {
    fn field(&self, name: &str) -> String {
        format!("output[{}].{name}", self.index)
    }

    /// Where something is missing.
    fn start(&self) -> At<()> {
        At { value: (), span: self.at.span.start..self.at.span.start + 1 }
    }
}

impl Judge<'_> {
    pub(super) fn outputs(
        &mut self,
        key: Option<&Template>,
        paths: &mut HashMap<String, String>,
    ) -> Option<Vec<Output>> {
        let written = self.at.value.output.as_deref().unwrap_or_default();
        if written.is_empty() {
            self.missing("output", "add [[projection.output]] with a path and a format");
            return None;
        }
        let outputs: Vec<Option<Output>> =
            written.iter().enumerate().map(|(index, at)| self.output(&Place { index, at }, key, paths)).collect();
        let outputs: Vec<Output> = outputs.into_iter().collect::<Option<_>>()?;
        if let Some(site) = &self.at.value.site
            && !outputs.iter().any(|output| output.format.is_feed() || output.page.is_some())
        {
            let fix = "remove it, or add an output of format jsonfeed, atom, rss or activitystreams";
            self.wrong("site", site, "has no effect: no output names its own address", fix);
        }
        Some(outputs)
    }

    fn output(
        &mut self,
        place: &Place<'_>,
        key: Option<&Template>,
        paths: &mut HashMap<String, String>,
    ) -> Option<Output> {
        let path = self.path(place, key, paths);
        let format = self.form(place);
        let page = self.page(place, format.as_ref());
        let written = &place.at.value;
        let cache_control = written.cache_control.as_ref().map_or(CACHE_CONTROL_DEFAULT, |value| &value.value);
        if let Some(written) = &written.cache_control
            && http::HeaderValue::from_str(&written.value).is_err()
        {
            let fix = "write it as in \"public, max-age=60\"";
            self.wrong(&place.field("cache_control"), written, "is no header value", fix);
        }
        Some(Output { path: path?, format: format?, page, cache_control: cache_control.to_owned() })
    }

    fn path(
        &mut self,
        place: &Place<'_>,
        key: Option<&Template>,
        paths: &mut HashMap<String, String>,
    ) -> Option<PathPattern> {
        let field = place.field("path");
        let Some(written) = &place.at.value.path else {
            self.wrong(&field, &place.start(), "is missing", "give it a URL path, as in \"/users/{key}/feed.json\"");
            return None;
        };
        if let Some(earlier) = paths.insert(written.value.clone(), format!("{}.output[{}]", self.field, place.index)) {
            self.wrong(&field, written, format!("{earlier} has the same path"), "give every output its own path");
        }
        match PathPattern::parse(&written.value, key.map_or(0, Template::slashes)) {
            Ok(pattern) => Some(pattern),
            Err(problem) => {
                self.wrong(&field, written, problem, "write a path as in \"/users/{key}/feed.json\"");
                None
            }
        }
    }

    /// Items on one page: fewer than the document keeps, or there is nothing on the next.
    fn page(&mut self, place: &Place<'_>, format: Option<&Format>) -> Option<usize> {
        let at = place.at.value.page.as_ref()?;
        let field = place.field("page");
        let written = &self.at.value;
        let kind = written.kind.as_ref().map_or("feed", |kind| kind.value.as_str());
        let default = match kind {
            "edges" => EDGES_DEFAULT,
            "latest" | "counter" | "group" => {
                let fix = "remove it, or say kind = \"feed\", kind = \"home\" or kind = \"edges\"";
                self.wrong(&field, at, format!("has no effect on kind = \"{kind}\""), fix);
                return None;
            }
            _ => KEEP_DEFAULT,
        };
        let keep = written.keep.as_ref().map_or(default, |keep| keep.value);
        if at.value == 0 {
            self.wrong(&field, at, "0 is out of range", "put one item at least on a page");
        } else if at.value >= keep {
            let problem = format!("has no effect: all {keep} items that are kept stand on the first page");
            self.wrong(&field, at, problem, "remove it, make it less than `keep`, or keep more");
        }
        // RSS is told of that whether it has pages or not.
        if let Some(format) = format.filter(|format| format.needs_absolute_addresses() && **format != Format::Rss)
            && written.site.is_none()
        {
            let problem =
                format!("the projection has no site, and `{}` names the next page absolutely", format.as_str());
            self.wrong(&field, at, problem, "add site = \"https://feeds.example\" to the projection");
        }
        Some(at.value)
    }

    /// A format, or a template.
    fn form(&mut self, place: &Place<'_>) -> Option<Format> {
        let written = &place.at.value;
        if let (Some(template), Some(_)) = (&written.template, &written.format) {
            self.wrong(&place.field("template"), template, "stands beside a format", "keep one of the two");
            return None;
        }
        if let Some(template) = &written.template {
            return self.template_file(place, template);
        }
        if let Some(content_type) = &written.content_type {
            let problem = "has no effect: the format says what it is";
            self.wrong(&place.field("content_type"), content_type, problem, "remove it");
        }
        let field = place.field("format");
        let names: Vec<String> = FORMATS.iter().map(|(name, _)| format!("`{name}`")).collect();
        let Some(written) = &written.format else {
            let fix = format!("name one of {}, or a template", names.join(", "));
            self.wrong(&field, &place.start(), "is missing", fix);
            return None;
        };
        let Some((_, format)) = FORMATS.iter().find(|(name, _)| *name == written.value) else {
            let problem = format!("`{}` is no format", written.value);
            self.wrong(&field, written, problem, format!("use one of {}, or a template", names.join(", ")));
            return None;
        };
        if format.is_feed() {
            self.feed_fits(&field, written, format);
        }
        Some(format.clone())
    }

    fn template_file(&mut self, place: &Place<'_>, at: &At<PathBuf>) -> Option<Format> {
        let field = place.field("template");
        let name = at.value.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let by_name = MEDIA_TYPES.iter().find(|(extension, _)| *extension == extension_of(&name));
        let content_type = match (&place.at.value.content_type, by_name) {
            (Some(written), _) => {
                if http::HeaderValue::from_str(&written.value).is_err() || !written.value.contains('/') {
                    let fix = "write it as in \"text/plain; charset=utf-8\"";
                    self.wrong(&place.field("content_type"), written, "is no media type", fix);
                }
                written.value.clone()
            }
            (None, Some((_, media_type))) => (*media_type).to_owned(),
            (None, None) => {
                let fix = "say content_type, or name the file as in \"counts.html.j2\"";
                self.wrong(&field, at, format!("nothing says what `{name}` makes"), fix);
                String::new()
            }
        };
        match (self.templates)(at) {
            Ok(text) => Some(Format::Template(Arc::new(TemplateFile { name, text, content_type }))),
            Err((problem, fix)) => {
                self.wrong(&field, at, problem, fix);
                None
            }
        }
    }

    /// Feed formats need a feed, and items with the fields their specifications ask for.
    fn feed_fits(&mut self, field: &str, written: &At<String>, format: &Format) {
        let name = format.as_str();
        let kind = self.at.value.kind.as_ref().map_or("feed", |kind| kind.value.as_str());
        if ["latest", "counter", "group"].contains(&kind) {
            let has = if kind == "latest" { "one" } else { "none" };
            let problem = format!("`{name}` is a list of items, kind = \"{kind}\" has {has}");
            self.wrong(field, written, problem, "use format = \"json\", or kind = \"feed\"");
            return;
        }
        let (specification, needs): (&str, &[&[&str]]) = match format {
            Format::JsonFeed => ("JSON Feed 1.1", &[&["id"], &["content_text", "content_html"]]),
            Format::Rss => ("RSS 2.0", &[&["title", "content_text", "content_html", "summary"]]),
            Format::ActivityStreams => ("Activity Streams 2.0", &[&["id"]]),
            _ => ("RFC 4287", &[&["id"], &["title"]]),
        };
        let item = if kind == "home" { self.followed_item() } else { self.at.value.item.as_ref() };
        let has = |name: &&str| item.is_some_and(|item| item.value.contains_key(*name));
        let absent: Vec<_> = needs.iter().filter(|names| !names.iter().any(has)).collect();
        for names in absent {
            let names = names.join(" or ");
            let problem = format!("items have no {names}, which {specification} requires");
            let whose = if kind == "home" { " of its feed" } else { "" };
            self.wrong(field, written, problem, format!("add {names} to `item`{whose}"));
        }
        if *format == Format::Rss && self.at.value.site.is_none() {
            let problem = "the projection has no site, and RSS 2.0 requires absolute links";
            self.wrong(field, written, problem, "add site = \"https://feeds.example\" to the projection");
        }
    }
}

/// What a template's name says it makes: `html` for `counts.html.j2`.
fn extension_of(name: &str) -> &str {
    let plain = [".j2", ".jinja2", ".jinja"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    plain.rsplit_once('.').map_or("", |(_, extension)| extension)
}
