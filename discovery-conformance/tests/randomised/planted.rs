//! Planted errors: for each class of them, the validator that it is planted for must find it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use discovery_conformance::history::{Config, Spoil, run, statements};
use discovery_conformance::{Factory, Hook};
use discovery_core::backend::{
    Backend, Change, Desired, Drift, Entry, Incarnation, Lineage, Position, Session, SessionRequest, Stamp, WatchEvent,
    WatchStream, Write, WriteBatch,
};
use discovery_core::{Effect, Error, ErrorKind, Key, Result, Scope};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::docs;
use super::watching::*;
use super::wrap::{Make, Twist, Twisted};
use super::writing::*;
use discovery_conformance::backends::Memory;

/// What is wrong, beside the faults.
enum Plant {
    /// The backend.
    Twist(Make),
    /// The observer: what the core makes impossible whatever the backend does.
    Spoil(Spoil),
    /// A client that does what it should not.
    Watching,
}

fn twist<T: Twist + Default>() -> Plant {
    Plant::Twist(|| Arc::new(T::default()))
}

/// The statement whose validator must find it, what is planted, and the faults that bring it out.
type Row = (&'static str, &'static str, fn() -> Plant, &'static [Hook]);

macro_rules! planted {
    ($($statement:literal $name:ident {$($hook:ident),*};)*) => {
        const PLANTED: &[Row] = &[$(($statement, stringify!($name), twist::<$name>, &[$(Hook::$hook),*])),*];
    };
}

planted! {
    "REG 1" AnswersBeforeItIsStored {};
    "REG 1" ListsAnOldState {};
    "REG 2" DeniesALostAcknowledgement {DropAcks, Outage, Cut};
    "REG 4" UpdatesByRemoving {};
    "REG 6" LoserWaitsForItsTurn {};
    "REG 9" WritesAgainLater {};
    "REG 11" AnswersBeforeItIsRemoved {};
    "REG 11" LosesRemovals {};
    "LIV 5" NeverSaysThatItIsPutBack {Revoke};
    "WAT 1" PropagatesTooLate {};
    "WAT 1" StaysStale {Cut, LeaderChange};
    "WAT 2" SnapshotsMissOne {};
    "WAT 3" StartsEmpty {};
    "WAT 4" LosesTheFirstChange {};
    "WAT 6" DeafWhereThereIsNothing {};
    "WAT 7" RunsBehind {};
    "ORD 1" FlashesBack {};
    "ORD 2" LosesEveryFifthChange {};
    "ORD 2" ListsWhatItHadBefore {DropAcks};
    "ORD 3" KeepAliveLooksLikeAChange {};
    "ORD 5" NeverChangesIncarnation {};
    "ORD 7" TearsTransactions {};
    "ORD 8" BarrierSaysNothing {};
    "ORD 9" ReachedSaysYes {};
    "ORD 10" LogBeginsNow {Outage, LeaderChange};
    "FLT 1" ResumesFromNow {Cut};
    "FLT 2" KeepsTheDeletedOfAGap {Cut, Compact};
    "FLT 3" ShowsHalfASnapshotFirst {Cut, Compact};
    "FLT 4" ForgetsIncarnationsOverGaps {Cut};
    "FLT 5" RenamesIncarnations {LeaderChange, Compact};
    "FLT 6" NeverNoticesADeadConnection {HalfOpen};
    "FLT 7" RenamesIncarnations {LeaderChange, Compact};
    "FLT 7" LosesRecordsWithAMember {LoseMember};
    "FLT 8" HidesABrokenConnection {Outage};
    "FLT 8" EmptyOnError {Outage};
    "FLT 8" StaysStale {Outage};
    "FLT 9" PutsNothingBack {Outage};
    "FLT 10" PutsNothingBack {LoseData};
    "FLT 11" EmptyWhenOutOfReach {Cut};
    "FLT 12" EndsForGoodOnAFailure {Cut};
    "FLT 13" ProgressesOnADeadConnection {Outage};
    "FLT 14" DiesOfAnUndecodableRecord {Write, Delete};
    "FLT 14" SkipsWhatItCannotRead {Write, Delete};
    "FLT 15" PermissionIsUntyped {Deny};
    "FLT 15" StaysStale {Deny};
    "FLT 16" DropsUnknownFields {Write, Delete};
    "RDY 1" IgnoresReadiness {Ready};
}

const OTHERS: &[Row] = &[
    ("WAT 5", "the first state again", || Plant::Spoil(Spoil::FirstAgain), &[]),
    ("WAT 8", "a watch of an owner that only registers", || Plant::Watching, &[]),
    ("ORD 4", "added twice", || Plant::Spoil(Spoil::AddedTwice), &[]),
    ("ORD 6", "a version that goes back", || Plant::Spoil(Spoil::VersionBack), &[]),
    ("ORD 6", "a load behind its batch", || Plant::Spoil(Spoil::LoadBehind), &[]),
];

/// Turns each event of a watch into others.
fn turned(
    inner: WatchStream,
    mut turn: impl FnMut(Result<WatchEvent>) -> Vec<Result<WatchEvent>> + Send + 'static,
) -> WatchStream {
    inner.flat_map(move |event| stream::iter(turn(event))).boxed()
}

/// Each event comes late, and not so late that the watch counts as silent: it is live and behind by more than its bound.
#[derive(Default)]
struct RunsBehind;

#[async_trait]
impl Twist for RunsBehind {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        late(stream, Duration::from_millis(500))
    }
}

/// A snapshot lacks the first of its records.
#[derive(Default)]
struct SnapshotsMissOne;

#[async_trait]
impl Twist for SnapshotsMissOne {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        turned(stream, |event| match event {
            Ok(WatchEvent::SnapshotChunk(mut chunk)) => {
                chunk.pop();
                vec![Ok(WatchEvent::SnapshotChunk(chunk))]
            }
            other => vec![other],
        })
    }
}

/// The first snapshot of a watch is empty, whatever there is.
#[derive(Default)]
struct StartsEmpty;

#[async_trait]
impl Twist for StartsEmpty {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        turned(stream, |event| match event {
            Ok(WatchEvent::SnapshotChunk(_)) => Vec::new(),
            other => vec![other],
        })
    }
}

/// What is watched before there is anything is never heard of.
#[derive(Default)]
struct DeafWhereThereIsNothing;

#[async_trait]
impl Twist for DeafWhereThereIsNothing {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        let mut any = false;
        turned(stream, move |event| match event {
            Ok(WatchEvent::SnapshotChunk(chunk)) => {
                any |= !chunk.is_empty();
                vec![Ok(WatchEvent::SnapshotChunk(chunk))]
            }
            Ok(WatchEvent::Batch { position, .. }) if !any => vec![Ok(WatchEvent::Progress(position))],
            other => vec![other],
        })
    }
}

/// Each snapshot gives every record another incarnation.
#[derive(Default)]
struct RenamesIncarnations(AtomicUsize);

#[async_trait]
impl Twist for RenamesIncarnations {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        turned(stream, move |event| match event {
            Ok(WatchEvent::SnapshotChunk(mut chunk)) => {
                for entry in &mut chunk {
                    entry.incarnation = Incarnation::of((entry.incarnation, number));
                }
                vec![Ok(WatchEvent::SnapshotChunk(chunk))]
            }
            other => vec![other],
        })
    }
}

/// Only the first session of a handle writes: those that follow it say that all is well.
#[derive(Default)]
struct PutsNothingBack(AtomicUsize);

#[async_trait]
impl Twist for PutsNothingBack {
    async fn open(&self, inner: &Arc<dyn Backend>, request: &SessionRequest) -> Result<Box<dyn Session>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        inner.open(request).await
    }

    async fn publish(&self, inner: &Arc<dyn Session>, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        if self.0.load(Ordering::Relaxed) > 1 {
            return batch.writes.iter().map(|_| Ok(Stamp::unordered())).collect();
        }
        inner.publish(batch, desired).await
    }

    async fn verify(&self, inner: &Arc<dyn Session>, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        if self.0.load(Ordering::Relaxed) > 1 {
            return Ok(Vec::new());
        }
        inner.verify(desired).await
    }
}

/// Whatever a session writes that follows another is stored, and its owner never hears so.
#[derive(Default)]
struct NeverSaysThatItIsPutBack(AtomicUsize);

#[async_trait]
impl Twist for NeverSaysThatItIsPutBack {
    async fn open(&self, inner: &Arc<dyn Backend>, request: &SessionRequest) -> Result<Box<dyn Session>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        inner.open(request).await
    }

    async fn publish(&self, inner: &Arc<dyn Session>, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let mut answers = inner.publish(batch, desired).await;
        if self.0.load(Ordering::Relaxed) > 1 {
            let unheard = || Err(Error::new(ErrorKind::Unavailable, "no answer").with_effect(Effect::Unknown));
            answers.fill_with(unheard);
        }
        answers
    }

    async fn verify(&self, inner: &Arc<dyn Session>, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        if self.0.load(Ordering::Relaxed) > 1 {
            return Err(Error::new(ErrorKind::Unavailable, "no answer"));
        }
        inner.verify(desired).await
    }
}

/// An owner whose update was not acknowledged while anybody waited for it lists what it had stored before, when everybody
/// else sees the update.
#[derive(Default)]
struct ListsWhatItHadBefore(Mutex<BTreeMap<Key, Kept>>);

#[derive(Default)]
struct Kept {
    acknowledged: Option<Bytes>,
    /// What was not, and since when.
    unheard: Option<(Bytes, Instant)>,
}

/// For how long nobody waits for an operation on memory.
const GIVEN_UP: Duration = Duration::from_millis(3_100);

#[async_trait]
impl Twist for ListsWhatItHadBefore {
    async fn publish(&self, inner: &Arc<dyn Session>, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let began = Instant::now();
        let answers = inner.publish(batch, desired).await;
        let mut kept = self.0.lock().expect("what was kept");
        for (write, answer) in batch.writes.iter().zip(&answers) {
            match write {
                Write::Put { key, value } => {
                    let kept = kept.entry(key.clone()).or_default();
                    let (_, since) =
                        kept.unheard.clone().filter(|(same, _)| same == value).unwrap_or((value.clone(), began));
                    if answer.is_err() || since.elapsed() > GIVEN_UP {
                        kept.unheard = Some((value.clone(), since));
                    } else {
                        *kept = Kept { acknowledged: Some(value.clone()), unheard: None };
                    }
                }
                Write::Delete { key } => drop(kept.remove(key)),
            }
        }
        answers
    }

    async fn list(&self, inner: &Arc<dyn Backend>, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        let (mut entries, position) = inner.list(scope).await?;
        let kept = self.0.lock().expect("what was kept");
        for entry in &mut entries {
            if let Some(Kept { acknowledged: Some(before), unheard: Some((unheard, _)) }) = kept.get(&entry.key)
                && *unheard == entry.value
            {
                entry.value = before.clone();
            }
        }
        Ok((entries, position))
    }
}

/// A watch that goes on after a break tells everything, and that it is out of touch.
#[derive(Default)]
struct StaysStale;

#[async_trait]
impl Twist for StaysStale {
    async fn watch(&self, inner: &Arc<dyn Backend>, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        let stream = inner.watch(scope, after).await?;
        if after.is_none() {
            return Ok(stream);
        }
        Ok(turned(stream, |event| match event {
            Ok(begun @ (WatchEvent::Resumed | WatchEvent::SnapshotEnd(_) | WatchEvent::Recovered)) => {
                let lost = Error::new(ErrorKind::Unavailable, "out of touch, it says");
                vec![Ok(begun), Ok(WatchEvent::Interrupted(lost))]
            }
            other => vec![other],
        }))
    }
}

/// A watch that cannot be opened begins with nothing, as if there were nothing.
#[derive(Default)]
struct EmptyWhenOutOfReach;

#[async_trait]
impl Twist for EmptyWhenOutOfReach {
    async fn watch(&self, inner: &Arc<dyn Backend>, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        match inner.watch(scope, after).await {
            Err(error) if after.is_none() => {
                let nothing = WatchEvent::snapshot(Lineage::Unknown, Vec::new(), Position::from_u64(0));
                let fails = stream::once(async move {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    Err(error)
                });
                Ok(stream::iter(nothing.map(Ok)).chain(fails).boxed())
            }
            outcome => outcome,
        }
    }
}

/// Each third publish arrives a second time, later, as if it were new.
#[derive(Default)]
struct WritesAgainLater(AtomicUsize);

#[async_trait]
impl Twist for WritesAgainLater {
    async fn publish(&self, inner: &Arc<dyn Session>, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        if self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            let (inner, batch, desired) = (Arc::clone(inner), batch.clone(), desired.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(120)).await;
                inner.publish(&batch, &desired).await
            });
        }
        inner.publish(batch, desired).await
    }
}

/// A watch that cannot be opened tells of a transaction, which changes nothing, and then fails: to its reader that is
/// progress.
#[derive(Default)]
struct ProgressesOnADeadConnection(AtomicU64);

#[async_trait]
impl Twist for ProgressesOnADeadConnection {
    async fn watch(&self, inner: &Arc<dyn Backend>, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        match inner.watch(scope, after).await {
            Err(error) if after.is_some() => {
                let position = Position::from_u64(self.0.fetch_add(1, Ordering::Relaxed));
                let batch = WatchEvent::Batch { changes: Vec::new(), position };
                Ok(stream::iter([Ok(WatchEvent::Resumed), Ok(batch), Err(error)]).boxed())
            }
            outcome => outcome,
        }
    }
}

/// What is no JSON is taken for a deletion.
#[derive(Default)]
struct SkipsWhatItCannotRead;

#[async_trait]
impl Twist for SkipsWhatItCannotRead {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        let reads = |entry: &Entry| serde_json::from_slice::<serde_json::Value>(&entry.value).is_ok();
        turned(stream, move |event| match event {
            Ok(WatchEvent::SnapshotChunk(mut chunk)) => {
                chunk.retain(reads);
                vec![Ok(WatchEvent::SnapshotChunk(chunk))]
            }
            Ok(WatchEvent::Batch { changes, position }) => {
                let changes = changes.into_iter().map(|change| match change {
                    Change::Put(entry) if !reads(&entry) => Change::Delete(entry.key),
                    other => other,
                });
                vec![Ok(WatchEvent::Batch { changes: changes.collect(), position })]
            }
            other => vec![other],
        })
    }
}

/// How many seeds a plant may take to show.
const SEEDS: u64 = 6;

/// What the validators say of a planted error instead of what they should.
fn overlooked((statement, name, plant, hooks): &Row) -> Option<String> {
    let mut said = BTreeMap::new();
    for seed in 1..=SEEDS {
        let config = Config::new(seed).rounds(2).operations(200).faults(hooks.iter().copied());
        let (factory, config): (Box<dyn Factory>, Config) = match plant() {
            Plant::Twist(make) => (Box::new(Twisted { factory: Arc::new(Memory), make }), config),
            Plant::Spoil(spoil) => (Box::new(Memory), config.spoil(spoil)),
            Plant::Watching => (Box::new(Memory), config.wrap(watching)),
        };
        let summary = match run(&*factory, &config) {
            Ok(summary) => summary,
            Err(error) => return Some(format!("{statement}: {name}: no run: {error}")),
        };
        for violation in summary.violations {
            if violation.statement == *statement {
                return None;
            }
            *said.entry(violation.statement).or_insert(0) += 1;
        }
    }
    Some(format!("{statement}: {name} is not found; what is: {said:?}"))
}

/// An owner whose process opens a watch, for no reason.
fn watching(n: usize, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
    if n == 0 {
        let same = Arc::clone(&backend);
        tokio::spawn(async move { same.watch(&Scope::all(), None).await.is_ok() });
    }
    backend
}

#[test]
fn each_class_of_errors_is_found_by_the_validator_that_is_named_for_it() {
    let rows: Vec<&Row> = PLANTED.iter().chain(OTHERS).collect();
    let next = AtomicUsize::new(0);
    let judge = || {
        let mut found = Vec::new();
        while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.extend(overlooked(row));
        }
        found
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let found: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(judge)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a judgement")).collect()
    });
    assert!(found.is_empty(), "{} of {} are overlooked:\n{}", found.len(), rows.len(), found.join("\n"));
}

#[test]
fn every_validator_has_an_error_planted_for_it() {
    let planted: Vec<&str> = PLANTED.iter().chain(OTHERS).map(|(statement, ..)| *statement).collect();
    let without: Vec<_> = statements().filter(|statement| !planted.contains(statement)).collect();
    assert!(without.is_empty(), "{without:?}");
    let (errors, of) = (planted.len(), statements().collect::<BTreeSet<_>>().len());
    let figures = format!("{errors} planted errors, at least one for each of the {of} validators, are all found.\n");
    docs::check("planted", &figures);
}
