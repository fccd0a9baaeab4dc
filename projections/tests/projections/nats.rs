//! A nats-server of the test's own, and publishers that work on it.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use async_nats::jetstream::{self, stream::Stream};
use rollcall_event_store::Log;
use rollcall_private_servers::{DataDir, Nats};
use rollcall_projections::{
    Progress,
    leases::Units,
    publisher::{self, Publisher, Settings, Status},
};
use sqlx::Row;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    server,
    support::{PATIENCE, Process, Test},
};

pub const STREAM: &str = "ROLLCALL";

/// A nats-server of the test's own.
pub struct Server {
    pub nats: Nats,
    _directory: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        let directory = server::directory();
        let data = DataDir::open(Some(directory.path().join("data"))).unwrap();
        let nats = Nats::start(&data).await.unwrap();
        assert!(!nats.missing(), "nats-server is not installed");
        Self { nats, _directory: directory }
    }

    pub async fn client(&self) -> async_nats::Client {
        Self::client_at(self.nats.url()).await
    }

    /// async-nats leaves user and password in a URL unused.
    pub async fn client_at(url: &str) -> async_nats::Client {
        let address: async_nats::ServerAddr = url.parse().unwrap();
        let (user, password) =
            (address.username().unwrap().to_owned(), address.password().unwrap().to_owned());
        async_nats::ConnectOptions::with_user_and_password(user, password).connect(address).await.unwrap()
    }

    /// A client that is told a port where nobody listens yet, and goes on trying there.
    pub async fn client_of_nobody(&self, port: u16) -> async_nats::Client {
        let address: async_nats::ServerAddr = self.nats.url().parse().unwrap();
        let (user, password) =
            (address.username().unwrap().to_owned(), address.password().unwrap().to_owned());
        async_nats::ConnectOptions::with_user_and_password(user, password)
            .retry_on_initial_connect()
            .reconnect_delay_callback(|_| Duration::from_millis(200))
            .connect(format!("nats://127.0.0.1:{port}"))
            .await
            .unwrap()
    }

    /// From now on there is a way to this server at that port.
    pub async fn listen_at(&self, port: u16) {
        let address: async_nats::ServerAddr = self.nats.url().parse().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server =
                    TcpStream::connect((address.host().to_owned(), address.port())).await.unwrap();
                tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
            }
        });
    }

    pub async fn context(&self) -> jetstream::Context {
        jetstream::new(self.client().await)
    }

    async fn stream(&self) -> Stream {
        self.context().await.get_stream(STREAM).await.unwrap()
    }

    /// The messages of the stream: partition, position, and the headers' id.
    pub async fn published(&self) -> Vec<(u16, u64, String)> {
        let stream = self.stream().await;
        let state = stream.get_info().await.unwrap().state;
        let mut published = Vec::new();
        for sequence in state.first_sequence..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await.unwrap();
            let header = |name: &str| message.headers.get(name).unwrap().to_string();
            assert!(
                message.subject.ends_with(&format!(".{}", header("ce-partition"))),
                "{}",
                message.subject
            );
            published.push((
                header("ce-partition").parse().unwrap(),
                header("ce-position").parse().unwrap(),
                header("ce-id"),
            ));
        }
        published
    }

    /// Every event once, and in order within its partition.
    pub async fn assert_published(&self, test: &Test) {
        let events =
            sqlx::query("SELECT partition, event_id::text FROM log.events ORDER BY partition, position")
                .fetch_all(&mut test.superuser().await)
                .await
                .unwrap();
        let mut stored: BTreeMap<u16, Vec<(u64, String)>> = BTreeMap::new();
        for event in events {
            let partition = stored.entry(event.get::<i32, _>(0).try_into().unwrap()).or_default();
            partition.push((partition.len() as u64 + 1, event.get(1)));
        }
        let mut published: BTreeMap<u16, Vec<(u64, String)>> = BTreeMap::new();
        for (partition, position, id) in self.published().await {
            published.entry(partition).or_default().push((position, id));
        }
        assert_eq!(published, stored);
    }

    /// Of an adopted log: behind the first `before` messages, which are of the history that was ended, each event of the
    /// log that those do not hold, in order within its partition and under its new id.
    pub async fn assert_published_since(&self, test: &Test, before: usize, log_id: uuid::Uuid) {
        let stream = self.stream().await;
        let published = self.published().await;
        let old: HashSet<&String> = published[..before].iter().map(|(.., id)| id).collect();
        let events = sqlx::query(
            "SELECT partition, position, event_id::text FROM log.events ORDER BY partition, position",
        )
        .fetch_all(&mut test.superuser().await)
        .await
        .unwrap();
        let stored = events
            .iter()
            .map(|event| (event.get::<i32, _>(0) as u16, event.get::<i64, _>(1) as u64, event.get(2)));
        let wanted: Vec<(u16, u64, String)> = stored.filter(|(.., id)| !old.contains(id)).collect();
        let mut found = published[before..].to_vec();
        // Stable: what stands in the wrong order within its partition stays there.
        found.sort_by_key(|(partition, ..)| *partition);
        assert_eq!(found, wanted);
        let newest = stream.get_raw_message(published.len() as u64).await.unwrap();
        assert_eq!(newest.headers.get("ce-source").unwrap().as_str(), format!("/rollcall/{log_id}"));
    }

    pub async fn stop(self) {
        self.nats.stop().await;
    }
}

/// A publisher that ends with the test.
pub struct Publishing {
    pub process: Process,
    pub status: watch::Receiver<Status>,
}

impl Publishing {
    pub async fn start(test: &Test, log: &Log, server: &Server) -> Self {
        Self::through(server.client().await, test, log).await
    }

    pub async fn through(client: async_nats::Client, test: &Test, log: &Log) -> Self {
        let (status, seen) = watch::channel(Status::Starting);
        let (of_log, service) = (log.clone(), test.provisioned.service.clone());
        let work = (publisher::NAME, publisher::SHAPE, Units::One);
        let process = Process::start(test, log, work, move |version, share, progress, shutdown| {
            // No window in which the server itself drops what is published twice.
            let settings = Settings { duplicate_window: Duration::from_millis(100), ..Settings::default() };
            let (log, stream, status) = (of_log.clone(), (client.clone(), settings), status.clone());
            Publisher::new(version, log, &service, stream, &share, progress, status).run(share, shutdown)
        })
        .await;
        Self { process, status: seen }
    }

    pub fn progress(&self) -> &Progress {
        &self.process.progress
    }

    pub async fn stop(self) {
        self.process.stop().await;
    }

    pub async fn refused(&mut self) -> String {
        let failing = |status: &Status| matches!(status, Status::Failing(_));
        let status =
            timeout(PATIENCE, self.status.wait_for(failing)).await.expect("it refuses").unwrap().clone();
        let Status::Failing(text) = status else { unreachable!("waited for it") };
        text
    }
}

/// Waits until the stream has as many messages as the log has events.
pub async fn until_there_are(test: &Test, server: &Server) {
    let events = test.number("SELECT count(*) FROM log.events").await;
    until_published(server, u64::try_from(events).unwrap()).await;
}

/// Waits until the stream has that many messages; it may not be there yet.
pub async fn until_published(server: &Server, messages: u64) {
    let context = server.context().await;
    let wait = async {
        loop {
            if let Ok(stream) = context.get_stream(STREAM).await
                && let Ok(info) = stream.get_info().await
                && info.state.messages >= messages
            {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("that many messages are in the stream");
}
