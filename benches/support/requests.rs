//! Requests that are built once: what differs from one to the next is written into holes of them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use uuid::Uuid;

/// Stands for a number in a text, as many digits as the number gets.
const NUMBER: &str = "################";
/// Stands for the id of a user, as long as one.
const ID: &str = "************************************";

/// Commands that a batch may hold, and ids that batch-get takes.
pub const BATCH_MAX: usize = 1_000;

/// Numbers of users and of names, each used once in a run.
static NEXT: AtomicU64 = AtomicU64::new(1);

fn next() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What a connection sends, one after the other.
pub trait Requests: Send + 'static {
    fn next(&mut self) -> &[u8];
}

struct Template {
    bytes: Vec<u8>,
    numbers: Vec<usize>,
    ids: Vec<usize>,
}

impl Template {
    fn new(text: String) -> Self {
        let places = |mark: &str| text.match_indices(mark).map(|(place, _)| place).collect();
        Self { numbers: places(NUMBER), ids: places(ID), bytes: text.into_bytes() }
    }

    /// With a body in JSON.
    fn with_body(line: &str, headers: &str, body: &str) -> Self {
        Self::new(format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    fn fill_number(&mut self, place: usize, mut number: u64) {
        for digit in self.bytes[place..place + NUMBER.len()].iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).expect("one digit");
            number /= 10;
        }
    }

    fn fill_numbers(&mut self, number: u64) {
        for hole in 0..self.numbers.len() {
            self.fill_number(self.numbers[hole], number);
        }
    }

    fn fill_ids(&mut self, id: Uuid) {
        for place in &self.ids {
            id.hyphenated().encode_lower(&mut self.bytes[*place..*place + ID.len()]);
        }
    }
}

/// The members of the documentation's example.
fn user() -> String {
    format!(
        "{{\"email\":\"user.{NUMBER}@example.com\",\"given_name\":\"Ada\",\"family_name\":\"Lovelace\",\
         \"phone\":\"+4930123456\",\"locale\":\"en-GB\",\"time_zone\":\"Europe/London\",\"kind\":\"customer\",\
         \"traits\":{{\"department\":\"R&D\",\"seats\":3}},\
         \"associations\":[{{\"kind\":\"membership\",\"key\":\"gold\"}}],\
         \"preferences\":{{\"email\":{{\"newsletter\":true}}}}}}"
    )
}

/// Creates users, each of its own; every second one with a key, as careful clients send it.
pub struct Creates {
    plain: Template,
    keyed: Template,
}

impl Creates {
    pub fn new() -> Self {
        Self::by("")
    }

    /// With a header line that says who calls.
    pub fn by(who: &str) -> Self {
        let (line, body) = ("POST /api/v1/users", user());
        let key = format!("{who}Idempotency-Key: bench-{NUMBER}\r\n");
        Self { plain: Template::with_body(line, who, &body), keyed: Template::with_body(line, &key, &body) }
    }
}

impl Requests for Creates {
    fn next(&mut self) -> &[u8] {
        let number = next();
        let template = if number.is_multiple_of(2) { &mut self.keyed } else { &mut self.plain };
        template.fill_numbers(number);
        &template.bytes
    }
}

/// Batches of as many creates as there may be.
pub struct Batches(Template);

impl Batches {
    pub fn new() -> Self {
        let command = format!("{{\"type\":\"CreateUser\",\"data\":{}}}", user());
        let body = format!("[{}]", vec![command; BATCH_MAX].join(","));
        Self(Template::with_body("POST /api/v1/commands", "", &body))
    }
}

impl Requests for Batches {
    fn next(&mut self) -> &[u8] {
        for hole in 0..self.0.numbers.len() {
            self.0.fill_number(self.0.numbers[hole], next());
        }
        &self.0.bytes
    }
}

/// One batch that gives each of the users another name; of as many as a batch may hold.
pub fn rename_all(ids: &[Uuid]) -> Vec<u8> {
    let rename = |id: &Uuid| {
        format!("{{\"type\":\"UpdateUser\",\"id\":\"{id}\",\"data\":{{\"given_name\":\"Ada {}\"}}}}", next())
    };
    let body = format!("[{}]", ids.iter().map(rename).collect::<Vec<_>>().join(","));
    Template::with_body("POST /api/v1/commands", "", &body).bytes
}

/// Whom a request is about.
#[derive(Clone)]
pub enum Pick {
    /// All who send take turns among the users.
    InTurn(Arc<AtomicUsize>),
    /// Any of them, with a state for who sends.
    AtRandom(u64),
}

impl Pick {
    pub fn in_turn() -> Self {
        Self::InTurn(Arc::default())
    }

    /// Another sequence for each seed.
    pub fn at_random(seed: usize) -> Self {
        Self::AtRandom((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Below `count`.
    pub fn next(&mut self, count: usize) -> usize {
        match self {
            Self::InTurn(turn) => turn.fetch_add(1, Ordering::Relaxed) % count,
            Self::AtRandom(state) => {
                // Marsaglia's xorshift; its bias among so few is of no matter.
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                usize::try_from(*state >> 16).expect("64 bits") % count
            }
        }
    }
}

/// Reads users.
pub struct Gets {
    template: Template,
    ids: Arc<Vec<Uuid>>,
    pick: Pick,
}

impl Gets {
    pub fn new(ids: &Arc<Vec<Uuid>>, pick: Pick) -> Self {
        Self::with("", ids, pick)
    }

    /// With header lines.
    pub fn with(headers: &str, ids: &Arc<Vec<Uuid>>, pick: Pick) -> Self {
        let text = format!("GET /api/v1/users/{ID} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        Self { template: Template::new(text), ids: Arc::clone(ids), pick }
    }
}

impl Requests for Gets {
    fn next(&mut self) -> &[u8] {
        self.template.fill_ids(self.ids[self.pick.next(self.ids.len())]);
        &self.template.bytes
    }
}

/// Gives users another name each time.
pub struct Renames {
    template: Template,
    ids: Arc<Vec<Uuid>>,
    pick: Pick,
}

impl Renames {
    pub fn new(ids: &Arc<Vec<Uuid>>, pick: Pick) -> Self {
        let body = format!("{{\"given_name\":\"Ada {NUMBER}\"}}");
        let template = Template::with_body(&format!("PATCH /api/v1/users/{ID}"), "", &body);
        Self { template, ids: Arc::clone(ids), pick }
    }
}

impl Requests for Renames {
    fn next(&mut self) -> &[u8] {
        self.template.fill_ids(self.ids[self.pick.next(self.ids.len())]);
        self.template.fill_numbers(next());
        &self.template.bytes
    }
}

/// Reads as many users at once as may be read, any of them.
pub struct BatchGets {
    template: Template,
    ids: Arc<Vec<Uuid>>,
    pick: Pick,
}

impl BatchGets {
    pub fn new(ids: &Arc<Vec<Uuid>>, pick: Pick) -> Self {
        let ids_in = vec![format!("\"{ID}\""); BATCH_MAX.min(ids.len())].join(",");
        let body = format!("{{\"ids\":[{ids_in}]}}");
        let template = Template::with_body("POST /api/v1/users/batch-get", "", &body);
        Self { template, ids: Arc::clone(ids), pick }
    }
}

impl Requests for BatchGets {
    fn next(&mut self) -> &[u8] {
        // Neighbours a prime apart, from a place picked anew: no id stands twice.
        const APART: usize = 7_919;
        let (count, first) = (self.ids.len(), self.pick.next(self.ids.len()));
        for (index, place) in self.template.ids.iter().enumerate() {
            let id = self.ids[(first + index * APART) % count];
            id.hyphenated().encode_lower(&mut self.template.bytes[*place..*place + ID.len()]);
        }
        &self.template.bytes
    }
}

/// A read of a path that must see what the token saw.
pub fn get_after(path: &str, token: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConsistency-Token: {token}\r\n\r\n").into_bytes()
}
