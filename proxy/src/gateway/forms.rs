//! In which content coding a stored response answers a request, and who makes it in that coding.
//!
//! A form is made when somebody asks for it, once, off the workers; whoever asks before it is there is sent the best that
//! is.

use std::sync::Arc;

use http::StatusCode;
use millpond_shared::http1::{Fields, FieldsBuilder};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::cache::{Entry, Form, Forms, Store};
use crate::compress::compressed;
use crate::counters::Counters;
use crate::flight::Draft;
use crate::key::KeyRef;
use crate::rules::Rule;
use crate::semantics::coding::{self, Accepted, Coding};
use crate::semantics::request::Ask;
use crate::semantics::validate;

/// The form in which a stored response is sent.
#[derive(Clone, Copy)]
pub struct Choice<'a> {
    /// `None`: as it was stored.
    pub form: Option<(Coding, &'a Form)>,
    /// A better one that is still to be made.
    pub wanted: Option<Coding>,
    /// Whether the response has forms at all, each with a tag of its own.
    has_forms: bool,
}

impl<'a> Choice<'a> {
    const ONLY: Choice<'static> = Choice { form: None, wanted: None, has_forms: false };

    pub fn of(rule: &Rule, ask: &Ask, request: &Fields, entry: &'a Entry) -> Choice<'a> {
        // Nothing more for rules without compression.
        let Some(compress) = &rule.compress else { return Choice::ONLY };
        match entry.forms() {
            Some(forms) => Choice::among(forms, &compress.codings, ask, request),
            None => Choice::ONLY,
        }
    }

    fn among(forms: &'a Forms, offered: &[Coding], ask: &Ask, request: &Fields) -> Choice<'a> {
        let stored = Choice { has_forms: true, ..Choice::ONLY };
        // Parts are cut out of what was stored.
        if ask.directives.no_transform || ask.range.is_some() {
            return stored;
        }
        let mut wanted = None;
        for coding in Accepted::of(request).preferred(offered) {
            if let Some(form) = forms.get(coding) {
                return Choice { form: Some((coding, form)), wanted, ..stored };
            }
            wanted = wanted.or(Some(coding).filter(|coding| forms.is_open(*coding)));
        }
        Choice { wanted, ..stored }
    }

    /// For a response whose body is still coming: it goes out as it comes, but a client may have it in a coding.
    pub fn of_draft(draft: &Draft) -> Choice<'static> {
        Choice { has_forms: draft.coded_from.is_some(), ..Choice::ONLY }
    }

    /// Whether a client that asks with conditions has the response already, and as which form: the 304 names that one.
    pub fn not_modified<'b>(
        &self,
        request: &Fields,
        status: StatusCode,
        stored: impl IntoIterator<Item = (&'b str, &'b [u8])>,
    ) -> Option<Option<Coding>> {
        match self.has_forms {
            true => validate::not_modified_in(request, status, stored, self.form.map(|(coding, _)| coding)),
            false => validate::not_modified(request, status, stored).then_some(None),
        }
    }
}

/// The fields of a response in a coding, given those without.
pub fn fields_in(coding: Coding, plain: &Fields) -> Fields {
    let kept: Fields = plain.iter().filter(|(name, _)| !coding::is_lost(name)).collect();
    let mut fields = FieldsBuilder::new();
    for (name, value) in fields_tagged(coding, &kept).iter() {
        fields.push(name, value);
    }
    fields.push("Content-Encoding", coding.token());
    fields.build()
}

/// Fields with the entity tag that the response has in a coding.
pub fn fields_tagged(coding: Coding, plain: &Fields) -> Fields {
    let mut fields = FieldsBuilder::new();
    for (name, value) in plain.iter() {
        match name.eq_ignore_ascii_case("etag") {
            true => fields.push(name, coding.tag(value)),
            false => fields.push(name, value),
        };
    }
    fields.build()
}

/// The coding that a request would have a response in, were it made in all of them.
pub fn preferred(rule: &Rule, ask: &Ask, request: &Fields) -> Option<Coding> {
    let compress = rule.compress.as_ref().filter(|_| !ask.directives.no_transform)?;
    Accepted::of(request).preferred(&compress.codings).next()
}

/// Makes forms of stored responses.
pub struct Compressor {
    store: Arc<Store>,
    counters: Arc<Counters>,
    /// Forms that are made at a time. There is no queue: what is not begun now is begun when it is asked for again.
    places: Arc<Semaphore>,
}

impl Compressor {
    /// Takes at most half of the cores, so that clients are served meanwhile.
    pub fn new(store: Arc<Store>, counters: Arc<Counters>) -> Compressor {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Compressor { store, counters, places: Arc::new(Semaphore::new((cores / 2).max(1))) }
    }

    /// Begins to make a form of a response that is stored under `key`, unless somebody has.
    pub fn make(&self, key: &str, entry: &Arc<Entry>, coding: Coding) {
        let Some(forms) = entry.forms().filter(|forms| forms.is_open(coding)) else { return };
        let Ok(workers) = Handle::try_current() else { return };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        if !forms.claim(coding) {
            return;
        }
        let making = Making {
            store: Arc::clone(&self.store),
            counters: Arc::clone(&self.counters),
            key: key.into(),
            entry: Arc::clone(entry),
            coding,
        };
        workers.spawn_blocking(move || {
            making.run();
            drop(place);
        });
    }
}

/// One form that is being made.
struct Making {
    store: Arc<Store>,
    counters: Arc<Counters>,
    key: Box<str>,
    entry: Arc<Entry>,
    coding: Coding,
}

impl Making {
    fn run(&self) {
        let Making { store, counters, key, entry, coding } = self;
        let Some(forms) = entry.forms() else { return };
        let length = entry.body.len();
        // Room for the result while it grows; other bodies on their way in may have it all for now.
        let Some(room) = store.reserve(length as u64) else { return forms.release(*coding) };
        // Less than a thirtieth is not worth the memory of a second copy.
        let coded = compressed(*coding, &entry.body, length - length.div_ceil(30));
        drop(room);
        let is_kept = coded.is_some_and(|coded| store.put_form(KeyRef::new(key), &entry.body, *coding, coded));
        counters.compressed(*coding, is_kept);
        if !is_kept {
            forms.give_up(*coding);
        }
    }
}
