//! `rollcall parked`: streams that a projection had to park at an event, and what becomes of them. A projector that holds
//! the stream's partition does the work; this asks for it and waits.

use std::{
    fmt::Write as _,
    io::{BufRead, IsTerminal, Write as _},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::builder::PossibleValuesParser;
use rollcall_event_store::{bounded, migrate::attach, session};
use rollcall_projections::{
    parking::operator::{self, LISTED_MAX, Outcome, Parked, Sought},
    tables,
};
use sqlx::{
    Connection, PgConnection,
    types::chrono::{DateTime, Utc},
};

use crate::{
    config::{self, Config, Flags},
    master_key::KeyFile,
    process,
    text::counted,
};

const REASON_CHARS_MAX: usize = 1_000;
const NOT_THERE: &str = "nothing is parked there: see rollcall parked list";

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    /// `list` if not given.
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    list: List,
}

#[derive(clap::Subcommand)]
pub enum Action {
    /// List the parked streams, those that have waited longest first: what is done if nothing else is named.
    List(List),
    /// Show all that is known of a parked stream.
    Show {
        #[command(flatten)]
        one: One,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: Flags,
    },
    /// Have a projector try again now, and say what became of it; exit status 0 if all go on.
    Retry {
        /// Every parked stream, instead of one.
        #[arg(long, conflicts_with_all = ["projection", "tenant", "id"])]
        all: bool,
        /// The projection that parked it.
        #[arg(value_parser = projections())]
        projection: Option<String>,
        /// The stream's tenant.
        tenant: Option<String>,
        /// The stream's id: the user's.
        id: Option<String>,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        flags: Flags,
    },
    /// Have a projection do without the event at which a stream is parked, for good; who said so and why is kept.
    Discard {
        #[command(flatten)]
        one: One,
        /// Why. It is kept in clear: name no person.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Who decides; the account at this terminal if not given.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        flags: Flags,
    },
}

/// Which streams to list, and how.
#[derive(clap::Args)]
pub struct List {
    /// As a JSON array.
    #[arg(long)]
    json: bool,
    /// Of this projection alone.
    #[arg(long, value_parser = projections())]
    projection: Option<String>,
    /// Of this tenant alone.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    flags: Flags,
}

/// A parked stream, as the list names it.
#[derive(clap::Args)]
pub struct One {
    /// The projection that parked it.
    #[arg(value_parser = projections())]
    projection: String,
    /// The stream's tenant.
    tenant: String,
    /// The stream's id: the user's.
    id: String,
    /// The projection's version, where it is parked in several.
    #[arg(long)]
    version: Option<i32>,
}

#[derive(clap::Args)]
pub struct Wait {
    /// How long to wait for a projector.
    #[arg(long = "wait", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    seconds: u64,
}

/// The names of what can park a stream: a mistyped one would only find that nothing is parked there.
fn projections() -> PossibleValuesParser {
    PossibleValuesParser::new(tables::SCHEMAS.map(|schema| schema.name))
}

/// # Errors
/// Where what is asked for cannot be done, or a stream stays parked.
pub fn run(options: &Options) -> anyhow::Result<()> {
    process::runtime()?.block_on(async {
        let Some(action) = &options.action else { return options.list.run().await };
        match action {
            Action::List(list) => list.run().await,
            Action::Show { one, json, flags } => {
                let parked = one.find(&mut connect(flags).await?).await?;
                print!(
                    "{}",
                    if *json { serde_json::to_string_pretty(&parked)? + "\n" } else { page(&parked) }
                );
                Ok(())
            }
            Action::Retry { all, projection, tenant, id, wait, flags } => {
                if !all && id.is_none() {
                    bail!(
                        "say which stream to try again, as \"rollcall parked list\" names it (PROJECTION TENANT ID), or --all"
                    );
                }
                let sought = Sought {
                    projection: projection.clone(),
                    tenant: tenant.clone(),
                    id: id.clone(),
                    version: None,
                };
                let mut connection = connect(flags).await?;
                let parked = operator::all(&mut connection, &sought).await?;
                if parked.is_empty() && !all {
                    bail!(NOT_THERE);
                }
                if parked.is_empty() {
                    println!("nothing is parked");
                    return Ok(());
                }
                let within = Duration::from_secs(wait.seconds);
                let outcomes = operator::retry(&mut connection, &parked, within).await?;
                tell(&parked, &outcomes)
            }
            Action::Discard { one, reason, by, yes, wait, flags } => {
                if reason.trim().is_empty() || reason.chars().count() > REASON_CHARS_MAX {
                    bail!("--reason must be a text of at most {REASON_CHARS_MAX} characters");
                }
                let mut connection = connect(flags).await?;
                let parked = one.find(&mut connection).await?;
                print!("{}\n{}", page(&parked), missing(&parked));
                if !yes && !agreed()? {
                    bail!("nothing was discarded");
                }
                let by = by.clone().unwrap_or_else(account);
                let within = Duration::from_secs(wait.seconds);
                let outcome = operator::discard(&mut connection, &parked, &by, reason, within).await?;
                let outcome =
                    outcome.context("nothing was discarded: the stream is parked at that event no longer")?;
                println!("discarded by {by}");
                match &outcome {
                    // What was asked for is done; that the next event cannot be applied either is news.
                    Outcome::Parked(now) if now.position != parked.position => {
                        tell(&[parked], std::slice::from_ref(&outcome))
                            .context("the event was discarded, and the stream is parked at a later one")
                    }
                    _ => tell(&[parked], std::slice::from_ref(&outcome)),
                }
            }
        }
    })
}

impl List {
    async fn run(&self) -> anyhow::Result<()> {
        let Self { json, projection, tenant, flags } = self;
        let sought = Sought { projection: projection.clone(), tenant: tenant.clone(), ..Sought::default() };
        let parked = operator::list(&mut connect(flags).await?, &sought).await?;
        print!("{}", if *json { serde_json::to_string_pretty(&parked)? + "\n" } else { table(&parked) });
        Ok(())
    }
}

impl One {
    async fn find(&self, connection: &mut PgConnection) -> anyhow::Result<Parked> {
        let sought = Sought {
            projection: Some(self.projection.clone()),
            tenant: Some(self.tenant.clone()),
            id: Some(self.id.clone()),
            version: self.version,
        };
        let mut parked = operator::list(connection, &sought).await?;
        match parked.len() {
            0 => bail!(NOT_THERE),
            1 => Ok(parked.remove(0)),
            _ => bail!("it is parked in several versions of {}: say which with --version", self.projection),
        }
    }
}

async fn connect(flags: &Flags) -> anyhow::Result<PgConnection> {
    let settings = config::on_servers(&Config::load(flags)?)?;
    let url = settings.database.named()?;
    let provisioned = attach(url.expose(), &KeyFile::named(&settings)?).await?;
    tables::check(&provisioned.service).await?;
    let options = session(&provisioned.service, "rollcall-parked");
    Ok(bounded(PgConnection::connect_with(&options)).await?)
}

fn table(parked: &[Parked]) -> String {
    if parked.is_empty() {
        return "nothing is parked\n".to_owned();
    }
    let mut text = String::from("PROJECTION  TENANT  ID  VERSION  AT  SINCE  TRIES  QUEUED  ERROR\n");
    for one in parked {
        let Parked {
            projection,
            version,
            tenant_id,
            aggregate_id,
            event_type,
            sequence,
            tries,
            queued,
            error,
            ..
        } = one;
        let serves = if one.serves { " (serves)" } else { "" };
        let since = one.parked_at.format("%Y-%m-%dT%H:%M:%SZ");
        let _ = writeln!(
            text,
            "{projection}  {tenant_id}  {aggregate_id}  {version}{serves}  {event_type}@{sequence}  {since}  {tries}  {queued}  {error}"
        );
    }
    if parked.len() as i64 == LISTED_MAX {
        let _ = writeln!(text, "(the first {LISTED_MAX}; there may be more)");
    }
    text
}

fn page(parked: &Parked) -> String {
    let instant = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let rows = [
        (
            "projection",
            format!(
                "{} (version {}, which {})",
                parked.projection,
                parked.version,
                if parked.serves { "serves" } else { "does not serve" }
            ),
        ),
        ("tenant", parked.tenant_id.clone()),
        (parked.aggregate_type.as_str(), parked.aggregate_id.clone()),
        (
            "event",
            format!(
                "{} {}, version {} of the {}",
                parked.event_type, parked.event_id, parked.sequence, parked.aggregate_type
            ),
        ),
        ("place", format!("partition {}, position {}", parked.partition, parked.position)),
        ("error", parked.error.clone()),
        (
            "parked",
            match parked.queued {
                1 => format!("{}, 1 event queues behind it", instant(parked.parked_at)),
                queued => format!("{}, {queued} events queue behind it", instant(parked.parked_at)),
            },
        ),
        (
            "tried",
            format!(
                "{}, last {}, next {}",
                counted(parked.tries.unsigned_abs().into(), "time"),
                instant(parked.tried_at),
                instant(parked.retry_at)
            ),
        ),
    ];
    rows.iter().map(|(name, value)| format!("{name:<11} {value}\n")).collect()
}

/// What there will be no more.
fn missing(parked: &Parked) -> String {
    let what = match (parked.projection.as_str(), parked.sequence) {
        ("profiles", 1) => {
            "The user is created by this event: without it there is no profile, and every later event will be parked in its \
             turn."
        }
        ("profiles", _) => {
            "What this event changed will be missing from the profile, in every version of the read model that has yet to apply \
             it, and in all that are made later; version and later events count on."
        }
        ("audit", _) => "GET /audit will not list this event; the user's own history has it still.",
        _ => {
            "This event will be missing from the read model, in every version of it that has yet to apply it."
        }
    };
    format!("{what} The log keeps it. This cannot be undone.\n")
}

/// Asks whoever sits there.
fn agreed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody is there to ask: say --yes");
    }
    print!("Discard it? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The account at this terminal.
fn account() -> String {
    let name = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    name.unwrap_or_else(|| nix::unistd::getuid().to_string())
}

fn tell(parked: &[Parked], outcomes: &[Outcome]) -> anyhow::Result<()> {
    let mut left = 0;
    for (one, outcome) in parked.iter().zip(outcomes) {
        let name = format!("{}  {}  {}", one.projection, one.tenant_id, one.aggregate_id);
        match outcome {
            Outcome::Released => println!("{name}  goes on"),
            Outcome::Parked(now) => {
                left += 1;
                println!("{name}  is parked at {}@{}: {}", now.event_type, now.sequence, now.error);
            }
            Outcome::Untried => {
                left += 1;
                println!(
                    "{name}  was not tried in time: see that a projector of {} runs; it will be as soon as one does",
                    one.projection
                );
            }
        }
    }
    match left {
        0 => Ok(()),
        1 => bail!("1 stream stays parked"),
        left => bail!("{left} streams stay parked"),
    }
}
