//! Keys that are fetched.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use crate::{
    rollcall::{Client, Rollcall, Setup},
    service::{claims, variables},
    signer::{Signer, set},
};

/// Answers every request with this, until the program ends.
fn serve(json: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            let length = json.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{json}");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn keys_of_this_machine_are_fetched_without_a_proxy() {
    let (signer, of_proxy) = (Signer::ed25519("a"), Signer::ed25519("a"));
    let (issuer, proxy) = (serve(set(&[&signer]).to_string()), serve(set(&[&of_proxy]).to_string()));
    let mut variables = variables(format!("{issuer}/jwks.json").as_ref());
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        variables.push((name.to_owned(), proxy.clone()));
    }
    for name in ["NO_PROXY", "no_proxy"] {
        variables.push((name.to_owned(), String::new()));
    }
    let rollcall = Rollcall::start(Setup { variables, ..Setup::default() });
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for (signer, status) in [(&signer, 200), (&of_proxy, 401)] {
        let users = http.get(format!("{}/api/v1/users", rollcall.ready.http));
        let users = users.bearer_auth(signer.token(&claims("acme")));
        Client::send(users).await.unwrap().expect(status);
    }
}
