//! Barriers beside open watches.

use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use tokio::time::timeout;

use super::*;
use crate::join::{Object, Side};
use crate::readiness::Ref;
use crate::reflector::{Event, Events, Failure, Page, Part, Source, Start};
use crate::source::Counted as Count;

/// A store with one object, at version 100, and at 5 once it was set back. Watches that are open then hear nothing of it.
struct Store {
    back: AtomicBool,
    /// Where it was when the watch began that was set back.
    began: u64,
}

impl Store {
    fn began(began: u64) -> Arc<Self> {
        Arc::new(Self { back: AtomicBool::new(false), began })
    }

    fn version(&self) -> u64 {
        if self.back.load(Ordering::Relaxed) { 5 } else { 100 }
    }
}

#[async_trait]
impl Source for Store {
    async fn list(&self, _: Part, _: u32) -> std::result::Result<Page, Failure> {
        panic!("lists are streamed here")
    }

    async fn watch(&self, _: Start) -> std::result::Result<Events, Failure> {
        let version = if self.back.load(Ordering::Relaxed) { Self::version(self) } else { self.began };
        let object = Seen { name: Ref::new("ns", "a"), version: 1, object: Object::Ready(Vec::new()) };
        let events = [Event::Put(object), Event::Bookmark { version, complete: true }].map(Ok);
        Ok(stream::iter(events).chain(stream::pending()).boxed())
    }

    async fn version(&self) -> std::result::Result<u64, Failure> {
        Ok(Store::version(self))
    }

    async fn is_absent(&self) -> bool {
        false
    }
}

#[async_trait]
impl Count for Store {
    async fn census(&self) -> std::result::Result<Census, Failure> {
        let version = Store::version(self);
        Ok(Census { version, objects: [(Ref::new("ns", "a"), 1)].into() })
    }
}

async fn snapshot(events: &mut WatchStream) -> (Lineage, Vec<u64>) {
    let mut lineage = None;
    loop {
        match events.next().await.unwrap().unwrap() {
            WatchEvent::SnapshotStart { lineage: told } => lineage = Some(told),
            WatchEvent::SnapshotEnd(position) => return (lineage.unwrap(), progress::versions(&position)),
            _ => {}
        }
    }
}

/// Its position is beyond the barrier's, and proves nothing.
#[tokio::test(start_paused = true)]
async fn a_watch_that_has_seen_more_than_is_counted_begins_anew_before_a_barrier_is_reached() {
    // One that began long ago has come as far by what was counted since, and lists less than that and more than its first.
    for began in [100, 3] {
        begins_anew(Store::began(began)).await;
    }
}

async fn begins_anew(store: Arc<Store>) {
    let legs = [Leg {
        side: Side::Readiness,
        namespace: None,
        source: Arc::clone(&store) as Arc<dyn Count>,
        is_dealt_out: true,
    }];
    let barriers = Barriers::new();
    let mut events = open(&legs, &barriers, &Births::default(), &Scope::all(), None);
    assert_eq!(snapshot(&mut events).await.1, [store.began]);
    assert_eq!(progress::versions(&barriers.raise(&legs).await.unwrap()), [100]);
    while barriers.open()[0].1 != [100] {
        events.next().await.unwrap().unwrap();
    }
    store.back.store(true, Ordering::Relaxed);
    // Nobody polls the watch: it does not begin anew, and nothing may be read off it.
    let error = barriers.raise(&legs).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    let both = future::join(snapshot(&mut events), barriers.raise(&legs));
    let ((lineage, at), target) = timeout(Duration::from_secs(60), both).await.expect("it begins anew");
    assert_eq!((lineage, at), (Lineage::Reset, vec![5]));
    assert_eq!(progress::versions(&target.unwrap()), [5]);
}
