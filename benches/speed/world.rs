//! A log of so many users, and the books of what was acknowledged on it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde::Deserialize;
use sqlx::{Connection, Executor, PgConnection};
use uuid::Uuid;

use crate::{
    rollcall::Rollcall,
    site::Site,
    support::{
        client::Connection as HttpConnection,
        report::thousands,
        requests::{BATCH_MAX, Batches, Requests, rename_all},
    },
};

const QUIET: [(&str, &str); 1] = [("ROLLCALL_LOG", "warn")];
/// Connections that batches of commands come over.
pub const WRITERS: usize = 4;
const CATCHES_UP_WITHIN: Duration = Duration::from_secs(1_200);

pub struct World {
    pub site: Site,
    pub owner: PgConnection,
    /// Those that it was filled with.
    pub users: Arc<Vec<Uuid>>,
    /// Events and users that were acknowledged so far.
    events: u64,
    created: u64,
}

impl World {
    /// With so many users, by batches of commands; nothing is projected yet.
    pub async fn filled(users: u64) -> Self {
        let site = Site::migrated().await;
        let mut owner = PgConnection::connect(site.owner_url()).await.unwrap();
        owner.execute("SET statement_timeout = 0").await.unwrap();
        let mut world = Self { site, owner, users: Arc::default(), events: 0, created: 0 };
        let begun = Instant::now();
        let commands = world.command_api();
        let made = create_so_many(&commands.ready.http, usize::try_from(users).unwrap()).await;
        world.acknowledge(made.len(), made.len()).await;
        world.users = Arc::new(made);
        world.tidy().await;
        eprintln!("{} users in {:.0} s", thousands(world.created as f64), begun.elapsed().as_secs_f64());
        world
    }

    pub fn command_api(&self) -> Rollcall {
        self.site.start(&["command-api"], &QUIET)
    }

    /// Everything in one process, on the site's servers.
    pub fn up(&self) -> Rollcall {
        let data = self.site.path().join("up").display().to_string();
        self.site.start(&["up", "--data-dir", &data], &QUIET)
    }

    /// So many more events and users were acknowledged.
    ///
    /// # Panics
    /// Where the log holds fewer, or more.
    pub async fn acknowledge(&mut self, events: usize, created: usize) {
        self.events += events as u64;
        self.created += created as u64;
        let stored = self.number("SELECT coalesce(sum(position), 0)::int8 FROM log.heads").await;
        assert_eq!(stored, self.events, "what was acknowledged is not what the log holds");
    }

    /// Waits until everything is projected and published.
    ///
    /// # Panics
    /// Where profiles do not hold exactly the users that were acknowledged.
    pub async fn caught_up(&mut self) {
        const BEHIND: &str = "SELECT coalesce(sum(h.position - p.position), 0)::int8
             FROM projections.positions p JOIN log.heads h USING (partition)";
        let begun = Instant::now();
        while self.number(BEHIND).await > 0 || self.serving().await.is_none() {
            assert!(begun.elapsed() < CATCHES_UP_WITHIN, "projections do not catch up");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let profiles = format!("SELECT count(*) FROM {}", self.profiles().await);
        assert_eq!(
            self.number(&profiles).await,
            self.created,
            "profiles are not the users that were created"
        );
        eprintln!("caught up in {:.0} s", begun.elapsed().as_secs_f64());
    }

    /// As if autovacuum and checkpoints had been there in time: a table that was filled at once is not what a service has. Of
    /// tables that are empty autovacuum knows nothing, and neither does this.
    pub async fn tidy(&mut self) {
        let filled: Vec<String> = sqlx::query_scalar(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND pg_relation_size(c.oid) > 0
                 AND n.nspname NOT IN ('pg_catalog', 'information_schema')",
        )
        .fetch_all(&mut self.owner)
        .await
        .unwrap();
        self.owner.execute(format!("VACUUM ANALYZE {}", filled.join(", ")).as_str()).await.unwrap();
        self.owner.execute("CHECKPOINT").await.unwrap();
    }

    /// The table that queries read users from.
    pub async fn profiles(&mut self) -> String {
        let version = self.serving().await.expect("a version of profiles serves");
        format!("profiles_{version}.users")
    }

    async fn serving(&mut self) -> Option<i32> {
        sqlx::query_scalar("SELECT version FROM projections.serving WHERE projection = 'profiles'")
            .fetch_optional(&mut self.owner)
            .await
            .unwrap()
    }

    async fn number(&mut self, sql: &str) -> u64 {
        let number: i64 = sqlx::query_scalar(sql).fetch_one(&mut self.owner).await.unwrap();
        number.cast_unsigned()
    }

    /// Renames each of the users so often, by batches of commands.
    pub async fn rename(&mut self, base: &str, users: &[Uuid], times: usize) {
        let writers = users.chunks(users.len().div_ceil(WRITERS)).map(|share| {
            let (base, share) = (base.to_owned(), share.to_vec());
            tokio::spawn(async move {
                let mut connection = HttpConnection::open(&base).await;
                for batch in share.chunks(BATCH_MAX) {
                    for _ in 0..times {
                        let answer = connection.request(&rename_all(batch)).await.expect(200);
                        outcomes(answer.body, 200);
                    }
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        self.acknowledge(users.len() * times, 0).await;
    }

    pub async fn stop(self) {
        drop(self.owner);
        self.site.stop().await;
    }
}

/// Creates so many users, to whole batches; their ids.
pub async fn create_so_many(base: &str, users: usize) -> Vec<Uuid> {
    let batches = Arc::new(AtomicUsize::new(0));
    create(base, move || batches.fetch_add(1, Ordering::Relaxed) * BATCH_MAX < users).await
}

/// Creates users for so long; their ids.
pub async fn create_during(base: &str, during: Duration) -> Vec<Uuid> {
    let begun = Instant::now();
    create(base, move || begun.elapsed() < during).await
}

/// By batches over [`WRITERS`] connections, another one for as long as there is to be one.
async fn create(base: &str, goes_on: impl Fn() -> bool + Clone + Send + 'static) -> Vec<Uuid> {
    let writers = (0..WRITERS).map(|_| {
        let (base, goes_on) = (base.to_owned(), goes_on.clone());
        tokio::spawn(async move {
            let mut connection = HttpConnection::open(&base).await;
            let (mut batches, mut users) = (Batches::new(), Vec::new());
            while goes_on() {
                let answer = connection.request(batches.next()).await.expect(200);
                users.extend(outcomes(answer.body, 201));
            }
            users
        })
    });
    let users = join_all(writers.collect::<Vec<_>>()).await;
    users.into_iter().flat_map(Result::unwrap).collect()
}

/// The ids in an answer to a batch, all of whose commands succeeded.
fn outcomes(body: &[u8], status: u16) -> Vec<Uuid> {
    #[derive(Deserialize)]
    struct Outcomes {
        outcomes: Vec<Outcome>,
    }
    #[derive(Deserialize)]
    struct Outcome {
        status: u16,
        id: Uuid,
    }
    let answer: Outcomes = serde_json::from_slice(body).expect("every command succeeds");
    assert!(answer.outcomes.iter().all(|outcome| outcome.status == status), "a command failed");
    answer.outcomes.into_iter().map(|outcome| outcome.id).collect()
}
