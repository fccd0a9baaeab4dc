//! Starts processes that end when this one does, even when it is killed.
//!
//! Linux signals a child when the *thread* that made it ends, so children come from one thread that lives as long as the
//! process (prctl(2), PR_SET_PDEATHSIG).

use std::{
    io,
    path::Path,
    sync::{LazyLock, mpsc},
    thread,
};

use nix::{
    errno::Errno,
    sys::{prctl, signal::Signal},
    unistd,
};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

use crate::account::Account;

struct Request {
    command: Command,
    runtime: Handle,
    answer: oneshot::Sender<io::Result<Child>>,
}

static SPAWNER: LazyLock<mpsc::Sender<Request>> = LazyLock::new(|| {
    let (requests, inbox) = mpsc::channel::<Request>();
    thread::spawn(move || {
        for Request { mut command, runtime, answer } in inbox {
            let _entered = runtime.enter();
            if let Err(Ok(mut unwanted)) = answer.send(command.spawn()) {
                // Whoever asked has gone; it has not done anything yet.
                let _ = unwanted.start_kill();
            }
        }
    });
    requests
});

/// A command that runs `program` as `account`, with none of our environment (PGDATA, PGPORT and their like would
/// change what PostgreSQL does), out of reach of the terminal's Ctrl-C, and is sent `death_signal` when we end.
pub fn command(program: &Path, account: &Account, death_signal: Signal) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").current_dir("/");
    if account.is_other {
        // The standard library drops our supplementary groups along with our uid.
        command.gid(account.gid.as_raw()).uid(account.uid.as_raw());
    }
    let parent = unistd::getpid();
    let before_exec = move || {
        unistd::setsid()?;
        // After the change of the uid, which clears it: the standard library runs this last.
        prctl::set_pdeathsig(death_signal)?;
        // We may have ended before the line above: then nothing will signal the child any more.
        if unistd::getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    #[expect(
        unsafe_code,
        reason = "the closure makes four system calls and allocates nothing, as pre_exec demands"
    )]
    unsafe {
        command.pre_exec(before_exec);
    }
    command
}

pub async fn spawn(command: Command) -> io::Result<Child> {
    let (answer, answered) = oneshot::channel();
    let request = Request { command, runtime: Handle::current(), answer };
    SPAWNER.send(request).map_err(|_| io::Error::other("the thread that starts processes has ended"))?;
    answered.await.map_err(io::Error::other)?
}
