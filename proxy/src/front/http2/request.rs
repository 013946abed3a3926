//! What RFC 9113 §8 and `shared::http1` demand of a request beyond what the `h2` crate has looked at (pure).
//!
//! `h2` has reset streams with names in upper case, fields of the connection, `te` other than `trailers`, repeated or
//! late pseudo-fields, values with control bytes, and bodies that differ from their `content-length`. It cuts a fragment
//! off `:path` without telling.

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use millpond_shared::http1::{
    Authority, Fields, FieldsBuilder, Framing, Limits, Minor, Refusal, RequestHead, Target, request_framing,
};

/// The head as HTTP/1.1 would have brought it, and how its body is framed. `has_body`: the stream goes on behind the
/// head.
pub(super) fn judge(parts: &Parts, has_body: bool) -> Result<(RequestHead, Framing), Refusal> {
    let limits = Limits::default();
    if parts.headers.len() > limits.fields {
        return Err(TOO_MANY_FIELDS);
    }
    let authority = authority(parts)?;
    let target = target(parts, &authority, &limits)?;
    let fields = fields(&parts.headers, &authority)?;
    let framing = match request_framing(&fields, Minor::One)? {
        Framing::None if has_body => Framing::Chunked,
        framing => framing,
    };
    let (method, minor, version) = (parts.method.clone(), Minor::One, "2.0");
    Ok((RequestHead { method, target, authority, minor, version, fields }, framing))
}

const TOO_MANY_FIELDS: Refusal =
    Refusal { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why: "the head has more fields than the limit" };
const PATH_TOO_LONG: Refusal =
    Refusal { status: StatusCode::URI_TOO_LONG, why: "the request target is longer than the limit" };

const fn bad(why: &'static str) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, why }
}

/// `:authority`, or `host` where there is none; both must name the same (§8.3.1).
fn authority(parts: &Parts) -> Result<Authority, Refusal> {
    let told = parts.uri.authority().map(|authority| {
        Authority::parse(authority.as_str()).ok_or(bad("the :authority is not a valid host and port without user-info"))
    });
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|value| {
        let text = std::str::from_utf8(value.as_bytes()).ok();
        text.and_then(Authority::parse).ok_or(bad("the Host field is not a valid host and port"))
    });
    if hosts.next().is_some() {
        return Err(bad("there is more than one Host field"));
    }
    match (told.transpose()?, host.transpose()?) {
        (Some(told), Some(host)) if !is_same(&told, &host, parts.uri.scheme_str()) => {
            Err(bad("the Host field differs from the :authority"))
        }
        (Some(authority), _) | (None, Some(authority)) => Ok(authority),
        (None, None) => Err(bad("there is neither :authority nor Host")),
    }
}

fn is_same(one: &Authority, other: &Authority, scheme: Option<&str>) -> bool {
    let scheme = scheme.unwrap_or_default();
    one.normal(scheme) == other.normal(scheme)
}

fn target(parts: &Parts, authority: &Authority, limits: &Limits) -> Result<Target, Refusal> {
    if parts.method == Method::CONNECT {
        let has_port = authority.port().is_some_and(|port| port != 0);
        return if has_port {
            Ok(Target::Authority(authority.clone()))
        } else {
            Err(bad("the :authority of CONNECT is not host:port"))
        };
    }
    if parts.uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https") {
        return Err(bad("the :scheme is not http or https"));
    }
    let path = parts.uri.path_and_query().map(|path| path.as_str()).unwrap_or_default();
    if path.len() > limits.target_bytes {
        return Err(PATH_TOO_LONG);
    }
    if !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad("the :path holds a control, blank or 8-bit byte: percent-encode it"));
    }
    if path.split('?').next().is_some_and(|path| path.contains('\\')) {
        return Err(bad("the :path holds a backslash: percent-encode it"));
    }
    match path {
        "*" if parts.method == Method::OPTIONS => Ok(Target::Asterisk),
        path if path.starts_with('/') && !path.contains('#') => Ok(Target::Origin(path.to_owned())),
        _ => Err(bad("the :path does not begin with /")),
    }
}

/// The fields in their order, with `Host` in front, and the crumbs of a cookie together again (§8.2.3).
fn fields(headers: &HeaderMap, authority: &Authority) -> Result<Fields, Refusal> {
    let mut fields = FieldsBuilder::new();
    fields.push("host", authority.as_str());
    let mut cookies = headers.get_all(header::COOKIE).iter();
    let mut cookie = cookies.next().map(|first| first.as_bytes().to_vec());
    for crumb in cookies {
        cookie.get_or_insert_default().extend_from_slice(&[b"; ", crumb.as_bytes()].concat());
    }
    for (name, value) in headers {
        let bytes = value.as_bytes();
        if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = bytes {
            return Err(bad("a field value starts or ends with a blank"));
        }
        if name == header::COOKIE {
            // Where the first crumb stood.
            if let Some(cookie) = cookie.take() {
                fields.push(name.as_str(), cookie);
            }
        } else if name != header::HOST {
            fields.push(name.as_str(), bytes);
        }
    }
    Ok(fields.build())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Request, Uri, uri};

    use super::*;

    fn request(method: &str, authority: Option<&str>, path: &str, fields: &[(&str, &str)]) -> Parts {
        let mut uri = uri::Parts::default();
        if let Some(authority) = authority {
            uri.authority = Some(authority.parse().expect("the http crate takes it"));
            uri.scheme = (method != "CONNECT").then(|| "http".parse().expect("a scheme"));
        }
        if !path.is_empty() {
            uri.path_and_query = Some(path.parse().expect("the http crate takes it"));
        }
        let mut request = Request::new(());
        *request.method_mut() = method.parse().expect("a method");
        *request.uri_mut() = Uri::from_parts(uri).expect("a URI");
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            request.headers_mut().append(name, HeaderValue::from_str(value).expect("a value"));
        }
        request.into_parts().0
    }

    #[test]
    fn a_request_becomes_the_head_that_http_1_would_have_brought() {
        let fields =
            [("cookie", "a=1"), ("x-twice", "1"), ("cookie", "b=2"), ("x-twice", "2"), ("host", "EXAMPLE.com")];
        let (head, framing) = judge(&request("GET", Some("example.com:80"), "/a?b", &fields), false).expect("good");
        assert_eq!(head.target, Target::Origin("/a?b".to_owned()));
        assert_eq!((head.authority.as_str(), framing), ("example.com:80", Framing::None));
        let fields: Vec<(&str, &[u8])> = head.fields.iter().collect();
        let expected: [(&str, &[u8]); 4] =
            [("host", b"example.com:80"), ("cookie", b"a=1; b=2"), ("x-twice", b"1"), ("x-twice", b"2")];
        assert_eq!(fields, expected);
    }

    #[test]
    fn the_body_is_framed_as_it_is_told() {
        let framing = |fields: &[(&str, &str)], has_body| {
            judge(&request("POST", Some("a"), "/", fields), has_body).map(|(_, framing)| framing)
        };
        assert_eq!(framing(&[], false), Ok(Framing::None));
        assert_eq!(framing(&[], true), Ok(Framing::Chunked));
        assert_eq!(framing(&[("content-length", "7")], true), Ok(Framing::Length(7)));
        assert_eq!(framing(&[("content-length", "0")], false), Ok(Framing::Length(0)));
        assert!(framing(&[("content-length", "7"), ("content-length", "7")], true).is_err());
        assert!(framing(&[("content-length", "+7")], true).is_err());
    }

    #[test]
    fn targets_other_than_paths() {
        let (head, _) = judge(&request("OPTIONS", Some("a"), "*", &[]), false).expect("good");
        assert_eq!(head.target, Target::Asterisk);
        let (head, _) = judge(&request("CONNECT", Some("a:443"), "", &[]), false).expect("good");
        assert!(matches!(head.target, Target::Authority(_)));
        let (head, _) = judge(&request("GET", None, "/", &[("host", "a")]), false).expect("good");
        assert_eq!(head.authority.as_str(), "a");
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        /// Method, authority, path, fields, and what is told of them.
        type Case =
            (&'static str, Option<&'static str>, &'static str, &'static [(&'static str, &'static str)], &'static str);
        let cases: [Case; 11] = [
            ("GET", Some("user@a"), "/", &[], ":authority"),
            ("GET", Some("a"), "/", &[("host", "b")], "differs"),
            ("GET", Some("a"), "/", &[("host", "a:8080")], "differs"),
            ("GET", None, "/", &[], "neither"),
            ("GET", None, "/", &[("host", "a"), ("host", "a")], "more than one Host"),
            ("GET", None, "/", &[("host", "a b")], "Host field is not"),
            ("GET", Some("a"), "*", &[], "begin with /"),
            ("GET", Some("a"), "/\u{e4}", &[], "8-bit"),
            ("GET", Some("a"), "/", &[("x", " b")], "blank"),
            ("GET", Some("a"), "/", &[("x", "b\t")], "blank"),
            ("CONNECT", Some("a"), "", &[], "host:port"),
        ];
        for (method, authority, path, fields, why) in cases {
            let refusal = judge(&request(method, authority, path, fields), false).expect_err(why);
            assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
            assert!(refusal.why.contains(why), "{} for {method} {authority:?} {path} {fields:?}", refusal.why);
        }
    }

    #[test]
    fn what_is_too_large_is_told_apart() {
        let path = format!("/{}", "a".repeat(8 * 1024));
        let refusal = judge(&request("GET", Some("a"), &path, &[]), false).expect_err("too long");
        assert_eq!(refusal.status, StatusCode::URI_TOO_LONG);
        let fields = vec![("x", "1"); 129];
        let refusal = judge(&request("GET", Some("a"), "/", &fields), false).expect_err("too many");
        assert_eq!(refusal.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
}
