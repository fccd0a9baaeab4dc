//! The connection to NATS: it is kept up in the background, whatever NATS does.

use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use rollcall_event_store::Log;
use rollcall_projections::publisher;
use tokio::time::timeout;

/// How long a start waits for a NATS server that somebody named.
const CHECK_WITHIN: Duration = Duration::from_secs(3);
/// How long to wait before another attempt at most: a server that is back is published to soon.
const RECONNECTS_AFTER_MAX: Duration = Duration::from_secs(1);

/// Connects in the background. A server that was named and can be reached must have JetStream; one that cannot be
/// reached is published to later.
pub async fn connect(url: &str, named: bool) -> anyhow::Result<Client> {
    let (options, servers) = options(url)?;
    let client = options
        .retry_on_initial_connect()
        .reconnect_delay_callback(reconnects_after)
        .event_callback(|event| async move {
            match event {
                Event::Disconnected => tracing::warn!("NATS is away; events will be published later"),
                Event::Connected => tracing::info!("NATS is there"),
                other => tracing::debug!(%other, "NATS"),
            }
        })
        .connect(servers)
        .await
        .context("nats.url cannot be used")?;
    if named {
        match timeout(CHECK_WITHIN, publisher::check(&client)).await {
            Ok(Err(error @ publisher::StreamError::NoJetStream)) => bail!("nats.url: {error}"),
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("NATS cannot be reached yet; events will be published later");
            }
        }
    }
    Ok(client)
}

/// At once, and then with pauses that double.
fn reconnects_after(attempts: usize) -> Duration {
    let doubled = 1_u32.checked_shl(u32::try_from(attempts).unwrap_or(u32::MAX)).unwrap_or(u32::MAX);
    match attempts {
        0 | 1 => Duration::ZERO,
        _ => Duration::from_millis(doubled.into()).min(RECONNECTS_AFTER_MAX),
    }
}

/// Connects, if there is a server to connect to, and looks whether it holds what the log does not have; the log is halted
/// then. A server that cannot be reached yet is compared when it is published to.
pub async fn compare(server: Option<(&str, bool)>, log: &Log) -> anyhow::Result<Option<Client>> {
    let Some((url, named)) = server else { return Ok(None) };
    let client = connect(url, named).await?;
    match timeout(CHECK_WITHIN, publisher::compare(&client, log)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "what NATS holds does not fit the log"),
        Err(_) => tracing::debug!("NATS could not be compared with the log yet"),
    }
    Ok(Some(client))
}

/// What a server holds of a log's events: the newest of each partition.
///
/// # Errors
/// Where it cannot be asked, with the reason.
pub async fn held(url: &str, partitions: u16) -> anyhow::Result<Vec<publisher::Newest>> {
    let (options, servers) = options(url)?;
    let asked = async {
        let client = options.connect(servers).await.context("NATS cannot be reached")?;
        publisher::held(&client, partitions).await.map_err(anyhow::Error::from)
    };
    timeout(CHECK_WITHIN, asked).await.context("NATS does not answer")?
}

/// Whether the server can be reached and has JetStream.
///
/// # Errors
/// Where not, with the reason.
pub async fn check(url: &str) -> anyhow::Result<()> {
    let (options, servers) = options(url)?;
    let asked = async {
        let client = options.connect(servers).await.context("NATS cannot be reached")?;
        publisher::check(&client).await.map_err(anyhow::Error::from)
    };
    timeout(CHECK_WITHIN, asked).await.context("NATS does not answer")?
}

/// The servers of a cluster, separated by commas, and who we are there: the client takes that not from its URLs.
fn options(urls: &str) -> anyhow::Result<(ConnectOptions, Vec<ServerAddr>)> {
    let servers: Vec<ServerAddr> =
        urls.split(',').map(|url| url.trim().parse()).collect::<Result<_, _>>().context(
            "nats.url is not a NATS URL (nats://user:password@host:port, or several separated by commas)",
        )?;
    let named = servers.iter().find(|server| server.username().is_some());
    let options = match named.map(|server| (server.username(), server.password())) {
        Some((Some(user), Some(password))) => {
            ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        }
        Some((Some(token), None)) => ConnectOptions::with_token(token.to_owned()),
        _ => ConnectOptions::new(),
    };
    Ok((options.name("rollcall"), servers))
}
