//! When requests are due: at a fixed rate, whatever became of those before.
//!
//! A timer of the kernel rings for each, since the runtime's own is a millisecond coarse.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::io::unix::AsyncFd;

pub struct Schedule {
    timer: AsyncFd<OwnedFd>,
    begun: Instant,
    interval_ns: u64,
    given: u64,
    total: u64,
}

impl Schedule {
    /// Begins now. Needs a runtime.
    pub fn begin(rate: f64, during: Duration) -> Self {
        let interval = Duration::from_secs_f64(1.0 / rate);
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)
                .expect("a timer");
        let begun = Instant::now();
        // Its first ring comes after `begun`, so each comes after its request is due, and none is missed.
        timer
            .set(Expiration::Interval(TimeSpec::from_duration(interval)), TimerSetTimeFlags::empty())
            .expect("an interval");
        let interval_ns = u64::try_from(interval.as_nanos()).expect("less than centuries");
        let total = u64::try_from(during.as_nanos()).expect("less than centuries") / interval_ns.max(1);
        #[expect(unsafe_code, reason = "a timer of the kernel is watched by its descriptor")]
        // SAFETY: the descriptor is owned by the `AsyncFd`, and always tells the same one.
        let timer = unsafe { AsyncFd::register(OwnedFd::from(timer)) }.expect("a timer can be watched");
        Self { timer, begun, interval_ns, given: 0, total }
    }

    /// Waits until the next request is due, and tells since when it is; none after the last one.
    pub async fn next(&mut self) -> Option<Instant> {
        if self.given == self.total {
            return None;
        }
        let due = self.begun + Duration::from_nanos(self.interval_ns * self.given);
        while Instant::now() < due {
            let mut ready = self.timer.readable().await.expect("a timer can be watched");
            // How often it rang is of no matter: the clock says what is due.
            let _ = nix::unistd::read(self.timer.get_ref(), &mut [0; 8]);
            ready.clear_ready();
        }
        self.given += 1;
        Some(due)
    }
}
