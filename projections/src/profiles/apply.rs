//! Applies events to profiles: the rows of a batch's users are read once, folded in memory and written once.

use std::{collections::HashMap, fmt::Write as _};

use rollcall_event_store::{Log, Partition, Position, Recorded, StreamId, keys::SubjectKey, tail::Span};
use sqlx::{PgConnection, Row};

use super::{SCHEMA, SEALED, drift, names};
use crate::{
    Profile,
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
    insert: String,
    update: String,
    delete: String,
    skip: String,
}

/// Rows to write, a column each; numbers of a row's digests go as text.
const ROWS: &str =
    "unnest($1::int8[], $2::int8[], $3::int4[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::text[],
    $9::text[]) AS n(position, version, partition, tenant_id, user_id, status, sealed, traits, name_digests)";

/// A profile on its way from one version to another.
struct Folding<'a> {
    stream: &'a StreamId,
    /// The batch holds the user's first event.
    new: bool,
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
                "SELECT q.ordinal, u.sealed, u.version
                 FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS q(tenant_id, user_id, ordinal)
                 JOIN {schema}.users u ON u.tenant_id = q.tenant_id AND u.user_id = q.user_id",
            ),
            // A plain insert: a new user whose row is there already would be an error, and must be loud. Not a COPY: while that
            // waits for its rows the server cancels nothing, and where their sender is gone it holds what it has locked.
            insert: version.sql(&format!(
                "INSERT INTO {{schema}}.users
                     (position, version, partition, tenant_id, user_id, status, sealed, traits, name_digests)
                 SELECT position, version, partition, tenant_id, user_id, status, sealed, traits::jsonb,
                        name_digests::integer[]
                 FROM {ROWS}"
            )),
            update: version.sql(&format!(
                "UPDATE {{schema}}.users u SET position = n.position, version = n.version, status = n.status,
                        sealed = n.sealed, traits = n.traits::jsonb, name_digests = n.name_digests::integer[]
                 FROM {ROWS} WHERE u.tenant_id = n.tenant_id AND u.user_id = n.user_id"
            )),
            delete: version.sql(
                "DELETE FROM {schema}.users u USING unnest($1::text[], $2::text[]) AS q(tenant_id, user_id)
                 WHERE u.tenant_id = q.tenant_id AND u.user_id = q.user_id",
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
                new: first.sequence == 1,
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
            if let SubjectKey::Alive(key) = &folding.key {
                let plain = key.open_row(SEALED, &first.stream, row.try_get(1)?)?;
                folding.profile = serde_json::from_slice(&plain).map_err(|_| row_error(first))?;
            }
        }
        Ok(folding)
    }

    async fn write(&self, connection: &mut PgConnection, folded: &[Folding<'_>]) -> Result<(), Error> {
        let mut names: HashMap<&str, names::Digests> = HashMap::new();
        let (mut new, mut changed) = (Columns::default(), Columns::default());
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
            let columns = if folding.new { &mut new } else { &mut changed };
            columns.position.push(position);
            columns.version.push(version);
            columns.partition.push(i32::from(folding.partition));
            columns.tenant.push(&stream.tenant);
            columns.user_id.push(&stream.aggregate_id);
            columns.status.push(status);
            columns.sealed.push(sealed);
            columns.traits.push(traits);
            columns.name_digests.push(array(&digests));
        }
        new.write(connection, &self.insert).await?;
        changed.write(connection, &self.update).await?;
        if !erased.0.is_empty() {
            sqlx::query(&self.delete).bind(erased.0).bind(erased.1).execute(connection).await?;
        }
        Ok(())
    }
}

impl Projection for Profiles {
    const SCHEMA: &'static Schema = &SCHEMA;

    fn of(log: &Log, version: Version) -> Self {
        Self::new(log.clone(), version)
    }

    async fn apply(&self, transaction: &mut PgConnection, spans: &[Span]) -> Result<(), Error> {
        let events = self.log.read_spans(transaction, spans).await?;
        let of_users = || events.iter().filter(|event| &*event.stream.aggregate_type == USER);
        let mut slots: HashMap<&StreamId, usize> = HashMap::new();
        let mut firsts: Vec<&Recorded> = Vec::new();
        for event in of_users() {
            slots.entry(&event.stream).or_insert_with(|| {
                firsts.push(event);
                firsts.len() - 1
            });
        }
        let mut folding = self.begin(transaction, &firsts).await?;
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
        self.write(transaction, &folding).await
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
            .bind([&*drift.stream.tenant])
            .bind([&*drift.stream.aggregate_id])
            .execute(&mut *transaction)
            .await?;
        let Some(last) = folded.events.last().filter(|_| drift::begins(folded)) else { return Ok(()) };
        let mut keys = self.log.keys().in_vault(transaction, &[&folded.stream]).await?;
        let key = keys.pop().ok_or_else(|| row_error(last))?;
        let folding = Folding {
            stream: &folded.stream,
            new: true,
            profile: drift::profile(&key, folded)?,
            key,
            version: last.sequence,
            partition: last.partition,
            position: last.position,
        };
        self.write(transaction, &[folding]).await
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
    status: Vec<&'a str>,
    sealed: Vec<Vec<u8>>,
    traits: Vec<String>,
    name_digests: Vec<String>,
}

impl Columns<'_> {
    /// Writes all rows; each must find its place.
    async fn write(self, connection: &mut PgConnection, statement: &str) -> Result<(), Error> {
        let rows = self.position.len() as u64;
        if rows == 0 {
            return Ok(());
        }
        let done = sqlx::query(statement)
            .bind(self.position)
            .bind(self.version)
            .bind(self.partition)
            .bind(self.tenant)
            .bind(self.user_id)
            .bind(self.status)
            .bind(self.sealed)
            .bind(self.traits)
            .bind(self.name_digests)
            .execute(connection)
            .await?;
        if done.rows_affected() == rows { Ok(()) } else { Err(sqlx::Error::RowNotFound.into()) }
    }
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
