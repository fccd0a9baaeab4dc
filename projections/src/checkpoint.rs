//! Checkpoints: the position up to which a projection has applied each partition.

use rollcall_event_store::{Partition, Position, tail::Span};
use sqlx::{PgConnection, Postgres, Row, postgres::PgArguments, query::Query};

use crate::{leases::Epoch, schema::Version};

/// The checkpoints of a projection, by partition.
///
/// # Errors
/// Where the database cannot be read.
pub async fn read(connection: &mut PgConnection, version: Version) -> Result<Vec<Position>, sqlx::Error> {
    sqlx::query(
        "SELECT position FROM projections.positions WHERE projection = $1 AND version = $2 ORDER BY partition",
    )
    .bind(version.projection)
    .bind(version.number)
    .fetch_all(connection)
    .await?
    .iter()
    .map(|row| Ok(Position::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default()))
    .collect()
}

/// What moves checkpoints.
pub(crate) const FUNCTIONS: &str = "
    -- Moves checkpoints over spans, each under the epoch of its partition's lease. Where one of them is not where its span
    -- begins, or another process has taken the lease since, that is an error, and nothing of the statement stays. The rows are
    -- locked to the transaction's end. Each row is found by its whole key, whatever the planner makes of the table: a look-up
    -- by less would walk over all versions of the rows that nobody has tidied up yet; hence the sums, which no index has. What
    -- another process changed meanwhile is judged by the conditions after that.
    CREATE OR REPLACE FUNCTION projections.advance(
        of_projection text, of_version integer, partitions integer[], afters bigint[], untils bigint[], epochs bigint[])
    RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        moved bigint;
    BEGIN
        IF cardinality(partitions) = 0 THEN
            RETURN;
        END IF;
        UPDATE projections.checkpoints c SET position = s.until
        FROM unnest(partitions, afters, untils, epochs) AS s(partition, after, until, epoch)
        WHERE c.ctid = ANY (ARRAY(
              SELECT (SELECT k.ctid FROM projections.checkpoints k
                      WHERE k.projection = of_projection AND k.version = of_version AND k.partition = q.partition
                        AND k.position = q.after)
              FROM unnest(partitions, afters) AS q(partition, after)))
          AND c.partition + 0 = s.partition AND c.position + 0 = s.after AND c.epoch = s.epoch;
        GET DIAGNOSTICS moved = ROW_COUNT;
        IF moved IS DISTINCT FROM cardinality(partitions) THEN
            RAISE EXCEPTION 'another process has moved a checkpoint or taken a lease' USING ERRCODE = 'RC001';
        END IF;
    END $$;";

/// What moves with a batch: checkpoints over spans, each under the epoch of its partition's lease. It stands first among the
/// parameters of `projections.advance` and of the functions that call it and write.
pub struct Moves {
    version: Version,
    partitions: Vec<i32>,
    afters: Vec<i64>,
    untils: Vec<i64>,
    epochs: Vec<Epoch>,
}

impl Moves {
    pub fn over(version: Version, spans: &[(Span, Epoch)]) -> Self {
        let (partitions, afters, untils) = columns(spans.iter().map(|(span, _)| span));
        Self { version, partitions, afters, untils, epochs: spans.iter().map(|(_, epoch)| *epoch).collect() }
    }

    /// Nothing moves: the transaction has seen to that already.
    pub fn none(version: Version) -> Self {
        Self::over(version, &[])
    }

    /// Binds the first six parameters.
    pub(crate) fn bind<'q>(self, statement: &'q str) -> Query<'q, Postgres, PgArguments> {
        sqlx::query(statement)
            .bind(self.version.projection)
            .bind(self.version.number)
            .bind(self.partitions)
            .bind(self.afters)
            .bind(self.untils)
            .bind(self.epochs)
    }
}

/// Partitions, and where each span begins and ends.
pub(crate) fn columns<'a>(spans: impl Iterator<Item = &'a Span>) -> (Vec<i32>, Vec<i64>, Vec<i64>) {
    let (mut partitions, mut afters, mut untils) = (Vec::new(), Vec::new(), Vec::new());
    for span in spans {
        partitions.push(i32::from(span.partition));
        afters.push(span.after.cast_signed());
        untils.push(span.until.cast_signed());
    }
    (partitions, afters, untils)
}

/// Moves checkpoints, which stay locked to the transaction's end.
///
/// # Errors
/// Where another process was there first ([`overtaken`]): nothing of the transaction stays. Where the database refuses.
pub async fn advance(connection: &mut PgConnection, moves: Moves) -> Result<(), sqlx::Error> {
    let statement = moves.bind("SELECT projections.advance($1, $2, $3, $4, $5, $6)");
    statement.execute(connection).await.map(drop)
}

/// Whether a checkpoint was not where a span begins, or another process has taken a lease since.
pub fn overtaken(error: &sqlx::Error) -> bool {
    is(error, "RC001")
}

/// Whether an error is of this SQLSTATE.
pub(crate) fn is(error: &sqlx::Error, state: &str) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == state)
}

/// A partition's checkpoint, held to the transaction's end; none where another process has taken the lease since.
///
/// # Errors
/// Where the database cannot be read.
pub async fn hold(
    connection: &mut PgConnection,
    version: Version,
    partition: Partition,
    epoch: Epoch,
) -> Result<Option<Position>, sqlx::Error> {
    let position: Option<i64> = sqlx::query_scalar(
        "SELECT position FROM projections.checkpoints
         WHERE projection = $1 AND version = $2 AND partition = $3 AND epoch = $4 FOR UPDATE",
    )
    .bind(version.projection)
    .bind(version.number)
    .bind(i32::from(partition))
    .bind(epoch)
    .fetch_optional(connection)
    .await?;
    Ok(position.and_then(|position| Position::try_from(position).ok()))
}
