//! NATS over TLS: a server is believed where its certificate is signed by somebody whom this machine trusts, and else
//! nothing is sent to it.

use std::{fs, path::Path};

use async_nats::{ConnectOptions, jetstream};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::{
    nats_away::{NatsServer, free_port, readiness},
    rollcall::{Rollcall, Setup, data_directory, eventually},
};

/// Writes `<name>.pem`, an authority, and `<name>-server.pem` and `-key.pem`, which it signed for this machine.
fn authority(directory: &Path, name: &str) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let addresses = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let server = CertificateParams::new(addresses).unwrap().signed_by(&key, &authority).unwrap();
    let write =
        |what: &str, pem: String| fs::write(directory.join(format!("{name}{what}.pem")), pem).unwrap();
    write("", authority.pem());
    write("-server", server.pem());
    write("-key", key.serialize_pem());
}

/// A service that trusts one authority, and nobody else.
async fn trusting(authority: &Path, url: &str) -> Rollcall {
    let variables = vec![
        ("NATS_URL".to_owned(), url.to_owned()),
        ("SSL_CERT_FILE".to_owned(), authority.display().to_string()),
        ("SSL_CERT_DIR".to_owned(), String::new()),
    ];
    let setup = Setup { variables, ..Setup::default() };
    tokio::task::spawn_blocking(|| Rollcall::start(setup)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_to_a_nats_server_over_tls_where_its_certificate_is_trusted_and_only_there() {
    let place = data_directory();
    let file = |name: &str| place.path().join(name);
    authority(place.path(), "trusted");
    authority(place.path(), "stranger");
    let (port, store) = (free_port(), file("store"));
    let (certificate, key) = (file("trusted-server.pem"), file("trusted-key.pem"));
    let arguments = ["--tls", "--tlscert", certificate.to_str().unwrap(), "--tlskey", key.to_str().unwrap()];
    let _nats = NatsServer::start_with(port, Some(&store), &arguments);
    let url = format!("tls://127.0.0.1:{port}");

    let wary = trusting(&file("stranger.pem"), &url).await;
    wary.client("default").create("wary@example.com").await.expect(201);
    readiness(&wary.client("default"), "degraded").await;

    let rollcall = trusting(&file("trusted.pem"), &url).await;
    let client = rollcall.client("default");
    let id = client.create("ada@example.com").await.expect(201).id();
    readiness(&client, "ready").await;

    // As the binary does: which one the library would find by itself depends on what else was built with it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let options = ConnectOptions::new().add_root_certificates(file("trusted.pem")).require_tls(true);
    let stream = jetstream::new(options.connect(&url).await.unwrap()).get_stream("ROLLCALL").await.unwrap();
    let message = eventually("the event", async || stream.get_raw_message(1).await.ok()).await;
    assert!(String::from_utf8_lossy(&message.payload).contains(&id), "{message:?}");
    readiness(&wary.client("default"), "degraded").await;
    assert_eq!(stream.get_info().await.unwrap().state.messages, 1);
}
