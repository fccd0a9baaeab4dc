//! Makes the read models' tables, and what projectors keep beside them: versions, checkpoints, leases, members, parked
//! streams.

use std::time::Duration;

use rollcall_event_store::{bounded, session};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, Row, postgres::PgConnectOptions};
use tokio::time::{Instant, sleep};

use crate::{
    audit, checkpoint, parking, profiles, publisher,
    schema::{Schema, Version},
};

/// The read models that live in PostgreSQL.
pub const SCHEMAS: [&Schema; 2] = [&profiles::SCHEMA, &audit::SCHEMA];

const TABLES: &str = "
    CREATE SCHEMA IF NOT EXISTS projections;
    -- The versions of each read model that there are; all of them are fed.
    CREATE TABLE IF NOT EXISTS projections.versions (
        projection   text        NOT NULL,
        version      integer     NOT NULL,
        shape        integer     NOT NULL,
        made_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
        -- When it had all of its indexes; readers come after that.
        indexed_at   timestamptz,
        -- When it first had come as far as the log; nothing reads it before.
        caught_up_at timestamptz,
        -- When one that serves by itself was found to be what the log says, or not to be.
        checked_at   timestamptz,
        wrong_at     timestamptz,
        -- When it last began to serve; none where it never has.
        served_at    timestamptz,
        PRIMARY KEY (projection, version)
    );
    -- The last number that was given to a version of each read model. Numbers are not given again: who still works with one
    -- that is gone must not meet another version under it.
    CREATE TABLE IF NOT EXISTS projections.numbers (
        projection text    PRIMARY KEY,
        version    integer NOT NULL
    );
    -- The one version that queries of a shape read.
    CREATE TABLE IF NOT EXISTS projections.serving (
        projection text        NOT NULL,
        shape      integer     NOT NULL,
        version    integer     NOT NULL,
        since      timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (projection, shape)
    );
    -- One row for each partition. The position stands in the key, so that a look-up finds the row's newest version at once: as
    -- long as some transaction holds an old snapshot, the versions of rows that are moved a hundred times a second cannot be
    -- tidied up, and whoever looked for them by partition alone would walk over them all.
    CREATE TABLE IF NOT EXISTS projections.checkpoints (
        projection text    NOT NULL,
        version    integer NOT NULL,
        partition  integer NOT NULL,
        position   bigint  NOT NULL,
        -- Of the lease under which it may be moved.
        epoch      bigint  NOT NULL DEFAULT 0,
        PRIMARY KEY (projection, version, partition, position)
    ) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
    CREATE OR REPLACE VIEW projections.positions AS
    SELECT v.projection, v.version, p.partition, c.position
    FROM projections.versions v
    CROSS JOIN log.partitions p
    CROSS JOIN LATERAL (
        SELECT c.position FROM projections.checkpoints c
        WHERE c.projection = v.projection AND c.version = v.version AND c.partition = p.partition
        ORDER BY c.position DESC LIMIT 1) c;
    -- Who may work on what. The epoch rises with every holder.
    CREATE TABLE IF NOT EXISTS projections.leases (
        projection text        NOT NULL,
        version    integer     NOT NULL,
        unit       integer     NOT NULL,
        epoch      bigint      NOT NULL DEFAULT 0,
        holder     uuid,
        taken_at   timestamptz,
        -- What keeps its holder from going on; no personal data.
        trouble    text,
        PRIMARY KEY (projection, version, unit)
    );
    -- The processes that share the work, and when each was last heard of.
    CREATE TABLE IF NOT EXISTS projections.members (
        member   uuid        PRIMARY KEY,
        process  text        NOT NULL,
        works    text[]      NOT NULL,
        heard_at timestamptz NOT NULL,
        -- Versions that it would rather leave to others for a while.
        declines text[]      NOT NULL DEFAULT '{}'
    ) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
    -- How far the JetStream stream has come: its last sequence when the publisher's checkpoints were written. One row, which
    -- is looked up as checkpoints are.
    CREATE TABLE IF NOT EXISTS projections.published (
        stream_sequence bigint PRIMARY KEY
    ) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
    INSERT INTO projections.published (stream_sequence) SELECT 0 WHERE NOT EXISTS (SELECT FROM projections.published);";

/// Advisory lock that makes concurrent starts take turns; "projecti" in ASCII.
const TURN: i64 = 0x7072_6f6a_6563_7469;

/// The turn of who works on the versions of one read model, for hours perhaps: a start need not wait for that.
pub fn turn_of(projection: &str) -> i64 {
    projection.bytes().fold(TURN, |turn, byte| turn.rotate_left(7) ^ i64::from(byte))
}

/// With a version's number, the advisory lock of who pauses work on it. A session holds it, so that no pause outlives who
/// began it; members look for it ([`leases`](crate::leases)).
pub(crate) fn pause_of(projection: &str) -> i32 {
    let folded =
        projection.bytes().fold(0x7061_7573_u32, |folded, byte| folded.rotate_left(5) ^ u32::from(byte));
    // Not negative: PostgreSQL shows it as an unsigned number.
    (folded & 0x7fff_ffff).cast_signed()
}

/// How long making indexes waits until nobody works on the version. Who does not let go in time meets their lock.
const PAUSES_WITHIN: Duration = Duration::from_secs(3);
const LOOKS_EVERY: Duration = Duration::from_millis(20);
/// From what size of a version's tables on. Indexes of less are made in the second that pausing costs, and batches may wait
/// for that.
const PAUSES_FROM_BYTES: i64 = 64 << 20;
/// How long each lock of a version that is dropped is waited for; whoever wants the tables queues behind that.
const DROPS_LOCK_WITHIN: &str = "SET LOCAL lock_timeout = '2s'";
/// How long a version is tried to be dropped, and how long others have theirs in between.
const DROPS_WITHIN: Duration = Duration::from_secs(10);
const DROPS_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often who waits for its turn asks again. A statement that waited for it would hold a snapshot all the while.
const TURN_ASKED_EVERY: Duration = Duration::from_millis(100);

/// The owner of the read models, at work on them; others wait for their turn.
pub struct Owner {
    connection: PgConnection,
    service_role: String,
    partitions: u16,
}

impl Owner {
    /// `waits` is called where somebody else has the turn, once, with a session that does not have it.
    ///
    /// # Errors
    /// Where the database cannot be reached.
    pub async fn connect(
        owner: &PgConnectOptions,
        service_role: &str,
        partitions: u16,
        turn: i64,
        waits: impl AsyncFnOnce(&mut PgConnection) -> Result<(), sqlx::Error>,
    ) -> Result<Self, sqlx::Error> {
        // It may hold locks for hours: the server must notice where this host is gone.
        let owner = owner.clone().disable_statement_logging().options([
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
            // Also in the middle of a statement of hours, which would go on for nobody.
            ("client_connection_check_interval", "10s"),
            // Nor may a frozen one hold them for ever.
            ("idle_in_transaction_session_timeout", "60s"),
            // It has the turn while others fill the version.
            ("idle_session_timeout", "0"),
            ("default_transaction_isolation", r"read\ committed"),
        ]);
        let mut connection = bounded(PgConnection::connect_with(&owner)).await?;
        let mut waits = Some(waits);
        while !bounded(
            sqlx::query_scalar::<_, bool>("SELECT pg_try_advisory_lock($1)")
                .bind(turn)
                .fetch_one(&mut connection),
        )
        .await?
        {
            if let Some(waits) = waits.take() {
                waits(&mut connection).await?;
            }
            sleep(TURN_ASKED_EVERY).await;
        }
        bounded(connection.execute("SET client_min_messages = warning")).await?;
        Ok(Self { connection, service_role: service_role.to_owned(), partitions })
    }

    /// The session that has the turn: who lost it can write nothing with it.
    pub fn session(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Makes a further version of a read model, empty and without the indexes that only readers need; it is fed from now on.
    ///
    /// # Errors
    /// Where the database refuses.
    pub async fn make(&mut self, schema: &Schema) -> Result<i32, sqlx::Error> {
        let mut transaction = self.connection.begin().await?;
        let number = make(&mut transaction, (schema.name, schema.shape), self.partitions).await?;
        make_tables(&mut transaction, schema, number, &self.service_role).await?;
        transaction.commit().await?;
        Ok(number)
    }

    /// Makes the functions by which a version is written anew: an older binary of the same shape may have made it.
    ///
    /// # Errors
    /// Where the database refuses.
    pub async fn make_functions(&mut self, schema: &Schema, number: i32) -> Result<(), sqlx::Error> {
        let version = Version { projection: schema.name, number };
        let mut transaction = self.connection.begin().await?;
        // A migration makes them, too.
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(TURN).execute(&mut *transaction).await?;
        transaction.execute(version.sql(schema.functions).as_str()).await?;
        grant(&mut transaction, &version.qualifier(), &self.service_role).await?;
        transaction.commit().await
    }

    /// Makes the indexes of a version that has never served, where they are not there. Meanwhile nobody works on one that is
    /// large: batches would wait for the lock that this needs, until they fail.
    ///
    /// # Errors
    /// Where the database refuses.
    pub async fn make_indexes(&mut self, schema: &Schema, number: i32) -> Result<(), sqlx::Error> {
        let version = Version { projection: schema.name, number };
        let pause = |statement| sqlx::query(statement).bind(pause_of(schema.name)).bind(number);
        let pauses = self.size(version).await? >= PAUSES_FROM_BYTES;
        if pauses {
            // The server ends a session whose process froze, and with it the pause.
            bounded(self.connection.execute("SET idle_session_timeout = '60s'")).await?;
            bounded(pause("SELECT pg_advisory_lock($1, $2)").execute(&mut self.connection)).await?;
        }
        let made = async {
            if pauses {
                self.until_nobody_works(version).await?;
            }
            let sql = schema.indexes.replace("CREATE INDEX", "CREATE INDEX IF NOT EXISTS");
            let mut transaction = self.connection.begin().await?;
            transaction.execute("SET LOCAL maintenance_work_mem = '256MB'").await?;
            transaction.execute(version.sql(&sql).as_str()).await?;
            note_indexed(&mut transaction, schema.name, number).await?;
            transaction.commit().await
        }
        .await;
        if pauses {
            bounded(pause("SELECT pg_advisory_unlock($1, $2)").execute(&mut self.connection)).await?;
            bounded(self.connection.execute("SET idle_session_timeout = 0")).await?;
        }
        made
    }

    async fn size(&mut self, version: Version) -> Result<i64, sqlx::Error> {
        let size = sqlx::query_scalar(
            "SELECT coalesce(sum(pg_table_size(c.oid)), 0)::int8 FROM pg_class c
             WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r'",
        );
        bounded(size.bind(version.qualifier()).fetch_one(&mut self.connection)).await
    }

    async fn until_nobody_works(&mut self, version: Version) -> Result<(), sqlx::Error> {
        let begun = Instant::now();
        while begun.elapsed() < PAUSES_WITHIN {
            let held = sqlx::query_scalar::<_, bool>(
                "SELECT EXISTS (SELECT FROM projections.leases
                                WHERE projection = $1 AND version = $2 AND holder IS NOT NULL)",
            );
            let held = held.bind(version.projection).bind(version.number);
            if !bounded(held.fetch_one(&mut self.connection)).await? {
                return Ok(());
            }
            sleep(LOOKS_EVERY).await;
        }
        Ok(())
    }

    /// Takes a version away, with all that is kept of it. No reader may look at it any more. Who does all the same, as a
    /// backup, is waited for, but not for long at a time: whoever else wants the tables queues behind this.
    ///
    /// # Errors
    /// [`NotDropped::InUse`] where that does not end in time, or where the database refuses.
    pub async fn drop_version(&mut self, version: Version) -> Result<(), NotDropped> {
        let begun = Instant::now();
        loop {
            let error = match self.try_to_drop(version).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
            if !matches!(&*code, LOCK_NOT_AVAILABLE | DEADLOCK_DETECTED) {
                return Err(error.into());
            }
            if begun.elapsed() >= DROPS_WITHIN {
                return Err(NotDropped::InUse { by: self.users(version).await?, source: error });
            }
            sleep(DROPS_AGAIN_AFTER).await;
        }
    }

    /// In the order in which others lock: leases and checkpoints as whoever takes a lease, then tables and parked streams as
    /// a batch.
    async fn try_to_drop(&mut self, version: Version) -> Result<(), sqlx::Error> {
        let mut transaction = self.connection.begin().await?;
        transaction.execute(DROPS_LOCK_WITHIN).await?;
        for table in ["leases", "checkpoints"] {
            delete(&mut transaction, table, version).await?;
        }
        transaction.execute(version.sql("DROP SCHEMA IF EXISTS {schema} CASCADE").as_str()).await?;
        for table in ["parked", "skipped", "serving", "versions"] {
            delete(&mut transaction, table, version).await?;
        }
        transaction.commit().await
    }

    /// Who holds a version's tables, a few of them, by the names of their sessions.
    async fn users(&mut self, version: Version) -> Result<String, sqlx::Error> {
        let users: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT coalesce(nullif(a.application_name, ''), 'a session') || ' (process ' || a.pid || ')'
             FROM pg_locks l
             JOIN pg_class c ON c.oid = l.relation AND c.relnamespace = $1::regnamespace
             JOIN pg_stat_activity a ON a.pid = l.pid
             WHERE l.granted AND l.pid <> pg_backend_pid()
               AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
             ORDER BY 1 LIMIT 5",
        )
        .bind(version.qualifier())
        .fetch_all(&mut self.connection)
        .await?;
        Ok(if users.is_empty() { "others".to_owned() } else { users.join(", ") })
    }

    /// # Errors
    /// Where the connection broke.
    pub async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }
}

async fn delete(connection: &mut PgConnection, table: &str, version: Version) -> Result<(), sqlx::Error> {
    sqlx::query(&format!("DELETE FROM projections.{table} WHERE projection = $1 AND version = $2"))
        .bind(version.projection)
        .bind(version.number)
        .execute(connection)
        .await?;
    Ok(())
}

/// Why a version is still there.
#[derive(Debug, thiserror::Error)]
pub enum NotDropped {
    #[error("its tables are in use by {by}: run this again when that has ended")]
    InUse { by: String, source: sqlx::Error },
    #[error("the database refused")]
    Database(#[from] sqlx::Error),
}

/// SQLSTATEs of a lock that was not to be had in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";
const DEADLOCK_DETECTED: &str = "40P01";

/// Makes what is missing, with the owner's rights; safe to run twice and at once. A version of a shape that is new is
/// filled by whoever projects it, and serves once it has caught up and was checked; on an empty log it serves at once.
///
/// # Errors
/// Where the database refuses.
pub async fn migrate(
    owner: &PgConnectOptions,
    service_role: &str,
    partitions: u16,
) -> Result<(), sqlx::Error> {
    let mut owner = Owner::connect(owner, service_role, partitions, TURN, async |_| Ok(())).await?;
    let mut transaction = owner.connection.begin().await?;
    transaction.execute(TABLES).await?;
    transaction.execute(parking::table::TABLES).await?;
    transaction.execute(checkpoint::FUNCTIONS).await?;
    #[cfg(rollcall_break = "fencing")]
    {
        assert!(checkpoint::FUNCTIONS.contains("c.epoch = s.epoch"), "the guard is there to be broken");
        transaction.execute(checkpoint::FUNCTIONS.replace("c.epoch = s.epoch", "true").as_str()).await?;
    }
    transaction.execute(publisher::FUNCTIONS).await?;
    grant(&mut transaction, "projections", service_role).await?;
    let publisher = (publisher::NAME, publisher::SHAPE);
    for (name, shape) in SCHEMAS.iter().map(|schema| (schema.name, schema.shape)).chain([publisher]) {
        let made: Vec<(i32, i32, bool)> = sqlx::query_as(
            "SELECT version, shape, to_regnamespace(projection || '_' || version) IS NOT NULL
             FROM projections.versions WHERE projection = $1",
        )
        .bind(name)
        .fetch_all(&mut *transaction)
        .await?;
        let schema = SCHEMAS.into_iter().find(|schema| schema.name == name);
        // The role may be another one than it was. A schema that somebody dropped is not made again; a rebuild makes another.
        for &(number, of, there) in &made {
            if let Some(schema) = schema.filter(|_| there) {
                let version = Version { projection: schema.name, number };
                if of == schema.shape {
                    transaction.execute(version.sql(schema.functions).as_str()).await?;
                }
                grant(&mut transaction, &version.qualifier(), service_role).await?;
            }
        }
        if made.iter().any(|&(_, of, _)| of == shape) {
            continue;
        }
        let number = make(&mut transaction, (name, shape), partitions).await?;
        if let Some(schema) = schema {
            make_tables(&mut transaction, schema, number, service_role).await?;
            let version = Version { projection: schema.name, number };
            transaction.execute(version.sql(schema.indexes).as_str()).await?;
        }
        note_indexed(&mut transaction, name, number).await?;
        crate::versions::promote(&mut transaction, name, shape).await?;
    }
    transaction.commit().await?;
    owner.close().await
}

/// Notes a further version of a projection, and makes its checkpoints and leases. On an empty log there is nothing to check,
/// nor ever in what is published.
async fn make(
    connection: &mut PgConnection,
    (name, shape): (&str, i32),
    partitions: u16,
) -> Result<i32, sqlx::Error> {
    let number: i32 = sqlx::query_scalar(
        "WITH next AS (
             INSERT INTO projections.numbers AS n (projection, version) VALUES ($1, 1)
             ON CONFLICT (projection) DO UPDATE SET version = n.version + 1 RETURNING version)
         INSERT INTO projections.versions (projection, version, shape, caught_up_at, checked_at)
         SELECT $1, next.version, $2, CASE WHEN l.empty THEN clock_timestamp() END,
                CASE WHEN l.empty OR $3 THEN clock_timestamp() END
         FROM next, (SELECT NOT EXISTS (SELECT FROM log.events) AS empty) l
         RETURNING version",
    )
    .bind(name)
    .bind(shape)
    .bind(name == publisher::NAME)
    .fetch_one(&mut *connection)
    .await?;
    // The publisher's work is not cut: events of all partitions go into one stream.
    let units = if name == publisher::NAME { 1 } else { partitions };
    for (statement, count) in [
        (
            "INSERT INTO projections.checkpoints (projection, version, partition, position)
             SELECT $1, $2, p, 0 FROM generate_series(0, $3 - 1) AS p",
            partitions,
        ),
        (
            "INSERT INTO projections.leases (projection, version, unit)
             SELECT $1, $2, u FROM generate_series(0, $3 - 1) AS u",
            units,
        ),
    ] {
        sqlx::query(statement)
            .bind(name)
            .bind(number)
            .bind(i32::from(count))
            .execute(&mut *connection)
            .await?;
    }
    Ok(number)
}

/// Notes that a version has its indexes, in the transaction that makes them.
async fn note_indexed(
    connection: &mut PgConnection,
    projection: &str,
    number: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE projections.versions SET indexed_at = clock_timestamp() WHERE projection = $1 AND version = $2",
    )
    .bind(projection)
    .bind(number)
    .execute(connection)
    .await?;
    Ok(())
}

async fn make_tables(
    connection: &mut PgConnection,
    schema: &Schema,
    number: i32,
    service_role: &str,
) -> Result<(), sqlx::Error> {
    let version = Version { projection: schema.name, number };
    connection.execute(version.sql("CREATE SCHEMA {schema}").as_str()).await?;
    connection.execute(version.sql(schema.tables).as_str()).await?;
    connection.execute(version.sql(schema.functions).as_str()).await?;
    grant(connection, &version.qualifier(), service_role).await
}

/// Whether the read models that this binary knows are there, for a process that only serves.
///
/// # Errors
/// [`Missing::Tables`] where the owner's migration of this version has yet to run.
pub async fn check(service: &PgConnectOptions) -> Result<(), Missing> {
    let (mut names, mut shapes, mut writes) = (vec![publisher::NAME], vec![publisher::SHAPE], vec![""]);
    for schema in SCHEMAS {
        names.push(schema.name);
        shapes.push(schema.shape);
        writes.push(schema.writes);
    }
    let mut connection = bounded(PgConnection::connect_with(&session(service, "rollcall-check"))).await?;
    let made: bool = sqlx::query_scalar(
        "SELECT to_regclass('projections.versions') IS NOT NULL
            AND to_regclass('projections.skipped') IS NOT NULL
            AND to_regprocedure('projections.advance(text,int4,int4[],int8[],int8[],int8[])') IS NOT NULL
            AND to_regprocedure('projections.advance_published(text,int4,int4[],int8[],int8[],int8[],int8,int8)') IS NOT NULL",
    )
    .fetch_one(&mut connection)
    .await?;
    if !made {
        return Err(Missing::Tables);
    }
    let complete: Option<bool> = sqlx::query(
        "SELECT bool_and(EXISTS (SELECT FROM projections.versions v WHERE v.projection = w.name AND v.shape = w.shape)
                         -- Of the version that queries read, if its schema is there: a rebuild makes another one. Others may be the
                         -- doing of a release that is at work still.
                         AND NOT EXISTS (
                             SELECT FROM projections.serving v WHERE v.projection = w.name AND v.shape = w.shape
                               AND w.writes <> '' AND to_regnamespace(v.projection || '_' || v.version) IS NOT NULL
                               AND to_regprocedure(v.projection || '_' || v.version || w.writes) IS NULL))
         FROM unnest($1::text[], $2::int4[], $3::text[]) AS w(name, shape, writes)",
    )
    .bind(names)
    .bind(shapes)
    .bind(writes)
    .fetch_one(&mut connection)
    .await?
    .try_get(0)?;
    connection.close().await?;
    if complete == Some(true) { Ok(()) } else { Err(Missing::Tables) }
}

/// What [`check`] finds.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    #[error(
        "the read models' tables or functions are not there, or not those of this version: run \"rollcall migrate\" of this version first"
    )]
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
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};
                 REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {schema} FROM PUBLIC;
                 GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role}"
            )
            .as_str(),
        )
        .await?;
    Ok(())
}
