//! Prints what is in force.

use config::{Value, ValueKind};

use super::Config;

/// Keys whose value is a URL that may hold a password.
const URLS: [&str; 2] = ["database.url", "nats.url"];

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
        match (&value.kind, URLS.contains(&key)) {
            (ValueKind::String(url), true) if !url.is_empty() => Value::new(None, without_password(url)),
            _ => value,
        }
    }
}

/// A URL as it may stand on a screen.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "<set>".to_owned() };
    // Parameters may hold a password too.
    let rest = rest.split('?').next().unwrap_or_default();
    match rest.rsplit_once('@') {
        Some((user, place)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{place}")
        }
        None => format!("{scheme}://{rest}"),
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
                .any(|line| line.starts_with("limits.requests = 8192") && line.ends_with("# default"))
        );
        toml_again(&shown);
    }

    /// What is shown can be used as a file.
    fn toml_again(shown: &str) {
        let parsed = config::Config::builder()
            .add_source(config::File::from_str(shown, config::FileFormat::Toml))
            .build();
        assert_eq!(parsed.unwrap().get_int("limits.requests").unwrap(), 8_192);
    }
}
