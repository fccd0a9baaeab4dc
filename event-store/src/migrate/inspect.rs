//! Looks at a database as an operator would, before anything depends on it.

use sqlx::{ConnectOptions, Connection, Row, postgres::PgConnectOptions};

use super::{Error, check_server, connect};

/// What a PostgreSQL is and how it is set.
#[derive(Clone, Debug)]
pub struct Server {
    pub version: String,
    pub user: String,
    pub encoding: String,
    /// `fsync`, `full_page_writes` and `synchronous_commit`: what "acknowledged means stored" rests on. By name and value,
    /// those alone that are not as they must be.
    pub unsafe_settings: Vec<(String, String)>,
    pub checksums: bool,
    /// Connections that are not taken, beyond those that are kept for superusers.
    pub connections_free: i64,
    /// How far this machine's clock is ahead of the server's.
    pub clock_ahead_ms: i64,
    /// Whether it may make the role that services work as.
    pub may_create_roles: bool,
}

/// Asks as the user that `options` names.
///
/// # Errors
/// [`Error::Unreachable`], [`Error::TooOld`].
pub async fn inspect(options: &PgConnectOptions) -> Result<Server, Error> {
    let options = options.clone().application_name("rollcall-doctor").disable_statement_logging();
    let mut connection = connect(&options).await?;
    check_server(&mut connection).await?;
    let row = sqlx::query(
        "SELECT current_setting('server_version'), current_user::text, current_setting('server_encoding'),
                ARRAY(SELECT name || '=' || setting FROM pg_settings
                      WHERE name IN ('fsync', 'full_page_writes') AND setting <> 'on'
                         OR name = 'synchronous_commit' AND setting = 'off' ORDER BY name),
                current_setting('data_checksums') = 'on',
                current_setting('max_connections')::int8 - current_setting('superuser_reserved_connections')::int8
                    - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
                (extract(epoch FROM clock_timestamp()) * 1000)::int8,
                (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user)",
    )
    .fetch_one(&mut connection)
    .await?;
    let settings: Vec<String> = row.try_get(3)?;
    let server_ms: i64 = row.try_get(6)?;
    let server = Server {
        version: row.try_get(0)?,
        user: row.try_get(1)?,
        encoding: row.try_get(2)?,
        unsafe_settings: settings
            .iter()
            .filter_map(|setting| setting.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        checksums: row.try_get(4)?,
        connections_free: row.try_get(5)?,
        clock_ahead_ms: chrono::Utc::now().timestamp_millis() - server_ms,
        may_create_roles: row.try_get(7)?,
    };
    connection.close().await?;
    Ok(server)
}
