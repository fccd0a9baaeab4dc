//! Makes the read models' tables, and what projectors keep beside them: checkpoints, leases, members, parked
//! streams.

use rollcall_event_store::{bounded, session};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, postgres::PgConnectOptions};

use crate::{audit, parking, profiles, publisher, schema::Schema};

/// The read models that live in PostgreSQL.
const SCHEMAS: [&Schema; 2] = [&profiles::SCHEMA, &audit::SCHEMA];

const CHECKPOINTS: &str = "
    CREATE SCHEMA IF NOT EXISTS projections;
    CREATE TABLE IF NOT EXISTS projections.checkpoints (
        projection text    NOT NULL,
        version    integer NOT NULL,
        partition  integer NOT NULL,
        position   bigint  NOT NULL,
        -- Of the lease under which it may be moved.
        epoch      bigint  NOT NULL DEFAULT 0,
        PRIMARY KEY (projection, version, partition)
    ) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
    -- Who may work on what. The epoch rises with every holder.
    CREATE TABLE IF NOT EXISTS projections.leases (
        projection text        NOT NULL,
        version    integer     NOT NULL,
        unit       integer     NOT NULL,
        epoch      bigint      NOT NULL DEFAULT 0,
        holder     uuid,
        taken_at   timestamptz,
        PRIMARY KEY (projection, version, unit)
    );
    -- The processes that share the work, and when each was last heard of.
    CREATE TABLE IF NOT EXISTS projections.members (
        member   uuid        PRIMARY KEY,
        process  text        NOT NULL,
        works    text[]      NOT NULL,
        heard_at timestamptz NOT NULL
    ) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
    -- How far the JetStream stream has come: its last sequence when the publisher's checkpoints were written.
    CREATE TABLE IF NOT EXISTS projections.published (
        only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        stream_sequence bigint  NOT NULL
    );
    INSERT INTO projections.published (stream_sequence) VALUES (0) ON CONFLICT DO NOTHING;";

/// Advisory lock that makes concurrent starts take turns; "projecti" in ASCII.
const TURN: i64 = 0x7072_6f6a_6563_7469;

/// Makes what is missing, with the owner's rights; safe to run twice and at once.
///
/// # Errors
/// Where the database refuses.
pub async fn migrate(
    owner: &PgConnectOptions,
    service_role: &str,
    partitions: u16,
) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect_with(&owner.clone().disable_statement_logging()).await?;
    sqlx::query("SELECT pg_advisory_lock($1)").bind(TURN).execute(&mut connection).await?;
    connection.execute("SET client_min_messages = warning").await?;
    let mut transaction = connection.begin().await?;
    transaction.execute(CHECKPOINTS).await?;
    transaction.execute(parking::table::TABLES).await?;
    grant(&mut transaction, "projections", service_role).await?;
    for schema in SCHEMAS {
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
            .bind(schema.qualifier())
            .fetch_one(&mut *transaction)
            .await?;
        if !exists {
            transaction.execute(schema.sql("CREATE SCHEMA {schema}").as_str()).await?;
            transaction.execute(schema.sql(schema.tables).as_str()).await?;
        }
        grant(&mut transaction, &schema.qualifier(), service_role).await?;
    }
    let kept = SCHEMAS.iter().map(|schema| (schema.name, schema.version));
    for (name, version) in kept.chain([(publisher::NAME, publisher::VERSION)]) {
        sqlx::query(
            "INSERT INTO projections.checkpoints (projection, version, partition, position)
             SELECT $1, $2, p, 0 FROM generate_series(0, $3 - 1) AS p ON CONFLICT DO NOTHING",
        )
        .bind(name)
        .bind(version)
        .bind(i32::from(partitions))
        .execute(&mut *transaction)
        .await?;
        // The publisher's work is not cut: events of all partitions go into one stream.
        let units = if name == publisher::NAME { 1 } else { partitions };
        sqlx::query(
            "INSERT INTO projections.leases (projection, version, unit)
             SELECT $1, $2, u FROM generate_series(0, $3 - 1) AS u ON CONFLICT DO NOTHING",
        )
        .bind(name)
        .bind(version)
        .bind(i32::from(units))
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    connection.close().await
}

/// Whether the read models that this binary knows are there, for a process that only serves.
///
/// # Errors
/// [`Missing::Tables`] where the owner's migration of this version has yet to run.
pub async fn check(service: &PgConnectOptions, partitions: u16) -> Result<(), Missing> {
    let kept = SCHEMAS.iter().map(|schema| (schema.name, schema.version));
    let (names, versions): (Vec<&str>, Vec<i32>) =
        kept.chain([(publisher::NAME, publisher::VERSION)]).unzip();
    let mut connection = bounded(PgConnection::connect_with(&session(service, "rollcall-check"))).await?;
    let made: bool = sqlx::query_scalar(
        "SELECT to_regclass('projections.checkpoints') IS NOT NULL
            AND to_regclass('projections.parked') IS NOT NULL",
    )
    .fetch_one(&mut connection)
    .await?;
    if !made {
        return Err(Missing::Tables);
    }
    let complete: Option<bool> = sqlx::query_scalar(
        "SELECT bool_and((SELECT count(*) FROM projections.checkpoints c
                          WHERE c.projection = w.name AND c.version = w.version) = $3)
         FROM unnest($1::text[], $2::int4[]) AS w(name, version)",
    )
    .bind(names)
    .bind(versions)
    .bind(i64::from(partitions))
    .fetch_one(&mut connection)
    .await?;
    connection.close().await?;
    if complete == Some(true) { Ok(()) } else { Err(Missing::Tables) }
}

/// What [`check`] finds.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    #[error("the read models' tables are not there: run \"rollcall migrate\" of this version first")]
    Tables,
    #[error("the read models could not be looked at")]
    Database(#[from] sqlx::Error),
}

async fn grant(connection: &mut PgConnection, schema: &str, role: &str) -> Result<(), sqlx::Error> {
    // Identifiers cannot be bound; all of these are made by this program.
    connection
        .execute(
            format!(
                "GRANT USAGE ON SCHEMA {schema} TO {role};
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}"
            )
            .as_str(),
        )
        .await?;
    Ok(())
}
