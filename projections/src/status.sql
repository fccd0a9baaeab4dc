WITH heard AS MATERIALIZED (
    SELECT m.member, m.process, m.works, m.declines, m.heard_at,
           extract(epoch FROM clock_timestamp() - m.heard_at)::float8 AS ago,
           EXISTS (SELECT FROM pg_stat_activity a
                   WHERE a.application_name = 'rollcall-member ' || m.member) AS connected
    FROM projections.members m ORDER BY m.heard_at DESC LIMIT 1000),
living AS MATERIALIZED (
    SELECT h.*, CASE WHEN h.ago < $1 AND (h.connected OR h.ago < $2) THEN 'alive'
                     WHEN h.connected THEN 'frozen' ELSE 'gone' END AS state
    FROM heard h),
read AS MATERIALIZED (
    SELECT c.projection, c.version, c.partition, c.position, greatest(p.position - c.position, 0) AS behind,
           coalesce(o.seconds, 0) AS seconds
    FROM projections.positions c
    JOIN log.heads p USING (partition)
    LEFT JOIN LATERAL (
        SELECT greatest(extract(epoch FROM clock_timestamp() - e.recorded_at)::float8, 0) AS seconds FROM log.events e
        WHERE c.position < p.position AND e.partition = c.partition AND e.position > c.position
        ORDER BY e.position LIMIT 1) o ON true)
SELECT json_build_object(
    'log_id', (SELECT log_id FROM log.meta),
    'at', clock_timestamp(),
    'halt', (SELECT json_build_object('found_by', found_by, 'found_at', found_at, 'why', why) FROM log.halt),
    'partitions', (
        SELECT json_agg(json_build_object('partition', p.partition, 'head', p.position,
            'recorded_at', CASE WHEN p.position > 0 THEN p.recorded_at END) ORDER BY p.partition)
        FROM log.heads p),
    'projections', (
        SELECT coalesce(json_agg(json_build_object('projection', v.projection, 'version', v.version, 'shape', v.shape,
            'state', CASE WHEN s.version IS NOT NULL THEN 'serving' WHEN v.wrong_at IS NOT NULL THEN 'wrong'
                          WHEN v.caught_up_at IS NOT NULL THEN 'standing by' ELSE 'being filled' END,
            'positions', r.positions, 'lag_events', r.lag_events, 'lag_seconds', r.lag_seconds,
            'waits_seconds', r.waits_seconds)
            ORDER BY v.projection, v.version), '[]')
        FROM projections.versions v
        LEFT JOIN projections.serving s
            ON s.projection = v.projection AND s.shape = v.shape AND s.version = v.version
        CROSS JOIN LATERAL (
            SELECT coalesce(json_agg(r.position ORDER BY r.partition), '[]') AS positions,
                   coalesce(sum(r.behind), 0) AS lag_events, coalesce(max(r.seconds), 0) AS lag_seconds,
                   coalesce(json_agg(r.seconds ORDER BY r.partition), '[]') AS waits_seconds
            FROM read r WHERE r.projection = v.projection AND r.version = v.version) r),
    'leases', (
        SELECT coalesce(json_agg(json_build_object('projection', l.projection, 'version', l.version, 'unit', l.unit,
            'epoch', l.epoch, 'member', l.holder, 'process', h.process, 'taken_at', l.taken_at, 'trouble', CASE WHEN h.state = 'alive' THEN l.trouble END,
            'state', CASE h.state WHEN 'alive' THEN 'held' WHEN 'frozen' THEN 'frozen' ELSE 'free' END)
            ORDER BY l.projection, l.version, l.unit), '[]')
        FROM projections.leases l LEFT JOIN living h ON h.member = l.holder),
    'members', (
        SELECT coalesce(json_agg(json_build_object('member', h.member, 'process', h.process, 'works', h.works,
            'declines', h.declines, 'heard_at', h.heard_at, 'heard_seconds_ago', h.ago, 'state', h.state) ORDER BY h.process, h.member), '[]')
        FROM living h),
    'stream_sequence', (SELECT stream_sequence FROM projections.published ORDER BY stream_sequence DESC LIMIT 1)
)::text
