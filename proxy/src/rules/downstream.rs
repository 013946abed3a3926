//! What a rule has clients told, and the caches between them and this one, in place of what the origin says.

use millpond_shared::config::At;

use super::judge::Judge;
use super::written::WrittenField;
use crate::semantics::{cache_control, targeted};

/// Fields of stored responses. What the origin said in them still decides how the response is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downstream {
    /// And with it `Expires`. Where the rule says something, its seconds count from each answer.
    pub cache_control: Say<String>,
    pub cdn_cache_control: Say<String>,
    pub surrogate_control: Say<String>,
    pub tags: Say<TagField>,
}

/// What is said in a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Say<T> {
    #[default]
    AsTheOrigin,
    Nothing,
    This(T),
}

/// A field in which other caches are told tags, and what they stand between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagField {
    pub name: &'static str,
    pub separator: &'static str,
}

impl TagField {
    pub const ALL: [TagField; 4] = [
        TagField { name: "Surrogate-Key", separator: " " },
        TagField { name: "Cache-Tag", separator: "," },
        TagField { name: "Edge-Cache-Tag", separator: "," },
        TagField { name: "xkey", separator: " " },
    ];
}

impl Downstream {
    /// Whether anything is said otherwise than by the origin.
    pub fn is_any(&self) -> bool {
        *self != Downstream::default()
    }
}

impl Judge<'_> {
    pub(super) fn downstream(&mut self) -> Downstream {
        let Some(at) = &self.at.value.downstream else { return Downstream::default() };
        let written = &at.value;
        let directives = "write directives as in \"public, max-age=5\"";
        let downstream = Downstream {
            cache_control: self.say("cache_control", &written.cache_control, directives, |text| {
                cache_control::is_well_formed(text).then(|| text.to_owned())
            }),
            cdn_cache_control: self.say(
                "cdn_cache_control",
                &written.cdn_cache_control,
                "write a dictionary (RFC 9651) in lower case, as in \"max-age=60, stale-if-error=600\"",
                |text| targeted::is_well_formed(text).then(|| text.to_owned()),
            ),
            surrogate_control: self.say("surrogate_control", &written.surrogate_control, directives, |text| {
                cache_control::is_well_formed(text).then(|| text.to_owned())
            }),
            tags: self.say(
                "tags",
                &written.tags,
                "name one that other caches know: Surrogate-Key, Cache-Tag, Edge-Cache-Tag or xkey",
                |text| TagField::ALL.into_iter().find(|field| field.name.eq_ignore_ascii_case(text)),
            ),
        };
        if !downstream.is_any() && !self.says_something() {
            let fix = "say something, as in { cache_control = \"public, max-age=5\" }, or remove it";
            self.wrong("downstream", at.span.clone(), "is empty", fix);
        }
        downstream
    }

    fn says_something(&self) -> bool {
        self.at.value.downstream.as_ref().is_some_and(|at| {
            let written = &at.value;
            [&written.cache_control, &written.cdn_cache_control, &written.surrogate_control, &written.tags]
                .iter()
                .any(|field| field.is_some())
        })
    }

    fn say<T>(
        &mut self,
        name: &str,
        written: &Option<At<WrittenField>>,
        fix: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Say<T> {
        let Some(written) = written else { return Say::AsTheOrigin };
        let field = format!("downstream.{name}");
        let (problem, fix) = match &written.value {
            WrittenField::Flag(false) => return Say::Nothing,
            WrittenField::Flag(true) => {
                ("is `true`".to_owned(), "write what is to be said, or false to leave the field out")
            }
            WrittenField::Text(text) if text.trim().is_empty() => {
                ("is empty".to_owned(), "write false to leave the field out, or remove it")
            }
            WrittenField::Text(text) => match read(text) {
                Some(said) => return Say::This(said),
                None => (format!("`{text}` can't be said there"), fix),
            },
        };
        self.wrong(&field, written.span.clone(), problem, fix);
        Say::AsTheOrigin
    }
}
