//! Watches: a snapshot or a place to go on from, then what the server tells.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::backend::{Change, Lineage, Position, WatchEvent, WatchStream};
use discovery_core::{ErrorKind, Result, Scope};
use etcd_client::{KeyValue, WatchOptions, WatchResponse};
use futures_util::future::join;
use futures_util::stream;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::epoch::Known;
use crate::fault::{Fault, tells_of_token};
use crate::follow::{Following, Heard};
use crate::history::{History, compare};
use crate::link::{Attempt, Link};
use crate::names::Range;
use crate::place::{Place, Witness, Witnesses};
use crate::snapshot::{Pages, RESTARTS};
use crate::store::{Store, revision};

/// How long the server may take to take a watch.
const OPEN: Duration = Duration::from_secs(3);
/// How many answers of the server are told as one batch at most, where they wait together: who is written to all the time
/// has to be shown something, too.
const TOGETHER: usize = 256;
/// How many records of a page are told at once: between two of them the connection reads on, on the same thread perhaps.
const PART: usize = 1_024;

/// Opens a watch after `after`.
pub(crate) async fn open(store: &Arc<Store>, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
    let range = store.names.range(scope)?;
    let mut watch = Watch::new(store, range, Arc::clone(&store.watching));
    watch.together = TOGETHER;
    match after.map(Place::parse) {
        None | Some(None) => watch.begin(Lineage::Unknown),
        Some(Some(place)) => watch.resume(place).await.map_err(|fault| fault.error)?,
    }
    // What keeps the watch from being opened is told at once.
    watch.advance().await?;
    Ok(Box::pin(stream::unfold(watch, |mut watch| async {
        let item = watch.next().await?;
        Some((item, watch))
    })))
}

enum Stage {
    Snapshot {
        pages: Pages,
        /// What was known before it was asked for.
        before: Known,
        lineage: Lineage,
        started: bool,
        /// What is left of the page that was read last.
        rest: std::vec::IntoIter<KeyValue>,
    },
    /// Everything up to a revision is known; the server is asked for what comes next.
    Joining {
        resumed: bool,
    },
    Following(Box<Following>),
    Over,
}

pub(crate) struct Watch {
    store: Arc<Store>,
    link: Arc<Link>,
    range: Range,
    stage: Stage,
    /// Everything up to this revision was told.
    told: i64,
    epoch: u64,
    /// The epoch that incarnations are named after.
    named: u64,
    witnesses: Witnesses,
    /// What proved the history to begin with, where that is no record of the range: nothing more is heard of it.
    elsewhere: Option<Witness>,
    /// How many keys the range has, where it is known.
    held: Option<u64>,
    /// Whether it went on from a place, and has read no snapshot since.
    joined: bool,
    /// Whether anything was told since the server's watch was opened.
    heard: bool,
    /// No snapshot is older than this, in the same history.
    floor: i64,
    restarts: usize,
    /// Events to be told.
    ready: VecDeque<WatchEvent>,
    /// How many answers may be told as one batch. 0: each transaction is a batch of its own.
    together: usize,
}

impl Watch {
    pub(crate) fn new(store: &Arc<Store>, range: Range, link: Arc<Link>) -> Self {
        Self {
            store: Arc::clone(store),
            link,
            range,
            stage: Stage::Over,
            told: 0,
            epoch: store.epoch(),
            named: store.epoch(),
            witnesses: Witnesses::default(),
            elsewhere: None,
            held: None,
            joined: false,
            heard: false,
            floor: 0,
            restarts: 0,
            ready: VecDeque::new(),
            together: 0,
        }
    }

    /// Goes on from `place` without asking whether that is possible.
    pub(crate) fn join(&mut self, place: Place) {
        self.told = place.revision;
        self.floor = place.revision;
        (self.epoch, self.named) = (place.epoch, place.named);
        (self.held, self.joined) = (place.held, true);
        let own = place.witness.as_ref().is_some_and(|witness| self.range.holds(&witness.stored));
        let (own, elsewhere) = if own { (place.witness, None) } else { (None, place.witness) };
        (self.witnesses, self.elsewhere) = (Witnesses::with(own), elsewhere);
        self.stage = Stage::Joining { resumed: true };
    }

    /// Goes on from `place` if the store still has its history.
    async fn resume(&mut self, place: Place) -> Result<(), Fault> {
        self.floor = place.revision;
        (self.epoch, self.named) = (place.epoch, place.named);
        match compare(&self.store, &self.range, &place).await? {
            History::Continues if self.store.is_of_lost_history(&place) => self.begin_in_doubt(),
            // What cannot be followed is read.
            History::Continues if self.store.backlogs.was_too_long(&self.range, place.revision) => {
                self.begin(Lineage::Same);
            }
            History::Continues => self.join(place),
            _ if self.store.is_of_lost_history(&place) => self.reset(),
            History::Compacted => self.begin(Lineage::Same),
            History::Unproven => self.begin(Lineage::Unknown),
            History::Other => self.reset(),
        }
        Ok(())
    }

    /// Begins a snapshot where a place may be of the history that came after a loss, or from before what was lost: what
    /// proves a record proves nothing of what came and went between it and the place.
    fn begin_in_doubt(&mut self) {
        self.epoch = self.store.epoch();
        self.begin(Lineage::Same);
    }

    /// Begins a snapshot.
    fn begin(&mut self, lineage: Lineage) {
        let (pages, before) = (Pages::new(&self.store, &self.range), self.store.known());
        self.stage = Stage::Snapshot { pages, before, lineage, started: false, rest: Vec::new().into_iter() };
    }

    /// The store was proven to have lost data.
    fn reset(&mut self) {
        self.epoch = self.store.lost_data(self.epoch);
        self.named = self.epoch;
        self.floor = 0;
        self.begin(Lineage::Reset);
    }

    /// Begins a snapshot again, a few times.
    fn restart(&mut self, lineage: Lineage, fault: Fault) -> Result<(), Fault> {
        self.restarts += 1;
        if self.restarts > RESTARTS {
            return Err(fault);
        }
        self.begin(lineage);
        Ok(())
    }

    fn place(&self) -> Place {
        let witness = self.witnesses.newest().filter(|witness| witness.modified <= self.told);
        let witness = witness.or(self.elsewhere.as_ref()).cloned();
        Place { witness, named: self.named, held: self.held, ..self.store.place(self.epoch, self.told) }
    }

    fn position(&self) -> Position {
        self.place().position()
    }

    /// Opens the server's watch, for a log: what keeps it from being opened is told at once.
    pub(crate) async fn open_log(&mut self) -> Result<()> {
        self.advance().await
    }

    /// The next event; `None` after an error.
    pub(crate) async fn next(&mut self) -> Option<Result<WatchEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if matches!(self.stage, Stage::Over) {
                return None;
            }
            if let Err(error) = self.advance().await {
                return Some(Err(error));
            }
        }
    }

    /// One step. After an error the watch is over.
    async fn advance(&mut self) -> Result<()> {
        let step = match &self.stage {
            Stage::Snapshot { .. } => self.read().await,
            Stage::Joining { resumed } => {
                let resumed = *resumed;
                self.ask(resumed).await
            }
            Stage::Following(_) => self.follow().await,
            Stage::Over => Ok(()),
        };
        step.map_err(|fault| {
            if let Stage::Following(following) = &self.stage {
                let late = self.joined && !self.heard && fault.error.kind() == ErrorKind::Timeout;
                if late && following.is_sent_much() {
                    self.store.backlogs.is_too_long(&self.range, self.told);
                }
                if fault.broken {
                    self.link.leave(following.wire());
                }
            }
            self.stage = Stage::Over;
            fault.error
        })
    }

    /// The next part of the snapshot.
    async fn read(&mut self) -> Result<(), Fault> {
        let Stage::Snapshot { pages, before, lineage, started, rest } = &mut self.stage else { return Ok(()) };
        if rest.len() > 0 {
            let part = rest.by_ref().take(PART);
            let entries: Vec<_> = part.filter_map(|record| self.store.entry(self.named, record)).collect();
            if !entries.is_empty() {
                self.ready.push_back(WatchEvent::SnapshotChunk(entries));
            }
            yield_now().await;
            return Ok(());
        }
        let page = if *started {
            pages.next().await
        } else {
            // The connection that will be watched on is made meanwhile. Where it is not, the watch will say why.
            join(pages.next(), self.link.wire()).await.0
        };
        let page = match page {
            Ok(page) => page,
            Err(fault) if fault.error.kind() == ErrorKind::Expired => {
                let lineage = *lineage;
                return self.restart(lineage, fault);
            }
            Err(fault) => return Err(fault),
        };
        if pages.revision() < self.floor {
            self.reset();
            return Ok(());
        }
        if !*started {
            let epoch = self.store.answered(*before, pages.revision()).epoch;
            if epoch > self.epoch && self.floor > 0 {
                self.reset();
                return Ok(());
            }
            self.epoch = self.epoch.max(epoch);
            if *lineage != Lineage::Same {
                self.named = self.named.max(epoch);
            }
            *started = true;
            (self.witnesses, self.elsewhere) = (Witnesses::default(), None);
            (self.held, self.joined) = (Some(0), false);
            self.ready.push_back(WatchEvent::SnapshotStart { lineage: *lineage });
        }
        match page {
            Some(records) => {
                self.witnesses.saw_page(&records);
                self.held = self.held.map(|held| held + records.len() as u64);
                *rest = records.into_iter();
            }
            None => {
                self.told = pages.revision();
                self.floor = self.told;
                self.store.told(self.epoch, self.told);
                self.stage = Stage::Joining { resumed: false };
            }
        }
        Ok(())
    }

    /// Whether a loss of data was proven that this watch has not taken note of.
    fn is_outdated(&self) -> bool {
        self.store.epoch() > self.epoch
    }

    /// Finds out which history the watch is of, after a loss of data was proven elsewhere.
    async fn place_anew(&mut self) -> Result<(), Fault> {
        let epoch = self.store.epoch();
        match compare(&self.store, &self.range, &self.place()).await? {
            History::Continues if self.joined => self.begin_in_doubt(),
            // It began after the loss, or had not come to what was lost.
            History::Continues => self.epoch = epoch,
            _ => self.reset(),
        }
        Ok(())
    }

    /// Opens the server's watch of what comes after `told`.
    async fn ask(&mut self, resumed: bool) -> Result<(), Fault> {
        if self.is_outdated() {
            return self.place_anew().await;
        }
        let wire = self.link.wire().await?;
        let attempt = Attempt::new(&self.link, &wire);
        let options = WatchOptions::new().with_range(self.range.end.clone()).with_start_revision(self.told + 1);
        let key = &self.range.start;
        let create = || async {
            let mut stream = wire.watch.clone().watch(key.clone(), Some(options.clone())).await?;
            let created = stream.message().await?;
            Ok::<_, etcd_client::Error>((stream, created))
        };
        let opening = async {
            let (stream, created) = create().await?;
            // etcd says it with a watch that is created and ended. The client signs in anew where a call fails, and once for all.
            if created.as_ref().is_some_and(|refused| refused.canceled() && tells_of_token(reason(refused))) {
                revision(wire.clone(), key.clone()).await?;
                return create().await;
            }
            Ok((stream, created))
        };
        let opened = timeout(OPEN, opening).await;
        attempt.ended();
        let outcome = match opened {
            Ok(Ok((stream, Some(created)))) if !created.canceled() => Ok(stream),
            Ok(Ok((_, Some(refused)))) => Err(wire.canceled(reason(&refused))),
            Ok(Ok((_, None))) => Err(wire.canceled("the stream ended")),
            Ok(Err(error)) => Err(wire.failed(&error)),
            Err(_) => Err(Fault::silent(&wire.endpoint, OPEN)),
        };
        let stream = match outcome {
            Ok(stream) => stream,
            Err(fault) if fault.error.kind() == ErrorKind::Expired => return self.restart(Lineage::Same, fault),
            Err(fault) => {
                if fault.broken {
                    self.link.leave(&wire);
                }
                return Err(fault);
            }
        };
        let event = if resumed { WatchEvent::Resumed } else { WatchEvent::SnapshotEnd(self.position()) };
        self.ready.push_back(event);
        let awaited = self.store.awaited.subscribe(&self.range);
        self.stage = Stage::Following(Box::new(Following::new(wire, stream, self.range.clone(), awaited)));
        Ok(())
    }

    /// Waits for something from the server and takes note of it.
    async fn follow(&mut self) -> Result<(), Fault> {
        let Stage::Following(following) = &mut self.stage else { return Ok(()) };
        let heard = following.hear(self.told, self.witnesses.newest().is_none()).await?;
        self.heard |= !matches!(heard, Heard::Nothing);
        match heard {
            Heard::Nothing => {}
            Heard::Message(message) if message.canceled() => {
                let fault = following.wire().canceled(reason(&message));
                if fault.error.kind() == ErrorKind::Expired {
                    return self.restart(Lineage::Same, fault);
                }
                return Err(fault);
            }
            Heard::Message(message) => {
                let mut changes = Vec::new();
                self.take(&message, &mut changes);
                for _ in 1..self.together {
                    let Stage::Following(following) = &mut self.stage else { break };
                    let Some(message) = following.more() else { break };
                    self.take(&message, &mut changes);
                }
                self.tell(changes);
            }
            Heard::InStep { .. } if self.is_outdated() => self.place_anew().await?,
            Heard::InStep { witness } => {
                if let Some(witness) = witness {
                    self.witnesses = Witnesses::with(Some(witness));
                }
                self.ready.push_back(WatchEvent::Progress(self.position()));
            }
            Heard::WentBack => self.reset(),
        }
        Ok(())
    }

    /// Takes note of an answer. The server never divides a revision between two answers to a watch that did not ask for
    /// fragments (`eventBatch.add` in etcd's `watcher_group.go`).
    fn take(&mut self, message: &WatchResponse, changes: &mut Vec<Change>) {
        self.restarts = 0;
        let mut events = message.events().iter().filter_map(etcd_client::Event::kv).peekable();
        if events.peek().is_none() {
            // An answer to a request for progress: everything up to this revision was sent before it.
            let revision = message.header().map_or(0, etcd_client::ResponseHeader::revision);
            if !message.created() && revision > self.told {
                self.told = revision;
                self.store.told(self.epoch, self.told);
                self.ready.push_back(WatchEvent::Progress(self.position()));
            }
            return;
        }
        let known = self.told;
        while let Some(record) = events.next() {
            let revision = record.mod_revision();
            if revision > known {
                if record.create_revision() == 0 {
                    self.held = self.held.map(|held| held.saturating_sub(1));
                    self.witnesses.gone(record.key());
                } else {
                    self.held = self.held.map(|held| held + u64::from(record.version() == 1));
                    self.witnesses.saw(record);
                }
                changes.extend(self.store.change(self.named, record));
            }
            let whole = events.peek().is_none_or(|next| next.mod_revision() != revision);
            if whole {
                self.told = self.told.max(revision);
                if self.together == 0 {
                    self.tell(std::mem::take(changes));
                }
            }
        }
    }

    /// Tells what was taken note of: whole transactions, or none.
    fn tell(&mut self, changes: Vec<Change>) {
        self.store.told(self.epoch, self.told);
        let position = self.position();
        match (changes.is_empty(), self.ready.back()) {
            (false, _) => self.ready.push_back(WatchEvent::Batch { changes, position }),
            (true, None) => self.ready.push_back(WatchEvent::Progress(position)),
            (true, Some(_)) => {}
        }
    }
}

fn reason(message: &WatchResponse) -> &str {
    if message.compact_revision() > 0 { "required revision has been compacted" } else { message.cancel_reason() }
}
