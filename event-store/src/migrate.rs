//! Makes and checks the log's tables, the service's role and the vault. Runs with the owner's rights, once at a start;
//! safe to run twice and at once.

use std::str::FromStr;

use sqlx::{
    ConnectOptions, Connection, Executor, PgConnection, Row,
    migrate::{MigrateError, Migrator},
    postgres::PgConnectOptions,
};
use uuid::Uuid;

use crate::{
    Partition, bounded,
    keys::{Keys, MasterKey},
};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Advisory lock that makes concurrent starts take turns; "rollcall" in ASCII.
const TURN: i64 = 0x726f_6c6c_6361_6c6c;

const HASH: &str = "sha256";
const GENERATION: i32 = 1;
const DIGEST_ROOT_BYTES: usize = 32;

/// What the first migration fixes for the life of a log.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub partitions: Partition,
}

impl Default for Options {
    fn default() -> Self {
        Self { partitions: 16 }
    }
}

/// What a service needs to work on a migrated log.
pub struct Provisioned {
    pub log_id: Uuid,
    pub partitions: Partition,
    /// Connects as a role that may insert and select events, not update or delete them.
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
        "the database's schema is newer than this binary (it has migration {0}, which this binary does not know): \
         start a newer rollcall"
    )]
    SchemaNewer(i64),
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
    let owner = parse_url(owner)?.application_name("rollcall-migrate").disable_statement_logging();
    let mut connection = connect(&owner).await?;
    check_server(&mut connection).await?;

    sqlx::query("SELECT pg_advisory_lock($1)").bind(TURN).execute(&mut connection).await?;
    connection
        .execute("SET client_min_messages = warning; CREATE SCHEMA IF NOT EXISTS log; SET search_path = log")
        .await?;
    MIGRATIONS.run(&mut connection).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => Error::SchemaNewer(version),
        other => Error::Migrate(other),
    })?;
    connection.execute("RESET search_path").await?;

    let (log_id, partitions) = settle_meta(&mut connection, options).await?;
    let master = settle_master_key(&mut connection, source).await?;
    let service = settle_role(&mut connection, &owner, log_id, &master).await?;
    let keys = settle_digest_root(&mut connection, master, log_id).await?;
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(TURN).execute(&mut connection).await?;
    connection.close().await?;
    Ok(Provisioned { log_id, partitions, service, keys })
}

/// What a PostgreSQL URL says.
///
/// # Errors
/// [`Error::Url`]; the driver itself takes every scheme for its own.
pub fn parse_url(url: &str) -> Result<PgConnectOptions, Error> {
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Err(Error::Url);
    }
    // What the driver says of a URL may quote it, password and all.
    PgConnectOptions::from_str(url).map_err(|_| Error::Url)
}

async fn connect(owner: &PgConnectOptions) -> Result<PgConnection, Error> {
    bounded(PgConnection::connect_with(owner)).await.map_err(|error| Error::Unreachable {
        at: format!("{}:{}", owner.get_host(), owner.get_port()),
        // The driver's message repeats its cause.
        why: match error {
            sqlx::Error::Io(cause) => cause.to_string(),
            other => other.to_string(),
        },
    })
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

async fn settle_meta(connection: &mut PgConnection, options: Options) -> Result<(Uuid, Partition), Error> {
    sqlx::query(
        "WITH made AS (
             INSERT INTO log.meta (log_id, partitions, hash) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
             RETURNING partitions)
         INSERT INTO log.partitions (partition, position, recorded_at)
         SELECT p, 0, '-infinity' FROM made, generate_series(0, made.partitions - 1) AS p",
    )
    .bind(Uuid::now_v7())
    .bind(i32::from(options.partitions))
    .bind(HASH)
    .execute(&mut *connection)
    .await?;
    let row = sqlx::query("SELECT log_id, partitions, hash FROM log.meta").fetch_one(connection).await?;
    let hash: String = row.try_get(2)?;
    if hash != HASH {
        return Err(Error::Hash { found: hash });
    }
    let partitions = Partition::try_from(row.try_get::<i32, _>(1)?).expect("the table checks the number");
    Ok((row.try_get(0)?, partitions))
}

async fn settle_master_key(
    connection: &mut PgConnection,
    source: &dyn MasterKeySource,
) -> Result<MasterKey, Error> {
    let proof: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT proof FROM vault.master_keys ORDER BY generation DESC LIMIT 1")
            .fetch_optional(&mut *connection)
            .await?;
    let existing = source.existing().map_err(Error::MasterKeySource)?;
    match (proof, existing) {
        (Some(proof), Some(master)) if proof == master.prove(b"proof") => Ok(master),
        (Some(_), Some(_)) => Err(Error::WrongMasterKey { place: source.place() }),
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

async fn settle_digest_root(
    connection: &mut PgConnection,
    master: MasterKey,
    log_id: Uuid,
) -> Result<Keys, Error> {
    let context = [b"digest root ".as_slice(), log_id.as_bytes()].concat();
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
    let wrapped: Vec<u8> = sqlx::query_scalar("SELECT wrapped FROM vault.digest_keys WHERE generation = $1")
        .bind(GENERATION)
        .fetch_one(connection)
        .await?;
    let root = master.unwrap(&context, &wrapped).expect("the master key was proved right a moment ago");
    Ok(Keys::new(master, GENERATION, &root, GENERATION))
}

/// The role that every service connects as: named after the log, because roles are shared by a cluster's databases.
async fn settle_role(
    connection: &mut PgConnection,
    owner: &PgConnectOptions,
    log_id: Uuid,
    master: &MasterKey,
) -> Result<PgConnectOptions, Error> {
    let id = log_id.simple().to_string();
    let role = format!("rollcall_service_{}", &id[id.len() - 12..]);
    let password = hex::encode(master.prove(&[b"service role ".as_slice(), log_id.as_bytes()].concat()));
    // Identifiers and passwords cannot be bound; both are made of [a-z0-9_] alone.
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
        .bind(&role)
        .fetch_one(&mut *connection)
        .await?;
    let verb = if exists { "ALTER" } else { "CREATE" };
    connection
        .execute(format!("{verb} ROLE {role} LOGIN NOINHERIT PASSWORD '{password}'").as_str())
        .await
        .map_err(|source| Error::MayNotCreateRole { role: role.clone(), source })?;
    connection
        .execute(
            format!(
                "GRANT USAGE ON SCHEMA log, vault TO {role};
                 GRANT SELECT ON ALL TABLES IN SCHEMA log TO {role};
                 GRANT SELECT ON vault.data_keys, vault.tombstones TO {role};
                 GRANT INSERT ON log.events, log.claims, log.commands, vault.data_keys TO {role};
                 GRANT UPDATE ON log.partitions TO {role};
                 GRANT DELETE ON log.claims, log.commands TO {role};"
            )
            .as_str(),
        )
        .await?;
    Ok(owner.clone().username(&role).password(&password))
}
