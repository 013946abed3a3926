//! The request target (RFC 9112 §3.2).

use http::Method;

use super::{Authority, Refusal};

/// What a request asks for, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/path?query`
    Origin(String),
    /// `http://authority/path?query`; the path starts with `/`, or is `*` where `OPTIONS` names none.
    Absolute { scheme: String, authority: Authority, path: String },
    /// `authority:port`, of `CONNECT` only.
    Authority(Authority),
    /// `*`, of `OPTIONS` only.
    Asterisk,
}

/// Refuses what may not stand in a target of any form.
pub(super) fn judge_bytes(text: &[u8]) -> Result<(), Refusal> {
    if text.iter().all(u8::is_ascii_graphic) {
        Ok(())
    } else {
        Err(Refusal::bad("the request target holds a control, blank or 8-bit byte: percent-encode it"))
    }
}

/// The text of a request target that is a path and query (RFC 9112 §3.2.1); `None`: it is anything else, or refused,
/// or holds a `\`, which [`Target::parse`] takes in a query only.
pub fn origin_form(text: &[u8]) -> Option<&str> {
    let is_path = text.first() == Some(&b'/') && text.iter().all(|b| b.is_ascii_graphic() && !b"#\\".contains(b));
    std::str::from_utf8(text).ok().filter(|_| is_path)
}

impl Target {
    /// `text` has passed [`judge_bytes`].
    pub(super) fn parse(text: &str, method: &Method) -> Result<Target, Refusal> {
        if text.contains('#') {
            return Err(Refusal::bad("the request target holds a fragment"));
        }
        // Some servers take it for a slash, and what they serve is then not what was asked for here.
        if text.split('?').next().is_some_and(|path| path.contains('\\')) {
            return Err(Refusal::bad("the path of the request target holds a backslash: percent-encode it"));
        }
        if method == Method::CONNECT {
            let authority = Authority::parse(text).filter(|authority| authority.port().is_some_and(|port| port != 0));
            return authority.map(Target::Authority).ok_or(Refusal::bad("the target of CONNECT is not host:port"));
        }
        if text == "*" {
            return if method == Method::OPTIONS {
                Ok(Target::Asterisk)
            } else {
                Err(Refusal::bad("the target * is for OPTIONS only"))
            };
        }
        if text.starts_with('/') {
            return Ok(Target::Origin(text.to_owned()));
        }
        Target::absolute(text, method)
    }

    fn absolute(text: &str, method: &Method) -> Result<Target, Refusal> {
        let (scheme, rest) =
            text.split_once("://").ok_or(Refusal::bad("the request target is neither a path nor an absolute URL"))?;
        let scheme = scheme.to_ascii_lowercase();
        if scheme != "http" && scheme != "https" {
            return Err(Refusal::bad("the scheme of the request target is not http or https"));
        }
        let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path_at);
        let authority = Authority::parse(authority)
            .ok_or(Refusal::bad("the authority of the request target is not a valid host and port"))?;
        let path = match path {
            // The server as a whole (RFC 9112 §3.2.4).
            "" if method == Method::OPTIONS => "*".to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
        Ok(Target::Absolute { scheme, authority, path })
    }

    /// Path and query in origin form; `*` for the asterisk form.
    pub fn path_and_query(&self) -> &str {
        match self {
            Target::Origin(path) | Target::Absolute { path, .. } => path,
            Target::Authority(_) => "",
            Target::Asterisk => "*",
        }
    }
}
