//! Whether the entries of a stream are what its events say.

use std::collections::BTreeSet;

use rollcall_event_store::{Partition, StreamId};
use sqlx::{PgConnection, Row};

use crate::{
    drift::{Drift, Folded, MISSING, RowKey, SURPLUS, Swept},
    projector::Error,
    schema::Version,
};

/// An entry for each event that has been applied: not of those that queue behind a parked one, nor of those that
/// were discarded and gone past. Both are looked up by key, however many events there are.
pub(super) const COUNT: &str = "SELECT c.partition, coalesce(r.rows, 0), c.position - coalesce(o.events, 0)
     FROM projections.checkpoints c
     LEFT JOIN (SELECT e.partition, count(*) AS rows FROM {schema}.entries e GROUP BY 1) r USING (partition)
     LEFT JOIN (SELECT w.partition, count(*) AS events FROM (
                    SELECT p.partition, q.position FROM projections.parked p
                    JOIN projections.checkpoints t
                        ON t.projection = $1 AND t.version = $2 AND t.partition = p.partition
                    CROSS JOIN LATERAL (
                        SELECT l.position FROM log.events l
                        WHERE l.partition = p.partition AND l.tenant_id = p.tenant_id
                          AND l.aggregate_type = p.aggregate_type AND l.aggregate_id = p.aggregate_id
                          AND l.sequence >= p.sequence AND l.position <= t.position OFFSET 0) q
                    WHERE p.projection = $1 AND p.version = $2
                    UNION
                    SELECT s.partition, s.position FROM projections.skipped s
                    JOIN projections.checkpoints t
                        ON t.projection = $1 AND t.version = $2 AND t.partition = s.partition AND s.position <= t.position
                    WHERE s.projection = $1 AND s.version = $2) w
                GROUP BY 1) o USING (partition)
     WHERE c.projection = $1 AND c.version = $2";

/// What [`differences`] tells apart, in the order of its columns.
const FIELDS: [&str; 6] = [MISSING, SURPLUS, "aggregate_type", "event_type", "actor", "import_id"];

/// The fields of streams' entries that differ from what their events say. An entry is found by all of its key, so one whose
/// tenant or time was changed is missing here, and surplus where it stands now.
pub(super) async fn differences(
    connection: &mut PgConnection,
    version: Version,
    folded: &[Folded],
) -> Result<Vec<Vec<String>>, Error> {
    let (mut ordinals, mut partitions, mut positions, mut applied) =
        <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
    for (ordinal, folded) in (0_i64..).zip(folded) {
        let events = folded.applied().map(|event| (event, true));
        for (event, is) in events.chain(folded.unapplied().map(|event| (event, false))) {
            ordinals.push(ordinal);
            partitions.push(i32::from(event.partition));
            positions.push(event.position.cast_signed());
            applied.push(is);
        }
    }
    let rows = sqlx::query(&version.sql(
        "SELECT q.ordinal, bool_or(q.applied AND a.position IS NULL),
                bool_or(NOT q.applied AND a.position IS NOT NULL),
                coalesce(bool_or(q.applied AND a.aggregate_type <> e.aggregate_type), false),
                coalesce(bool_or(q.applied AND a.event_type <> e.event_type), false),
                bool_or(CASE WHEN q.applied AND a.position IS NOT NULL
                             THEN a.actor IS DISTINCT FROM e.metadata->>'actor' END) IS TRUE,
                bool_or(CASE WHEN q.applied AND a.position IS NOT NULL
                             THEN a.import_id IS DISTINCT FROM e.metadata->>'import_id' END) IS TRUE
         FROM unnest($1::int8[], $2::int4[], $3::int8[], $4::bool[]) AS q(ordinal, partition, position, applied)
         JOIN log.events e ON e.partition = q.partition AND e.position = q.position
         LEFT JOIN {schema}.entries a ON a.tenant_id = e.tenant_id AND a.recorded_at = e.recorded_at
             AND a.partition = e.partition AND a.position = e.position
         GROUP BY q.ordinal",
    ))
    .bind(ordinals)
    .bind(partitions)
    .bind(positions)
    .bind(applied)
    .fetch_all(connection)
    .await?;
    let mut differences: Vec<BTreeSet<String>> = vec![BTreeSet::new(); folded.len()];
    for row in rows {
        let ordinal = usize::try_from(row.try_get::<i64, _>(0)?).expect("ordinals count from 0");
        for (place, field) in (1..).zip(FIELDS) {
            if row.try_get(place)? {
                differences[ordinal].insert(field.to_owned());
            }
        }
    }
    Ok(differences.into_iter().map(|fields| fields.into_iter().collect()).collect())
}

/// A page of the entries, and those among them that are no applied event's.
pub(super) async fn swept(
    connection: &mut PgConnection,
    version: Version,
    after: Option<&RowKey>,
    rows_max: u32,
) -> Result<Swept, Error> {
    let start = ["", "-infinity", "0", "0"].map(str::to_owned).to_vec();
    let [tenant, recorded_at, partition, position] = after.unwrap_or(&start).as_slice() else {
        return Err(sqlx::Error::RowNotFound.into());
    };
    let rows = sqlx::query(&version.sql(
        "WITH page AS MATERIALIZED (
             SELECT tenant_id, recorded_at, partition, position, aggregate_type FROM {schema}.entries
             WHERE (tenant_id, recorded_at, partition, position)
                 > ($3, $4::text::timestamptz, $5::text::int4, $6::text::int8)
             ORDER BY tenant_id, recorded_at, partition, position LIMIT $7)
         SELECT p.tenant_id, p.recorded_at::text, p.partition, p.position, p.aggregate_type,
                coalesce(e.tenant_id = p.tenant_id AND e.recorded_at = p.recorded_at AND e.position <= c.position, false),
                e.tenant_id, e.aggregate_type, e.aggregate_id
         FROM page p
         LEFT JOIN projections.checkpoints c ON c.projection = $1 AND c.version = $2 AND c.partition = p.partition
         LEFT JOIN log.events e ON e.partition = p.partition AND e.position = p.position
         ORDER BY p.tenant_id, p.recorded_at, p.partition, p.position",
    ))
    .bind(version.projection)
    .bind(version.number)
    .bind(tenant)
    .bind(recorded_at)
    .bind(partition)
    .bind(position)
    .bind(i64::from(rows_max))
    .fetch_all(connection)
    .await?;
    let mut swept = Swept { rows: rows.len() as u64, ..Swept::default() };
    for row in &rows {
        let (partition, position): (i32, i64) = (row.try_get(2)?, row.try_get(3)?);
        let key: RowKey = vec![row.try_get(0)?, row.try_get(1)?, partition.to_string(), position.to_string()];
        if !row.try_get::<bool, _>(5)? {
            let stream = match row.try_get::<Option<&str>, _>(6)? {
                Some(tenant) => StreamId::new(tenant, row.try_get::<&str, _>(7)?, row.try_get::<&str, _>(8)?),
                None => StreamId::new(
                    row.try_get::<&str, _>(0)?,
                    row.try_get::<&str, _>(4)?,
                    format!("{partition}/{position}"),
                ),
            };
            swept.surplus.push(Drift {
                stream,
                partition: Partition::try_from(partition).unwrap_or(Partition::MAX),
                fields: vec![SURPLUS.to_owned()],
                row: Some(key.clone()),
                parked: false,
            });
        }
        swept.last = Some(key);
    }
    Ok(swept)
}

/// Takes away the entries of a stream's events, and one that was found to be no event's, if it still is none's.
pub(super) async fn remove(
    transaction: &mut PgConnection,
    version: Version,
    surplus: Option<&RowKey>,
    folded: &Folded,
) -> Result<(), Error> {
    let (partitions, positions): (Vec<i32>, Vec<i64>) = folded
        .applied()
        .chain(folded.unapplied())
        .map(|event| (i32::from(event.partition), event.position.cast_signed()))
        .unzip();
    sqlx::query(&version.sql(
        "DELETE FROM {schema}.entries a USING unnest($1::int4[], $2::int8[]) AS q(partition, position)
         JOIN log.events e ON e.partition = q.partition AND e.position = q.position
         WHERE a.tenant_id = e.tenant_id AND a.recorded_at = e.recorded_at AND a.partition = e.partition
           AND a.position = e.position",
    ))
    .bind(partitions)
    .bind(positions)
    .execute(&mut *transaction)
    .await?;
    let Some([tenant, recorded_at, partition, position]) = surplus.map(Vec::as_slice) else { return Ok(()) };
    sqlx::query(&version.sql(
        "DELETE FROM {schema}.entries a
         WHERE a.tenant_id = $3 AND a.recorded_at = $4::text::timestamptz AND a.partition = $5::text::int4
           AND a.position = $6::text::int8 AND NOT EXISTS (
             SELECT FROM log.events e
             JOIN projections.checkpoints c
                 ON c.projection = $1 AND c.version = $2 AND c.partition = e.partition AND e.position <= c.position
             WHERE e.partition = a.partition AND e.position = a.position AND e.tenant_id = a.tenant_id
               AND e.recorded_at = a.recorded_at)",
    ))
    .bind(version.projection)
    .bind(version.number)
    .bind(tenant)
    .bind(recorded_at)
    .bind(partition)
    .bind(position)
    .execute(transaction)
    .await?;
    Ok(())
}
