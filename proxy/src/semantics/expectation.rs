//! What a request expects before it goes on (RFC 9110 §10.1.1).

use millpond_shared::http1::Fields;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    None,
    /// `100-continue`: leave to send the body.
    Continue,
    /// Something that nobody has defined: answered 417.
    Unknown,
}

impl Expectation {
    pub fn of(fields: &Fields) -> Expectation {
        let mut expectation = Expectation::None;
        for line in fields.get_all("expect") {
            if !line.eq_ignore_ascii_case(b"100-continue") {
                return Expectation::Unknown;
            }
            expectation = Expectation::Continue;
        }
        expectation
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::fields;
    use super::*;

    #[test]
    fn one_expectation_is_known() {
        for (lines, expected) in [
            ("", Expectation::None),
            ("Expect: 100-continue", Expectation::Continue),
            ("expect: 100-CONTINUE", Expectation::Continue),
            ("Expect: 100-continue\nExpect: 100-continue", Expectation::Continue),
            ("Expect: 100-continue\nExpect: x", Expectation::Unknown),
            ("Expect: 100-continue, x", Expectation::Unknown),
            ("Expect: 200-ok", Expectation::Unknown),
            ("Expect:", Expectation::Unknown),
        ] {
            assert_eq!(Expectation::of(&fields(lines)), expected, "{lines}");
        }
    }
}
