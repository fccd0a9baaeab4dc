//! Parked streams as an operator sees them, and what one may ask for. A projector does what is asked for, under its lease:
//! nothing here touches a read model.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use rollcall_event_store::bounded;
use sqlx::{Connection, FromRow, PgConnection};
use tokio::time::Instant;
use uuid::Uuid;

/// Rows that are listed at most.
pub const LISTED_MAX: i64 = 1_000;
/// Streams that one statement reads or asks for.
const PAGE: usize = 1_000;
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A parked stream.
#[derive(Clone, Debug, FromRow, serde::Serialize)]
pub struct Parked {
    pub projection: String,
    pub version: i32,
    pub tenant_id: String,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub partition: i32,
    pub position: i64,
    pub sequence: i64,
    pub event_id: Uuid,
    pub event_type: String,
    pub error: String,
    pub tries: i32,
    pub parked_at: DateTime<Utc>,
    pub tried_at: DateTime<Utc>,
    pub retry_at: DateTime<Utc>,
    /// Events that queue behind the one that cannot be applied.
    #[sqlx(default)]
    pub queued: i64,
    /// Whether the version is the one that queries read.
    #[sqlx(default)]
    pub serves: bool,
    /// It is to be tried now, and nobody has begun.
    #[sqlx(default)]
    #[serde(skip)]
    due: bool,
}

impl Parked {
    fn stream(&self) -> (&str, i32, i32, &str, &str, &str) {
        let Self { projection, version, tenant_id, aggregate_type, aggregate_id, partition, .. } = self;
        (projection, *version, *partition, tenant_id, aggregate_type, aggregate_id)
    }
}

/// Which parked streams are meant; what is not said matches all.
#[derive(Clone, Debug, Default)]
pub struct Sought {
    pub projection: Option<String>,
    pub tenant: Option<String>,
    pub id: Option<String>,
    pub version: Option<i32>,
}

/// What became of a stream that was tried again.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It goes on.
    Released,
    /// It was tried, and is parked still, or at another event now.
    Parked(Box<Parked>),
    /// Nobody tried it in time.
    Untried,
}

/// The parked streams, those that have waited longest first.
///
/// # Errors
/// Where the database cannot be read.
pub async fn list(connection: &mut PgConnection, sought: &Sought) -> Result<Vec<Parked>, sqlx::Error> {
    bounded(
        sqlx::query_as(
            "SELECT p.*, (SELECT count(*) FROM log.events e
                          JOIN projections.checkpoints c
                            ON c.projection = p.projection AND c.version = p.version AND c.partition = p.partition
                          WHERE e.partition = p.partition AND e.tenant_id = p.tenant_id
                            AND e.aggregate_type = p.aggregate_type AND e.aggregate_id = p.aggregate_id
                            AND e.sequence > p.sequence AND e.position <= c.position) AS queued,
                    EXISTS (SELECT FROM projections.serving s
                            WHERE s.projection = p.projection AND s.version = p.version) AS serves
             FROM projections.parked p
             WHERE ($1::text IS NULL OR projection = $1) AND ($2::text IS NULL OR tenant_id = $2)
               AND ($3::text IS NULL OR aggregate_id = $3) AND ($4::int4 IS NULL OR version = $4)
             ORDER BY parked_at, partition, position LIMIT $5",
        )
        .bind(&sought.projection)
        .bind(&sought.tenant)
        .bind(&sought.id)
        .bind(sought.version)
        .bind(LISTED_MAX)
        .fetch_all(connection),
    )
    .await
}

/// All parked streams that are meant, however many, by their keys and without what queues behind them.
///
/// # Errors
/// Where the database cannot be read.
pub async fn all(connection: &mut PgConnection, sought: &Sought) -> Result<Vec<Parked>, sqlx::Error> {
    let mut all: Vec<Parked> = Vec::new();
    loop {
        let (projection, version, partition, tenant, aggregate_type, id) =
            all.last().map_or(("", 0, 0, "", "", ""), Parked::stream);
        let page = sqlx::query_as(
            "SELECT p.* FROM projections.parked p
             WHERE (projection, version, partition, tenant_id, aggregate_type, aggregate_id) > ($5, $6, $7, $8, $9, $10)
               AND ($1::text IS NULL OR projection = $1) AND ($2::text IS NULL OR tenant_id = $2)
               AND ($3::text IS NULL OR aggregate_id = $3) AND ($4::int4 IS NULL OR version = $4)
             ORDER BY projection, version, partition, tenant_id, aggregate_type, aggregate_id LIMIT $11",
        )
        .bind(&sought.projection)
        .bind(&sought.tenant)
        .bind(&sought.id)
        .bind(sought.version)
        .bind(projection)
        .bind(version)
        .bind(partition)
        .bind(tenant)
        .bind(aggregate_type)
        .bind(id)
        .bind(PAGE as i64);
        let page: Vec<Parked> = bounded(page.fetch_all(&mut *connection)).await?;
        let full = page.len() == PAGE;
        all.extend(page);
        if !full {
            return Ok(all);
        }
    }
}

/// Has parked streams tried again, and waits until they were, `at_most` for so long. All are asked for before anything is
/// waited for.
///
/// # Errors
/// Where the database cannot be read or written.
pub async fn retry(
    connection: &mut PgConnection,
    parked: &[Parked],
    at_most: Duration,
) -> Result<Vec<Outcome>, sqlx::Error> {
    let until = Instant::now() + at_most;
    let mut before = Vec::new();
    for page in parked.chunks(PAGE) {
        before.push(tries(connection, page).await?);
        bounded(ask(connection, page)).await?;
    }
    let mut all = Vec::with_capacity(parked.len());
    for (page, before) in parked.chunks(PAGE).zip(before) {
        all.extend(outcomes(connection, page, before, until, |_| true).await?);
    }
    Ok(all)
}

/// Records that a projection is to do without the event at which a stream is parked, has the stream tried again, and waits
/// for that as [`retry`] does. None where the stream is parked at that event no longer.
///
/// # Errors
/// As [`retry`].
pub async fn discard(
    connection: &mut PgConnection,
    parked: &Parked,
    by: &str,
    reason: &str,
    at_most: Duration,
) -> Result<Option<Outcome>, sqlx::Error> {
    let one = std::slice::from_ref(parked);
    let before = tries(connection, one).await?;
    let recorded = bounded(async {
        let mut transaction = connection.begin().await?;
        let recorded = sqlx::query(
            "INSERT INTO projections.discarded
                 (position, sequence, event_id, discarded_at, partition, projection, tenant_id, aggregate_type,
                  aggregate_id, event_type, error, discarded_by, reason)
             SELECT p.position, p.sequence, p.event_id, clock_timestamp(), p.partition, p.projection, p.tenant_id,
                    p.aggregate_type, p.aggregate_id, p.event_type, p.error, $8, $9
             FROM projections.parked p
             WHERE p.projection = $1 AND p.version = $2 AND p.partition = $3 AND p.tenant_id = $4
               AND p.aggregate_type = $5 AND p.aggregate_id = $6 AND p.position = $7
             ON CONFLICT (projection, partition, position) DO UPDATE SET position = excluded.position",
        )
        .bind(&parked.projection)
        .bind(parked.version)
        .bind(parked.partition)
        .bind(&parked.tenant_id)
        .bind(&parked.aggregate_type)
        .bind(&parked.aggregate_id)
        .bind(parked.position)
        .bind(by)
        .bind(reason)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if recorded == 1 {
            ask(&mut transaction, one).await?;
        }
        transaction.commit().await?;
        Ok::<_, sqlx::Error>(recorded == 1)
    })
    .await?;
    if !recorded {
        return Ok(None);
    }
    // Where it is parked at that event still, what was tried had hardly heard of it.
    let past = |now: &Parked| now.position != parked.position;
    Ok(outcomes(connection, one, before, Instant::now() + at_most, past).await?.pop())
}

async fn ask(connection: &mut PgConnection, parked: &[Parked]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE projections.parked p SET asked = true, retry_at = clock_timestamp()
         FROM unnest($1::text[], $2::int4[], $3::int4[], $4::text[], $5::text[], $6::text[])
              AS q(projection, version, partition, tenant_id, aggregate_type, aggregate_id)
         WHERE p.projection = q.projection AND p.version = q.version AND p.partition = q.partition
           AND p.tenant_id = q.tenant_id AND p.aggregate_type = q.aggregate_type AND p.aggregate_id = q.aggregate_id",
    )
    .bind(parked.iter().map(|one| one.projection.as_str()).collect::<Vec<_>>())
    .bind(parked.iter().map(|one| one.version).collect::<Vec<_>>())
    .bind(parked.iter().map(|one| one.partition).collect::<Vec<_>>())
    .bind(parked.iter().map(|one| one.tenant_id.as_str()).collect::<Vec<_>>())
    .bind(parked.iter().map(|one| one.aggregate_type.as_str()).collect::<Vec<_>>())
    .bind(parked.iter().map(|one| one.aggregate_id.as_str()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// A stream that is parked, by what it is found by.
type Key = (String, i32, i32, String, String, String);

fn key(parked: &Parked) -> Key {
    let (projection, version, partition, tenant, aggregate_type, id) = parked.stream();
    (projection.into(), version, partition, tenant.into(), aggregate_type.into(), id.into())
}

/// The rows of those streams that are parked still.
async fn tries(
    connection: &mut PgConnection,
    parked: &[Parked],
) -> Result<HashMap<Key, Parked>, sqlx::Error> {
    let rows: Vec<Parked> = bounded(
        sqlx::query_as(
            "SELECT p.*, p.retry_at <= clock_timestamp() AS due FROM unnest($1::text[], $2::int4[], $3::int4[], $4::text[], $5::text[], $6::text[])
                  AS q(projection, version, partition, tenant_id, aggregate_type, aggregate_id)
             JOIN projections.parked p
               ON p.projection = q.projection AND p.version = q.version AND p.partition = q.partition
              AND p.tenant_id = q.tenant_id AND p.aggregate_type = q.aggregate_type
              AND p.aggregate_id = q.aggregate_id",
        )
        .bind(parked.iter().map(|one| one.projection.as_str()).collect::<Vec<_>>())
        .bind(parked.iter().map(|one| one.version).collect::<Vec<_>>())
        .bind(parked.iter().map(|one| one.partition).collect::<Vec<_>>())
        .bind(parked.iter().map(|one| one.tenant_id.as_str()).collect::<Vec<_>>())
        .bind(parked.iter().map(|one| one.aggregate_type.as_str()).collect::<Vec<_>>())
        .bind(parked.iter().map(|one| one.aggregate_id.as_str()).collect::<Vec<_>>())
        .fetch_all(connection),
    )
    .await?;
    Ok(rows.into_iter().map(|row| (key(&row), row)).collect())
}

/// What became of streams that somebody asked for. `settled` says of one that was tried and is parked whether that can be
/// the answer; in the end it is.
async fn outcomes(
    connection: &mut PgConnection,
    parked: &[Parked],
    mut before: HashMap<Key, Parked>,
    until: Instant,
    settled: impl Fn(&Parked) -> bool,
) -> Result<Vec<Outcome>, sqlx::Error> {
    loop {
        let now = tries(connection, parked).await?;
        let last = Instant::now() >= until;
        let outcome = |one: &Parked| match (now.get(&key(one)), before.get(&key(one))) {
            (None, _) => Outcome::Released,
            // Each trying that fails says when it did.
            (Some(now), Some(before)) if now.tried_at == before.tried_at => Outcome::Untried,
            (Some(now), _) if now.due || !(last || settled(now)) => Outcome::Untried,
            (Some(now), _) => Outcome::Parked(Box::new(now.clone())),
        };
        let outcomes: Vec<Outcome> = parked.iter().map(outcome).collect();
        if last || outcomes.iter().all(|outcome| !matches!(outcome, Outcome::Untried)) {
            return Ok(outcomes);
        }
        // What failed while it is due was begun before anybody asked.
        before.extend(now.into_iter().filter(|(_, now)| now.due));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
