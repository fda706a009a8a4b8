//! What there is, by names and versions alone.
//!
//! One answer is best while it is short: it is one request, which many a server answers from its cache. Of a large set it is
//! long in coming, since the server may read all of each object for it, and takes long to be made sense of, while nothing else
//! of this process goes on. So what was many the last time, or did not come in time, is asked for in pages, each
//! of which has its own time, and all of which are of the version of the first.

use std::sync::atomic::{AtomicU32, Ordering};

use discovery_core::Error;
use tokio::time::Instant;

use super::reading::{PAGED_TRIES, is_slow, larger, limited, or_absent, smaller};
use super::{Cause, Failure, Part};
use crate::source::{Census, Counted};

#[cfg(test)]
mod tests;

/// How many names a page has, and how many are few enough for one answer.
const NAMES: u32 = 1_000;
/// All at once.
const WHOLE: u32 = 0;

/// The names and versions of all objects; none of a resource type that is not there.
///
/// # Errors
/// Why they cannot be counted. Where they did not come in time, less is asked for at a time the next time.
pub(crate) async fn count(source: &dyn Counted) -> Result<Census, Error> {
    or_absent(source, names(source).await).await
}

async fn names(source: &dyn Counted) -> Result<Census, Failure> {
    let Some(kept) = source.names_at_a_time() else { return whole(source).await };
    for _ in 0..PAGED_TRIES {
        let size = kept.load(Ordering::Relaxed);
        let counted = if size == WHOLE { whole(source).await } else { pages(source, kept, size).await };
        match &counted {
            Err(failure) if failure.cause == Cause::Gone && size != WHOLE => continue,
            Err(failure) if is_slow(failure) && size == WHOLE => kept.store(NAMES, Ordering::Relaxed),
            Ok(census) if size == WHOLE && !is_few(census) => kept.store(NAMES, Ordering::Relaxed),
            // Smaller pages than these are of large objects.
            Ok(census) if size == NAMES && is_few(census) => kept.store(WHOLE, Ordering::Relaxed),
            _ => {}
        }
        return counted;
    }
    whole(source).await
}

fn is_few(census: &Census) -> bool {
    census.objects.len() <= NAMES as usize
}

async fn whole(source: &dyn Counted) -> Result<Census, Failure> {
    Ok(limited(source.census(Part::Whole, WHOLE)).await?.0)
}

async fn pages(source: &dyn Counted, kept: &AtomicU32, mut size: u32) -> Result<Census, Failure> {
    let mut all: Option<Census> = None;
    let mut part = Part::First;
    loop {
        let asked = Instant::now();
        let page = limited(source.census(part, size)).await;
        size = match &page {
            Ok(_) => larger(size, asked.elapsed(), NAMES),
            Err(failure) if is_slow(failure) => smaller(size),
            Err(_) => size,
        };
        kept.store(size, Ordering::Relaxed);
        let (page, next) = page?;
        let counted = match all.take() {
            Some(mut counted) => {
                counted.objects.extend(page.objects);
                counted
            }
            None => page,
        };
        match next {
            Some(token) => (all, part) = (Some(counted), Part::Next(token)),
            None => return Ok(counted),
        }
    }
}
