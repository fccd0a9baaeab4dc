//! Traits: what else there is to know about a user, by name and of one of four types.

use std::fmt;

use chrono::NaiveDate;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::text::{Controls, Word, text, text_value};
use super::{Invalid, number};

text_value! {
    /// `[A-Za-z][A-Za-z0-9_.-]{0,63}`, but not `reason`: beside the traits of a command that member says why.
    plain TraitName, parse_name
}

const NAME: Word = Word {
    first: |byte| byte.is_ascii_alphabetic(),
    rest: |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'),
    length_max: 64,
    rule: "1 to 64 characters from A-Z, a-z, 0-9, _, dot and -, the first a letter",
};

fn parse_name(raw: &str) -> Result<String, Invalid> {
    let name = NAME.parse(raw)?;
    if name == "reason" {
        return Err(Invalid::new(
            "must not be reason: the member reason of a command says why it was given; choose another name",
        ));
    }
    Ok(name)
}

/// A trait's value. The serde form is the stored one, `{"number":"3.5"}`; in the API it is plain JSON, see
/// [`TraitValue::to_json`].
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraitValue {
    /// At most 2000 characters in form C, trimmed; of the control characters only TAB, CR and LF.
    Text(String),
    /// Without trailing zeros; at most 28 significant digits.
    Number(#[serde(with = "number::stored")] Decimal),
    Boolean(bool),
    Date(NaiveDate),
}

impl TraitValue {
    /// A date where the text is exactly an existing one (RFC 3339 full-date, `2026-05-03`), otherwise text.
    ///
    /// # Errors
    /// [`Invalid`] for more than 2000 characters and for control characters other than TAB, CR and LF.
    pub fn parse_text(raw: &str) -> Result<Self, Invalid> {
        let text = text(raw, 0..=2000, Controls::Layout)?;
        Ok(full_date(&text).map_or(Self::Text(text), Self::Date))
    }

    /// The number of a raw JSON number, exactly, exponents included.
    ///
    /// # Errors
    /// [`Invalid`] for what is no JSON number and for a number that would have to be rounded.
    pub fn parse_number(raw: &str) -> Result<Self, Invalid> {
        number::parse(raw).map(Self::Number)
    }

    /// Appends the value as plain JSON: a string, a number with its exact digits, true or false, a date's string.
    pub fn to_json(&self, out: &mut String) {
        use fmt::Write;

        match self {
            Self::Text(text) => out.push_str(&serde_json::to_string(text).expect("a string is JSON")),
            Self::Number(number) => write!(out, "{}", number.normalize()).expect("a string takes any text"),
            Self::Boolean(boolean) => out.push_str(if *boolean { "true" } else { "false" }),
            Self::Date(date) => write!(out, "\"{date}\"").expect("a string takes any text"),
        }
    }
}

impl fmt::Debug for TraitValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<personal>")
    }
}

fn full_date(text: &str) -> Option<NaiveDate> {
    let bytes: &[u8; 10] = text.as_bytes().try_into().ok()?;
    let shaped = bytes.iter().enumerate().all(|(place, byte)| match place {
        4 | 7 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    if !shaped {
        return None;
    }
    NaiveDate::from_ymd_opt(text[..4].parse().ok()?, text[5..7].parse().ok()?, text[8..].parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &TraitValue) -> String {
        let mut out = String::new();
        value.to_json(&mut out);
        out
    }

    #[test]
    fn reason_is_no_name_of_a_trait() {
        let refusal = TraitName::parse("reason").unwrap_err();
        assert!(refusal.to_string().contains("says why"), "{refusal}");
        assert!(TraitName::parse("Reason").is_ok());
    }

    #[test]
    fn only_an_existing_date_is_a_date() {
        for raw in ["2026-01-01", " 2024-02-29\n", "0001-01-01", "9999-12-31"] {
            assert!(matches!(TraitValue::parse_text(raw).unwrap(), TraitValue::Date(_)), "{raw}");
        }
        for raw in [
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-1-1",
            "20260101",
            "2026-01-01T00:00:00Z",
            "+026-01-01",
            "2026-01-1é",
            "-026-01-01",
            "２026-01-",
            "2026/01/01",
            "2026é01-1",
        ] {
            assert!(matches!(TraitValue::parse_text(raw).unwrap(), TraitValue::Text(_)), "{raw}");
        }
    }

    #[test]
    fn text_keeps_tabs_and_line_breaks_but_no_other_control_character() {
        assert_eq!(TraitValue::parse_text(" a\tb\r\nc ").unwrap(), TraitValue::Text("a\tb\r\nc".into()));
        for raw in ["a\0b", "a\u{7f}b", "a\u{85}b", "a\u{1b}b"] {
            assert!(TraitValue::parse_text(raw).is_err(), "{raw:?}");
        }
        assert!(TraitValue::parse_text(&"é".repeat(2000)).is_ok());
        assert!(TraitValue::parse_text(&"é".repeat(2001)).is_err());
        assert_eq!(TraitValue::parse_text("").unwrap(), TraitValue::Text(String::new()));
    }

    #[test]
    fn each_type_has_a_stored_and_a_plain_form() {
        for (value, stored, plain) in [
            (TraitValue::parse_text("R&D \"x\"").unwrap(), r#"{"text":"R&D \"x\""}"#, r#""R&D \"x\"""#),
            (TraitValue::parse_number("3.50").unwrap(), r#"{"number":"3.5"}"#, "3.5"),
            (TraitValue::parse_number("1e2").unwrap(), r#"{"number":"100"}"#, "100"),
            (TraitValue::Boolean(true), r#"{"boolean":true}"#, "true"),
            (TraitValue::parse_text("2026-01-01").unwrap(), r#"{"date":"2026-01-01"}"#, r#""2026-01-01""#),
        ] {
            assert_eq!(serde_json::to_string(&value).unwrap(), stored);
            assert_eq!(serde_json::from_str::<TraitValue>(stored).unwrap(), value);
            assert_eq!(json(&value), plain);
            assert_eq!(format!("{value:?}"), "<personal>");
        }
        assert!(serde_json::from_str::<TraitValue>(r#"{"number":"x"}"#).is_err());
    }
}
