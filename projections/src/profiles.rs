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
    // A new user is a plain insert: one whose row is there already would be an error, and must be loud. A row that is changed
    // is the one that was read: `rows_read` has the transaction that wrote it, as text, and NULL for a new user. Subscripts, not
    // unnest, as in log.append. Not a COPY: while that waits for its rows the server cancels nothing, and where their sender is
    // gone it holds what it has locked.
    functions: "
        CREATE OR REPLACE FUNCTION {schema}.apply(
            of_projection text, of_version integer, partitions integer[], afters bigint[], untils bigint[], epochs bigint[],
            tenants text[], users text[], rows_read text[], positions bigint[], versions bigint[], row_partitions integer[],
            statuses text[], sealed_rows bytea[], traits_rows text[], digests_rows text[],
            tenants_erased text[], users_erased text[])
        RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            written  bigint;
            existing integer := cardinality(array_remove(rows_read, NULL));
        BEGIN
            PERFORM projections.advance(of_projection, of_version, partitions, afters, untils, epochs);
            IF existing < cardinality(users) THEN
                INSERT INTO {schema}.users
                    (position, version, partition, tenant_id, user_id, status, sealed, traits, name_digests)
                SELECT positions[n], versions[n], row_partitions[n], tenants[n], users[n], statuses[n], sealed_rows[n],
                       traits_rows[n]::jsonb, digests_rows[n]::integer[]
                FROM generate_series(1, cardinality(users)) AS n WHERE rows_read[n] IS NULL;
            END IF;
            IF existing > 0 THEN
                UPDATE {schema}.users u
                SET position = positions[n], version = versions[n], status = statuses[n], sealed = sealed_rows[n],
                    traits = traits_rows[n]::jsonb, name_digests = digests_rows[n]::integer[]
                FROM generate_series(1, cardinality(users)) AS n
                WHERE u.tenant_id = tenants[n] AND u.user_id = users[n] AND u.xmin::text = rows_read[n];
                GET DIAGNOSTICS written = ROW_COUNT;
                IF written <> existing THEN
                    RAISE EXCEPTION 'a row was changed since it was read' USING ERRCODE = 'RC002';
                END IF;
            END IF;
            IF cardinality(users_erased) > 0 THEN
                DELETE FROM {schema}.users u USING generate_series(1, cardinality(users_erased)) AS n
                WHERE u.tenant_id = tenants_erased[n] AND u.user_id = users_erased[n];
            END IF;
        END $$;",
    writes: ".apply(text,int4,int4[],int8[],int8[],int8[],text[],text[],text[],int8[],int8[],int4[],text[],bytea[],text[],\
             text[],text[],text[])",
    indexes: "
        CREATE INDEX users_name_digests ON {schema}.users USING gin (name_digests);
        CREATE INDEX users_traits ON {schema}.users USING gin (traits jsonb_path_ops);",
};

/// What the sealed column is bound to beside its subject.
pub(crate) const SEALED: &str = "profiles.users.sealed";
