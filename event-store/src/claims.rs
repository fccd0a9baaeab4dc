//! Uniqueness across streams: a claim is a keyed digest that points at the one stream that holds it.

use sqlx::{PgPool, Row};

use crate::{Borrowed, StreamId, keys::Digest};

/// A wish of an append about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimChange {
    Take(Digest),
    Release(Digest),
}

/// The stream that holds a claim now.
pub(crate) async fn holder(
    pool: &PgPool,
    digest: Digest,
    tenant: &str,
) -> Result<Option<StreamId>, sqlx::Error> {
    // The digest covers the tenant already; asking for it as well costs nothing and keeps tenants apart twice.
    let mut connection = Borrowed::from(pool).await?;
    let row = sqlx::query(
        "SELECT aggregate_type, aggregate_id FROM log.claims WHERE digest = $1 AND tenant_id = $2",
    )
    .bind(&digest.0[..])
    .bind(tenant)
    .fetch_optional(&mut *connection)
    .await?;
    connection.done();
    row.map(|row| Ok(StreamId::new(tenant, row.try_get::<&str, _>(0)?, row.try_get::<&str, _>(1)?)))
        .transpose()
}
