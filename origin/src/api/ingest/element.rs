//! From one element of a batch to an event, and to where it belongs (pure).

use std::borrow::Cow;
use std::sync::LazyLock;

use millpond_shared::event::{Event, Path, View, parse_time, scalar_text};
use millpond_shared::template::Template;
use millpond_shared::wanted::Wanted;
use ring::digest::{SHA256, digest};
use xxhash_rust::xxh3::xxh3_64;

use super::members::{self, Members};
use super::scan::scan;
use super::{IdRule, Shape, Source};

/// Largest payload of one event, in bytes; a larger one is rejected.
pub const EVENT_MAX_BYTES: usize = 1 << 20;
/// Longest id, in bytes; an event with a longer one is rejected.
pub const ID_MAX_BYTES: usize = 256;
/// Longest type, in bytes; likewise.
pub const TYPE_MAX_BYTES: usize = 256;
/// Longest subject, in bytes; likewise.
pub const SUBJECT_MAX_BYTES: usize = 1024;
/// Deepest nesting of a payload; likewise. All that reads it later reads this deep.
pub const NESTING_MAX: usize = 127;

/// An event that can be stored.
#[derive(Debug, PartialEq)]
pub struct Built {
    pub event: Event<'static>,
    pub place: Place,
    /// Whether it would have the same id if it were sent again, so that a repeat must be recognised.
    pub repeatable: bool,
}

/// Which event queue takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The one with this hash, modulo their number, and no other: order, or the recognition of a repeat, hangs on it.
    Pinned(u64),
    /// Any that has room.
    Any,
}

/// An id for an event that has none of its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Assigned {
    pub id: String,
    /// If the event would get the same id again: the hash that chooses its event queue. All events of a request share
    /// it, so that they are stored together.
    pub again: Option<u64>,
}

/// One element of a body.
#[derive(Clone, Copy, Debug)]
pub struct Element<'a> {
    /// JSON.
    pub text: &'a str,
    /// Whether it says that it is a CloudEvent.
    pub cloud_event: bool,
    /// What its source asks of payloads.
    pub wanted: Option<&'a Wanted>,
    /// When it was taken: milliseconds since the Unix epoch.
    pub received: u64,
}

/// Builds the event of one element, or says in words what is wrong with it. `assign` makes an id.
pub fn build(source: &Source, element: Element<'_>, assign: impl FnOnce() -> Assigned) -> Result<Built, String> {
    let Element { text, cloud_event, wanted, received } = element;
    if !text.starts_with('{') {
        return Err("an event is a JSON object: send { … }".to_owned());
    }
    let scanned = scan(text);
    if scanned.nesting > NESTING_MAX {
        return Err(format!("it is nested deeper than {NESTING_MAX} levels: flatten it"));
    }
    let members = match source.shape {
        Shape::Event => members::read(text, cloud_event)?,
        Shape::Data => Members { data: Cow::Borrowed(text), ..Members::default() },
    };
    let is_as_sent = matches!(members.data, Cow::Borrowed(_));
    if !is_as_sent && scan(&members.data).nesting > NESTING_MAX {
        return Err(format!("its data is nested deeper than {NESTING_MAX} levels: flatten it"));
    }
    if members.data.len() > EVENT_MAX_BYTES {
        let bytes = members.data.len();
        return Err(format!("data has {bytes} bytes, more than {EVENT_MAX_BYTES}: send less in one event"));
    }
    let sent = Event {
        id: members.id.as_deref().unwrap_or_default().into(),
        source: source.name.as_str().into(),
        kind: members.kind.as_deref().unwrap_or_default().into(),
        subject: members.subject.as_deref().map(Cow::Borrowed),
        time: members.time.unwrap_or_default(),
        received,
        data: Cow::Borrowed(&members.data),
    };
    // Nobody reads the payload here unless a template asks for it, or it might be that nobody can.
    let view = match wanted {
        _ if scanned.doubtful || !is_as_sent => View::new(&sent),
        Some(wanted) => View::of(&sent, wanted),
        None => Ok(View::of_attributes(&sent)),
    };
    let view = view.map_err(|error| format!("data can't be read: {error}"))?;
    let filler = Filler { members: &members, view: &view };

    let kind = filler.text("type", &source.kind)?;
    let time = match &source.time {
        Some(template) => filler.time(template)?,
        None => members.time.unwrap_or_else(|| i64::try_from(received).unwrap_or(i64::MAX).saturating_mul(1_000_000)),
    };
    let subject = match &source.subject {
        Some(template) => filler.text("subject", template).ok(),
        None => members.subject.as_deref().map(Cow::Borrowed),
    };
    let own_id = match &source.id {
        IdRule::Member => members.id.as_deref().map(Cow::Borrowed),
        IdRule::Assigned => None,
        IdRule::Hash => Some(Cow::Owned(hash(text))),
        IdRule::Template(template) => Some(filler.text("id", template)?),
    };
    within("id", own_id.as_deref(), ID_MAX_BYTES)?;
    within("type", Some(&kind), TYPE_MAX_BYTES)?;
    within("subject", subject.as_deref(), SUBJECT_MAX_BYTES)?;
    let partition = source.partition.as_ref().map(|template| filler.text("partition", template)).transpose()?;

    let (id, again) = match own_id {
        Some(id) => {
            let hash = xxh3_64(id.as_bytes());
            (id.into_owned(), Some(hash))
        }
        None => {
            let Assigned { id, again } = assign();
            (id, again)
        }
    };
    let partition = partition.map(|partition| xxh3_64(partition.as_bytes()));
    let event = Event {
        id: Cow::Owned(id),
        source: Cow::Owned(source.name.clone()),
        kind: Cow::Owned(kind.into_owned()),
        subject: subject.map(|subject| Cow::Owned(subject.into_owned())),
        time,
        received,
        data: Cow::Owned(members.data.into_owned()),
    };
    let place = partition.or(again).map_or(Place::Any, Place::Pinned);
    Ok(Built { event, place, repeatable: again.is_some() })
}

/// Templates that are one member and nothing else.
static MEMBERS: LazyLock<[Option<Template>; 3]> =
    LazyLock::new(|| ["{id}", "{type}", "{subject}"].map(|text| text.parse().ok()));

/// Fills templates from what was sent, and only from that.
struct Filler<'a> {
    members: &'a Members<'a>,
    view: &'a View<'a>,
}

impl<'a> Filler<'a> {
    fn text(&self, what: &str, template: &Template) -> Result<Cow<'a, str>, String> {
        if let Some(text) = self.member(template) {
            return Ok(Cow::Borrowed(text));
        }
        let missing = |path: &Path| {
            let path = path.as_str();
            if path == what {
                format!("{what} is missing: add the member `{what}`")
            } else {
                format!("{what} can't be built: `{path}` is missing or no text, number, true or false")
            }
        };
        if let Some(path) = template.paths().find(|path| self.was_not_sent(path)) {
            return Err(missing(path));
        }
        let text = template.text(self.view).map_err(missing)?;
        if text.is_empty() {
            return Err(format!("{what} is empty"));
        }
        Ok(Cow::Owned(text))
    }

    /// What was sent as the member that is all of `template`, as of `{type}`. It is not empty: see [`members::read`].
    fn member(&self, template: &Template) -> Option<&'a str> {
        let Members { id, kind, subject, .. } = self.members;
        let all = MEMBERS.iter().zip([id, kind, subject]);
        let (_, member) = all.into_iter().find(|(alone, _)| alone.as_ref() == Some(template))?;
        member.as_deref()
    }

    /// The time that stands alone in a template may be a number; one that is put together is a text.
    fn time(&self, template: &Template) -> Result<i64, String> {
        let paths: Vec<&str> = template.paths().map(Path::as_str).collect();
        let named = paths.join(", ");
        if template.paths().any(|path| self.was_not_sent(path)) {
            return Err(format!("time can't be read: `{named}` is missing"));
        }
        let value = template.value(self.view).ok_or_else(|| format!("time can't be read: `{named}` is missing"))?;
        let time = parse_time(&value);
        time.ok_or_else(|| {
            let found = scalar_text(&value).unwrap_or(Cow::Borrowed("a list or an object"));
            let found: String = found.chars().take(64).collect();
            format!("time can't be read: `{named}` is no time between 1678 and 2262, but {found}")
        })
    }

    /// The view knows an empty text, or zero, for what an element has not.
    fn was_not_sent(&self, path: &Path) -> bool {
        match path.as_str() {
            "id" => self.members.id.is_none(),
            "type" => self.members.kind.is_none(),
            "time" => self.members.time.is_none(),
            _ => false,
        }
    }
}

fn within(name: &str, text: Option<&str>, limit: usize) -> Result<(), String> {
    match text {
        Some(text) if text.len() > limit => {
            Err(format!("{name} has {} bytes, more than {limit}: shorten it", text.len()))
        }
        _ => Ok(()),
    }
}

fn hash(text: &str) -> String {
    hexadecimal(digest(&SHA256, text.as_bytes()).as_ref().get(..16).unwrap_or_default())
}

/// Two digits for every byte.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests;
