//! What every client saw, in one order.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use discovery_core::{Effect, Error, ErrorKind, Freshness, Key, Query, Scope};
use tokio::time::Instant;

use crate::world::Hook;

/// A place in the order of everything that was recorded.
pub(super) type Seq = usize;
/// A key, by the order in which keys were first seen.
pub(super) type Id = usize;
/// The number under which what no owner wrote is recorded.
pub(super) const FOREIGN: usize = usize::MAX;

/// Which records a reader asks for: leading segments, and even numbers alone or all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lens {
    pub(super) segments: &'static [&'static str],
    pub(super) even: bool,
}

impl Lens {
    pub(super) fn query(&self) -> Query {
        Query::path(self.segments.iter().copied())
    }

    pub(super) fn scope(&self) -> Option<Scope> {
        Scope::new("item", self.segments).ok()
    }

    pub(super) fn covers(&self, other: &Self) -> bool {
        other.segments.starts_with(self.segments)
    }

    pub(super) fn admits(&self, n: u64) -> bool {
        !self.even || n.is_multiple_of(2)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Act {
    /// A new registration of this value.
    Register(u64),
    /// Another value of a registration that is held.
    Update(u64),
    Delete,
}

impl Act {
    pub(super) fn value(self) -> Option<u64> {
        match self {
            Self::Register(n) | Self::Update(n) => Some(n),
            Self::Delete => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Ok,
    /// Without effect.
    Refused(ErrorKind),
    /// Of unknown effect, or nobody waited for it.
    Unknown,
}

impl Answer {
    pub(super) fn of<T>(result: &Result<T, Error>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(error) if error.effect() == Effect::None => Self::Refused(error.kind()),
            Err(_) => Self::Unknown,
        }
    }
}

/// One write of one key.
#[derive(Clone, Debug, Hash)]
pub(super) struct Write {
    pub(super) owner: usize,
    pub(super) key: Id,
    pub(super) act: Act,
    pub(super) start: Seq,
    pub(super) end: Option<Seq>,
    pub(super) answer: Answer,
    /// The first write of the transaction that it was part of.
    pub(super) group: Option<usize>,
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.owner {
            FOREIGN => f.write_str("nobody")?,
            owner => write!(f, "owner {owner}")?,
        }
        write!(f, " {:?} in {}..", self.act, self.start)?;
        if let Some(end) = self.end {
            write!(f, "{end}")?;
        }
        write!(f, " {:?}", self.answer)
    }
}

/// What a reader was told of currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fresh {
    Syncing,
    Live,
    Stale(ErrorKind),
}

impl From<&Freshness> for Fresh {
    fn from(freshness: &Freshness) -> Self {
        match freshness {
            Freshness::Live => Self::Live,
            Freshness::Stale { cause, .. } => Self::Stale(cause.kind()),
            Freshness::Syncing => Self::Syncing,
        }
    }
}

pub(super) type Shown = Vec<(Id, u64)>;

/// A list, from its call to its answer.
#[derive(Clone, Debug, Hash)]
pub(super) struct Listing {
    pub(super) handle: usize,
    pub(super) lens: Lens,
    pub(super) start: Seq,
    pub(super) end: Seq,
    pub(super) shown: Result<Shown, ErrorKind>,
}

/// A view and its stream.
#[derive(Clone, Debug, Hash)]
pub(super) struct Opened {
    pub(super) handle: usize,
    pub(super) lens: Lens,
    pub(super) call: Seq,
    pub(super) answered: Seq,
    pub(super) closed: Option<Seq>,
    pub(super) limit: Duration,
    pub(super) failed: Option<ErrorKind>,
    pub(super) lazy: bool,
    /// Whether the handle had a view of the same records already.
    pub(super) joined: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Tell {
    Added(Id, u64),
    Updated(Id, u64, u64),
    Removed(Id, u64),
}

/// One batch of a view's stream.
#[derive(Clone, Debug, Hash)]
pub(super) struct Told {
    pub(super) view: usize,
    pub(super) at: Seq,
    pub(super) version: u64,
    /// The version of a load right after it.
    pub(super) loaded: u64,
    pub(super) fresh: Fresh,
    pub(super) synced: bool,
    pub(super) reset: bool,
    pub(super) tells: Vec<Tell>,
}

/// One load of a view.
#[derive(Clone, Debug, Hash)]
pub(super) struct Load {
    pub(super) view: usize,
    pub(super) at: Seq,
    pub(super) version: u64,
    pub(super) synced: bool,
    pub(super) fresh: Fresh,
    pub(super) shown: Shown,
    /// A write that the view was proven to have reached.
    pub(super) reached: Option<usize>,
}

/// A fault, from when it was begun to when it was ended.
#[derive(Clone, Debug, Hash)]
pub(super) struct Harm {
    pub(super) hook: Hook,
    pub(super) target: Option<usize>,
    pub(super) key: Option<Id>,
    pub(super) from: Seq,
    /// When it was in force. Never where it failed: it may have happened all the same, so that it excuses, and is not counted.
    pub(super) struck: Option<Seq>,
    /// When somebody began to end it, which may take its time: a server that starts again serves before all of it is up.
    pub(super) ending: Option<Seq>,
    pub(super) to: Option<Seq>,
}

/// The end of a round: everything was healed, and came to this.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Settled {
    /// When healing was done.
    pub(super) healed: Seq,
    pub(super) at: Seq,
    /// Every key that is to be there, with the values it may have.
    pub(super) expected: BTreeMap<Id, Vec<u64>>,
    pub(super) unsettled: Vec<Unsettled>,
}

/// Who did not come to the model's state.
#[derive(Clone, Debug, Hash)]
pub(super) struct Unsettled {
    pub(super) what: Who,
    pub(super) text: String,
    pub(super) missing: usize,
    pub(super) extra: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    List(usize),
    Fold(usize),
    Load(usize),
    Undecodable(usize),
    ChangeLog,
}

/// Everything that was recorded.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// When each entry of the order was made.
    pub(super) times: Vec<Duration>,
    pub(super) keys: Vec<Key>,
    ids: BTreeMap<Key, Id>,
    pub(super) writes: Vec<Write>,
    pub(super) listings: Vec<Listing>,
    pub(super) views: Vec<Opened>,
    pub(super) told: Vec<Told>,
    pub(super) loads: Vec<Load>,
    /// Streams that ended by themselves, and when.
    pub(super) ended: Vec<(usize, Seq)>,
    pub(super) harms: Vec<Harm>,
    pub(super) settled: Vec<Settled>,
    /// What raw lists showed of foreign records that was not what had been written.
    pub(super) rewritten: Vec<(Seq, String)>,
    /// How often each handle opened a watch, and when.
    pub(super) watches: BTreeMap<usize, Vec<Duration>>,
}

impl Log {
    pub(super) fn id(&mut self, key: &Key) -> Id {
        if let Some(id) = self.ids.get(key) {
            return *id;
        }
        self.keys.push(key.clone());
        self.ids.insert(key.clone(), self.keys.len() - 1);
        self.keys.len() - 1
    }

    pub(super) fn time(&self, seq: Seq) -> Duration {
        self.times.get(seq).copied().unwrap_or_default()
    }

    /// The first entry that was made at `time` or later.
    pub(super) fn seq_at(&self, time: Duration) -> Seq {
        self.times.partition_point(|at| *at < time)
    }
}

impl Log {
    /// A hash of what each client did and saw, and when. The order in which different clients act at one instant is not
    /// part of it.
    pub(super) fn digest(&self) -> u64 {
        let mut clients: BTreeMap<(u8, usize), DefaultHasher> = BTreeMap::new();
        let mut of = |sort, number, what: &dyn Fn(&mut DefaultHasher)| what(clients.entry((sort, number)).or_default());
        let shown = |shown: &Shown, hasher: &mut DefaultHasher| {
            shown.iter().for_each(|(key, n)| (&self.keys[*key], n).hash(hasher));
        };
        for write in &self.writes {
            let end = write.end.map(|end| self.time(end));
            let times = (self.time(write.start), end);
            let sort = write.act.value().unwrap_or_default() >> 24;
            of(0, write.owner ^ (sort as usize) << 16, &|hasher| {
                (&self.keys[write.key], write.act, write.answer, times).hash(hasher);
            });
        }
        for told in &self.told {
            of(1, told.view, &|hasher| {
                (self.time(told.at), told.version, told.fresh, told.synced, told.reset).hash(hasher);
                for tell in &told.tells {
                    let (key, values) = match *tell {
                        Tell::Added(key, n) => (key, (None, Some(n))),
                        Tell::Updated(key, old, new) => (key, (Some(old), Some(new))),
                        Tell::Removed(key, n) => (key, (Some(n), None)),
                    };
                    (&self.keys[key], values).hash(hasher);
                }
            });
        }
        for load in &self.loads {
            of(2, load.view, &|hasher| {
                (self.time(load.at), load.version, load.fresh).hash(hasher);
                shown(&load.shown, hasher);
            });
        }
        for listing in &self.listings {
            of(3, listing.handle, &|hasher| {
                (self.time(listing.start), self.time(listing.end), &listing.lens).hash(hasher);
                listing.shown.iter().for_each(|set| shown(set, hasher));
            });
        }
        let mut digest = DefaultHasher::new();
        for (client, hasher) in clients {
            (client, hasher.finish()).hash(&mut digest);
        }
        digest.finish()
    }
}

/// Records, from any task.
pub(super) struct Recorder {
    start: Instant,
    log: Mutex<Log>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), log: Mutex::default() }
    }

    pub(super) fn start(&self) -> Instant {
        self.start
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tick(&self) -> Seq {
        let mut log = self.log();
        self.tick_in(&mut log)
    }

    pub(super) fn tick_in(&self, log: &mut Log) -> Seq {
        log.times.push(self.start.elapsed());
        log.times.len() - 1
    }

    pub(super) fn begin(&self, owner: usize, key: &Key, act: Act, group: Option<usize>) -> usize {
        let mut log = self.log();
        let (key, start) = (log.id(key), self.tick_in(&mut log));
        log.writes.push(Write { owner, key, act, start, end: None, answer: Answer::Unknown, group });
        log.writes.len() - 1
    }

    pub(super) fn end(&self, writes: &[usize], answer: Answer) {
        let mut log = self.log();
        let end = self.tick_in(&mut log);
        for write in writes {
            (log.writes[*write].end, log.writes[*write].answer) = (Some(end), answer);
        }
    }

    pub(super) fn harm(&self, hook: Hook, target: Option<usize>, key: Option<&Key>) -> usize {
        let mut log = self.log();
        let (key, from) = (key.map(|key| log.id(key)), self.tick_in(&mut log));
        log.harms.push(Harm { hook, target, key, from, struck: None, ending: None, to: None });
        log.harms.len() - 1
    }

    pub(super) fn struck(&self, harm: usize) {
        let mut log = self.log();
        let struck = self.tick_in(&mut log);
        log.harms[harm].struck = Some(struck);
    }

    pub(super) fn ending(&self, harm: usize) {
        let mut log = self.log();
        let ending = self.tick_in(&mut log);
        log.harms[harm].ending = Some(ending);
    }

    pub(super) fn healed(&self, harm: usize) {
        let mut log = self.log();
        let to = self.tick_in(&mut log);
        log.harms[harm].to = Some(to);
    }
    /// Those whose own end failed are over too.
    pub(super) fn all_healed(&self) {
        let mut log = self.log();
        let to = self.tick_in(&mut log);
        log.harms.iter_mut().filter(|harm| harm.to.is_none()).for_each(|harm| harm.to = Some(to));
    }
}
