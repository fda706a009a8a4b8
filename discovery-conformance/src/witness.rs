//! For how long did the machine not let the run go on?

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(20);

/// By how much a timer is late on a machine that has nothing else to do.
const STALL: Duration = Duration::from_millis(2);

/// How long the threads of this process have been kept waiting for a processor, all together, as the kernel counts it;
/// `None` where it does not. Of those that have ended nothing is known.
pub(crate) fn kept_waiting() -> Option<Duration> {
    let mut all = Duration::ZERO;
    for thread in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
        // One that ends meanwhile.
        let Ok(text) = std::fs::read_to_string(thread.path().join("schedstat")) else { continue };
        all += Duration::from_nanos(text.split_whitespace().nth(1)?.parse().ok()?);
    }
    Some(all)
}

/// A thread that does nothing but to wait for short times, and knows by how much the latest of them was late. Whatever
/// kept it waiting kept owners and watchers waiting, too: who judges a violation can tell from it a machine that stood
/// still from a backend that did.
pub(crate) struct Witness {
    stop: Sender<()>,
    thread: JoinHandle<Vec<Stall>>,
}

/// A time for which nothing ran.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    pub(crate) from: Instant,
    pub(crate) lasted: Duration,
}

/// The longest of them.
pub(crate) fn longest(stalls: &[Stall]) -> Duration {
    stalls.iter().map(|stall| stall.lasted).max().unwrap_or_default()
}

impl Witness {
    /// `None` where the machine gives no thread.
    pub(crate) fn start() -> Option<Self> {
        let (stop, stopped) = channel();
        let watch = move || {
            let mut stalls = Vec::new();
            loop {
                let began = Instant::now();
                match stopped.recv_timeout(EVERY) {
                    Err(RecvTimeoutError::Timeout) => {
                        let lasted = began.elapsed().saturating_sub(EVERY);
                        if lasted >= STALL {
                            stalls.push(Stall { from: began + EVERY, lasted });
                        }
                    }
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return stalls,
                }
            }
        };
        let thread = Builder::new().name("witness".to_owned()).spawn(watch).ok()?;
        Some(Self { stop, thread })
    }

    /// The times for which nothing ran, one after the other.
    pub(crate) fn end(self) -> Vec<Stall> {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More threads that compute than there are processors: some of them wait.
    #[test]
    fn who_has_no_processor_is_kept_waiting() {
        let before = kept_waiting().expect("a kernel that counts it");
        let threads = std::thread::available_parallelism().map_or(2, usize::from) * 4;
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let until = Instant::now() + Duration::from_secs(60);
            while kept_waiting() < Some(before + EVERY) && Instant::now() < until {
                std::thread::yield_now();
            }
            let waited = kept_waiting();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(waited >= Some(before + EVERY), "{waited:?} after {before:?}");
        });
    }
}
