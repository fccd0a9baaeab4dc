//! The laws that hold for every value.

use proptest::prelude::*;
use unicode_normalization::is_nfc;

use super::*;

type Parse = fn(&str) -> Result<String, Invalid>;

/// Every parser of text, with an example of what it takes.
const PARSERS: [(&str, &str, Parse); 18] = [
    ("Email", "ada@example.com", |raw| Email::parse(raw).map(Email::into_string)),
    ("Name", "Ada", |raw| Name::parse(raw).map(Name::into_string)),
    ("Phone", "+4930123456", |raw| Phone::parse(raw).map(Phone::into_string)),
    ("FormattedAddress", "1 Road\nTown", |raw| {
        FormattedAddress::parse(raw).map(FormattedAddress::into_string)
    }),
    ("StreetAddress", "1 Road", |raw| StreetAddress::parse(raw).map(StreetAddress::into_string)),
    ("AddressPart", "Town", |raw| AddressPart::parse(raw).map(AddressPart::into_string)),
    ("Locale", "en-GB", |raw| Locale::parse(raw).map(Locale::into_string)),
    ("TimeZone", "Europe/London", |raw| TimeZone::parse(raw).map(TimeZone::into_string)),
    ("TraitName", "department", |raw| TraitName::parse(raw).map(TraitName::into_string)),
    ("AssociationKind", "membership", |raw| AssociationKind::parse(raw).map(AssociationKind::into_string)),
    ("AssociationKey", "gold", |raw| AssociationKey::parse(raw).map(AssociationKey::into_string)),
    ("Category", "newsletter", |raw| Category::parse(raw).map(Category::into_string)),
    ("Source", "hr", |raw| Source::parse(raw).map(Source::into_string)),
    ("ExternalId", "E0001", |raw| ExternalId::parse(raw).map(ExternalId::into_string)),
    ("PolicySlug", "privacy", |raw| PolicySlug::parse(raw).map(PolicySlug::into_string)),
    ("PolicyVersion", "2026-01", |raw| PolicyVersion::parse(raw).map(PolicyVersion::into_string)),
    ("Reason", "asked to", |raw| Reason::parse(raw).map(Reason::into_string)),
    ("TraitValue", "some text", |raw| {
        TraitValue::parse_text(raw).map(|value| match value {
            TraitValue::Text(text) => text,
            TraitValue::Date(date) => date.to_string(),
            TraitValue::Number(_) | TraitValue::Boolean(_) => unreachable!("text is no number"),
        })
    }),
];

#[test]
fn every_value_is_trimmed() {
    for (name, example, parse) in PARSERS {
        assert_eq!(parse(&format!("\u{2003}\t {example}\n ")).as_deref(), Ok(example), "{name}");
    }
}

#[test]
fn no_value_holds_a_control_character() {
    for (name, example, parse) in PARSERS {
        let (head, tail) = example.split_at(1);
        for control in ['\0', '\u{1}', '\u{1b}', '\u{7f}', '\u{85}', '\u{9f}'] {
            assert!(parse(&format!("{head}{control}{tail}")).is_err(), "{name} {control:?}");
        }
    }
}

#[test]
fn a_value_that_says_nothing_is_refused() {
    for (name, _, parse) in PARSERS.iter().filter(|(name, _, _)| *name != "TraitValue") {
        assert!(parse("").is_err(), "{name}");
        assert!(parse("  \u{a0}").is_err(), "{name}");
    }
}

#[test]
fn lengths_count_characters_after_composition() {
    let composed = "é".repeat(200);
    assert_eq!(Name::parse(&"e\u{301}".repeat(200)).unwrap().as_str(), composed);
    assert!(Name::parse(&"é".repeat(201)).is_err());
    assert!(Reason::parse(&"a".repeat(500)).is_ok());
    assert_eq!(
        Reason::parse(&"a".repeat(501)).unwrap_err().to_string(),
        "must be between 1 and 500 characters"
    );
    assert!(FormattedAddress::parse(&"a".repeat(1000)).is_ok());
    assert!(FormattedAddress::parse(&"a".repeat(1001)).is_err());
}

#[test]
fn names_of_any_script_and_emoji_are_kept() {
    for name in ["محمد علي", "Ђорђе", "山田 太郎", "👩‍💻 Ada", "Нино\u{301}", "N'Golo"]
    {
        assert_eq!(Name::parse(name).unwrap().as_str(), name);
    }
}

#[test]
fn a_phone_number_is_e164() {
    for number in ["+12", "+4930123456", "+123456789012345"] {
        assert!(Phone::parse(number).is_ok(), "{number}");
    }
    for number in ["+1", "+0123", "123", "00491", "+1234567890123456", "+49 30 1", "+49-30", "+4٩30"] {
        assert!(Phone::parse(number).is_err(), "{number}");
    }
}

#[test]
fn words_keep_to_their_alphabet_and_length() {
    let sixty_four = "a".repeat(64);
    for raw in ["A", "_a", "-a", "a.b", "ä", "a b", &sixty_four] {
        assert!(Category::parse(raw).is_err(), "{raw}");
        assert!(Source::parse(raw).is_err(), "{raw}");
        assert!(AssociationKind::parse(raw).is_err(), "{raw}");
        assert!(PolicySlug::parse(raw).is_err(), "{raw}");
    }
    assert!(Category::parse("0a_-").is_ok());
    assert!(AssociationKind::parse("0a").is_err());
    assert!(PolicySlug::parse("a_b").is_err());
    assert!(PolicyVersion::parse(".v1_A-").is_ok());
    assert!(PolicyVersion::parse(&"a".repeat(65)).is_err());
    assert!(TraitName::parse(&sixty_four).is_ok());
    assert!(TraitName::parse(&"a".repeat(65)).is_err());
    assert!(TraitName::parse("1a").is_err());
    assert!(TraitName::parse("a.b-c_D9").is_ok());
}

#[test]
fn stored_values_are_trusted() {
    // What an older, looser rule let in stays readable.
    assert_eq!(serde_json::from_str::<Phone>("\"call me\"").unwrap().as_str(), "call me");
    assert_eq!(serde_json::to_string(&Name::parse("Ada").unwrap()).unwrap(), "\"Ada\"");
}

#[test]
fn personal_values_do_not_print() {
    assert_eq!(format!("{:?}", Email::parse("ada@example.com").unwrap()), "<personal>");
    assert_eq!(format!("{:?}", Category::parse("news").unwrap()), "\"news\"");
}

proptest! {
    #[test]
    fn any_text_parses_to_a_fixed_point_or_is_refused(
        raw in prop_oneof![any::<String>(), "\\PC{0,40}", "[a-zA-Z0-9@.+_/-]{0,40}", "[ \t\r\n]*.{0,20}[ \t\r\n]*"]
    ) {
        for (name, _, parse) in PARSERS {
            match parse(&raw) {
                Ok(parsed) => {
                    prop_assert!(is_nfc(&parsed), "{} is not in form C", name);
                    prop_assert_eq!(parsed.trim(), &parsed);
                    let again = parse(&parsed);
                    prop_assert_eq!(again.as_deref(), Ok(parsed.as_str()), "{} is not stable", name);
                }
                Err(refusal) => {
                    let told = refusal.to_string();
                    prop_assert!(raw.trim().len() < 8 || !told.contains(raw.trim()), "{} echoes the value", name);
                }
            }
        }
        let _ = TraitValue::parse_number(&raw);
        let _ = UserId::parse(&raw);
    }

    #[test]
    fn any_email_parses_to_a_fixed_point(
        local in "[\\PC&&[^@. ]]{1,12}", domain in "[\\p{L}\\p{N}]{1,10}\\.[\\p{L}]{2,6}"
    ) {
        if let Ok(email) = Email::parse(&format!("{local}@{domain}")) {
            prop_assert!(is_nfc(email.as_str()));
            let again = Email::parse(email.as_str()).unwrap();
            prop_assert_eq!(again.as_str(), email.as_str());
        }
    }

    #[test]
    fn composed_and_decomposed_text_are_one_value(name in "[\\p{L}\\p{M} ]{1,50}") {
        use unicode_normalization::UnicodeNormalization;

        let decomposed: String = name.nfd().collect();
        prop_assert_eq!(Name::parse(&name), Name::parse(&decomposed));
    }
}
