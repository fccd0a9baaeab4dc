//! Applies events to profiles: the rows of a batch's users are read once, folded in memory and written once.

use std::{collections::HashMap, fmt::Write as _};

use rollcall_event_store::{Log, Partition, Position, Recorded, StreamId, keys::SubjectKey, tail::Span};
use sqlx::{PgConnection, Row};

use super::{SCHEMA, SEALED, drift, names};
use crate::{
    Profile,
    checkpoint::Moves,
    drift::{Drift, Folded, RowKey, Swept},
    parking::Place,
    projector::{Error, Projection},
    schema::{Schema, Version},
    stored::{USER, user_event},
};

/// The projection of profiles.
pub struct Profiles {
    log: Log,
    version: Version,
    select: String,
    apply: String,
    delete: String,
    skip: String,
}

/// A profile on its way from one version to another.
struct Folding<'a> {
    stream: &'a StreamId,
    /// The transaction that wrote the row which the events go on from; none where the batch holds the user's first event.
    row_read: Option<String>,
    key: SubjectKey,
    profile: Profile,
    version: u64,
    partition: Partition,
    position: Position,
}

impl Profiles {
    fn new(log: Log, version: Version) -> Self {
        Self {
            log,
            version,
            select: version.sql(
                "SELECT q.ordinal, u.sealed, u.version, u.xmin::text
                 FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS q(tenant_id, user_id, ordinal)
                 JOIN {schema}.users u ON u.tenant_id = q.tenant_id AND u.user_id = q.user_id",
            ),
            apply: version.sql(
                "SELECT {schema}.apply($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
            ),
            delete: version.sql(
                "DELETE FROM {schema}.users WHERE tenant_id = $1 AND user_id = $2",
            ),
            skip: version.sql(
                "UPDATE {schema}.users SET version = $3, position = $4
                 WHERE tenant_id = $1 AND user_id = $2 AND version = $3 - 1",
            ),
        }
    }

    /// The rows that the batch's events go on from: a user each, by its first event in the batch.
    async fn begin<'a>(
        &self,
        connection: &mut PgConnection,
        firsts: &[&'a Recorded],
    ) -> Result<Vec<Folding<'a>>, Error> {
        let streams: Vec<&StreamId> = firsts.iter().map(|first| &first.stream).collect();
        let keys = self.log.keys().of_passing(connection, &streams).await?;
        let mut folding: Vec<Folding<'_>> = firsts
            .iter()
            .zip(keys)
            .map(|(first, key)| Folding {
                stream: &first.stream,
                row_read: None,
                key,
                profile: Profile::default(),
                version: 0,
                partition: first.partition,
                position: first.position,
            })
            .collect();
        let known: Vec<usize> = (0..firsts.len()).filter(|&slot| firsts[slot].sequence > 1).collect();
        if known.is_empty() {
            return Ok(folding);
        }
        let rows = sqlx::query(&self.select)
            .bind(known.iter().map(|&slot| &*streams[slot].tenant).collect::<Vec<_>>())
            .bind(known.iter().map(|&slot| &*streams[slot].aggregate_id).collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
        for row in rows {
            let place = usize::try_from(row.try_get::<i64, _>(0)? - 1).expect("ordinals count from 1");
            let (first, folding) = (firsts[known[place]], &mut folding[known[place]]);
            folding.version = u64::try_from(row.try_get::<i64, _>(2)?).map_err(|_| row_error(first))?;
            folding.row_read = row.try_get(3)?;
            if let SubjectKey::Alive(key) = &folding.key {
                let plain = key.open_row(SEALED, &first.stream, row.try_get(1)?)?;
                folding.profile = serde_json::from_slice(&plain).map_err(|_| row_error(first))?;
            }
        }
        Ok(folding)
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        moves: Moves,
        folded: &[Folding<'_>],
    ) -> Result<(), Error> {
        let mut names: HashMap<&str, names::Digests> = HashMap::new();
        let mut columns = Columns::default();
        let mut erased: (Vec<&str>, Vec<&str>) = Default::default();
        for folding in folded {
            let stream = folding.stream;
            let SubjectKey::Alive(key) = &folding.key else {
                erased.0.push(&stream.tenant);
                erased.1.push(&stream.aggregate_id);
                continue;
            };
            let profile = &folding.profile;
            let plain = serde_json::to_vec(profile).expect("a profile is JSON");
            let names = names.entry(&stream.tenant).or_insert_with(|| {
                names::Digests::new(self.log.keys().digester(&stream.tenant, names::SCOPE))
            });
            let (position, version) = (folding.position.cast_signed(), folding.version.cast_signed());
            let status = profile.user.status().map_or("unknown", rollcall_domain::Status::as_str);
            let sealed = key.seal_row(SEALED, stream, &plain);
            let (traits, digests) = (profile.traits_json(), names.of_user(&profile.user));
            columns.position.push(position);
            columns.version.push(version);
            columns.partition.push(i32::from(folding.partition));
            columns.tenant.push(&stream.tenant);
            columns.user_id.push(&stream.aggregate_id);
            columns.row_read.push(folding.row_read.as_deref());
            columns.status.push(status);
            columns.sealed.push(sealed);
            columns.traits.push(traits);
            columns.name_digests.push(array(&digests));
        }
        let statement = moves
            .bind(&self.apply)
            .bind(columns.tenant)
            .bind(columns.user_id)
            .bind(columns.row_read)
            .bind(columns.position)
            .bind(columns.version)
            .bind(columns.partition)
            .bind(columns.status)
            .bind(columns.sealed)
            .bind(columns.traits)
            .bind(columns.name_digests)
            .bind(erased.0)
            .bind(erased.1);
        statement.execute(connection).await?;
        Ok(())
    }
}

impl Projection for Profiles {
    const SCHEMA: &'static Schema = &SCHEMA;

    fn of(log: &Log, version: Version) -> Self {
        Self::new(log.clone(), version)
    }

    async fn apply(&self, connection: &mut PgConnection, moves: Moves, spans: &[Span]) -> Result<(), Error> {
        let events = self.log.read_spans(connection, spans).await?;
        let of_users = || events.iter().filter(|event| &*event.stream.aggregate_type == USER);
        let mut slots: HashMap<&StreamId, usize> = HashMap::new();
        let mut firsts: Vec<&Recorded> = Vec::new();
        for event in of_users() {
            slots.entry(&event.stream).or_insert_with(|| {
                firsts.push(event);
                firsts.len() - 1
            });
        }
        let mut folding = self.begin(connection, &firsts).await?;
        for event in of_users() {
            let folding = &mut folding[slots[&event.stream]];
            // Of an erased user nothing is to be there, whatever the events say.
            if matches!(folding.key, SubjectKey::Erased) {
                continue;
            }
            // Checked on write and on read: a stream has no gaps.
            if folding.version + 1 != event.sequence {
                let (found, next) = (folding.version, event.sequence);
                let (partition, position) = (event.partition, event.position);
                return Err(match found {
                    0 => Error::NoRow { next, partition, position },
                    _ => Error::Gap { found, next, partition, position },
                });
            }
            let opened = folding.key.open_event(event)?;
            folding.profile.apply(&user_event(event, &opened)?, event.recorded_at);
            folding.version = event.sequence;
            folding.position = event.position;
        }
        self.write(connection, moves, &folding).await
    }

    fn count(&self) -> &'static str {
        drift::COUNT
    }

    async fn differences(
        &self,
        connection: &mut PgConnection,
        folded: &[Folded],
    ) -> Result<Vec<Vec<String>>, Error> {
        drift::differences(&self.log, connection, self.version, folded).await
    }

    /// The row's version moves over the event. A user whose first event is discarded has no row to go on from: the next one
    /// says so.
    async fn skip(&self, transaction: &mut PgConnection, event: &Place) -> Result<(), Error> {
        if &*event.stream.aggregate_type == USER {
            sqlx::query(&self.skip)
                .bind(&*event.stream.tenant)
                .bind(&*event.stream.aggregate_id)
                .bind(event.sequence.cast_signed())
                .bind(event.position.cast_signed())
                .execute(transaction)
                .await?;
        }
        Ok(())
    }

    async fn swept(
        &self,
        connection: &mut PgConnection,
        after: Option<&RowKey>,
        rows_max: u32,
    ) -> Result<Swept, Error> {
        drift::swept(&self.log, connection, self.version, after, rows_max).await
    }

    async fn repair(
        &self,
        transaction: &mut PgConnection,
        drift: &Drift,
        folded: &Folded,
    ) -> Result<(), Error> {
        sqlx::query(&self.delete)
            .bind(&*drift.stream.tenant)
            .bind(&*drift.stream.aggregate_id)
            .execute(&mut *transaction)
            .await?;
        let Some(last) = folded.events.last().filter(|_| drift::begins(folded)) else { return Ok(()) };
        let mut keys = self.log.keys().in_vault(transaction, &[&folded.stream]).await?;
        let key = keys.pop().ok_or_else(|| row_error(last))?;
        let folding = Folding {
            stream: &folded.stream,
            row_read: None,
            profile: drift::profile(&key, folded)?,
            key,
            version: last.sequence,
            partition: last.partition,
            position: last.position,
        };
        self.write(transaction, Moves::none(self.version), &[folding]).await
    }
}

fn row_error(event: &Recorded) -> Error {
    Error::Row { partition: event.partition, position: event.position }
}

/// The columns of the rows to write.
#[derive(Default)]
struct Columns<'a> {
    position: Vec<i64>,
    version: Vec<i64>,
    partition: Vec<i32>,
    tenant: Vec<&'a str>,
    user_id: Vec<&'a str>,
    row_read: Vec<Option<&'a str>>,
    status: Vec<&'a str>,
    sealed: Vec<Vec<u8>>,
    traits: Vec<String>,
    name_digests: Vec<String>,
}

/// An array in PostgreSQL's text form: arrays of arrays must be rectangular, so each row's goes as text.
fn array(numbers: &[i32]) -> String {
    let mut text = String::with_capacity(2 + numbers.len() * 9);
    text.push('{');
    for (place, number) in numbers.iter().enumerate() {
        let comma = if place > 0 { "," } else { "" };
        write!(text, "{comma}{number}").expect("a string grows");
    }
    text.push('}');
    text
}
