//! How long a server that takes no token, and does not say whether it is only starting, may be one that starts.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use discovery_core::Error;
use tokio::time::Instant;

use crate::fault::{is_unrecognised, may_be_starting};

/// How long an API server takes to start, generously: to read all pods is what takes long.
pub(crate) const START: Duration = Duration::from_secs(60);

/// Since when nothing else was heard.
#[derive(Debug, Default)]
pub(crate) struct Unrecognised(Mutex<Option<Instant>>);

impl Unrecognised {
    /// Takes down an outcome, and says whether the session is lost by it: at once where a server that is ready knows no such
    /// user, else once nothing but that was heard for longer than a server takes to start.
    pub(crate) fn is_lost<T>(&self, outcome: Result<T, &Error>) -> bool {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Err(error) if may_be_starting(error) => since.get_or_insert_with(Instant::now).elapsed() >= START,
            outcome => {
                *since = None;
                outcome.is_err_and(is_unrecognised)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use discovery_core::ErrorKind;
    use kube::core::Status;

    use super::*;
    use crate::doubting::Undecided;
    use crate::fault::Request;

    fn fault(error: kube::Error) -> Error {
        Request { verb: "get", resource: "dwm", namespace: None }.fault(error)
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_taken_is_lost_at_once_or_when_no_server_starts_for_so_long() {
        let refused = fault(kube::Error::Api(Status::failure("", "").with_code(401).boxed()));
        let undecided = fault(kube::Error::Service(Undecided::Unrecognised.into()));
        let away = Error::new(ErrorKind::Unavailable, "away");
        let heard = Unrecognised::default();
        assert!(heard.is_lost::<()>(Err(&refused)));
        let moment = Duration::from_secs(1);
        for other in [Ok(()), Err(&away)] {
            assert!(!heard.is_lost::<()>(Err(&undecided)));
            tokio::time::advance(START - moment).await;
            assert!(!heard.is_lost::<()>(Err(&undecided)));
            assert!(!heard.is_lost(other), "the clock starts anew");
            tokio::time::advance(moment).await;
            assert!(!heard.is_lost::<()>(Err(&undecided)));
            tokio::time::advance(START).await;
            assert!(heard.is_lost::<()>(Err(&undecided)));
            assert!(!heard.is_lost(Ok(())));
        }
    }
}
