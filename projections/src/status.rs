//! How everything stands to the right of the log, as the database has it: for `rollcall status` and `/health/detailed`.
//!
//! One statement reads all of it in one snapshot, by look-ups: as many as there are partitions and leases.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Deserializer, Serialize, de};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{leases, publisher, schema::Version};

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

impl Status {
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

fn in_utc<E: de::Error>(text: &str) -> Result<String, E> {
    let at = DateTime::parse_from_rfc3339(text).map_err(E::custom)?;
    Ok(at.to_utc().to_rfc3339_opts(SecondsFormat::Micros, true))
}
