//! Profiles: each user as it is now.

mod apply;
mod cache;
mod drift;
mod filter;
mod names;
mod queries;

pub use apply::Profiles;
pub use cache::Shown;
pub use filter::{Filter, Sought};
pub use queries::{Error as QueryError, GetError, Options, Page, Queries, Row};

use crate::schema::Schema;

/// Where profiles live. Identity, contact and preferences stand in `sealed` alone, under the subject's data key;
/// traits, which filters need, stand plainly as well; names can be found by cut digests of their prefixes.
pub const SCHEMA: Schema = Schema {
    name: "profiles",
    shape: 1,
    tables: "
        CREATE TABLE {schema}.users (
            position     bigint           NOT NULL,
            version      bigint           NOT NULL,
            partition    integer          NOT NULL,
            tenant_id    text COLLATE \"C\" NOT NULL,
            user_id      text COLLATE \"C\" NOT NULL,
            status       text COLLATE \"C\" NOT NULL,
            sealed       bytea            NOT NULL,
            traits       jsonb            NOT NULL,
            name_digests integer[]        NOT NULL,
            PRIMARY KEY (tenant_id, user_id)
        );",
    indexes: "
        CREATE INDEX users_name_digests ON {schema}.users USING gin (name_digests);
        CREATE INDEX users_traits ON {schema}.users USING gin (traits jsonb_path_ops);",
};

/// What the sealed column is bound to beside its subject.
pub(crate) const SEALED: &str = "profiles.users.sealed";
