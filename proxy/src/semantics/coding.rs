//! Content codings that the cache itself puts on a response: which of them a request accepts (RFC 9110 §12.5.3), which
//! responses may have one, and the entity tag that each form of a response has (§8.8.3.3).

use http::StatusCode;
use millpond_shared::http1::Fields;

use super::cache_control;
use super::list::{self, Quoted};
use super::negotiation::thousandths;

/// A coding that is put on here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878, RFC 9659.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

/// How many codings there are.
pub const CODINGS: usize = Coding::ALL.len();

impl Coding {
    pub const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    /// Its name in `Content-Encoding` and `Accept-Encoding`.
    pub fn token(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }

    /// The coding of this name, in any case; `x-gzip` is an older one of gzip (RFC 9110 §8.4.1.3).
    pub fn named(name: &[u8]) -> Option<Coding> {
        let is = |coding: &Coding| name.eq_ignore_ascii_case(coding.token().as_bytes());
        let older = || name.eq_ignore_ascii_case(b"x-gzip").then_some(Coding::Gzip);
        Coding::ALL.into_iter().find(is).or_else(older)
    }

    /// The entity tag of a response in this coding, where `plain` is that of the response without one: another, since
    /// the bytes are others. A weak one stays weak. `"a"` → `"a-gzip"`
    pub fn tag(self, plain: &[u8]) -> Vec<u8> {
        let (start, end) = cut(plain);
        [start, b"-", self.token().as_bytes(), end].concat()
    }

    /// Whether `tag` is [`Coding::tag`] of `plain`.
    pub fn is_tag(self, plain: &[u8], tag: &[u8]) -> bool {
        let (start, end) = cut(plain);
        let token = tag.strip_prefix(start).and_then(|rest| rest.strip_prefix(b"-")?.strip_suffix(end));
        token == Some(self.token().as_bytes())
    }

    /// The tag that this one was made of by [`Coding::tag`]: if not, `None`.
    fn plain_of(self, tag: &[u8]) -> Option<Vec<u8>> {
        let (start, end) = cut(tag);
        let plain = start.strip_suffix(self.token().as_bytes())?.strip_suffix(b"-")?;
        Some([plain, end].concat())
    }

    /// Its place among all codings.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// An entity tag before its closing quote, and that quote, if it has one.
fn cut(tag: &[u8]) -> (&[u8], &[u8]) {
    match tag.split_last() {
        Some((b'"', start)) if start.contains(&b'"') => (start, b"\""),
        _ => (tag, b""),
    }
}

/// A line of `If-Match` for an origin that knows none of our codings: behind every tag of a form stands the origin's own,
/// so that what is changed on condition of a form is changed on condition of what it was made of.
pub fn with_plain_tags(line: &[u8]) -> Vec<u8> {
    let mut tags = Vec::new();
    for tag in list::members(line, Quoted::Tags) {
        tags.push(tag.to_vec());
        tags.extend(Coding::ALL.into_iter().find_map(|coding| coding.plain_of(tag)));
    }
    tags.join(&b", "[..])
}

/// What a request says of codings: weights in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// By the place of each coding; 0 for what is not accepted.
    weights: [u16; CODINGS],
    /// `None`: nothing is said of it, so that it is accepted, and anything else that is accepted is better.
    identity: Option<u16>,
}

impl Accepted {
    /// A request without the field accepts anything (§12.5.3), but a client that does not ask for a coding is likely not
    /// to know any: it gets none. A member that is malformed says nothing; of two about the same, the lesser weight counts.
    pub fn of(request: &Fields) -> Accepted {
        let (mut listed, mut identity, mut others) = ([None; CODINGS], None, None);
        let members = request.get_all("accept-encoding").flat_map(|line| list::members(line, Quoted::Strings));
        for (name, weight) in members.filter_map(member) {
            let place = if name == b"*" {
                &mut others
            } else if name.eq_ignore_ascii_case(b"identity") {
                &mut identity
            } else {
                let place = Coding::named(name).and_then(|coding| listed.get_mut(coding.index()));
                let Some(place) = place else { continue };
                place
            };
            *place = Some(place.map_or(weight, |before: u16| before.min(weight)));
        }
        let weights = listed.map(|weight| weight.or(others).unwrap_or(0));
        Accepted { weights, identity: identity.or(others) }
    }

    /// The codings of `offered` that serve the client better than none, or as well: by its weights, and among equals in
    /// the order in which they are offered. A client that takes none of them gets the response without a coding, also
    /// where it refuses that: the alternative would be to refuse the request (§12.5.3).
    pub fn preferred(&self, offered: &[Coding]) -> impl Iterator<Item = Coding> + use<> {
        let least = self.identity.unwrap_or(0).max(1);
        let mut chosen: [Option<(u16, Coding)>; CODINGS] = [None; CODINGS];
        for coding in offered {
            let weight = self.weights.get(coding.index()).copied().unwrap_or(0);
            let place = chosen.iter().position(|other| other.is_none_or(|(better, _)| better < weight));
            if let Some(place) = place.filter(|_| weight >= least)
                && let Some(rest) = chosen.get_mut(place..)
            {
                rest.rotate_right(1);
                rest.iter_mut().take(1).for_each(|first| *first = Some((weight, *coding)));
            }
        }
        chosen.into_iter().flatten().map(|(_, coding)| coding)
    }
}

/// `codings [ weight ]`: the name, and the weight in thousandths.
fn member(member: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = member.split(|&b| b == b';').map(list::trim);
    let name = parts.next()?;
    let weight = match parts.next() {
        None => 1000,
        Some([b'q' | b'Q', b'=', value @ ..]) => thousandths(std::str::from_utf8(value).ok()?)?,
        Some(_) => return None,
    };
    parts.next().is_none().then_some((name, weight))
}

/// Whether a response with these fields may be sent in a coding of ours: it has content, all of it, in no coding yet, and
/// `no-transform` does not forbid it (RFC 9111 §5.2.2.6, RFC 9110 §7.7).
pub fn may_be_coded(status: StatusCode, response: &Fields) -> bool {
    let has_content = !status.is_informational() && !matches!(status.as_u16(), 204 | 205 | 206 | 304);
    has_content
        && !is_coded(response)
        && !response.contains("content-range")
        && !cache_control::forbids_transforming(response)
}

/// Whether a response came in a coding.
pub fn is_coded(response: &Fields) -> bool {
    let members = response.get_all("content-encoding").flat_map(|line| list::members(line, Quoted::Strings));
    // `identity` is reserved for `Accept-Encoding`, but seen here as well (RFC 9110 §8.4.1).
    let mut codings = members.filter(|name| !name.eq_ignore_ascii_case(b"identity"));
    codings.next().is_some()
}

/// Whether a field of a response is no longer true once a coding is put on: it tells of the bytes as they were, or
/// that parts of these may be had.
pub fn is_lost(name: &str) -> bool {
    let lost = ["content-encoding", "content-digest", "content-md5", "repr-digest", "digest", "accept-ranges"];
    lost.iter().any(|lost| name.eq_ignore_ascii_case(lost))
}

#[cfg(test)]
mod tests {
    use super::super::sample::fields;
    use super::*;
    use Coding::{Brotli, Gzip, Zstd};

    fn preferred(lines: &str, offered: &[Coding]) -> Vec<Coding> {
        Accepted::of(&fields(lines)).preferred(offered).collect()
    }

    #[test]
    fn what_a_request_accepts() {
        for (lines, expected) in [
            // Nothing is asked for.
            ("", &[][..]),
            ("Accept-Encoding:", &[]),
            ("Accept-Encoding: identity", &[]),
            ("Accept-Encoding: deflate, compress", &[]),
            // By our order where the weights are equal, by the weights where they are not.
            ("Accept-Encoding: gzip, br, zstd", &[Zstd, Brotli, Gzip]),
            ("Accept-Encoding: GZip,deflate , BR", &[Brotli, Gzip]),
            ("Accept-Encoding: gzip\nAccept-Encoding: br", &[Brotli, Gzip]),
            ("Accept-Encoding: zstd;q=0.8, br;q=0.9, gzip", &[Gzip, Brotli, Zstd]),
            ("Accept-Encoding: zstd;q=0.8, br;q=0.9, gzip ; q=0.8", &[Brotli, Zstd, Gzip]),
            ("Accept-Encoding: br;q=0.001, zstd;Q=0.002", &[Zstd, Brotli]),
            ("Accept-Encoding: x-gzip", &[Gzip]),
            // Weights of nothing.
            ("Accept-Encoding: gzip;q=0", &[]),
            ("Accept-Encoding: gzip;q=0.000, br", &[Brotli]),
            ("Accept-Encoding: gzip, gzip;q=0", &[]),
            // The identity.
            ("Accept-Encoding: identity;q=0", &[]),
            ("Accept-Encoding: gzip, identity;q=0", &[Gzip]),
            ("Accept-Encoding: gzip;q=0.5, identity", &[]),
            ("Accept-Encoding: gzip;q=0.5, br, identity;q=0.7", &[Brotli]),
            ("Accept-Encoding: gzip;q=0.5, identity;q=0.5", &[Gzip]),
            ("Accept-Encoding: identity;q=0.1, identity;q=0", &[]),
            // All others.
            ("Accept-Encoding: *", &[Zstd, Brotli, Gzip]),
            ("Accept-Encoding: *;q=0", &[]),
            ("Accept-Encoding: gzip, *;q=0", &[Gzip]),
            ("Accept-Encoding: gzip, *;q=0, identity", &[Gzip]),
            ("Accept-Encoding: gzip;q=0.2, *;q=0.5", &[Zstd, Brotli]),
            ("Accept-Encoding: gzip;q=0, *", &[Zstd, Brotli]),
            ("Accept-Encoding: identity;q=0, *", &[Zstd, Brotli, Gzip]),
            // What is malformed says nothing.
            ("Accept-Encoding: gzip;q=2, br", &[Brotli]),
            ("Accept-Encoding: gzip;q=0.1234", &[]),
            ("Accept-Encoding: gzip;q=", &[]),
            ("Accept-Encoding: gzip;q=-1, zstd;q=1.0", &[Zstd]),
            ("Accept-Encoding: gzip;level=9", &[]),
            ("Accept-Encoding: gzip;q=1;q=1", &[]),
            ("Accept-Encoding: gzip q=1", &[]),
            ("Accept-Encoding: \"gzip\", ,br,", &[Brotli]),
            ("Accept-Encoding: identity;q=x, gzip;q=0.1", &[Gzip]),
        ] {
            assert_eq!(preferred(lines, &[Zstd, Brotli, Gzip]), expected, "{lines}");
        }
    }

    #[test]
    fn only_what_is_offered_is_chosen_and_in_that_order() {
        let all = "Accept-Encoding: zstd, br, gzip";
        assert_eq!(preferred(all, &[Gzip, Brotli]), [Gzip, Brotli]);
        assert_eq!(preferred(all, &[Brotli]), [Brotli]);
        assert_eq!(preferred(all, &[]), []);
        assert_eq!(preferred("Accept-Encoding: br;q=0.5, gzip", &[Brotli, Gzip]), [Gzip, Brotli]);
    }

    #[test]
    fn tags_are_told_apart_by_coding() {
        for (plain, in_gzip) in [
            ("\"a\"", "\"a-gzip\""),
            ("W/\"a\"", "W/\"a-gzip\""),
            ("\"\"", "\"-gzip\""),
            ("a", "a-gzip"),
            ("\"", "\"-gzip"),
        ] {
            assert_eq!(String::from_utf8_lossy(&Gzip.tag(plain.as_bytes())), in_gzip);
            assert!(Gzip.is_tag(plain.as_bytes(), in_gzip.as_bytes()), "{plain}");
            for other in [plain, "", "\"", "\"a-br\"", "\"a-gzip", "\"-gzip-gzip\"", "\"ab-gzip\"", "-gzip\""] {
                let is = other == in_gzip;
                assert_eq!(Gzip.is_tag(plain.as_bytes(), other.as_bytes()), is, "{plain} {other}");
            }
            assert!(!Brotli.is_tag(plain.as_bytes(), in_gzip.as_bytes()), "{plain}");
        }
    }

    #[test]
    fn origins_are_told_their_own_tags() {
        for (line, expected) in [
            ("\"a\"", "\"a\""),
            ("*", "*"),
            ("\"a-gzip\"", "\"a-gzip\", \"a\""),
            ("\"a,b-br\" ,\"c\",W/\"d-zstd\"", "\"a,b-br\", \"a,b\", \"c\", W/\"d-zstd\", W/\"d\""),
            ("\"gzip\", \"a-deflate\"", "\"gzip\", \"a-deflate\""),
            ("\"-br\"", "\"-br\", \"\""),
        ] {
            assert_eq!(String::from_utf8_lossy(&with_plain_tags(line.as_bytes())), expected, "{line}");
        }
    }

    #[test]
    fn which_responses_may_be_coded() {
        for (status, lines, expected) in [
            (200, "", true),
            (404, "ETag: \"a\"", true),
            (200, "Content-Encoding: identity", true),
            (200, "Content-Encoding: gzip", false),
            (200, "Content-Encoding: unknown", false),
            (200, "Content-Encoding:\nContent-Encoding: identity, br", false),
            (200, "Cache-Control: public, No-Transform", false),
            (200, "Cache-Control: x=\"no-transform\"", true),
            (200, "Cache-Control: public\nCDN-Cache-Control: max-age=5, no-transform", false),
            (200, "Cache-Control: no-transform\nCDN-Cache-Control: max-age=5", false),
            (200, "Content-Range: bytes 0-1/2", false),
            (206, "", false),
            (204, "", false),
            (205, "", false),
            (304, "", false),
            (103, "", false),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(may_be_coded(status, &fields(lines)), expected, "{status} {lines}");
        }
    }
}
