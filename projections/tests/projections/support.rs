//! A log with read models, on a database of its own for each test.

use std::{str::FromStr, time::Duration};

use rollcall_event_store::{
    Log, Options,
    keys::MasterKey,
    migrate::{self, MasterKeySource, Provisioned},
    tail::Span,
};
use rollcall_projections::{
    Progress,
    leases::{Member, Share, Units},
    progress::{Follower, Registry},
    schema::Version,
    tables,
};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::server;

/// How long anything that a test waits for may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const PARTITIONS: u16 = 4;

struct Source;

impl MasterKeySource for Source {
    fn existing(&self) -> Result<Option<MasterKey>, String> {
        Ok(Some(MasterKey::new(&[7; 32])))
    }

    fn create(&self) -> Result<MasterKey, String> {
        Err("the test's key is there".to_owned())
    }

    fn place(&self) -> String {
        "the test".to_owned()
    }
}

/// A migrated database with a log open on it.
pub struct Test {
    pub owner: String,
    pub provisioned: Provisioned,
    pub log: Log,
}

impl Test {
    pub async fn new() -> Self {
        let owner = server::fresh_database().await;
        let options = migrate::Options { partitions: PARTITIONS, ..Default::default() };
        let provisioned = migrate::migrate(&owner, options, &Source).await.unwrap();
        let of_owner = PgConnectOptions::from_str(&owner).unwrap();
        tables::migrate(&of_owner, provisioned.service.get_username(), PARTITIONS).await.unwrap();
        let log = Log::open(&provisioned, Options::default()).await.unwrap();
        Self { owner, provisioned, log }
    }

    /// Another handle on the same database, as another process has it.
    pub async fn another_log(&self) -> Log {
        Log::open(&self.provisioned, Options::default()).await.unwrap()
    }

    /// A handle that has keys of its own, none of them cached.
    pub async fn restarted(&self) -> Log {
        let provisioned = migrate::migrate(&self.owner, migrate::Options::default(), &Source).await.unwrap();
        Log::open(&provisioned, Options::default()).await.unwrap()
    }

    pub async fn superuser(&self) -> PgConnection {
        PgConnection::connect(&self.owner).await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        sqlx::raw_sql(sql).execute(&mut self.superuser().await).await.unwrap();
    }

    pub async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.superuser().await).await.unwrap()
    }

    pub async fn checkpoint(&self, projection: &str, partition: u16) -> i64 {
        let sql = format!(
            "SELECT position FROM projections.checkpoints WHERE projection = '{projection}' AND partition = {partition}"
        );
        self.number(&sql).await
    }

    /// Changes an event, as nobody may.
    pub async fn forge(&self, sql: &str) {
        self.execute(&format!(
            "ALTER TABLE log.events DISABLE TRIGGER events_are_immutable; {sql};
             ALTER TABLE log.events ENABLE TRIGGER events_are_immutable"
        ))
        .await;
    }

    /// Everything that is in the log, as far as this process has heard.
    pub fn everything(&self) -> Vec<Span> {
        let span = |partition| Span { partition, after: 0, until: self.log.heads().position(partition) };
        (0..PARTITIONS).map(span).filter(|span| span.events() > 0).collect()
    }

    /// Waits until a projection has come as far as the log is now.
    pub async fn wait(&self, progress: &Progress) {
        let heads = (0..PARTITIONS).map(|partition| (partition, self.log.heads().position(partition)));
        assert!(progress.wait(heads, PATIENCE).await, "the projection did not get there");
    }
}

/// A process that works on one projection; it ends with the test.
pub struct Process {
    /// Of the version that serves.
    pub progress: Progress,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    member: JoinHandle<()>,
}

impl Process {
    /// `work` gets a version of the projection, this process's share in it and its progress, and makes what works on it.
    pub async fn start<F: Future<Output = ()> + Send + 'static>(
        test: &Test,
        log: &Log,
        (projection, shape, units): (&'static str, i32, Units),
        work: impl Fn(Version, Share, Progress, CancellationToken) -> F + Send + Sync + 'static,
    ) -> Self {
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let registry = Registry::new(PARTITIONS, [(projection, shape)]);
        let follower = Follower::start(log.clone(), registry.clone()).await.unwrap();
        let serving = registry.serving(projection).unwrap().borrow().clone().unwrap();
        let mut member = Member::new(&test.provisioned.service);
        let (of_tasks, of_shutdown) = (tasks.clone(), shutdown.clone());
        member.project(projection, shape, units, move |version, share| {
            of_tasks.spawn(work(version, share, registry.progress(version), of_shutdown.clone()));
        });
        tasks.spawn(follower.run(shutdown.clone()));
        let member = tasks.spawn(member.run(shutdown.clone()));
        Self { progress: serving.progress, shutdown, tasks, member }
    }

    /// What keeps its leases ends without a word, as if the process had frozen or lost its way to the database; its work
    /// goes on.
    pub fn forget_leases(&self) {
        self.member.abort();
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
