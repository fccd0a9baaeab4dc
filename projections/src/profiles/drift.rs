//! Whether a profile is what its user's events say.

use std::collections::{BTreeSet, HashMap};

use rollcall_event_store::{
    Log, Partition, StreamId,
    keys::{DataKey, SubjectKey},
};
use serde_json::{Map, Value};
use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{SEALED, names};
use crate::{
    Profile,
    drift::{Drift, Folded, MISSING, RowKey, SURPLUS, Swept},
    projector::Error,
    schema::Version,
    stored::{USER, user_event},
};

/// A row for each user whose first event has been applied: not of those that are parked there, nor of those whose first
/// event was discarded and gone past, nor of those that were erased. All are looked up by key, however many users there are.
pub(super) const COUNT: &str =
    "SELECT c.partition, coalesce(r.rows, 0), coalesce(e.streams, 0) - coalesce(o.streams, 0)
     FROM projections.checkpoints c
     LEFT JOIN (SELECT u.partition, count(*) AS rows FROM {schema}.users u GROUP BY 1) r USING (partition)
     LEFT JOIN (SELECT l.partition, count(*) AS streams FROM log.events l
                JOIN projections.checkpoints t ON t.projection = $1 AND t.version = $2 AND t.partition = l.partition
                WHERE l.sequence = 1 AND l.aggregate_type = 'user' AND l.position <= t.position
                GROUP BY 1) e USING (partition)
     LEFT JOIN (SELECT w.partition, count(*) AS streams FROM (
                    SELECT p.partition, p.tenant_id, p.aggregate_id FROM projections.parked p
                    WHERE p.projection = $1 AND p.version = $2 AND p.aggregate_type = 'user' AND p.sequence = 1
                    UNION
                    SELECT s.partition, s.tenant_id, s.aggregate_id FROM projections.skipped s
                    JOIN projections.checkpoints t
                        ON t.projection = $1 AND t.version = $2 AND t.partition = s.partition AND s.position <= t.position
                    WHERE s.projection = $1 AND s.version = $2 AND s.aggregate_type = 'user' AND s.sequence = 1
                    UNION
                    SELECT f.partition, v.tenant_id, v.aggregate_id FROM vault.tombstones v
                    CROSS JOIN LATERAL (
                        SELECT l.partition FROM projections.checkpoints t
                        JOIN log.events l ON l.partition = t.partition AND l.tenant_id = v.tenant_id
                            AND l.aggregate_type = 'user' AND l.aggregate_id = v.aggregate_id AND l.sequence = 1
                        WHERE t.projection = $1 AND t.version = $2 AND l.position <= t.position LIMIT 1) f
                    WHERE v.aggregate_type = 'user' AND NOT EXISTS (
                        SELECT FROM {schema}.users u
                        WHERE u.tenant_id = v.tenant_id AND u.user_id = v.aggregate_id OFFSET 0)) w
                GROUP BY 1) o USING (partition)
     WHERE c.projection = $1 AND c.version = $2";

/// The fields of users' rows that differ from the fold of their events.
pub(super) async fn differences(
    log: &Log,
    connection: &mut PgConnection,
    version: Version,
    folded: &[Folded],
) -> Result<Vec<Vec<String>>, Error> {
    let of = |part: fn(&StreamId) -> &str| -> Vec<&str> {
        folded.iter().map(|folded| part(&folded.stream)).collect()
    };
    let rows = sqlx::query(&version.sql(
        "SELECT u.position, u.version, u.partition, u.status, u.sealed, u.traits::text, u.name_digests, q.ordinal
         FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS q(tenant_id, user_id, ordinal)
         JOIN {schema}.users u ON u.tenant_id = q.tenant_id AND u.user_id = q.user_id",
    ))
    .bind(of(|stream| &stream.tenant))
    .bind(of(|stream| &stream.aggregate_id))
    .fetch_all(&mut *connection)
    .await?;
    let mut found: HashMap<usize, PgRow> = HashMap::new();
    for row in rows {
        found.insert(usize::try_from(row.try_get::<i64, _>(7)? - 1).expect("ordinals count from 1"), row);
    }
    let users = folded.iter().filter(|folded| is_user(folded) && begins(folded));
    let users: Vec<&StreamId> = users.map(|folded| &folded.stream).collect();
    let keys = log.keys().in_vault(connection, &users).await?;
    let keys: HashMap<&StreamId, SubjectKey> = users.into_iter().zip(keys).collect();
    let mut differences = Vec::with_capacity(folded.len());
    for (place, folded) in folded.iter().enumerate() {
        let row = found.get(&place);
        differences.push(match keys.get(&folded.stream) {
            _ if !is_user(folded) => Vec::new(),
            None => only(SURPLUS, row.is_some()),
            // What is still to be applied may be what removes the row.
            Some(SubjectKey::Erased) => only(SURPLUS, row.is_some() && !folded.more),
            Some(SubjectKey::Alive(key)) => match row {
                None => only(MISSING, true),
                Some(row) => of_row(log, key, row, folded)?,
            },
        });
    }
    Ok(differences)
}

fn is_user(folded: &Folded) -> bool {
    &*folded.stream.aggregate_type == USER
}

/// Whether there is to be a row. Without its first event there is none to go on from, whatever comes later.
pub(super) fn begins(folded: &Folded) -> bool {
    folded.events.first().is_some_and(|first| !folded.skipped.contains(&first.position))
}

fn only(what: &str, so: bool) -> Vec<String> {
    so.then(|| what.to_owned()).into_iter().collect()
}

/// What a user's events make of it.
pub(super) fn profile(key: &SubjectKey, folded: &Folded) -> Result<Profile, Error> {
    let mut profile = Profile::default();
    for event in folded.applied() {
        let opened = key.open_event(event)?;
        profile.apply(&user_event(event, &opened)?, event.recorded_at);
    }
    Ok(profile)
}

fn of_row(log: &Log, key: &DataKey, row: &PgRow, folded: &Folded) -> Result<Vec<String>, Error> {
    let last = folded.events.last().expect("keys are looked for where there are events");
    let profile = profile(&SubjectKey::Alive(key.clone()), folded)?;
    let mut fields = BTreeSet::new();
    let mut differs = |name: &str, so: bool| {
        if so {
            fields.insert(name.to_owned());
        }
    };
    differs("position", row.try_get::<i64, _>(0)? != last.position.cast_signed());
    differs("version", row.try_get::<i64, _>(1)? != last.sequence.cast_signed());
    differs("partition", row.try_get::<i32, _>(2)? != i32::from(last.partition));
    let status = profile.user.status().map_or("unknown", rollcall_domain::Status::as_str);
    differs("status", row.try_get::<&str, _>(3)? != status);
    // What cannot be opened or read is another form of being wrong.
    let json = |text: &str| serde_json::from_str::<Value>(text).ok();
    let traits = json(&profile.traits_json());
    differs("traits", traits.is_none() || json(row.try_get(5)?) != traits);
    let digester = log.keys().digester(&folded.stream.tenant, names::SCOPE);
    differs(
        "name_digests",
        row.try_get::<Vec<i32>, _>(6).ok() != Some(names::Digests::new(digester).of_user(&profile.user)),
    );
    let stored = key.open_row(SEALED, &folded.stream, row.try_get(4)?).ok();
    match stored.and_then(|plain| serde_json::from_slice::<Profile>(&plain).ok()) {
        None => differs("sealed", true),
        Some(stored) if stored != profile => {
            let members = |profile: &Profile| -> Map<String, Value> {
                let text = profile.to_json(&folded.stream.tenant, &folded.stream.aggregate_id, last.sequence);
                serde_json::from_str(&text).expect("a profile is a JSON object")
            };
            let (stored, profile) = (members(&stored), members(&profile));
            let names: BTreeSet<&String> = stored.keys().chain(profile.keys()).collect();
            let mut alike = true;
            for name in names {
                let so = stored.get(name) != profile.get(name);
                differs(name, so);
                alike &= !so;
            }
            differs("sealed", alike);
        }
        Some(_) => {}
    }
    Ok(fields.into_iter().collect())
}

/// A page of the users' rows, and those among them whose first event has not been applied.
pub(super) async fn swept(
    log: &Log,
    connection: &mut PgConnection,
    version: Version,
    after: Option<&RowKey>,
    rows_max: u32,
) -> Result<Swept, Error> {
    let part = |place: usize| after.and_then(|key| key.get(place)).map_or("", String::as_str);
    let rows = sqlx::query(&version.sql(
        "SELECT u.tenant_id, u.user_id FROM {schema}.users u WHERE (u.tenant_id, u.user_id) > ($1, $2)
         ORDER BY u.tenant_id, u.user_id LIMIT $3",
    ))
    .bind(part(0))
    .bind(part(1))
    .bind(i64::from(rows_max))
    .fetch_all(&mut *connection)
    .await?;
    let mut streams: Vec<(StreamId, Partition)> = Vec::with_capacity(rows.len());
    for row in &rows {
        let stream = StreamId::new(row.try_get::<&str, _>(0)?, USER, row.try_get::<&str, _>(1)?);
        let partition = stream.partition(log.partitions());
        streams.push((stream, partition));
    }
    let strangers = sqlx::query(
        "SELECT q.ordinal
         FROM unnest($3::int4[], $4::text[], $5::text[]) WITH ORDINALITY AS q(partition, tenant_id, user_id, ordinal)
         WHERE NOT EXISTS (
             SELECT FROM log.events e
             JOIN projections.checkpoints c
                 ON c.projection = $1 AND c.version = $2 AND c.partition = e.partition AND e.position <= c.position
             WHERE e.partition = q.partition AND e.tenant_id = q.tenant_id AND e.aggregate_type = 'user'
               AND e.aggregate_id = q.user_id AND e.sequence = 1)
         ORDER BY q.ordinal",
    )
    .bind(version.projection)
    .bind(version.number)
    .bind(streams.iter().map(|(_, partition)| i32::from(*partition)).collect::<Vec<_>>())
    .bind(streams.iter().map(|(stream, _)| &*stream.tenant).collect::<Vec<_>>())
    .bind(streams.iter().map(|(stream, _)| &*stream.aggregate_id).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let last =
        streams.last().map(|(stream, _)| vec![stream.tenant.to_string(), stream.aggregate_id.to_string()]);
    let mut swept = Swept { rows: rows.len() as u64, last, surplus: Vec::new() };
    for row in strangers {
        let place = usize::try_from(row.try_get::<i64, _>(0)? - 1).expect("ordinals count from 1");
        let (stream, partition) = streams[place].clone();
        swept.surplus.push(Drift {
            stream,
            partition,
            fields: only(SURPLUS, true),
            row: None,
            parked: false,
        });
    }
    Ok(swept)
}
