//! Audit: who changed what when, across users. Rows point at events; values and reasons stay in the log, where they are
//! sealed, and are opened for the reader who may see them. One user's history is that user's stream, read from the log.

mod drift;
mod queries;

use rollcall_event_store::{Log, Recorded, tail::Span};
use sqlx::PgConnection;

pub use queries::{
    Entry, Error as QueryError, Filter, Page, Place, Queries, StoredEvent, event_type, event_types,
};

use crate::{
    checkpoint::{self, Moves},
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
    // Positions are unique, so as many rows as positions means that none is missing.
    functions: "
        CREATE OR REPLACE FUNCTION {schema}.apply(
            of_projection text, of_version integer, partitions integer[], afters bigint[], untils bigint[], epochs bigint[],
            partitions_applied integer[], afters_applied bigint[], untils_applied bigint[])
        RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            written bigint;
        BEGIN
            PERFORM projections.advance(of_projection, of_version, partitions, afters, untils, epochs);
            INSERT INTO {schema}.entries (position, recorded_at, partition, tenant_id, aggregate_type, event_type, actor,
                                          import_id)
            SELECT e.position, e.recorded_at, e.partition, e.tenant_id, e.aggregate_type, e.event_type,
                   e.metadata->>'actor', e.metadata->>'import_id'
            FROM unnest(partitions_applied, afters_applied, untils_applied) AS s(partition, after, until)
            CROSS JOIN LATERAL (
                SELECT * FROM log.events l
                WHERE l.partition = s.partition AND l.position > s.after AND l.position <= s.until
                ORDER BY l.position) e;
            GET DIAGNOSTICS written = ROW_COUNT;
            IF written <> (SELECT sum(s.until - s.after) FROM unnest(afters_applied, untils_applied) AS s(after, until)) THEN
                RAISE EXCEPTION 'the log has a hole' USING ERRCODE = 'RC003';
            END IF;
        END $$;",
    writes: ".apply(text,int4,int4[],int8[],int8[],int8[],int4[],int8[],int8[])",
    indexes: "
        CREATE INDEX entries_actor ON {schema}.entries (tenant_id, actor, recorded_at, partition, position);
        CREATE INDEX entries_import ON {schema}.entries (tenant_id, import_id, recorded_at, partition, position)
            WHERE import_id IS NOT NULL;",
};

/// The projection of audit entries: all of it is done inside the database.
pub struct Audit {
    version: Version,
    apply: String,
}

impl Audit {
    fn new(version: Version) -> Self {
        Self { version, apply: version.sql("SELECT {schema}.apply($1, $2, $3, $4, $5, $6, $7, $8, $9)") }
    }
}

impl Projection for Audit {
    const SCHEMA: &'static Schema = &SCHEMA;

    fn of(_log: &Log, version: Version) -> Self {
        Self::new(version)
    }

    async fn apply(&self, connection: &mut PgConnection, moves: Moves, spans: &[Span]) -> Result<(), Error> {
        let (partitions, afters, untils) = checkpoint::columns(spans.iter());
        let statement = moves.bind(&self.apply).bind(partitions).bind(afters).bind(untils);
        statement.execute(connection).await?;
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
        let span = |event: &Recorded| Span {
            partition: event.partition,
            after: event.position - 1,
            until: event.position,
        };
        let spans: Vec<Span> = folded.applied().map(span).collect();
        self.apply(transaction, Moves::none(self.version), &spans).await
    }

    /// The entry is missing, and nothing goes on from it.
    async fn skip(&self, _: &mut PgConnection, _: &parking::Place) -> Result<(), Error> {
        Ok(())
    }
}
