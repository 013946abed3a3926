//! What clients are told: the fields of a stored response where a rule has them differ from the origin's (pure).

use http::StatusCode;
use millpond_shared::http1::{Fields, FieldsBuilder, ResponseHead};

use crate::cache::{Entry, Original};
use crate::rules::{Rule, Say, TagField};
use crate::semantics::vary::{Selection, Vary};
use crate::semantics::{coding, freshness, groups, targeted};

/// The fields of a response as they are stored, and what of the origin's is kept beside them.
pub struct Told {
    pub fields: Fields,
    pub original: Option<Box<Original>>,
    /// The lifetime is the rule's, and counts from each answer.
    pub is_restated: bool,
}

impl Told {
    /// `response`: the origin's head; `fields`: those of it that are stored; `tags`: those of the stored response.
    pub fn of(rule: &Rule, response: &ResponseHead, fields: Fields, tags: &[Box<str>]) -> Told {
        let ours = response.fields.get_all(targeted::OWN).map(|value| (targeted::OWN, value));
        let says = Sayings::of(rule, response, &fields, tags);
        let replaced = fields.iter().filter(|(name, _)| says.replaces(name));
        let original = Original::of(&says.names, replaced.chain(ours));
        if says.names.is_empty() {
            return Told { original, fields, is_restated: false };
        }
        let mut told = FieldsBuilder::new();
        for (name, value) in fields.iter().filter(|(name, _)| !says.replaces(name)) {
            told.push(name, value);
        }
        for (name, value) in &says.lines {
            told.push(name, value);
        }
        Told { original, fields: told.build(), is_restated: says.is_restated }
    }
}

/// What a rule says of one response.
#[derive(Default)]
struct Sayings<'a> {
    /// Fields that are not the origin's any more.
    names: Vec<&'a str>,
    /// What stands in their place.
    lines: Vec<(&'a str, Vec<u8>)>,
    is_restated: bool,
}

impl<'a> Sayings<'a> {
    fn of(rule: &'a Rule, response: &ResponseHead, fields: &Fields, tags: &[Box<str>]) -> Sayings<'a> {
        let mut says = Sayings::default();
        if varies_by_coding(rule, fields) {
            let lines = fields.get_all("vary").filter(|line| !line.is_empty()).chain([&b"Accept-Encoding"[..]]);
            says.replace("Vary", Some(lines.collect::<Vec<_>>().join(&b", "[..])));
        }
        let downstream = &rule.downstream;
        // A lifetime that is meant for answers must not prolong a failure.
        if freshness::is_for_answers(response.status) {
            let said = says.say("Cache-Control", &downstream.cache_control);
            if said {
                says.replace("Expires", None);
            }
            if matches!(downstream.cache_control, Say::This(_)) {
                says.replace("Date", None);
                says.is_restated = true;
            }
            says.say("CDN-Cache-Control", &downstream.cdn_cache_control);
            says.say("Surrogate-Control", &downstream.surrogate_control);
        }
        if downstream.tags != Say::AsTheOrigin {
            TagField::ALL.iter().for_each(|field| says.replace(field.name, None));
            rule.tags.header.iter().for_each(|name| says.replace(name, None));
        }
        if let Say::This(field) = &downstream.tags {
            // The groups have a field of their own (RFC 9875).
            let tags: Vec<&str> = tags.iter().map(|tag| &**tag).filter(|tag| !groups::is_group(tag)).collect();
            if !tags.is_empty() {
                says.lines.push((field.name, tags.join(field.separator).into_bytes()));
            }
        }
        says
    }

    /// Whether the rule has a say in it.
    fn say(&mut self, name: &'a str, what: &'a Say<String>) -> bool {
        match what {
            Say::AsTheOrigin => return false,
            Say::Nothing => self.replace(name, None),
            Say::This(text) => self.replace(name, Some(text.clone().into_bytes())),
        }
        true
    }

    fn replace(&mut self, name: &'a str, value: Option<Vec<u8>>) {
        self.names.push(name);
        self.lines.extend(value.map(|value| (name, value)));
    }

    fn replaces(&self, name: &str) -> bool {
        self.names.iter().any(|replaced| replaced.eq_ignore_ascii_case(name))
    }
}

/// Whether clients have to be told that the response depends on what codings they accept, and are not told yet.
pub fn varies_by_coding(rule: &Rule, fields: &Fields) -> bool {
    rule.compress.as_ref().is_some_and(|compress| compress.is_for(fields.get("content-type")))
        && match Vary::of(fields) {
            Vary::Any => false,
            Vary::None => true,
            Vary::On(names) => names.iter().all(|name| name != "accept-encoding"),
        }
}

/// Which requests a response answers. Where the rule puts codings on, the origin is asked for none, whatever the client
/// accepts: that is no difference between requests, unless the origin put one on all the same.
pub fn selection(rule: &Rule, response: &Fields, request: &Fields) -> Option<Selection> {
    let mut names = match Vary::of(response) {
        Vary::On(names) => names,
        Vary::None | Vary::Any => return None,
    };
    if rule.compress.is_some() && !coding::is_coded(response) {
        names.retain(|name| name != "accept-encoding");
    }
    Some(Selection::of(&names, request))
}

/// The least length of its body, in bytes, from which a rule's response is sent in codings, given the origin's head;
/// `None`: it is not.
pub fn coded_from(rule: &Rule, status: StatusCode, origin: &Fields) -> Option<u64> {
    let compress = rule.compress.as_ref()?;
    let is_for = compress.is_for(origin.get("content-type")) && coding::may_be_coded(status, origin);
    is_for.then_some(compress.min_bytes)
}

/// Whether a response is whole, and as large as it must be to be sent in codings.
pub fn is_sent_in_codings(entry: &Entry, coded_from: Option<u64>) -> bool {
    entry.part().is_none() && coded_from.is_some_and(|least| entry.body.len() as u64 >= least)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use millpond_shared::http1::Minor;

    use super::*;
    use crate::rules::{Compress, Downstream, Tags};
    use crate::semantics::coding::Coding;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        lines.iter().copied().collect()
    }

    fn lines(fields: &Fields) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned())).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn told(rule: &Rule, status: u16, origin: &[(&str, &str)], tags: &[&str]) -> Told {
        let status = StatusCode::from_u16(status).expect("a status");
        let response = ResponseHead { status, minor: Minor::One, fields: fields(origin) };
        let stored = origin.iter().filter(|(name, _)| *name != targeted::OWN).copied().collect::<Vec<_>>();
        let tags: Vec<Box<str>> = tags.iter().map(|tag| Box::from(*tag)).collect();
        Told::of(rule, &response, fields(&stored), &tags)
    }

    fn compressing() -> Rule {
        let compress = Compress { codings: vec![Coding::Gzip], min_bytes: 10, types: None };
        Rule { compress: Some(compress), ..Rule::everything("r", "api") }
    }

    fn said(text: &str) -> Say<String> {
        Say::This(text.to_owned())
    }

    #[test]
    fn without_anything_to_say_the_origin_speaks() {
        let origin = [("Cache-Control", "max-age=1"), ("Date", "x"), ("Vary", "Cookie")];
        let plain = told(&Rule::everything("r", "api"), 200, &origin, &["a"]);
        assert_eq!((lines(&plain.fields), plain.original, plain.is_restated), (pairs(&origin), None, false));
        let own = told(&Rule::everything("r", "api"), 200, &[(targeted::OWN, "max-age=5"), ("X", "y")], &[]);
        assert_eq!(lines(&own.fields), pairs(&[("X", "y")]));
        let original = own.original.expect("it is kept").restored(own.fields.iter());
        assert_eq!(lines(&original), pairs(&[("X", "y"), (targeted::OWN, "max-age=5")]));
    }

    #[test]
    fn clients_are_told_that_codings_matter() {
        for (content_type, vary, expected) in [
            ("text/html", None, Some("Accept-Encoding")),
            ("text/html", Some(""), Some("Accept-Encoding")),
            ("text/html", Some("Cookie"), Some("Cookie, Accept-Encoding")),
            ("text/html", Some("cookie, ACCEPT-encoding"), Some("cookie, ACCEPT-encoding")),
            ("text/html", Some("*"), Some("*")),
            ("image/png", Some("Cookie"), Some("Cookie")),
            ("image/png", None, None),
        ] {
            let origin: Vec<(&str, &str)> =
                [("Content-Type", content_type)].into_iter().chain(vary.map(|vary| ("Vary", vary))).collect();
            let told = told(&compressing(), 200, &origin, &[]);
            assert_eq!(told.fields.get_str("vary"), expected, "{content_type} {vary:?}");
            let restored = told.original.map_or(told.fields.clone(), |original| original.restored(told.fields.iter()));
            assert_eq!(restored.get_str("vary"), vary, "{content_type}");
        }
    }

    #[test]
    fn a_coding_of_ours_makes_no_variants() {
        let request = fields(&[("Accept-Encoding", "gzip"), ("Accept-Language", "de")]);
        let of = |rule: &Rule, response: &[(&str, &str)]| selection(rule, &fields(response), &request);
        let vary = ("Vary", "Accept-Encoding, Accept-Language");
        let by = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Some(Selection::of(&names, &request))
        };
        assert_eq!(of(&compressing(), &[vary]), by(&["accept-language"]));
        assert_eq!(of(&compressing(), &[("Vary", "accept-encoding")]), Some(Selection::NONE));
        assert_eq!(of(&compressing(), &[]), None);
        let coded = [vary, ("Content-Encoding", "gzip")];
        assert_eq!(of(&compressing(), &coded), by(&["accept-encoding", "accept-language"]), "it matters to the origin");
        assert_eq!(of(&Rule::everything("r", "api"), &[vary]), by(&["accept-encoding", "accept-language"]));
    }

    #[test]
    fn what_a_rule_says_downstream_stands_in_place_of_what_the_origin_said() {
        let downstream = Downstream {
            cache_control: said("public, max-age=5"),
            cdn_cache_control: Say::Nothing,
            surrogate_control: said("max-age=9"),
            tags: Say::This(TagField::ALL[0]),
        };
        let tags = Tags { header: Some("X-Tags".to_owned()), add: Vec::new() };
        let rule = Rule { downstream, tags, ..Rule::everything("r", "api") };
        let origin = [
            ("Date", "d"),
            ("cache-control", "max-age=600"),
            ("Expires", "e"),
            ("CDN-Cache-Control", "max-age=60"),
            ("X-Tags", "a b"),
            ("Cache-Tag", "a"),
            ("X", "y"),
        ];
        let answer = told(&rule, 200, &origin, &["a", "b", "http example.com group"]);
        let expected = [
            ("X", "y"),
            ("Cache-Control", "public, max-age=5"),
            ("Surrogate-Control", "max-age=9"),
            ("Surrogate-Key", "a b"),
        ];
        assert_eq!((lines(&answer.fields), answer.is_restated), (pairs(&expected), true));
        let mut restored = lines(&answer.original.expect("it is kept").restored(answer.fields.iter()));
        restored.sort();
        let mut all = pairs(&origin);
        all.sort();
        assert_eq!(restored, all, "nothing of the origin's is lost, and nothing of ours among it");
        // A failure is not to be kept for longer than the origin says.
        let failure = told(&rule, 503, &origin, &["a"]);
        assert_eq!(failure.fields.get_str("cache-control"), Some("max-age=600"));
        assert_eq!((failure.fields.get_str("surrogate-key"), failure.is_restated), (Some("a"), false));
    }

    #[test]
    fn what_is_left_out_has_nothing_in_its_place() {
        let downstream = Downstream { cache_control: Say::Nothing, tags: Say::Nothing, ..Downstream::default() };
        let rule = Rule { downstream, ..Rule::everything("r", "api") };
        let answer = told(&rule, 200, &[("Cache-Control", "max-age=6"), ("Cache-Tag", "a"), ("Date", "d")], &["a"]);
        assert_eq!((lines(&answer.fields), answer.is_restated), (pairs(&[("Date", "d")]), false));
    }

    #[test]
    fn what_is_sent_in_codings() {
        let from = |rule: &Rule, lines: &[(&str, &str)]| coded_from(rule, StatusCode::OK, &fields(lines));
        assert_eq!(from(&compressing(), &[("Content-Type", "text/html")]), Some(10));
        assert_eq!(from(&compressing(), &[("Content-Type", "image/png")]), None);
        let forbidden = [("Content-Type", "text/html"), ("Cache-Control", "no-transform")];
        assert_eq!(from(&compressing(), &forbidden), None);
        assert_eq!(from(&Rule::everything("r", "api"), &[("Content-Type", "text/html")]), None);
    }
}
