//! Where values come from.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, bail};
use config::{File, FileFormat, Source, Value, ValueKind};
use rollcall_edge::hint;

/// Every key with its default, and what it means.
pub const DEFAULTS: &str = include_str!("default.toml");

/// Names in the environment that other programs use for the same.
const COMMON: [(&str, &str); 2] = [("DATABASE_URL", "database.url"), ("NATS_URL", "nats.url")];

/// The flags that every role takes.
#[derive(clap::Args, Default)]
pub struct Flags {
    /// A file of keys, as `rollcall config --defaults` prints them.
    #[arg(long, env = "ROLLCALL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A key of the configuration and its value; may repeat.
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// Where to listen, for example 127.0.0.1:8080; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<String>,
    /// Where `rollcall up` keeps its data: the user's data directory if not given, /var/lib/rollcall for root. Given to
    /// another command, that works on the servers of the `up` that runs there, with its key.
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: Option<String>,
    /// The PostgreSQL to use.
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// The NATS server with JetStream to use.
    #[arg(long, value_name = "URL")]
    pub nats_url: Option<String>,
    /// The file of the master key.
    #[arg(long, value_name = "FILE")]
    pub master_key_file: Option<String>,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE, for example limits.requests=1000")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl Flags {
    /// The short forms, by key.
    fn short(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        [
            ("http", "--http", &self.http),
            ("data_dir", DATA_DIR_FLAG, &self.data_dir),
            ("database.url", "--database-url", &self.database_url),
            ("nats.url", "--nats-url", &self.nats_url),
            ("master_key.file", "--master-key-file", &self.master_key_file),
        ]
        .into_iter()
        .filter_map(|(key, flag, value)| Some((key, flag, value.as_deref()?)))
    }
}

pub const DATA_DIR_FLAG: &str = "--data-dir";

/// The value of each key that is in force, with its origin.
pub struct Config {
    values: BTreeMap<String, Value>,
    /// What was meant for us, it seems, and is no key.
    pub warnings: Vec<String>,
}

impl Config {
    /// # Errors
    /// A file that cannot be read, or a key that does not exist.
    pub fn load(flags: &Flags) -> anyhow::Result<Self> {
        Self::of(
            flags,
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    pub(super) fn of(
        flags: &Flags,
        environment: impl Iterator<Item = (String, String)>,
    ) -> anyhow::Result<Self> {
        let defaults = leaves(DEFAULTS, "default").expect("the defaults are TOML");
        let mut config = Self { values: defaults, warnings: Vec::new() };
        if let Some(path) = &flags.config {
            let origin = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("the configuration {origin} cannot be read"))?;
            config.overlay(leaves(&text, &origin)?)?;
        }
        let environment = config.variables(environment)?;
        config.overlay(environment)?;
        let short =
            flags.short().map(|(key, flag, text)| (key.to_owned(), Value::new(Some(&flag.to_owned()), text)));
        let set = flags.set.iter().map(|(key, text)| Ok((key.clone(), config.parse(key, text, "--set")?)));
        let level = set.chain(short.map(Ok)).collect::<anyhow::Result<_>>()?;
        config.overlay(level)?;
        Ok(config)
    }

    /// What the environment sets. The names with ROLLCALL_ win over those that others use too.
    fn variables(
        &mut self,
        environment: impl Iterator<Item = (String, String)>,
    ) -> anyhow::Result<BTreeMap<String, Value>> {
        let (mut common, mut ours) = (BTreeMap::new(), BTreeMap::new());
        for (name, text) in environment {
            let of_all = COMMON.iter().find(|(common, _)| *common == name);
            if let Some((_, key)) = of_all {
                // Somebody meant to name a server, and would get a private one instead.
                if text.is_empty() {
                    bail!("{name} is set and empty: name a server, or take it out of the environment");
                }
                common.insert((*key).to_owned(), self.parse(key, &text, &name)?);
            } else if name.starts_with("ROLLCALL_") && name != "ROLLCALL_CONFIG" {
                let key = self.keys().find(|key| variable(key) == name).map(str::to_owned);
                match key {
                    Some(key) => {
                        let value = self.parse(&key, &text, &name)?;
                        ours.insert(key, value);
                    }
                    None => {
                        let names: Vec<String> = self.keys().map(variable).collect();
                        let hint = hint::suffix(&name, names.iter().map(String::as_str));
                        self.warnings.push(format!(
                            "{name} is in the environment, but is no key of the configuration{hint}"
                        ));
                    }
                }
            }
        }
        common.extend(ours);
        Ok(common)
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The value of a key of `default.toml`.
    pub fn value(&self, key: &str) -> &Value {
        self.values.get(key).expect("a key of the defaults")
    }

    /// Where the value comes from.
    pub fn origin(&self, key: &str) -> &str {
        self.value(key).origin().unwrap_or("default")
    }

    /// A text as the value of a key: lists are written as in a file.
    fn parse(&self, key: &str, text: &str, origin: &str) -> anyhow::Result<Value> {
        Ok(match self.values.get(key).map(|value| &value.kind) {
            Some(ValueKind::Array(_)) => {
                leaves(&format!("value = {text}"), origin)?.remove("value").unwrap_or_default()
            }
            _ => Value::new(Some(&origin.to_owned()), text),
        })
    }

    /// Puts the values of one source over those of weaker ones. A secret and the file of that secret are two forms of one
    /// value: where a source has one of them, what a weaker one said in the other form counts no more.
    fn overlay(&mut self, level: BTreeMap<String, Value>) -> anyhow::Result<()> {
        for (key, value) in &level {
            if !self.values.contains_key(key) {
                let origin = value.origin().unwrap_or_default();
                bail!(
                    "{key} (from {origin}) is no key of the configuration{}",
                    hint::suffix(key, self.keys())
                )
            }
            let other = key.strip_suffix("_file").map_or_else(|| format!("{key}_file"), str::to_owned);
            if self.values.contains_key(&other) && !level.contains_key(&other) {
                self.values.insert(other, Value::new(value.origin().map(str::to_owned).as_ref(), ""));
            }
        }
        self.values.extend(level);
        Ok(())
    }
}

/// How a key is called in the environment.
fn variable(key: &str) -> String {
    format!("ROLLCALL_{}", key.replace('.', "_").to_ascii_uppercase())
}

/// The leaves of a TOML text by their dotted keys.
fn leaves(text: &str, origin: &str) -> anyhow::Result<BTreeMap<String, Value>> {
    let table = config::Config::builder()
        .add_source(File::from_str(text, FileFormat::Toml))
        .build()
        .and_then(|config| config.collect())
        .with_context(|| format!("{origin} is not TOML"))?;
    let mut leaves = BTreeMap::new();
    let mut open: Vec<(String, Value)> = table.into_iter().collect();
    while let Some((key, value)) = open.pop() {
        match value.kind {
            ValueKind::Table(table) => {
                open.extend(table.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
            }
            kind => {
                leaves.insert(key, Value::new(Some(&origin.to_owned()), kind));
            }
        }
    }
    Ok(leaves)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flags: &Flags, environment: &[(&str, &str)]) -> anyhow::Result<Config> {
        Config::of(flags, environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn text(config: &Config, key: &str) -> String {
        config.value(key).clone().into_string().unwrap()
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
        let file = file("[limits]\nrequests = 1\nconnections = 1\nappend_queue = 1\n");
        let flags = Flags {
            config: Some(file.path().to_owned()),
            set: vec![("limits.requests".to_owned(), "3".to_owned())],
            ..Flags::default()
        };
        let environment = [("ROLLCALL_LIMITS_REQUESTS", "2"), ("ROLLCALL_LIMITS_CONNECTIONS", "2")];
        let config = load(&flags, &environment).unwrap();
        let of = |key: &str| (text(&config, key), config.origin(key).to_owned());
        assert_eq!(of("limits.requests"), ("3".to_owned(), "--set".to_owned()));
        assert_eq!(of("limits.connections"), ("2".to_owned(), "ROLLCALL_LIMITS_CONNECTIONS".to_owned()));
        assert_eq!(of("limits.append_queue"), ("1".to_owned(), file.path().display().to_string()));
        assert_eq!(of("limits.idle_timeout_s"), ("75".to_owned(), "default".to_owned()));
    }

    #[test]
    fn a_key_that_does_not_exist_is_refused_with_the_one_that_was_meant() {
        let file = file("[limits]\nrequest = 1\n");
        let flags = Flags { config: Some(file.path().to_owned()), ..Flags::default() };
        let refused = load(&flags, &[]).err().unwrap().to_string();
        assert!(
            refused.contains("limits.request (from ") && refused.contains("`limits.requests`"),
            "{refused}"
        );
        let flags = Flags { set: vec![("auth.mod".to_owned(), "jwt".to_owned())], ..Flags::default() };
        assert!(load(&flags, &[]).err().unwrap().to_string().contains("`auth.mode`"));
    }

    #[test]
    fn our_own_name_wins_over_the_common_one_in_whatever_order() {
        let both = [("DATABASE_URL", "postgres://a"), ("ROLLCALL_DATABASE_URL", "postgres://b")];
        for both in [both, [both[1], both[0]]] {
            assert_eq!(text(&load(&Flags::default(), &both).unwrap(), "database.url"), "postgres://b");
        }
    }

    #[test]
    fn a_stronger_source_wins_with_a_secret_or_its_file() {
        let file = file("[database]\nurl_file = \"/weak\"\n");
        let flags = Flags {
            config: Some(file.path().to_owned()),
            database_url: Some("postgres://strong".to_owned()),
            ..Flags::default()
        };
        let config = load(&flags, &[]).unwrap();
        assert_eq!(text(&config, "database.url"), "postgres://strong");
        assert_eq!(text(&config, "database.url_file"), "");
        let flags = Flags { database_url: None, ..flags };
        let config = load(&flags, &[("DATABASE_URL", "postgres://between")]).unwrap();
        assert_eq!(text(&config, "database.url_file"), "");
    }

    #[test]
    fn what_the_environment_has_for_others_is_let_be() {
        let config =
            load(&Flags::default(), &[("ROLLCALL_PORT", "tcp://10.0.0.1"), ("PATH", "/bin")]).unwrap();
        assert_eq!(config.warnings.len(), 1);
        assert!(config.warnings[0].contains("ROLLCALL_PORT"));
        let mistyped = load(&Flags::default(), &[("ROLLCALL_LIMIT_REQUESTS", "1")]).unwrap();
        assert!(mistyped.warnings[0].contains("`ROLLCALL_LIMITS_REQUESTS`"), "{:?}", mistyped.warnings);
    }

    #[test]
    fn a_list_may_stand_in_the_environment() {
        let list =
            r#"[{issuer = "https://a.example", audience = "rollcall", jwks = "/a", tenants = ["acme"]}]"#;
        let config = load(&Flags::default(), &[("ROLLCALL_AUTH_ISSUERS", list)]).unwrap();
        assert_eq!(config.value("auth.issuers").clone().into_array().unwrap().len(), 1);
        assert!(load(&Flags::default(), &[("ROLLCALL_AUTH_ISSUERS", "nonsense")]).is_err());
    }
}
