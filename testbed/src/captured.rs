//! What the code under test logs, for the test to read.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::subscriber::{DefaultGuard, NoSubscriber, set_default};
use tracing::{Dispatch, Level};

/// What is logged on this thread for as long as this is kept: of a test whose code runs on its own thread, all of it.
#[derive(Debug)]
pub struct CapturedLog {
    written: Written,
    // Dropped in this order.
    _capturing: DefaultGuard,
    _beside: Dispatch,
}

impl CapturedLog {
    /// Captures what is logged from now on, down to `level`.
    pub fn of_this_thread(level: Level) -> Self {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(level).with_ansi(false);
        let capturing = set_default(subscriber.with_writer(move || writer.clone()).finish());
        // Beside a single subscriber, what another test's thread, which has none, comes by first counts as wanted by nobody.
        Self { written, _capturing: capturing, _beside: Dispatch::new(NoSubscriber::new()) }
    }

    /// Everything that is not [`CapturedLog::taken`] yet.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock()).into_owned()
    }

    /// What was logged since the last time.
    pub fn taken(&self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut *self.written.lock())).into_owned()
    }
}

#[derive(Clone, Debug, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for Written {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.lock().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
