//! A TCP proxy before PostgreSQL that loses what it is told to lose.
//!
//! It knows as much of the protocol as it needs: what a session calls itself, where a request ends (Sync or a simple
//! Query) and where its answer does (ReadyForQuery). A request that runs something (Execute or a simple Query) may meet a
//! [`Fault`].

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::sleep,
};

/// What becomes of a request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request never arrives.
    Before,
    /// Half of the request arrives, then the connection breaks.
    Half,
    /// The request arrives, and the connection breaks at once: the server may be at it while the service asks again.
    During,
    /// The server has answered; the answer is lost with the connection.
    After,
    /// As `After`, and from then on the server cannot be reached.
    AfterThenAway,
    /// The answer comes late.
    Late(Duration),
    /// The connection is silent for a while and then breaks.
    SilentThenBroken(Duration),
}

/// Which request meets which fault.
pub enum Plan {
    Through,
    /// The next requests of the session of that name, in this order.
    Next(&'static str, VecDeque<Fault>),
    /// Any request, with a probability, meets one of these.
    Chance(Box<StdRng>, f64, Vec<Fault>),
}

struct Shared {
    upstream: SocketAddr,
    plan: Mutex<Plan>,
    away: watch::Sender<bool>,
    /// Connections made before are silent from now on.
    silenced: AtomicUsize,
    accepted: AtomicUsize,
    faults: AtomicUsize,
}

pub struct Proxy {
    shared: Arc<Shared>,
}

impl Proxy {
    /// In front of the server of a URL such as `postgres://user:password@127.0.0.1:5432/database`.
    pub async fn before(url: &str) -> (Self, String) {
        let (scheme, rest) = url.split_once("//").unwrap();
        let (user, place) = rest.rsplit_once('@').unwrap();
        let (server, database) = place.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream: server.parse().unwrap(),
            plan: Mutex::new(Plan::Through),
            away: watch::Sender::new(false),
            silenced: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            faults: AtomicUsize::new(0),
        });
        let accepting = shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = accepting.accepted.fetch_add(1, Ordering::AcqRel) + 1;
                // Who comes while we are away is turned away.
                if !*accepting.away.borrow() {
                    tokio::spawn(Connection::run(client, accepting.clone(), number));
                }
            }
        });
        // In clear text, so that the proxy can read along.
        (Self { shared }, format!("{scheme}//{user}@{address}/{database}?sslmode=disable"))
    }

    pub fn plan(&self, plan: Plan) {
        *self.shared.plan.lock().unwrap() = plan;
    }

    /// The faults that happened so far.
    pub fn faults(&self) -> usize {
        self.shared.faults.load(Ordering::Acquire)
    }

    /// Whether [`Fault::AfterThenAway`] has begun, which cuts every connection.
    pub fn is_away(&self) -> bool {
        *self.shared.away.borrow()
    }

    /// Ends what [`Fault::AfterThenAway`] began.
    pub fn come_back(&self) {
        self.shared.away.send_replace(false);
    }

    /// From now on the connections that exist are silent in both directions, for ever; new ones work.
    pub fn silence_all(&self) {
        self.shared.silenced.store(self.shared.accepted.load(Ordering::Acquire), Ordering::Release);
    }
}

impl Shared {
    fn fault(&self, session: &str) -> Option<Fault> {
        let fault = match &mut *self.plan.lock().unwrap() {
            Plan::Through => None,
            Plan::Next(name, faults) => (*name == session).then(|| faults.pop_front()).flatten(),
            Plan::Chance(rng, probability, faults) => {
                let hit = rng.random_bool(*probability);
                hit.then(|| faults[rng.random_range(0..faults.len())])
            }
        };
        if fault.is_some() {
            self.faults.fetch_add(1, Ordering::AcqRel);
        }
        fault
    }
}

struct Connection {
    shared: Arc<Shared>,
    number: usize,
    session: String,
    from_client: OwnedReadHalf,
    to_client: OwnedWriteHalf,
    from_server: OwnedReadHalf,
    to_server: OwnedWriteHalf,
}

impl Connection {
    async fn run(mut client: TcpStream, shared: Arc<Shared>, number: usize) {
        let Some((startup, session)) = startup(&mut client).await else { return };
        let Ok(mut server) = TcpStream::connect(shared.upstream).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        if server.write_all(&startup).await.is_err() {
            return;
        }
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        // When it returns, both sides are closed.
        Self { shared, number, session, from_client, to_client, from_server, to_server }.forward().await;
    }

    /// Until one side ends or a fault strikes.
    async fn forward(mut self) -> Option<()> {
        let mut pending = Vec::new();
        let mut answer = vec![0; 64 * 1024];
        let mut request = vec![0; 64 * 1024];
        let mut away = self.shared.away.subscribe();
        loop {
            tokio::select! {
                _ = async { away.wait_for(|away| *away).await.is_ok() } => return None,
                read = self.from_server.read(&mut answer) => {
                    let count = read.ok().filter(|count| *count > 0)?;
                    self.stay_if_silenced().await;
                    self.to_client.write_all(&answer[..count]).await.ok()?;
                }
                read = self.from_client.read(&mut request) => {
                    let count = read.ok().filter(|count| *count > 0)?;
                    self.stay_if_silenced().await;
                    pending.extend_from_slice(&request[..count]);
                    while let Some((end, runs)) = whole_request(&pending) {
                        let whole: Vec<u8> = pending.drain(..end).collect();
                        self.pass(&whole, runs).await?;
                    }
                }
            }
        }
    }

    async fn stay_if_silenced(&self) {
        if self.number <= self.shared.silenced.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
    }

    async fn pass(&mut self, request: &[u8], runs: bool) -> Option<()> {
        let fault = if runs { self.shared.fault(&self.session) } else { None };
        match fault {
            Some(Fault::Before) => return None,
            Some(Fault::Half) => {
                self.to_server.write_all(&request[..request.len() / 2]).await.ok()?;
                return None;
            }
            _ => self.to_server.write_all(request).await.ok()?,
        }
        match fault {
            None => {}
            Some(Fault::Late(pause)) => sleep(pause).await,
            Some(Fault::After) => {
                self.swallow_answer().await?;
                return None;
            }
            Some(Fault::AfterThenAway) => {
                self.swallow_answer().await?;
                self.shared.away.send_replace(true);
                return None;
            }
            Some(Fault::SilentThenBroken(pause)) => {
                sleep(pause).await;
                return None;
            }
            Some(Fault::Before | Fault::Half | Fault::During) => return None,
        }
        Some(())
    }

    /// Reads up to the server's ReadyForQuery.
    async fn swallow_answer(&mut self) -> Option<()> {
        loop {
            let kind = self.from_server.read_u8().await.ok()?;
            let length = self.from_server.read_u32().await.ok()?;
            let mut body = vec![0; usize::try_from(length).ok()?.checked_sub(4)?];
            self.from_server.read_exact(&mut body).await.ok()?;
            if kind == b'Z' {
                return Some(());
            }
        }
    }
}

/// The first message, and the application_name in it.
async fn startup(client: &mut TcpStream) -> Option<(Vec<u8>, String)> {
    let length = client.read_u32().await.ok()?;
    let mut body = vec![0; usize::try_from(length).ok()?.checked_sub(4)?];
    client.read_exact(&mut body).await.ok()?;
    let mut words = body[4..].split(|byte| *byte == 0);
    let name = words.by_ref().find(|word| *word == b"application_name").and_then(|_| words.next());
    let session = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
    Some(([&length.to_be_bytes()[..], &body].concat(), session))
}

/// Where the first whole request ends, and whether it runs something. Passwords and the like count as one, too.
fn whole_request(bytes: &[u8]) -> Option<(usize, bool)> {
    let mut at = 0;
    let mut runs = false;
    loop {
        let (kind, length) = (bytes.get(at)?, bytes.get(at + 1..at + 5)?);
        let length = u32::from_be_bytes(length.try_into().unwrap());
        at += 1 + usize::try_from(length).unwrap();
        if at > bytes.len() {
            return None;
        }
        match kind {
            b'E' => runs = true,
            b'Q' => return Some((at, true)),
            b'P' | b'B' | b'D' | b'C' => {}
            _ => return Some((at, runs)),
        }
    }
}
