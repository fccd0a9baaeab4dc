//! The tables of members and leases. Who lives is judged by the database's clock alone.

use std::collections::BTreeMap;

use sqlx::{Connection, Executor, PgConnection, Row};
use uuid::Uuid;

use super::{
    Epoch, LIVES_FOR, Member, Project, RECONNECTS_WITHIN, Units, Work,
    plan::{Lease, Leases, State},
};
use crate::{schema::Version, tables::pause_of};

/// How long what is known of a member that is gone is kept, for those who look into it.
const KEPT_FOR_S: f64 = 60.0;

/// A member's session.
pub(super) struct Table(pub PgConnection);

impl Table {
    /// Says that the member lives, and which versions it would rather leave to others, and forgets those that have long been
    /// gone.
    pub async fn say_alive(&mut self, member: &Member, declines: &[String]) -> Result<(), sqlx::Error> {
        sqlx::query(
            "WITH forgotten AS (
                 DELETE FROM projections.members
                 WHERE heard_at < clock_timestamp() - $4 * interval '1 second' AND member <> $1)
             INSERT INTO projections.members AS m (member, process, works, declines, heard_at)
             VALUES ($1, $2, $3, $5, clock_timestamp())
             ON CONFLICT (member) DO UPDATE
             SET heard_at = clock_timestamp(), works = excluded.works, declines = excluded.declines",
        )
        .bind(member.id)
        .bind(process())
        .bind(member.projects.iter().map(Project::name).collect::<Vec<_>>())
        .bind(KEPT_FOR_S)
        .bind(declines)
        .execute(&mut self.0)
        .await?;
        Ok(())
    }

    /// The leases of each version that the member can project, with the place of its project, and the living who share it.
    pub async fn look(&mut self, member: &Member) -> Result<BTreeMap<Version, (usize, Leases)>, sqlx::Error> {
        let rows = sqlx::query(
            "WITH heard AS MATERIALIZED (
                 SELECT m.member, m.works, m.declines, m.heard_at > clock_timestamp() - $3 * interval '1 second' AS lately,
                        m.heard_at > clock_timestamp() - $4 * interval '1 second' AS just_now,
                        EXISTS (SELECT FROM pg_stat_activity a
                                WHERE a.application_name = 'rollcall-member ' || m.member) AS connected
                 FROM projections.members m)
             SELECT w.ordinal, v.version, l.unit, l.epoch, l.holder,
                    CASE WHEN h.lately AND (h.connected OR h.just_now) THEN 'held'
                         WHEN h.connected THEN 'frozen'
                         WHEN l.holder IS NOT NULL AND h.lately IS NOT TRUE THEN 'gone' ELSE 'free' END,
                    s.members, s.declining, s.paused, v.served_at IS NULL AND v.wrong_at IS NULL
             FROM unnest($1::text[], $2::int4[], $5::int4[], $6::int4[]) WITH ORDINALITY
                 AS w(projection, shape, sole, pause, ordinal)
             JOIN projections.versions v
                 ON v.projection = w.projection AND v.shape = w.shape AND v.version = coalesce(w.sole, v.version)
             CROSS JOIN LATERAL (
                 SELECT coalesce(array_agg(o.member ORDER BY o.member), '{}') AS members,
                        coalesce(array_agg(o.member) FILTER (
                            WHERE v.projection || '_' || v.version = ANY (o.declines)), '{}') AS declining,
                        -- Only one that has never served can be; all locks need not be looked through for the others.
                        CASE WHEN v.served_at IS NULL THEN EXISTS (
                            SELECT FROM pg_locks k
                            WHERE k.locktype = 'advisory' AND k.objsubid = 2 AND k.granted
                              AND k.classid::int8 = w.pause AND k.objid::int8 = v.version AND k.database =
                                  (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
                        ELSE false END AS paused
                 FROM heard o
                 WHERE ARRAY[w.projection || ' ' || w.shape, v.projection || '_' || v.version] && o.works
                   AND o.lately AND (o.connected OR o.just_now)) s
             JOIN projections.leases l ON l.projection = v.projection AND l.version = v.version
             LEFT JOIN heard h ON h.member = l.holder
             ORDER BY w.ordinal, v.version, l.unit",
        )
        .bind(member.projects.iter().map(|project| project.projection).collect::<Vec<_>>())
        .bind(member.projects.iter().map(|project| project.shape).collect::<Vec<_>>())
        .bind(LIVES_FOR.as_secs_f64())
        .bind(RECONNECTS_WITHIN.as_secs_f64())
        .bind(member.projects.iter().map(|project| project.only).collect::<Vec<_>>())
        .bind(member.projects.iter().map(|project| pause_of(project.projection)).collect::<Vec<_>>())
        .fetch_all(&mut self.0)
        .await?;
        let mut leases: BTreeMap<Version, (usize, Leases)> = BTreeMap::new();
        for row in rows {
            let place = usize::try_from(row.try_get::<i64, _>(0)?).expect("ordinals count from 1") - 1;
            let version = Version { projection: member.projects[place].projection, number: row.try_get(1)? };
            let (_, of_version) = leases.entry(version).or_insert((place, Leases::default()));
            (of_version.members, of_version.declining) = (row.try_get(6)?, row.try_get(7)?);
            (of_version.paused, of_version.filling) = (row.try_get(8)?, row.try_get(9)?);
            of_version.units.push(Lease {
                unit: unit(row.try_get(2)?)?,
                epoch: row.try_get(3)?,
                holder: row.try_get(4)?,
                state: match row.try_get::<&str, _>(5)? {
                    "held" => State::Held,
                    "frozen" => State::Frozen,
                    "gone" => State::Gone,
                    _ => State::Free,
                },
            });
        }
        Ok(leases)
    }

    /// Ends the sessions of members that froze or died, and with them what these hold locked; not of those that were heard of
    /// meanwhile. The server rolls back what they had begun.
    pub async fn end_sessions(&mut self, members: &[Uuid]) -> Result<(), sqlx::Error> {
        let ended: i64 = sqlx::query_scalar(
            "SELECT count(pg_terminate_backend(a.pid)) FROM unnest($1::uuid[]) AS q(member)
             JOIN pg_stat_activity a ON a.application_name LIKE '% ' || q.member
             WHERE a.usename = current_user AND a.pid <> pg_backend_pid() AND NOT EXISTS (
                 SELECT FROM projections.members m
                 WHERE m.member = q.member AND m.heard_at > clock_timestamp() - $2 * interval '1 second')",
        )
        .bind(members)
        .bind(LIVES_FOR.as_secs_f64())
        .fetch_one(&mut self.0)
        .await?;
        if ended > 0 {
            tracing::warn!(?members, sessions = ended, "ended the sessions of a process that froze or died");
        }
        Ok(())
    }

    /// Takes units that are still as they were seen; those that were taken, with their new epochs. From then on no
    /// checkpoint of theirs moves for an older epoch.
    pub async fn take(
        &mut self,
        member: &Member,
        work: &Work,
        seen: &[(u16, Epoch)],
    ) -> Result<BTreeMap<u16, Epoch>, sqlx::Error> {
        let mut transaction = self.0.begin().await?;
        // An epoch must not be given out twice. And meanwhile the member must go on saying that it lives.
        transaction.execute("SET LOCAL synchronous_commit = on; SET LOCAL statement_timeout = '1s'").await?;
        let rows = sqlx::query(
            "WITH free AS (
                 SELECT l.unit FROM projections.leases l
                 JOIN unnest($4::int4[], $5::int8[]) AS s(unit, epoch) ON s.unit = l.unit AND s.epoch = l.epoch
                 WHERE l.projection = $2 AND l.version = $3
                 ORDER BY l.unit FOR UPDATE OF l SKIP LOCKED),
             taken AS (
                 UPDATE projections.leases l SET holder = $1, epoch = l.epoch + 1, taken_at = clock_timestamp(),
                     trouble = NULL FROM free f
                 WHERE l.projection = $2 AND l.version = $3 AND l.unit = f.unit
                 RETURNING l.unit, l.epoch),
             fenced AS (
                 UPDATE projections.checkpoints c SET epoch = t.epoch FROM taken t
                 WHERE c.projection = $2 AND c.version = $3 AND (c.partition = t.unit OR $6)
                 RETURNING 1)
             SELECT unit, epoch FROM taken WHERE (SELECT count(*) FROM fenced) > 0",
        )
        .bind(member.id)
        .bind(work.version.projection)
        .bind(work.version.number)
        .bind(seen.iter().map(|(unit, _)| i32::from(*unit)).collect::<Vec<_>>())
        .bind(seen.iter().map(|(_, epoch)| *epoch).collect::<Vec<_>>())
        .bind(work.units == Units::One)
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        rows.iter().map(|row| Ok((unit(row.try_get(0)?)?, row.try_get(1)?))).collect()
    }

    pub async fn let_go(&mut self, member: &Member, work: &Work, units: &[u16]) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE projections.leases SET holder = NULL, trouble = NULL
             WHERE projection = $1 AND version = $2 AND unit = ANY ($3) AND holder = $4",
        )
        .bind(work.version.projection)
        .bind(work.version.number)
        .bind(units.iter().map(|&unit| i32::from(unit)).collect::<Vec<_>>())
        .bind(member.id)
        .execute(&mut self.0)
        .await?;
        Ok(())
    }

    /// Writes down what keeps the units that the member holds of a version from going on, and that nothing keeps the others.
    pub async fn say_trouble(
        &mut self,
        member: &Member,
        work: &Work,
        trouble: &BTreeMap<u16, String>,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE projections.leases l SET trouble = t.trouble
             FROM projections.leases o
             LEFT JOIN unnest($4::int4[], $5::text[]) AS t(unit, trouble) ON t.unit = o.unit
             WHERE o.projection = l.projection AND o.version = l.version AND o.unit = l.unit
               AND l.projection = $2 AND l.version = $3 AND l.holder = $1 AND l.trouble IS DISTINCT FROM t.trouble",
        )
        .bind(member.id)
        .bind(work.version.projection)
        .bind(work.version.number)
        .bind(trouble.keys().map(|unit| i32::from(*unit)).collect::<Vec<_>>())
        .bind(trouble.values().map(String::as_str).collect::<Vec<_>>())
        .execute(&mut self.0)
        .await?;
        Ok(())
    }

    pub async fn leave(&mut self, member: &Member) -> Result<(), sqlx::Error> {
        sqlx::query(
            "WITH gone AS (DELETE FROM projections.members WHERE member = $1)
             UPDATE projections.leases SET holder = NULL, trouble = NULL WHERE holder = $1",
        )
        .bind(member.id)
        .execute(&mut self.0)
        .await?;
        Ok(())
    }
}

/// How an operator knows the process: host and process id.
fn process() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", host.trim(), std::process::id())
}

fn unit(number: i32) -> Result<u16, sqlx::Error> {
    u16::try_from(number).map_err(|_| sqlx::Error::Decode("a lease's unit is out of range".into()))
}
