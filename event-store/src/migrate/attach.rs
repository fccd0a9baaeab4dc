//! Finds a log that was migrated before, for a process that only serves.

use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

use super::{
    Error, MasterKey, MasterKeySource, Meta, Provisioned, check_master_key, check_server, connect,
    newest_migration, parse_url, read_keys, read_meta, read_proof, role,
};

/// SQLSTATE of a privilege that is missing.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Hands out what a service needs to work on the log at `url`, and changes nothing there. The URL is the owner's, or
/// one of the service's role, which needs no password in it. Whatever the URL names, the service then works as its own
/// role.
///
/// # Errors
/// Each variant of [`Error`] is one line for an operator; [`Error::NotMigrated`] where [`migrate`](super::migrate()) of
/// this version has yet to run.
pub async fn attach(url: &str, source: &dyn MasterKeySource) -> Result<Provisioned, Error> {
    let master = source
        .existing()
        .map_err(Error::MasterKeySource)?
        .ok_or_else(|| Error::NoMasterKey { place: source.place() })?;
    let named = session_for(url, &master)?.application_name("rollcall-attach").disable_statement_logging();
    let mut connection = connect(&named).await?;
    check_server(&mut connection).await?;
    let migrated = newest_applied(&mut connection).await.map_err(|error| may_not_read(&named, error))?;
    if migrated.is_none_or(|newest| newest < newest_migration()) {
        return Err(Error::NotMigrated);
    }
    let Meta { log_id, first_log_id, partitions, service_role } = read_meta(&mut connection).await?;
    let proof = read_proof(&mut connection).await?.ok_or(Error::NotMigrated)?;
    let master = check_master_key(&proof, master, source)?;
    let service = role::session(&named, &service_role, &master);
    let keys = read_keys(&mut connection, master, first_log_id).await?;
    connection.close().await?;
    Ok(Provisioned { log_id, first_log_id, partitions, service, keys })
}

/// What a URL says; where it names the service's role, with the password that follows from the master key.
///
/// # Errors
/// [`Error::Url`].
pub fn session_for(url: &str, master: &MasterKey) -> Result<PgConnectOptions, Error> {
    let named = parse_url(url)?;
    let role = named.get_username().to_owned();
    Ok(if role::is_ours(&role) { role::session(&named, &role, master) } else { named })
}

/// The newest migration that was applied; none where there is no log.
pub(super) async fn newest_applied(connection: &mut PgConnection) -> Result<Option<i64>, sqlx::Error> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('log._sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT max(version) FROM log._sqlx_migrations WHERE success")
        .fetch_one(connection)
        .await
}

fn may_not_read(named: &PgConnectOptions, error: sqlx::Error) -> Error {
    match error.as_database_error().and_then(|error| error.code()) {
        Some(code) if code == INSUFFICIENT_PRIVILEGE => {
            Error::MayNotRead { user: named.get_username().to_owned() }
        }
        _ => Error::Database(error),
    }
}
