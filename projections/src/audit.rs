//! Audit: who changed what when, across users. Rows point at events; values and reasons stay in the log, where they are
//! sealed, and are opened for the reader who may see them. One user's history is that user's stream, read from the log.

mod drift;
mod queries;

use rollcall_event_store::{
    Log, Recorded,
    tail::{self, Span},
};
use sqlx::PgConnection;

pub use queries::{
    Entry, Error as QueryError, Filter, Page, Place, Queries, StoredEvent, event_type, event_types,
};

use crate::{
    drift::{Drift, Folded, RowKey, Swept},
    parking,
    projector::{Error, Projection},
    schema::{Schema, Version},
};

pub const SCHEMA: Schema = Schema {
    name: "audit",
    shape: 1,
    tables: "
        CREATE TABLE {schema}.entries (
            position       bigint           NOT NULL,
            recorded_at    timestamptz      NOT NULL,
            partition      integer          NOT NULL,
            tenant_id      text COLLATE \"C\" NOT NULL,
            aggregate_type text COLLATE \"C\" NOT NULL,
            event_type     text COLLATE \"C\" NOT NULL,
            actor          text COLLATE \"C\",
            import_id      text COLLATE \"C\",
            PRIMARY KEY (tenant_id, recorded_at, partition, position)
        );",
    indexes: "
        CREATE INDEX entries_actor ON {schema}.entries (tenant_id, actor, recorded_at, partition, position);
        CREATE INDEX entries_import ON {schema}.entries (tenant_id, import_id, recorded_at, partition, position)
            WHERE import_id IS NOT NULL;",
};

/// The projection of audit entries: one statement inside the database.
pub struct Audit {
    version: Version,
    insert: String,
}

impl Audit {
    fn new(version: Version) -> Self {
        Self {
            version,
            insert: version.sql(
                "INSERT INTO {schema}.entries (position, recorded_at, partition, tenant_id, aggregate_type, event_type,
                                               actor, import_id)
                 SELECT e.position, e.recorded_at, e.partition, e.tenant_id, e.aggregate_type, e.event_type,
                        e.metadata->>'actor', e.metadata->>'import_id'
                 FROM unnest($1::int4[], $2::int8[], $3::int8[]) AS s(partition, after, until)
                 CROSS JOIN LATERAL (
                     SELECT * FROM log.events l
                     WHERE l.partition = s.partition AND l.position > s.after AND l.position <= s.until
                     ORDER BY l.position) e",
            ),
        }
    }
}

impl Projection for Audit {
    const SCHEMA: &'static Schema = &SCHEMA;

    fn of(_log: &Log, version: Version) -> Self {
        Self::new(version)
    }

    async fn apply(&self, transaction: &mut PgConnection, spans: &[Span]) -> Result<(), Error> {
        let done = sqlx::query(&self.insert)
            .bind(spans.iter().map(|span| i32::from(span.partition)).collect::<Vec<_>>())
            .bind(spans.iter().map(|span| span.after.cast_signed()).collect::<Vec<_>>())
            .bind(spans.iter().map(|span| span.until.cast_signed()).collect::<Vec<_>>())
            .execute(&mut *transaction)
            .await?;
        // Positions are unique, so as many rows as positions means that none is missing.
        if done.rows_affected() != spans.iter().map(Span::events).sum::<u64>() {
            tail::read_spans(transaction, spans).await?;
            let span = spans[0];
            return Err(Error::Row { partition: span.partition, position: span.after });
        }
        Ok(())
    }

    fn count(&self) -> &'static str {
        drift::COUNT
    }

    async fn differences(
        &self,
        connection: &mut PgConnection,
        folded: &[Folded],
    ) -> Result<Vec<Vec<String>>, Error> {
        drift::differences(connection, self.version, folded).await
    }

    async fn swept(
        &self,
        connection: &mut PgConnection,
        after: Option<&RowKey>,
        rows_max: u32,
    ) -> Result<Swept, Error> {
        drift::swept(connection, self.version, after, rows_max).await
    }

    async fn repair(
        &self,
        transaction: &mut PgConnection,
        drift: &Drift,
        folded: &Folded,
    ) -> Result<(), Error> {
        drift::remove(transaction, self.version, drift.row.as_ref(), folded).await?;
        let after = |event: &Recorded| event.position.cast_signed() - 1;
        sqlx::query(&self.insert)
            .bind(folded.applied().map(|event| i32::from(event.partition)).collect::<Vec<_>>())
            .bind(folded.applied().map(after).collect::<Vec<_>>())
            .bind(folded.applied().map(|event| event.position.cast_signed()).collect::<Vec<_>>())
            .execute(transaction)
            .await?;
        Ok(())
    }

    /// The entry is missing, and nothing goes on from it.
    async fn skip(&self, _: &mut PgConnection, _: &parking::Place) -> Result<(), Error> {
        Ok(())
    }
}
