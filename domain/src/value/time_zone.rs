//! Time zones.

use super::Invalid;
use super::text::text_value;

text_value! {
    /// The name of a zone in the IANA time zone database, exactly as it stands there: `Europe/London`.
    personal TimeZone, parse
}

fn parse(raw: &str) -> Result<String, Invalid> {
    let name = raw.trim();
    match name.parse::<chrono_tz::Tz>() {
        // The zone is kept by name: a later edition of the database may no longer have it.
        Ok(_) => Ok(name.to_owned()),
        Err(_) => Err(Invalid::new("must be the name of an IANA time zone, for example Europe/London")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_has_its_exact_name() {
        assert_eq!(TimeZone::parse(" Europe/London ").unwrap().as_str(), "Europe/London");
        for zone in ["UTC", "America/Argentina/Buenos_Aires", "Etc/GMT+5"] {
            assert!(TimeZone::parse(zone).is_ok(), "{zone}");
        }
        for zone in ["", "europe/london", "CET+1", "+01:00", "Europe/Atlantis", "London"] {
            assert!(TimeZone::parse(zone).is_err(), "{zone}");
        }
    }
}
