//! Email addresses.

use super::Invalid;
use super::text::{nfc, text_value};

text_value! {
    /// One address (RFC 5321 Mailbox with a Dot-string, internationalised by RFC 6531), stored in lower case.
    ///
    /// Octets: local part 1 to 64, domain up to 255, both with `@` up to 254. No quoted local part, no comment, no
    /// display name, no address literal; a domain has two labels or more.
    personal Email, parse
}

const OCTETS_MAX: usize = 254;
const LOCAL_OCTETS_MAX: usize = 64;
const DOMAIN_OCTETS_MAX: usize = 255;
const LABEL_OCTETS_MAX: usize = 63;

fn parse(raw: &str) -> Result<String, Invalid> {
    // Normal form again after lowering: lowering a composed letter may yield a decomposed one.
    let address = nfc(&nfc(raw.trim()).to_lowercase()).into_owned();
    if address.chars().any(char::is_control) {
        return Err(Invalid::new("must not contain control characters such as tabs or line breaks"));
    }
    if address.len() > OCTETS_MAX {
        return Err(Invalid::new("must be at most 254 octets long"));
    }
    let (local, domain) = address
        .split_once('@')
        .filter(|(_, domain)| !domain.contains('@'))
        .ok_or_else(|| Invalid::new("must be one email address with one @, for example ada@example.com"))?;
    check_local(local)?;
    check_domain(domain)?;
    Ok(address)
}

fn check_local(local: &str) -> Result<(), Invalid> {
    if local.is_empty() || local.len() > LOCAL_OCTETS_MAX {
        return Err(Invalid::new("must have between 1 and 64 octets before the @"));
    }
    if local.split('.').any(str::is_empty) {
        return Err(Invalid::new("must not begin or end with a dot, or have two in a row, before the @"));
    }
    if !local.chars().all(|character| character == '.' || is_atext(character)) {
        return Err(Invalid::new(
            "must have only letters, digits, dots and !#$%&'*+-/=?^_`{|}~ before the @",
        ));
    }
    Ok(())
}

fn check_domain(domain: &str) -> Result<(), Invalid> {
    let labels: Vec<&str> = domain.split('.').collect();
    let top_level = labels.last().copied().unwrap_or_default();
    if labels.len() < 2 || domain.len() > DOMAIN_OCTETS_MAX || !labels.iter().all(|label| is_label(label)) {
        return Err(Invalid::new(
            "must have a domain name after the @: labels of 1 to 63 letters, digits and inner hyphens, joined by dots",
        ));
    }
    // No top-level domain is a number (RFC 3696, section 2), so this would be an IP address.
    if top_level.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Invalid::new("must have a domain name after the @, not an IP address"));
    }
    Ok(())
}

/// RFC 5322 atext, and RFC 6531's non-ASCII characters as far as a reader can see them.
fn is_atext(character: char) -> bool {
    character.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(character)
        || (!character.is_ascii() && !character.is_whitespace() && !is_invisible(character))
}

/// Two addresses must not look the same and differ in a character that has no shape.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_OCTETS_MAX).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.chars().all(|character| match character {
            '-' => true,
            character if character.is_ascii() => character.is_ascii_alphanumeric(),
            // The joiners and the middle dots are part of words in some scripts (RFC 5892, appendix A).
            '\u{200c}' | '\u{200d}' | '\u{b7}' | '\u{30fb}' => true,
            character => {
                character.is_alphanumeric() || unicode_normalization::char::is_combining_mark(character)
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_trimmed_and_lowered() {
        assert_eq!(
            Email::parse("\u{3000}Ada.Lovelace+x@Example.COM\n").unwrap().as_str(),
            "ada.lovelace+x@example.com"
        );
        assert_eq!(Email::parse("JOSE\u{301}@EXAMPLE.ORG").unwrap().as_str(), "josé@example.org");
    }

    #[test]
    fn the_usual_and_the_rare_are_accepted() {
        let longest_local = format!("{}@example.com", "a".repeat(64));
        let longest_label = format!("a@{}.com", "a".repeat(63));
        for address in [
            "a@b.co",
            "o'brien@example.ie",
            "!#$%&'*+-/=?^_`{|}~@example.com",
            "用户@例子.广告",
            "δοκιμή@παράδειγμα.δοκιμή",
            "उपयोगकर्ता@उदाहरण.कॉम",
            "x@xn--bcher-kva.example",
            "x@a-b.c1.example",
            &longest_local,
            &longest_label,
        ] {
            assert!(Email::parse(address).is_ok(), "{address}");
        }
    }

    #[test]
    fn what_is_no_single_address_is_refused() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        let long_label = format!("a@{}.com", "a".repeat(64));
        let long_whole = format!("a@{}com", format!("{}.", "a".repeat(62)).repeat(4));
        for address in [
            "",
            "@",
            "ada",
            "ada@",
            "@example.com",
            "ada@example",
            "a@b@example.com",
            ".a@example.com",
            "a.@example.com",
            "a..b@example.com",
            "a b@example.com",
            "\"a b\"@example.com",
            "a@[192.0.2.1]",
            "a@192.0.2.1",
            "a@[IPv6:::1]",
            "a@-b.com",
            "a@b-.com",
            "a@b..com",
            "a@b.com.",
            "a@b_c.com",
            "Ada <ada@example.com>",
            "a@example.com,b@example.com",
            "a\0@example.com",
            "a\u{85}b@example.com",
            "a\u{200b}@example.com",
            "a@exa\u{a0}mple.com",
            "a@example。com",
            "a(comment)@example.com",
            &long_local,
            &long_label,
            &long_whole,
        ] {
            assert!(Email::parse(address).is_err(), "{address:?}");
        }
    }

    #[test]
    fn the_whole_is_at_most_254_octets() {
        let domain = format!("{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(61));
        assert!(Email::parse(&format!("{}@{domain}", "x".repeat(64))).is_ok());
        assert!(Email::parse(&format!("{}@{domain}c", "x".repeat(64))).is_err());
    }
}
