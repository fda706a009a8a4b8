//! One resource type, kept in sight: a list, a watch from there, and again when either breaks.
//!
//! The states and what leads from one to the next:
//!
//! ```text
//!            ┌─────────────── history gone (410, in any form) ──────────────┐
//!            v                                                              │
//!   stream ──┴─ refused for good ─> list ── complete ──> watch <── resumes ─┤
//!     └──────────── initial events complete ──────────────^ └── breaks ─────┘
//! ```
//!
//! A watch that ends is resumed from the newest version seen; nothing is told of that. One that cannot be resumed at
//! once is `Interrupted`, then `Recovered`; so are watches that end before they are of any use, twice in a row. Delays grow
//! with every failure and start over when an event came, or when a watch has lasted; a list alone proves nothing. History that
//! is gone is no failure, unless it is so twice in a row. But what is no failure is told, too, where it keeps anybody from
//! seeing what happens: by a delay that has grown, or since it takes long to read everything anew.
//!
//! Lists, streamed ones too, name no version, so that they hold all that was written before they began. One that is
//! older than what was seen proves that the store went back. A watch from a version to come would say nothing of that: the
//! server accepts it, and passes over everything before. So the store is asked where it is before a watch is resumed, and
//! a watch that has gone silent is not resumed.
//!
//! A streamed list that breaks off is read in pages, and a page that takes too long in smaller ones. Neither lasts: the next list
//! is streamed again, unless the server refuses that or has broken off several in a row, and pages that come soon grow again.
//!
//! A first state may take longer to read than anybody waits for a word, so each answer that is a part of it is told as `Reading`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::{Backoff, Error, ErrorKind};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::bounds::{PROPAGATION, RECOVERY};
use crate::join::Object;
use crate::readiness::Ref;
use crate::source::Counted;

mod anew;
mod counting;
mod reading;
#[cfg(test)]
mod tests;

use anew::{Step, in_time};
pub(crate) use counting::count;
pub(crate) use reading::{PAGE, Page, Part, REQUEST, read_or_absent};
use reading::{PAGED_TRIES, is_absent, is_slow, larger, limited, smaller};

/// Bookmarks come about once a minute: a watch that is silent for longer is dead.
const SILENCE: Duration = Duration::from_secs(100);
/// A watch that lasted this long is proof of progress.
const LASTED: Duration = Duration::from_secs(10);
/// A watch that stands for this long, and to which nothing has come for as long, is one again, after others that ended at once, and
/// has told what was missed before it: with the longest pause before it, well within `R`. One to which what was missed still comes
/// has told it with the event that is as new as the store was.
const STANDS: Duration = RECOVERY.checked_div(4).expect("a constant");
/// How often it is asked whether a resource type has come to be.
const ABSENT: Duration = Duration::from_secs(1);
/// How often it is told of a streamed list that it goes on.
const TELLS: Duration = Duration::from_secs(1);
/// How many streamed lists in a row may come to nothing before none is asked for any more.
const STREAM_TRIES: u32 = 3;

/// One object, as it was at a version.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) name: Ref,
    pub(crate) version: u64,
    pub(crate) object: Object,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Put(Seen),
    Gone(Ref, u64),
    Bookmark {
        version: u64,
        /// Whether the initial events of a streamed list are complete.
        complete: bool,
    },
}

/// Why a request failed, as far as it decides what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The history that was asked for is gone.
    Gone,
    /// The store is behind what was asked for, or behind what was seen.
    Behind,
    /// Not even bookmarks come.
    Silent,
    /// The server does not stream lists.
    NoStreaming,
    /// A list that was being streamed came to nothing.
    BrokeOff,
    /// The answer is that of a cluster which has no such resource type.
    Absent,
    Other,
}

/// A request that failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    pub(crate) error: Error,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// After a version.
    After(u64),
    /// With everything there is: a streamed list.
    Everything,
}

pub(crate) type Events = BoxStream<'static, Result<Event, Failure>>;

/// Where the objects of one resource type come from. Every call may be dropped at any await.
#[async_trait]
pub(crate) trait Source: Send + Sync + 'static {
    /// `size`: of a page.
    async fn list(&self, part: Part, size: u32) -> Result<Page, Failure>;
    async fn watch(&self, start: Start) -> Result<Events, Failure>;
    /// Where the store is now.
    async fn version(&self) -> Result<u64, Failure>;
    /// Whether the cluster says, when it is asked for its resource types, that this one is not among them.
    async fn is_absent(&self) -> bool;
}

/// What a reflector tells.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// These objects are all that there are.
    All {
        objects: Vec<Seen>,
        version: u64,
        /// The store went back in time.
        reset: bool,
    },
    Put(Seen),
    Gone(Ref, u64),
    /// Nothing happened up to this version.
    At(u64),
    /// The first state is being read: the server answers.
    Reading,
    Interrupted(Error),
    Recovered,
}

/// What is known beside a reflector of the watch that it is for.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    /// How far it has come: by what it was told, or by what was counted since.
    pub(crate) version: AtomicU64,
    /// How far it has to come: the newest census that it was told of.
    pub(crate) counted: AtomicU64,
    /// Tells the reflector that the store went back.
    pub(crate) back: Notify,
}

impl Mark {
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn counted(&self) -> u64 {
        self.counted.load(Ordering::Acquire)
    }
}

/// What a reflector tells, for as long as it is polled.
pub(crate) fn follow(source: Arc<dyn Counted>, mark: Arc<Mark>) -> BoxStream<'static, Told> {
    let reflector = Reflector {
        source,
        mark,
        floor: 0,
        counted: 0,
        state: State::Begin,
        version: 0,
        target: 0,
        synced: false,
        broken: false,
        streaming: true,
        broke_off: 0,
        size: PAGE,
        paged_tries: 0,
        gone: 0,
        ended: 0,
        absent: false,
        told: VecDeque::new(),
        anew: None,
        pause: None,
        backoff: Backoff::new(RECOVERY / 2),
    };
    in_time(stream::unfold(reflector, |mut reflector| async move { Some((reflector.next().await, reflector)) }).boxed())
}

enum State {
    /// Nothing is known, or what is known is outdated.
    Begin,
    /// The pages of a list up to now, the next of which is asked for.
    Paging { pages: Page, next: String },
    /// The first events of a streamed list.
    Streaming {
        events: Events,
        objects: BTreeMap<Ref, Seen>,
        /// When it was told that they come.
        told: Instant,
    },
    Watching {
        events: Events,
        since: Instant,
        /// When the newest event came, if any did.
        heard: Option<Instant>,
    },
    /// The watch goes on after the newest version, which was listed just now or is compared with the store's.
    Resume { listed: bool },
}

struct Reflector {
    source: Arc<dyn Counted>,
    mark: Arc<Mark>,
    /// How far the watch had come before the newest request. An answer that is below it proves that the store went back.
    floor: u64,
    /// How far it had to come by then.
    counted: u64,
    state: State,
    /// The newest version seen.
    version: u64,
    /// Where the store was when the watch was resumed.
    target: u64,
    synced: bool,
    /// Whether `Interrupted` was the last word.
    broken: bool,
    streaming: bool,
    /// How many streamed lists in a row came to nothing.
    broke_off: u32,
    /// Of a page.
    size: u32,
    paged_tries: u32,
    /// How often the history was gone since the last progress.
    gone: u32,
    /// How many watches in a row ended before anything was heard of them.
    ended: u32,
    /// Whether it was told that the resource type is not there.
    absent: bool,
    told: VecDeque<Told>,
    /// Why everything is read anew from now on, without a word.
    anew: Option<Error>,
    /// What is waited for before the next request, once everything is told.
    pause: Option<Duration>,
    backoff: Backoff,
}

impl Reflector {
    async fn next(&mut self) -> Step {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Step::Told(told);
            }
            if let Some(error) = self.anew.take() {
                return Step::Anew(error);
            }
            if let Some(pause) = self.pause.take() {
                sleep(pause).await;
            }
            if let Err(failure) = self.step().await {
                self.failed(failure).await;
            }
        }
    }

    /// One request, or one event.
    async fn step(&mut self) -> Result<(), Failure> {
        if matches!(self.state, State::Begin | State::Resume { .. }) {
            self.floor = self.version.max(self.mark.version());
            self.counted = self.mark.counted();
        }
        match &mut self.state {
            State::Begin if self.streaming => {
                let events = limited(self.source.watch(Start::Everything)).await?;
                self.state = State::Streaming { events, objects: BTreeMap::new(), told: Instant::now() };
                self.reading();
            }
            State::Begin => {
                let part = if self.paged_tries >= PAGED_TRIES { Part::Whole } else { Part::First };
                let page = self.page(part).await?;
                self.paged(page);
            }
            State::Paging { pages, next } => {
                let (mut pages, part) = (std::mem::take(pages), Part::Next(std::mem::take(next)));
                let page = self.page(part).await?;
                pages.objects.extend(page.objects);
                pages.next = page.next;
                self.paged(pages);
            }
            State::Streaming { events, objects, told } => {
                match heard(events, REQUEST).await.map_err(broke_off)? {
                    Some(Event::Put(seen)) => drop(objects.insert(seen.name.clone(), seen)),
                    Some(Event::Gone(name, _)) => drop(objects.remove(&name)),
                    Some(Event::Bookmark { version, complete: true }) => {
                        // The stream goes on as a watch.
                        let state = std::mem::replace(&mut self.state, State::Begin);
                        let State::Streaming { events, objects, .. } = state else { return Ok(()) };
                        self.broke_off = 0;
                        self.state = if self.complete(objects.into_values().collect(), version) {
                            State::Watching { events, since: Instant::now(), heard: None }
                        } else {
                            State::Resume { listed: false }
                        };
                        return Ok(());
                    }
                    Some(Event::Bookmark { .. }) => {}
                    None => return Err(broke_off(other("the API server ended a list that it was streaming"))),
                }
                if told.elapsed() >= TELLS {
                    *told = Instant::now();
                    self.reading();
                }
            }
            State::Resume { listed } => {
                let listed = *listed;
                self.target = if listed { self.version } else { limited(self.source.version()).await? };
                if !listed && self.target < self.floor {
                    return Err(behind());
                }
                let events = limited(self.source.watch(Start::After(self.version))).await?;
                self.state = State::Watching { events, since: Instant::now(), heard: None };
                if !self.is_ending() {
                    self.caught_up();
                }
            }
            State::Watching { events, since, heard: was_heard } => {
                let quiet = was_heard.unwrap_or(*since);
                let event = tokio::select! {
                    // What has come is heard before it is said that nothing comes.
                    biased;
                    () = self.mark.back.notified() => return Err(behind()),
                    event = heard(events, SILENCE) => event?,
                    () = sleep_until(quiet + STANDS), if self.broken => {
                        self.mended();
                        return Ok(());
                    }
                };
                if event.is_some() {
                    *was_heard = Some(Instant::now());
                }
                match event {
                    Some(event) => self.hear(event),
                    None => self.ended(),
                }
            }
        }
        Ok(())
    }

    async fn page(&mut self, part: Part) -> Result<Page, Failure> {
        let asked = Instant::now();
        let page = limited(self.source.list(part, self.size)).await;
        match &page {
            // What took long once need not for ever.
            Ok(_) => self.size = larger(self.size, asked.elapsed(), PAGE),
            Err(failure) => {
                if is_slow(failure) {
                    self.size = smaller(self.size);
                }
                self.paged_tries = if failure.cause == Cause::Gone { self.paged_tries + 1 } else { 0 };
            }
        }
        page
    }

    /// The pages up to now, which may be all that there are.
    fn paged(&mut self, mut pages: Page) {
        if let Some(next) = pages.next.take() {
            self.state = State::Paging { pages, next };
            self.reading();
        } else {
            self.paged_tries = 0;
            self.state = State::Resume { listed: self.complete(pages.objects, pages.version) };
        }
    }

    fn reading(&mut self) {
        if !self.synced {
            self.told.push_back(Told::Reading);
        }
    }

    fn hear(&mut self, event: Event) {
        self.ended = 0;
        let (version, told) = match event {
            Event::Put(seen) => (seen.version, Told::Put(seen)),
            Event::Gone(name, version) => (version, Told::Gone(name, version)),
            Event::Bookmark { version, .. } => (version, Told::At(version)),
        };
        if version > self.version {
            self.version = version;
            self.progressed();
        }
        self.told.push_back(told);
        self.caught_up();
    }

    /// A watch that was accepted is no recovery: what was missed comes in it, or the word that the server no longer has that.
    fn caught_up(&mut self) {
        if self.version >= self.target {
            self.mended();
        }
    }

    /// The server ends every watch after some minutes. What ends each at once tells nothing of what happens meanwhile.
    fn ended(&mut self) {
        if let State::Watching { since, heard, .. } = self.state {
            self.state = State::Resume { listed: false };
            if since.elapsed() >= LASTED {
                self.progressed();
            } else if heard.is_none() {
                self.ended += 1;
                let pause = self.backoff.next();
                if self.is_ending() {
                    let text =
                        "watches end as soon as they are opened: look at the API server, and at proxies before it";
                    self.interrupted(Error::new(ErrorKind::Unavailable, text));
                } else if pause > PROPAGATION {
                    self.interrupted(Error::new(ErrorKind::Unavailable, "a watch ended as soon as it was opened"));
                }
                self.pause = Some(pause);
            }
        }
    }

    /// Once may happen to anybody.
    fn is_ending(&self) -> bool {
        self.ended > 1
    }

    fn progressed(&mut self) {
        self.backoff.reset();
        (self.gone, self.ended) = (0, 0);
    }

    fn interrupted(&mut self, error: Error) {
        self.broken = true;
        self.told.push_back(Told::Interrupted(error));
    }

    /// Answers whether the list is as new as all that is known. One that a census has overtaken is older, and so is one of a
    /// store that went back while it was read: which of them it is the store is asked.
    fn complete(&mut self, objects: Vec<Seen>, version: u64) -> bool {
        // What somebody found before is in the list.
        let _ = self.mark.back.notified().now_or_never();
        let reset = self.synced && version < self.floor;
        (self.version, self.synced, self.absent) = (version, true, false);
        self.streaming = self.broke_off < STREAM_TRIES;
        self.told.push_back(Told::All { objects, version, reset });
        self.mended();
        reset || version >= self.mark.version()
    }

    fn mended(&mut self) {
        if std::mem::take(&mut self.broken) {
            self.told.push_back(Told::Recovered);
        }
    }

    async fn failed(&mut self, failure: Failure) {
        let Failure { cause, error } = failure;
        if matches!(self.state, State::Watching { since, .. } if since.elapsed() >= LASTED) {
            self.gone = 0;
        }
        let resumes = self.synced && matches!(self.state, State::Resume { .. } | State::Watching { .. });
        self.state = if resumes && cause == Cause::Other { State::Resume { listed: false } } else { State::Begin };
        match cause {
            Cause::NoStreaming | Cause::BrokeOff if self.streaming => {
                tracing::debug!(%error, "the API server streams no list: it is read in pages");
                self.streaming = false;
                self.broke_off = if cause == Cause::NoStreaming { STREAM_TRIES } else { self.broke_off + 1 };
            }
            Cause::Absent if is_absent(&*self.source).await => {
                let was_absent = std::mem::replace(&mut self.absent, true);
                if !was_absent {
                    tracing::warn!(%error, "the resource type is not there: it is looked for again and again");
                }
                // Nothing is there after all that was counted before this was asked, and none of it will be seen. A census may
                // have found a type that came and went.
                if !was_absent || self.counted > self.version {
                    (self.version, self.synced) = (self.version.max(self.counted), true);
                    self.told.push_back(Told::All { objects: Vec::new(), version: self.version, reset: false });
                }
                self.mended();
                self.pause = Some(ABSENT);
            }
            // History ends in the best of stores: that is no failure, unless it happens again and again. Tokens of pages
            // are counted by themselves.
            Cause::Gone if self.gone == 0 || (1..=PAGED_TRIES).contains(&self.paged_tries) => {
                tracing::debug!(%error, "the history is gone: everything is read anew");
                self.gone += u32::from(self.paged_tries == 0);
                self.reading();
                let pause = self.backoff.next();
                // Nobody sees what happens before it is read. A type that is not there has nothing that could.
                if self.synced && !self.absent && !self.broken {
                    if pause > PROPAGATION {
                        self.interrupted(error);
                    } else {
                        self.anew = Some(error);
                    }
                }
                self.pause = Some(pause);
            }
            _ => {
                self.interrupted(error);
                self.pause = Some(self.backoff.next());
            }
        }
    }
}

async fn heard(events: &mut Events, silence: Duration) -> Result<Option<Event>, Failure> {
    match timeout(silence, events.next()).await {
        Ok(event) => event.transpose(),
        Err(_) => {
            let error = Error::new(ErrorKind::Unavailable, format!("the watch went silent for {silence:?}"));
            Err(Failure { cause: Cause::Silent, error })
        }
    }
}

/// Whatever keeps a list from being streamed, the same list can be read in pages.
fn broke_off(failure: Failure) -> Failure {
    match failure.cause {
        Cause::Other | Cause::Behind | Cause::Silent => Failure { cause: Cause::BrokeOff, ..failure },
        _ => failure,
    }
}

fn behind() -> Failure {
    let error =
        Error::new(ErrorKind::Unavailable, "the cluster's store went back to an earlier state: it is read anew");
    Failure { cause: Cause::Behind, error }
}

fn other(text: &str) -> Failure {
    Failure { cause: Cause::Other, error: Error::new(ErrorKind::Unavailable, text) }
}
