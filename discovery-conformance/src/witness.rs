//! For how long did the machine not let the run go on?

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(20);

/// A thread that does nothing but to wait for short times, and knows by how much the latest of them was late. Whatever
/// kept it waiting kept owners and watchers waiting, too: who judges a violation can tell from it a machine that stood
/// still from a backend that did.
pub(crate) struct Witness {
    stop: Sender<()>,
    thread: JoinHandle<Duration>,
}

impl Witness {
    /// `None` where the machine gives no thread.
    pub(crate) fn start() -> Option<Self> {
        let (stop, stopped) = channel();
        let watch = move || {
            let mut latest = Duration::ZERO;
            loop {
                let began = Instant::now();
                match stopped.recv_timeout(EVERY) {
                    Err(RecvTimeoutError::Timeout) => latest = latest.max(began.elapsed().saturating_sub(EVERY)),
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return latest,
                }
            }
        };
        let thread = Builder::new().name("witness".to_owned()).spawn(watch).ok()?;
        Some(Self { stop, thread })
    }

    /// The longest time for which nothing ran.
    pub(crate) fn end(self) -> Duration {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}
