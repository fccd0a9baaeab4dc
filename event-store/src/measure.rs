//! What an operator's gauges are read from: the queue, the pools, the key cache, and how old the oldest event is that
//! somebody has yet to apply.

use std::time::Duration;

use sqlx::Row;

use crate::{Borrowed, Log, Partition, Position, tail::signed};

/// How long the database may take to answer before it counts as away.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

impl Log {
    /// Sets the gauges of what this process holds. Cheap; to be called every second or so.
    pub fn measure(&self) {
        metrics::gauge!("rollcall_append_queue").set(self.appender().depth() as f64);
        metrics::gauge!("rollcall_append_queue_capacity").set(self.appender().capacity() as f64);
        metrics::gauge!("rollcall_key_cache_entries").set(self.keys().cached() as f64);
        for (name, pool) in [("service", self.pool()), ("listings", self.readers())] {
            metrics::gauge!("rollcall_pool_connections_open", "pool" => name).set(f64::from(pool.size()));
            metrics::gauge!("rollcall_pool_connections_idle", "pool" => name).set(pool.num_idle() as f64);
            metrics::gauge!("rollcall_pool_connections_max", "pool" => name)
                .set(f64::from(pool.options().get_max_connections()));
        }
    }

    /// For each reader of the log, given by its applied position of each partition: the age in seconds of the oldest
    /// event that it has yet to apply, by the database's clock, 0 where it has applied all that this process has heard
    /// of. One statement for all of them, also where nothing lags: an answer means that the database is there.
    ///
    /// # Errors
    /// Where the database does not answer within a second.
    pub async fn lag_seconds(&self, readers: &[Vec<Position>]) -> Result<Vec<f64>, sqlx::Error> {
        let (mut reader, mut partition, mut next) = (Vec::new(), Vec::new(), Vec::new());
        for (number, positions) in (0_i32..).zip(readers) {
            for (of, &position) in (0 as Partition..).zip(positions).take(usize::from(self.partitions())) {
                if self.heads().position(of) > position {
                    reader.push(number);
                    partition.push(i32::from(of));
                    next.push(signed(position + 1));
                }
            }
        }
        let asked = async {
            let mut connection = Borrowed::from(self.pool()).await?;
            // A lateral with a LIMIT of its own is a look-up by key, whatever the planner knows of the log.
            let rows = sqlx::query(
                "SELECT q.reader, max(extract(epoch FROM clock_timestamp() - e.recorded_at))::float8
                 FROM unnest($1::int4[], $2::int4[], $3::int8[]) AS q(reader, partition, next)
                 CROSS JOIN LATERAL (SELECT l.recorded_at FROM log.events l
                     WHERE l.partition = q.partition AND l.position >= q.next ORDER BY l.position LIMIT 1) e
                 GROUP BY q.reader",
            )
            .bind(&reader)
            .bind(&partition)
            .bind(&next)
            .fetch_all(&mut *connection)
            .await?;
            connection.done();
            Ok(rows)
        };
        let rows = tokio::time::timeout(ANSWER_WITHIN, asked)
            .await
            .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))?;
        let mut seconds = vec![0.0; readers.len()];
        for row in rows {
            let reader = usize::try_from(row.try_get::<i32, _>(0)?).expect("counted from 0 above");
            // An event may be recorded a little ahead of the clock: instants in a partition only rise.
            seconds[reader] = row.try_get::<f64, _>(1)?.max(0.0);
        }
        Ok(seconds)
    }
}
