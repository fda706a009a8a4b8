//! What is read once and in pieces: the pages of a list, and how soon an answer has to come.

use std::time::Duration;

use discovery_core::{Error, ErrorKind};
use tokio::time::timeout;

use super::{Cause, Failure, Seen, Source};
use crate::source::Counted;

/// How long a request may take.
pub(crate) const REQUEST: Duration = Duration::from_secs(5);
/// How many objects a page has, and how few where they are so large that a page of these is not read in time.
pub(crate) const PAGE: u32 = 500;
pub(super) const LEAST: u32 = 8;
/// How often a list in pages is begun again before it is read in one piece.
pub(super) const PAGED_TRIES: u32 = 3;

/// One page of a list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Seen>,
    /// The version of the whole list.
    pub(crate) version: u64,
    /// The token of the next page.
    pub(crate) next: Option<String>,
}

/// How a list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The first page.
    First,
    /// The page that this token stands for.
    Next(String),
    /// Everything in one answer.
    Whole,
}

/// Everything at once, without a watch: the objects of all pages, and their version.
pub(super) async fn read(source: &dyn Counted) -> Result<Page, Failure> {
    let (mut size, mut gone) = (PAGE, 0);
    while gone < PAGED_TRIES {
        match read_pages(source, size).await {
            Err(failure) if failure.cause == Cause::Gone => gone += 1,
            Err(failure) if is_slow(&failure) && size > LEAST => size = smaller(size),
            outcome => return outcome,
        }
    }
    limited(source.list(Part::Whole, size)).await
}

pub(super) fn is_slow(failure: &Failure) -> bool {
    failure.error.kind() == ErrorKind::Timeout
}

pub(super) fn smaller(size: u32) -> u32 {
    (size / 4).max(LEAST)
}

/// The size of the next page after one that took this long. Twice as large a one comes in time where it came soon.
pub(super) fn larger(size: u32, took: Duration, most: u32) -> u32 {
    if took < REQUEST / 5 { size.saturating_mul(2).min(most) } else { size }
}

/// The same; a resource type that is not there is empty.
///
/// # Errors
/// Why it cannot be read.
pub(crate) async fn read_or_absent(source: &dyn Counted) -> Result<Page, Error> {
    or_absent(source, read(source).await).await
}

pub(super) async fn or_absent<T: Default>(source: &dyn Counted, answer: Result<T, Failure>) -> Result<T, Error> {
    match answer {
        Err(failure) if failure.cause == Cause::Absent && is_absent(source).await => Ok(T::default()),
        answer => answer.map_err(|failure| failure.error),
    }
}

/// Who is not told in time has the first answer to go by.
pub(super) async fn is_absent(source: &dyn Counted) -> bool {
    timeout(REQUEST, source.is_absent()).await.unwrap_or(false)
}

async fn read_pages(source: &(impl Source + ?Sized), size: u32) -> Result<Page, Failure> {
    let mut all = limited(source.list(Part::First, size)).await?;
    while let Some(token) = all.next.take() {
        let page = limited(source.list(Part::Next(token), size)).await?;
        all.objects.extend(page.objects);
        all.next = page.next;
    }
    Ok(all)
}

pub(super) async fn limited<T>(request: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(REQUEST, request).await.unwrap_or_else(|_| {
        let error = Error::new(ErrorKind::Timeout, format!("the API server did not answer within {REQUEST:?}"));
        Err(Failure { cause: Cause::Other, error })
    })
}
