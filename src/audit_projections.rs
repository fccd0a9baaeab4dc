//! `rollcall audit-projections`: whether the read models that serve are what the log says, by id and field; and to make
//! those rows anew that are not.
//!
//! Shape: streams, a sample or all of them by partition and position, folded anew and compared -> all rows by their key,
//! those without an event -> what differs, once more -> a line each -> repaired, one short transaction each. A stream that
//! cannot be folded has a line of its own, and the others are compared.

use std::{
    collections::BTreeSet,
    io::IsTerminal,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rollcall_event_store::{Log, Options as LogOptions, migrate::attach, session};
use rollcall_projections::{
    audit::Audit,
    checkpoint,
    drift::{self, Compared, Drift, Unfolded},
    profiles::Profiles,
    projector::Projection,
    schema::Version,
    versions,
};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use crate::{
    config::{Flags, Settings},
    master_key::KeyFile,
    rebuild::ReadModel,
    text::counted,
};

/// Streams that are folded anew where nothing else is said.
const SAMPLE: u32 = 1_000;
/// More than that is a reason to look at all of them.
const SAMPLE_MAX: i64 = 100_000;
/// Rows that one statement looks at.
const ROWS: u32 = 1_000;
const LINE_EVERY: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct Options {
    /// The read models; all of them where none is named.
    pub names: Vec<ReadModel>,
    /// Fold every stream anew and look at every row, instead of a sample.
    #[arg(long, conflicts_with = "sample")]
    all: bool,
    /// How many streams to draw at random.
    #[arg(long, value_name = "STREAMS", default_value_t = SAMPLE, value_parser = clap::value_parser!(u32).range(1..=SAMPLE_MAX))]
    sample: u32,
    /// Make the rows that differ anew.
    #[arg(long)]
    repair: bool,
    /// Print a JSON object a line: one for each drift, and one at the end for each read model.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub flags: Flags,
}

/// What to audit, and how.
pub struct Wish {
    names: Vec<ReadModel>,
    /// None for all streams and rows.
    sample: Option<usize>,
    repair: bool,
    json: bool,
}

impl Options {
    pub fn wish(&self) -> Wish {
        let names = match self.names.as_slice() {
            [] => vec![ReadModel::Profiles, ReadModel::Audit],
            names => names.to_vec(),
        };
        let sample = (!self.all).then_some(self.sample as usize);
        Wish { names, sample, repair: self.repair, json: self.json }
    }
}

/// # Errors
/// Where something differs and was not repaired, a stream cannot be folded, or the database cannot be read.
pub async fn run(settings: Settings, wish: Wish) -> anyhow::Result<()> {
    let url = settings.database.named()?;
    let provisioned = attach(url.expose(), &KeyFile::named(&settings)?).await?;
    let log = Log::open(&provisioned, LogOptions { expires_records: false, ..LogOptions::default() }).await?;
    let options = session(&provisioned.service, "rollcall-audit").options([
        // Rows are counted in one statement; the server must notice where nobody waits for it any more.
        ("statement_timeout", "0"),
        ("client_connection_check_interval", "10s"),
        // Streams are folded between two statements.
        ("idle_in_transaction_session_timeout", "60s"),
    ]);
    let audit = async {
        let mut connection = PgConnection::connect_with(&options).await?;
        let mut left = Left::default();
        for name in &wish.names {
            let of = match name {
                ReadModel::Profiles => of::<Profiles>(&log, &mut connection, &wish).await?,
                ReadModel::Audit => of::<Audit>(&log, &mut connection, &wish).await?,
            };
            left.differ += of.differ;
            left.miscounted += of.miscounted;
            left.unfolded += of.unfolded;
        }
        Ok(left)
    };
    let outcome: anyhow::Result<Left> = tokio::select! {
        outcome = audit => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped")),
    };
    log.close().await;
    let Left { differ, miscounted, unfolded } = outcome?;
    let differences = counted(differ, "difference");
    let differing = match miscounted {
        0 if differ == 0 => None,
        0 if wish.repair => Some(format!("{differences} could not be repaired: rebuild the read model")),
        0 => Some(format!("{differences} from the log; --repair makes those rows anew")),
        // Counting does not tell which rows they are.
        miscounted => Some(format!(
            "{differences} from the log, and too few or too many rows in {}: --all finds which, and makes them anew with \
             --repair",
            counted(miscounted, "partition")
        )),
    };
    let unfolded = (unfolded > 0).then(|| {
        format!(
            "{} cannot be folded, and nothing is known of the rows: mend what the lines say",
            counted(unfolded, "stream")
        )
    });
    let wrong: Vec<String> = [differing, unfolded].into_iter().flatten().collect();
    if wrong.is_empty() { Ok(()) } else { bail!(wrong.join("; ")) }
}

/// What is wrong and was left so.
#[derive(Default)]
struct Left {
    differ: u64,
    /// Partitions that have more or fewer rows than they should.
    miscounted: u64,
    /// Streams of which nothing can be said.
    unfolded: u64,
}

/// One read model's audit under way.
struct Work<'a, P> {
    log: &'a Log,
    connection: &'a mut PgConnection,
    projection: P,
    version: Version,
    wish: &'a Wish,
    streams: u64,
    /// Of them, compared up to there.
    parked: u64,
    /// Of them, not compared.
    unfolded: u64,
    rows: u64,
    found: u64,
    repaired: u64,
    said_at: Instant,
}

async fn of<P: Projection>(log: &Log, connection: &mut PgConnection, wish: &Wish) -> anyhow::Result<Left> {
    let made = versions::made(connection, P::SCHEMA).await?;
    let Some(version) = made.serving else {
        bail!("no version of {} serves yet: it is being filled (see rollcall status)", P::SCHEMA.name);
    };
    let projection = P::of(log, version);
    let mut work = Work {
        log,
        connection,
        projection,
        version,
        wish,
        streams: 0,
        parked: 0,
        unfolded: 0,
        rows: 0,
        found: 0,
        repaired: 0,
        said_at: Instant::now(),
    };
    let miscounted = match wish.sample {
        Some(streams) => {
            let sample = drift::sample(work.connection, version, streams).await?;
            work.compare(&sample).await?;
            work.count().await?
        }
        None => {
            work.walk().await?;
            work.sweep().await?;
            0
        }
    };
    let Work { streams, parked, unfolded, rows, found, repaired, .. } = work;
    if wish.json {
        println!(
            "{}",
            json!({"projection": P::SCHEMA.name, "version": version.number, "streams": streams, "rows": rows,
                   "differ": found, "repaired": repaired, "parked": parked, "unfolded": unfolded,
                   "partitions_miscounted": miscounted})
        );
    } else {
        println!(
            "{}: {} folded anew, {}: {found} differ, {repaired} repaired{}; {parked} are parked and were compared up to there, \
             {unfolded} cannot be folded and were left out",
            version.qualifier(),
            counted(streams, "stream"),
            // A sample's rows are counted, and not looked at.
            counted(rows, "row") + if wish.sample.is_some() { " counted" } else { " looked at" },
            match miscounted {
                0 => String::new(),
                miscounted => format!(", {} miscounted", counted(miscounted, "partition")),
            }
        );
    }
    Ok(Left { differ: found - repaired, miscounted, unfolded })
}

impl<P: Projection> Work<'_, P> {
    /// Compares every stream up to where the read model is now.
    async fn walk(&mut self) -> anyhow::Result<()> {
        let until = checkpoint::read(self.connection, self.version).await?;
        let total: u64 = until.iter().sum();
        let mut before = 0;
        for (partition, &until) in (0..).zip(&until) {
            let mut after = 0;
            while after < until {
                let walked = drift::walk(self.connection, partition, after, until).await?;
                self.compare(&walked.streams).await?;
                after = walked.until;
                self.progress("events of the log", before + after, total);
            }
            before += until;
        }
        Ok(())
    }

    /// Looks at every row for those that no stream accounts for.
    async fn sweep(&mut self) -> anyhow::Result<()> {
        let mut after = None;
        loop {
            let swept = drift::sweep(&self.projection, self.connection, after.as_ref(), ROWS).await?;
            self.rows += swept.rows;
            for drift in swept.surplus {
                self.tell(drift).await?;
            }
            self.progress("rows", self.rows, self.rows);
            after = swept.last;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Compares rows with what they should be by number; how many partitions differ.
    async fn count(&mut self) -> anyhow::Result<u64> {
        let mut wrong = 0;
        for found in drift::count(&self.projection, self.connection, self.version).await? {
            self.rows += found.rows;
            if found.rows != found.expected {
                wrong += 1;
                let drift::Counted { partition, rows, expected } = found;
                if self.wish.json {
                    println!(
                        "{}",
                        json!({"projection": self.version.projection, "partition": partition, "rows": rows, "expected": expected})
                    );
                } else {
                    println!(
                        "{}: partition {partition} has {} and should have {expected}; --all says which",
                        self.version.qualifier(),
                        counted(rows, "row")
                    );
                }
            }
        }
        Ok(wrong)
    }

    async fn compare(&mut self, streams: &[rollcall_event_store::StreamId]) -> anyhow::Result<()> {
        self.streams += streams.len() as u64;
        let Compared { drifts, parked, unfolded } =
            drift::compare(self.log, &self.projection, self.connection, self.version, streams, None).await?;
        self.parked += parked;
        for drift in drifts {
            self.tell(drift).await?;
        }
        for unfolded in unfolded {
            self.tell_unfolded(&unfolded);
        }
        Ok(())
    }

    fn tell_unfolded(&mut self, Unfolded { stream, partition, error }: &Unfolded) {
        self.unfolded += 1;
        let error = error.told();
        if self.wish.json {
            println!(
                "{}",
                json!({"projection": self.version.projection, "version": self.version.number, "tenant": &*stream.tenant,
                       "type": &*stream.aggregate_type, "id": &*stream.aggregate_id, "partition": partition,
                       "error": error})
            );
        } else {
            println!("{}: {stream} cannot be folded: {error}", self.version.qualifier());
        }
    }

    async fn tell(&mut self, drift: Drift) -> anyhow::Result<()> {
        self.found += 1;
        let mut repaired = false;
        if self.wish.repair {
            match drift::repair(&self.projection, self.connection, self.version, &drift).await {
                Err(error) if error.lies_in_a_stream() => {
                    eprintln!(
                        "{}: {} cannot be repaired: {}",
                        self.version.qualifier(),
                        drift.stream,
                        error.told()
                    );
                }
                done => _ = done.with_context(|| format!("{} cannot be repaired", drift.stream))?,
            }
            repaired = !self.still(&drift).await?;
            self.repaired += u64::from(repaired);
        }
        let fields: BTreeSet<&str> = drift.fields.iter().map(String::as_str).collect();
        if self.wish.json {
            println!(
                "{}",
                json!({"projection": self.version.projection, "version": self.version.number,
                       "tenant": &*drift.stream.tenant, "type": &*drift.stream.aggregate_type,
                       "id": &*drift.stream.aggregate_id, "partition": drift.partition, "fields": fields,
                       "parked": drift.parked, "repaired": repaired})
            );
        } else {
            let fields: Vec<&str> = fields.into_iter().collect();
            println!(
                "{}: tenant {}, {} {}: {}{}{}",
                self.version.qualifier(),
                drift.stream.tenant,
                drift.stream.aggregate_type,
                drift.stream.aggregate_id,
                fields.join(", "),
                if drift.parked { "; it is parked" } else { "" },
                match (repaired, drift.parked) {
                    (true, true) => "; repaired, and a projector tries it again: see rollcall parked list",
                    (true, false) => "; repaired",
                    (false, _) => "",
                }
            );
        }
        Ok(())
    }

    /// Whether it differs all the same.
    async fn still(&mut self, drift: &Drift) -> anyhow::Result<bool> {
        let streams = std::slice::from_ref(&drift.stream);
        let found =
            drift::compare(self.log, &self.projection, self.connection, self.version, streams, None).await?;
        Ok(!(found.drifts.is_empty() && found.unfolded.is_empty()))
    }

    /// A line on stderr now and then, for those who watch.
    fn progress(&mut self, what: &str, done: u64, total: u64) {
        if std::io::stderr().is_terminal() && self.said_at.elapsed() >= LINE_EVERY {
            self.said_at = Instant::now();
            let of = if total > done { format!(" of {total}") } else { String::new() };
            eprintln!("{}: {done}{of} {what}, {} differ", self.version.qualifier(), self.found);
        }
    }
}
