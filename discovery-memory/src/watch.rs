//! Watches: a snapshot or a position, then what history says.

use std::collections::{HashSet, VecDeque};

use discovery_core::backend::{Change, Lineage, Position, WatchEvent, WatchStream};
use discovery_core::{Error, ErrorKind, Result, Scope};
use futures_util::stream;
use tokio::time::Instant;

use crate::bounds::{CHUNK, PROGRESS};
use crate::cluster::Operation;
use crate::handle::Shared;
use crate::link::Passage;
use crate::place::Place;
use crate::reader::Reader;
use crate::state::{Found, Purpose, State};

/// How many transactions may be delivered in another order.
const WINDOW: usize = 64;

/// Opens a watch after `after`. What it begins with is decided when it is first polled.
pub(crate) fn open(handle: &Shared, scope: &Scope, after: Option<&Position>) -> WatchStream {
    let mut state = handle.cluster.state();
    let start = match after {
        None => Start::Fresh,
        Some(position) => Start::After(Place::parse(position)),
    };
    let watch = Watch {
        reader: Reader::open(handle, scope, Purpose::Watch, None, &mut state),
        start: Some(start),
        epoch: state.epoch,
        told: state.revision,
        ready: VecDeque::new(),
        last: Instant::now(),
        over: false,
    };
    drop(state);
    Box::pin(stream::unfold(watch, |mut watch| async {
        let item = watch.next().await?;
        Some((item, watch))
    }))
}

enum Start {
    Fresh,
    After(Option<Place>),
}

struct Watch {
    reader: Reader,
    start: Option<Start>,
    epoch: u64,
    /// The newest revision that the stream has reported.
    told: u64,
    /// Events that belong together: a snapshot's, or at most a window's.
    ready: VecDeque<WatchEvent>,
    /// When it last said something.
    last: Instant,
    over: bool,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchEvent>> {
        while !self.over {
            match self.reader.passage() {
                Passage::Open => {}
                Passage::Hang => {
                    self.reader.link_changed().await;
                    continue;
                }
                Passage::Fail(error) => return self.fail(error),
            }
            if self.ready.is_empty() {
                match self.refill() {
                    Ok(None) => {}
                    Ok(at) => {
                        self.reader.news(at).await;
                        continue;
                    }
                    Err(error) => return self.fail(error),
                }
            }
            if let Some(event) = self.ready.pop_front() {
                self.last = Instant::now();
                return Some(Ok(event));
            }
        }
        None
    }

    fn fail(&mut self, error: Error) -> Option<Result<WatchEvent>> {
        self.over = true;
        Some(Err(self.reader.handle.name(error, Operation::Watch)))
    }

    /// Reads on. Answers until when there is nothing to say, unless it found something.
    fn refill(&mut self) -> Result<Option<Instant>> {
        let handle = self.reader.handle.clone();
        let mut state = handle.cluster.state();
        if let Some(start) = self.start.take() {
            self.begin(start, &mut state);
            return Ok(None);
        }
        if state.epoch != self.epoch {
            self.snapshot(Lineage::Reset, &mut state);
            return Ok(None);
        }
        if self.read(&mut state)? {
            return Ok(None);
        }
        let due = self.last + PROGRESS;
        let nudged = self.reader.take_nudge(&mut state).is_some_and(|target| target > self.told);
        if nudged || due <= Instant::now() {
            self.told = state.revision;
            self.ready.push_back(WatchEvent::Progress(state.here().position()));
            return Ok(None);
        }
        Ok(Some(state.next_due().map_or(due, |at| at.min(due))))
    }

    fn begin(&mut self, start: Start, state: &mut State) {
        let lineage = match start {
            Start::Fresh => Lineage::Unknown,
            Start::After(Some(place)) if place.epoch == state.epoch && place.revision <= state.revision => {
                if place.revision >= state.history.compacted() {
                    self.epoch = place.epoch;
                    self.told = place.revision;
                    let behind = place.revision < state.revision;
                    self.reader.set_pending(state, behind.then_some(place.revision + 1));
                    self.ready.push_back(WatchEvent::Resumed);
                    return;
                }
                Lineage::Same
            }
            Start::After(Some(_)) => Lineage::Reset,
            Start::After(None) => Lineage::Unknown,
        };
        self.snapshot(lineage, state);
    }

    fn snapshot(&mut self, lineage: Lineage, state: &mut State) {
        self.epoch = state.epoch;
        self.told = state.revision;
        self.reader.set_pending(state, None);
        self.ready.push_back(WatchEvent::SnapshotStart { lineage });
        let mut chunk = Vec::new();
        for (key, record) in state.records.within(&self.reader.scope).filter(|(_, record)| state.is_visible(record)) {
            chunk.push(record.entry(key));
            if chunk.len() == CHUNK {
                self.ready.push_back(WatchEvent::SnapshotChunk(std::mem::take(&mut chunk)));
            }
        }
        if !chunk.is_empty() {
            self.ready.push_back(WatchEvent::SnapshotChunk(chunk));
        }
        self.ready.push_back(WatchEvent::SnapshotEnd(state.here().position()));
    }

    /// Takes the next transaction from history, or the next window of them. Answers whether there was one.
    fn read(&mut self, state: &mut State) -> Result<bool> {
        let mut next = self.reader.pending(state);
        let mut window = Vec::new();
        let most = if state.reorder { WINDOW } else { 1 };
        while let Some(from) = next.filter(|_| window.len() < most) {
            match state.history.find(&self.reader.scope, from) {
                Found::Changes(revision, changes) => {
                    window.push((revision, changes));
                    next = (revision < state.revision).then_some(revision + 1);
                }
                Found::Nothing => next = None,
                Found::Compacted => {
                    return Err(Error::new(
                        ErrorKind::Expired,
                        "the watch fell behind the history that is kept: open it again",
                    ));
                }
            }
        }
        self.reader.set_pending(state, next);
        let Some(newest) = window.last().map(|(revision, _)| *revision) else { return Ok(false) };
        let before = self.told;
        self.told = newest;
        let window = if state.reorder { reordered(window) } else { window };
        let last = window.len() - 1;
        for (index, (_, changes)) in window.into_iter().enumerate() {
            // Until all of a window is delivered, only what came before it is proven to be.
            let reached = if index == last { newest } else { before };
            let batch = WatchEvent::Batch { changes, position: state.at(reached).position() };
            if state.duplicate {
                self.ready.push_back(batch.clone());
            }
            self.ready.push_back(batch);
        }
        Ok(true)
    }
}

/// The newest first, as far as those that share a key keep their order.
fn reordered(mut window: Vec<(u64, Vec<Change>)>) -> Vec<(u64, Vec<Change>)> {
    let mut result = Vec::with_capacity(window.len());
    while !window.is_empty() {
        let mut earlier = HashSet::new();
        let mut pick = 0;
        for (index, (_, changes)) in window.iter().enumerate() {
            if changes.iter().all(|change| !earlier.contains(change.key())) {
                pick = index;
            }
            earlier.extend(changes.iter().map(Change::key));
        }
        result.push(window.remove(pick));
    }
    result
}
