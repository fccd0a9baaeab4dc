//! Runs the real binary with private servers, and talks to it.
//!
//! `Rollcall::shared()` is one instance for all tests of a test program that do no harm to it, each with a tenant of its
//! own; `Rollcall::start(…)` is one for a test that kills it.

use std::{
    fs,
    io::Read,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// How long a start, a stop or anything else that a test waits for may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the ready file says; only `up` tells of its servers.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Ready {
    pub http: String,
    #[serde(default)]
    pub postgres: String,
    #[serde(default)]
    pub nats: String,
}

/// A running process: `rollcall up`, or of another role. It is killed when it is dropped, and when the test program ends in whatever way.
pub struct Rollcall {
    child: Child,
    directory: PathBuf,
    pub ready: Ready,
    /// Removes the data directory at the end; none where the test owns it.
    _owned: Option<tempfile::TempDir>,
}

/// How to start one.
#[derive(Clone, Default)]
pub struct Setup {
    /// The subcommand and what belongs to it; `up` where it is empty.
    pub role: Vec<String>,
    pub directory: Option<PathBuf>,
    pub arguments: Vec<String>,
    pub variables: Vec<(String, String)>,
}

/// A directory that the servers' account can reach, for data.
pub fn data_directory() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    directory
}

/// The command, not started: output goes to files in the directory.
pub fn command(directory: &Path, setup: &Setup) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    let open = |name| fs::OpenOptions::new().create(true).append(true).open(directory.join(name)).unwrap();
    match setup.role.as_slice() {
        [] => command.arg("up").arg("--data-dir").arg(directory.join("data")),
        role => command.args(role),
    };
    if !setup.arguments.iter().any(|argument| argument == "--http") {
        command.args(["--http", "127.0.0.1:0"]);
    }
    command
        .arg("--ready-file")
        .arg(directory.join("ready.json"))
        .args(&setup.arguments)
        .env_remove("DATABASE_URL")
        .env_remove("NATS_URL")
        .env_remove("ROLLCALL_MASTER_KEY_FILE")
        .env("ROLLCALL_LOG", "debug,hyper=info,h2=info")
        .envs(setup.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())))
        .stdin(Stdio::null())
        .stdout(open("stdout.log"))
        .stderr(open("stderr.log"));
    command
}

/// Spawns from a thread that lives as long as the program: a parent-death signal comes when the *thread* ends.
pub fn spawn(mut command: Command) -> Child {
    type Job = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, received) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in received {
                reply.send(command.spawn()).unwrap();
            }
        });
        jobs
    });
    #[expect(unsafe_code, reason = "prctl between fork and exec is the only way to die with the parent")]
    // SAFETY: prctl is async-signal-safe and touches nothing of the parent's.
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        });
    }
    let (reply, answer) = mpsc::channel();
    spawner.send((command, reply)).unwrap();
    answer.recv().unwrap().unwrap()
}

/// Removes a directory when the program has ended in whatever way: what a static holds is never dropped.
pub fn remove_at_the_end(directory: &Path) {
    static REMOVERS: Mutex<Vec<Child>> = Mutex::new(Vec::new());
    // The end of its input is the end of the program. The servers may still be dying, so it tries for a while.
    let script = r#"read -r _; for _ in $(seq 50); do rm -rf "$1" && exit; sleep 0.1; done"#;
    let remover = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(directory)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    REMOVERS.lock().unwrap().push(remover.unwrap());
}

impl Rollcall {
    /// One for all tests of the program.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Rollcall> = OnceLock::new();
        SHARED.get_or_init(|| {
            let shared = Self::start(Setup::default());
            remove_at_the_end(shared.directory());
            shared
        })
    }

    /// Starts and waits until everything serves. Panics with what it said where it does not.
    pub fn start(setup: Setup) -> Self {
        let owned = setup.directory.is_none().then(data_directory);
        let directory = setup.directory.clone().unwrap_or_else(|| owned.as_ref().unwrap().path().to_owned());
        let ready_file = directory.join("ready.json");
        let _ = fs::remove_file(&ready_file);
        let mut child = spawn(command(&directory, &setup));
        let deadline = Instant::now() + PATIENCE;
        let ready = loop {
            if let Ok(text) = fs::read_to_string(&ready_file) {
                break serde_json::from_str(&text).unwrap();
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("rollcall ended ({status}): {}", read(&directory.join("stderr.log")));
            }
            assert!(
                Instant::now() < deadline,
                "rollcall is not ready: {}",
                read(&directory.join("stderr.log"))
            );
            thread::sleep(Duration::from_millis(20));
        };
        Self { child, directory, ready, _owned: owned }
    }

    /// Starts where a refusal is expected; the exit status and what it said.
    pub fn refused(setup: &Setup, directory: &Path) -> (ExitStatus, String) {
        Self::ended(command(directory, setup))
    }

    /// Runs to its end; the exit status and what it said on stderr.
    pub fn ended(mut command: Command) -> (ExitStatus, String) {
        command.stderr(Stdio::piped());
        let mut child = spawn(command);
        let mut pipe = child.stderr.take().unwrap();
        let reader = thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).unwrap();
            text
        });
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                break child.wait().unwrap();
            }
            thread::sleep(Duration::from_millis(20));
        };
        (status, reader.join().unwrap())
    }

    /// Where data, ready file and output are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it logged.
    pub fn logged(&self) -> String {
        read(&self.directory.join("stderr.log"))
    }

    /// kill -9, and nothing else.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9));
    }

    /// Waits until it has ended by itself or by somebody's signal.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// SIGTERM, and how it ended and how long that took.
    pub fn stop(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        (self.child.wait().unwrap(), begun.elapsed())
    }

    /// A client of a tenant.
    pub fn client(&self, tenant: &str) -> Client {
        Client::new(&self.ready.http, tenant)
    }

    /// A client of a tenant that no other test has.
    pub fn new_tenant(&self) -> Client {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.client(&format!("tenant-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for Rollcall {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Speaks JSON for a tenant.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    pub tenant: String,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {} {}", self.status, self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn token(&self) -> &str {
        self.header("consistency-token").expect("an answer with a consistency token")
    }

    pub fn id(&self) -> String {
        self.json()["id"].as_str().expect("an answer with an id").to_owned()
    }

    /// The code of a problem document; panics where the answer is none.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        problem["code"].as_str().unwrap().to_owned()
    }

    /// Panics with the whole answer where the status is another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

impl Client {
    pub fn new(base: &str, tenant: &str) -> Self {
        Self { http: reqwest::Client::new(), base: base.to_owned(), tenant: tenant.to_owned() }
    }

    /// A request to a path such as `/api/v1/users`, with the tenant's header.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        self.http.request(method, format!("{}{path}", self.base)).header("Tenant", &self.tenant)
    }

    pub async fn send(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, text: response.text().await? })
    }

    /// With headers and a JSON body.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let mut request = self.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Self::send(request).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], None).await
    }

    /// A query that must see what the token saw.
    pub async fn get_after(&self, path: &str, token: &str) -> Answer {
        self.call("GET", path, &[("Consistency-Token", token)], None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, &[], Some(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call("PATCH", path, &[], Some(&body)).await
    }

    /// Creates a user of that email, named Ada.
    pub async fn create(&self, email: &str) -> Answer {
        self.post("/api/v1/users", serde_json::json!({"email": email, "given_name": "Ada"})).await
    }
}

/// Tries until there is a value, for what happens in its own time. Panics after [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
