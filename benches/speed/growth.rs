//! What one command leaves on the disk, beside its event alone.

use std::time::Duration;

use sqlx::{Executor, PgConnection};

use crate::{
    support::report::{Figure, Goal, Report, Unit},
    world::World,
    writes::create_once,
};

const TABLES: [&str; 4] = ["log.events", "log.claims", "log.commands", "vault.data_keys"];
const BARE: &str = "bare.events";

pub async fn measure(world: &mut World, report: &mut Report) {
    let api = world.command_api();
    world.owner.execute("CREATE SCHEMA bare").await.unwrap();
    world
        .owner
        .execute("CREATE TABLE bare.events (LIKE log.events, PRIMARY KEY (partition, position))")
        .await
        .unwrap();
    world
        .owner
        .execute("CREATE TABLE bare.copied AS SELECT partition, position FROM log.heads")
        .await
        .unwrap();
    vacuums(&mut world.owner, false).await;
    // What follows a checkpoint writes whole pages: neither pays for that while it counts.
    world.owner.execute("CHECKPOINT").await.unwrap();
    create_once(world, &api.ready.http).await;
    copy_event_rows(&mut world.owner).await;

    let before = Disk::of(&mut world.owner, &TABLES).await;
    let done = create_once(world, &api.ready.http).await.done as f64;
    let ours = Disk::of(&mut world.owner, &TABLES).await.since(&before);
    drop(api);
    let before = Disk::of(&mut world.owner, &[BARE]).await;
    copy_event_rows(&mut world.owner).await;
    let bare = Disk::of(&mut world.owner, &[BARE]).await.since(&before);
    vacuums(&mut world.owner, true).await;

    let parts = TABLES.iter().zip(&ours.tables).map(|(table, bytes)| format!("{table} {:.0}", bytes / done));
    let parts: Vec<String> = parts.chain([format!("WAL {:.0}", ours.wal / done)]).collect();
    report.add(
        Figure::new(
            "log growth for each one-event command, with indexes and WAL",
            ours.all() / done,
            Unit::Bytes,
        )
        .detail(parts.join(", "))
        .against("the event row alone with its primary key", bare.all() / done)
        .goal(Goal::RatioAtMost(2.0)),
    );
}

/// Whether tables are tidied up in the background. What that writes, of read models most of all, is not what commands write.
async fn vacuums(owner: &mut PgConnection, wanted: bool) {
    let wish = if wanted { "on" } else { "off" };
    owner.execute(format!("ALTER SYSTEM SET autovacuum = {wish}").as_str()).await.unwrap();
    owner.execute("SELECT pg_reload_conf()").await.unwrap();
    if wanted {
        return;
    }
    loop {
        let at_work: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'",
        )
        .fetch_one(&mut *owner)
        .await
        .unwrap();
        if at_work == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The events that came since the last time, one by one into a table without other indexes.
async fn copy_event_rows(owner: &mut PgConnection) {
    owner
        .execute(
            "INSERT INTO bare.events SELECT e.* FROM bare.copied c
             JOIN log.events e ON e.partition = c.partition AND e.position > c.position ORDER BY e.recorded_at;
             TRUNCATE bare.copied",
        )
        .await
        .unwrap();
    owner.execute("INSERT INTO bare.copied SELECT partition, position FROM log.heads").await.unwrap();
}

/// Bytes.
struct Disk {
    tables: Vec<f64>,
    wal: f64,
}

impl Disk {
    async fn of(owner: &mut PgConnection, names: &[&str]) -> Self {
        let mut tables = Vec::new();
        for name in names {
            let size: i64 = sqlx::query_scalar("SELECT pg_total_relation_size($1::regclass)")
                .bind(name)
                .fetch_one(&mut *owner)
                .await
                .unwrap();
            tables.push(size as f64);
        }
        let wal: i64 = sqlx::query_scalar("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8")
            .fetch_one(&mut *owner)
            .await
            .unwrap();
        Self { tables, wal: wal as f64 }
    }

    fn since(&self, before: &Self) -> Self {
        let tables = self.tables.iter().zip(&before.tables).map(|(now, then)| now - then).collect();
        Self { tables, wal: self.wal - before.wal }
    }

    fn all(&self) -> f64 {
        self.tables.iter().sum::<f64>() + self.wal
    }
}
