//! `rollcall doctor`: checks everything that a start needs, and says how to mend what is missing. Changes nothing.

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use rollcall_edge::rate;
use rollcall_event_store::{
    bounded, history,
    keys::MasterKey,
    migrate::{self, Server, attach, inspect, session_for},
};
use rollcall_projections::{
    status::{self, Projected, Trouble},
    tables,
};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use crate::{
    config::{Auth, Config, Flags, Limits, Settings},
    master_key::KeyFile,
    nats, process, ready,
    service::{self, Parts},
};

/// Further apart than this, and log lines, tokens and events no longer fit together.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(2);
/// What a role with default settings takes.
const CONNECTIONS_WANTED: i64 = 24;
/// Beside the clients' connections: servers, files, libraries.
const FILES_BESIDE: u64 = 256;

/// # Errors
/// Where a check fails.
pub fn run(flags: &Flags) -> anyhow::Result<()> {
    let config = Config::load(flags)?;
    let mut settings = Settings::read(&config)?;
    let up = settings.find_up()?;
    let mut report = Report::default();
    report.ok("configuration", format!("{} keys", config.keys().count()));
    if let (false, Some(directory)) = (up, &settings.data_dir) {
        report.warn(
            "data",
            ready::Urls::none_in(directory),
            "what it needs to start is looked at: start it, or correct --data-dir",
        );
    }
    for warning in &config.warnings {
        report.warn("configuration", warning, "take it out of the environment, or correct its name");
    }
    process::runtime()?.block_on(async {
        http(&mut report, &settings);
        files(&mut report, &settings.limits);
        tokens(&mut report, &settings).await;
        match &settings.database.url {
            Some(url) => database(&mut report, &settings, url.expose()).await,
            None => private_servers(&mut report).await,
        }
        nats_server(&mut report, &settings).await;
    });
    print!("{}", report.text);
    match report.failed {
        0 => Ok(()),
        1 => anyhow::bail!("1 check failed"),
        failed => anyhow::bail!("{failed} checks failed"),
    }
}

/// What was found, a line for each check, and a line on how to mend it.
#[derive(Default)]
struct Report {
    text: String,
    failed: usize,
}

impl Report {
    fn ok(&mut self, what: &str, found: impl std::fmt::Display) {
        self.line("ok", what, found);
    }

    fn warn(&mut self, what: &str, found: impl std::fmt::Display, mend: &str) {
        self.line("warn", what, found);
        self.mend(mend);
    }

    fn fail(&mut self, what: &str, found: impl std::fmt::Display, mend: &str) {
        self.failed += 1;
        self.line("FAIL", what, found);
        self.mend(mend);
    }

    fn line(&mut self, mark: &str, what: &str, found: impl std::fmt::Display) {
        self.text.push_str(&format!("{mark:<5} {what:<14} {found}\n"));
    }

    fn mend(&mut self, mend: &str) {
        self.text.push_str(&format!("{:<5} {:<14} to mend: {mend}\n", "", ""));
    }
}

fn http(report: &mut Report, settings: &Settings) {
    let Some(address) = settings.http else {
        return report.ok("http", "the role's own port on 127.0.0.1");
    };
    let api = Parts { commands: true, queries: true, projects: Vec::new() };
    match api.listen(address, &settings.auth) {
        Ok(_) => report.ok("http", format!("{address} is free")),
        Err(error) => report.warn(
            "http",
            format!("{error:#}"),
            "choose another address with http, or stop who listens there (if that is this service, all is well); a \
             projector may listen anywhere",
        ),
    }
}

fn files(report: &mut Report, limits: &Limits) {
    let wanted = limits.connections as u64 + FILES_BESIDE;
    match nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= wanted => report.ok("open files", format!("up to {hard}")),
        Ok((_, hard)) => report.warn(
            "open files",
            format!("at most {hard} may be open, but limits.connections = {} wants {wanted}", limits.connections),
            "raise the limit (LimitNOFILE= in a systemd unit, ulimit -n in a shell), or lower limits.connections",
        ),
        Err(error) => report.warn("open files", error, "see what ulimit -n says"),
    }
}

async fn tokens(report: &mut Report, settings: &Settings) {
    let unlimited = Limits { rate: rate::Limits::default(), ..settings.limits.clone() };
    let Auth::Jwt(jwt) = &settings.auth else {
        return report.warn(
            "auth",
            "mode is open: whoever reaches the port may do everything",
            "set auth.mode = \"jwt\" with auth.issuer, auth.audience and auth.jwks, unless this is a laptop",
        );
    };
    match service::authenticator(&settings.auth, &unlimited).await {
        Ok(authenticator) if authenticator.issuers_without_keys().is_empty() => {
            report.ok("auth", format!("keys of {} issuers", jwt.issuers.len()));
        }
        Ok(authenticator) => report.fail(
            "auth",
            format!("keys cannot be fetched now: {}", authenticator.issuers_without_keys().join(", ")),
            "see that their jwks can be reached from here; until then their tokens are answered with 503, and while no \
             issuer's keys are there the service is not ready",
        ),
        Err(error) => report.fail("auth", format!("{error:#}"), "correct the key of the configuration that is named"),
    }
}

async fn private_servers(report: &mut Report) {
    report.ok("database", "database.url is not set: `up` starts a private PostgreSQL; other roles need it");
    for found in rollcall_private_servers::find_binaries().await {
        match found {
            Ok(found) => report.ok("servers", found),
            Err(error) => report.fail("servers", error, "install it, for example with: make install"),
        }
    }
}

async fn database(report: &mut Report, settings: &Settings, url: &str) {
    let key = match KeyFile::named(settings) {
        Ok(key) => key,
        Err(error) => return report.fail("master key", error, "set master_key.file"),
    };
    let Some(master) = master_key(report, &key.path) else { return };
    let server = match session_for(url, &master) {
        Ok(options) => inspect(&options).await,
        Err(error) => Err(error),
    };
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            return report.fail(
                "database",
                error,
                "see that database.url is right and that the server lets us in",
            );
        }
    };
    postgres(report, &server);
    match attach(url, &key).await {
        Ok(provisioned) => {
            let partitions = provisioned.partitions;
            report.ok("log", format!("{} ({partitions} partitions)", provisioned.log_id));
            history(report, &provisioned.service).await;
            match tables::check(&provisioned.service).await {
                Ok(()) => {
                    report.ok("read models", "are there");
                    work(report, &provisioned.service).await;
                }
                Err(error) => report.fail("read models", error, "run: rollcall migrate"),
            }
        }
        Err(error @ migrate::Error::NotMigrated) if server.may_create_roles => {
            report.fail("log", error, "run: rollcall migrate");
        }
        Err(error @ migrate::Error::NotMigrated) => report.fail(
            "log",
            format!("{error}, and {} may not: it cannot create roles", server.user),
            "run rollcall migrate with the URL of a role that has CREATEROLE and CREATE on the database",
        ),
        Err(error) => report.fail("log", error, "as it says"),
    }
}

/// What cannot go on, as the processes at work told it, what none of them works on, and what is parked.
async fn work(report: &mut Report, service: &PgConnectOptions) {
    let asked = bounded(async { status::read(&mut PgConnection::connect_with(service).await?).await });
    let status = match asked.await {
        Ok(status) => status,
        Err(error) => return report.fail("work", error, "see that all processes run the same version"),
    };
    let (troubles, unattended) = (status.troubles().collect::<Vec<_>>(), status.unattended());
    let parked: Vec<&Projected> = status.projections.iter().filter(|of| of.parked_streams > 0).collect();
    let nobody = !status.members.iter().any(|member| member.state == "alive");
    if troubles.is_empty() && unattended.is_empty() && parked.is_empty() && !nobody {
        report.ok("work", "no partition is stopped, nothing is parked, and publishing does not fail");
    }
    for of in &unattended {
        report.warn(
            "work",
            of,
            "see that enough of \"rollcall projector\" (or \"up\") run, and end one that is frozen; rollcall status \
             shows who holds what",
        );
    }
    if nobody && unattended.is_empty() {
        report.warn("work", "no process projects or publishes", "start one: rollcall projector");
    }
    for of in parked {
        report.warn(
            "work",
            match of.parked_streams {
                1 => format!("{}: 1 stream is parked", of.qualifier()),
                streams => format!("{}: {streams} streams are parked", of.qualifier()),
            },
            "see: rollcall parked list",
        );
    }
    for Trouble { of, why } in troubles {
        report.fail(
            "work",
            format!("{of}: {why}"),
            "see docs/operations.md under RollcallProjectionStopped or RollcallPublisherFails",
        );
    }
}

async fn history(report: &mut Report, service: &PgConnectOptions) {
    let asked = async {
        let mut connection = PgConnection::connect_with(service).await?;
        history::halt(&mut connection).await
    };
    match asked.await {
        Ok(None) => report.ok("history", "commands are taken"),
        Ok(Some(halt)) => report.fail(
            "history",
            format!("no commands are taken: {halt}"),
            "find out what was lost, then run: rollcall adopt-restored",
        ),
        Err(error) => report.fail("history", error, "run: rollcall migrate"),
    }
}

fn master_key(report: &mut Report, path: &Path) -> Option<MasterKey> {
    let place = path.display();
    let master = match MasterKey::read(path) {
        Ok(master) => master,
        Err(error) => {
            let why = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            let mend =
                format!("put the key of this log there, or for a new one: openssl rand -hex 32 > {place}");
            report.fail("master key", format!("{error}{why}"), &mend);
            return None;
        }
    };
    let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode()).unwrap_or_default();
    if mode & 0o007 == 0 {
        report.ok("master key", place);
    } else {
        report.warn("master key", format!("{place} can be read by everybody"), &format!("chmod o= {place}"));
    }
    Some(master)
}

fn postgres(report: &mut Report, server: &Server) {
    report.ok("database", format!("PostgreSQL {} as {}", server.version, server.user));
    if server.encoding != "UTF8" {
        let mend = "make the database with: createdb --encoding=UTF8 --locale=C --template=template0";
        report.fail("database", format!("its encoding is {}", server.encoding), mend);
    }
    for (name, value) in &server.unsafe_settings {
        let found = format!("{name} = {value}: what was acknowledged may be lost when the server fails");
        report.fail("database", found, &format!("set {name} = on in postgresql.conf"));
    }
    if !server.checksums {
        report.warn(
            "database",
            "has no data checksums: a failing disk is noticed late",
            "pg_checksums --enable",
        );
    }
    if server.connections_free < CONNECTIONS_WANTED {
        report.warn(
            "database",
            format!(
                "has {} connections to give, a process takes up to {CONNECTIONS_WANTED}",
                server.connections_free
            ),
            "raise max_connections, or lower database.pool_connections",
        );
    }
    if server.clock_ahead_ms.unsigned_abs() > CLOCKS_APART_MAX.as_millis() as u64 {
        let found = format!("this machine's clock is {} ms ahead of the database's", server.clock_ahead_ms);
        report.warn("clock", found, "set both by NTP");
    }
}

async fn nats_server(report: &mut Report, settings: &Settings) {
    let Some(url) = &settings.nats_url else {
        return report
            .ok("nats", "nats.url is not set: `up` starts a private one; the publisher needs it elsewhere");
    };
    match nats::check(url.expose()).await {
        Ok(()) => report.ok("nats", "has JetStream"),
        Err(error) => report.fail(
            "nats",
            format!("{error:#}"),
            "see that nats.url is right, that its user may publish, and that the server runs with JetStream (-js)",
        ),
    }
}
