//! Backends that keep what should go, forget what should stay, or do again what is over.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use discovery_conformance::Fault;
use discovery_core::backend::{
    Backend, Desired, Drift, Position, Session, Stamp, WatchEvent, WatchStream, Write, WriteBatch,
};
use discovery_core::{Capabilities, Error, ErrorKind, Key, Result, Scope};
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep};

use super::wrap::Twist;

macro_rules! twist {
    ($name:ident { $($body:tt)* }) => {
        #[derive(Default)]
        pub(crate) struct $name;
        #[async_trait]
        impl Twist for $name { $($body)* }
    };
}

type Inner = Arc<dyn Session>;

/// Does the writes that `wanted` says yes to, and answers all with Ok.
async fn some(
    inner: &Inner,
    batch: &WriteBatch,
    desired: &Desired,
    wanted: impl FnMut(&&Write) -> bool,
) -> Vec<Result<Stamp>> {
    let writes = batch.writes.iter().filter(wanted).cloned().collect();
    inner.publish(&WriteBatch { writes, atomic: false }, desired).await;
    vec![Ok(Stamp::unordered()); batch.writes.len()]
}

/// Does some of the writes once more, this much later.
fn again(inner: &Inner, batch: &WriteBatch, desired: &Desired, by: Duration, wanted: fn(&&Write) -> bool) {
    let writes: Vec<_> = batch.writes.iter().filter(wanted).cloned().collect();
    if writes.is_empty() {
        return;
    }
    let (inner, desired) = (Arc::clone(inner), desired.clone());
    tokio::spawn(async move {
        sleep(by).await;
        inner.publish(&WriteBatch { writes, atomic: false }, &desired).await
    });
}

fn is_put(write: &&Write) -> bool {
    matches!(write, Write::Put { .. })
}

fn is_delete(write: &&Write) -> bool {
    matches!(write, Write::Delete { .. })
}

/// Whatever was told, for readers that may come back to it: a queue without a bound.
#[derive(Default)]
pub(crate) struct QueuesAllItTells {
    queue: Arc<Mutex<Vec<WatchEvent>>>,
}

impl Twist for QueuesAllItTells {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        let queue = Arc::clone(&self.queue);
        let keep = move |event: &Result<WatchEvent>| queue.lock().expect("not poisoned").extend(event.iter().cloned());
        stream.inspect(keep).boxed()
    }
}

#[derive(Default)]
pub(crate) struct LeaksADescriptorPerWatch {
    open: Mutex<Vec<File>>,
}

impl Twist for LeaksADescriptorPerWatch {
    fn stream(&self, stream: WatchStream) -> WatchStream {
        self.open.lock().expect("not poisoned").extend(File::open("/dev/null"));
        stream
    }
}

#[derive(Default)]
pub(crate) struct EndsEachWatchOnce {
    ended: AtomicBool,
}

#[async_trait]
impl Twist for EndsEachWatchOnce {
    async fn watch(&self, inner: &Arc<dyn Backend>, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        let watch = inner.watch(scope, after).await?;
        if self.ended.swap(true, Ordering::AcqRel) {
            return Ok(watch);
        }
        let over = Err(Error::new(ErrorKind::Unavailable, "over"));
        Ok(watch.take(3).chain(stream::iter([over])).boxed())
    }
}

#[derive(Default)]
pub(crate) struct LosesOneOfMany {
    count: AtomicUsize,
}

#[async_trait]
impl Twist for LosesOneOfMany {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let kept = |_: &&Write| !(self.count.fetch_add(1, Ordering::AcqRel) + 1).is_multiple_of(10);
        some(inner, batch, desired, kept).await
    }

    async fn verify(&self, _: &Inner, _: &Desired) -> Result<Vec<(Key, Drift)>> {
        Ok(vec![])
    }
}

#[derive(Default)]
pub(crate) struct NeverTakesAKeyTwice {
    gone: Mutex<BTreeSet<Key>>,
}

#[async_trait]
impl Twist for NeverTakesAKeyTwice {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let taken = |write: &&Write| {
            let mut gone = self.gone.lock().expect("not poisoned");
            match write {
                Write::Put { key, .. } => !gone.contains(key),
                Write::Delete { key } => gone.insert(key.clone()),
            }
        };
        some(inner, batch, desired, taken).await
    }

    async fn verify(&self, _: &Inner, _: &Desired) -> Result<Vec<(Key, Drift)>> {
        Ok(vec![])
    }
}

twist!(IgnoresRemovals {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        some(inner, batch, desired, is_put).await
    }

    async fn verify(&self, _: &Inner, _: &Desired) -> Result<Vec<(Key, Drift)>> {
        Ok(vec![])
    }
});

twist!(WritesOnThoughItWasCancelled {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        again(inner, batch, desired, Duration::from_millis(500), is_put);
        inner.publish(batch, desired).await
    }

    async fn verify(&self, _: &Inner, _: &Desired) -> Result<Vec<(Key, Drift)>> {
        Ok(vec![])
    }
});

twist!(RemovesAgainLater {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        again(inner, batch, desired, Duration::from_secs(6), is_delete);
        inner.publish(batch, desired).await
    }
});

twist!(StoresLate {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        again(inner, batch, desired, Duration::from_millis(600), |_| true);
        vec![Ok(Stamp::unordered()); batch.writes.len()]
    }

    async fn verify(&self, _: &Inner, _: &Desired) -> Result<Vec<(Key, Drift)>> {
        Ok(vec![])
    }
});

/// By the wall clock no time passes while tokio's is paused: as if it had been put back.
#[derive(Default)]
pub(crate) struct ExpiresByTheWallClock {
    since: Mutex<Option<(Instant, std::time::Instant)>>,
}

#[async_trait]
impl Twist for ExpiresByTheWallClock {
    async fn renew(&self, inner: &Inner) -> Result<Duration> {
        let (own, wall) = *self
            .since
            .lock()
            .expect("not poisoned")
            .get_or_insert_with(|| (Instant::now(), std::time::Instant::now()));
        if own.elapsed() > wall.elapsed() + Duration::from_secs(600) {
            *self.since.lock().expect("not poisoned") = None;
            inner.close().await?;
            return Err(Error::new(ErrorKind::SessionLost, "the clock says that it is over"));
        }
        inner.renew().await
    }
}

twist!(PromisesALittleMore {
    async fn renew(&self, inner: &Inner) -> Result<Duration> {
        Ok(inner.renew().await?.mul_f64(1.25))
    }

    async fn lost(&self, _: &Inner) -> Error {
        std::future::pending().await
    }
});

twist!(ClaimsNoBatches {
    fn capabilities(&self, mut capabilities: Capabilities) -> Capabilities {
        capabilities.batch = false;
        capabilities
    }
});

twist!(ClaimsNoLog {
    fn capabilities(&self, mut capabilities: Capabilities) -> Capabilities {
        capabilities.changelog = false;
        capabilities
    }
});

twist!(RefusesWithoutAReason {
    fn admit(&self, inner: &dyn Backend, key: &Key, value: usize) -> Result<()> {
        if key.path().segments().any(|segment| segment.contains('~')) {
            return Err(Error::new(ErrorKind::InvalidKey, "this name cannot be stored"));
        }
        inner.admit(key, value)
    }
});

twist!(LeaderChangeTakesSessions {
    fn fault(&self, fault: Fault) -> Option<Fault> {
        Some(if matches!(fault, Fault::LeaderChange) { Fault::Revoke(0) } else { fault })
    }
});

twist!(LosesWatchesWithAMember {
    fn fault(&self, fault: Fault) -> Option<Fault> {
        Some(if matches!(fault, Fault::LoseMember(_)) { Fault::Cut(1) } else { fault })
    }
});

twist!(NeverReadyAgain {
    fn fault(&self, fault: Fault) -> Option<Fault> {
        (!matches!(fault, Fault::Ready(_, true))).then_some(fault)
    }
});
