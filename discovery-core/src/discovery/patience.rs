//! How long is a temporary failure waited out?

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;
use crate::deadline::later;
use crate::error::Error;

/// Until an operation's time is over. The caller is then told what failed, and not only that time has passed.
pub(crate) struct Patience {
    until: Instant,
    backoff: Backoff,
}

impl Patience {
    pub(super) fn new(backoff: Backoff, limit: Duration) -> Self {
        Self { until: later(Instant::now(), limit), backoff }
    }

    /// Waits until it is time for another try.
    ///
    /// # Errors
    /// The failure itself, where trying again cannot help or comes too late.
    pub(crate) async fn wait_out(&mut self, error: Error) -> Result<(), Error> {
        let delay = self.backoff.next();
        if !error.is_temporary() || Instant::now() + delay >= self.until {
            return Err(error);
        }
        sleep(delay).await;
        Ok(())
    }
}
