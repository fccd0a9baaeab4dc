//! Reading profiles: one, many, or a page of those that match.

use std::{collections::HashSet, sync::Arc};

use futures_util::future::join_all;
use rollcall_event_store::{
    Borrowed, Log, Partition, Position, StreamHash, StreamId, bounded, gather,
    keys::{self, Keys, SubjectKey},
    tail::changes::Changes,
};
use sqlx::{
    PgConnection, Postgres, QueryBuilder,
    postgres::{PgConnectOptions, PgRow},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Filter, SEALED, Shown, cache::Cache, names};
use crate::{Profile, Progress, progress::Serving, schema::Version, stored::USER};

/// Candidates that one listing opens at most to fill a page; a page may be shorter than asked for, and still have a
/// next one.
const CANDIDATES_MAX: usize = 5_000;

/// Candidates that a search by name reads at least with one statement.
const CANDIDATES_MIN: usize = 100;

/// A profile and where its last change stands in the log.
#[derive(Clone, Debug)]
pub struct Row {
    pub id: String,
    pub version: u64,
    pub partition: Partition,
    pub position: Position,
    pub profile: Profile,
}

impl Row {
    pub fn to_json(&self, tenant: &str) -> String {
        self.profile.to_json(tenant, &self.id, self.version)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("profiles could not be read")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Keys(#[from] keys::Error),
    #[error("the profile of {0} cannot be read: see \"rollcall audit-projections\"")]
    Profile(StreamId),
    /// In one line: where lines are JSON, causes are not told.
    #[error("the profile of {stream} cannot be read: {why}: see \"rollcall audit-projections\"")]
    Sealed { stream: StreamId, why: keys::Error },
}

pub type GetError = gather::Error<Error>;

/// Some rows, and where to go on.
pub struct Page {
    pub rows: Vec<Row>,
    /// The id after which the next page begins; none where there is no more.
    pub next_after: Option<String>,
}

/// The queries over profiles. Cheap to clone.
#[derive(Clone)]
pub struct Queries {
    log: Log,
    get: gather::Handle<Get>,
    cache: Arc<Cache>,
}

/// Bounds of the queries.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections on which concurrent reads are gathered.
    pub connections: usize,
    /// What answers about single users may take in memory.
    pub cache_bytes: u64,
}

impl Queries {
    /// Starts the connections that gather concurrent reads, and follows what changes.
    pub fn start(
        log: Log,
        service: &PgConnectOptions,
        options: &Options,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Self {
        let get = Get { keys: log.keys().clone() };
        let get = gather::start(get, service, "rollcall-read", options.connections, tasks, shutdown);
        let cache = Arc::new(Cache::new(options.cache_bytes, Changes::follow(&log, tasks, shutdown)));
        let (swept, until) = (Arc::clone(&cache), shutdown.clone());
        tasks.spawn(async move { until.run_until_cancelled(swept.sweep()).await });
        Self { log, get, cache }
    }

    /// The partition of a user's stream: what a reader of that user waits on.
    pub fn partition(&self, tenant: &str, id: &str) -> Partition {
        StreamId::new(tenant, USER, id).partition(self.log.partitions())
    }

    /// Where users' streams are parked, of those that are: their rows show nothing of these positions or later ones.
    pub fn parked(&self, progress: &Progress, tenant: &str, ids: &[String]) -> Vec<(Partition, Position)> {
        let ids = if progress.any_parked() { ids } else { &[] };
        ids.iter().filter_map(|id| progress.parked(&StreamId::new(tenant, USER, id.as_str()))).collect()
    }

    /// Where a user's stream is, without a copy of its name.
    pub fn stream(&self, tenant: &str, id: &str) -> StreamHash {
        StreamHash::of(tenant, USER, id)
    }

    /// A user as an answer that was made a moment ago shows it, where that one shows all events up to a position, and all
    /// that are older than 100 ms.
    pub fn shown(&self, serving: &Serving, stream: StreamHash, up_to: Position) -> Option<Shown> {
        self.cache.get(serving, stream, up_to)
    }

    /// A user as an answer shows it, read now; concurrent calls share a statement. It is kept for [`shown`](Self::shown).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn show(&self, serving: &Serving, tenant: &str, id: &str) -> Result<Option<Shown>, GetError> {
        let stream = StreamId::new(tenant, USER, id);
        // Before the row is read.
        let place = self.cache.place(serving, &stream);
        let Some(row) = self.get.get((serving.version, stream)).await? else { return Ok(None) };
        let shown = Shown {
            body: row.to_json(tenant).into(),
            version: row.version,
            partition: row.partition,
            position: row.position,
        };
        if let Some(place) = place {
            self.cache.keep(place, serving, shown.clone());
        }
        Ok(Some(shown))
    }

    /// One profile of a version; concurrent calls share a statement.
    ///
    /// # Errors
    /// Where the database cannot be read in time.
    pub async fn get(&self, version: Version, tenant: &str, id: &str) -> Result<Option<Row>, GetError> {
        self.get.get((version, StreamId::new(tenant, USER, id))).await
    }

    /// Many profiles, in the order asked; those that are not there are left out. More than a few are read in two parts at once,
    /// each over a connection of its own, and so not all at one instant.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_many(&self, version: Version, tenant: &str, ids: &[String]) -> Result<Vec<Row>, Error> {
        let streams: Vec<StreamId> = ids.iter().map(|id| StreamId::new(tenant, USER, id.as_str())).collect();
        let (first, second) =
            streams.split_at(if streams.len() < 2 * PART_MIN { 0 } else { streams.len() / 2 });
        // Both are waited for: who gives up a statement that runs closes its connection.
        let parts = [first, second].into_iter().filter(|part| !part.is_empty());
        let mut rows = Vec::with_capacity(ids.len());
        for part in join_all(parts.map(|part| self.get_part(version, part))).await {
            rows.extend(part?.into_iter().flatten());
        }
        Ok(rows)
    }

    async fn get_part(&self, version: Version, streams: &[StreamId]) -> Result<Vec<Option<Row>>, Error> {
        let mut connection = Borrowed::from(self.log.readers()).await?;
        let streams: Vec<&StreamId> = streams.iter().collect();
        let rows = bounded(read_many(&mut connection, self.log.keys(), version, &streams)).await?;
        connection.done();
        Ok(rows)
    }

    /// A page of a tenant's profiles by id.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn list(
        &self,
        version: Version,
        tenant: &str,
        filter: &Filter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, Error> {
        let nothing = Page { rows: Vec::new(), next_after: None };
        let Some(ids) = self.claimed(tenant, filter).await? else { return Ok(nothing) };
        let search = filter.name.as_deref().map(names::Search::new);
        let mut connection = Borrowed::from(self.log.readers()).await?;
        let mut rows: Vec<Row> = Vec::new();
        let mut after = after.unwrap_or_default().to_owned();
        let mut opened = 0;
        let page = loop {
            // One more than asked for tells whether there is a next page; a search opens more than it finds.
            let want = match search {
                Some(_) => (limit + 1 - rows.len()).max(CANDIDATES_MIN),
                None => limit + 1 - rows.len(),
            };
            let mut query = self.listing(version, tenant, filter, search.as_ref(), &ids, &after, want);
            let candidates = bounded(query.build().fetch_all(&mut *connection)).await?;
            let exhausted = candidates.len() < want;
            let candidates = bounded(open(&mut connection, self.log.keys(), tenant, &candidates)).await?;
            opened += candidates.len();
            if let Some(last) = candidates.last() {
                after.clone_from(&last.id);
            }
            rows.extend(
                candidates
                    .into_iter()
                    .filter(|row| search.as_ref().is_none_or(|search| search.matches(&row.profile.user))),
            );
            if rows.len() > limit {
                rows.truncate(limit);
                let next_after = rows.last().map(|row| row.id.clone());
                break Page { rows, next_after };
            }
            if exhausted {
                break Page { rows, next_after: None };
            }
            if opened >= CANDIDATES_MAX {
                break Page { rows, next_after: Some(after) };
            }
        };
        connection.done();
        Ok(page)
    }

    /// The ids that the filter's unique values belong to; none where they belong to nobody, or to several.
    async fn claimed(&self, tenant: &str, filter: &Filter) -> Result<Option<Vec<String>>, sqlx::Error> {
        let email = filter.email.as_ref().map(|email| ("email".to_owned(), email.as_str()));
        let external_id =
            filter.external_id.as_ref().map(|(source, id)| (format!("external_id/{source}"), id.as_str()));
        let mut ids: HashSet<String> = HashSet::new();
        for (scope, value) in [email, external_id].into_iter().flatten() {
            match self.log.claim_holder(tenant, &scope, value).await? {
                Some(stream) => ids.insert(stream.aggregate_id.to_string()),
                None => return Ok(None),
            };
        }
        Ok(if ids.len() > 1 { None } else { Some(ids.into_iter().collect()) })
    }

    #[expect(clippy::too_many_arguments, reason = "a page is of a version, a tenant, a filter and a place")]
    fn listing<'a>(
        &self,
        version: Version,
        tenant: &'a str,
        filter: &'a Filter,
        search: Option<&names::Search>,
        ids: &'a [String],
        after: &'a str,
        limit: usize,
    ) -> QueryBuilder<'a, Postgres> {
        // Only what is asked for stands in the statement, so that the planner can use an index for it.
        let select = version.sql("SELECT user_id, sealed, version, partition, position FROM {schema}.users");
        let mut query = QueryBuilder::new(select);
        query.push(" WHERE tenant_id = ").push_bind(tenant).push(" AND user_id > ").push_bind(after);
        if !ids.is_empty() {
            query.push(" AND user_id = ANY (").push_bind(ids).push(")");
        }
        if let Some(status) = filter.status {
            query.push(" AND status = ").push_bind(status);
        }
        if let Some(search) = search {
            let digests = search.digests(&self.log.keys().digester(tenant, names::SCOPE));
            query.push(" AND name_digests @> ").push_bind(digests);
        }
        for (name, values) in &filter.traits {
            let mut alternatives = query.push(" AND (").separated(" OR ");
            for value in values {
                // The name is [A-Za-z0-9_.-] and the value is JSON, so this is JSON.
                alternatives.push("traits @> ");
                alternatives.push_bind_unseparated(format!("{{\"{name}\":{value}}}"));
                alternatives.push_unseparated("::jsonb");
            }
            query.push(")");
        }
        query.push(" ORDER BY user_id LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        query
    }
}

/// Fewer are not read apart: two statements cost more than they save.
const PART_MIN: usize = 200;

const SELECT_MANY: &str = "SELECT u.user_id, u.sealed, u.version, u.partition, u.position, q.ordinal
     FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS q(tenant_id, user_id, ordinal)
     CROSS JOIN LATERAL (SELECT * FROM {schema}.users r
         WHERE r.tenant_id = q.tenant_id AND r.user_id = q.user_id LIMIT 1) u";

/// Reads one profile for each of many concurrent requests.
#[derive(Clone)]
pub struct Get {
    keys: Keys,
}

impl gather::Fetch for Get {
    type Key = (Version, StreamId);
    type Value = Option<Row>;
    type Error = Error;

    async fn fetch(
        &self,
        connection: &mut PgConnection,
        wanted: &[(Version, StreamId)],
    ) -> Result<Vec<Option<Row>>, Error> {
        let mut found: Vec<Option<Row>> = wanted.iter().map(|_| None).collect();
        // One but for the moment in which another version begins to serve.
        let mut versions: Vec<Version> = wanted.iter().map(|(version, _)| *version).collect();
        versions.dedup();
        versions.sort_unstable();
        versions.dedup();
        for version in versions {
            let of_version = (0..wanted.len()).filter(|&place| wanted[place].0 == version);
            let places: Vec<usize> = of_version.collect();
            let streams: Vec<&StreamId> = places.iter().map(|&place| &wanted[place].1).collect();
            let rows = read_many(connection, &self.keys, version, &streams).await?;
            for (place, row) in places.into_iter().zip(rows) {
                found[place] = row;
            }
        }
        Ok(found)
    }

    fn transient(error: &Error) -> bool {
        matches!(error, Error::Database(_) | Error::Keys(keys::Error::Database(_)))
    }
}

async fn read_many(
    connection: &mut PgConnection,
    keys: &Keys,
    version: Version,
    streams: &[&StreamId],
) -> Result<Vec<Option<Row>>, Error> {
    let rows = sqlx::query(&version.sql(SELECT_MANY))
        .bind(streams.iter().map(|stream| &*stream.tenant).collect::<Vec<_>>())
        .bind(streams.iter().map(|stream| &*stream.aggregate_id).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await?;
    let mut found: Vec<Option<&PgRow>> = streams.iter().map(|_| None).collect();
    for row in &rows {
        let ordinal: i64 = sqlx::Row::try_get(row, 5)?;
        found[usize::try_from(ordinal - 1).expect("ordinals count from 1")] = Some(row);
    }
    let present = streams.iter().zip(&found).filter(|(_, row)| row.is_some()).map(|(stream, _)| *stream);
    let present: Vec<&StreamId> = present.collect();
    let mut keys = keys.of_subjects(connection, &present).await?.into_iter();
    let rows = streams.iter().zip(found).map(|(stream, row)| match row {
        Some(row) => {
            let key = keys.next().expect("a key for each row that is there");
            open_row(stream, &key, row)
        }
        None => Ok(None),
    });
    rows.collect()
}

async fn open(
    connection: &mut PgConnection,
    keys: &Keys,
    tenant: &str,
    rows: &[PgRow],
) -> Result<Vec<Row>, Error> {
    let streams: Vec<StreamId> = rows
        .iter()
        .map(|row| Ok(StreamId::new(tenant, USER, sqlx::Row::try_get::<&str, _>(row, 0)?)))
        .collect::<Result<_, sqlx::Error>>()?;
    let keys = keys.of_subjects(connection, &streams.iter().collect::<Vec<_>>()).await?;
    let opened = streams.iter().zip(&keys).zip(rows).map(|((stream, key), row)| open_row(stream, key, row));
    opened.filter_map(Result::transpose).collect()
}

/// A row of (user_id, sealed, version, partition, position); none where the user was erased a moment ago.
fn open_row(stream: &StreamId, key: &SubjectKey, row: &PgRow) -> Result<Option<Row>, Error> {
    use sqlx::Row as _;
    let SubjectKey::Alive(key) = key else { return Ok(None) };
    let unreadable = || Error::Profile(stream.clone());
    let plain = key
        .open_row(SEALED, stream, row.try_get(1)?)
        .map_err(|why| Error::Sealed { stream: stream.clone(), why })?;
    Ok(Some(Row {
        id: row.try_get(0)?,
        profile: serde_json::from_slice(&plain).map_err(|_| unreadable())?,
        version: u64::try_from(row.try_get::<i64, _>(2)?).map_err(|_| unreadable())?,
        partition: Partition::try_from(row.try_get::<i32, _>(3)?).map_err(|_| unreadable())?,
        position: u64::try_from(row.try_get::<i64, _>(4)?).map_err(|_| unreadable())?,
    }))
}
