//! A request's head as ingest sees it, however it came: from its own socket, or by a call from the proxy.

use http::{HeaderMap, Method};
use millpond_shared::http1;

/// Header fields, by whoever holds them.
pub trait Fields: Sync {
    /// Value of the first field called `name` (any case).
    fn get(&self, name: &str) -> Option<&[u8]>;

    /// Calls `each` with name and value of every field, in their order.
    fn each<'a>(&'a self, each: &mut dyn FnMut(&'a str, &'a [u8]));
}

impl Fields for http1::Fields {
    fn get(&self, name: &str) -> Option<&[u8]> {
        http1::Fields::get(self, name)
    }

    fn each<'a>(&'a self, each: &mut dyn FnMut(&'a str, &'a [u8])) {
        self.iter().for_each(|(name, value)| each(name, value));
    }
}

impl Fields for HeaderMap {
    fn get(&self, name: &str) -> Option<&[u8]> {
        HeaderMap::get(self, name).map(|value| value.as_bytes())
    }

    fn each<'a>(&'a self, each: &mut dyn FnMut(&'a str, &'a [u8])) {
        self.iter().for_each(|(name, value)| each(name.as_str(), value.as_bytes()));
    }
}

/// Head of a request.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    /// Without its `?`; empty where there is none.
    pub query: &'a str,
    pub fields: &'a dyn Fields,
}

impl<'a> Asked<'a> {
    pub fn new(method: &'a Method, path_and_query: &'a str, fields: &'a dyn Fields) -> Asked<'a> {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        Asked { method, path, query, fields }
    }

    /// A field as text; empty where it is missing or no text.
    pub fn text(&self, name: &str) -> &'a str {
        self.fields.get(name).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
    }

    /// The first parameter of the query that is called so, as it was written.
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}
