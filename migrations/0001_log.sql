-- The log: what happened, in order, for ever. Promises: docs/adr/0001-the-log.md.
-- Foreign keys stay out and every key holds a partition or can do so, so that the log can be distributed one day. Keys of streams
-- begin with the stream's id: it differs where tenant and type do not, and new ones stand beside each other.

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
    CONSTRAINT events_stream UNIQUE (aggregate_id, tenant_id, aggregate_type, partition, sequence)
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
    PRIMARY KEY (aggregate_id, tenant_id, aggregate_type, partition)
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

-- Stores a batch of appends in one transaction. Each append is judged on its own: one that conflicts, whose claim is taken or
-- whose key was used is left out; all others are stored whole. Where the log is not the one that the batch was decided on, or
-- takes no commands, all of it is refused. It is the only way into the log: it works with its owner's rights, and services
-- have no others than to call it; hence the path, which no caller may choose.
--
-- Locks, always in this order, so that two processes do not deadlock: claims to take by digest, claims to release by digest,
-- records by key, data keys by id, heads by partition. The lists come in that order. A head's lock is the last to be taken and is held to the commit: that keeps
-- the log free of holes. What is read after it is read by a statement of its own, which sees all that those who held it before
-- have committed, in READ COMMITTED, which every session sets.
--
-- Claims and keys are looked for only where that is asked for: nearly always nothing is found. Otherwise one that is there is met by
-- its unique index, nothing of the batch is stored, and the batch is to be sent again, looking.
--
-- Appends are numbered from 1 and sorted by partition, and the other lists name them by number. `heads` are the partitions
-- that get events; `ranks` number the events in each.
--
-- Look-ups, not joins: a join, which EXISTS becomes too, that was planned while a table was empty and vacuumed, and so taken
-- for one page, walks over the whole index for ever. Subscripts, not unnest, which copies each list before anything is done;
-- a list that is a parameter here has its members found.
CREATE FUNCTION log.append(
    of_log uuid, claims_generation integer, looking boolean,
    partitions integer[], tenants text[], types text[], ids text[],
    probed integer[], versions bigint[],
    taking integer[], digests_taken bytea[],
    releasing integer[], digests_released bytea[],
    recording integer[], keys bytea[], fingerprints bytea[], statuses smallint[], versions_recorded bigint[],
    keyed integer[], master_generations integer[], keys_wrapped bytea[],
    heads integer[], appends integer[], ranks bigint[], sequences bigint[], event_ids uuid[], event_types text[],
    event_versions text[], payloads text[], personals bytea[], metadatas text[])
-- What it is of (0 a head, 1 a conflict, 2 a taken claim, 3 a used key, 4 a halt, 5 the events stored), its number (a partition,
-- a place in `digests_taken`, else an append), and of a head the position before its first event and that one's instant.
RETURNS TABLE (verdict smallint, number bigint, base bigint, first_at timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER ROWS 16 SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    refused   integer[] := '{}';
    found_now integer[];
    locked    bigint;
    head      integer;
    newest    record;
    bases     bigint[];
    firsts    timestamptz[];
BEGIN
    IF EXISTS (SELECT FROM log.halt) OR NOT EXISTS (SELECT FROM log.meta m WHERE m.log_id = of_log) THEN
        RETURN QUERY SELECT 4::smallint, 0::bigint, NULL::bigint, NULL::timestamptz;
        RETURN;
    END IF;

    -- Each look sees what was committed before it, and what is found later counts for more: a claim that the stream itself took
    -- meanwhile is a conflict, and what the same command did meanwhile is a used key.
    IF looking AND cardinality(taking) > 0 THEN
        found_now := ARRAY(
            SELECT n FROM generate_series(1, cardinality(taking)) AS n
            WHERE (SELECT true FROM log.claims c WHERE c.digest = digests_taken[n] LIMIT 1));
        IF cardinality(found_now) > 0 THEN
            refused := refused || ARRAY(SELECT taking[n] FROM unnest(found_now) AS n);
            RETURN QUERY SELECT 2::smallint, n::bigint, NULL::bigint, NULL::timestamptz FROM unnest(found_now) AS n;
        END IF;
    END IF;
    -- A stream made a moment ago under a random id needs no probe: the unique index catches the impossible.
    IF cardinality(probed) > 0 THEN
        found_now := ARRAY(
            SELECT probed[n] FROM generate_series(1, cardinality(probed)) AS n
            WHERE versions[n] <> coalesce(
                (SELECT e.sequence FROM log.events e
                 WHERE e.partition = partitions[probed[n]] AND e.tenant_id = tenants[probed[n]]
                   AND e.aggregate_type = types[probed[n]] AND e.aggregate_id = ids[probed[n]]
                 ORDER BY e.sequence DESC LIMIT 1), 0));
        IF cardinality(found_now) > 0 THEN
            refused := refused || found_now;
            RETURN QUERY SELECT 1::smallint, n::bigint, NULL::bigint, NULL::timestamptz FROM unnest(found_now) AS n;
        END IF;
    END IF;
    IF (looking OR cardinality(refused) > 0) AND cardinality(recording) > 0 THEN
        found_now := ARRAY(
            SELECT recording[n] FROM generate_series(1, cardinality(recording)) AS n
            WHERE (SELECT true FROM log.commands c WHERE c.key = keys[n] LIMIT 1));
        IF cardinality(found_now) > 0 THEN
            refused := refused || found_now;
            RETURN QUERY SELECT 3::smallint, n::bigint, NULL::bigint, NULL::timestamptz FROM unnest(found_now) AS n;
        END IF;
    END IF;
    -- What is left out must not be counted.
    IF cardinality(refused) > 0 THEN
        ranks := ARRAY(
            SELECT CASE WHEN kept THEN count(*) FILTER (WHERE kept) OVER (PARTITION BY partitions[append] ORDER BY n) END
            FROM (SELECT n, appends[n] AS append, appends[n] <> ALL (refused) AS kept
                  FROM generate_series(1, cardinality(appends)) AS n) AS e
            ORDER BY n);
        heads := ARRAY(
            SELECT DISTINCT partitions[appends[n]] FROM generate_series(1, cardinality(appends)) AS n
            WHERE ranks[n] IS NOT NULL ORDER BY 1);
    ELSIF cardinality(appends) > 0 AND ranks[1] IS DISTINCT FROM 1 THEN
        RAISE EXCEPTION 'the first event of a partition must have rank 1';
    ELSIF cardinality(appends) > 1 THEN
        IF EXISTS (
            SELECT FROM generate_series(2, cardinality(appends)) AS n
            WHERE ranks[n] IS DISTINCT FROM
                  CASE WHEN partitions[appends[n]] = partitions[appends[n - 1]] THEN ranks[n - 1] + 1 ELSE 1 END) THEN
            RAISE EXCEPTION 'the events of a partition must be ranked without a hole';
        END IF;
    END IF;

    IF cardinality(taking) > 0 THEN
        INSERT INTO log.claims (digest, generation, tenant_id, aggregate_type, aggregate_id)
        SELECT digests_taken[n], claims_generation, tenants[taking[n]], types[taking[n]], ids[taking[n]]
        FROM generate_series(1, cardinality(taking)) AS n WHERE taking[n] <> ALL (refused);
    END IF;
    -- After those that are taken: who waits to take one holds none that another wants to release.
    IF cardinality(releasing) > 0 THEN
        DELETE FROM log.claims c
        USING generate_series(1, cardinality(releasing)) AS n
        CROSS JOIN LATERAL (
            SELECT k.ctid AS place FROM log.claims k
            WHERE k.digest = digests_released[n] AND k.aggregate_id = ids[releasing[n]] LIMIT 1) AS k
        WHERE c.ctid = k.place AND releasing[n] <> ALL (refused);
    END IF;
    IF cardinality(recording) > 0 THEN
        INSERT INTO log.commands (key, fingerprint, status, aggregate_id, version)
        SELECT keys[n], fingerprints[n], statuses[n], ids[recording[n]], versions_recorded[n]
        FROM generate_series(1, cardinality(recording)) AS n WHERE recording[n] <> ALL (refused);
    END IF;
    IF cardinality(keyed) > 0 THEN
        INSERT INTO vault.data_keys (aggregate_id, tenant_id, aggregate_type, master_generation, wrapped)
        SELECT ids[keyed[n]], tenants[keyed[n]], types[keyed[n]], master_generations[n], keys_wrapped[n]
        FROM generate_series(1, cardinality(keyed)) AS n WHERE keyed[n] <> ALL (refused);
    END IF;

    IF cardinality(heads) = 0 THEN
        RETURN;
    END IF;
    PERFORM FROM log.partitions p WHERE p.partition = ANY (heads) ORDER BY p.partition FOR UPDATE;
    GET DIAGNOSTICS locked = ROW_COUNT;
    IF locked <> cardinality(heads) THEN
        RAISE EXCEPTION 'a partition is missing in log.partitions';
    END IF;
    verdict := 0;
    FOREACH head IN ARRAY heads LOOP
        SELECT e.position, e.recorded_at INTO newest
        FROM log.events e WHERE e.partition = head ORDER BY e.position DESC LIMIT 1;
        number := head;
        base := coalesce(newest.position, 0);
        first_at := greatest(clock_timestamp(), newest.recorded_at + interval '1 microsecond');
        bases[head] := base;
        firsts[head] := first_at;
        RETURN NEXT;
    END LOOP;
    INSERT INTO log.events (position, sequence, recorded_at, event_id, partition, tenant_id, aggregate_type,
                            aggregate_id, event_type, event_version, payload, personal, metadata)
    SELECT bases[partitions[appends[n]]] + ranks[n], sequences[n],
           firsts[partitions[appends[n]]] + (ranks[n] - 1) * interval '1 microsecond', event_ids[n],
           partitions[appends[n]], tenants[appends[n]], types[appends[n]], ids[appends[n]], event_types[n],
           event_versions[n], payloads[n]::json, personals[n], metadatas[n]::json
    FROM generate_series(1, cardinality(appends)) AS n WHERE ranks[n] IS NOT NULL;
    GET DIAGNOSTICS number = ROW_COUNT;
    verdict := 5;
    base := NULL;
    first_at := NULL;
    RETURN NEXT;
END $$;
REVOKE ALL ON FUNCTION log.append FROM PUBLIC;
