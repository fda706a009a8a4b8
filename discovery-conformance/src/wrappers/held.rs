//! Events that are held for a while and delivered in their order.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::time::{Instant, sleep_until};

/// How many events are held at most; the stream inside is not read while there are more.
const MOST: usize = 1024;

struct Held<T> {
    inner: Option<BoxStream<'static, T>>,
    events: VecDeque<(Instant, T)>,
}

/// Delivers each item as much later as `by` says, none before the one ahead of it.
pub(super) fn held<T: Send + 'static>(
    inner: BoxStream<'static, T>,
    by: impl Fn() -> Duration + Send + Sync + 'static,
) -> BoxStream<'static, T> {
    let held = Held { inner: Some(inner), events: VecDeque::new() };
    stream::unfold((held, by), |(mut held, by)| async move {
        let item = held.next(&by).await?;
        Some((item, (held, by)))
    })
    .boxed()
}

impl<T> Held<T> {
    async fn next(&mut self, by: &(impl Fn() -> Duration + Send + Sync)) -> Option<T> {
        loop {
            if self.inner.is_none() && self.events.is_empty() {
                return None;
            }
            let due = self.events.front().map(|(due, _)| *due);
            let room = self.events.len() < MOST;
            tokio::select! {
                biased;
                () = async {
                    match due {
                        Some(due) => sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                } => return self.events.pop_front().map(|(_, item)| item),
                item = async {
                    match &mut self.inner {
                        Some(inner) if room => inner.next().await,
                        _ => std::future::pending().await,
                    }
                } => match item {
                    Some(item) => {
                        let due = Instant::now() + by();
                        let due = self.events.back().map_or(due, |(last, _)| due.max(*last));
                        self.events.push_back((due, item));
                    }
                    None => self.inner = None,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_stream_comes_after_what_is_held() {
        let late = held(stream::iter([1, 2]).boxed(), || Duration::from_millis(20));
        let all = tokio::time::timeout(Duration::from_secs(1), late.collect::<Vec<_>>()).await;
        assert_eq!(all, Ok(vec![1, 2]));
    }
}
