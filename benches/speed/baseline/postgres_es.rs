//! postgres-es as its documentation sets it up, with its pool of ten connections: one INSERT transaction a command,
//! in-process, no HTTP, no encryption, no uniqueness.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use cqrs_es::{Aggregate, DomainEvent, event_sink::EventSink};
use postgres_es::PostgresCqrs;
use serde::{Deserialize, Serialize};
use sqlx::{Executor, PgPool, postgres::PgPoolOptions};
use uuid::Uuid;

use super::database;

/// The same members that a user's event has, in clear.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Created {
    email: String,
    given_name: String,
    family_name: String,
    phone: String,
    locale: String,
    time_zone: String,
    kind: String,
    traits: HashMap<String, String>,
    associations: Vec<(String, String)>,
    preferences: HashMap<String, bool>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    UserCreated(Box<Created>),
    ProfileChanged { given_name: (String, String) },
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::UserCreated(_) => "UserCreated".to_owned(),
            Self::ProfileChanged { .. } => "ProfileChanged".to_owned(),
        }
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

pub enum Command {
    Create(Box<Created>),
    Rename(String),
}

#[derive(Default, Serialize, Deserialize)]
pub struct Person(Created);

impl Aggregate for Person {
    const TYPE: &'static str = "person";
    type Command = Command;
    type Event = Event;
    type Error = std::fmt::Error;
    type Services = ();

    async fn handle(
        &mut self,
        command: Command,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), std::fmt::Error> {
        let event = match command {
            Command::Create(created) => Event::UserCreated(created),
            Command::Rename(name) => Event::ProfileChanged { given_name: (self.0.given_name.clone(), name) },
        };
        sink.write(event, self).await;
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::UserCreated(created) => self.0 = *created,
            Event::ProfileChanged { given_name: (_, to) } => self.0.given_name = to,
        }
    }
}

pub struct PostgresEs {
    framework: Arc<PostgresCqrs<Person>>,
    pool: PgPool,
}

impl PostgresEs {
    pub async fn prepare(owner: &str, name: &str) -> Self {
        let url = database(owner, name).await;
        let pool: PgPool = PgPoolOptions::new().max_connections(10).connect(&url).await.unwrap();
        pool.execute(
            "CREATE TABLE events (
                 aggregate_type text NOT NULL, aggregate_id text NOT NULL, sequence bigint CHECK (sequence >= 0) NOT NULL,
                 event_type text NOT NULL, event_version text NOT NULL, payload json NOT NULL, metadata json NOT NULL,
                 PRIMARY KEY (aggregate_type, aggregate_id, sequence))",
        )
        .await
        .unwrap();
        Self { framework: Arc::new(postgres_es::postgres_cqrs(pool.clone(), Vec::new(), ())), pool }
    }

    /// Creations per second.
    pub async fn create(&self, callers: usize, during: Duration) -> f64 {
        self.run(callers, during, || {
            let id = Uuid::now_v7();
            (id, Command::Create(Box::new(created(id))))
        })
        .await
    }

    /// Makes users of these ids, with streams of that many events.
    pub async fn fill(&self, ids: &[Uuid], events: usize) {
        let like = Uuid::now_v7();
        self.framework.execute(&like.to_string(), Command::Create(Box::new(created(like)))).await.unwrap();
        for name in 1..events {
            self.framework
                .execute(&like.to_string(), Command::Rename(format!("Ada {name:016}")))
                .await
                .unwrap();
        }
        sqlx::query(
            "INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata)
             SELECT e.aggregate_type, n.id::text, e.sequence, e.event_type, e.event_version, e.payload, e.metadata
             FROM unnest($1::uuid[]) AS n(id) CROSS JOIN events e WHERE e.aggregate_id = $2 ORDER BY n.id, e.sequence",
        )
        .bind(ids)
        .bind(like.to_string())
        .execute(&self.pool)
        .await
        .unwrap();
        self.pool.execute("VACUUM ANALYZE events").await.unwrap();
    }

    /// Updates per second, of these users in turn.
    pub async fn rename(&self, ids: &Arc<Vec<Uuid>>, callers: usize, during: Duration) -> f64 {
        let (turn, ids) = (AtomicUsize::new(0), Arc::clone(ids));
        self.run(callers, during, move || {
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            (ids[turn % ids.len()], Command::Rename(format!("Eve {turn:016}")))
        })
        .await
    }

    async fn run(
        &self,
        callers: usize,
        during: Duration,
        next: impl Fn() -> (Uuid, Command) + Send + Sync + 'static,
    ) -> f64 {
        let (begun, next) = (Instant::now(), Arc::new(next));
        let callers = (0..callers).map(|_| {
            let (framework, next) = (Arc::clone(&self.framework), Arc::clone(&next));
            tokio::spawn(async move {
                let mut done = 0_u64;
                while begun.elapsed() < during {
                    let (id, command) = next();
                    framework.execute(&id.to_string(), command).await.unwrap();
                    done += 1;
                }
                done
            })
        });
        let mut done = 0;
        for caller in callers.collect::<Vec<_>>() {
            done += caller.await.unwrap();
        }
        done as f64 / begun.elapsed().as_secs_f64()
    }
}

fn created(id: Uuid) -> Created {
    Created {
        email: format!("{id}@example.com"),
        given_name: "Ada".to_owned(),
        family_name: "Lovelace".to_owned(),
        phone: "+4930123456".to_owned(),
        locale: "en-GB".to_owned(),
        time_zone: "Europe/London".to_owned(),
        kind: "customer".to_owned(),
        traits: [("department", "R&D"), ("seats", "3")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        associations: vec![("membership".to_owned(), "gold".to_owned())],
        preferences: [("newsletter".to_owned(), true)].into(),
    }
}
