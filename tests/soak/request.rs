//! Commands as a client remembers them: what it asked for and what it was told.
//!
//! Every command bears a reason of its own, by which its events are found again.

use std::time::Duration;

use serde_json::{Value, json};

use crate::rollcall::{Answer, Client};

pub const TENANT: &str = "acme";
/// A client that has waited that long does not know what became of its command.
const ANSWER_WITHIN: Duration = Duration::from_secs(6);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    Create {
        email: String,
    },
    /// Changes the name and a trait: two events, which are stored together.
    Update,
    ChangeEmail {
        email: String,
    },
}

/// What a command answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub status: u64,
    pub id: String,
    pub version: u64,
}

/// What a client knows of a command.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub done: Option<Done>,
    /// An answer to one of its sendings never came, or said that nobody knows: unless it is done, it may have happened.
    pub uncertain: bool,
}

#[derive(Clone, Debug)]
pub struct Command {
    /// Its reason.
    pub marker: String,
    pub wish: Wish,
    /// The user, unless it creates one.
    pub user: Option<String>,
    pub if_match: Option<u64>,
    pub known: Known,
}

/// One request: a command by its own route, or several in a batch.
#[derive(Clone, Debug)]
pub struct Request {
    pub commands: Vec<Command>,
    pub batch: bool,
    pub key: Option<String>,
}

/// What became of one sending.
pub struct Sent {
    pub token: Option<String>,
    /// Every command was done or refused.
    pub heard: bool,
}

/// What one sending said of one command.
enum Verdict {
    Done(Done),
    /// With the problem's code. Nothing happened.
    Refused(String),
    /// Nobody looked at it, and nothing happened.
    NotNow,
    Unknown,
}

impl Command {
    fn data(&self) -> Value {
        let name = format!("Name {}", self.marker);
        match &self.wish {
            Wish::Create { email } => json!({"email": email, "given_name": name, "reason": self.marker}),
            Wish::Update => {
                json!({"given_name": name, "traits": {"marker": self.marker}, "reason": self.marker})
            }
            Wish::ChangeEmail { email } => json!({"email": email, "reason": self.marker}),
        }
    }

    fn item(&self) -> Value {
        let kind = match &self.wish {
            Wish::Create { .. } => "CreateUser",
            Wish::Update => "UpdateUser",
            Wish::ChangeEmail { .. } => "ChangeEmail",
        };
        let mut item = json!({"type": kind, "data": self.data()});
        if let Some(user) = &self.user {
            item["id"] = json!(user);
        }
        if let Some(version) = self.if_match {
            item["if_match"] = json!(version);
        }
        item
    }

    /// The method and path of its own route.
    fn route(&self) -> (reqwest::Method, String) {
        let user = self.user.as_deref().unwrap_or_default();
        match &self.wish {
            Wish::Create { .. } => (reqwest::Method::POST, "/api/v1/users".to_owned()),
            Wish::Update => (reqwest::Method::PATCH, format!("/api/v1/users/{user}")),
            Wish::ChangeEmail { .. } => (reqwest::Method::POST, format!("/api/v1/users/{user}/change-email")),
        }
    }

    /// Events that it makes where it happens; a change to the email that the user has makes none.
    pub fn events(&self) -> &'static [usize] {
        match &self.wish {
            Wish::Create { .. } => &[1],
            Wish::Update => &[2],
            Wish::ChangeEmail { .. } => &[0, 1],
        }
    }

    fn learn(&mut self, verdict: Verdict, keyed: bool) {
        match verdict {
            Verdict::Unknown => self.known.uncertain = true,
            Verdict::NotNow => {}
            Verdict::Done(done) => {
                if let Some(version) = self.if_match {
                    let most = *self.events().last().unwrap() as u64;
                    let made = version..=version + most;
                    assert!(
                        made.contains(&done.version),
                        "{self:?} was decided on another version: {done:?}"
                    );
                }
                let before = self.known.done.replace(done.clone());
                assert!(
                    before.is_none_or(|before| before == done),
                    "one key, two answers: {self:?} {done:?}"
                );
            }
            Verdict::Refused(code) => {
                let may_be = ["conflict", "email-taken", "precondition-failed"];
                assert!(may_be.contains(&code.as_str()), "{self:?} was refused: {code}");
                assert!(
                    !keyed || self.known.done.is_none(),
                    "what was done was refused later: {self:?} {code}"
                );
            }
        }
    }
}

impl Request {
    /// Sends it once and takes note of what was said.
    pub async fn send(&mut self, http: &reqwest::Client, url: &str) -> Sent {
        let (method, path, body) = if self.batch {
            let items: Vec<Value> = self.commands.iter().map(Command::item).collect();
            (reqwest::Method::POST, "/api/v1/commands".to_owned(), Value::Array(items))
        } else {
            let (method, path) = self.commands[0].route();
            (method, path, self.commands[0].data())
        };
        let mut request = http
            .request(method, format!("{url}{path}"))
            .timeout(ANSWER_WITHIN)
            .header("Tenant", TENANT)
            .json(&body);
        if let Some(key) = &self.key {
            request = request.header("Idempotency-Key", key);
        }
        if let (false, Some(version)) = (self.batch, self.commands[0].if_match) {
            request = request.header("If-Match", format!("\"{version}\""));
        }
        let answer = Client::send(request).await.ok();
        let verdicts = self.verdicts(answer.as_ref());
        let heard = verdicts.iter().all(|verdict| matches!(verdict, Verdict::Done(_) | Verdict::Refused(_)));
        for (command, verdict) in self.commands.iter_mut().zip(verdicts) {
            command.learn(verdict, self.key.is_some());
        }
        let token = answer.and_then(|answer| answer.header("consistency-token").map(str::to_owned));
        Sent { token, heard }
    }

    fn verdicts(&self, answer: Option<&Answer>) -> Vec<Verdict> {
        let Some(answer) = answer else { return self.commands.iter().map(|_| Verdict::Unknown).collect() };
        let said: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        match said["outcomes"].as_array() {
            Some(outcomes) => {
                assert_eq!(outcomes.len(), self.commands.len());
                let status = |outcome: &Value| outcome["status"].as_u64().unwrap();
                outcomes.iter().map(|said| verdict(status(said), said, &said["problem"])).collect()
            }
            None => self.commands.iter().map(|_| verdict(answer.status.into(), &said, &said)).collect(),
        }
    }

    /// Whether asking again would tell something.
    pub fn open(&self) -> bool {
        self.key.is_some()
            && self.commands.iter().any(|command| command.known.uncertain && command.known.done.is_none())
    }
}

fn verdict(status: u64, said: &Value, problem: &Value) -> Verdict {
    let code = problem["code"].as_str().unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or_default();
    match status {
        200 | 201 => Verdict::Done(Done {
            status,
            id: said["id"].as_str().unwrap().to_owned(),
            version: said["version"].as_u64().unwrap(),
        }),
        // It may have happened, unless it says that it has not.
        503 if code == "overloaded" || detail.contains("nothing was changed") => Verdict::NotNow,
        500 => panic!("the service says that it failed: {said}"),
        501.. => Verdict::Unknown,
        _ => Verdict::Refused(code.to_owned()),
    }
}
