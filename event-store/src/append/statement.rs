//! The one statement: its parameters, how its verdict is read, and the look-up of what an earlier sending stored.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::{Append, Appended, Error, Expected, Pending, Record, WrappedKey};
use crate::{
    Position,
    claims::ClaimChange,
    keys::Digest,
    tail::{signed, unsigned},
};

const STATEMENT: &str = include_str!("statement.sql");

/// The statement's parameters, a column each.
#[derive(Default)]
struct Columns<'a> {
    append: Vec<i32>,
    partition: Vec<i32>,
    tenant: Vec<&'a str>,
    aggregate_type: Vec<&'a str>,
    aggregate_id: Vec<&'a str>,
    sequence: Vec<i64>,
    probe: Vec<bool>,
    event_id: Vec<Uuid>,
    event_type: Vec<&'a str>,
    event_version: Vec<&'a str>,
    payload: Vec<&'a str>,
    personal: Vec<Option<&'a [u8]>>,
    metadata: Vec<&'a str>,
    take: Vec<(i32, &'a Digest, &'a Append)>,
    release: Vec<(i32, &'a Digest, &'a Append)>,
    record: Vec<(i32, &'a Record, &'a Append)>,
    data_key: Vec<(i32, &'a WrappedKey, &'a Append)>,
}

impl<'a> Columns<'a> {
    fn of(appends: &[&'a Pending], probe_all: bool) -> Self {
        let mut columns = Self::default();
        for (index, pending) in (0_i32..).zip(appends) {
            let append = &pending.append;
            let mut sequence = append.expected.version();
            for (place, event) in append.events.iter().enumerate() {
                sequence += 1;
                columns.append.push(index);
                columns.partition.push(i32::from(pending.partition));
                columns.tenant.push(&append.stream.tenant);
                columns.aggregate_type.push(&append.stream.aggregate_type);
                columns.aggregate_id.push(&append.stream.aggregate_id);
                columns.sequence.push(signed(sequence));
                columns.probe.push(place == 0 && (probe_all || append.expected != Expected::Fresh));
                columns.event_id.push(event.event_id);
                columns.event_type.push(event.event_type);
                columns.event_version.push(event.event_version);
                columns.payload.push(&event.payload);
                columns.personal.push(event.personal.as_deref());
                columns.metadata.push(&event.metadata);
            }
            for claim in &append.claims {
                match claim {
                    ClaimChange::Take(digest) => columns.take.push((index, digest, append)),
                    ClaimChange::Release(digest) => columns.release.push((index, digest, append)),
                }
            }
            columns.record.extend(append.record.iter().map(|record| (index, record, append)));
            columns.data_key.extend(append.data_key.iter().map(|new| (index, &new.wrapped, append)));
        }
        columns.release.sort_unstable_by_key(|(_, digest, _)| *digest);
        columns
    }
}

/// One column of a list of rows.
fn column<'r, R, T>(rows: &'r [R], part: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(part).collect()
}

/// One round trip, one transaction. Appends must be sorted by partition.
pub(super) async fn run(
    connection: &mut PgConnection,
    appends: &[&Pending],
    probe_all: bool,
    generation: i32,
    log_id: Uuid,
) -> Result<Vec<Result<Appended, Error>>, sqlx::Error> {
    let c = Columns::of(appends, probe_all);
    let statement = STATEMENT;
    // Positions that count what is refused, as a sequence does.
    #[cfg(rollcall_break = "contiguity")]
    let statement = &{
        let (others, stored) = statement.split_once("stored AS (").expect("the statement stores");
        let refused = "append <> ALL ((SELECT appends FROM refused)::int4[])";
        let stored = stored.replacen(&format!("WHERE {refused}"), "", 1);
        let stored = stored.replacen(
            "h.partition = i.partition",
            &format!("h.partition = i.partition WHERE i.{refused}"),
            1,
        );
        format!("{others}stored AS ({stored}")
    };
    let rows = sqlx::query(statement)
        .bind(&c.append)
        .bind(&c.partition)
        .bind(&c.tenant)
        .bind(&c.aggregate_type)
        .bind(&c.aggregate_id)
        .bind(&c.sequence)
        .bind(&c.probe)
        .bind(&c.event_id)
        .bind(&c.event_type)
        .bind(&c.event_version)
        .bind(&c.payload)
        .bind(&c.personal)
        .bind(&c.metadata)
        .bind(generation)
        .bind(column(&c.take, |(index, ..)| *index))
        .bind(column(&c.take, |(_, digest, _)| &digest.0[..]))
        .bind(column(&c.take, |(.., append)| &*append.stream.tenant))
        .bind(column(&c.take, |(.., append)| &*append.stream.aggregate_type))
        .bind(column(&c.take, |(.., append)| &*append.stream.aggregate_id))
        .bind(column(&c.release, |(index, ..)| *index))
        .bind(column(&c.release, |(_, digest, _)| &digest.0[..]))
        .bind(column(&c.release, |(.., append)| &*append.stream.aggregate_id))
        .bind(column(&c.record, |(index, ..)| *index))
        .bind(column(&c.record, |(_, record, _)| &record.idempotency.key.0[..]))
        .bind(column(&c.record, |(_, record, _)| &record.idempotency.fingerprint.0[..]))
        .bind(column(&c.record, |(_, record, _)| record.status.cast_signed()))
        .bind(column(&c.record, |(.., append)| &*append.stream.aggregate_id))
        .bind(column(&c.record, |(_, record, _)| signed(record.version)))
        .bind(column(&c.data_key, |(index, ..)| *index))
        .bind(column(&c.data_key, |(.., append)| &*append.stream.aggregate_id))
        .bind(column(&c.data_key, |(.., append)| &*append.stream.tenant))
        .bind(column(&c.data_key, |(.., append)| &*append.stream.aggregate_type))
        .bind(column(&c.data_key, |(_, wrapped, _)| wrapped.master_generation))
        .bind(column(&c.data_key, |(_, wrapped, _)| &wrapped.bytes[..]))
        .bind(log_id)
        .bind(i32::try_from(appends.len()).expect("a batch has a bound"))
        .fetch_all(connection)
        .await?;
    let judged = Judged::of(&rows)?;
    if judged.halted {
        return Ok(appends.iter().map(|_| Err(Error::Restored)).collect());
    }
    judged.outcomes(appends, &c)
}

/// What the statement says of a batch; numbers are indices of appends.
#[derive(Default)]
struct Judged {
    conflicts: Vec<i64>,
    /// Places among the claims to take, counted from 1.
    taken: Vec<i64>,
    replays: Vec<i64>,
    halted: bool,
    /// By partition.
    heads: Vec<Head>,
}

/// Where a partition's events were put.
struct Head {
    partition: i64,
    base: Position,
    first_at: DateTime<Utc>,
    /// As the database counted them.
    events: u64,
}

impl Judged {
    fn of(rows: &[PgRow]) -> Result<Self, sqlx::Error> {
        let mut judged = Self::default();
        for row in rows {
            let number: i64 = row.try_get(1)?;
            match row.try_get::<i16, _>(0)? {
                0 => judged.heads.push(Head {
                    partition: number,
                    base: unsigned(row.try_get(2)?, "position")?,
                    first_at: row.try_get(3)?,
                    events: unsigned(row.try_get(4)?, "events")?,
                }),
                1 => judged.conflicts.push(number),
                2 => judged.taken.push(number),
                3 => judged.replays.push(number),
                _ => judged.halted = true,
            }
        }
        judged.heads.sort_unstable_by_key(|head| head.partition);
        Ok(judged)
    }

    fn outcomes(
        &self,
        appends: &[&Pending],
        columns: &Columns<'_>,
    ) -> Result<Vec<Result<Appended, Error>>, sqlx::Error> {
        let mut refused: Vec<Option<Error>> = appends.iter().map(|_| None).collect();
        let slot = |index: i64| usize::try_from(index).expect("indices were made here");
        for &ordinal in &self.taken {
            let (index, digest, _) =
                columns.take[usize::try_from(ordinal - 1).expect("ordinals count from 1")];
            refused[slot(index.into())].get_or_insert(Error::ClaimTaken(*digest));
        }
        for &index in &self.conflicts {
            refused[slot(index)] = Some(Error::Conflict);
        }
        // A replay beats a conflict and a taken claim.
        for &index in &self.replays {
            refused[slot(index)] = Some(Error::KeyUsed);
        }
        // Positions as the statement counted them: by partition, in the batch's order.
        let mut stored: Vec<u64> = vec![0; self.heads.len()];
        let outcomes: Vec<_> = appends
            .iter()
            .zip(refused)
            .map(|(pending, refused)| {
                if let Some(error) = refused {
                    return Ok(Err(error));
                }
                if pending.append.events.is_empty() {
                    return Ok(Ok(Appended { partition: pending.partition, position: 0, recorded_at: None }));
                }
                let place = self
                    .heads
                    .binary_search_by_key(&i64::from(pending.partition), |head| head.partition)
                    .map_err(|_| sqlx::Error::Decode("a partition is missing in log.partitions".into()))?;
                stored[place] += pending.append.events.len() as u64;
                let position: Position = self.heads[place].base + stored[place];
                let recorded_at = self.heads[place].first_at + Duration::from_micros(stored[place] - 1);
                Ok(Ok(Appended { partition: pending.partition, position, recorded_at: Some(recorded_at) }))
            })
            .collect::<Result<_, sqlx::Error>>()?;
        // Counted on both sides: readers of this process go by these positions.
        if cfg!(not(rollcall_break = "contiguity"))
            && stored.iter().copied().ne(self.heads.iter().map(|head| head.events))
        {
            return Err(sqlx::Error::Decode("the database counted other events than were sent".into()));
        }
        Ok(outcomes)
    }
}

/// Which appends have been stored already: those whose stream bears our event id at that sequence.
pub(super) async fn find_stored(
    connection: &mut PgConnection,
    appends: &[&Pending],
) -> Result<Vec<Option<Result<Appended, Error>>>, sqlx::Error> {
    let mut found = Vec::with_capacity(appends.len());
    for pending in appends {
        let append = &pending.append;
        let Some(last) = append.events.last() else {
            // A record alone: sent again it meets itself, and is replayed.
            found.push(None);
            continue;
        };
        let row = sqlx::query(
            "SELECT position, recorded_at FROM log.events
             WHERE partition = $1 AND tenant_id = $2 AND aggregate_type = $3 AND aggregate_id = $4 AND sequence = $5
               AND event_id = $6",
        )
        .bind(i32::from(pending.partition))
        .bind(&*append.stream.tenant)
        .bind(&*append.stream.aggregate_type)
        .bind(&*append.stream.aggregate_id)
        .bind(signed(append.expected.version() + append.events.len() as u64))
        .bind(last.event_id)
        .fetch_optional(&mut *connection)
        .await?;
        found.push(match row {
            None => None,
            Some(row) => Some(Ok(Appended {
                partition: pending.partition,
                position: unsigned(row.try_get(0)?, "position")?,
                recorded_at: Some(row.try_get(1)?),
            })),
        });
    }
    Ok(found)
}
