//! Prints what is in force.

use config::{Map, Value, ValueKind};

use super::Config;

/// Keys whose values are not shown where they are no URLs.
const SECRET: [&str; 2] = ["database.url", "nats.url"];

impl Config {
    /// Every key with its value and where that came from, a line each, as TOML. Passwords are masked.
    pub fn show(&self) -> String {
        let width =
            self.keys().map(|key| key.len() + literal(self.masked(key)).len()).filter(|width| *width < 70);
        let width = width.max().unwrap_or_default() + 3;
        let lines = self.keys().map(|key| {
            let setting = format!("{key} = {}", literal(self.masked(key)));
            format!("{setting:width$}  # {}\n", self.origin(key))
        });
        lines.collect()
    }

    fn masked(&self, key: &str) -> Value {
        let value = self.value(key).clone();
        match &value.kind {
            // A URL without a scheme is none that can be told from a password.
            ValueKind::String(text) if SECRET.contains(&key) && !text.is_empty() && !text.contains("://") => {
                Value::new(None, "<set>")
            }
            _ => mask(value),
        }
    }
}

/// Every URL in a value without what may be secret in it.
fn mask(value: Value) -> Value {
    match value.kind {
        ValueKind::String(text) if text.contains("://") => {
            Value::new(None, text.split(',').map(without_password).collect::<Vec<_>>().join(","))
        }
        ValueKind::Array(values) => Value::new(None, values.into_iter().map(mask).collect::<Vec<_>>()),
        ValueKind::Table(table) => {
            let table: Map<String, Value> =
                table.into_iter().map(|(name, value)| (name, mask(value))).collect();
            Value::new(None, table)
        }
        kind => Value::new(None, kind),
    }
}

/// A URL as it may stand on a screen: its user only where there is a password beside, because alone it may be a token.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "<set>".to_owned() };
    // Parameters may hold a password too.
    let rest = rest.split('?').next().unwrap_or_default();
    let Some((user, place)) = rest.rsplit_once('@') else { return format!("{scheme}://{rest}") };
    match user.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***@{place}"),
        None if scheme.starts_with("postgres") => format!("{scheme}://{user}@{place}"),
        None => format!("{scheme}://***@{place}"),
    }
}

fn literal(value: Value) -> String {
    match value.kind {
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Array(values) => {
            format!("[{}]", values.into_iter().map(literal).collect::<Vec<_>>().join(", "))
        }
        ValueKind::Table(table) => {
            let mut members: Vec<_> =
                table.into_iter().map(|(name, value)| format!("{name} = {}", literal(value))).collect();
            members.sort();
            format!("{{{}}}", members.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    #[test]
    fn what_is_shown_names_origins_and_hides_passwords() {
        let flags = Flags {
            database_url: Some("postgres://owner:se:cr@et@127.0.0.1:5/rollcall".to_owned()),
            nats_url: Some("tok".to_owned()),
            ..Flags::default()
        };
        let shown = Config::load(&flags).unwrap().show();
        assert!(shown.contains("database.url = \"postgres://owner:***@127.0.0.1:5/rollcall\""), "{shown}");
        assert!(shown.contains("# --database-url") && shown.contains("nats.url = \"<set>\""), "{shown}");
        assert!(!shown.contains("cr@et") && !shown.contains("tok\""), "{shown}");
        assert!(
            shown
                .lines()
                .any(|line| line.starts_with("limits.requests = 6000") && line.ends_with("# default"))
        );
        toml_again(&shown);
    }

    #[test]
    fn no_url_shows_what_may_be_secret_in_it() {
        assert_eq!(without_password("nats://SECRETTOKEN@h:4222"), "nats://***@h:4222");
        assert_eq!(without_password("postgres://rollcall_service@h/r"), "postgres://rollcall_service@h/r");
        let issuers =
            r#"[{issuer = "https://a.example", audience = "r", jwks = "https://u:pw@idp/jwks?key=s3cret"}]"#;
        let set = vec![
            ("auth.issuers".to_owned(), issuers.to_owned()),
            ("auth.jwks".to_owned(), "https://u:pw@idp/jwks".to_owned()),
        ];
        let shown = Config::load(&Flags { set, ..Flags::default() }).unwrap().show();
        assert!(
            shown.contains("https://u:***@idp/jwks") && !shown.contains("pw") && !shown.contains("s3cret"),
            "{shown}"
        );
    }

    /// What is shown can be used as a file.
    fn toml_again(shown: &str) {
        let parsed = config::Config::builder()
            .add_source(config::File::from_str(shown, config::FileFormat::Toml))
            .build();
        assert_eq!(parsed.unwrap().get_int("limits.requests").unwrap(), 6_000);
    }
}
