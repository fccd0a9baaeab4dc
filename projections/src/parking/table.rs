//! The tables of parked streams and discarded events, as projectors use them.

use std::collections::{BTreeMap, BTreeSet};

use rollcall_event_store::{Partition, Position, StreamId, tail::Span};
use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{Place, RETRY_STREAMS_MAX, Streams};
use crate::schema::Version;

/// Made with the checkpoints.
pub(crate) const TABLES: &str = "
    -- Streams whose next event could not be applied, each at that event. What queues behind it is in the log.
    CREATE TABLE IF NOT EXISTS projections.parked (
        position       bigint           NOT NULL,
        sequence       bigint           NOT NULL,
        event_id       uuid             NOT NULL,
        parked_at      timestamptz      NOT NULL,
        tried_at       timestamptz      NOT NULL,
        retry_at       timestamptz      NOT NULL,
        version        integer          NOT NULL,
        partition      integer          NOT NULL,
        tries          integer          NOT NULL,
        projection     text COLLATE \"C\" NOT NULL,
        tenant_id      text COLLATE \"C\" NOT NULL,
        aggregate_type text COLLATE \"C\" NOT NULL,
        aggregate_id   text COLLATE \"C\" NOT NULL,
        event_type     text COLLATE \"C\" NOT NULL,
        error          text             NOT NULL,
        -- Somebody asked for it to be tried, and it has not been since.
        asked          boolean          NOT NULL DEFAULT false,
        PRIMARY KEY (projection, version, partition, tenant_id, aggregate_type, aggregate_id)
    );
    -- Events that an operator had a projection do without, and why. Every version of it does.
    CREATE TABLE IF NOT EXISTS projections.discarded (
        position       bigint           NOT NULL,
        sequence       bigint           NOT NULL,
        event_id       uuid             NOT NULL,
        discarded_at   timestamptz      NOT NULL,
        partition      integer          NOT NULL,
        projection     text COLLATE \"C\" NOT NULL,
        tenant_id      text COLLATE \"C\" NOT NULL,
        aggregate_type text COLLATE \"C\" NOT NULL,
        aggregate_id   text COLLATE \"C\" NOT NULL,
        event_type     text COLLATE \"C\" NOT NULL,
        error          text             NOT NULL,
        discarded_by   text             NOT NULL,
        reason         text             NOT NULL,
        PRIMARY KEY (projection, partition, position)
    );
    -- The discarded events that a version has gone past. One that is not here at or before the checkpoint had been applied when
    -- it was discarded, as by a version that could still read it.
    CREATE TABLE IF NOT EXISTS projections.skipped (
        position       bigint           NOT NULL,
        sequence       bigint           NOT NULL,
        version        integer          NOT NULL,
        partition      integer          NOT NULL,
        projection     text COLLATE \"C\" NOT NULL,
        tenant_id      text COLLATE \"C\" NOT NULL,
        aggregate_type text COLLATE \"C\" NOT NULL,
        aggregate_id   text COLLATE \"C\" NOT NULL,
        PRIMARY KEY (projection, version, partition, tenant_id, aggregate_type, aggregate_id, position)
    );";

/// An event of a parked stream.
pub(crate) struct Queued {
    pub place: Place,
    /// An operator said that the projection is to do without it.
    pub discarded: bool,
}

/// What a version has not applied of a stream at or before its checkpoint.
#[derive(Default)]
pub(crate) struct LeftOut {
    /// Where it is parked.
    pub parked: Option<Position>,
    /// Its discarded events that were gone past.
    pub skipped: BTreeSet<Position>,
}

/// What a version has not applied of streams, in their order.
pub(crate) async fn left_out(
    connection: &mut PgConnection,
    of: Version,
    streams: &[(StreamId, Partition)],
) -> Result<Vec<LeftOut>, sqlx::Error> {
    let part = |part: fn(&StreamId) -> &str| -> Vec<&str> {
        streams.iter().map(|(stream, _)| part(stream)).collect()
    };
    let rows = sqlx::query(
        "WITH asked AS MATERIALIZED (
             SELECT * FROM unnest($3::int4[], $4::text[], $5::text[], $6::text[]) WITH ORDINALITY
                 AS q(partition, tenant_id, aggregate_type, aggregate_id, ordinal))
         SELECT q.ordinal, p.position, true FROM asked q
         JOIN projections.parked p
             ON p.projection = $1 AND p.version = $2 AND p.partition = q.partition AND p.tenant_id = q.tenant_id
            AND p.aggregate_type = q.aggregate_type AND p.aggregate_id = q.aggregate_id
         UNION ALL
         SELECT q.ordinal, s.position, false FROM asked q
         JOIN projections.skipped s
             ON s.projection = $1 AND s.version = $2 AND s.partition = q.partition AND s.tenant_id = q.tenant_id
            AND s.aggregate_type = q.aggregate_type AND s.aggregate_id = q.aggregate_id",
    )
    .bind(of.projection)
    .bind(of.number)
    .bind(streams.iter().map(|(_, partition)| i32::from(*partition)).collect::<Vec<_>>())
    .bind(part(|stream| &stream.tenant))
    .bind(part(|stream| &stream.aggregate_type))
    .bind(part(|stream| &stream.aggregate_id))
    .fetch_all(connection)
    .await?;
    let mut left_out: Vec<LeftOut> = streams.iter().map(|_| LeftOut::default()).collect();
    for row in &rows {
        let place = usize::try_from(row.try_get::<i64, _>(0)? - 1).expect("ordinals count from 1");
        let position = row.try_get::<i64, _>(1)?.cast_unsigned();
        match row.try_get(2)? {
            true => left_out[place].parked = Some(position),
            false => _ = left_out[place].skipped.insert(position),
        }
    }
    Ok(left_out)
}

/// Notes that a version went past a discarded event.
pub(crate) async fn skip(
    connection: &mut PgConnection,
    of: Version,
    event: &Place,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO projections.skipped
             (position, sequence, version, partition, projection, tenant_id, aggregate_type, aggregate_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
    )
    .bind(event.position.cast_signed())
    .bind(event.sequence.cast_signed())
    .bind(of.number)
    .bind(i32::from(event.partition))
    .bind(of.projection)
    .bind(&*event.stream.tenant)
    .bind(&*event.stream.aggregate_type)
    .bind(&*event.stream.aggregate_id)
    .execute(connection)
    .await?;
    Ok(())
}

/// Has a stream tried again now, where it is parked.
pub(crate) async fn make_stream_due(
    connection: &mut PgConnection,
    of: Version,
    stream: &StreamId,
    partition: Partition,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE projections.parked SET retry_at = clock_timestamp()
         WHERE projection = $1 AND version = $2 AND partition = $3 AND tenant_id = $4 AND aggregate_type = $5
           AND aggregate_id = $6",
    )
    .bind(of.projection)
    .bind(of.number)
    .bind(i32::from(partition))
    .bind(&*stream.tenant)
    .bind(&*stream.aggregate_type)
    .bind(&*stream.aggregate_id)
    .execute(connection)
    .await?;
    Ok(())
}

/// Has the parked streams of some partitions tried at once, because their lease is new.
pub(crate) async fn make_due(
    connection: &mut PgConnection,
    of: Version,
    partitions: &[Partition],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE projections.parked SET retry_at = clock_timestamp()
         WHERE projection = $1 AND version = $2 AND partition = ANY ($3) AND retry_at > clock_timestamp()",
    )
    .bind(of.projection)
    .bind(of.number)
    .bind(numbers(partitions))
    .execute(connection)
    .await?;
    Ok(())
}

/// The parked streams of some partitions.
pub(crate) async fn parked(
    connection: &mut PgConnection,
    of: Version,
    partitions: &[Partition],
) -> Result<BTreeMap<Partition, Streams>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT tenant_id, aggregate_type, aggregate_id, partition, position, sequence FROM projections.parked
         WHERE projection = $1 AND version = $2 AND partition = ANY ($3)",
    )
    .bind(of.projection)
    .bind(of.number)
    .bind(numbers(partitions))
    .fetch_all(connection)
    .await?;
    let mut parked = BTreeMap::<Partition, Streams>::new();
    for row in &rows {
        let place = place(row)?;
        parked.entry(place.partition).or_default().insert(place.stream, place.position);
    }
    Ok(parked)
}

/// The discarded events behind some partitions' checkpoints: those that a projection has yet to come by.
pub(crate) async fn discarded(
    connection: &mut PgConnection,
    projection: &str,
    checkpoints: &[(Partition, Position)],
) -> Result<BTreeMap<Partition, BTreeMap<Position, Place>>, sqlx::Error> {
    let (partitions, positions): (Vec<i32>, Vec<i64>) =
        checkpoints.iter().map(|(partition, at)| (i32::from(*partition), at.cast_signed())).unzip();
    let rows = sqlx::query(
        "SELECT d.tenant_id, d.aggregate_type, d.aggregate_id, d.partition, d.position, d.sequence
         FROM unnest($2::int4[], $3::int8[]) AS c(partition, position)
         JOIN projections.discarded d
           ON d.projection = $1 AND d.partition = c.partition AND d.position > c.position",
    )
    .bind(projection)
    .bind(partitions)
    .bind(positions)
    .fetch_all(connection)
    .await?;
    let mut discarded = BTreeMap::<Partition, BTreeMap<Position, Place>>::new();
    for row in &rows {
        let place = place(row)?;
        discarded.entry(place.partition).or_default().insert(place.position, place);
    }
    Ok(discarded)
}

/// Parks the stream of the one event that the span holds; where it is parked already it stays where it is. None where there
/// is no such event.
pub(crate) async fn park(
    connection: &mut PgConnection,
    of: Version,
    event: &Span,
    error: &str,
) -> Result<Option<Place>, sqlx::Error> {
    let row = sqlx::query(
        "INSERT INTO projections.parked AS p
             (position, sequence, event_id, parked_at, tried_at, retry_at, version, partition, tries, projection, tenant_id,
              aggregate_type, aggregate_id, event_type, error)
         SELECT e.position, e.sequence, e.event_id, clock_timestamp(), clock_timestamp(),
                clock_timestamp() + interval '1 minute', $2, e.partition, 1, $1, e.tenant_id, e.aggregate_type,
                e.aggregate_id, e.event_type, $5
         FROM log.events e WHERE e.partition = $3 AND e.position = $4
         ON CONFLICT (projection, version, partition, tenant_id, aggregate_type, aggregate_id)
             DO UPDATE SET error = p.error
         RETURNING tenant_id, aggregate_type, aggregate_id, partition, position, sequence",
    )
    .bind(of.projection)
    .bind(of.number)
    .bind(i32::from(event.partition))
    .bind(event.until.cast_signed())
    .bind(error)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(place).transpose()
}

/// Parked streams that are to be tried again now, a few of them, those first that have been due for longest.
pub(crate) async fn due(
    connection: &mut PgConnection,
    of: Version,
    partitions: &[Partition],
) -> Result<Vec<Place>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT tenant_id, aggregate_type, aggregate_id, partition, position, sequence FROM projections.parked
         WHERE projection = $1 AND version = $2 AND partition = ANY ($3) AND retry_at <= clock_timestamp()
         ORDER BY retry_at LIMIT $4",
    )
    .bind(of.projection)
    .bind(of.number)
    .bind(numbers(partitions))
    .bind(i64::try_from(RETRY_STREAMS_MAX).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    rows.iter().map(place).collect()
}

/// Puts off a stream that is tried now, whatever comes of it: one whose trying never ends does not keep others from theirs. One
/// that somebody asked for is put off no further than a minute, should something that passes end its trying. False where it is
/// not parked.
pub(crate) async fn put_off(
    connection: &mut PgConnection,
    of: Version,
    stream: &Place,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE projections.parked
         SET asked = false, retry_at = clock_timestamp() + interval '1 second'
             * CASE WHEN asked THEN 60 ELSE least(60 * 2 ^ least(tries, 6), 3600) END
         WHERE projection = $1 AND version = $2 AND partition = $3 AND tenant_id = $4 AND aggregate_type = $5
           AND aggregate_id = $6",
    )
    .bind(of.projection)
    .bind(of.number)
    .bind(i32::from(stream.partition))
    .bind(&*stream.stream.tenant)
    .bind(&*stream.stream.aggregate_type)
    .bind(&*stream.stream.aggregate_id)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A stream's events from one on, up to its partition's checkpoint, in order.
pub(crate) async fn queue(
    connection: &mut PgConnection,
    of: Version,
    from: &Place,
    checkpoint: Position,
    limit: usize,
) -> Result<Vec<Queued>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT e.tenant_id, e.aggregate_type, e.aggregate_id, e.partition, e.position, e.sequence,
                EXISTS (SELECT FROM projections.discarded d
                        WHERE d.projection = $1 AND d.partition = e.partition AND d.position = e.position)
         FROM log.events e
         WHERE e.partition = $2 AND e.tenant_id = $3 AND e.aggregate_type = $4 AND e.aggregate_id = $5
           AND e.sequence >= $6 AND e.position <= $7
         ORDER BY e.sequence LIMIT $8",
    )
    .bind(of.projection)
    .bind(i32::from(from.partition))
    .bind(&*from.stream.tenant)
    .bind(&*from.stream.aggregate_type)
    .bind(&*from.stream.aggregate_id)
    .bind(from.sequence.cast_signed())
    .bind(checkpoint.cast_signed())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok(Queued { place: place(row)?, discarded: row.try_get(6)? })).collect()
}

/// The stream is parked no longer.
pub(crate) async fn release(
    connection: &mut PgConnection,
    of: Version,
    stream: &Place,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM projections.parked
         WHERE projection = $1 AND version = $2 AND partition = $3 AND tenant_id = $4 AND aggregate_type = $5
           AND aggregate_id = $6",
    )
    .bind(of.projection)
    .bind(of.number)
    .bind(i32::from(stream.partition))
    .bind(&*stream.stream.tenant)
    .bind(&*stream.stream.aggregate_type)
    .bind(&*stream.stream.aggregate_id)
    .execute(connection)
    .await?;
    Ok(())
}

/// The stream is parked at this event: because of an error, or without one where only its turn has not come yet. Who was
/// tried had been [put off](put_off); where somebody asked for it meanwhile, what was tried may not have known why: it is due
/// still.
pub(crate) async fn stay(
    connection: &mut PgConnection,
    of: Version,
    at: &Place,
    error: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE projections.parked p
         SET tries = t.tries, position = e.position, sequence = e.sequence, event_id = e.event_id, event_type = e.event_type,
             error = coalesce($8, 'not tried yet: what stood before it was applied a moment ago'),
             tried_at = CASE WHEN $8 IS NULL THEN p.tried_at ELSE clock_timestamp() END,
             retry_at = CASE WHEN $8 IS NULL THEN clock_timestamp() WHEN p.asked THEN p.retry_at
                        ELSE clock_timestamp() + least(60 * 2 ^ least(t.tries - 1, 6), 3600) * interval '1 second' END
         FROM log.events e
         CROSS JOIN LATERAL (
             SELECT CASE WHEN $8 IS NULL THEN 0 WHEN q.position = e.position THEN least(q.tries, 1000000) + 1 ELSE 1 END
                    AS tries
             FROM projections.parked q
             WHERE q.projection = $1 AND q.version = $2 AND q.partition = $3 AND q.tenant_id = $4
               AND q.aggregate_type = $5 AND q.aggregate_id = $6) t
         WHERE p.projection = $1 AND p.version = $2 AND p.partition = $3 AND p.tenant_id = $4 AND p.aggregate_type = $5
           AND p.aggregate_id = $6 AND e.partition = $3 AND e.position = $7",
    )
    .bind(of.projection)
    .bind(of.number)
    .bind(i32::from(at.partition))
    .bind(&*at.stream.tenant)
    .bind(&*at.stream.aggregate_type)
    .bind(&*at.stream.aggregate_id)
    .bind(at.position.cast_signed())
    .bind(error)
    .execute(connection)
    .await?;
    Ok(())
}

/// Of columns (tenant_id, aggregate_type, aggregate_id, partition, position, sequence).
pub(crate) fn place(row: &PgRow) -> Result<Place, sqlx::Error> {
    let bad =
        |what: &'static str| sqlx::Error::Decode(format!("{what} of a parked stream is out of range").into());
    let stream =
        StreamId::new(row.try_get::<&str, _>(0)?, row.try_get::<&str, _>(1)?, row.try_get::<&str, _>(2)?);
    Ok(Place {
        stream,
        partition: Partition::try_from(row.try_get::<i32, _>(3)?).map_err(|_| bad("partition"))?,
        position: Position::try_from(row.try_get::<i64, _>(4)?).map_err(|_| bad("position"))?,
        sequence: u64::try_from(row.try_get::<i64, _>(5)?).map_err(|_| bad("sequence"))?,
    })
}

fn numbers(partitions: &[Partition]) -> Vec<i32> {
    partitions.iter().map(|partition| i32::from(*partition)).collect()
}
