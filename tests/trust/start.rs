//! Starts that are refused, in one line that names the key.

use crate::{
    rollcall::{Rollcall, Setup, data_directory},
    service::{variables, write_keys},
    signer::Signer,
};

fn refused(variables: Vec<(String, String)>, arguments: &[&str]) -> String {
    let directory = data_directory();
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let setup = Setup { variables, arguments, ..Setup::default() };
    let (status, text) = Rollcall::refused(&setup, directory.path());
    assert_eq!(status.code(), Some(1), "{text}");
    text
}

#[test]
fn a_file_of_keys_that_cannot_be_used_is_refused_by_its_keys_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    let text = refused(variables(&path), &[]);
    assert!(text.contains("auth.jwks") && text.contains("jwks.json cannot be read"), "{text}");
    for (content, words) in [
        ("<html>", "it is not a JSON object with an array `keys`"),
        (r#"{"keys":[]}"#, "it holds no key that can be used"),
        (r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#, "it holds a symmetric key"),
    ] {
        std::fs::write(&path, content).unwrap();
        let text = refused(variables(&path), &[]);
        assert!(text.contains("auth.jwks") && text.contains(words), "{text}");
    }
}

#[test]
fn keys_over_an_open_line_are_refused() {
    let mut variables = variables("http://id.example/jwks.json".as_ref());
    let text = refused(variables.clone(), &[]);
    assert!(text.contains("auth.jwks") && text.contains("https"), "{text}");
    variables.retain(|(name, _)| name != "ROLLCALL_AUTH_AUDIENCE");
    let text = refused(variables, &[]);
    assert!(text.contains("auth.audience"), "{text}");
}

#[test]
fn without_authentication_only_this_machine_is_listened_to() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let text = refused(Vec::new(), &["--http", address]);
        assert!(text.contains("auth.mode") && text.contains("loopback"), "{text}");
    }
}

#[test]
fn with_tokens_others_may_ask_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    write_keys(&path, &[&Signer::ed25519("a")]);
    let arguments = ["--http", "0.0.0.0:0"].map(str::to_owned).to_vec();
    let rollcall = Rollcall::start(Setup { variables: variables(&path), arguments, ..Setup::default() });
    assert!(rollcall.ready.http.starts_with("http://0.0.0.0:"), "{}", rollcall.ready.http);
}
