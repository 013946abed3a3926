//! What a request that changes things makes invalid (RFC 9111 §4.4): its target, and what `Location` and
//! `Content-Location` name on the same origin, never anything elsewhere.

use http::Method;
use millpond_shared::http1::{Authority, RequestHead, ResponseHead, Target};

/// Path and query of each URI to invalidate, the target first, each once; nothing after a safe method or an error.
///
/// `scheme` is that of the connection, for a target that does not name its own. The authority is that of the request.
/// A reference that is not a plain URI, or leads to another origin, is left out.
pub fn invalidated(request: &RequestHead, scheme: &str, response: &ResponseHead) -> Vec<String> {
    let succeeded = response.status.is_success() || response.status.is_redirection();
    if !is_unsafe(&request.method) || !succeeded {
        return Vec::new();
    }
    let base = Base {
        scheme: match &request.target {
            Target::Absolute { scheme, .. } => scheme,
            _ => scheme,
        },
        authority: &request.authority,
        path_and_query: request.target.path_and_query(),
    };
    let mut uris = vec![base.path_and_query.to_owned()];
    for name in ["location", "content-location"] {
        let named = response.fields.get_str(name).and_then(|reference| base.resolve(reference));
        uris.extend(named.filter(|uri| !uris.contains(uri)));
    }
    uris
}

/// Whether the method may change state, which is assumed of every unknown one (RFC 9110 §9.2.1).
pub fn is_unsafe(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// The target URI, against which references are resolved.
struct Base<'a> {
    scheme: &'a str,
    authority: &'a Authority,
    path_and_query: &'a str,
}

impl Base<'_> {
    /// Path and query of a reference (RFC 3986 §5.2) if it leads to the same origin (RFC 9110 §4.3.1).
    fn resolve(&self, reference: &str) -> Option<String> {
        let reference = reference.split('#').next().unwrap_or(reference);
        if !reference.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
            return None;
        }
        let (base_path, _) = split_query(self.path_and_query);
        let path_and_query = match scheme_and_rest(reference) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(self.scheme) => self.behind_authority(rest)?,
            Some(_) => return None,
            None if reference.starts_with("//") => self.behind_authority(reference)?,
            None if reference.starts_with('/') => reference.to_owned(),
            None if reference.is_empty() => self.path_and_query.to_owned(),
            None if reference.starts_with('?') => format!("{base_path}{reference}"),
            None => {
                let directory = base_path.rfind('/').and_then(|slash| base_path.get(..=slash)).unwrap_or("/");
                format!("{directory}{reference}")
            }
        };
        let (path, query) = split_query(&path_and_query);
        Some(format!("{}{query}", without_dots(path)))
    }

    /// Path and query of `//authority/path?query`, if the authority is ours.
    fn behind_authority(&self, text: &str) -> Option<String> {
        let text = text.strip_prefix("//")?;
        let (authority, rest) = text.split_at_checked(text.find(['/', '?']).unwrap_or(text.len()))?;
        let authority = Authority::parse(authority)?;
        let same = authority.normal(self.scheme) == self.authority.normal(self.scheme);
        let slash = if rest.starts_with('/') { "" } else { "/" };
        same.then(|| format!("{slash}{rest}"))
    }
}

/// `http:` and what follows, if the reference has a scheme (RFC 3986 §3.1).
fn scheme_and_rest(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let is_scheme_byte = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(is_scheme_byte);
    is_scheme.then_some((scheme, rest))
}

/// Path, and query with its question mark.
fn split_query(text: &str) -> (&str, &str) {
    text.split_at_checked(text.find('?').unwrap_or(text.len())).unwrap_or((text, ""))
}

/// The absolute path without `.` and `..` segments (RFC 3986 §5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                // "/a/.." is the directory "/", not the document "".
                if is_last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{request, response};
    use super::*;

    #[test]
    fn unsafe_methods_with_successful_answers() {
        for (line, status, expected) in [
            ("POST /a?b", 200, &["/a?b"][..]),
            ("PUT /a", 201, &["/a"]),
            ("DELETE /a", 204, &["/a"]),
            ("PATCH /a", 303, &["/a"]),
            ("M-SEARCH /a", 200, &["/a"]),
            ("post /a", 200, &["/a"]),
            ("POST http://example.com/a", 200, &["/a"]),
            ("POST /a", 199, &[]),
            ("POST /a", 404, &[]),
            ("POST /a", 500, &[]),
            ("GET /a", 200, &[]),
            ("HEAD /a", 200, &[]),
            ("OPTIONS /a", 200, &[]),
            ("OPTIONS *", 200, &[]),
            ("TRACE /a", 200, &[]),
        ] {
            let found = invalidated(&request(line, ""), "http", &response(status, ""));
            assert_eq!(found, expected, "{line} {status}");
        }
    }

    #[test]
    fn locations_on_the_same_origin() {
        for (reference, expected) in [
            ("/b", Some("/b")),
            ("/b?c=d#e", Some("/b?c=d")),
            ("b", Some("/x/b")),
            ("b:c", None),
            ("./b:c", Some("/x/b:c")),
            ("b/c:d", Some("/x/b/c:d")),
            ("1:b", Some("/x/1:b")),
            ("./b", Some("/x/b")),
            ("../b", Some("/b")),
            ("../../../b", Some("/b")),
            ("..", Some("/")),
            (".", Some("/x/")),
            ("/b/./c/../d", Some("/b/d")),
            ("?z", Some("/x/y?z")),
            ("b?c/../d", Some("/x/b?c/../d")),
            ("http://example.com/b", Some("/b")),
            ("HTTP://EXAMPLE.com:80/b", Some("/b")),
            ("http://example.com", Some("/")),
            ("http://example.com?q", Some("/?q")),
            ("//example.com/b", Some("/b")),
            // Another origin.
            ("http://example.org/b", None),
            ("http://example.com:81/b", None),
            ("https://example.com/b", None),
            ("http://user@example.com/b", None),
            ("//example.org/b", None),
            ("http:/b", None),
            ("mailto:a@example.com", None),
            // Not URIs.
            ("/b c", None),
            ("http://[/b", None),
        ] {
            for name in ["Location", "content-location"] {
                let response = response(201, &format!("{name}: {reference}"));
                let found = invalidated(&request("POST /x/y?q=/r", ""), "http", &response);
                let expected: Vec<&str> = std::iter::once("/x/y?q=/r").chain(expected).collect();
                assert_eq!(found, expected, "{name}: {reference}");
            }
        }
    }

    #[test]
    fn each_uri_once() {
        let both = response(200, "Location: /b\nContent-Location: http://example.com/b");
        assert_eq!(invalidated(&request("POST /a", ""), "http", &both), ["/a", "/b"]);
        let itself = response(200, "Location:\nContent-Location: /a");
        assert_eq!(invalidated(&request("POST /a", ""), "http", &itself), ["/a"]);
    }

    #[test]
    fn the_default_port_depends_on_the_scheme() {
        let response = response(200, "Location: https://example.com:443/b");
        assert_eq!(invalidated(&request("POST /a", ""), "https", &response), ["/a", "/b"]);
        assert_eq!(invalidated(&request("POST /a", ""), "http", &response), ["/a"]);
    }
}
