//! The instance that tests share, and what its issuers sign.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use rollcall_edge::principal::Scope;
use serde_json::{Value, json};

use crate::{
    rollcall::{Answer, Client, Rollcall, Setup, data_directory, remove_at_the_end},
    signer::{Signer, set},
};

pub const AUDIENCE: &str = "https://rollcall.example";
/// Speaks for every tenant.
pub const ISSUER: &str = "https://id.example";
/// Speaks for the tenant `globex` alone.
pub const OF_GLOBEX: &str = "https://id.globex.example";
/// Speaks for every tenant, with keys that a test exchanges.
pub const ROTATING: &str = "https://rotating.example";
/// A tenant that may send 1 request a second and 5 at once.
pub const HASTY: &str = "hasty";
/// Tenants that may send 1 request a second and 20 at once.
pub const BULKY: [&str; 2] = ["bulky-0", "bulky-1"];

pub struct Service {
    rollcall: Rollcall,
    http: reqwest::Client,
    pub signer: Signer,
    pub of_globex: Signer,
    pub rotating: Signer,
}

impl Service {
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Service> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        let (signer, of_globex, rotating) =
            (Signer::ed25519("main"), Signer::es256("globex"), Signer::rs256("first"));
        let directory = data_directory().keep();
        remove_at_the_end(&directory);
        write_keys(&directory.join("main.json"), &[&signer]);
        write_keys(&directory.join("globex.json"), &[&of_globex]);
        write_keys(&directory.join("rotating.json"), &[&rotating]);
        let issuer = |issuer: &str, file: &str, tenants: &str| {
            let jwks = directory.join(file).display().to_string();
            format!(r#"{{issuer="{issuer}", audience="{AUDIENCE}", jwks="{jwks}", tenants={tenants}}}"#)
        };
        let issuers =
            [issuer(OF_GLOBEX, "globex.json", r#"["globex"]"#), issuer(ROTATING, "rotating.json", "[]")];
        let mut variables = variables(&directory.join("main.json"));
        variables.push(("ROLLCALL_AUTH_ISSUERS".to_owned(), format!("[{}]", issuers.join(","))));
        let limits = [(HASTY, 5), (BULKY[0], 20), (BULKY[1], 20)]
            .map(|(tenant, burst)| format!(r#"{{tenant="{tenant}", requests_per_second=1, burst={burst}}}"#));
        variables.push(("ROLLCALL_LIMITS_TENANTS".to_owned(), format!("[{}]", limits.join(","))));
        let rollcall = Rollcall::start(Setup { directory: Some(directory), variables, ..Setup::default() });
        Self { rollcall, http: reqwest::Client::new(), signer, of_globex, rotating }
    }

    /// Where the keys are that a test exchanges.
    pub fn rotating_keys(&self) -> PathBuf {
        self.rollcall.directory().join("rotating.json")
    }

    pub fn address(&self) -> &str {
        self.rollcall.ready.http.strip_prefix("http://").unwrap()
    }

    /// A request with these headers and no others.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.rollcall.ready.http));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Client::send(request).await.unwrap()
    }

    pub async fn ask_with(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.ask(method, path, &[("Authorization", &format!("Bearer {token}"))], body).await
    }

    /// A token with every scope.
    pub fn token(&self, tenant: &str) -> String {
        self.signer.token(&claims(tenant))
    }
}

/// Written beside and renamed, as a deployment does it.
pub fn write_keys(path: &Path, signers: &[&Signer]) {
    let unfinished = path.with_extension("new");
    std::fs::write(&unfinished, set(signers).to_string()).unwrap();
    std::fs::rename(&unfinished, path).unwrap();
}

/// The variables of jwt mode with one issuer.
pub fn variables(jwks: &Path) -> Vec<(String, String)> {
    let jwks = jwks.display().to_string();
    [("MODE", "jwt"), ("ISSUER", ISSUER), ("AUDIENCE", AUDIENCE), ("JWKS", &jwks)]
        .map(|(name, value)| (format!("ROLLCALL_AUTH_{name}"), value.to_owned()))
        .to_vec()
}

/// Of a good token with every scope.
pub fn claims(tenant: &str) -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "exp": now() + 3600, "tenant": tenant, "sub": "svc:test",
        "scope": scopes(Scope::ALL.iter().map(|scope| scope.as_str())),
    })
}

pub fn claims_with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims("acme");
    claims[name] = value.into();
    claims
}

pub fn scopes<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(" ")
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
