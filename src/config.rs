//! Configuration: every key from a flag, the environment, a file or the default, checked once at a start.
//!
//! Shape: [`Flags`] + environment + file + `default.toml` -> [`Config`] (values with their origins) -> [`Settings`], or
//! all problems at once, each under its key's name. `default.toml` is the documentation and the list of what keys there are.

mod reader;
pub mod show;
mod sources;

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use anyhow::Context;
use rollcall_edge::{
    auth::jwt,
    principal::Tenant,
    rate::{self, Limit},
};

use reader::{Members, Reader};

use crate::{
    master_key, ready,
    telemetry::{self, Format},
};

pub use sources::{Config, DATA_DIR_FLAG, DEFAULTS, Flags};

/// What is in force.
#[derive(Debug)]
pub struct Settings {
    /// None where the role's own default counts.
    pub http: Option<SocketAddr>,
    pub data_dir: Option<PathBuf>,
    pub database: Database,
    pub nats_url: Option<Secret>,
    pub master_key_file: Option<PathBuf>,
    pub auth: Auth,
    pub limits: Limits,
    pub shutdown: Shutdown,
    pub telemetry: telemetry::Settings,
}

#[derive(Debug)]
pub struct Database {
    pub url: Option<Secret>,
    pub service_role: Option<String>,
    pub pool_connections: u32,
    pub read_connections: usize,
}

impl Database {
    /// For all but `up`, which starts one where none is named.
    ///
    /// # Errors
    /// Where none is named.
    pub fn named(&self) -> anyhow::Result<&Secret> {
        self.url.as_ref().context(
            "database.url must be set (--database-url, DATABASE_URL), or --data-dir to the directory of an \"up\" that runs",
        )
    }
}

/// How callers are known.
#[derive(Debug)]
pub enum Auth {
    Open,
    Jwt(jwt::Settings),
}

/// What one process takes on at once.
#[derive(Clone, Debug)]
pub struct Limits {
    pub connections: usize,
    pub requests: usize,
    pub request_timeout: Duration,
    pub idle_timeout: Duration,
    pub bytes_in_flight: usize,
    pub cache_bytes: u64,
    pub append_queue: usize,
    pub rate: rate::Limits,
}

#[derive(Clone, Copy, Debug)]
pub struct Shutdown {
    pub notice: Duration,
    /// Whether the notice is nobody's wish but the default.
    pub notice_is_default: bool,
    pub drain: Duration,
}

/// What is in force, for a command that works on servers which are there: those that are named, or those of an `up`.
///
/// # Errors
/// As [`Settings::read`], where no `up` runs in the directory that is named, and where the command line names one and the
/// environment another's servers: what takes data away must not be done elsewhere than it was meant.
pub fn on_servers(config: &Config) -> anyhow::Result<Settings> {
    let mut settings = Settings::read(config)?;
    if config.origin("data_dir") == DATA_DIR_FLAG {
        for (key, named) in [
            ("database.url", settings.database.url.is_some()),
            ("nats.url", settings.nats_url.is_some()),
            ("master_key.file", settings.master_key_file.is_some()),
        ] {
            if named {
                anyhow::bail!(
                    "{} names the servers and the key of the \"rollcall up\" there, and {key} (from {}) names others: leave one of \
                     them out",
                    DATA_DIR_FLAG,
                    config.origin(key)
                );
            }
        }
    }
    if !settings.find_up()? {
        anyhow::bail!(ready::Urls::none_in(&settings.data_dir.unwrap_or_default()));
    }
    Ok(settings)
}

/// A text that does not print.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("<secret>")
    }
}

impl Settings {
    /// Where a data directory is named and no database, the servers and the key of the `up` that runs there are meant. False
    /// where none does.
    ///
    /// # Errors
    /// Where what it left there cannot be read.
    pub fn find_up(&mut self) -> anyhow::Result<bool> {
        let (Some(directory), None) = (&self.data_dir, &self.database.url) else { return Ok(true) };
        let Some(urls) = ready::Urls::of_up(directory)? else { return Ok(false) };
        self.database.url = urls.postgres.map(Secret);
        if self.nats_url.is_none() {
            self.nats_url = urls.nats.map(Secret);
        }
        self.master_key_file.get_or_insert_with(|| directory.join(master_key::FILE));
        Ok(true)
    }

    /// # Errors
    /// All that is wrong, each under its key's name and where its value came from.
    pub fn read(config: &Config) -> anyhow::Result<Self> {
        let mut reader = Reader::new(config);
        let settings = Self {
            http: address(&mut reader),
            data_dir: reader.text("data_dir").map(PathBuf::from),
            database: Database {
                url: reader.secret("database.url"),
                service_role: reader.text("database.service_role"),
                pool_connections: reader.number("database.pool_connections", 1..=1_000),
                read_connections: reader.number("database.read_connections", 1..=64),
            },
            nats_url: reader.secret("nats.url"),
            master_key_file: reader.text("master_key.file").map(PathBuf::from),
            auth: auth(&mut reader),
            limits: limits(&mut reader),
            shutdown: Shutdown {
                notice: reader.seconds("shutdown.notice_s", 0..=600),
                notice_is_default: reader.is_default("shutdown.notice_s"),
                drain: reader.seconds("shutdown.drain_s", 1..=600),
            },
            telemetry: telemetry(&mut reader),
        };
        reader.finish(settings)
    }
}

/// An address; of names, the one that every machine has.
fn address(reader: &mut Reader) -> Option<SocketAddr> {
    let text = reader.text("http")?;
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let address = numeric.as_deref().unwrap_or(&text).parse().ok();
    if address.is_none() {
        let form = "must be an address such as 127.0.0.1:8080, [::1]:8080 or localhost:8080";
        reader.refuse("http", format_args!("{form}, not {text:?}"));
    }
    address
}

fn auth(reader: &mut Reader) -> Auth {
    let jwt = reader.choice("auth.mode", &[("open", false), ("jwt", true)]);
    let one = ["auth.issuer", "auth.audience", "auth.jwks"].map(|key| (key, reader.text(key)));
    let mut issuers = reader.tables("auth.issuers", issuer);
    let leeway = reader.seconds("auth.leeway_s", 0..=300);
    let refresh = reader.seconds("auth.jwks_refresh_s", 10..=86_400);
    if let [(_, Some(issuer)), (_, Some(audience)), (_, Some(jwks))] = &one {
        let (issuer, audience, jwks) = (issuer.clone(), audience.clone(), jwks.clone());
        match jwks_source(&jwks) {
            Ok(jwks) => issuers.insert(0, jwt::Issuer { issuer, audience, jwks, tenants: Vec::new() }),
            Err(what) => reader.refuse("auth.jwks", what),
        }
    } else if jwt && (issuers.is_empty() || one.iter().any(|(_, text)| text.is_some())) {
        for (key, text) in &one {
            if text.is_none() {
                reader.refuse(key, "must be set for auth.mode = \"jwt\" (or all issuers in auth.issuers)");
            }
        }
    }
    if !jwt {
        // Somebody who names an issuer and leaves the door open has forgotten something.
        if !issuers.is_empty() || one.iter().any(|(_, text)| text.is_some()) {
            reader.refuse("auth.mode", "must be \"jwt\" where an issuer is set");
        }
        return Auth::Open;
    }
    Auth::Jwt(jwt::Settings { issuers, leeway, refresh })
}

fn issuer(members: &mut Members) -> Result<jwt::Issuer, String> {
    Ok(jwt::Issuer {
        issuer: members.text("issuer")?,
        audience: members.text("audience")?,
        jwks: jwks_source(&members.text("jwks")?).map_err(|what| format!("jwks {what}"))?,
        tenants: members.texts("tenants")?,
    })
}

/// What looks like a URL is one.
fn jwks_source(text: &str) -> Result<jwt::Source, String> {
    if !text.contains("://") {
        return Ok(jwt::Source::File(PathBuf::from(text)));
    }
    text.parse().map(jwt::Source::Url).map_err(|error| format!("must be a file or a URL: {error}"))
}

fn limits(reader: &mut Reader) -> Limits {
    let requests_per_second =
        NonZeroU32::new(reader.number("limits.tenant_requests_per_second", 0..=1_000_000));
    let burst = NonZeroU32::new(reader.number("limits.tenant_burst", 1..=1_000_000));
    let each = requests_per_second.zip(burst);
    Limits {
        connections: reader.number("limits.connections", 1..=1_000_000),
        requests: reader.number("limits.requests", 1..=1_000_000),
        request_timeout: reader.seconds("limits.request_timeout_s", 3..=600),
        idle_timeout: reader.seconds("limits.idle_timeout_s", 5..=3_600),
        // A whole batch must find room.
        bytes_in_flight: reader.number("limits.bytes_in_flight", 16 * 1024 * 1024..=1 << 40),
        cache_bytes: reader.number("limits.cache_bytes", 0..=1 << 40),
        append_queue: reader.number("limits.append_queue", 1..=1_000_000),
        rate: rate::Limits {
            each: each.map(|(requests_per_second, burst)| Limit { requests_per_second, burst }),
            tenants: reader.tables("limits.tenants", tenant_limit),
        },
    }
}

/// A tenant's own limit; with 0 requests a second it has none.
fn tenant_limit(members: &mut Members) -> Result<(Tenant, Option<Limit>), String> {
    let tenant = Tenant::parse(&members.text("tenant")?).map_err(|error| format!("tenant {error}"))?;
    let requests_per_second = NonZeroU32::new(members.number("requests_per_second", 0..=1_000_000)?);
    let burst = match requests_per_second {
        Some(_) => NonZeroU32::new(members.number("burst", 1..=1_000_000)?),
        None => None,
    };
    let limit = requests_per_second.zip(burst);
    Ok((tenant, limit.map(|(requests_per_second, burst)| Limit { requests_per_second, burst })))
}

fn telemetry(reader: &mut Reader) -> telemetry::Settings {
    telemetry::Settings {
        filter: reader.text("log").unwrap_or_default(),
        format: reader.choice(
            "log_format",
            &[("auto", Format::Auto), ("pretty", Format::Pretty), ("json", Format::Json)],
        ),
        otlp_endpoint: reader.text("telemetry.otlp_endpoint"),
        service_name: reader.text("telemetry.service_name").unwrap_or_else(|| "rollcall".to_owned()),
        sample_ratio: reader.share("telemetry.sample_ratio"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let set = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Settings::read(&Config::of(&Flags { set, ..Flags::default() }, std::iter::empty())?)
    }

    #[test]
    fn the_defaults_are_settings() {
        let settings = read(&[]).unwrap();
        assert_eq!((settings.http, settings.limits.requests), (None, 6_000));
        assert!(matches!(settings.auth, Auth::Open));
        assert!(settings.limits.rate.limit_nobody());
    }

    #[test]
    fn a_laptop_may_be_called_by_its_name() {
        assert_eq!(read(&[("http", "localhost:81")]).unwrap().http, Some("127.0.0.1:81".parse().unwrap()));
        assert_eq!(read(&[("http", "[::1]:0")]).unwrap().http, Some("[::1]:0".parse().unwrap()));
    }

    #[test]
    fn every_bad_value_is_told_at_once_by_its_keys_name() {
        let refused = read(&[
            ("http", "db.example:8080"),
            ("limits.requests", "many"),
            ("auth.mode", "jtw"),
            ("log_format", "xml"),
            ("telemetry.sample_ratio", "2"),
            ("shutdown.drain_s", "0"),
        ])
        .unwrap_err()
        .to_string();
        for part in [
            "http (from --set) must be an address",
            "limits.requests (from --set) must be a number from 1",
            "auth.mode (from --set) must be open or jwt, not \"jtw\"",
            "log_format (from --set) must be auto or pretty or json",
            "telemetry.sample_ratio (from --set)",
            "shutdown.drain_s (from --set)",
        ] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
    }

    #[test]
    fn tokens_need_an_issuer_an_audience_and_keys() {
        let refused =
            read(&[("auth.mode", "jwt"), ("auth.issuer", "https://a.example")]).unwrap_err().to_string();
        assert!(refused.contains("auth.audience") && refused.contains("auth.jwks"), "{refused}");
        assert!(!refused.contains("auth.issuer must"), "{refused}");
        let one =
            [("auth.issuer", "https://a.example"), ("auth.audience", "rollcall"), ("auth.jwks", "/keys")];
        for some in [&one[..], &one[..1]] {
            let refused = read(some).unwrap_err().to_string();
            assert!(refused.contains("auth.mode"), "an issuer without jwt is a mistake: {refused}");
        }
        let list = r#"[{issuer = "https://b.example", audience = "r", jwks = "/b", tenants = ["acme"]}]"#;
        let all = [&one[..], &[("auth.mode", "jwt"), ("auth.issuers", list)]].concat();
        let Auth::Jwt(jwt::Settings { issuers, .. }) = read(&all).unwrap().auth else { panic!("open") };
        assert_eq!(issuers.iter().map(|issuer| issuer.tenants.len()).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_list_tells_which_of_its_tables_is_wrong() {
        let refused =
            read(&[("limits.tenants", r#"[{tenant = "a", requests_per_second = 1, burst = 1, x = 1}]"#)]);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("limits.tenants (from --set) [0]: x is unknown"), "{refused}");
    }

    #[test]
    fn a_secret_may_stand_in_a_file_and_is_not_printed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "postgres://owner:hidden@db/rollcall\n").unwrap();
        let path = file.path().display().to_string();
        let settings = read(&[("database.url_file", &path)]).unwrap();
        assert_eq!(settings.database.url.as_ref().unwrap().expose(), "postgres://owner:hidden@db/rollcall");
        assert!(!format!("{settings:?}").contains("hidden"));
        assert!(read(&[("database.url_file", &path), ("database.url", "postgres://db")]).is_err());
    }

    #[test]
    fn every_key_of_the_defaults_is_read() {
        // A key that nothing reads would be documentation that lies: an absurd value of it must be noticed.
        let free = [
            "data_dir",
            "database.service_role",
            "database.url",
            "nats.url",
            "master_key.file",
            "log",
            "auth.issuer",
            "auth.audience",
            "auth.jwks",
            "telemetry.otlp_endpoint",
            "telemetry.service_name",
        ];
        let config = Config::of(&Flags::default(), std::iter::empty()).unwrap();
        for key in config.keys().filter(|key| !free.contains(key)) {
            let list = matches!(config.value(key).kind, config::ValueKind::Array(_));
            let absurd = if list { "[1]" } else { "/absurd" };
            let refused =
                read(&[(key, absurd)]).err().unwrap_or_else(|| panic!("{key} is not read")).to_string();
            assert!(refused.contains(key), "{refused}");
        }
    }
}
