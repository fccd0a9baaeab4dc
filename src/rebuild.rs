//! `rollcall rebuild`: a read model is made anew from the log, beside the one that serves, and takes its place.
//!
//! Shape: a version beside the old (made, or found where an earlier run was broken off) -> filled by leases, together with
//! whatever projectors run -> indexes -> checked against the log -> it serves. The old one stays, and is fed, until it is
//! dropped.
//!
//! If the process dies, at whatever point, what serves is what served before or, past the switch, the new version; the
//! next run goes on where this one was.

use std::{io::IsTerminal, time::Duration};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rollcall_event_store::{
    Log, bounded,
    migrate::{self, Provisioned, attach},
    session,
};
use rollcall_projections::{
    audit::Audit,
    checker::{self, Found},
    drift,
    leases::{Member, Units},
    profiles::Profiles,
    progress::Registry,
    projector::{Projection, Projector},
    schema::Version,
    tables::{self, Owner},
    versions::{self, Made, Switched},
};
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Flags, Settings},
    master_key::KeyFile,
};

/// Events by which the new version may be behind when its indexes are made.
const NEAR: u64 = 2_000;
/// Projectors that fill a version in this process at most.
const WORKERS_MAX: usize = 8;
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How long a version may stand still while there is something to do.
const STANDS_STILL_FOR_MAX: Duration = Duration::from_secs(120);
/// How long the new version may take to catch up with the old in the end; commands keep coming.
const SWITCH_WITHIN: Duration = Duration::from_secs(60);
/// Who waits for longer than this is told what for.
const SAID_AFTER: Duration = Duration::from_secs(2);
/// How long a query may still look at a version that served a moment ago.
const READ_FOR: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub struct Options {
    /// The read model.
    pub name: ReadModel,
    /// Take away all versions that do not serve, instead of making one: newer ones that were switched back from, too.
    #[arg(long, conflicts_with = "switch_back")]
    drop_old: bool,
    /// Let the version that served before serve again, instead of making one; once more, and the other one does.
    #[arg(long)]
    switch_back: bool,
    #[command(flatten)]
    pub flags: Flags,
}

/// What can be made anew from the log.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum ReadModel {
    Profiles,
    Audit,
}

/// What the owner asks for.
#[derive(Clone, Copy)]
pub enum Wish {
    Rebuild,
    DropOld,
    SwitchBack,
}

impl Options {
    pub fn wish(&self) -> Wish {
        match (self.drop_old, self.switch_back) {
            (true, _) => Wish::DropOld,
            (_, true) => Wish::SwitchBack,
            _ => Wish::Rebuild,
        }
    }
}

pub async fn run(settings: Settings, name: ReadModel, wish: Wish) -> anyhow::Result<()> {
    match name {
        ReadModel::Profiles => of::<Profiles>(&settings, wish).await,
        ReadModel::Audit => of::<Audit>(&settings, wish).await,
    }
}

async fn of<P: Projection>(settings: &Settings, wish: Wish) -> anyhow::Result<()> {
    let url = settings.database.named()?;
    migrate::check_owner(url.expose()).await?;
    let key = KeyFile::named(settings)?;
    let provisioned = attach(url.expose(), &key).await?;
    tables::check(&provisioned.service).await?;
    let owner = migrate::parse_url(url.expose())?;
    let mut connection = bounded(PgConnection::connect_with(
        &session(&provisioned.service, "rollcall-rebuild")
            // Streams are folded between two statements.
            .options([
                ("statement_timeout", "0"),
                ("lock_timeout", "30s"),
                ("idle_in_transaction_session_timeout", "60s"),
                // Rows of years are counted in one statement: the server must notice where nobody waits for it any more.
                ("client_connection_check_interval", "10s"),
                // Nothing is asked of it while indexes are made.
                ("idle_session_timeout", "0"),
            ]),
    ))
    .await?;
    let name = P::SCHEMA.name;
    let mut before = bounded(versions::newest_served(&mut connection, P::SCHEMA)).await?;
    let serving = bounded(versions::made(&mut connection, P::SCHEMA)).await?.serving;
    // One rebuild at a time: whoever comes second waits here, and then finds the work done or goes on with it.
    let (role, partitions) = (provisioned.service.get_username(), provisioned.partitions);
    let turn = tables::turn_of(name);
    let mut owner = Owner::connect(&owner, role, partitions, turn, async |session| {
        // It may have switched already.
        before = bounded(versions::newest_before_turn(session, P::SCHEMA, turn)).await?;
        println!("waiting for another rebuild of {name}");
        Ok(())
    })
    .await?;
    let made = bounded(versions::made(&mut connection, P::SCHEMA)).await?;
    match wish {
        Wish::Rebuild => match bounded(versions::newest_served(&mut connection, P::SCHEMA)).await? {
            Some(done) if Some(done) > before => println!(
                "{} was made by the rebuild that this one waited for: there is nothing more to do.",
                done.qualifier()
            ),
            _ => rebuild::<P>(&mut owner, &mut connection, &provisioned, &made).await?,
        },
        // Twice at once is meant once: the second would switch forth again.
        Wish::SwitchBack if made.serving != serving => println!(
            "another command switched meanwhile, and {} serves: there is nothing more to do.",
            made.serving.map_or_else(|| "no version".to_owned(), |version| version.qualifier())
        ),
        Wish::SwitchBack => switch_back::<P>(&mut owner, &mut connection, &provisioned).await?,
        Wish::DropOld => drop_old::<P>(&mut owner, &made).await?,
    }
    owner.close().await.context("the database")
}

async fn rebuild<P: Projection>(
    owner: &mut Owner,
    connection: &mut PgConnection,
    provisioned: &Provisioned,
    made: &Made,
) -> anyhow::Result<()> {
    let name = P::SCHEMA.name;
    let version = match made.unfinished() {
        Some(version) => {
            println!("{}: going on where an earlier rebuild was broken off", version.qualifier());
            owner.make_functions(P::SCHEMA, version.number).await.context("its functions cannot be made")?;
            version
        }
        None => Version {
            projection: name,
            number: owner.make(P::SCHEMA).await.context("no version can be made")?,
        },
    };
    let feeding = Feeding::begin::<P>(provisioned, version).await?;
    let outcome = feeding.while_it_runs(async {
        fill(&feeding.log, connection, version).await?;
        println!("{}: making indexes", version.qualifier());
        owner.make_indexes(P::SCHEMA, version.number).await.context("the indexes cannot be made")?;
        catch_up(&feeding.log, connection, version).await?;
        check::<P>(&feeding.log, owner, connection, version).await?;
        switch::<P>(owner, version).await
    });
    let outcome = outcome.await;
    feeding.end().await;
    outcome?;
    tell_switched::<P>(connection, version).await
}

/// Whatever projectors run, this process feeds a version too: nothing waits for somebody who is not there.
struct Feeding {
    log: Log,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Feeding {
    async fn begin<P: Projection>(provisioned: &Provisioned, version: Version) -> anyhow::Result<Self> {
        let log = Log::open(provisioned, rollcall_event_store::Options::default()).await?;
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let registry = Registry::new(log.partitions(), [(P::SCHEMA.name, P::SCHEMA.shape)]);
        // A projector reads, computes and writes by turns: two for each core keep all of them and the server busy.
        let workers =
            std::thread::available_parallelism().map_or(4, |cores| 2 * cores.get()).min(WORKERS_MAX);
        for _ in 0..workers {
            let mut member = Member::new(&provisioned.service);
            let (of_log, service, of_registry) = (log.clone(), provisioned.service.clone(), registry.clone());
            let (of_tasks, of_shutdown) = (tasks.clone(), shutdown.clone());
            member.project_only(version, P::SCHEMA.shape, Units::Partitions, move |version, share| {
                let progress = of_registry.progress(version);
                let projector = Projector::<P>::new(version, of_log.clone(), &service, &share, progress);
                of_tasks.spawn(projector.run(share, of_shutdown.clone()));
            });
            tasks.spawn(member.run(shutdown.clone()));
        }
        Ok(Self { log, tasks, shutdown })
    }

    /// Works until it is done, somebody stops it, or what it rests on has failed.
    async fn while_it_runs(&self, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        tokio::select! {
            outcome = work => outcome,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped; run it again to go on")),
            () = self.log.failed().cancelled() => Err(anyhow::anyhow!("a task failed; the log says why")),
        }
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.log.close().await;
    }
}

async fn tell_switched<P: Projection>(connection: &mut PgConnection, version: Version) -> anyhow::Result<()> {
    let name = P::SCHEMA.name;
    match bounded(versions::served_before(connection, P::SCHEMA)).await? {
        Some(old) => println!(
            "{} serves. {} is kept up beside it: \"rollcall rebuild {name} --switch-back\" lets it serve again, \
             \"--drop-old\" takes it away.",
            version.qualifier(),
            old.qualifier()
        ),
        None => println!("{} serves.", version.qualifier()),
    }
    Ok(())
}

/// Returns when the version is near the log's end.
async fn fill(log: &Log, connection: &mut PgConnection, version: Version) -> anyhow::Result<()> {
    let bar = bar(version);
    let (begun, mut said_at) = (Instant::now(), Instant::now());
    let mut before = None;
    let mut moved = Moved::default();
    loop {
        let positions = bounded(rollcall_projections::checkpoint::read(connection, version)).await?;
        let total: u64 = (0..log.partitions()).map(|partition| log.heads().position(partition)).sum();
        let done: u64 = positions.iter().sum();
        moved.check(version, done)?;
        let first = *before.get_or_insert(done);
        bar.set_length(total);
        bar.set_position(done);
        let rate = (done - first) as f64 / begun.elapsed().as_secs_f64().max(0.001);
        if bar.is_hidden() && said_at.elapsed() >= LINE_EVERY {
            println!("{}: {done} of {total} events, {rate:.0} events/s", version.qualifier());
            said_at = Instant::now();
        }
        if total.saturating_sub(done) <= NEAR {
            bar.finish_and_clear();
            println!("{}: {done} of {total} events, {rate:.0} events/s", version.qualifier());
            return Ok(());
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Returns when the version has applied all that is in the log now: what is checked must be all there.
async fn catch_up(log: &Log, connection: &mut PgConnection, version: Version) -> anyhow::Result<()> {
    log.refresh_heads().await?;
    let heads: Vec<u64> = (0..log.partitions()).map(|partition| log.heads().position(partition)).collect();
    let mut moved = Moved::default();
    loop {
        let positions = bounded(rollcall_projections::checkpoint::read(connection, version)).await?;
        moved.check(version, positions.iter().sum())?;
        if positions.iter().zip(&heads).all(|(position, head)| position >= head) {
            return Ok(());
        }
        sleep(LOOK_EVERY).await;
    }
}

/// When a version last came any further.
#[derive(Default)]
struct Moved(Option<(u64, Instant)>);

impl Moved {
    fn check(&mut self, version: Version, done: u64) -> anyhow::Result<()> {
        match self.0 {
            Some((before, at)) if before == done => {
                if at.elapsed() > STANDS_STILL_FOR_MAX {
                    bail!(
                        "{} has not come any further for {} s: a partition is stopped, or the database is away. The log of \
                         this command and of the projectors says why; run it again to go on",
                        version.qualifier(),
                        STANDS_STILL_FOR_MAX.as_secs()
                    );
                }
            }
            _ => self.0 = Some((done, Instant::now())),
        }
        Ok(())
    }
}

fn bar(version: Version) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = "{prefix} {wide_bar} {human_pos}/{human_len} events, {per_sec}, {eta} left";
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_style(ProgressStyle::with_template(style).expect("the template is right"));
    bar.with_prefix(version.qualifier())
}

async fn check<P: Projection>(
    log: &Log,
    owner: &mut Owner,
    connection: &mut PgConnection,
    version: Version,
) -> anyhow::Result<()> {
    let found = checker::check::<P>(log, connection, version, None).await?;
    if !matches!(found, Found::Alike { .. }) {
        checker::note_wrong(owner.session(), version).await?;
        let version = version.qualifier();
        bail!(
            "{version} is not what the log says: {found}; it never serves. Look into the log of the projectors; --drop-old \
             takes it away, and another rebuild makes another one"
        );
    }
    let version = version.qualifier();
    println!("{version}: {found}");
    Ok(())
}

async fn switch<P: Projection>(owner: &mut Owner, version: Version) -> anyhow::Result<()> {
    let (begun, mut said) = (Instant::now(), false);
    while begun.elapsed() < SWITCH_WITHIN {
        if !said && begun.elapsed() > SAID_AFTER {
            println!(
                "{}: waiting until it is nowhere behind the version that serves, {} s at most",
                version.qualifier(),
                SWITCH_WITHIN.as_secs()
            );
            said = true;
        }
        match bounded(versions::switch(owner.session(), version, P::SCHEMA.shape)).await? {
            Switched::Yes => return Ok(()),
            Switched::Behind => sleep(LOOK_EVERY / 5).await,
            Switched::Parked => bail!(
                "streams are parked in {} that the version that serves shows further: their readers would go back in time. \
                 See \"rollcall parked list\", and run this again when they are not",
                version.qualifier()
            ),
        }
    }
    bail!(
        "{} does not catch up with the version that serves: commands come faster than two versions can be fed. It goes \
         on being fed; run this again when there is less to do",
        version.qualifier()
    )
}

async fn switch_back<P: Projection>(
    owner: &mut Owner,
    connection: &mut PgConnection,
    provisioned: &Provisioned,
) -> anyhow::Result<()> {
    let name = P::SCHEMA.name;
    let before = bounded(versions::served_before(connection, P::SCHEMA))
        .await?
        .with_context(|| format!("{name} has no version that served before the one that does"))?;
    let feeding = Feeding::begin::<P>(provisioned, before).await?;
    let outcome = feeding.while_it_runs(async {
        // First of all whether it can be read: what has no tables is not fed, either.
        let projection = P::of(&feeding.log, before);
        drift::count(&projection, connection, before).await.with_context(|| {
            format!(
                "{} cannot be read any more, and does not serve: drop it with --drop-old, or make a new one with \
                 \"rollcall rebuild {name}\"",
                before.qualifier()
            )
        })?;
        fill(&feeding.log, connection, before).await?;
        catch_up(&feeding.log, connection, before).await?;
        check::<P>(&feeding.log, owner, connection, before).await?;
        switch::<P>(owner, before).await
    });
    let outcome = outcome.await;
    feeding.end().await;
    outcome?;
    tell_switched::<P>(connection, before).await
}

async fn drop_old<P: Projection>(owner: &mut Owner, made: &Made) -> anyhow::Result<()> {
    let old = made.droppable();
    if old.is_empty() {
        println!("{}: no version that may be dropped", P::SCHEMA.name);
    }
    if made.since.is_some_and(|since| since < READ_FOR) {
        // A query process may not have heard of the switch yet.
        sleep(READ_FOR).await;
    }
    for version in old {
        owner
            .drop_version(version)
            .await
            .with_context(|| format!("{} cannot be dropped", version.qualifier()))?;
        println!("{} is gone.", version.qualifier());
    }
    Ok(())
}
