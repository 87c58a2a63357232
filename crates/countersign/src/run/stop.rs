//! When and how a process ends: the first signal asks, the deadline or a second signal forces.

use std::{io, time::Duration};

use net::Tasks;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end the process. Made before anything starts, so that none is missed.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Takes the signals over from the system's default, which is to end at once.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Lets `tasks` end by themselves until `deadline` or another signal. Says whether they all did.
    pub(crate) async fn drain(&mut self, tasks: &Tasks, deadline: Duration) -> bool {
        let draining = tasks.drain(deadline);
        tokio::pin!(draining);
        tokio::select! {
            drained = &mut draining => return drained,
            signal = self.next() => {
                tracing::warn!(signal, running = tasks.running(), "asked again to stop: ending what still runs");
                tasks.force_token().cancel();
            }
        }
        draining.await;
        false
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn the_first_signal_asks_and_the_second_ends_what_still_runs() {
        let mut signals = StopSignals::new().unwrap();
        let tasks = Tasks::new();
        let task = tasks.spawn("deaf", std::future::pending::<()>());
        kill_process(getpid(), Signal::TERM).unwrap();
        assert_eq!(signals.next().await, "SIGTERM");
        assert!(!task.is_finished());
        kill_process(getpid(), Signal::INT).unwrap();
        assert!(!signals.drain(&tasks, Duration::from_secs(3600)).await);
        assert!(task.join().await.is_err());
    }
}
