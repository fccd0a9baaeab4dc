//! Exact decimal numbers, read from the digits of JSON and never by way of a binary fraction.

use rust_decimal::Decimal;

use super::Invalid;

const DIGITS_MAX: usize = 28;
/// 7.9e28: just below what a decimal holds, and a number that can be told.
const MAX: i128 = 79 * 10i128.pow(27);

/// Reads a JSON number (RFC 8259, section 6) exactly, without trailing zeros and without a negative zero.
pub(super) fn parse(raw: &str) -> Result<Decimal, Invalid> {
    let literal = Literal::read(raw).ok_or_else(|| Invalid::new("must be a number"))?;
    literal.exact().ok_or_else(|| {
        Invalid::new(
            "must be a number with at most 28 significant digits, at most 28 of them after the point, and not beyond \
             7.9e28; send it as text to keep it as written",
        )
    })
}

/// The parts of a number as written.
struct Literal<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    exponent: Exponent<'a>,
}

struct Exponent<'a> {
    negative: bool,
    digits: &'a str,
}

impl<'a> Literal<'a> {
    fn read(raw: &'a str) -> Option<Self> {
        let (negative, rest) = strip_minus(raw);
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                let (negative, digits) = strip_minus(exponent);
                let digits = if negative { digits } else { digits.strip_prefix('+').unwrap_or(digits) };
                (mantissa, Exponent { negative, digits: Some(digits).filter(|digits| is_digits(digits))? })
            }
            None => (rest, Exponent { negative: false, digits: "0" }),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction).filter(|fraction| is_digits(fraction))?),
            None => (mantissa, ""),
        };
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        (is_digits(whole) && !leading_zero).then_some(Self { negative, whole, fraction, exponent })
    }

    fn exact(&self) -> Option<Decimal> {
        // Digits and power of ten with all zeros at either end taken off: what is left is significant.
        let digits = format!("{}{}", self.whole, self.fraction);
        let significant = digits.trim_end_matches('0');
        let zeros = digits.len() - significant.len();
        let significant = significant.trim_start_matches('0');
        if significant.is_empty() {
            return Some(Decimal::ZERO);
        }
        if significant.len() > DIGITS_MAX {
            return None;
        }
        let exponent: i64 =
            self.exponent.digits.parse().ok().filter(|exponent| *exponent < i64::from(u32::MAX))?;
        let exponent = if self.exponent.negative { -exponent } else { exponent };
        let power = exponent + i64::try_from(zeros).ok()? - i64::try_from(self.fraction.len()).ok()?;

        let magnitude: i128 = significant.parse().ok()?;
        let signed = if self.negative { -magnitude } else { magnitude };
        match u32::try_from(power) {
            Ok(power) => {
                let whole = signed.checked_mul(10i128.checked_pow(power)?)?;
                if whole.abs() > MAX {
                    return None;
                }
                Decimal::try_from_i128_with_scale(whole, 0).ok()
            }
            Err(_) => {
                let scale = u32::try_from(-power).ok().filter(|scale| *scale <= Decimal::MAX_SCALE)?;
                Decimal::try_from_i128_with_scale(signed, scale).ok()
            }
        }
    }
}

fn strip_minus(text: &str) -> (bool, &str) {
    text.strip_prefix('-').map_or((false, text), |rest| (true, rest))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The stored form: a string, since readers of JSON numbers round.
pub(super) mod stored {
    use std::fmt;

    use rust_decimal::Decimal;
    use serde::de::{self, Visitor};
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(number: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        deserializer.deserialize_str(Digits)
    }

    struct Digits;

    impl Visitor<'_> for Digits {
        type Value = Decimal;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a decimal number in a string")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Decimal, E> {
            Decimal::from_str_exact(text).map_err(|_| E::custom("not a decimal number"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_kept_to_the_last_digit() {
        for (raw, exact) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.000e7", "0"),
            ("0e99999999999999999999", "0"),
            ("3", "3"),
            ("3.50", "3.5"),
            ("-1.25E+2", "-125"),
            ("1e-3", "0.001"),
            ("120e-1", "12"),
            ("0.1", "0.1"),
            ("1e28", "10000000000000000000000000000"),
            ("-7.9e28", "-79000000000000000000000000000"),
            ("1e-28", "0.0000000000000000000000000001"),
            ("9999999999999999999999999999", "9999999999999999999999999999"),
            ("-0.1234567890123456789012345678", "-0.1234567890123456789012345678"),
            ("1.0000000000000000000000000000000000000", "1"),
            ("0.00000000000000000000000000000000001e30", "0.00001"),
        ] {
            assert_eq!(parse(raw).unwrap().to_string(), exact, "{raw}");
        }
    }

    #[test]
    fn a_number_that_would_be_rounded_is_refused() {
        for raw in [
            "1e29",
            "8e28",
            "7.9000000000000001e28",
            "-7.92e28",
            "1e-29",
            "12345678901234567890123456789",
            "0.12345678901234567890123456789",
            "1e400",
        ] {
            assert!(parse(raw).unwrap_err().to_string().contains("28"), "{raw}");
        }
        assert!(parse("1e99999999999999999999").is_err());
        assert!(parse("1e-99999999999999999999").is_err());
    }

    #[test]
    fn what_is_no_json_number_is_refused() {
        for raw in [
            "", "-", "+1", "01", "1.", ".5", "1e", "1e+", "1e+-1", "1e-+1", "NaN", "1_0", " 1", "0x1", "--1",
            "1.-2", "١",
        ] {
            assert_eq!(parse(raw).unwrap_err().to_string(), "must be a number", "{raw}");
        }
    }

    proptest! {
        #[test]
        fn a_number_reads_the_same_again(mantissa in -10i128.pow(28) + 1..10i128.pow(28), scale in 0u32..=28) {
            let number = Decimal::from_i128_with_scale(mantissa, scale);
            let read = parse(&number.to_string()).unwrap();
            prop_assert_eq!(read, number);
            prop_assert_eq!(parse(&read.to_string()).unwrap().to_string(), read.to_string());
            let shifted = format!("{mantissa}e-{scale}");
            prop_assert_eq!(parse(&shifted).unwrap().to_string(), read.to_string());
        }

        #[test]
        fn no_text_makes_it_panic(raw in "[-+0-9.eE]{0,40}|\\PC{0,20}") {
            let _ = parse(&raw);
        }
    }
}
