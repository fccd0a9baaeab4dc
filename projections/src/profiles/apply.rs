//! Applies events to profiles: the rows of a batch's users are read once, folded in memory and written once.

use std::collections::{BTreeMap, HashMap, btree_map::Entry};

use rollcall_event_store::{
    Log, Partition, Position, Recorded, StreamId,
    keys::{Digester, SubjectKey},
    tail::Span,
};
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
    /// The batch holds the user's first event.
    new: bool,
    key: &'a SubjectKey,
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
            // A plain insert: a new user whose row is there already would be an error, and must be loud.
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

    /// The rows that the batch's events go on from.
    async fn begin<'a>(
        &self,
        connection: &mut PgConnection,
        firsts: &[&Recorded],
        keys: &'a HashMap<StreamId, SubjectKey>,
    ) -> Result<BTreeMap<StreamId, Folding<'a>>, Error> {
        let mut folding = BTreeMap::new();
        for first in firsts {
            let key = keys.get(&first.stream).ok_or_else(|| row_error(first))?;
            let start = Folding {
                new: first.sequence == 1,
                key,
                profile: Profile::default(),
                version: 0,
                partition: first.partition,
                position: first.position,
            };
            folding.insert(first.stream.clone(), start);
        }
        let known: Vec<&&Recorded> = firsts.iter().filter(|first| first.sequence > 1).collect();
        if known.is_empty() {
            return Ok(folding);
        }
        let rows = sqlx::query(&self.select)
            .bind(known.iter().map(|first| &*first.stream.tenant).collect::<Vec<_>>())
            .bind(known.iter().map(|first| &*first.stream.aggregate_id).collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
        for row in rows {
            let place = usize::try_from(row.try_get::<i64, _>(0)? - 1).expect("ordinals count from 1");
            let first = known[place];
            let Entry::Occupied(mut entry) = folding.entry(first.stream.clone()) else { continue };
            let folding = entry.get_mut();
            folding.version = u64::try_from(row.try_get::<i64, _>(2)?).map_err(|_| row_error(first))?;
            if let SubjectKey::Alive(key) = folding.key {
                let plain = key.open_row(SEALED, &first.stream, row.try_get(1)?)?;
                folding.profile = serde_json::from_slice(&plain).map_err(|_| row_error(first))?;
            }
        }
        Ok(folding)
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        folded: BTreeMap<StreamId, Folding<'_>>,
    ) -> Result<(), Error> {
        let mut digesters: HashMap<&str, Digester> = HashMap::new();
        let (mut new, mut changed) = (Columns::default(), Columns::default());
        let mut erased: (Vec<&str>, Vec<&str>) = Default::default();
        for (stream, folding) in &folded {
            let SubjectKey::Alive(key) = folding.key else {
                erased.0.push(&stream.tenant);
                erased.1.push(&stream.aggregate_id);
                continue;
            };
            let profile = &folding.profile;
            let plain = serde_json::to_vec(profile).expect("a profile is JSON");
            let digester = digesters
                .entry(&stream.tenant)
                .or_insert_with(|| self.log.keys().digester(&stream.tenant, names::SCOPE));
            let columns = if folding.new { &mut new } else { &mut changed };
            columns.position.push(folding.position.cast_signed());
            columns.version.push(folding.version.cast_signed());
            columns.partition.push(i32::from(folding.partition));
            columns.tenant.push(&stream.tenant);
            columns.user_id.push(&stream.aggregate_id);
            columns.status.push(profile.user.status().map_or("unknown", rollcall_domain::Status::as_str));
            columns.sealed.push(key.seal_row(SEALED, stream, &plain));
            columns.traits.push(profile.traits_json());
            columns.name_digests.push(array(&names::of_user(digester, &profile.user)));
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
        let keys = self.log.keys().of_subjects(transaction, of_users().map(|event| &event.stream)).await?;
        let mut firsts: HashMap<&StreamId, &Recorded> = HashMap::new();
        for event in of_users() {
            firsts.entry(&event.stream).or_insert(event);
        }
        let firsts: Vec<&Recorded> = firsts.into_values().collect();
        let mut folding = self.begin(transaction, &firsts, &keys).await?;
        for event in of_users() {
            let folding = folding.get_mut(&event.stream).ok_or_else(|| row_error(event))?;
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
        self.write(transaction, folding).await
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
        let Some(last) = folded.events.last() else { return Ok(()) };
        let keys = self.log.keys().in_vault(transaction, [&folded.stream]).await?;
        let key = keys.get(&folded.stream).ok_or_else(|| row_error(last))?;
        let folding = Folding {
            new: true,
            key,
            profile: drift::profile(key, folded)?,
            version: last.sequence,
            partition: last.partition,
            position: last.position,
        };
        self.write(transaction, [(folded.stream.clone(), folding)].into()).await
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
    let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
    format!("{{{}}}", numbers.join(","))
}
