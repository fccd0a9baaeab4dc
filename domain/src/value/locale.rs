//! Locales.

use isolang::Language;
use oxilangtag::LanguageTag;

use super::Invalid;
use super::text::text_value;

text_value! {
    /// A BCP 47 language tag in its canonical case, well-formed and with a primary language that ISO 639 knows; at
    /// most 100 characters (RFC 5646, section 4.4, asks for 35).
    personal Locale, parse
}

fn parse(raw: &str) -> Result<String, Invalid> {
    let raw = raw.trim();
    let tag = (raw.len() <= 100).then(|| LanguageTag::parse_and_normalize(raw).ok()).flatten();
    let tag = tag.ok_or_else(|| Invalid::new("must be a BCP 47 language tag, for example en or de-AT"))?;
    if !is_known(tag.primary_language()) {
        return Err(Invalid::new("must begin with the ISO 639 code of a language, for example en or de"));
    }
    Ok(tag.into_inner())
}

fn is_known(language: &str) -> bool {
    match language.len() {
        2 => Language::from_639_1(language).is_some(),
        // ISO 639-3's codes for special situations name no language.
        3 => !matches!(language, "mis" | "mul" | "und" | "zxx") && Language::from_639_3(language).is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_gets_its_canonical_case() {
        for (raw, canonical) in [
            (" EN-gb ", "en-GB"),
            ("zh-hant-tw", "zh-Hant-TW"),
            ("gsw", "gsw"),
            ("sr-latn", "sr-Latn"),
            ("deu", "deu"),
        ] {
            assert_eq!(Locale::parse(raw).unwrap().as_str(), canonical);
        }
    }

    #[test]
    fn what_names_no_language_is_refused() {
        let long = format!("en-x-{}", "a-".repeat(60));
        for raw in [
            "",
            "e",
            "xx",
            "qqq",
            "und",
            "x-private",
            "en_GB",
            "en--GB",
            "english",
            "en-",
            "i-klingon",
            "дe",
            &long,
        ] {
            assert!(Locale::parse(raw).is_err(), "{raw}");
        }
    }
}
