//! Barriers beside open watches.

use std::sync::atomic::AtomicBool;

use async_trait::async_trait;

use super::*;
use crate::join::{Object, Side};
use crate::readiness::Ref;
use crate::reflector::{Event, Events, Failure, Page, Part, Source, Start};
use crate::source::Counted as Count;

/// A store with one object, at version 100, and at 5 once it was set back. Watches that are open then hear nothing of it.
#[derive(Default)]
struct Store(AtomicBool);

impl Store {
    fn version(&self) -> u64 {
        if self.0.load(Ordering::Relaxed) { 5 } else { 100 }
    }
}

#[async_trait]
impl Source for Store {
    async fn list(&self, _: Part, _: u32) -> std::result::Result<Page, Failure> {
        panic!("lists are streamed here")
    }

    async fn watch(&self, _: Start) -> std::result::Result<Events, Failure> {
        let version = self.version();
        let object = Seen { name: Ref::new("ns", "a"), version, object: Object::Ready(Vec::new()) };
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
        Ok(Census { version, objects: [(Ref::new("ns", "a"), version)].into() })
    }
}

/// Its position is beyond the barrier's, and proves nothing.
#[tokio::test(start_paused = true)]
async fn a_watch_that_has_seen_more_than_is_counted_begins_anew_before_a_barrier_is_reached() {
    let store = Arc::new(Store::default());
    let legs = [Leg { side: Side::Readiness, namespace: None, source: Arc::clone(&store) as Arc<dyn Count> }];
    let barriers = Barriers::new();
    let mut events = open(&legs, &barriers, &Births::default(), &Scope::all(), None);
    let mut snapshot = async || {
        let mut lineage = None;
        loop {
            match events.next().await.unwrap().unwrap() {
                WatchEvent::SnapshotStart { lineage: told } => lineage = Some(told),
                WatchEvent::SnapshotEnd(position) => return (lineage.unwrap(), progress::versions(&position)),
                _ => {}
            }
        }
    };
    assert_eq!(snapshot().await.1, [100]);
    assert_eq!(progress::versions(&barriers.raise(&legs).await.unwrap()), [100]);
    store.0.store(true, Ordering::Relaxed);
    // Nobody polls the watch: it does not begin anew, and nothing may be read off it.
    let error = barriers.raise(&legs).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    let ((lineage, at), target) = tokio::join!(snapshot(), barriers.raise(&legs));
    assert_eq!((lineage, at), (Lineage::Reset, vec![5]));
    assert_eq!(progress::versions(&target.unwrap()), [5]);
}
