//! The role that services connect as: it may read the log and append to it by `log.append`, and neither insert, update nor
//! delete events in any other way.

use sqlx::{Executor, PgConnection, postgres::PgConnectOptions};
use uuid::Uuid;

use super::Error;
use crate::keys::MasterKey;

/// What its name begins with.
pub(super) const PREFIX: &str = "rollcall_service";

/// The service's role unless somebody names another: roles are shared by a cluster's databases.
pub(super) fn named_after(log_id: Uuid) -> String {
    let id = log_id.simple().to_string();
    format!("{PREFIX}_{}", &id[id.len() - 12..])
}

pub(super) fn is_ours(role: &str) -> bool {
    role.strip_prefix(PREFIX).is_some_and(|rest| {
        rest.len() <= 40 && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    })
}

/// A session of the service's role, whose password follows from the master key and its name: a service can be given a
/// URL without any.
pub(super) fn session(database: &PgConnectOptions, role: &str, master: &MasterKey) -> PgConnectOptions {
    database.clone().username(role).password(&password(role, master))
}

fn password(role: &str, master: &MasterKey) -> String {
    hex::encode(master.prove(format!("service role {role}").as_bytes()))
}

pub(super) async fn settle(
    connection: &mut PgConnection,
    role: &str,
    first_log_id: Uuid,
    master: &MasterKey,
) -> Result<(), Error> {
    // Identifiers and passwords cannot be bound; both are made of [a-z0-9_] alone.
    let password = password(role, master);
    // Roles are the cluster's; a comment says whose this one is.
    let ours = format!("Rollcall, log {first_log_id}");
    let comment: Option<Option<String>> =
        sqlx::query_scalar("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1")
            .bind(role)
            .fetch_optional(&mut *connection)
            .await?;
    let verb = match comment {
        None => "CREATE",
        Some(Some(owner)) if owner == ours => "ALTER",
        Some(owner) => {
            let owner = owner.unwrap_or_else(|| "somebody else".to_owned());
            return Err(Error::RoleTaken { role: role.to_owned(), owner });
        }
    };
    connection
        .execute(
            // One text is one transaction: a role never stays behind that belongs to nobody.
            format!(
                "{verb} ROLE {role} LOGIN NOINHERIT PASSWORD '{password}'; COMMENT ON ROLE {role} IS '{ours}'"
            )
            .as_str(),
        )
        .await
        .map_err(|source| Error::MayNotCreateRole { role: role.to_owned(), source })?;
    connection
        .execute(
            // Whatever a restore without privileges left behind.
            format!(
                "GRANT USAGE ON SCHEMA log, vault TO {role};
                 GRANT SELECT ON ALL TABLES IN SCHEMA log, vault TO {role};
                 REVOKE ALL ON FUNCTION log.append FROM PUBLIC;
                 GRANT EXECUTE ON FUNCTION log.append TO {role};
                 GRANT INSERT ON log.halt TO {role};
                 GRANT INSERT, UPDATE ON log.snapshots TO {role};
                 GRANT DELETE ON log.commands TO {role};"
            )
            .as_str(),
        )
        .await?;
    Ok(())
}
