//! Backends that watch or list wrongly.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use discovery_conformance::Fault;
use discovery_core::backend::{
    Backend, Change, ChangeLog, Entry, Incarnation, Lineage, Position, WatchEvent, WatchStream,
};
use discovery_core::{Bounds, Error, ErrorKind, Key, Result, Scope};
use futures_util::{StreamExt, stream};
use tokio::time::sleep;

use super::wrap::{LogStream, Twist};

/// Each event becomes any number of others.
fn each(
    inner: WatchStream,
    mut change: impl FnMut(WatchEvent) -> Vec<Result<WatchEvent>> + Send + 'static,
) -> WatchStream {
    inner
        .flat_map(move |event| {
            stream::iter(match event {
                Ok(event) => change(event),
                Err(error) => vec![Err(error)],
            })
        })
        .boxed()
}

/// Each entry becomes another, in snapshots and in batches.
fn each_entry(inner: WatchStream, mut change: impl FnMut(Entry) -> Entry + Send + 'static) -> WatchStream {
    each(inner, move |event| {
        vec![Ok(match event {
            WatchEvent::SnapshotChunk(chunk) => WatchEvent::SnapshotChunk(chunk.into_iter().map(&mut change).collect()),
            WatchEvent::Batch { changes, position } => {
                let changes = changes.into_iter().map(|one| match one {
                    Change::Put(entry) => Change::Put(change(entry)),
                    gone => gone,
                });
                WatchEvent::Batch { changes: changes.collect(), position }
            }
            other => other,
        })]
    })
}

fn changed_error(inner: WatchStream, mut change: impl FnMut(Error) -> Error + Send + 'static) -> WatchStream {
    inner.map(move |event| event.map_err(&mut change)).boxed()
}

/// The fields of `Twist` that a mutant overrides, in a type of its own.
macro_rules! twist {
    ($name:ident { $($body:tt)* }) => {
        #[derive(Default)]
        pub(crate) struct $name;
        #[async_trait]
        impl Twist for $name { $($body)* }
    };
}

twist!(LosesTheFirstChange {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        let mut fresh = false;
        each(stream, move |event| match event {
            WatchEvent::SnapshotEnd(_) => {
                fresh = true;
                vec![Ok(event)]
            }
            WatchEvent::Batch { position, .. } if fresh => {
                fresh = false;
                vec![Ok(WatchEvent::Progress(position))]
            }
            other => vec![Ok(other)],
        })
    }
});

twist!(LosesEveryFifthChange {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        let mut count = 0;
        each(stream, move |event| match event {
            WatchEvent::Batch { changes, position } => {
                count += 1;
                if count % 5 == 0 {
                    vec![Ok(WatchEvent::Progress(position))]
                } else {
                    vec![Ok(WatchEvent::Batch { changes, position })]
                }
            }
            other => vec![Ok(other)],
        })
    }
});

twist!(LosesRemovals {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        each(stream, |event| match event {
            WatchEvent::Batch { mut changes, position } => {
                changes.retain(|change| matches!(change, Change::Put(_)));
                vec![Ok(WatchEvent::Batch { changes, position })]
            }
            other => vec![Ok(other)],
        })
    }
});

twist!(RemovesTwice {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        each(stream, |event| match event {
            WatchEvent::Batch { changes, position } => {
                let gone: Vec<_> = changes.iter().filter(|one| matches!(one, Change::Delete(_))).cloned().collect();
                let again = WatchEvent::Batch { changes: gone, position: position.clone() };
                vec![Ok(WatchEvent::Batch { changes, position }), Ok(again)]
            }
            other => vec![Ok(other)],
        })
    }
});

twist!(MissesTheDeeper {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        each(stream, |event| {
            vec![Ok(match event {
                WatchEvent::SnapshotChunk(mut chunk) => {
                    chunk.retain(|entry| entry.key.path().segments().count() < 3);
                    WatchEvent::SnapshotChunk(chunk)
                }
                other => other,
            })]
        })
    }
});

twist!(BleedsIntoSiblings {
    async fn watch(&self, inner: &Arc<dyn Backend>, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        inner.watch(&scope.parent().unwrap_or_else(Scope::all), after).await
    }
});

twist!(ResumesFromNow {
    async fn watch(&self, inner: &Arc<dyn Backend>, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        let stream = inner.watch(scope, None).await?;
        if after.is_none() {
            return Ok(stream);
        }
        Ok(each(stream, |event| match event {
            WatchEvent::SnapshotStart { .. } | WatchEvent::SnapshotChunk(_) => vec![],
            WatchEvent::SnapshotEnd(_) => vec![Ok(WatchEvent::Resumed)],
            other => vec![Ok(other)],
        }))
    }
});

twist!(ChangesIncarnationOnUpdate {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        each_entry(stream, |entry| Entry { incarnation: Incarnation::of(&entry.value[..]), ..entry })
    }
});

twist!(NeverChangesIncarnation {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        each_entry(stream, |entry| Entry { incarnation: Incarnation(1), ..entry })
    }
});

twist!(ForgetsIncarnationsOverGaps {
    async fn watch(&self, inner: &Arc<dyn Backend>, scope: &Scope, _: Option<&Position>) -> Result<WatchStream> {
        // What a snapshot brings counts from 1 again.
        Ok(each(inner.watch(scope, None).await?, |event| {
            vec![Ok(match event {
                WatchEvent::SnapshotChunk(chunk) => {
                    let first = |entry| Entry { incarnation: Incarnation(1), ..entry };
                    WatchEvent::SnapshotChunk(chunk.into_iter().map(first).collect())
                }
                other => other,
            })]
        }))
    }
});

twist!(TearsTransactions {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        let torn = each(stream, |event| match event {
            WatchEvent::Batch { changes, position } => {
                let one = |change| Ok(WatchEvent::Batch { changes: vec![change], position: position.clone() });
                changes.into_iter().map(one).collect()
            }
            other => vec![Ok(other)],
        });
        torn.then(|event| async {
            tokio::task::yield_now().await;
            event
        })
        .boxed()
    }
});

fn nothing() -> [WatchEvent; 3] {
    WatchEvent::snapshot(Lineage::Unknown, vec![], Position(Bytes::from_static(&[0; 16])))
}

twist!(EmptyOnError {
    async fn watch(&self, inner: &Arc<dyn Backend>, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        match inner.watch(scope, after).await {
            Ok(stream) => Ok(stream),
            Err(_) => Ok(stream::iter(nothing().map(Ok)).chain(stream::pending()).boxed()),
        }
    }
});

twist!(ListsNothingOnError {
    async fn list(&self, inner: &Arc<dyn Backend>, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        Ok(inner.list(scope).await.unwrap_or_else(|_| (vec![], Position(Bytes::from_static(&[0; 16])))))
    }
});

twist!(NeverNoticesADeadConnection {
    fn bounds(&self, mut bounds: Bounds) -> Bounds {
        bounds.silence = None;
        bounds
    }
});

twist!(HidesABrokenConnection {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        let alive = stream::unfold((), |()| async {
            sleep(Duration::from_millis(200)).await;
            Some((Ok(WatchEvent::Progress(Position(Bytes::from_static(&[0; 16])))), ()))
        });
        stream.take_while(|event| std::future::ready(event.is_ok())).chain(alive).boxed()
    }
});

twist!(EndsForGoodOnAFailure {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        changed_error(stream, |_| Error::new(ErrorKind::Unsupported, "broken"))
    }
});

twist!(ShowsHalfASnapshotFirst {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        let mut first = Vec::new();
        each(stream, move |event| match event {
            WatchEvent::SnapshotStart { lineage } => {
                first.clear();
                vec![Ok(WatchEvent::SnapshotStart { lineage })]
            }
            WatchEvent::SnapshotChunk(chunk) => {
                first.extend(chunk.clone());
                vec![Ok(WatchEvent::SnapshotChunk(chunk))]
            }
            WatchEvent::SnapshotEnd(position) => {
                let whole = std::mem::take(&mut first);
                let half = whole[..whole.len() / 2].to_vec();
                let half = WatchEvent::snapshot(Lineage::Same, half, position.clone());
                let whole = WatchEvent::snapshot(Lineage::Same, whole, position);
                half.into_iter().chain(whole).map(Ok).collect()
            }
            other => vec![Ok(other)],
        })
        .then(|event| async {
            if matches!(event, Ok(WatchEvent::SnapshotStart { .. })) {
                sleep(Duration::from_millis(2)).await;
            }
            event
        })
        .boxed()
    }
});

#[derive(Default)]
pub(crate) struct ListsAnOldState {
    cached: Mutex<Option<(Vec<Entry>, Position)>>,
}

#[async_trait]
impl Twist for ListsAnOldState {
    async fn list(&self, inner: &Arc<dyn Backend>, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        if let Some(cached) = self.cached.lock().expect("not poisoned").clone() {
            return Ok(cached);
        }
        let fresh = inner.list(scope).await?;
        *self.cached.lock().expect("not poisoned") = Some(fresh.clone());
        Ok(fresh)
    }
}

/// Everything that is watched comes this much later.
pub(crate) fn late(stream: WatchStream, by: Duration) -> WatchStream {
    stream
        .then(move |event| async move {
            if matches!(event, Ok(WatchEvent::Batch { .. })) {
                sleep(by).await;
            }
            event
        })
        .boxed()
}

twist!(PropagatesTooLate {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        late(stream, Duration::from_secs(1))
    }
});

twist!(BarrierSaysNothing {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        late(stream, Duration::from_millis(5))
    }

    async fn barrier(&self, _: &Arc<dyn Backend>, _: &Scope) -> Result<Option<Position>> {
        Ok(Some(Position(Bytes::from_static(&[0; 16]))))
    }
});

twist!(ReachedSaysYes {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        late(stream, Duration::from_millis(5))
    }

    fn reached(&self, _: &dyn Backend, _: &Position, _: &Position) -> bool {
        true
    }
});

twist!(FlashesBack {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        let mut before: BTreeMap<Key, VecDeque<Entry>> = BTreeMap::new();
        each(stream, move |event| match event {
            WatchEvent::Batch { changes, position } => {
                let mut out = Vec::new();
                for change in &changes {
                    let Change::Put(entry) = change else { continue };
                    let states = before.entry(entry.key.clone()).or_default();
                    if states.len() == 2
                        && let Some(old) = states.pop_front()
                    {
                        let changes = vec![Change::Put(old)];
                        out.push(Ok(WatchEvent::Batch { changes, position: position.clone() }));
                    }
                    states.push_back(entry.clone());
                }
                out.push(Ok(WatchEvent::Batch { changes, position }));
                out
            }
            other => vec![Ok(other)],
        })
        .then(|event| async {
            sleep(Duration::from_micros(200)).await;
            event
        })
        .boxed()
    }
});

twist!(KeepAliveLooksLikeAChange {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        let mut known: BTreeMap<Key, Entry> = BTreeMap::new();
        let mut count = 1 << 40;
        each(stream, move |event| {
            match &event {
                WatchEvent::SnapshotChunk(chunk) => {
                    known.extend(chunk.iter().map(|entry| (entry.key.clone(), entry.clone())));
                }
                WatchEvent::Progress(position) => {
                    count += 1;
                    let again = known.values().map(|entry| Entry { incarnation: Incarnation(count), ..entry.clone() });
                    let changes = again.map(Change::Put).collect();
                    return vec![Ok(WatchEvent::Batch { changes, position: position.clone() })];
                }
                _ => {}
            }
            vec![Ok(event)]
        })
    }
});

twist!(ForgottenHistoryIsFatal {
    async fn watch(&self, inner: &Arc<dyn Backend>, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        let stream = inner.watch(scope, after).await?;
        let resumed = after.is_some();
        Ok(each(stream, move |event| match event {
            WatchEvent::SnapshotStart { .. } if resumed => {
                vec![Err(Error::new(ErrorKind::InvalidQuery, "required revision has been compacted"))]
            }
            other => vec![Ok(other)],
        }))
    }
});

#[derive(Default)]
pub(crate) struct KeepsTheDeletedOfAGap {
    known: Arc<Mutex<BTreeMap<Key, Entry>>>,
}

#[async_trait]
impl Twist for KeepsTheDeletedOfAGap {
    async fn watch(&self, inner: &Arc<dyn Backend>, scope: &Scope, _: Option<&Position>) -> Result<WatchStream> {
        let known = Arc::clone(&self.known);
        let stream = inner.watch(scope, None).await?;
        let mut seen = BTreeMap::new();
        Ok(each(stream, move |event| {
            let mut known = known.lock().expect("not poisoned");
            match &event {
                WatchEvent::SnapshotChunk(chunk) => {
                    seen.extend(chunk.iter().map(|entry| (entry.key.clone(), entry.clone())));
                }
                WatchEvent::SnapshotEnd(_) => {
                    let old = known.iter().filter(|(key, _)| !seen.contains_key(*key));
                    let old: Vec<Entry> = old.map(|(_, entry)| entry.clone()).collect();
                    known.extend(std::mem::take(&mut seen));
                    return vec![Ok(WatchEvent::SnapshotChunk(old)), Ok(event)];
                }
                _ => {}
            }
            vec![Ok(event)]
        }))
    }
}

fn lineage(stream: WatchStream, says: Lineage) -> WatchStream {
    each(stream, move |event| {
        vec![Ok(match event {
            WatchEvent::SnapshotStart { .. } => WatchEvent::SnapshotStart { lineage: says },
            other => other,
        })]
    })
}

twist!(DeniesALossOfData {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        lineage(stream, Lineage::Same)
    }
});

twist!(CriesLossOfData {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        lineage(stream, Lineage::Reset)
    }
});

fn untyped(error: Error) -> Error {
    if error.kind() == ErrorKind::PermissionDenied { Error::new(ErrorKind::Unavailable, "no") } else { error }
}

twist!(PermissionIsUntyped {
    async fn watch(&self, inner: &Arc<dyn Backend>, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        let stream = inner.watch(scope, after).await.map_err(untyped)?;
        Ok(changed_error(stream, untyped))
    }
});

#[derive(Default)]
pub(crate) struct ListsInTwoReads;

#[async_trait]
impl Twist for ListsInTwoReads {
    async fn list(&self, inner: &Arc<dyn Backend>, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        let (mut first, position) = inner.list(scope).await?;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let (second, _) = inner.list(scope).await?;
        first.truncate(first.len() / 2);
        first.extend(second.into_iter().skip(first.len()));
        Ok((first, position))
    }
}

twist!(DropsUnknownFields {
    async fn list(&self, inner: &Arc<dyn Backend>, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        let (entries, position) = inner.list(scope).await?;
        let known = |entry: Entry| {
            let mut value: serde_json::Value = serde_json::from_slice(&entry.value).unwrap_or_default();
            if let Some(fields) = value.as_object_mut() {
                fields.retain(|name, _| ["place", "n", "pad", "suffix", "instance"].contains(&name.as_str()));
            }
            Entry { value: value.to_string().into(), ..entry }
        };
        Ok((entries.into_iter().map(known).collect(), position))
    }
});

twist!(DiesOfAnUndecodableRecord {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        let bad = |entry: &Entry| serde_json::from_slice::<serde_json::Value>(&entry.value).is_err();
        each(stream, move |event| {
            let dead = match &event {
                WatchEvent::SnapshotChunk(chunk) => chunk.iter().any(bad),
                WatchEvent::Batch { changes, .. } => {
                    changes.iter().any(|change| matches!(change, Change::Put(entry) if bad(entry)))
                }
                _ => false,
            };
            if dead { vec![Err(Error::new(ErrorKind::InvalidValue, "expected value at line 1"))] } else { vec![Ok(event)] }
        })
    }
});

twist!(LeaksATaskPerWatch {
    async fn watch(&self, inner: &Arc<dyn Backend>, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        tokio::spawn(std::future::pending::<()>());
        inner.watch(scope, after).await
    }
});

twist!(LogBeginsNow {
    async fn changes_since(&self, inner: &dyn ChangeLog, scope: &Scope, _: &Position) -> Result<LogStream> {
        inner.changes_since(scope, &inner.now().await?).await
    }
});

twist!(LogSkipsWhatIsForgotten {
    async fn changes_since(&self, inner: &dyn ChangeLog, scope: &Scope, token: &Position) -> Result<LogStream> {
        let quiet = |stream: LogStream| stream.filter(|item| std::future::ready(item.is_ok())).boxed();
        match inner.changes_since(scope, token).await {
            Ok(stream) => Ok(quiet(stream)),
            Err(_) => inner.changes_since(scope, &inner.now().await?).await,
        }
    }
});

twist!(LosesRecordsWithAMember {
    fn fault(&self, fault: Fault) -> Option<Fault> {
        Some(if matches!(fault, Fault::LoseMember(_)) { Fault::LoseData } else { fault })
    }
});

twist!(IgnoresTermination {
    fn fault(&self, fault: Fault) -> Option<Fault> {
        (!matches!(fault, Fault::Terminate(_))).then_some(fault)
    }
});

twist!(TrustsAnyName {
    fn fault(&self, fault: Fault) -> Option<Fault> {
        Some(if let Fault::Impostor(key, value) = fault { Fault::Write(key, value) } else { fault })
    }
});

twist!(IgnoresReadiness {
    fn fault(&self, fault: Fault) -> Option<Fault> {
        (!matches!(fault, Fault::Ready(..))).then_some(fault)
    }
});
