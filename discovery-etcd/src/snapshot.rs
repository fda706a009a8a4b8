//! Reading a range in pages, all at one revision.

use std::sync::Arc;
use std::time::Duration;

use discovery_core::backend::Entry;
use etcd_client::{GetOptions, GetResponse, KeyValue};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, poll};

use crate::fault::Fault;
use crate::names::Range;
use crate::store::Store;

/// How long one page may take.
const PAGE: Duration = Duration::from_secs(10);
/// How many records the first page has; the next ones have as many as fill [`FULL`].
const FIRST: i64 = 256;
const MOST: i64 = 10_000;
/// The size of a page in bytes, about: large enough to be few, small enough to be decoded while the next one comes.
const FULL: i64 = 2 << 20;
/// How often a read begins again because what it reads is compacted meanwhile.
pub(crate) const RESTARTS: usize = 5;

type Fetch = BoxFuture<'static, Result<GetResponse, Fault>>;

/// A read in progress.
pub(crate) struct Pages {
    store: Arc<Store>,
    end: Vec<u8>,
    /// The next page, asked for before it is wanted. `None` after the last.
    next: Option<Fetch>,
    /// The revision that all pages are of; known from the first one on.
    revision: i64,
}

impl Pages {
    pub(crate) fn new(store: &Arc<Store>, range: &Range) -> Self {
        let first = fetch(Arc::clone(store), range.start.clone(), range.end.clone(), 0, FIRST);
        Self { store: Arc::clone(store), end: range.end.clone(), next: Some(first), revision: 0 }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    /// The next page; `None` after the last. [`Expired`](discovery_core::ErrorKind::Expired) where the revision is no
    /// longer kept.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, Fault> {
        let Some(next) = &mut self.next else { return Ok(None) };
        let fetched = next.await;
        self.next = None;
        let mut page = fetched?;
        if self.revision == 0 {
            self.revision = page.header().map_or(0, etcd_client::ResponseHeader::revision);
        }
        let more = page.more();
        let records = page.take_kvs();
        if let (true, Some(last)) = (more, records.last()) {
            let bytes: usize = records.iter().map(|record| record.key().len() + record.value().len() + 32).sum();
            let each = (bytes / records.len()).max(1) as i64;
            let limit = (FULL / each).clamp(16, MOST);
            // The successor of a key is the key with a zero byte.
            let from = [last.key(), &[0]].concat();
            let mut fetch = fetch(Arc::clone(&self.store), from, self.end.clone(), self.revision, limit);
            // Sends the request, so that the answer comes while this page is looked at.
            self.next = Some(match poll!(&mut fetch) {
                std::task::Poll::Ready(done) => std::future::ready(done).boxed(),
                std::task::Poll::Pending => fetch,
            });
        }
        Ok(Some(records))
    }
}

fn fetch(store: Arc<Store>, from: Vec<u8>, end: Vec<u8>, revision: i64, limit: i64) -> Fetch {
    async move {
        let options = GetOptions::new().with_range(end).with_limit(limit).with_revision(revision);
        let page = |mut wire: crate::link::Wire| {
            let (from, options) = (from.clone(), options.clone());
            async move { wire.kv.get(from, Some(options)).await }
        };
        store.bulk.read(PAGE, page).await
    }
    .boxed()
}

/// All records of a range and the revision that they are of.
pub(crate) async fn read(store: &Arc<Store>, range: &Range) -> Result<(Vec<Entry>, i64), Fault> {
    let epoch = store.epoch();
    let mut restarts = 0;
    'again: loop {
        let mut pages = Pages::new(store, range);
        let mut entries = Vec::new();
        loop {
            match pages.next().await {
                Ok(Some(records)) => {
                    entries.extend(records.into_iter().filter_map(|record| store.entry(epoch, record)));
                }
                Ok(None) => return Ok((entries, pages.revision())),
                Err(fault) if fault.error.kind() == discovery_core::ErrorKind::Expired && restarts < RESTARTS => {
                    restarts += 1;
                    continue 'again;
                }
                Err(fault) => return Err(fault),
            }
        }
    }
}
