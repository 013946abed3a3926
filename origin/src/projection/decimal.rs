//! Exact decimal numbers: what sums, least and greatest values are kept as (pure).
//!
//! Adding floating-point numbers gives another result in another order, so that two replicas would differ. Adding whole
//! numbers of billionths does not: a sum is the same in whatever order its events arrive, and 0.1 + 0.2 is 0.3.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Number;

/// A number with nine digits behind the point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Decimal(i128);

const DIGITS: usize = 9;
const BILLIONTHS: i128 = 1_000_000_000;
/// Numbers from here on, 2^64, are not taken: sums of fewer than 9 · 10^9 numbers below it can't overflow.
const LIMIT: f64 = 18_446_744_073_709_551_616.0;
/// Up to here, 2^53, a floating-point number that is whole is exactly the number it is written as.
const WHOLE: f64 = 9_007_199_254_740_992.0;

impl Decimal {
    /// The number as it is written (a floating-point number: in its shortest form), rounded to nine digits behind the
    /// point, a half to the even one. `None` from 2^64 on.
    pub fn of(number: &Number) -> Option<Decimal> {
        if let Some(whole) = number.as_i128() {
            return Some(Decimal(whole * BILLIONTHS));
        }
        let float = number.as_f64().filter(|float| float.abs() < LIMIT)?;
        if float.abs() < WHOLE && float.fract() == 0.0 {
            return Some(Decimal(float as i128 * BILLIONTHS));
        }
        // Without an exponent, and with the fewest digits that tell it from every other number.
        let text = float.abs().to_string();
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let kept = fraction.get(..DIGITS).unwrap_or(fraction);
        let dropped = fraction.get(DIGITS..).unwrap_or_default();
        let billionths = format!("{whole}{kept:0<DIGITS$}").parse::<i128>().ok()?;
        let up = match dropped.as_bytes() {
            [] | [b'0'..=b'4', ..] => false,
            [b'5', rest @ ..] if rest.iter().all(|digit| *digit == b'0') => billionths % 2 == 1,
            _ => true,
        };
        let rounded = billionths + i128::from(up);
        Some(Decimal(if float < 0.0 { -rounded } else { rounded }))
    }

    /// Beyond 1.7 · 10^29 sums go round from the greatest to the least: even that is the same in every order.
    pub fn plus(self, other: Decimal) -> Decimal {
        Decimal(self.0.wrapping_add(other.0))
    }
}

/// As JSON has it, with as many digits behind the point as it needs.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (magnitude, scale) = (self.0.unsigned_abs(), BILLIONTHS.unsigned_abs());
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}", magnitude / scale)?;
        match magnitude % scale {
            0 => Ok(()),
            fraction => write!(f, ".{}", format!("{fraction:09}").trim_end_matches('0')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(json: &str) -> Option<String> {
        let number: Number = serde_json::from_str(json).expect("a number");
        Decimal::of(&number).map(|decimal| decimal.to_string())
    }

    #[test]
    fn a_number_is_taken_as_it_is_written() {
        for (json, expected) in [
            ("0", "0"),
            ("-0.0", "0"),
            ("7", "7"),
            ("-7.0", "-7"),
            ("0.1", "0.1"),
            ("-0.25", "-0.25"),
            ("1e3", "1000"),
            ("1.5e-3", "0.0015"),
            ("123456789.123456789", "123456789.12345679"),
            ("0.1234567894", "0.123456789"),
            ("0.1234567896", "0.12345679"),
            ("0.0000000005", "0"),
            ("0.0000000015", "0.000000002"),
            ("-0.0000000015", "-0.000000002"),
            ("0.00000000050001", "0.000000001"),
            ("5e-324", "0"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9007199254740994.0", "9007199254740994"),
            ("10000000000000000000.0", "10000000000000000000"),
        ] {
            assert_eq!(told(json).as_deref(), Some(expected), "{json}");
        }
        for json in ["18446744073709551616", "-1e20", "1e300"] {
            assert_eq!(told(json), None, "{json}");
        }
    }

    #[test]
    fn sums_are_exact_and_go_round() {
        let number = |json: &str| Decimal::of(&serde_json::from_str(json).expect("a number")).expect("taken");
        assert_eq!(number("0.1").plus(number("0.2")), number("0.3"));
        assert_eq!(Decimal(i128::MAX).plus(Decimal(2)).plus(Decimal(-2)), Decimal(i128::MAX));
        assert!(number("-1") < number("0.5") && number("0.5") < number("2"));
    }

    proptest! {
        #[test]
        fn the_order_of_adding_does_not_matter(
            (numbers, again) in prop::collection::vec(any::<f64>().prop_map(|f| f % 1e18), 0..30).prop_flat_map(|list| {
                (Just(list.clone()), Just(list).prop_shuffle())
            }),
        ) {
            let sum = |list: &[f64]| {
                let numbers = list.iter().filter_map(|float| Decimal::of(&Number::from_f64(*float)?));
                numbers.fold(Decimal::default(), Decimal::plus)
            };
            prop_assert_eq!(sum(&numbers), sum(&again));
        }

        /// Rounding moves a number by half a billionth at most, beside what reading it back loses.
        #[test]
        fn a_fraction_is_near_its_decimal(float in -1e5f64..1e5) {
            let decimal = Decimal::of(&Number::from_f64(float).expect("finite")).expect("taken");
            let back: f64 = decimal.to_string().parse().expect("a number");
            prop_assert!((back - float).abs() <= 0.52e-9, "{} became {}", float, decimal);
        }
    }
}
