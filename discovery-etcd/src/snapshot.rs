//! Reading a range in pages, all at one revision.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use discovery_core::ErrorKind;
use discovery_core::backend::Entry;
use etcd_client::{GetOptions, GetResponse, KeyValue};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, poll};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use crate::alive::{MUCH, silence};
use crate::fault::Fault;
use crate::link::{LARGEST_MESSAGE, Wire};
use crate::names::Range;
use crate::store::{CALL, Store};

/// How long one page may take, for as long as its connection lives.
const PAGE: Duration = Duration::from_secs(30);
/// How long a page takes that is as fast as the one before: as much as this. The core opens a watch anew that tells nothing for
/// 10 seconds, where it is not set otherwise.
const SOON: Duration = Duration::from_secs(3);
/// How many records the first page has; the next ones have as many as fill [`FULL`].
const FIRST: i64 = 256;
/// The size of a page in bytes, about. For each page the server counts whatever follows it in the range, so pages are to be
/// few; and small enough for several processes to be sent some at once.
const FULL: i64 = 4 << 20;
/// A page of which so much takes too long is not made smaller.
const LEAST: i64 = 256 << 10;
/// How often a read begins again because what it reads is compacted meanwhile.
pub(crate) const RESTARTS: usize = 5;

/// How fast pages grow.
#[derive(Clone, Copy)]
struct Pace {
    /// How many times as many records a page has as the one before at most.
    growth: i64,
    most: i64,
}

/// Records of one kind are of much the same size.
const OF_ONE_KIND: Pace = Pace { growth: 16, most: 20_000 };
/// What follows may be far larger.
const OF_ANY_KIND: Pace = Pace { growth: 4, most: 10_000 };

/// With how long the answer took.
type Fetch = BoxFuture<'static, Result<(GetResponse, Duration), Fault>>;

/// How many records a page has at most, whatever its place in a read: fewer where one had to be given up while it came, by its
/// time limit or by whoever read, who would ask for the same again and again. What takes long may be behind much that is quick,
/// so no page that came in time raises it: a whole read does.
pub(crate) struct Cap(AtomicI64);

impl Default for Cap {
    fn default() -> Self {
        Self(AtomicI64::new(OF_ONE_KIND.most))
    }
}

impl Cap {
    fn limit(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn given_up(&self, limit: i64) {
        self.0.fetch_min((limit / 4).max(1), Ordering::Relaxed);
    }

    /// A read has come to its end, whose largest page had so many records and whose slowest one took so long. One that asked
    /// for less than it might have says nothing.
    fn read(&self, largest: i64, slowest: Duration) {
        let limit = self.limit();
        if largest >= limit && slowest < SOON {
            self.0.fetch_max((limit * 2).min(OF_ONE_KIND.most), Ordering::Relaxed);
        }
    }
}

/// A page that is asked for. Takes note of it where nobody waits for the answer any more though parts of it came: where none
/// did, it is not for its size that it takes so long.
struct Asked<'a> {
    cap: &'a Cap,
    limit: i64,
    begun: Instant,
    wire: &'a Wire,
    /// What had come over the connection before.
    received: u64,
    ended: bool,
}

impl<'a> Asked<'a> {
    fn new(cap: &'a Cap, limit: i64, wire: &'a Wire) -> Self {
        Self { cap, limit, begun: Instant::now(), wire, received: wire.received.count(), ended: false }
    }

    /// It was answered, or it failed.
    fn ended(mut self) -> Duration {
        self.ended = true;
        self.begun.elapsed()
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let came = self.wire.received.count() - self.received;
        if !self.ended && self.begun.elapsed() > SOON && came >= MUCH {
            self.cap.given_up(self.limit);
        }
    }
}

/// A read in progress.
pub(crate) struct Pages {
    store: Arc<Store>,
    end: Vec<u8>,
    /// The next page, asked for before it is wanted. `None` after the last.
    next: Option<Fetch>,
    /// The revision that all pages are of; known from the first one on.
    revision: i64,
    /// How many bytes a page may have.
    largest: usize,
    /// How long one may take.
    limit: Duration,
    pace: Pace,
    /// How many records the largest page had.
    most: i64,
    /// How long the slowest one took.
    slowest: Duration,
}

impl Pages {
    pub(crate) fn new(store: &Arc<Store>, range: &Range) -> Self {
        Self::of_at_most(LARGEST_MESSAGE, PAGE, store, range)
    }

    fn of_at_most(largest: usize, limit: Duration, store: &Arc<Store>, range: &Range) -> Self {
        let pace = if range.start == store.names.root() { OF_ANY_KIND } else { OF_ONE_KIND };
        let mut pages = Self {
            store: Arc::clone(store),
            end: range.end.clone(),
            next: None,
            revision: 0,
            largest,
            limit,
            pace,
            most: 0,
            slowest: Duration::ZERO,
        };
        pages.next = Some(pages.fetch(range.start.clone(), FIRST));
        pages
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
        let (mut page, took) = fetched?;
        if self.revision == 0 {
            self.revision = page.header().map_or(0, etcd_client::ResponseHeader::revision);
        }
        let more = page.more();
        let records = page.take_kvs();
        self.most = self.most.max(records.len() as i64);
        self.slowest = self.slowest.max(took);
        if !more {
            self.store.cap.read(self.most, self.slowest);
        }
        if let (true, Some(last)) = (more, records.last()) {
            let bytes: usize = records.iter().map(|record| record.key().len() + record.value().len() + 32).sum();
            let limit = next_limit(self.pace, records.len(), bytes, took);
            // The successor of a key is the key with a zero byte.
            let from = [last.key(), &[0]].concat();
            let mut fetch = self.fetch(from, limit);
            // Sends the request, so that the answer comes while this page is looked at.
            self.next = Some(match poll!(&mut fetch) {
                std::task::Poll::Ready(done) => std::future::ready(done).boxed(),
                std::task::Poll::Pending => fetch,
            });
            // It is the connection's own task that writes it, on the same thread perhaps.
            yield_now().await;
        }
        Ok(Some(records))
    }

    fn fetch(&self, from: Vec<u8>, limit: i64) -> Fetch {
        let (store, largest, in_time) = (Arc::clone(&self.store), self.largest, self.limit);
        let options = GetOptions::new().with_range(self.end.clone()).with_revision(self.revision);
        async move {
            let (mut limit, mut left, mut patience) =
                (limit.min(store.cap.limit()), store.config.endpoints.len(), CALL);
            loop {
                let page = |wire: Wire| {
                    let (from, options, cap) = (from.clone(), options.clone().with_limit(limit), &store.cap);
                    async move {
                        let mut kv = wire.kv.clone().max_decoding_message_size(largest);
                        let asked = Asked::new(cap, limit, &wire);
                        let page = tokio::select! {
                            biased;
                            page = kv.get(from.clone(), Some(options)) => page,
                            dead = silence(&wire, &from, patience) => Err(dead),
                        };
                        let took = asked.ended();
                        Ok((page?, took))
                    }
                };
                // From outside, so that it is given up as by whoever reads: the connection is left, on which what the server has
                // sent is ahead of anything smaller, and nothing else is.
                let fault = match timeout(in_time, store.bulk.call(in_time * 2, page)).await {
                    Ok(Ok(page)) => return Ok(page),
                    Ok(Err(fault)) => fault,
                    Err(_) => Fault::slow(limit, in_time),
                };
                match fault.error.kind() {
                    ErrorKind::TooLarge if limit > 1 => {}
                    _ if fault.broken && left > 0 => left -= 1,
                    _ => return Err(fault),
                }
                if fault.error.kind() == ErrorKind::Timeout && left == 0 {
                    // All were asked: a server that has too much to do is not helped by being asked again.
                    patience *= 2;
                }
                // A page that takes too long may be too large, too.
                if matches!(fault.error.kind(), ErrorKind::TooLarge | ErrorKind::Timeout) {
                    limit = (limit / 2).max(1);
                }
            }
        }
        .boxed()
    }
}

/// How many records the page after one of `records` and `bytes` has, which took so long.
fn next_limit(pace: Pace, records: usize, bytes: usize, took: Duration) -> i64 {
    let each = (bytes / records).max(1) as i64;
    let records = records as i64;
    // Not all that a page takes is for its records: for each the server counts all that follows.
    let soon = (records * SOON.as_millis() as i64 / (took.as_millis() as i64).max(1)).max(LEAST / each);
    (FULL / each).min(pace.growth * records).min(soon).clamp(16, pace.most)
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
                Err(fault) if fault.error.kind() == ErrorKind::Expired && restarts < RESTARTS => {
                    restarts += 1;
                    continue 'again;
                }
                Err(fault) => return Err(fault),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use discovery_core::{Effect, Scope};
    use discovery_testbed::{Direction, Etcd, Proxy};

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_page_has_few_times_as_many_records_as_the_one_before() {
        // Endpoints, which may be followed by cards of models that are hundreds of times as large.
        let next = |records, bytes| next_limit(OF_ANY_KIND, records, bytes, Duration::from_millis(100));
        assert_eq!(next(256, 256 * 230), 1_024);
        assert_eq!(next(1_024, 1_024 * 230), 4_096);
        assert_eq!(next(4_096, 4_096 * 230), 10_000);
        assert_eq!(next(9_118, 9_118 * 60_000), 69);
        assert_eq!((next(16, 16 << 20), next(1, 0)), (16, 16));
        // Endpoints alone.
        let next = |records, bytes| next_limit(OF_ONE_KIND, records, bytes, Duration::from_millis(100));
        assert_eq!(next(256, 256 * 230), 4_096);
        assert_eq!(next(4_096, 4_096 * 230), 18_236);
        assert_eq!(next(18_236, 18_236 * 60), 20_000);
    }

    #[test]
    fn a_page_after_a_slow_one_is_as_small_as_can_be_here_soon() {
        let next = |records, seconds| next_limit(OF_ONE_KIND, records, records * 230, Duration::from_secs(seconds));
        assert_eq!([1, 2, 3, 6, 600].map(|seconds| next(4_096, seconds)), [12_288, 6_144, 4_096, 2_048, 1_139]);
        assert_eq!(next(16, 600), 256);
    }

    #[test]
    fn a_page_that_was_given_up_makes_all_smaller_until_whole_reads_of_such_pages_were_quick() {
        let (cap, quick) = (Cap::default(), Duration::from_millis(100));
        cap.given_up(256);
        cap.read(63, quick);
        cap.read(64, SOON);
        assert_eq!(cap.limit(), 64);
        cap.read(64, quick);
        assert_eq!(cap.limit(), 128);
        (0..20).for_each(|_| cap.read(cap.limit(), quick));
        assert_eq!(cap.limit(), 20_000);
    }

    #[tokio::test]
    async fn a_page_that_is_too_large_is_asked_for_in_parts() {
        let etcd = Etcd::start().await.unwrap();
        let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
        let cards = (1..=40).map(|number| (format!("v1/mdc/x/y/{number:x}"), vec![b'1'; 50_000]));
        let endpoints = (1..=300).map(|number| (format!("v1/instances/x/y/z/{number:x}"), vec![b'1'; 100]));
        let mut wanted: Vec<_> = endpoints.chain(cards).collect();
        for (key, value) in &wanted {
            client.put(key.as_str(), value.clone(), None).await.unwrap();
        }
        let store = Arc::new(Store::new(Config::new([etcd.endpoint()])));
        let range = store.names.range(&Scope::all()).unwrap();
        let mut pages = Pages::of_at_most(500_000, PAGE, &store, &range);
        let mut read = Vec::new();
        while let Some(page) = pages.next().await.unwrap() {
            read.extend(page.into_iter().map(|record| {
                let (key, value) = record.into_key_value();
                (String::from_utf8(key).unwrap(), value)
            }));
        }
        wanted.sort();
        assert_eq!(read, wanted);
    }

    /// That it takes long is no fault of the member's: writes, renewals and watches go on over the connections that they have.
    #[tokio::test]
    async fn a_page_that_takes_too_long_is_no_verdict_on_its_member() {
        let etcd = Etcd::start().await.unwrap();
        let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
        for number in 0..100 {
            client.put(format!("v1/instances/x/y/z/{number:x}"), vec![b'1'; 15_000], None).await.unwrap();
        }
        let networks = [Proxy::to_port(etcd.port()).unwrap(), Proxy::to_port(etcd.port()).unwrap()];
        let endpoints = networks.each_ref().map(|network| format!("http://{}", network.address()));
        let store = Arc::new(Store::new(Config::new(endpoints)));
        let control = store.control.wire().await.unwrap();
        // Also a quarter of it takes longer than it may.
        networks.iter().for_each(|network| network.limit(Direction::ToClient, 150_000));
        let range = store.names.everything();
        let mut pages = Pages::of_at_most(LARGEST_MESSAGE, Duration::from_secs(2), &store, &range);
        let fault = pages.next().await.unwrap_err();
        assert!(store.control.trusts(&control));
        assert_eq!((fault.error.kind(), fault.error.effect()), (ErrorKind::Timeout, Effect::None), "{}", fault.error);
        assert!(networks.iter().map(Proxy::connections).sum::<u64>() > 2, "it was asked for over another connection");
    }
}
