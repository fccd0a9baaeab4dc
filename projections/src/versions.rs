//! Which version of a read model serves.
//!
//! Every version of a binary's own shape is fed, whether it serves or not, so that queries can go over to another one, and
//! back, by one row: [`switch`]. The first version of a shape begins to serve by itself once it has caught up and was checked
//! ([`checker`](crate::checker)): [`promote`]. One that a rebuild left without its indexes does not.

use std::time::Duration;

use sqlx::{Connection, PgConnection, Row};

use crate::schema::{Schema, Version};

/// Events of one partition by which a version may be behind the log to count as caught up: what a busy service appends in
/// a moment. Readers with a token wait for theirs.
const BEHIND_MAX: i64 = 200;

/// Notes which versions have caught up, and lets the newest of those that have, with their indexes, and were checked serve
/// where none of its shape does.
///
/// # Errors
/// Where the database refuses.
pub async fn promote(connection: &mut PgConnection, projection: &str, shape: i32) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH caught_up AS (
             UPDATE projections.versions v SET caught_up_at = clock_timestamp()
             WHERE v.projection = $1 AND v.shape = $2 AND v.caught_up_at IS NULL AND NOT EXISTS (
                 SELECT FROM projections.positions c JOIN log.heads p USING (partition)
                 WHERE c.projection = v.projection AND c.version = v.version AND c.position + $3 < p.position)),
         serves AS (
             INSERT INTO projections.serving (projection, shape, version)
             SELECT $1, $2, max(v.version) FROM projections.versions v
             WHERE v.projection = $1 AND v.shape = $2 AND v.caught_up_at IS NOT NULL AND v.checked_at IS NOT NULL
               AND v.indexed_at IS NOT NULL AND v.wrong_at IS NULL
               AND NOT EXISTS (SELECT FROM projections.serving s WHERE s.projection = $1 AND s.shape = $2)
             HAVING count(*) > 0
             ON CONFLICT DO NOTHING RETURNING version)
         UPDATE projections.versions v SET served_at = clock_timestamp()
         FROM serves s WHERE v.projection = $1 AND v.version = s.version",
    )
    .bind(projection)
    .bind(shape)
    .bind(BEHIND_MAX)
    .execute(connection)
    .await?;
    Ok(())
}

/// The versions of a read model that there are.
#[derive(Default)]
pub struct Made {
    /// Those of this binary's shape, in order.
    ours: Vec<Version>,
    /// Those of them that were found not to be what the log says, and never serve.
    wrong: Vec<Version>,
    /// The newest of the others, where it has never served.
    unfinished: Option<Version>,
    /// Those of earlier shapes, which older binaries may read.
    older: Vec<Version>,
    pub serving: Option<Version>,
    /// For how long it has served.
    pub since: Option<Duration>,
}

impl Made {
    /// A version that was made last, and has not served yet.
    pub fn unfinished(&self) -> Option<Version> {
        self.unfinished
    }

    /// What may be dropped: all but the one that serves, and while none does, what never will.
    pub fn droppable(&self) -> Vec<Version> {
        let others = self.older.iter().chain(&self.wrong).chain(&self.ours).copied();
        let may = |version: &Version| match self.serving {
            Some(serving) => serving != *version,
            None => self.wrong.contains(version),
        };
        others.filter(may).collect()
    }
}

/// What there is of a read model.
///
/// # Errors
/// Where the database cannot be read.
pub async fn made(connection: &mut PgConnection, schema: &Schema) -> Result<Made, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT v.version, v.shape = $2, s.version IS NOT NULL AND v.shape = $2,
                extract(epoch FROM clock_timestamp() - s.since)::float8, v.served_at IS NOT NULL,
                v.wrong_at IS NOT NULL
         FROM projections.versions v
         LEFT JOIN projections.serving s
             ON s.projection = v.projection AND s.shape = v.shape AND s.version = v.version
         WHERE v.projection = $1 AND v.shape <= $2 ORDER BY v.version",
    )
    .bind(schema.name)
    .bind(schema.shape)
    .fetch_all(connection)
    .await?;
    let mut made = Made::default();
    for row in rows {
        let version = Version { projection: schema.name, number: row.try_get(0)? };
        let (ours, served, wrong): (bool, bool, bool) = (row.try_get(1)?, row.try_get(4)?, row.try_get(5)?);
        if ours && wrong {
            made.wrong.push(version);
        } else if ours {
            made.ours.push(version);
            made.unfinished = (!served).then_some(version);
        } else {
            made.older.push(version);
        }
        if row.try_get(2)? {
            made.serving = Some(version);
            made.since =
                row.try_get::<Option<f64>, _>(3)?.map(|since| Duration::from_secs_f64(since.max(0.0)));
        }
    }
    Ok(made)
}

/// The version that served right before the one that serves: after a switch back, the one that was switched back from.
///
/// # Errors
/// Where the database cannot be read.
pub async fn served_before(
    connection: &mut PgConnection,
    schema: &Schema,
) -> Result<Option<Version>, sqlx::Error> {
    let number: Option<i32> = sqlx::query_scalar(
        "SELECT v.version FROM projections.versions v
         JOIN projections.serving s ON s.projection = v.projection AND s.shape = v.shape AND s.version <> v.version
         WHERE v.projection = $1 AND v.shape = $2 AND v.served_at IS NOT NULL AND v.wrong_at IS NULL
         ORDER BY v.served_at DESC LIMIT 1",
    )
    .bind(schema.name)
    .bind(schema.shape)
    .fetch_optional(connection)
    .await?;
    Ok(number.map(|number| Version { projection: schema.name, number }))
}

/// The newest version that has ever served.
///
/// # Errors
/// Where the database cannot be read.
pub async fn newest_served(
    connection: &mut PgConnection,
    schema: &Schema,
) -> Result<Option<Version>, sqlx::Error> {
    let number: Option<i32> = sqlx::query_scalar(
        "SELECT max(version) FROM projections.versions
         WHERE projection = $1 AND shape = $2 AND served_at IS NOT NULL",
    )
    .bind(schema.name)
    .bind(schema.shape)
    .fetch_one(connection)
    .await?;
    Ok(number.map(|number| Version { projection: schema.name, number }))
}

/// The newest version that had ever served when the session began that has a turn now. Who waits for the turn must not take what
/// its holder has let serve already for something that was there before.
///
/// # Errors
/// Where the database cannot be read.
pub async fn newest_before_turn(
    connection: &mut PgConnection,
    schema: &Schema,
    turn: i64,
) -> Result<Option<Version>, sqlx::Error> {
    let number: Option<i32> = sqlx::query_scalar(
        "SELECT max(v.version) FROM projections.versions v
         WHERE v.projection = $1 AND v.shape = $2 AND v.served_at IS NOT NULL AND NOT EXISTS (
             SELECT FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
             WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
               AND l.classid::int8 << 32 | l.objid::int8 = $3 AND v.served_at >= a.backend_start
               AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))",
    )
    .bind(schema.name)
    .bind(schema.shape)
    .bind(turn)
    .fetch_one(connection)
    .await?;
    Ok(number.map(|number| Version { projection: schema.name, number }))
}

/// Whether queries of a shape read a version now.
#[derive(Debug, PartialEq, Eq)]
pub enum Switched {
    Yes,
    /// It is behind the one that serves, in at least one partition: a reader would go back in time.
    Behind,
    /// Streams are parked in it that the one that serves shows further: their readers would go back in time.
    Parked,
}

/// Lets a version serve in the place of the one that does, unless it is behind that. The checkpoints of both are held for
/// the moment that it takes, so that this is as true when it is done as when it was looked at.
///
/// # Errors
/// Where the database refuses.
pub async fn switch(
    connection: &mut PgConnection,
    version: Version,
    shape: i32,
) -> Result<Switched, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // All at once and in one order, as batches lock them.
    let rows = sqlx::query(
        "SELECT c.partition, c.position, c.version = $3 AS ours FROM projections.checkpoints c
         WHERE c.projection = $1 AND (c.version = $3 OR c.version =
               (SELECT s.version FROM projections.serving s WHERE s.projection = $1 AND s.shape = $2))
         ORDER BY c.version, c.partition FOR UPDATE OF c",
    )
    .bind(version.projection)
    .bind(shape)
    .bind(version.number)
    .fetch_all(&mut *transaction)
    .await?;
    let mut behind = std::collections::BTreeMap::<i32, i64>::new();
    for row in rows {
        let (partition, position): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
        let ours: bool = row.try_get(2)?;
        *behind.entry(partition).or_default() += if ours { -position } else { position };
    }
    if behind.values().any(|&behind| behind > 0) {
        transaction.rollback().await?;
        return Ok(Switched::Behind);
    }
    let parked: bool = sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT FROM projections.parked p WHERE p.projection = $1 AND p.version = $3 AND NOT EXISTS (
                 SELECT FROM projections.parked o JOIN projections.serving s
                     ON s.projection = o.projection AND s.version = o.version AND s.shape = $2
                 WHERE o.projection = $1 AND o.tenant_id = p.tenant_id AND o.aggregate_type = p.aggregate_type
                   AND o.aggregate_id = p.aggregate_id AND o.position <= p.position)
             AND EXISTS (SELECT FROM projections.serving s WHERE s.projection = $1 AND s.shape = $2))",
    )
    .bind(version.projection)
    .bind(shape)
    .bind(version.number)
    .fetch_one(&mut *transaction)
    .await?;
    if parked {
        transaction.rollback().await?;
        return Ok(Switched::Parked);
    }
    sqlx::query(
        "WITH caught_up AS (
             UPDATE projections.versions
             SET caught_up_at = coalesce(caught_up_at, clock_timestamp()), served_at = clock_timestamp()
             WHERE projection = $1 AND version = $3)
         INSERT INTO projections.serving AS s (projection, shape, version) VALUES ($1, $2, $3)
         ON CONFLICT (projection, shape) DO UPDATE SET version = excluded.version, since = clock_timestamp()
         WHERE s.version <> excluded.version",
    )
    .bind(version.projection)
    .bind(shape)
    .bind(version.number)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Switched::Yes)
}
