//! One handle's copy of the directory, kept current while there is a watch.
//!
//! There is one inotify instance for each handle that watches, and none for one that only registers. One for the whole
//! process would have to outlive the handle whose thread reads it, and background work belongs to its handle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use discovery_core::backend::{Entry, Position, WatchEvent, WatchStream};
use discovery_core::{Error, Result, Scope, TaskScope};
use discovery_dynamo::layout;
use futures_util::StreamExt;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::log::{Cursor, Log};
use super::notice;
use super::scan::{Depth, Following, Scan};
use crate::owner::{End, Owner};
use crate::place::Place;
use crate::session::blocking;

/// How often signs of life are looked at.
const PULSE: Duration = Duration::from_millis(500);
/// Every how many pulses all files are looked at, in case a notice was lost.
const FULL_EVERY: u32 = 4;
/// How often everything is read where the kernel grants no notices.
const POLL: Duration = Duration::from_millis(250);
/// How often it is asked whether an owner is dead that has just closed its file.
const SOON: Duration = Duration::from_millis(2);

/// One handle's copy of the directory.
#[derive(Debug)]
pub(crate) struct Mirror {
    place: Place,
    tasks: TaskScope,
    /// Held over a whole pass, on threads that may block, and on the handle's for what waits for nothing. Locked before `log`.
    scan: Mutex<Scan>,
    log: Mutex<Log>,
    interest: Mutex<Interests>,
    /// Bumped when there is something to read in the log.
    news: watch::Sender<u64>,
    /// The set of wanted buckets has changed.
    changed: Notify,
    cleaning: AtomicBool,
}

#[derive(Debug, Default)]
struct Interests {
    /// How many streams and calls want each bucket; `None` stands for all.
    wanted: BTreeMap<Option<String>, usize>,
    streams: usize,
    source: Option<Arc<Source>>,
}

/// Where notices come from.
#[derive(Debug)]
enum Source {
    Notices(AsyncFd<OwnedFd>),
    Polling,
}

impl Source {
    // Newer tokio has only an unsafe constructor beside this one, for descriptors that do not stay open. An `OwnedFd`
    // that nobody else can take or close does.
    #[allow(deprecated)]
    fn open() -> Self {
        match notice::instance().and_then(|fd| AsyncFd::with_interest(fd, Interest::READABLE)) {
            Ok(fd) => Self::Notices(fd),
            Err(error) => {
                tracing::warn!(%error, "no inotify instance to be had: polling the directory instead");
                Self::Polling
            }
        }
    }

    fn fd(&self) -> Option<&OwnedFd> {
        match self {
            Self::Notices(fd) => Some(fd.get_ref()),
            Self::Polling => None,
        }
    }
}

/// A wish for a bucket, for as long as it lives.
struct Interested {
    mirror: Arc<Mirror>,
    bucket: Option<String>,
    stream: bool,
}

impl Drop for Interested {
    fn drop(&mut self) {
        let mut interest = self.mirror.interest();
        if let Some(count) = interest.wanted.get_mut(&self.bucket) {
            *count -= 1;
            if *count == 0 {
                interest.wanted.remove(&self.bucket);
            }
        }
        if self.stream {
            interest.streams -= 1;
            self.mirror.changed.notify_one();
        }
    }
}

impl Mirror {
    pub(crate) fn new(place: Place, tasks: TaskScope) -> Arc<Self> {
        Arc::new(Self {
            scan: Mutex::new(Scan::new(place.clone())),
            place,
            tasks,
            log: Mutex::default(),
            interest: Mutex::default(),
            news: watch::Sender::new(0),
            changed: Notify::new(),
            cleaning: AtomicBool::new(false),
        })
    }

    fn interest(&self) -> MutexGuard<'_, Interests> {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scan(&self) -> MutexGuard<'_, Scan> {
        self.scan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many files there are that cannot be read as records.
    pub(crate) async fn skipped(self: &Arc<Self>) -> Result<u64> {
        let mirror = Arc::clone(self);
        blocking("skipped", move || mirror.scan().skipped()).await
    }

    fn want(self: &Arc<Self>, scope: &Scope, stream: bool) -> Result<Interested> {
        let bucket = match scope.kind() {
            Some(kind) => Some(layout::bucket_of_kind(kind).map_err(|error| invalid_query(&error))?.to_owned()),
            None => None,
        };
        let mut interest = self.interest();
        *interest.wanted.entry(bucket.clone()).or_default() += 1;
        interest.streams += usize::from(stream);
        let start = stream && interest.source.is_none();
        if start {
            let source = Arc::new(Source::open());
            interest.source = Some(Arc::clone(&source));
            self.tasks.spawn(Arc::clone(self).run(source));
        }
        Ok(Interested { mirror: Arc::clone(self), bucket, stream })
    }

    /// Opens a watch.
    pub(crate) async fn watch(self: &Arc<Self>, scope: &Scope) -> Result<WatchStream> {
        let interested = self.want(scope, true)?;
        self.pass(Depth::Full).await?;
        let stream = Stream {
            news: self.news.subscribe(),
            cursor: Cursor::new(scope.clone()),
            ready: VecDeque::new(),
            interested,
        };
        Ok(futures_util::stream::unfold(stream, |mut stream| async move { Some((Ok(stream.next().await?), stream)) })
            .boxed())
    }

    /// Reads a scope once.
    pub(crate) async fn list(self: &Arc<Self>, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        let _interested = self.want(scope, false)?;
        self.pass(Depth::Full).await?;
        Ok(self.log().snapshot(scope))
    }

    /// A position that holds all that was written before.
    pub(crate) async fn barrier(self: &Arc<Self>, scope: &Scope) -> Result<Position> {
        let _interested = self.want(scope, false)?;
        self.pass(Depth::Full).await?;
        let position = Position::from_u64(self.log().mark());
        self.tell();
        Ok(position)
    }

    fn tell(&self) {
        self.news.send_modify(|news| *news = news.wrapping_add(1));
    }

    /// One pass. Answers what is to be done next.
    async fn pass(self: &Arc<Self>, depth: Depth) -> Result<Next> {
        let mirror = Arc::clone(self);
        let (found, leftovers) = blocking("watch", move || mirror.pass_now(depth)).await?;
        self.clean(leftovers);
        found
    }

    fn pass_now(&self, depth: Depth) -> (Result<Next>, Vec<(Owner, End)>) {
        let mut scan = self.scan();
        let (wanted, source) = {
            let interest = self.interest();
            let all = interest.wanted.contains_key(&None);
            let named: BTreeSet<String> = interest.wanted.keys().flatten().cloned().collect();
            ((!all).then_some(named), interest.source.clone())
        };
        let found = scan.pass(depth, wanted.as_ref(), source.as_ref().and_then(|source| source.fd()));
        let (fault, told) = self.log().take_in(found);
        if told {
            self.tell();
        }
        let next = Next { soon: scan.unfinished(), polls: scan.polls() };
        let leftovers = if depth == Depth::Noticed && !next.soon { Vec::new() } else { scan.leftovers() };
        (fault.map_or(Ok(next), Err), leftovers)
    }

    /// Removes from the directory what owners that are over have left, beside the passes, because locks may have to be
    /// waited for. What fails is tried again after a later pass.
    fn clean(self: &Arc<Self>, leftovers: Vec<(Owner, End)>) {
        if leftovers.is_empty() || self.cleaning.swap(true, Ordering::AcqRel) {
            return;
        }
        let cleaning = Cleaning(Arc::clone(self));
        self.tasks.spawn(async move {
            let cleaned = blocking("clean", move || {
                for (owner, end) in leftovers {
                    if let Err(error) = owner.reap(&cleaning.0.place, end) {
                        tracing::debug!(%error, "what an owner has left cannot be removed now");
                    }
                }
            });
            if let Err(error) = cleaned.await {
                tracing::error!(%error, "cleaning failed");
            }
        });
    }

    /// Takes in what was noticed, as far as it waits for nothing: a pass takes two changes of thread. Answers whether
    /// there is more, for a pass. Half of the notices are of files on the way to their names, and ask for nothing.
    fn take_in_at_once(&self, source: &Source) -> bool {
        // Another pass that is under way may take the notices first.
        let (Some(fd), Ok(mut scan)) = (source.fd(), self.scan.try_lock()) else { return true };
        if !scan.notices(fd) {
            return false;
        }
        let Some(findings) = scan.at_once(fd) else { return true };
        let (_, told) = self.log().take_in(Ok(findings));
        if told {
            self.tell();
        }
        scan.unfinished()
    }

    /// Follows the directory until no stream is left.
    async fn run(self: Arc<Self>, source: Arc<Source>) {
        let following = Arc::clone(&self);
        let how = match *source {
            Source::Notices(_) => Following::Notices,
            Source::Polling => Following::Polling,
        };
        if blocking("watch", move || following.scan().follow(how)).await.is_err() {
            return;
        }
        let mut depth = Depth::Full;
        let mut pulses = 0;
        let mut next_pulse = Instant::now() + PULSE;
        loop {
            if self.interest().streams == 0 && self.stop(&source).await {
                return;
            }
            let next = self.pass(depth).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "the directory cannot be read");
                Next { soon: false, polls: true }
            });
            let soon = Instant::now() + SOON;
            let poll = Instant::now() + POLL;
            depth = loop {
                tokio::select! {
                    () = readable(&source) => {
                        if self.take_in_at_once(&source) {
                            break Depth::Noticed;
                        }
                    }
                    () = self.changed.notified() => break Depth::Noticed,
                    () = tokio::time::sleep_until(soon), if next.soon => break Depth::Noticed,
                    () = tokio::time::sleep_until(poll), if next.polls => break Depth::Full,
                    () = tokio::time::sleep_until(next_pulse) => {
                        next_pulse = Instant::now() + PULSE;
                        pulses = (pulses + 1) % FULL_EVERY;
                        break if pulses == 0 { Depth::Full } else { Depth::Lives };
                    }
                }
            };
        }
    }

    /// Ends the following, unless a stream was opened meanwhile.
    async fn stop(self: &Arc<Self>, source: &Arc<Source>) -> bool {
        let mirror = Arc::clone(self);
        let source = Arc::clone(source);
        let stopped = blocking("watch", move || {
            let mut scan = mirror.scan();
            let mut interest = mirror.interest();
            let idle = interest.streams == 0;
            if idle && interest.source.as_ref().is_some_and(|current| Arc::ptr_eq(current, &source)) {
                interest.source = None;
                scan.follow(Following::No);
            }
            idle
        });
        stopped.await.unwrap_or(true)
    }
}

struct Cleaning(Arc<Mirror>);

impl Drop for Cleaning {
    fn drop(&mut self) {
        self.0.cleaning.store(false, Ordering::Release);
    }
}

/// Waits for notices; for ever where none can come. Taking them is up to whoever waits, and what comes meanwhile
/// makes the instance readable again.
async fn readable(source: &Source) {
    if let Source::Notices(fd) = source
        && let Ok(mut guard) = fd.readable().await
    {
        return guard.clear_ready();
    }
    std::future::pending().await
}

/// What the next pass should be.
struct Next {
    /// Whether it should come soon.
    soon: bool,
    /// Whether there are no notices to wait for.
    polls: bool,
}

fn invalid_query(error: &Error) -> Error {
    Error::new(discovery_core::ErrorKind::InvalidQuery, error.message().to_owned()).with_backend("file")
}

struct Stream {
    news: watch::Receiver<u64>,
    cursor: Cursor,
    ready: VecDeque<WatchEvent>,
    interested: Interested,
}

impl Stream {
    async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            self.news.borrow_and_update();
            let events = self.interested.mirror.log().read(&mut self.cursor);
            if events.is_empty() {
                self.news.changed().await.ok()?;
            } else {
                self.ready.extend(events);
            }
        }
    }
}
