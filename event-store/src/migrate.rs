//! Makes and checks the log's tables, the service's role and the vault.
//!
//! [`migrate`] runs with the owner's rights and may run twice and at once; [`attach`](attach()) needs no more than the
//! service's own and changes nothing.

mod attach;
mod inspect;
mod role;

use std::str::FromStr;

use sqlx::{
    ConnectOptions, Connection, Executor, PgConnection, Row,
    migrate::{MigrateError, Migrator},
    postgres::PgConnectOptions,
};
use uuid::Uuid;

use self::role::PREFIX;
use crate::{
    Partition, bounded,
    keys::{Keys, MasterKey},
};

pub use attach::{attach, session_for};
pub use inspect::{Server, inspect};

/// Migrations that a newer binary made are passed over; `meta.requires` says whether this one can live with them.
static MIGRATIONS: Migrator = Migrator { ignore_missing: true, ..sqlx::migrate!("../migrations") };

/// Advisory lock that makes concurrent starts take turns; "rollcall" in ASCII.
const TURN: i64 = 0x726f_6c6c_6361_6c6c;

/// What a URL may set after its question mark.
const PARAMETERS: [&str; 12] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

const HASH: &str = "sha256";
const GENERATION: i32 = 1;
const DIGEST_ROOT_BYTES: usize = 32;

/// What a migration is told. The number of partitions is fixed by the first one for the life of the log.
#[derive(Clone, Debug)]
pub struct Options {
    pub partitions: Partition,
    /// The role that services are to connect as, if it is not to be named after the log: `rollcall_service…`. This one
    /// may change with any migration.
    pub service_role: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { partitions: 16, service_role: None }
    }
}

/// What a service needs to work on a migrated log.
#[derive(Clone)]
pub struct Provisioned {
    pub log_id: Uuid,
    /// What the log was made with, and stays through adoptions.
    pub first_log_id: Uuid,
    pub partitions: Partition,
    /// Connects as a role that may read the log and append to it by `log.append`, and nothing else.
    pub service: PgConnectOptions,
    pub keys: Keys,
}

/// Where the master key comes from: it may be made only for a log that has none yet.
pub trait MasterKeySource {
    /// # Errors
    /// One line that says what is wrong and how to mend it.
    fn existing(&self) -> Result<Option<MasterKey>, String>;
    /// # Errors
    /// As [`existing`](Self::existing).
    fn create(&self) -> Result<MasterKey, String>;
    /// Where the key is looked for, for messages.
    fn place(&self) -> String;
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("DATABASE_URL is not a PostgreSQL URL (postgres://user:password@host:port/database)")]
    Url,
    #[error("PostgreSQL cannot be reached at {at}: {why}")]
    Unreachable { at: String, why: String },
    #[error("the database is PostgreSQL {found}; Rollcall needs 15 or newer")]
    TooOld { found: String },
    #[error(
        "the database's schema is newer than this binary can work with (migration {0} must be known to it): start a \
         newer rollcall"
    )]
    SchemaNewer(i64),
    #[error(
        "the database was made by a version from before the first release, whose form is not read any more: start on an \
         empty database"
    )]
    BeforeRelease,
    #[error(
        "the role {role} belongs to {owner}: name another for this log with database.service_role (its password would be \
         changed, and the services of the other log locked out)"
    )]
    RoleTaken { role: String, owner: String },
    #[error("the database is not prepared for this version of rollcall: run \"rollcall migrate\" first")]
    NotMigrated,
    #[error(
        "{0:?} cannot be the service's role: its name must be {PREFIX} and at most 40 more of a-z, 0-9 and _"
    )]
    ServiceRole(String),
    #[error(
        "PostgreSQL does not let {role} in: its password follows from the master key, so either this is not the key of this log, or the role's password was changed (\"rollcall migrate\" sets it again)"
    )]
    ServiceLogin { role: String },
    #[error("the URL has a parameter {0:?} that PostgreSQL's URLs do not have: {known}", known = PARAMETERS.join(", "))]
    UrlParameter(String),
    #[error(
        "{user} may not read what a service must know: connect as the owner, or as the service's role, which \
         \"rollcall migrate\" names"
    )]
    MayNotRead { user: String },
    #[error(
        "{user} does not own the log: connect as the owner, with the URL that \"rollcall migrate\" was first given"
    )]
    NotOwner { user: String },
    #[error("the database's tables could not be migrated")]
    Migrate(#[source] MigrateError),
    #[error("the log was made with hash {found}; this binary knows {HASH}")]
    Hash { found: String },
    #[error(
        "the owner of DATABASE_URL may not create the service's role {role}: grant it CREATEROLE, or let a superuser \
         run the first start"
    )]
    MayNotCreateRole { role: String, source: sqlx::Error },
    #[error("{0}")]
    MasterKeySource(String),
    #[error(
        "this database was made with another master key than {place}: put the right key there (without it nothing \
         personal in the log can be read)"
    )]
    WrongMasterKey { place: String },
    #[error(
        "this database has a master key, but there is none at {place}: put it there, or name it with \
         ROLLCALL_MASTER_KEY_FILE"
    )]
    NoMasterKey { place: String },
    #[error("the database could not be prepared")]
    Database(#[from] sqlx::Error),
}

/// Brings a database up to this binary's schema and hands out what a service needs.
///
/// # Errors
/// Each variant of [`Error`] is one line for an operator.
pub async fn migrate(
    owner: &str,
    options: Options,
    source: &dyn MasterKeySource,
) -> Result<Provisioned, Error> {
    if let Some(role) = options.service_role.as_deref().filter(|role| !role::is_ours(role)) {
        return Err(Error::ServiceRole(role.to_owned()));
    }
    let owner = parse_url(owner)?.application_name("rollcall-migrate").disable_statement_logging();
    let not_owner = || Error::NotOwner { user: owner.get_username().to_owned() };
    if role::is_ours(owner.get_username()) {
        return Err(not_owner());
    }
    let mut connection = connect(&owner).await?;
    check_server(&mut connection).await?;
    if owns(&mut connection).await? == Some(false) {
        return Err(not_owner());
    }

    sqlx::query("SELECT pg_advisory_lock($1)").bind(TURN).execute(&mut connection).await?;
    connection
        .execute("SET client_min_messages = warning; CREATE SCHEMA IF NOT EXISTS log; SET search_path = log")
        .await?;
    MIGRATIONS.run(&mut connection).await.map_err(|error| match error {
        MigrateError::VersionMismatch(_) => Error::BeforeRelease,
        other => Error::Migrate(other),
    })?;
    connection.execute("RESET search_path").await?;
    #[cfg(rollcall_break = "contiguity")]
    count_what_is_refused(&mut connection).await?;

    let Meta { log_id, first_log_id, partitions, service_role } =
        settle_meta(&mut connection, options.partitions).await?;
    let master = settle_master_key(&mut connection, source).await?;
    let service_role = options.service_role.unwrap_or(service_role);
    role::settle(&mut connection, &service_role, first_log_id, &master).await?;
    // Only now: a role that was refused must not be the one that services look for.
    sqlx::query("UPDATE log.meta SET service_role = $1 WHERE service_role <> $1")
        .bind(&service_role)
        .execute(&mut connection)
        .await?;
    let service = role::session(&owner, &service_role, &master);
    let keys = settle_digest_root(&mut connection, master, first_log_id).await?;
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(TURN).execute(&mut connection).await?;
    connection.close().await?;
    Ok(Provisioned { log_id, first_log_id, partitions, service, keys })
}

/// What a build with a broken guard does: positions count what is refused, as a sequence does.
#[cfg(rollcall_break = "contiguity")]
async fn count_what_is_refused(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let append: String = sqlx::query_scalar("SELECT pg_get_functiondef('log.append'::regproc)")
        .fetch_one(&mut *connection)
        .await?;
    let counts = "CASE WHEN kept THEN ranks[n] END";
    let guard = "CASE WHEN kept THEN count(*) FILTER (WHERE kept) OVER (PARTITION BY partitions[append] ORDER BY n) END";
    assert!(append.contains(guard) || append.contains(counts), "the guard is there to be broken");
    connection.execute(append.replace(guard, counts).as_str()).await?;
    Ok(())
}

/// What a PostgreSQL URL says.
///
/// # Errors
/// [`Error::Url`]; the driver itself takes every scheme for its own.
pub fn parse_url(url: &str) -> Result<PgConnectOptions, Error> {
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Err(Error::Url);
    }
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters).split('&');
    let names =
        parameters.filter_map(|parameter| parameter.split('=').next()).filter(|name| !name.is_empty());
    // The driver passes over what it does not know, and a mistyped sslmode would be no check of the server at all.
    if let Some(unknown) =
        names.into_iter().find(|name| !PARAMETERS.contains(name) && !name.starts_with("options["))
    {
        return Err(Error::UrlParameter(unknown.to_owned()));
    }
    // What the driver says of a URL may quote it, password and all.
    PgConnectOptions::from_str(url).map_err(|_| Error::Url)
}

async fn connect(named: &PgConnectOptions) -> Result<PgConnection, Error> {
    bounded(PgConnection::connect_with(named)).await.map_err(|error| {
        // Class 28: invalid authorization.
        let code = error.as_database_error().and_then(|error| error.code());
        if code.is_some_and(|code| code.starts_with("28")) && role::is_ours(named.get_username()) {
            return Error::ServiceLogin { role: named.get_username().to_owned() };
        }
        Error::Unreachable {
            at: format!("{}:{}", named.get_host(), named.get_port()),
            // The driver's message repeats its cause.
            why: match error {
                sqlx::Error::Io(cause) => cause.to_string(),
                other => other.to_string(),
            },
        }
    })
}

/// Whether a URL leads to a log that is there, with its owner's rights.
///
/// # Errors
/// [`Error::NotOwner`] where it is somebody else's, the service's role, for example.
pub async fn check_owner(url: &str) -> Result<(), Error> {
    Ok(connect_as_owner(url, "rollcall-check").await?.close().await?)
}

/// Whether the log is the connection's own; none where there is no log.
async fn owns(connection: &mut PgConnection) -> Result<Option<bool>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('log.meta')",
    )
    .fetch_optional(connection)
    .await
}

/// A connection with the owner's rights to a log that is there.
pub(crate) async fn connect_as_owner(owner: &str, name: &str) -> Result<PgConnection, Error> {
    let owner = parse_url(owner)?
        .application_name(name)
        .options([("default_transaction_isolation", r"read\ committed")])
        .disable_statement_logging();
    let not_owner = || Error::NotOwner { user: owner.get_username().to_owned() };
    if role::is_ours(owner.get_username()) {
        return Err(not_owner());
    }
    let mut connection = connect(&owner).await?;
    check_server(&mut connection).await?;
    if !owns(&mut connection).await?.ok_or(Error::NotMigrated)? {
        return Err(not_owner());
    }
    let migrated = attach::newest_applied(&mut connection).await?;
    if migrated.is_none_or(|newest| newest < newest_migration()) {
        return Err(Error::NotMigrated);
    }
    read_meta(&mut connection).await?;
    Ok(connection)
}

async fn check_server(connection: &mut PgConnection) -> Result<(), Error> {
    let row =
        sqlx::query("SELECT current_setting('server_version_num')::int, current_setting('server_version')")
            .fetch_one(connection)
            .await?;
    if row.try_get::<i32, _>(0)? < 150_000 {
        return Err(Error::TooOld { found: row.try_get(1)? });
    }
    Ok(())
}

async fn settle_meta(connection: &mut PgConnection, partitions: Partition) -> Result<Meta, Error> {
    let log_id = Uuid::now_v7();
    sqlx::query(
        "WITH made AS (
             INSERT INTO log.meta (log_id, first_log_id, partitions, hash, service_role) VALUES ($1, $1, $2, $3, $4)
             ON CONFLICT DO NOTHING
             RETURNING partitions)
         INSERT INTO log.partitions (partition) SELECT p FROM made, generate_series(0, made.partitions - 1) AS p",
    )
    .bind(log_id)
    .bind(i32::from(partitions))
    .bind(HASH)
    .bind(role::named_after(log_id))
    .execute(&mut *connection)
    .await?;
    read_meta(connection).await
}

/// What is known about a log.
struct Meta {
    log_id: Uuid,
    first_log_id: Uuid,
    partitions: Partition,
    service_role: String,
}

async fn read_meta(connection: &mut PgConnection) -> Result<Meta, Error> {
    let row =
        sqlx::query("SELECT log_id, partitions, hash, requires, service_role, first_log_id FROM log.meta")
            .fetch_optional(connection)
            .await?
            // A migration that broke off before it came to this.
            .ok_or(Error::NotMigrated)?;
    let (hash, requires): (String, i64) = (row.try_get(2)?, row.try_get(3)?);
    if requires > newest_migration() {
        return Err(Error::SchemaNewer(requires));
    }
    if hash != HASH {
        return Err(Error::Hash { found: hash });
    }
    let partitions = Partition::try_from(row.try_get::<i32, _>(1)?).expect("the table checks the number");
    Ok(Meta {
        log_id: row.try_get(0)?,
        first_log_id: row.try_get(5)?,
        partitions,
        service_role: row.try_get(4)?,
    })
}

/// The newest migration that this binary knows.
fn newest_migration() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
}

async fn settle_master_key(
    connection: &mut PgConnection,
    source: &dyn MasterKeySource,
) -> Result<MasterKey, Error> {
    let proof = read_proof(connection).await?;
    let existing = source.existing().map_err(Error::MasterKeySource)?;
    match (proof, existing) {
        (Some(proof), Some(master)) => check_master_key(&proof, master, source),
        (Some(_), None) => Err(Error::NoMasterKey { place: source.place() }),
        (None, existing) => {
            // The file first: a row without its file would lock everybody out.
            let master = match existing {
                Some(master) => master,
                None => source.create().map_err(Error::MasterKeySource)?,
            };
            sqlx::query("INSERT INTO vault.master_keys (generation, proof) VALUES ($1, $2)")
                .bind(GENERATION)
                .bind(&master.prove(b"proof")[..])
                .execute(connection)
                .await?;
            Ok(master)
        }
    }
}

async fn read_proof(connection: &mut PgConnection) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar("SELECT proof FROM vault.master_keys ORDER BY generation DESC LIMIT 1")
        .fetch_optional(connection)
        .await
}

fn check_master_key(
    proof: &[u8],
    master: MasterKey,
    source: &dyn MasterKeySource,
) -> Result<MasterKey, Error> {
    if proof == master.prove(b"proof") {
        Ok(master)
    } else {
        Err(Error::WrongMasterKey { place: source.place() })
    }
}

async fn settle_digest_root(
    connection: &mut PgConnection,
    master: MasterKey,
    first_log_id: Uuid,
) -> Result<Keys, Error> {
    let context = digest_context(first_log_id);
    let mut root = [0; DIGEST_ROOT_BYTES];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut root);
    sqlx::query(
        "INSERT INTO vault.digest_keys (generation, master_generation, wrapped) VALUES ($1, $1, $2)
         ON CONFLICT DO NOTHING",
    )
    .bind(GENERATION)
    .bind(master.wrap(&context, &root))
    .execute(&mut *connection)
    .await?;
    read_keys(connection, master, first_log_id).await
}

fn digest_context(first_log_id: Uuid) -> Vec<u8> {
    [b"digest root ".as_slice(), first_log_id.as_bytes()].concat()
}

async fn read_keys(
    connection: &mut PgConnection,
    master: MasterKey,
    first_log_id: Uuid,
) -> Result<Keys, Error> {
    let wrapped: Vec<u8> = sqlx::query_scalar("SELECT wrapped FROM vault.digest_keys WHERE generation = $1")
        .bind(GENERATION)
        .fetch_optional(connection)
        .await?
        .ok_or(Error::NotMigrated)?;
    let root = master
        .unwrap(&digest_context(first_log_id), &wrapped)
        .expect("the master key was proved right a moment ago");
    Ok(Keys::new(master, GENERATION, &root, GENERATION))
}
