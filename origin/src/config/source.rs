//! `[[source]]`: a declared producer of events.

use std::collections::HashMap;
use std::time::Duration;

use millpond_shared::config::{At, Complaints, Seconds, Size};
use millpond_shared::template::Template;
use schemars::JsonSchema;
use serde::Deserialize;

use super::auth::{self, WrittenAuth};
use super::rate;
use super::section::Section;
use crate::api::ingest::{Auth, IdRule, Shape, Source};

/// A producer of events, and the path that takes them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Source")]
pub struct WrittenSource {
    /// Name: letters, digits, `-` and `_`. Part of every event, and what its ids are unique in.
    pub name: Option<At<String>>,
    /// URL path that events are POSTed to: `"/events/wiki"`.
    pub path: Option<At<String>>,
    /// What is POSTed: `event`, objects with the members `id`, `type`, `subject`, `time`, `data` of CloudEvents (the
    /// default), or `data`, objects that are the payload themselves.
    pub shape: Option<At<String>>,
    /// Type of the events: a constant or a template. `"{type}"` unless given; needed for `shape = "data"`.
    #[serde(rename = "type")]
    pub kind: Option<At<String>>,
    /// What makes an event the same one when it is sent again: a template, or `hash` for the hash of its bytes. The
    /// member `id` unless given; an event without one gets a random one.
    pub id: Option<At<String>>,
    /// Template of the time it happened. The member `time` unless given; else the time it was taken.
    pub time: Option<At<String>>,
    /// Template of its subject. The member `subject` unless given.
    pub subject: Option<At<String>>,
    /// Template of what keeps events in order: same partition, same queue. Any queue unless given.
    pub partition: Option<At<String>>,
    /// How long a repeated id is recognised; `10m` unless given.
    pub dedupe: Option<At<Seconds>>,
    /// Largest body of one request; `8MiB` unless given. A larger one is answered 413.
    pub body_max: Option<At<Size>>,
    /// Who may send; anybody unless given.
    pub auth: Option<At<WrittenAuth>>,
    /// Most events in a second, a minute or an hour, as in `"5000/s"`; beyond it 429. Unlimited unless given.
    pub rate: Option<At<String>>,
    /// Events that may come at once; what `rate` allows in a second unless given.
    pub burst: Option<At<u32>>,
}

const DEDUPE_DEFAULT: Duration = Duration::from_secs(600);
const DEDUPE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);
const BODY_DEFAULT: u64 = 8 << 20;
/// The greatest leaves room in a message to a queue role elsewhere.
const BODY: std::ops::RangeInclusive<u64> = 1 << 10..=32 << 20;

/// Builds all sources that are free of mistakes; tells those of the others. `served`: they are served by this process,
/// so that their secrets must be there.
pub fn judge(written: &[At<WrittenSource>], served: bool, complaints: &mut Complaints) -> Vec<Source> {
    let (mut names, mut paths) = (HashMap::new(), HashMap::new());
    let mut sources = Vec::new();
    for (index, at) in written.iter().enumerate() {
        let before = complaints.len();
        let mut judge =
            Judge { section: Section::new(format!("source[{index}]"), at, complaints), written: &at.value, served };
        judge.unique("name", at.value.name.as_ref(), index, &mut names);
        judge.unique("path", at.value.path.as_ref(), index, &mut paths);
        let source = judge.source();
        if complaints.len() == before {
            sources.extend(source);
        }
    }
    sources
}

struct Judge<'a> {
    section: Section<'a>,
    written: &'a WrittenSource,
    served: bool,
}

impl Judge<'_> {
    fn unique(&mut self, field: &str, at: Option<&At<String>>, index: usize, seen: &mut HashMap<String, usize>) {
        let Some(at) = at else { return };
        if let Some(earlier) = seen.insert(at.value.clone(), index) {
            let problem = format!("source[{earlier}] has the same {field}");
            self.section.wrong(field, at, problem, format!("give every source its own {field}"));
        }
    }

    fn source(&mut self) -> Option<Source> {
        let written = self.written;
        let name = self.name();
        let path = self.path();
        let shape = self.shape();
        let kind = self.kind(shape);
        let id = self.id(shape);
        let time = self.template("time", written.time.as_ref(), shape);
        let subject = self.template("subject", written.subject.as_ref(), shape);
        let partition = self.template("partition", written.partition.as_ref(), shape);
        for (field, at, template) in [("time", &written.time, &time), ("subject", &written.subject, &subject)] {
            self.varies(field, at.as_ref(), template.as_ref());
        }
        let seconds = |duration: Duration| format!("\"{}s\"", duration.as_secs_f64());
        let window = self.section.in_range("dedupe", written.dedupe.as_ref(), |d| d.0, DEDUPE_DEFAULT, DEDUPE, seconds);
        let auth = auth::judge(&mut self.section, written.auth.as_ref(), window, self.served);
        if let (Some(Auth::SignedUrl(_)), Some(at)) = (&auth, &written.auth)
            && shape == Some(Shape::Event)
        {
            let fix = "add shape = \"data\": the parameters of the URL are the data";
            self.section.wrong("auth.kind", at, "`signed-url` gives no events with members of their own", fix);
        }
        if let Some(dedupe) = &written.dedupe
            && shape == Some(Shape::Data)
            && written.id.is_none()
            && !matches!(auth, Some(Auth::Webhooks(_)))
        {
            let fix = "say what an event is recognised by, as in id = \"hash\", or remove it";
            self.section.wrong("dedupe", dedupe, "has no effect: every event gets an id of its own", fix);
        }
        let rate = rate::judge(&mut self.section, written.rate.as_ref(), written.burst.as_ref());
        let size = |bytes| format!("\"{}\"", Size(bytes));
        let body_max = self.section.in_range("body_max", written.body_max.as_ref(), |s| s.0, BODY_DEFAULT, BODY, size);
        Some(Source {
            name: name?,
            path: path?,
            shape: shape?,
            kind: kind?,
            id: id?,
            time,
            subject,
            partition,
            window,
            body_max,
            auth: auth?,
            rate,
        })
    }

    fn name(&mut self) -> Option<String> {
        let Some(at) = &self.written.name else {
            self.section.missing("name", "name it, as in name = \"wiki\"");
            return None;
        };
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if at.value.is_empty() || !at.value.bytes().all(is_name) {
            self.section.wrong("name", at, format!("`{}` is no name", at.value), "use letters, digits, - and _ only");
            return None;
        }
        Some(at.value.clone())
    }

    fn path(&mut self) -> Option<String> {
        let Some(at) = &self.written.path else {
            self.section.missing("path", "say where events are POSTed to, as in path = \"/events/wiki\"");
            return None;
        };
        let literal = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&b);
        let (problem, fix) = if !at.value.starts_with('/') {
            ("does not start with /", "write a path, as in \"/events/wiki\"")
        } else if at.value.starts_with("/_millpond") {
            ("lies below /_millpond, which the roles use among themselves", "use another path, as in \"/events/wiki\"")
        } else if !at.value.bytes().all(literal) {
            ("holds a byte that can't stand in a URL path", "use letters, digits, - . _ ~ and / only")
        } else {
            return Some(at.value.clone());
        };
        self.section.wrong("path", at, format!("`{}` {problem}", at.value), fix);
        None
    }

    fn shape(&mut self) -> Option<Shape> {
        let Some(at) = &self.written.shape else { return Some(Shape::Event) };
        match at.value.as_str() {
            "event" => Some(Shape::Event),
            "data" => Some(Shape::Data),
            other => {
                self.section.wrong("shape", at, format!("`{other}` is no shape"), "use `event` or `data`");
                None
            }
        }
    }

    /// `None` if it is wrong.
    fn kind(&mut self, shape: Option<Shape>) -> Option<Template> {
        match &self.written.kind {
            None if shape == Some(Shape::Data) => {
                let fix = "give the events a type, as in type = \"edit\" or type = \"{data.kind}\"";
                self.section.missing("type", fix);
                None
            }
            None => "{type}".parse().ok(),
            Some(at) if at.value.is_empty() => {
                self.section.wrong("type", at, "is empty", "name a type, as in type = \"edit\"");
                None
            }
            written => self.template("type", written.as_ref(), shape),
        }
    }

    fn id(&mut self, shape: Option<Shape>) -> Option<IdRule> {
        match &self.written.id {
            None => Some(if shape == Some(Shape::Data) { IdRule::Assigned } else { IdRule::Member }),
            Some(at) if at.value == "hash" => Some(IdRule::Hash),
            written => {
                let template = self.template("id", written.as_ref(), shape);
                self.varies("id", written.as_ref(), template.as_ref());
                template.map(IdRule::Template)
            }
        }
    }

    /// A template whose holes an element of this shape can fill.
    fn template(&mut self, field: &str, written: Option<&At<String>>, shape: Option<Shape>) -> Option<Template> {
        let (at, template) = (written?, self.section.template(field, written)?);
        for path in template.paths().map(|path| path.as_str()) {
            let (problem, fix) = match (path, shape) {
                ("source" | "received", _) => ("is given by us, not by the producer", "use a member of data"),
                ("id" | "type" | "subject" | "time", Some(Shape::Data)) => {
                    ("is no part of shape = \"data\"", "write data. before the name of a member, as in {data.user}")
                }
                _ => continue,
            };
            self.section.wrong(field, at, format!("`{path}` {problem}"), fix);
        }
        Some(template)
    }

    fn varies(&mut self, field: &str, at: Option<&At<String>>, template: Option<&Template>) {
        if let (Some(at), Some(template)) = (at, template)
            && template.paths().next().is_none()
        {
            let fix = format!("put a hole into it, as in \"{{data.{field}}}\", or leave it out");
            self.section.wrong(field, at, "is the same for every event", fix);
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Written {
        source: Option<Vec<At<WrittenSource>>>,
    }

    pub fn judged(text: &str) -> (Vec<Source>, Vec<String>) {
        let (mut source, mut complaints) = (millpond_shared::config::Source::default(), Complaints::default());
        let written: Written = source.read("m.toml", text, &mut complaints);
        let sources = judge(&written.source.unwrap_or_default(), true, &mut complaints);
        let words = complaints.in_words(&source);
        (sources, words.lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::judged;
    use super::*;

    #[test]
    fn defaults() {
        let (sources, words) = judged("[[source]]\nname = \"wiki\"\npath = \"/events/wiki\"\n");
        assert_eq!(words, [""; 0]);
        let [source] = sources.as_slice() else { panic!("{sources:?}") };
        assert_eq!((source.shape, &source.id), (Shape::Event, &IdRule::Member));
        assert_eq!((source.window, source.body_max), (Duration::from_secs(600), 8 << 20));
        assert_eq!(source.kind, "{type}".parse().unwrap());
    }

    #[test]
    fn everything_can_be_said() {
        let (sources, words) = judged(
            "[[source]]\nname = \"wiki\"\npath = \"/events/wiki\"\nshape = \"data\"\ntype = \"edit\"\nid = \"hash\"\n\
             time = \"{data.time}\"\nsubject = \"{data.page}\"\npartition = \"all\"\ndedupe = \"1h\"\n\
             body_max = \"1MiB\"\n",
        );
        assert_eq!(words, [""; 0]);
        assert_eq!((&sources[0].id, sources[0].window), (&IdRule::Hash, Duration::from_secs(3600)));
    }

    #[test]
    fn who_may_send_can_be_said() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("secret");
        std::fs::write(&place, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let secrets = format!("secrets = [\"file:{}\"]", place.display());
        let head = "[[source]]\nname = \"w\"\npath = \"/w\"\n";
        let (sources, words) = judged(&format!("{head}auth = {{ kind = \"standard-webhooks\", {secrets} }}\n"));
        assert_eq!(words, [""; 0]);
        let Auth::Webhooks(webhooks) = &sources[0].auth else { panic!("{sources:?}") };
        assert_eq!(webhooks.tolerance, Duration::from_secs(300));
        let url = format!("{head}shape = \"data\"\ntype = \"seen\"\nauth = {{ kind = \"signed-url\", {secrets} }}\n");
        let (sources, words) = judged(&url);
        assert_eq!(words, [""; 0]);
        assert_eq!(sources[0].target(), "/w/e.gif");
        let short = format!("{head}dedupe = \"1m\"\nauth = {{ kind = \"standard-webhooks\", {secrets} }}\n");
        let (sources, words) = judged(&short);
        assert_eq!(words, [""; 0]);
        assert!(matches!(&sources[0].auth, Auth::Webhooks(webhooks) if webhooks.tolerance == Duration::from_secs(60)));

        for (written, expected) in [
            ("{ kind = \"basic\" }", "auth.kind: `basic` is no kind of authentication; fix: use `none`"),
            ("{ tolerance = \"1m\" }", "auth.tolerance: has no effect; fix: remove it"),
            ("{ kind = \"none\", secrets = [] }", "auth.secrets: have no effect; fix: remove them"),
            ("{ kind = \"standard-webhooks\" }", "auth.secrets: is missing; fix: name where it is, as in secrets"),
            ("{ kind = \"signed-url\", secrets = [] }", "auth.secrets: has not between 1 and 8 secrets"),
            (
                "{ kind = \"standard-webhooks\", secrets = [\"whsec_A\"] }",
                "auth.secrets: names no place: a secret is in",
            ),
            ("{ kind = \"standard-webhooks\", secrets = [\"env:MILLPOND_NOT_SET\"] }", "auth.secrets: the environment"),
            ("{ kind = \"standard-webhooks\", secrets = [\"file:/dev/null\"] }", "has 0 bytes, and a secret has 24"),
            (
                &format!("{{ kind = \"standard-webhooks\", {secrets}, tolerance = \"20m\" }}"),
                "auth.tolerance: is longer than ids are remembered (\"600s\"); fix: raise dedupe to it, or lower it",
            ),
            (
                &format!("{{ kind = \"signed-url\", {secrets} }}"),
                "auth.kind: `signed-url` gives no events with members",
            ),
        ] {
            let (sources, words) = judged(&format!("{head}auth = {written}\n"));
            assert!(sources.is_empty() && words.len() == 1, "{written}: {words:?}");
            assert!(words[0].starts_with("m.toml:4:") && words[0].contains(expected), "{words:?}");
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_line_and_fix() {
        let (sources, words) = judged(
            "[[source]]\nname = \"a b\"\npath = \"events\"\nshape = \"dota\"\ntype = \"\"\nid = \"{user}\"\n\
             time = \"now\"\npartition = \"{received}\"\ndedupe = \"0s\"\nbody_max = \"1GiB\"\n\
             [[source]]\nshape = \"data\"\nsubject = \"{subject}\"\ndedupe = \"1m\"\n\
             [[source]]\nname = \"c\"\npath = \"/_millpond/c\"\n\
             [[source]]\nname = \"c\"\npath = \"/c?\"\n",
        );
        assert!(sources.is_empty());
        for (word, expected) in words.iter().zip([
            "m.toml:2:8: source[0].name: `a b` is no name; fix: use letters, digits, - and _ only",
            "m.toml:3:8: source[0].path: `events` does not start with /; fix: write a path, as in \"/events/wiki\"",
            "m.toml:4:9: source[0].shape: `dota` is no shape; fix: use `event` or `data`",
            "m.toml:5:8: source[0].type: is empty; fix: name a type, as in type = \"edit\"",
            "m.toml:6:6: source[0].id: `user` is no path into an event: start with id, source, type, subject, time, \
             received or data, as in `data.user`; fix: write text with holes, as in \"{data.user}\"",
            "m.toml:7:8: source[0].time: is the same for every event; fix: put a hole into it, as in \
             \"{data.time}\", or leave it out",
            "m.toml:8:13: source[0].partition: `received` is given by us, not by the producer; fix: use a member of data",
            "m.toml:9:10: source[0].dedupe: \"0s\" is out of range; fix: use \"1s\" to \"604800s\"",
            "m.toml:10:12: source[0].body_max: \"1GiB\" is out of range; fix: use \"1KiB\" to \"32MiB\"",
            "m.toml:11:1: source[1].name: is missing; fix: name it, as in name = \"wiki\"",
            "m.toml:11:1: source[1].path: is missing; fix: say where events are POSTed to, as in path = \"/events/wiki\"",
            "m.toml:11:1: source[1].type: is missing; fix: give the events a type, as in type = \"edit\" or type = \
             \"{data.kind}\"",
            "m.toml:13:11: source[1].subject: `subject` is no part of shape = \"data\"; fix: write data. before the \
             name of a member, as in {data.user}",
            "m.toml:14:10: source[1].dedupe: has no effect: every event gets an id of its own; fix: say what an event \
             is recognised by, as in id = \"hash\", or remove it",
            "m.toml:17:8: source[2].path: `/_millpond/c` lies below /_millpond, which the roles use among themselves; \
             fix: use another path, as in \"/events/wiki\"",
            "m.toml:19:8: source[3].name: source[2] has the same name; fix: give every source its own name",
            "m.toml:20:8: source[3].path: `/c?` holds a byte that can't stand in a URL path; fix: use letters, digits, \
             - . _ ~ and / only",
        ]) {
            assert_eq!(word, expected);
        }
        assert_eq!(words.len(), 17, "{words:#?}");
    }
}
