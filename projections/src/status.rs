//! How everything stands to the right of the log, as the database has it: for `rollcall status` and `/health/detailed`.
//!
//! One statement reads all of it in one snapshot, by look-ups: as many as there are partitions and leases.

use std::{collections::BTreeMap, fmt, time::Duration};

use chrono::{DateTime, SecondsFormat, TimeDelta};
use serde::{Deserialize, Deserializer, Serialize, de};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{leases, publisher, schema::Version};

/// A hand-over takes less than this, whoever froze or died.
const NOBODY_FOR: Duration = Duration::from_secs(5);

/// What is to be known of a log's readers. Instants are RFC 3339, in UTC.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub log_id: Uuid,
    /// When it was read, by the database's clock.
    pub at: String,
    /// Why no commands are taken; none where they are.
    pub halt: Option<Halt>,
    pub partitions: Vec<Head>,
    /// The versions of read models, by name and number.
    pub projections: Vec<Projected>,
    pub leases: Vec<Lease>,
    pub members: Vec<Member>,
    pub publisher: Option<Publisher>,
}

/// That the log takes no commands until an operator has looked at it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Halt {
    pub found_by: String,
    #[serde(deserialize_with = "utc")]
    pub found_at: String,
    pub why: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Head {
    pub partition: u16,
    pub head: u64,
    /// Of the last event; none where there is none.
    #[serde(deserialize_with = "utc_or_none")]
    pub recorded_at: Option<String>,
}

/// A version of a read model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Projected {
    pub projection: String,
    pub version: i32,
    pub shape: i32,
    /// `serving`, `standing by` (caught up, and fed), `being filled`, or `wrong` (not what the log says: it never serves).
    pub state: String,
    /// Checkpoints, by partition.
    pub positions: Vec<u64>,
    pub lag_events: u64,
    /// Age of the oldest event that is still to be applied.
    pub lag_seconds: f64,
    /// The same by partition.
    #[serde(skip_serializing)]
    waits_seconds: Vec<f64>,
    /// Streams that wait until somebody has looked at one of their events.
    #[serde(default)]
    pub parked_streams: u64,
    /// Partitions that cannot be projected any further; their leases say why.
    #[serde(default)]
    pub stopped_partitions: Vec<u16>,
}

impl Projected {
    /// `profiles_1`.
    pub fn qualifier(&self) -> String {
        format!("{}_{}", self.projection, self.version)
    }

    pub fn serves(&self) -> bool {
        self.state == "serving"
    }

    pub fn is(&self, version: Version) -> bool {
        self.projection == version.projection && self.version == version.number
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lease {
    pub projection: String,
    pub version: i32,
    /// The partition; 0 of the publisher, which works on all of them.
    pub unit: u16,
    pub epoch: i64,
    /// Who took it last, and has not given it back.
    pub member: Option<Uuid>,
    /// Host and process id.
    pub process: Option<String>,
    #[serde(deserialize_with = "utc_or_none")]
    pub taken_at: Option<String>,
    /// What keeps its holder from going on; none where nothing does.
    pub trouble: Option<String>,
    /// `held`, `free` (whoever can will take it), or `frozen`: its holder has not been heard of, but its session is there.
    pub state: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Member {
    pub member: Uuid,
    /// Host and process id.
    pub process: String,
    /// What it can work on: a projection and a shape, or one version.
    pub works: Vec<String>,
    /// Versions that it leaves to others for a while, because it could not work on them.
    #[serde(default)]
    pub declines: Vec<String>,
    #[serde(deserialize_with = "utc")]
    pub heard_at: String,
    pub heard_seconds_ago: f64,
    /// `alive`, `frozen` or `gone`.
    pub state: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Publisher {
    /// What has been published, by partition.
    pub positions: Vec<u64>,
    pub lag_events: u64,
    pub lag_seconds: f64,
    /// Where JetStream's stream was when the positions were.
    pub stream_sequence: u64,
    #[serde(skip)]
    version: i32,
    /// The process that publishes; none where its lease is free.
    pub process: Option<String>,
    /// Why it cannot; none where it can.
    pub trouble: Option<String>,
}

/// Something that stands still until somebody has looked at it.
pub struct Trouble<'a> {
    /// `profiles_1, partition 3`, or `publisher`.
    pub of: String,
    pub why: &'a str,
}

/// Work on a version that nobody does, though there is some, or that somebody took who is not heard of any more.
pub struct Unattended<'a> {
    /// `profiles_1 (3 of 16 partitions)`, or `publisher`.
    pub of: String,
    /// RFC 3339, in UTC: since when events wait, or nothing was heard of who took it.
    pub since: String,
    /// Who took it, and has not given it back.
    pub holder: Option<&'a Member>,
}

impl fmt::Display for Unattended<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "nobody works on {}, since {}", self.of, self.since)?;
        match self.holder {
            Some(Member { process, state, .. }) => write!(formatter, ": {process} is {state}"),
            None => Ok(()),
        }
    }
}

impl Status {
    /// What nobody works on, of the read models that serve and of publishing; not where that is a hand-over. Of several shapes
    /// only the newest counts: those before it end with the binaries that read them.
    pub fn unattended(&self) -> Vec<Unattended<'_>> {
        let serving = self.projections.iter().filter(|of| of.serves());
        let newest = serving.filter(|of| {
            let mut others = self.projections.iter().filter(|other| other.serves());
            !others.any(|other| other.projection == of.projection && other.shape > of.shape)
        });
        let mut found = Vec::new();
        for of in newest {
            let waits = |unit: u16| of.waits_seconds.get(usize::from(unit)).copied().unwrap_or_default();
            let name = |units: usize, all: usize| format!("{} ({units} of {all} partitions)", of.qualifier());
            self.unattended_of(&of.projection, of.version, waits, name, &mut found);
        }
        if let Some(of) = &self.publisher {
            let name = |_: usize, _: usize| publisher::NAME.to_owned();
            self.unattended_of(publisher::NAME, of.version, |_| of.lag_seconds, name, &mut found);
        }
        found
    }

    fn unattended_of<'a>(
        &'a self,
        projection: &str,
        version: i32,
        waits: impl Fn(u16) -> f64,
        name: impl Fn(usize, usize) -> String,
        found: &mut Vec<Unattended<'a>>,
    ) {
        let leases = self.leases.iter().filter(|of| of.projection == projection && of.version == version);
        let mut all = 0;
        let mut by_holder: BTreeMap<Option<Uuid>, (usize, f64, Option<&'a Member>)> = BTreeMap::new();
        for lease in leases {
            all += 1;
            if lease.state == "held" {
                continue;
            }
            let holder = self.members.iter().find(|member| lease.member == Some(member.member));
            // Where it is known since when nobody has worked, what waits may have waited before.
            let seconds = holder.map_or_else(|| waits(lease.unit), |holder| holder.heard_seconds_ago);
            if seconds > NOBODY_FOR.as_secs_f64() {
                let (units, longest, _) =
                    by_holder.entry(holder.map(|holder| holder.member)).or_insert((0, 0.0, holder));
                (*units, *longest) = (*units + 1, longest.max(seconds));
            }
        }
        found.extend(by_holder.into_values().map(|(units, seconds, holder)| Unattended {
            of: name(units, all),
            since: holder.map_or_else(|| before(&self.at, seconds), |holder| holder.heard_at.clone()),
            holder,
        }));
    }

    /// What cannot go on, of the read models and of publishing.
    pub fn troubles(&self) -> impl Iterator<Item = Trouble<'_>> {
        self.leases.iter().filter_map(|lease| {
            let why = lease.trouble.as_deref()?;
            let of = match lease.projection.as_str() {
                publisher::NAME => publisher::NAME.to_owned(),
                name => format!("{name}_{}, partition {}", lease.version, lease.unit),
            };
            Some(Trouble { of, why })
        })
    }
}

/// As the statement builds it.
#[derive(Deserialize)]
struct Read {
    log_id: Uuid,
    #[serde(deserialize_with = "utc")]
    at: String,
    halt: Option<Halt>,
    partitions: Vec<Head>,
    projections: Vec<Projected>,
    leases: Vec<Lease>,
    members: Vec<Member>,
    stream_sequence: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database cannot be read")]
    Database(#[from] sqlx::Error),
    #[error(
        "the database answered in another form than this version reads: see that all run the same version"
    )]
    Form(#[from] serde_json::Error),
}

/// Reads how everything stands.
///
/// # Errors
/// Where the database cannot be read.
pub async fn read(connection: &mut PgConnection) -> Result<Status, Error> {
    let seconds = |duration: Duration| duration.as_secs_f64();
    let text: String = sqlx::query_scalar(include_str!("status.sql"))
        .bind(seconds(leases::LIVES_FOR))
        .bind(seconds(leases::RECONNECTS_WITHIN))
        .fetch_one(&mut *connection)
        .await?;
    let Read { log_id, at, halt, partitions, mut projections, leases, members, stream_sequence } =
        serde_json::from_str(&text)?;
    for (projection, version, parked) in parked(connection).await? {
        let mut of = projections.iter_mut();
        if let Some(of) = of.find(|of| of.projection == projection && of.version == version) {
            of.parked_streams = parked.cast_unsigned();
        }
    }
    for of in &mut projections {
        let stopped = leases.iter().filter(|lease| {
            lease.projection == of.projection && lease.version == of.version && lease.trouble.is_some()
        });
        of.stopped_partitions = stopped.map(|lease| lease.unit).collect();
    }
    let place = projections.iter().position(|of| of.projection == publisher::NAME && of.serves());
    let publisher = place.map(|place| projections.remove(place)).map(|of| {
        let mut leases = leases.iter();
        let lease = leases.find(|lease| lease.projection == publisher::NAME && lease.version == of.version);
        Publisher {
            process: lease.filter(|lease| lease.state == "held").and_then(|lease| lease.process.clone()),
            trouble: lease.and_then(|lease| lease.trouble.clone()),
            positions: of.positions,
            lag_events: of.lag_events,
            lag_seconds: of.lag_seconds,
            stream_sequence,
            version: of.version,
        }
    });
    Ok(Status { log_id, at, halt, partitions, projections, leases, members, publisher })
}

async fn parked(connection: &mut PgConnection) -> Result<Vec<(String, i32, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT projection, version, count(DISTINCT (tenant_id, aggregate_type, aggregate_id))
         FROM projections.parked GROUP BY projection, version",
    )
    .fetch_all(connection)
    .await
}

/// An instant as the API writes it, whatever the session's time zone.
fn utc<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    in_utc(&String::deserialize(deserializer)?)
}

fn utc_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(deserializer)?.map(|text| in_utc(&text)).transpose()
}

/// Some time before an instant.
fn before(instant: &str, seconds: f64) -> String {
    let ago = TimeDelta::milliseconds((seconds * 1_000.0) as i64);
    match DateTime::parse_from_rfc3339(instant) {
        Ok(at) => (at.to_utc() - ago).to_rfc3339_opts(SecondsFormat::Micros, true),
        Err(_) => instant.to_owned(),
    }
}

fn in_utc<E: de::Error>(text: &str) -> Result<String, E> {
    let at = DateTime::parse_from_rfc3339(text).map_err(E::custom)?;
    Ok(at.to_utc().to_rfc3339_opts(SecondsFormat::Micros, true))
}
