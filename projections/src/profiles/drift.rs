//! Whether a profile is what its user's events say.

use std::collections::BTreeSet;

use rollcall_event_store::{Log, keys::SubjectKey};
use serde_json::{Map, Value};
use sqlx::{PgConnection, Row};

use super::{SEALED, names};
use crate::{
    Profile,
    drift::Folded,
    projector::Error,
    schema::Version,
    stored::{USER, user_event},
};

/// A row for each user whose first event has been applied.
pub(super) const COUNT: &str = "SELECT c.partition, coalesce(r.rows, 0), coalesce(e.streams, 0)
     FROM projections.checkpoints c
     LEFT JOIN (SELECT u.partition, count(*) AS rows FROM {schema}.users u GROUP BY 1) r USING (partition)
     LEFT JOIN (SELECT l.partition, count(*) AS streams FROM log.events l
                JOIN projections.checkpoints t ON t.projection = $1 AND t.version = $2 AND t.partition = l.partition
                WHERE l.sequence = 1 AND l.aggregate_type = 'user' AND l.position <= t.position
                GROUP BY 1) e USING (partition)
     WHERE c.projection = $1 AND c.version = $2";

/// The fields of a user's row that differ from the fold of its events.
pub(super) async fn differences(
    log: &Log,
    connection: &mut PgConnection,
    version: Version,
    folded: &Folded,
) -> Result<Vec<String>, Error> {
    let (Some(last), USER) = (folded.events.last(), &*folded.stream.aggregate_type) else {
        return Ok(Vec::new());
    };
    let place = || Error::Row { partition: last.partition, position: last.position };
    let row = sqlx::query(&version.sql(
        "SELECT position, version, partition, status, sealed, traits::text, name_digests FROM {schema}.users
         WHERE tenant_id = $1 AND user_id = $2",
    ))
    .bind(&*folded.stream.tenant)
    .bind(&*folded.stream.aggregate_id)
    .fetch_optional(&mut *connection)
    .await?;
    let keys = log.keys().of_subjects(connection, [&folded.stream]).await?;
    let Some(SubjectKey::Alive(key)) = keys.get(&folded.stream) else {
        return Ok(if row.is_some() { vec!["erased".to_owned()] } else { Vec::new() });
    };
    let Some(row) = row else { return Ok(vec!["row".to_owned()]) };
    let mut profile = Profile::default();
    for event in &folded.events {
        let opened = SubjectKey::Alive(key.clone()).open_event(event)?;
        profile.apply(&user_event(event, &opened)?, event.recorded_at);
    }
    let mut fields = BTreeSet::new();
    let numbers = (row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?, row.try_get::<i32, _>(2)?);
    if numbers != (last.position.cast_signed(), last.sequence.cast_signed(), i32::from(last.partition)) {
        fields.insert("version".to_owned());
    }
    let status = profile.user.status().map_or("unknown", rollcall_domain::Status::as_str);
    if row.try_get::<&str, _>(3)? != status {
        fields.insert("status".to_owned());
    }
    let json = |text: &str| serde_json::from_str::<Value>(text).map_err(|_| place());
    if json(row.try_get(5)?)? != json(&profile.traits_json())? {
        fields.insert("traits".to_owned());
    }
    let digester = log.keys().digester(&folded.stream.tenant, names::SCOPE);
    if row.try_get::<Vec<i32>, _>(6)? != names::of_user(&digester, &profile.user) {
        fields.insert("name_digests".to_owned());
    }
    // A row that cannot be opened or read is another form of being wrong.
    let stored = key.open_row(SEALED, &folded.stream, row.try_get(4)?).ok();
    match stored.and_then(|plain| serde_json::from_slice::<Profile>(&plain).ok()) {
        None => {
            fields.insert("sealed".to_owned());
        }
        Some(stored) if stored != profile => {
            let members = |profile: &Profile| -> Map<String, Value> {
                let text = profile.to_json(&folded.stream.tenant, &folded.stream.aggregate_id, last.sequence);
                serde_json::from_str(&text).expect("a profile is a JSON object")
            };
            let (stored, profile) = (members(&stored), members(&profile));
            let names: BTreeSet<&String> = stored.keys().chain(profile.keys()).collect();
            fields.extend(names.into_iter().filter(|&name| stored.get(name) != profile.get(name)).cloned());
            if fields.is_empty() {
                fields.insert("sealed".to_owned());
            }
        }
        Some(_) => {}
    }
    Ok(fields.into_iter().collect())
}
