//! The roles as processes, each under a supervisor that starts it again when it has ended, and each with a proxy of its own
//! before PostgreSQL.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, ExitStatus},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    proxy::Proxy,
    rollcall::{self, PATIENCE, Ready, Setup, eventually},
    site::Site,
};

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the supervisor waits before it starts a process again.
const RESTART_AFTER: Duration = Duration::from_millis(200);

/// A role, whichever process plays it at the moment.
pub struct Role {
    /// Its subcommand and what it projects.
    pub name: String,
    pub proxy: Proxy,
    process: Arc<Process>,
}

struct Process {
    setup: Setup,
    ready_file: PathBuf,
    state: Mutex<State>,
    stopping: AtomicBool,
}

#[derive(Default)]
struct State {
    child: Option<Child>,
    /// Where it serves; none while it does not.
    url: Option<String>,
    /// We killed it.
    killed: bool,
    starts: usize,
    /// What ended although nobody killed it.
    failures: Vec<String>,
}

#[derive(Clone)]
pub struct Roles(Arc<Vec<Role>>);

impl Roles {
    /// Starts one process for each subcommand, and waits until all serve.
    pub async fn start(site: &Site, cast: &[&[&str]]) -> Self {
        let mut roles = Vec::new();
        for words in cast {
            let (proxy, database_url) = Proxy::before(site.owner_url()).await;
            let setup = site.setup(words, &[("DATABASE_URL", &database_url), ("ROLLCALL_LOG", "info")]);
            let ready_file = setup.directory.as_ref().unwrap().join("ready.json");
            let process =
                Process { setup, ready_file, state: Mutex::default(), stopping: AtomicBool::new(false) };
            let process = Arc::new(process);
            thread::spawn({
                let process = Arc::clone(&process);
                move || process.supervise()
            });
            roles.push(Role { name: format!("{} #{}", words.join(" "), roles.len()), proxy, process });
        }
        let roles = Self(Arc::new(roles));
        for role in roles.iter() {
            eventually(&role.name, async || role.url()).await;
        }
        roles
    }

    pub fn iter(&self) -> impl Iterator<Item = &Role> {
        self.0.iter()
    }

    pub fn get(&self, number: usize) -> &Role {
        &self.0[number]
    }

    /// Where the processes of a subcommand serve that do at the moment.
    pub fn urls(&self, subcommand: &str) -> Vec<String> {
        self.iter().filter(|role| role.name.starts_with(subcommand)).filter_map(Role::url).collect()
    }

    /// Processes that ended although nobody killed them, after they had begun to serve.
    pub fn failures(&self) -> Vec<String> {
        self.iter().flat_map(|role| role.process.state.lock().unwrap().failures.clone()).collect()
    }

    /// How often a process was started, the first times included.
    pub fn starts(&self) -> usize {
        self.iter().map(|role| role.process.state.lock().unwrap().starts).sum()
    }

    /// Ends all of them.
    pub fn stop(&self) {
        self.iter().for_each(|role| role.process.stop());
    }
}

impl Role {
    pub fn url(&self) -> Option<String> {
        self.process.state.lock().unwrap().url.clone()
    }

    /// kill -9; the supervisor starts another process.
    pub fn kill(&self) {
        let mut state = self.process.state.lock().unwrap();
        state.killed = true;
        state.url = None;
        state.send(Signal::SIGKILL);
    }

    /// To the process that runs at the moment, if one does.
    pub fn send(&self, signal: Signal) {
        self.process.state.lock().unwrap().send(signal);
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.process.stop();
    }
}

impl State {
    /// The child is waited for under the same lock, so its number is its own.
    fn send(&self, signal: Signal) {
        if let Some(child) = &self.child {
            kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        }
    }
}

impl Process {
    fn supervise(&self) {
        while !self.stopping.load(Ordering::Acquire) {
            let _ = fs::remove_file(&self.ready_file);
            {
                let mut state = self.state.lock().unwrap();
                let command = rollcall::command(self.setup.directory.as_ref().unwrap(), &self.setup);
                state.child = Some(rollcall::spawn(command));
                state.killed = false;
                state.starts += 1;
            }
            while !self.has_ended() {
                thread::sleep(LOOK_EVERY);
            }
            thread::sleep(RESTART_AFTER);
        }
    }

    /// Looks how the process is.
    fn has_ended(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        if state.url.is_none() && !state.killed {
            let text = fs::read_to_string(&self.ready_file).unwrap_or_default();
            state.url = serde_json::from_str(&text).ok().map(|ready: Ready| ready.http);
        }
        let Some(status) = state.child.as_mut().unwrap().try_wait().unwrap() else { return false };
        state.child = None;
        let served = state.url.take().is_some();
        if !self.stopping.load(Ordering::Acquire) && !expected(status, state.killed, served) {
            let name = self.setup.role.join(" ");
            state.failures.push(format!("{name} ended ({status}), served: {served}: {}", self.last_words()));
        }
        true
    }

    fn last_words(&self) -> String {
        let said = fs::read_to_string(self.setup.directory.as_ref().unwrap().join("stderr.log"));
        let said = said.unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let mut state = self.state.lock().unwrap();
        if let Some(mut child) = state.child.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
            // For the supervisor's last look.
            state.child = Some(child);
        }
    }
}

/// A process may be killed by us, and may give up where it cannot reach the database at its start; nothing else.
fn expected(status: ExitStatus, killed: bool, served: bool) -> bool {
    (killed && status.signal() == Some(9)) || (!served && status.code() == Some(1))
}

/// Waits until every role serves and says that it is ready.
pub async fn all_ready(roles: &Roles, http: &reqwest::Client) {
    for role in roles.iter() {
        eventually(&format!("the readiness of {}", role.name), async || {
            let url = role.url()?;
            let request = http.get(format!("{url}/readyz")).timeout(PATIENCE / 10);
            let answer = rollcall::Client::send(request).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }
}
