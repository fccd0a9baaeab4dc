//! What each metric means.

use metrics::{describe_counter, describe_gauge, describe_histogram};

pub(super) fn all() {
    http();
    log();
    commands();
    projections();
    process();
}

fn http() {
    describe_counter!("rollcall_http_requests_total", "Requests by route, method and status");
    describe_histogram!("rollcall_http_request_seconds", "Time from a request's head to its answer's");
    describe_gauge!("rollcall_http_requests_in_flight", "Requests that are being answered");
    describe_counter!(
        "rollcall_http_requests_refused_total",
        "Requests refused because too many were at work"
    );
    describe_gauge!("rollcall_http_connections", "Open connections");
    describe_counter!(
        "rollcall_http_connections_refused_total",
        "Connections turned away because too many were open"
    );
}

fn log() {
    describe_gauge!(
        "rollcall_log_halted",
        "1 while no commands are taken, because the log was restored to an earlier point"
    );
    describe_counter!(
        "rollcall_log_broken_total",
        "Times that the log was found not to be what it promises: a hole, a repeated position, gone back, another log"
    );
}

fn commands() {
    describe_histogram!("rollcall_append_batch_appends", "Appends that one statement stored or judged");
    describe_histogram!("rollcall_append_batch_seconds", "Time to store one batch of appends");
    describe_gauge!("rollcall_append_queue", "Appends that wait for a writer");
    describe_gauge!("rollcall_append_queue_capacity", "Appends that may wait for a writer; more are refused");
    describe_counter!("rollcall_appends_total", "Appends by outcome");
    describe_counter!(
        "rollcall_command_retries_total",
        "Commands decided again, because another process changed their user meanwhile"
    );
    describe_histogram!("rollcall_gather_batch_keys", "Reads that one statement served");
    describe_histogram!("rollcall_gather_batch_seconds", "Time of one statement that reads for many");
    describe_counter!("rollcall_snapshots_total", "Snapshots of long streams by what became of them");
    describe_counter!("rollcall_key_cache_hits_total", "Data keys found in the cache");
    describe_counter!("rollcall_key_cache_misses_total", "Data keys read from the vault");
    describe_gauge!("rollcall_key_cache_entries", "Data keys in the cache");
    describe_counter!("rollcall_profile_cache_hits_total", "Reads of single users answered from memory");
    describe_counter!(
        "rollcall_profile_cache_misses_total",
        "Reads of single users answered from the database"
    );
}

fn projections() {
    describe_counter!("rollcall_projection_events_total", "Events that a projection applied");
    describe_histogram!("rollcall_projection_batch_events", "Events that one transaction applied");
    describe_histogram!("rollcall_projection_batch_seconds", "Time of one transaction that applied events");
    describe_counter!("rollcall_projection_failures_total", "Batches that failed and are tried again");
    describe_counter!(
        "rollcall_projection_stops_total",
        "Times that a partition was found to go no further than an event: someone must look"
    );
    describe_gauge!("rollcall_projection_partitions_stopped", "Partitions that go no further than an event");
    describe_counter!("rollcall_projection_parked_total", "Streams that were parked at an event");
    describe_gauge!(
        "rollcall_projection_parked_streams",
        "Streams that are parked at an event, in the partitions that this process projects: someone must look"
    );
    describe_counter!(
        "rollcall_projection_audited_streams_total",
        "Streams that were folded anew and compared with their rows"
    );
    describe_gauge!(
        "rollcall_projection_drift_streams",
        "Streams whose rows this process found to be not what the log says, or that cannot be folded: someone must look"
    );
    describe_gauge!(
        "rollcall_projection_versions_wrong",
        "Whether the version that is to serve was found to be not what the log says, and none serves: someone must look"
    );
    describe_gauge!("rollcall_projection_lag_events", "Events that a reader of the log has yet to apply");
    describe_gauge!(
        "rollcall_projection_lag_seconds",
        "Age of the oldest event that a reader of the log has yet to apply, by the database's clock"
    );
    describe_counter!("rollcall_published_events_total", "Events that NATS acknowledged");
    describe_histogram!(
        "rollcall_publisher_batch_seconds",
        "Time from a batch's first event to its last acknowledgement"
    );
    describe_counter!(
        "rollcall_publisher_failures_total",
        "Attempts to publish that failed and are repeated"
    );
    describe_gauge!(
        "rollcall_publisher_publishing",
        "1 while this process publishes, 0 while it does not reach NATS or another process publishes"
    );
    describe_gauge!(
        "rollcall_leases_held",
        "Units of work that this process holds: partitions of each version of a projection"
    );
    describe_counter!(
        "rollcall_lease_failures_total",
        "Times that leases could not be looked at; without them this process projects nothing"
    );
    describe_gauge!(
        "rollcall_projection_behind_events",
        "Events that a version that does not serve has yet to apply"
    );
}

fn process() {
    describe_gauge!("rollcall_build_info", "1, with the version and the role of the process");
    describe_gauge!(
        "rollcall_postgres_up",
        "1 where PostgreSQL answered within a second when it was last asked"
    );
    describe_gauge!("rollcall_pool_connections_open", "Connections of a pool, idle ones among them");
    describe_gauge!("rollcall_pool_connections_idle", "Connections of a pool that nobody uses");
    describe_gauge!("rollcall_pool_connections_max", "Connections that a pool may open");
    describe_counter!("rollcall_trace_spans_lost_total", "Spans that the collector of traces did not take");
}
