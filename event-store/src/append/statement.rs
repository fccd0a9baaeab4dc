//! The one statement, a call of `log.append`: its parameters, how its verdict is read, and the look-up of what an earlier
//! sending stored.

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

/// Parameters stand as the function names them (migrations/0001_log.sql).
const STATEMENT: &str = "SELECT verdict, number, base, first_at FROM log.append(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26,
    $27, $28, $29, $30, $31)";

/// What is looked for before anything is stored. What is there already and was not looked for is a unique violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    /// Other versions of streams that were read.
    Versions,
    /// Taken claims and used keys too.
    Taken,
    /// Streams that should be new as well.
    All,
}

/// The number by which the statement knows an append: from 1, as SQL counts.
type Number = i32;

/// The statement's parameters, a column each.
#[derive(Default)]
struct Columns<'a> {
    // Of each append.
    partition: Vec<i32>,
    tenant: Vec<&'a str>,
    aggregate_type: Vec<&'a str>,
    aggregate_id: Vec<&'a str>,
    // What some have, in the order in which it is locked.
    probe: Vec<(Number, i64)>,
    take: Vec<(Number, &'a Digest)>,
    release: Vec<(Number, &'a Digest)>,
    record: Vec<(Number, &'a Record)>,
    data_key: Vec<(Number, &'a str, &'a WrappedKey)>,
    /// Partitions that get events.
    heads: Vec<i32>,
    // Of each event.
    append: Vec<Number>,
    /// Its number among those of its partition.
    rank: Vec<i64>,
    sequence: Vec<i64>,
    event_id: Vec<Uuid>,
    event_type: Vec<&'a str>,
    event_version: Vec<&'a str>,
    payload: Vec<&'a str>,
    personal: Vec<Option<&'a [u8]>>,
    metadata: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(appends: &[&'a Pending], look: Look) -> Self {
        let mut columns = Self::default();
        let mut rank = 0;
        for (number, pending) in (1..).zip(appends) {
            let append = &pending.append;
            let partition = i32::from(pending.partition);
            columns.partition.push(partition);
            columns.tenant.push(&append.stream.tenant);
            columns.aggregate_type.push(&append.stream.aggregate_type);
            columns.aggregate_id.push(&append.stream.aggregate_id);
            if !append.events.is_empty() {
                if look == Look::All || append.expected != Expected::Fresh {
                    columns.probe.push((number, signed(append.expected.version())));
                }
                if columns.heads.last() != Some(&partition) {
                    columns.heads.push(partition);
                    rank = 0;
                }
            }
            for (sequence, event) in (append.expected.version() + 1..).zip(&append.events) {
                rank += 1;
                columns.append.push(number);
                columns.rank.push(rank);
                columns.sequence.push(signed(sequence));
                columns.event_id.push(event.event_id);
                columns.event_type.push(event.event_type);
                columns.event_version.push(event.event_version);
                columns.payload.push(&event.payload);
                columns.personal.push(event.personal.as_deref());
                columns.metadata.push(&event.metadata);
            }
            columns.note_others(number, append);
        }
        columns.take.sort_unstable_by_key(|(_, digest)| *digest);
        columns.release.sort_unstable_by_key(|(_, digest)| *digest);
        columns.record.sort_unstable_by_key(|(_, record)| record.idempotency.key);
        columns.data_key.sort_unstable_by_key(|(_, aggregate_id, _)| *aggregate_id);
        columns
    }

    /// What an append changes beside the events.
    fn note_others(&mut self, number: Number, append: &'a Append) {
        for claim in &append.claims {
            match claim {
                ClaimChange::Take(digest) => self.take.push((number, digest)),
                ClaimChange::Release(digest) => self.release.push((number, digest)),
            }
        }
        self.record.extend(append.record.iter().map(|record| (number, record)));
        let data_key = append.data_key.iter();
        self.data_key.extend(data_key.map(|new| (number, &*append.stream.aggregate_id, &new.wrapped)));
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
    look: Look,
    generation: i32,
    log_id: Uuid,
) -> Result<Vec<Result<Appended, Error>>, sqlx::Error> {
    let c = Columns::of(appends, look);
    let rows = sqlx::query(STATEMENT)
        .bind(log_id)
        .bind(generation)
        .bind(look >= Look::Taken)
        .bind(&c.partition)
        .bind(&c.tenant)
        .bind(&c.aggregate_type)
        .bind(&c.aggregate_id)
        .bind(column(&c.probe, |(number, _)| *number))
        .bind(column(&c.probe, |(_, version)| *version))
        .bind(column(&c.take, |(number, _)| *number))
        .bind(column(&c.take, |(_, digest)| &digest.0[..]))
        .bind(column(&c.release, |(number, _)| *number))
        .bind(column(&c.release, |(_, digest)| &digest.0[..]))
        .bind(column(&c.record, |(number, _)| *number))
        .bind(column(&c.record, |(_, record)| &record.idempotency.key.0[..]))
        .bind(column(&c.record, |(_, record)| &record.idempotency.fingerprint.0[..]))
        .bind(column(&c.record, |(_, record)| record.status.cast_signed()))
        .bind(column(&c.record, |(_, record)| signed(record.version)))
        .bind(column(&c.data_key, |(number, ..)| *number))
        .bind(column(&c.data_key, |(.., wrapped)| wrapped.master_generation))
        .bind(column(&c.data_key, |(.., wrapped)| &wrapped.bytes[..]))
        .bind(&c.heads)
        .bind(&c.append)
        .bind(&c.rank)
        .bind(&c.sequence)
        .bind(&c.event_id)
        .bind(&c.event_type)
        .bind(&c.event_version)
        .bind(&c.payload)
        .bind(&c.personal)
        .bind(&c.metadata)
        .fetch_all(connection)
        .await?;
    let judged = Judged::of(&rows)?;
    if judged.halted {
        return Ok(appends.iter().map(|_| Err(Error::Restored)).collect());
    }
    judged.outcomes(appends, &c)
}

/// What the statement says of a batch.
#[derive(Default)]
struct Judged {
    conflicts: Vec<i64>,
    /// Places among the claims to take, counted from 1.
    taken: Vec<i64>,
    replays: Vec<i64>,
    halted: bool,
    /// By partition.
    heads: Vec<Head>,
    events: u64,
}

/// Where a partition's events were put.
struct Head {
    partition: i64,
    base: Position,
    first_at: DateTime<Utc>,
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
                }),
                1 => judged.conflicts.push(number),
                2 => judged.taken.push(number),
                3 => judged.replays.push(number),
                5 => judged.events = unsigned(number, "events")?,
                _ => judged.halted = true,
            }
        }
        Ok(judged)
    }

    fn outcomes(
        &self,
        appends: &[&Pending],
        columns: &Columns<'_>,
    ) -> Result<Vec<Result<Appended, Error>>, sqlx::Error> {
        let mut refused: Vec<Option<Error>> = appends.iter().map(|_| None).collect();
        let place = |number: i64| usize::try_from(number - 1).expect("numbers count from 1");
        for &taken in &self.taken {
            let (number, digest) = columns.take[place(taken)];
            refused[place(number.into())].get_or_insert(Error::ClaimTaken(*digest));
        }
        for &number in &self.conflicts {
            refused[place(number)] = Some(Error::Conflict);
        }
        // A replay beats a conflict and a taken claim.
        for &number in &self.replays {
            refused[place(number)] = Some(Error::KeyUsed);
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
        if stored.iter().sum::<u64>() != self.events {
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
