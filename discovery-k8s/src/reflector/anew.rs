//! That everything is read anew for so long that it has to be told.
//!
//! History that is gone is no failure, and what is read anew soon needs no word. But no watch is open meanwhile, so that nobody
//! sees what happens; and one answer may take all of the time, so that it is told while it is waited for.

use std::time::Duration;

use discovery_core::Error;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::time::{Instant, sleep_until};

use super::Told;

/// For how long everything may be read anew before that is told.
pub(super) const ANEW: Duration = Duration::from_secs(1);

/// What a reflector does.
pub(super) enum Step {
    Told(Told),
    /// It begins to read everything anew for this reason, and has not told it. What it tells next of the whole is the end of it.
    Anew(Error),
}

struct InTime {
    steps: BoxStream<'static, Step>,
    /// When it has to be told that everything is read anew, and why.
    due: Option<(Instant, Error)>,
    is_told: bool,
    /// What is told next.
    then: Option<Told>,
}

pub(super) fn in_time(steps: BoxStream<'static, Step>) -> BoxStream<'static, Told> {
    let told = InTime { steps, due: None, is_told: false, then: None };
    stream::unfold(told, |mut told| async move { Some((told.next().await?, told)) }).boxed()
}

impl InTime {
    async fn next(&mut self) -> Option<Told> {
        if let Some(told) = self.then.take() {
            return Some(told);
        }
        loop {
            let step = match &self.due {
                None => self.steps.next().await?,
                Some((at, error)) => tokio::select! {
                    biased;
                    step = self.steps.next() => step?,
                    () = sleep_until(*at) => {
                        let error = error.clone();
                        (self.due, self.is_told) = (None, true);
                        return Some(Told::Interrupted(error));
                    }
                },
            };
            match step {
                Step::Anew(_) if self.is_told || self.due.is_some() => {}
                Step::Anew(error) => self.due = Some((Instant::now() + ANEW, error)),
                Step::Told(told) => {
                    match &told {
                        Told::All { .. } => {
                            self.due = None;
                            self.then = std::mem::take(&mut self.is_told).then_some(Told::Recovered);
                        }
                        // Of this the reflector tells the end itself.
                        Told::Interrupted(_) => (self.due, self.is_told) = (None, false),
                        _ => {}
                    }
                    return Some(told);
                }
            }
        }
    }
}
