-- The log: what happened, in order, for ever. Promises: docs/adr/0001-the-log.md.
-- Foreign keys stay out and every key can begin with a partition, so that the log can be distributed one day.

CREATE SCHEMA IF NOT EXISTS log;
CREATE SCHEMA IF NOT EXISTS vault;

-- What is known about this log; checked at every start.
CREATE TABLE log.meta (
    only_row     boolean          PRIMARY KEY DEFAULT true CHECK (only_row),
    -- Whose history this is: stands in tokens and messages, and is another one after an adoption.
    log_id       uuid             NOT NULL,
    -- The id that the log was made with, which never changes: the digest root and the service's role are bound to it.
    first_log_id uuid             NOT NULL,
    partitions   integer          NOT NULL CHECK (partitions BETWEEN 1 AND 1024),
    hash         text             NOT NULL,
    -- The newest migration that a binary must know to work here. A migration that older binaries can live with leaves
    -- it as it is, so that they serve on beside newer ones for the time of an update; any other raises it.
    requires     bigint           NOT NULL DEFAULT 1,
    -- The role that services connect as; settled by every migration.
    service_role text COLLATE "C" NOT NULL
);

-- A row for each partition, which never changes. Appends to a partition take turns by its row's lock.
CREATE TABLE log.partitions (
    partition integer PRIMARY KEY
);

-- Histories that this log had before a restored copy of it was adopted, and how far each is still this log's: by partition,
-- the heads at the adoption. What subscribers were told beyond them never happened.
CREATE TABLE log.histories (
    log_id     uuid        PRIMARY KEY,
    heads      bigint[]    NOT NULL,
    adopted_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Why no commands are taken, where that is so. Any service may write it, when it finds that the log went back; only the
-- owner takes it away, by adopting the log.
CREATE TABLE log.halt (
    only_row boolean          PRIMARY KEY DEFAULT true CHECK (only_row),
    found_by text COLLATE "C" NOT NULL,
    found_at timestamptz      NOT NULL DEFAULT clock_timestamp(),
    why      text             NOT NULL
);

-- Wide columns first for alignment. aggregate_type … metadata have the names and types of postgres-es.
CREATE TABLE log.events (
    position       bigint            NOT NULL CHECK (position > 0),
    sequence       bigint            NOT NULL CHECK (sequence > 0),
    recorded_at    timestamptz       NOT NULL,
    event_id       uuid              NOT NULL,
    partition      integer           NOT NULL,
    tenant_id      text COLLATE "C"  NOT NULL,
    aggregate_type text COLLATE "C"  NOT NULL,
    aggregate_id   text COLLATE "C"  NOT NULL,
    event_type     text COLLATE "C"  NOT NULL,
    event_version  text COLLATE "C"  NOT NULL,
    payload        json              NOT NULL,
    personal       bytea,
    metadata       json              NOT NULL,
    CONSTRAINT events_position PRIMARY KEY (partition, position),
    CONSTRAINT events_stream UNIQUE (partition, tenant_id, aggregate_type, aggregate_id, sequence)
);

-- The heads: a partition's newest event. Nothing else says how far a partition has come, so that nothing can say otherwise,
-- and no row is updated with every append: as long as some transaction holds an old snapshot, the versions of such a row could
-- not be tidied up, and each append would walk over them.
CREATE VIEW log.heads AS
SELECT p.partition, coalesce(e.position, 0) AS position, e.recorded_at, e.event_id
FROM log.partitions p
LEFT JOIN LATERAL (
    SELECT l.position, l.recorded_at, l.event_id FROM log.events l
    WHERE l.partition = p.partition ORDER BY l.position DESC LIMIT 1) e ON true;

-- Locks partitions, in ascending order and to the transaction's end, and reads where their next events go: that is what keeps
-- the log free of holes. The heads are read by a statement of its own, after the locks: it sees all that those who held them
-- before have committed, in READ COMMITTED, which every session sets. `next_at` rises with the position. Works with its
-- owner's rights, so that services need not be able to change a row; hence the path, which no caller may choose.
CREATE FUNCTION log.take_heads(partitions integer[])
RETURNS TABLE (partition integer, head bigint, next_at timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER ROWS 16 SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    locked bigint;
BEGIN
    PERFORM FROM log.partitions p WHERE p.partition = ANY (partitions) ORDER BY p.partition FOR UPDATE;
    GET DIAGNOSTICS locked = ROW_COUNT;
    IF locked <> cardinality(partitions) THEN
        RAISE EXCEPTION 'a partition is missing in log.partitions';
    END IF;
    RETURN QUERY
        SELECT w.partition, coalesce(e.position, 0),
               greatest(clock_timestamp(), e.recorded_at + interval '1 microsecond')
        FROM unnest(partitions) AS w(partition)
        LEFT JOIN LATERAL (
            SELECT l.position, l.recorded_at FROM log.events l
            WHERE l.partition = w.partition ORDER BY l.position DESC LIMIT 1) e ON true;
END $$;
REVOKE ALL ON FUNCTION log.take_heads FROM PUBLIC;

CREATE FUNCTION log.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are immutable: % on log.events is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER events_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON log.events
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();

-- Uniqueness across streams: a keyed digest of tenant, scope and normalised value points at the stream that holds it.
CREATE TABLE log.claims (
    digest         bytea            PRIMARY KEY,
    generation     integer          NOT NULL,
    tenant_id      text COLLATE "C" NOT NULL,
    aggregate_type text COLLATE "C" NOT NULL,
    aggregate_id   text COLLATE "C" NOT NULL
);

-- Idempotency: what a keyed command answered. Never a body; kept at least 24 hours.
CREATE TABLE log.commands (
    key          bytea            PRIMARY KEY,
    fingerprint  bytea            NOT NULL,
    status       smallint         NOT NULL,
    aggregate_id text COLLATE "C" NOT NULL,
    version      bigint           NOT NULL,
    recorded_at  timestamptz      NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX commands_recorded_at ON log.commands USING brin (recorded_at) WITH (pages_per_range = 16);

-- Snapshots: what a long stream's events came to, sealed under the subject's data key, one a stream. Discardable: one of
-- another shape, one that cannot be opened and one whose event is not there are ignored. `sequence` is the last event in it.
CREATE TABLE log.snapshots (
    sequence       bigint           NOT NULL CHECK (sequence > 0),
    recorded_at    timestamptz      NOT NULL,
    partition      integer          NOT NULL,
    shape          integer          NOT NULL,
    tenant_id      text COLLATE "C" NOT NULL,
    aggregate_type text COLLATE "C" NOT NULL,
    aggregate_id   text COLLATE "C" NOT NULL,
    sealed         bytea            NOT NULL,
    PRIMARY KEY (partition, tenant_id, aggregate_type, aggregate_id)
);

-- Generations of the master key. The key itself is never stored; `proof` is an HMAC made with it, so that a start
-- with another key is refused.
CREATE TABLE vault.master_keys (
    generation integer     PRIMARY KEY,
    proof      bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The root of all keyed digests, wrapped by a master key.
CREATE TABLE vault.digest_keys (
    generation        integer PRIMARY KEY,
    master_generation integer NOT NULL,
    wrapped           bytea   NOT NULL
);

-- A subject's own data key, wrapped by a master key. Erasing the subject deletes the row and leaves a tombstone.
CREATE TABLE vault.data_keys (
    aggregate_id      text COLLATE "C" NOT NULL,
    tenant_id         text COLLATE "C" NOT NULL,
    aggregate_type    text COLLATE "C" NOT NULL,
    master_generation integer          NOT NULL,
    wrapped           bytea            NOT NULL,
    PRIMARY KEY (aggregate_id, tenant_id, aggregate_type)
);
CREATE TABLE vault.tombstones (
    aggregate_id   text COLLATE "C" NOT NULL,
    tenant_id      text COLLATE "C" NOT NULL,
    aggregate_type text COLLATE "C" NOT NULL,
    erased_at      timestamptz      NOT NULL,
    PRIMARY KEY (aggregate_id, tenant_id, aggregate_type)
);
