//! The forms of a stored response in content codings: kept beside it, in the same budget, for as long as it is there.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::charge::{self, Charge, Overhead};
use super::entry::{Entry, shareable};
use super::slot::Slot;
use super::{Store, head};
use crate::key::KeyRef;
use crate::semantics::coding::{CODINGS, Coding};

/// The forms of one response that have been made so far.
#[derive(Debug, Default)]
pub struct Forms {
    made: [OnceLock<Box<Form>>; CODINGS],
    /// A bit for each coding that somebody has taken it upon himself to make.
    claimed: AtomicU8,
    /// A bit for each coding that is not worth being made.
    useless: AtomicU8,
}

/// A response in a coding, as it goes out.
#[derive(Debug)]
pub struct Form {
    /// As [`Entry::head`], with the fields of this form.
    pub head: Bytes,
    pub body: Bytes,
}

/// Times that a form is put beside a response that is being replaced meanwhile.
const TRIES_MAX: usize = 3;

impl Forms {
    pub fn get(&self, coding: Coding) -> Option<&Form> {
        self.made.get(coding.index())?.get().map(|form| &**form)
    }

    /// Whether the form is worth being asked for: it is not there, and nobody has begun to make it.
    pub fn is_open(&self, coding: Coding) -> bool {
        let taken = self.claimed.load(Ordering::Relaxed) | self.useless.load(Ordering::Relaxed);
        taken & bit(coding) == 0 && self.get(coding).is_none()
    }

    /// Takes it upon the caller to make the form. `false`: somebody else has.
    pub fn claim(&self, coding: Coding) -> bool {
        self.claimed.fetch_or(bit(coding), Ordering::Relaxed) & bit(coding) == 0
    }

    /// The caller could not make it after all: the next one may try.
    pub fn release(&self, coding: Coding) {
        self.claimed.fetch_and(!bit(coding), Ordering::Relaxed);
    }

    /// The form saves nothing, or there is no room for it: nobody need try again.
    pub fn give_up(&self, coding: Coding) {
        self.useless.fetch_or(bit(coding), Ordering::Relaxed);
    }

    fn made(&self) -> impl Iterator<Item = (Coding, &Form)> {
        Coding::ALL.into_iter().filter_map(|coding| Some((coding, self.get(coding)?)))
    }

    pub(super) fn charge(&self) -> Charge {
        let own = Charge { meta: charge::allocated(size_of::<Forms>()), ..Charge::default() };
        own + self.made().map(|(_, form)| form.charge()).sum()
    }

    /// Those of a response that had the same body, for one with this head.
    pub(super) fn taken_over(&self, of: &[u8]) -> Forms {
        let forms = Forms { useless: AtomicU8::new(self.useless.load(Ordering::Relaxed)), ..Forms::default() };
        for (coding, form) in self.made() {
            forms.put(coding, Form::new(coding, of, form.body.clone()));
        }
        forms
    }

    /// `false`: it is there already.
    fn put(&self, coding: Coding, form: Form) -> bool {
        self.made.get(coding.index()).is_some_and(|place| place.set(Box::new(form)).is_ok())
    }
}

fn bit(coding: Coding) -> u8 {
    1 << coding.index()
}

impl Form {
    /// `of`: the head of the response without a coding.
    fn new(coding: Coding, of: &[u8], body: Bytes) -> Form {
        Form { head: shareable(head::coded(of, coding, body.len())), body: shareable(body) }
    }

    fn charge(&self) -> Charge {
        Charge {
            body: charge::allocated(self.body.len()) + charge::SHARED,
            meta: charge::allocated(size_of::<Form>()) + charge::allocated(self.head.len()) + charge::SHARED,
            ..Charge::default()
        }
    }
}

impl Store {
    /// Puts a form beside the response with this body; `coded` is that body in the coding. `false`: the response is not
    /// there any more, or has the form, or there is no room for both.
    ///
    /// Whoever comes with a form may find that an answer of the origin has confirmed the response meanwhile: then there
    /// is another entry with the same body, which is the one to have it.
    pub fn put_form(&self, key: KeyRef<'_>, body: &Bytes, coding: Coding, coded: Bytes) -> bool {
        (0..TRIES_MAX).find_map(|_| self.try_put_form(key, body, coding, &coded)).unwrap_or(false)
    }

    /// `None`: the entry was replaced meanwhile.
    fn try_put_form(&self, key: KeyRef<'_>, body: &Bytes, coding: Coding, coded: &Bytes) -> Option<bool> {
        // No shard may be locked while room is made, and how much it takes depends on the entry.
        let Some(entry) = self.with_body(key, body).filter(|entry| entry.forms().is_some()) else { return Some(false) };
        let form = Form::new(coding, &entry.head, coded.clone());
        let charge = match self.overhead() {
            Overhead::Product => form.charge(),
            Overhead::None => Charge::default(),
        };
        let all = self.charge(&entry) + charge;
        if all.total() > self.limits().object_max_bytes || !self.make_room(charge.total()) {
            return Some(false);
        }
        let mut shard = self.shard(key.hash).write();
        let is_there = |slot: &Slot| slot.variants().iter().any(|other| Arc::ptr_eq(other, &entry));
        let place = shard.find_hash(key.hash).filter(|at| shard.slots().get(*at).is_some_and(is_there));
        let is_put = place.is_some() && entry.forms().is_some_and(|forms| forms.put(coding, form));
        match place.filter(|_| is_put) {
            Some(at) => {
                shard.charged += charge;
                self.settle(&mut shard, at, key.hash);
            }
            None => self.budget().give_back(charge.total()),
        }
        place.map(|_| is_put)
    }

    /// The entry under a key that has this body, and no copy of it.
    fn with_body(&self, key: KeyRef<'_>, body: &Bytes) -> Option<Arc<Entry>> {
        let shard = self.shard(key.hash).read();
        let has_it = |entry: &&Arc<Entry>| std::ptr::eq(&*entry.body, &**body);
        shard.find(key)?.variants().iter().find(has_it).cloned()
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use millpond_shared::http1::Fields;

    use super::super::tests::{entry, key};
    use super::super::{Mode, StoreLimits};
    use super::*;
    use crate::semantics::vary::Selection;

    const BODY: usize = 10_000;

    fn negotiated(fields: &[(&str, &str)]) -> Arc<Entry> {
        let (times, body) = (entry(0, None, &[]).times, Bytes::from(vec![b'x'; BODY]));
        let fields: Fields = fields.iter().copied().collect();
        let entry = Entry::new(StatusCode::OK, fields, body, times, Selection::NONE, Vec::new(), None);
        Arc::new(entry.in_codings())
    }

    fn admitted(store: &Store, entry: &Arc<Entry>) {
        assert!(store.admit(&key("/a"), Arc::clone(entry), store.purge_seq(), || false));
    }

    fn coded(length: usize) -> Bytes {
        Bytes::from(vec![b'z'; length])
    }

    #[test]
    fn a_form_has_the_fields_of_its_coding() {
        let store = Store::new(StoreLimits::with_budget(1_000_000));
        let entry = negotiated(&[
            ("Content-Type", "text/plain"),
            ("eTag", "\"a\""),
            ("Accept-Ranges", "bytes"),
            ("Repr-Digest", "sha-256=:AA==:"),
            ("Vary", "Accept-Encoding"),
        ]);
        admitted(&store, &entry);
        assert!(store.put_form(key("/a").borrowed(), &entry.body, Coding::Brotli, coded(4000)));
        let form = entry.forms().and_then(|forms| forms.get(Coding::Brotli)).expect("it was put");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\neTag: \"a-br\"\r\nVary: Accept-Encoding\r\n\
                    Content-Encoding: br\r\nContent-Length: 4000\r\n";
        assert_eq!((&*form.head, form.body.len()), (head.as_bytes(), 4000));
        let mut of_304 = bytes::BytesMut::new();
        entry.put_fields_of_304(&mut of_304, Some(Coding::Gzip));
        assert_eq!(of_304, "eTag: \"a-gzip\"\r\nVary: Accept-Encoding\r\n");
    }

    #[test]
    fn forms_are_counted_and_go_with_their_response() {
        let store = Store::new(StoreLimits::with_budget(1_000_000));
        let entry = negotiated(&[]);
        admitted(&store, &entry);
        let before = store.bytes();
        let put = |coding, length| store.put_form(key("/a").borrowed(), &entry.body, coding, coded(length));
        assert!(put(Coding::Gzip, 5000) && put(Coding::Zstd, 4000));
        assert!(!put(Coding::Gzip, 5000), "it has that one");
        assert!((9_000..12_000).contains(&(store.bytes() - before)), "{} bytes", store.bytes() - before);
        assert_eq!(store.charged().total(), store.bytes());
        let purged = store.purge_key(&key("/a"), Mode::Delete);
        assert_eq!((purged.objects, store.bytes(), store.charged().total()), (1, 0, 0));
        assert!(!put(Coding::Brotli, 10), "it is gone");
        admitted(&store, &negotiated(&[]));
        assert!(!put(Coding::Brotli, 10), "another body");
        assert!(!store.put_form(key("/b").borrowed(), &entry.body, Coding::Brotli, coded(10)));
    }

    #[test]
    fn what_replaces_a_response_with_the_same_body_has_its_forms() {
        let store = Store::new(StoreLimits::with_budget(1_000_000));
        let first = negotiated(&[("ETag", "\"a\"")]);
        admitted(&store, &first);
        assert!(store.put_form(key("/a").borrowed(), &first.body, Coding::Gzip, coded(100)));
        let forms = first.forms().expect("it may be coded");
        forms.give_up(Coding::Zstd);
        let fields: Fields = [("ETag", "\"a\""), ("X-New", "1")].into_iter().collect();
        let body = first.body.clone();
        let second = Entry::new(StatusCode::OK, fields, body, first.times, Selection::NONE, Vec::new(), None);
        let second = Arc::new(second.in_codings().with_forms_of(&first));
        admitted(&store, &second);
        assert_eq!(store.charged().total(), store.bytes());
        let taken = second.forms().expect("it may be coded");
        let form = taken.get(Coding::Gzip).expect("it was there");
        assert!(form.head.windows(10).any(|line| line == b"X-New: 1\r\n") && form.body == coded(100));
        assert!(!taken.is_open(Coding::Zstd) && !taken.is_open(Coding::Gzip) && taken.is_open(Coding::Brotli));
        // Made of the first, it is put beside the second.
        assert!(store.put_form(key("/a").borrowed(), &first.body, Coding::Brotli, coded(50)));
        assert!(taken.get(Coding::Brotli).is_some() && forms.get(Coding::Brotli).is_none());
        assert_eq!(store.charged().total(), store.bytes());
    }

    #[test]
    fn a_response_and_its_forms_are_no_larger_than_one_may_be() {
        let store = Store::new(StoreLimits { object_max_bytes: 16_000, ..StoreLimits::with_budget(1_000_000) });
        let entry = negotiated(&[]);
        admitted(&store, &entry);
        let before = store.bytes();
        assert!(!store.put_form(key("/a").borrowed(), &entry.body, Coding::Gzip, coded(8000)));
        assert_eq!(store.bytes(), before);
        assert!(store.put_form(key("/a").borrowed(), &entry.body, Coding::Gzip, coded(2000)));
    }

    #[test]
    fn one_makes_a_form_and_others_leave_it_to_him() {
        let forms = Forms::default();
        assert!(forms.is_open(Coding::Gzip) && forms.claim(Coding::Gzip) && !forms.claim(Coding::Gzip));
        assert!(!forms.is_open(Coding::Gzip) && forms.is_open(Coding::Brotli));
        forms.release(Coding::Gzip);
        assert!(forms.is_open(Coding::Gzip) && forms.claim(Coding::Gzip));
        forms.give_up(Coding::Gzip);
        forms.release(Coding::Gzip);
        assert!(!forms.is_open(Coding::Gzip));
    }
}
