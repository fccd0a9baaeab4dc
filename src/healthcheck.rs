//! `rollcall healthcheck`: asks a running process whether it is ready, for images without curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, bail};

use crate::{
    config::{Config, DATA_DIR_FLAG, Flags, Settings},
    process, ready,
};

const ANSWER_WITHIN: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub struct Options {
    /// What to ask, or an address alone, with http:// or without, for its /readyz; if not given, /readyz at the configured
    /// address, or of the "rollcall up" that runs in the data directory.
    #[arg(value_parser = url)]
    url: Option<reqwest::Url>,
    #[command(flatten)]
    flags: Flags,
}

/// # Errors
/// Where the answer is no success, or none.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let url = match &options.url {
        Some(url) => url.clone(),
        None => {
            let config = Config::load(&options.flags)?;
            let settings = Settings::read(&config)?;
            let named = config.origin("data_dir") == DATA_DIR_FLAG;
            format!("http://{}/readyz", reachable(address(&settings, named)?)).parse().context("http")?
        }
    };
    process::runtime()?.block_on(async {
        let client = reqwest::Client::builder()
            .timeout(ANSWER_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let answer =
            client.get(url.clone()).send().await.with_context(|| format!("{url} does not answer"))?;
        if answer.status().is_success() {
            return Ok(());
        }
        let hint = match answer.status() {
            reqwest::StatusCode::NOT_FOUND => ": ask for /readyz there",
            _ => "",
        };
        bail!("{url} is answered with {}{hint}", answer.status())
    })
}

/// Where the process that is meant listens. Where that is who runs in a directory, and nobody does, whoever listens elsewhere
/// must not answer for it; on a named database it leaves nothing there, and the directory is `named` on the command line or
/// says nothing.
fn address(settings: &Settings, named: bool) -> anyhow::Result<SocketAddr> {
    if let Some(address) = settings.http {
        return Ok(address);
    }
    if let Some(directory) = &settings.data_dir {
        match ready::Urls::of_up(directory)? {
            Some(urls) => {
                let address = urls.http.trim_start_matches("http://").parse();
                return address.context("the address of the rollcall up there");
            }
            None if named || settings.database.url.is_none() => bail!(ready::Urls::none_in(directory)),
            None => {}
        }
    }
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)))
}

/// A URL, or what people write for one: `127.0.0.1:8080`.
fn url(text: &str) -> Result<reqwest::Url, String> {
    let whole = match text.split_once("://") {
        Some(_) => text.to_owned(),
        None => format!("http://{text}"),
    };
    let mut url: reqwest::Url =
        whole.parse().map_err(|error| format!("{error}: write it like http://127.0.0.1:8080/readyz"))?;
    // There is nothing at the root that could be meant.
    if url.path() == "/" {
        url.set_path("/readyz");
    }
    Ok(url)
}

/// Where to reach who listens on an address: all addresses means this machine's own too.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_alone_is_enough() {
        let at = |text: &str| url(text).unwrap().to_string();
        assert_eq!(at("127.0.0.1:28081"), "http://127.0.0.1:28081/readyz");
        assert_eq!(at("http://127.0.0.1:28081"), "http://127.0.0.1:28081/readyz");
        assert_eq!(at("localhost:8080/livez"), "http://localhost:8080/livez");
        assert_eq!(at("http://[::1]:8080/livez"), "http://[::1]:8080/livez");
        assert!(url("http://").unwrap_err().contains("/readyz"));
    }

    #[test]
    fn who_listens_everywhere_is_asked_on_loopback() {
        let at = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(at("[::]:8080"), "[::1]:8080");
        assert_eq!(at("192.0.2.1:8080"), "192.0.2.1:8080");
    }
}
