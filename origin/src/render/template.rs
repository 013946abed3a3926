//! Templates of users, in the language of Jinja (pure).
//!
//! A template gets what the `json` output holds, the item of a `latest` as `item`, and beside it `key`, `title` and
//! `updated`. What it prints is escaped by its name: as XML for `.html`, `.htm`, `.xml` and `.svg`, as JSON for `.json`.
//! It reads no files, has no clock and no chance, and is bounded in steps and in what it prints.

use std::io;

use millpond_shared::event::time_text;
use millpond_shared::projection::{Kind, TemplateFile};
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use serde_json::{Map, Value};

use super::markup::allowed;
use super::{Page, json};

/// Most steps that rendering one document may take: about half a second.
const STEPS_MAX: u64 = 5_000_000;
/// Most that one document may become, in bytes.
const OUTPUT_MAX_BYTES: usize = 16 << 20;

/// A compiled template.
#[derive(Debug)]
pub(super) struct Template {
    environment: Environment<'static>,
    name: String,
}

impl Template {
    /// Compiles a template; what is wrong with it otherwise, in words, with the line.
    pub(super) fn compile(file: &TemplateFile) -> Result<Template, String> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(STEPS_MAX));
        environment.set_auto_escape_callback(escape);
        let added = environment.add_template_owned(file.name.clone(), file.text.clone());
        added.map_err(|error| in_words(&error))?;
        Ok(Template { environment, name: file.name.clone() })
    }

    pub(super) fn body(&self, page: &Page<'_>) -> Result<Vec<u8>, String> {
        let mut context = context(page)?;
        if let AutoEscape::Html = escape(&self.name) {
            clean(&mut context);
        }
        let context = minijinja::Value::from(Serde(context));
        let mut out = Bounded(Vec::new());
        let template = self.environment.get_template(&self.name).map_err(|error| in_words(&error))?;
        template.render_captured_to(context, &mut out).map_err(|error| in_words(&error))?;
        Ok(out.0)
    }
}

/// How what a template prints is escaped.
fn escape(name: &str) -> AutoEscape {
    let name = [".j2", ".jinja2", ".jinja"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html" | "htm" | "xml" | "svg") => AutoEscape::Html,
        Some("json") => AutoEscape::Json,
        _ => AutoEscape::None,
    }
}

fn context(page: &Page<'_>) -> Result<Value, String> {
    let document: Value = serde_json::from_slice(&json::body(page)?).map_err(|error| error.to_string())?;
    let mut context = match (&page.projection.kind, document) {
        (Kind::Latest, item) => Map::from_iter([("item".to_owned(), item)]),
        (_, Value::Object(document)) => document,
        _ => Map::new(),
    };
    context.insert("key".to_owned(), page.plain.as_str().into());
    context.insert("title".to_owned(), page.title.as_str().into());
    let updated = i64::try_from(page.document.changed_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    context.insert("updated".to_owned(), time_text(updated).into());
    Ok(Value::Object(context))
}

/// Takes out what no XML can hold.
fn clean(value: &mut Value) {
    match value {
        Value::String(text) => *text = allowed(text),
        Value::Array(list) => list.iter_mut().for_each(clean),
        Value::Object(map) => map.values_mut().for_each(clean),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn in_words(error: &Error) -> String {
    let line = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
    match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => format!("{line}takes more than {STEPS_MAX} steps"),
        (ErrorKind::WriteFailure, _) => format!("{line}makes more than {OUTPUT_MAX_BYTES} bytes"),
        (kind, Some(detail)) => format!("{line}{kind}: {detail}"),
        (kind, None) => format!("{line}{kind}"),
    }
}

/// Takes what a template prints, up to a limit.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{rendered, text, try_rendered};

    /// A feed with one output by this template; its file's name ends so.
    fn declaration(template: &str, extension: &str) -> String {
        let file = serde_json::Value::from(format!("{template}.{extension}.j2"));
        format!(
            "name = \"p\"\nkind = \"feed\"\nkey = \"{{data.user}}\"\ntitle = \"<{{key}}>\"\n\
             item = {{ id = \"{{id}}\", text = \"{{data.text}}\", n = \"{{data.n}}\" }}\n\
             [[projection.output]]\npath = \"/{{key}}\"\ntemplate = {file}\n"
        )
    }

    const EVENTS: [(&str, i64, &str); 2] =
        [("a", 1, r#"{"text":"<b> & \"c\"\u0000","n":1.5}"#), ("b", 2, r#"{"text":"plain","n":[1,null]}"#)];

    #[test]
    fn what_is_printed_is_escaped_by_the_name() {
        let template =
            "{{ title }}|{{ key }}|{{ updated }}{% for item in items %}|{{ item.text }}:{{ item.n }}{% endfor %}";
        let told = |extension: &str| {
            let rendered = rendered(&declaration(template, extension), "k", &EVENTS);
            (text(&rendered).to_owned(), rendered.content_type.to_string())
        };
        let (html, kind) = told("html");
        assert_eq!(html, "&lt;k&gt;|k|1970-01-01T00:00:01Z|plain:[1, None]|&lt;b&gt; &amp; &quot;c&quot;:1.5");
        assert_eq!(kind, "text/html; charset=utf-8");
        assert_eq!(told("xml").0, html);
        assert_eq!(told("txt").0, "<k>|k|1970-01-01T00:00:01Z|plain:[1, None]|<b> & \"c\"\u{0}:1.5");
    }

    #[test]
    fn json_is_json() {
        let template = r#"{"t": {{ title }}, "list": [{% for item in items %}{{ item|tojson }}, {% endfor %}null]}"#;
        let rendered = rendered(&declaration(template, "json"), "k", &EVENTS);
        let json: serde_json::Value = serde_json::from_slice(&rendered.body).expect("JSON");
        assert_eq!(json["t"], "<k>");
        assert_eq!(json["list"][1], serde_json::json!({ "id": "a", "text": "<b> & \"c\"\u{0}", "n": 1.5 }));
        assert_eq!(rendered.content_type.as_ref(), "application/json");
    }

    #[test]
    fn numbers_and_latest_values_reach_templates() {
        let output = "[[projection.output]]\npath = \"/{key}\"\ntemplate = ";
        let counter = format!(
            "name = \"p\"\nkind = \"counter\"\nkey = \"{{data.user}}\"\ncount = true\nsum = [\"data.n\"]\n\
             {output}\"{{{{ totals.count }}}} {{{{ totals.sum['data.n'] }}}}.txt.j2\"\n"
        );
        assert_eq!(text(&rendered(&counter, "k", &EVENTS)), "2 1.5");
        let latest = format!(
            "name = \"p\"\nkind = \"latest\"\nkey = \"{{data.user}}\"\nitem = {{ text = \"{{data.text}}\" }}\n\
             {output}\"{{{{ key }}}} {{{{ item.text }}}}.txt.j2\"\n"
        );
        assert_eq!(text(&rendered(&latest, "k", &EVENTS)), "k plain");
    }

    #[test]
    fn what_fails_says_where() {
        let words = |template: &str| {
            let error = try_rendered(&declaration(template, "txt"), "k", &EVENTS).expect_err("it fails");
            error.to_string()
        };
        let endless = "\n{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert!(words(endless).contains("line 2: takes more than 5000000 steps"), "{}", words(endless));
        let large = "{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}";
        assert!(words(large).contains("makes more than 16777216 bytes"), "{}", words(large));
        let unknown = "\n\n{{ key|nothing }}";
        assert!(words(unknown).contains("line 3: "), "{}", words(unknown));
    }
}
