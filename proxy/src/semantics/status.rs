//! What a status code implies for caching (RFC 9110 §15, RFC 9111 §3).

use http::StatusCode;

/// Whether the response may be given a lifetime that the origin did not state (RFC 9110 §15.1). 206 is on that list
/// too, but partial responses are not stored here.
pub(super) fn heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Whether all caching behaviour specified for the status is implemented here, which `must-understand` asks for
/// (RFC 9111 §3, §5.2.2.3): the final codes of RFC 9110 that are answers on their own.
pub(super) fn understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 307 | 308 | 400..=406 | 408..=415 | 417 | 421 | 422 | 426 | 500..=505
    )
}

/// Whether the status allows storing at all. Interim answers are not final; 206 and 304 need a cache that keeps
/// parts; above 599 a code has no meaning (RFC 9110 §15).
pub(super) fn storable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..=599) && !matches!(status.as_u16(), 206 | 304)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(holds: fn(StatusCode) -> bool) -> Vec<u16> {
        let codes = (100..1000).filter_map(|code| StatusCode::from_u16(code).ok());
        codes.filter(|status| holds(*status)).map(|status| status.as_u16()).collect()
    }

    #[test]
    fn heuristically_cacheable_is_the_list_of_rfc_9110() {
        assert_eq!(all(heuristically_cacheable), [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501]);
    }

    #[test]
    fn what_is_understood_is_storable_and_registered() {
        for code in all(understood) {
            let status = StatusCode::from_u16(code).expect("a status");
            assert!(storable(status) && status.canonical_reason().is_some(), "{code}");
        }
        for code in [100, 103, 206, 299, 304, 305, 306, 407, 416, 418, 499, 599, 600, 999] {
            assert!(!all(understood).contains(&code), "{code}");
        }
    }

    #[test]
    fn storable_is_final_and_whole() {
        let codes = all(storable);
        assert_eq!((codes.first(), codes.last(), codes.len()), (Some(&200), Some(&599), 398));
        assert!(!codes.contains(&206) && !codes.contains(&304));
    }
}
