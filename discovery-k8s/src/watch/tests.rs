//! Barriers beside open watches.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::ErrorKind;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::*;
use crate::bounds::HANDOVER;
use crate::join::{Object, Side};
use crate::readiness::Ref;
use crate::reflector::{Cause, Event, Events, Failure, Page, Part, Source, Start};
use crate::source::Counted as Count;

mod first;
mod handover;

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
    async fn census(&self, _: Part, _: u32) -> std::result::Result<(Census, Option<String>), Failure> {
        let version = Store::version(self);
        Ok((Census { version, objects: [(Ref::new("ns", "a"), 1)].into() }, None))
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

/// One of EndpointSlices.
fn leg(source: Arc<dyn Count>) -> Leg {
    Leg { side: Side::Readiness, namespace: None, source, is_dealt_out: true }
}

async fn begins_anew(store: Arc<Store>) {
    let legs = [leg(store.clone())];
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

/// A leg on which one object stands still, and whose censuses answer at these versions, the first of them when it is let.
struct Counting {
    versions: Mutex<VecDeque<u64>>,
    hold: Mutex<Option<Arc<Notify>>>,
}

impl Counting {
    fn leg(side: Side, versions: impl IntoIterator<Item = u64>, hold: Option<&Arc<Notify>>) -> Leg {
        let versions = Mutex::new(versions.into_iter().collect());
        let source = Arc::new(Self { versions, hold: Mutex::new(hold.cloned()) });
        Leg { side, namespace: None, source, is_dealt_out: false }
    }
}

#[async_trait]
impl Source for Counting {
    async fn list(&self, _: Part, _: u32) -> std::result::Result<Page, Failure> {
        panic!("lists are streamed here")
    }

    async fn watch(&self, _: Start) -> std::result::Result<Events, Failure> {
        let listed = Event::Bookmark { version: 90, complete: true };
        Ok(stream::iter([Ok(listed)]).chain(stream::pending()).boxed())
    }

    async fn version(&self) -> std::result::Result<u64, Failure> {
        Ok(90)
    }

    async fn is_absent(&self) -> bool {
        false
    }
}

#[async_trait]
impl Count for Counting {
    async fn census(&self, _: Part, _: u32) -> std::result::Result<(Census, Option<String>), Failure> {
        let version = self.versions.lock().unwrap().pop_front().expect("a census that is foreseen");
        let hold = self.hold.lock().unwrap().take();
        if let Some(hold) = hold {
            hold.notified().await;
        }
        Ok((Census { version, objects: HashMap::new() }, None))
    }
}

/// Whoever asks has to see what was there by then: what was begun before is not for him, and what begins after is for all.
#[tokio::test(start_paused = true)]
async fn whoever_asks_while_a_barrier_is_under_way_shares_the_next() {
    let slow = Arc::new(Notify::new());
    let legs = [
        Counting::leg(Side::Records, [100, 120, 130], None),
        Counting::leg(Side::Readiness, [105, 125, 135], Some(&slow)),
    ];
    let barriers = Barriers::new();
    let mut events = open(&legs, &barriers, &Births::default(), &Scope::all(), None);
    assert_eq!(snapshot(&mut events).await.1, [90, 90]);
    let mut first = pin!(barriers.raise(&legs));
    assert!(first.as_mut().now_or_never().is_none());
    let mut others: Vec<_> = (0..50).map(|_| barriers.raise(&legs).boxed()).collect();
    for other in &mut others {
        assert!(other.now_or_never().is_none(), "one is under way");
    }
    slow.notify_one();
    // One of them that has given up takes nothing from the others.
    drop(others.remove(0));
    let first = first.await.unwrap();
    let others = future::try_join_all(others).await.unwrap();
    assert_eq!(progress::versions(&first), [100, 105]);
    for other in &others {
        assert_eq!(progress::versions(other), [120, 125]);
    }
    let both = async {
        while let WatchEvent::Progress(at) = events.next().await.unwrap().unwrap() {
            if progress::reached(&at, &others[0]) {
                return;
            }
        }
    };
    timeout(Duration::from_secs(1), both).await.expect("the watch reaches all of them");
    assert_eq!(progress::versions(&barriers.raise(&legs).await.unwrap()), [130, 135]);
}

#[tokio::test(start_paused = true)]
async fn a_barrier_that_nobody_waits_for_any_more_holds_nobody_up() {
    for has_next in [false, true] {
        let never = Arc::new(Notify::new());
        let legs = [Counting::leg(Side::Records, [100, 120], Some(&never))];
        let barriers = Barriers::new();
        let mut first = barriers.raise(&legs).boxed();
        assert!((&mut first).now_or_never().is_none());
        let next = has_next.then(|| barriers.raise(&legs).boxed());
        let next = next.map(|mut next| assert!((&mut next).now_or_never().is_none()));
        drop((first, next));
        let raised = timeout(Duration::from_secs(1), barriers.raise(&legs)).await.expect("it is asked for at once");
        assert_eq!(progress::versions(&raised.unwrap()), [120]);
    }
}

/// Nobody else polls it, and it is waited for by one that began after.
#[tokio::test(start_paused = true)]
async fn a_barrier_that_is_given_up_ends_for_the_one_after_it() {
    let slow = Arc::new(Notify::new());
    let legs = [Counting::leg(Side::Records, [100, 120], Some(&slow))];
    let barriers = Barriers::new();
    let mut first = barriers.raise(&legs).boxed();
    assert!((&mut first).now_or_never().is_none());
    let mut next = barriers.raise(&legs).boxed();
    assert!((&mut next).now_or_never().is_none());
    drop(first);
    slow.notify_one();
    let raised = timeout(Duration::from_secs(1), next).await.expect("it goes on");
    assert_eq!(progress::versions(&raised.unwrap()), [120]);
}

/// A leg whose watches open and tell as the test has it, each with a word when it is asked for.
struct Telling {
    watches: Mutex<VecDeque<Opened>>,
    asked: Arc<Notify>,
}

type Opened = BoxFuture<'static, std::result::Result<Events, Failure>>;

impl Telling {
    fn new(watches: impl IntoIterator<Item = Opened>) -> Arc<Self> {
        Arc::new(Self { watches: Mutex::new(watches.into_iter().collect()), asked: Arc::default() })
    }
}

fn opened(events: Events) -> Opened {
    future::ready(Ok(events)).boxed()
}

fn listed(version: u64) -> Event {
    Event::Bookmark { version, complete: true }
}

fn failure(cause: Cause) -> Failure {
    Failure { cause, error: Error::new(ErrorKind::Unavailable, format!("{cause:?}")) }
}

#[async_trait]
impl Source for Telling {
    async fn list(&self, _: Part, _: u32) -> std::result::Result<Page, Failure> {
        panic!("lists are streamed here")
    }

    async fn watch(&self, _: Start) -> std::result::Result<Events, Failure> {
        self.asked.notify_one();
        let opened = self.watches.lock().unwrap().pop_front().expect("a watch that is foreseen");
        opened.await
    }

    async fn version(&self) -> std::result::Result<u64, Failure> {
        Ok(100)
    }

    async fn is_absent(&self) -> bool {
        true
    }
}

#[async_trait]
impl Count for Telling {
    async fn census(&self, _: Part, _: u32) -> std::result::Result<(Census, Option<String>), Failure> {
        Ok((Census { version: 100, objects: [(Ref::new("ns", "a"), 80)].into() }, None))
    }
}

/// After a gap a list is read that has `b`, which is gone before the list is complete, and a barrier proves that it is.
#[tokio::test(start_paused = true)]
async fn a_list_takes_no_watch_back_before_what_was_counted_while_it_was_read() {
    let put = |name: &str, version| {
        Event::Put(Seen { name: Ref::new("ns", name), version, object: Object::Ready(Vec::new()) })
    };
    let slow = Arc::new(Notify::new());
    let complete = {
        let slow = Arc::clone(&slow);
        stream::once(async move { slow.notified().await }).map(move |()| Ok(listed(96)))
    };
    let watches = [
        stream::iter([Ok(put("a", 80)), Ok(listed(90)), Err(failure(Cause::Gone))]).boxed(),
        stream::iter([put("a", 80), put("b", 95)].map(Ok)).chain(complete).chain(stream::pending()).boxed(),
        stream::iter([Event::Gone(Ref::new("ns", "b"), 97), put("c", 101)].map(Ok)).chain(stream::pending()).boxed(),
    ];
    let source = Telling::new(watches.map(opened));
    let asked = Arc::clone(&source.asked);
    let legs = [Leg { side: Side::Readiness, namespace: None, source, is_dealt_out: false }];
    let barriers = Barriers::new();
    let mut events = open(&legs, &barriers, &Births::default(), &Scope::all(), None);
    assert_eq!(snapshot(&mut events).await.1, [90]);
    asked.notified().await;
    tokio::select! {
        event = events.next() => panic!("nothing is to be told: {event:?}"),
        () = asked.notified() => {}
    }
    let target = barriers.raise(&legs).await.unwrap();
    let mut at = progress::position([90]);
    while progress::versions(&at) < vec![101] {
        let next = match timeout(Duration::from_secs(60), events.next()).await.expect("the watch goes on") {
            Some(Ok(WatchEvent::Progress(next) | WatchEvent::Batch { position: next, .. })) => next,
            other => panic!("nothing else is to be told: {other:?}"),
        };
        assert!(progress::reached(&next, &at), "{:?} after {:?}", progress::versions(&next), progress::versions(&at));
        if next == target {
            slow.notify_one();
        }
        at = next;
    }
}

/// The next event of a watch; none where a wait and another pass before there is one.
async fn told(events: &mut WatchStream) -> Option<WatchEvent> {
    timeout(HANDOVER * 2, events.next()).await.ok().map(|event| event.expect("a watch goes on").unwrap())
}

/// What is counted and never seen is gone with the type, if that is asked for after the census.
#[tokio::test(start_paused = true)]
async fn a_barrier_is_reached_by_a_watch_whose_type_is_gone_before_all_that_was_counted_came() {
    for (when, at_once) in [("before", true), ("during", false), ("after", false)] {
        let (gone, absent) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let first = {
            let gone = Arc::clone(&gone);
            stream::once(async move { gone.notified().await }).map(|()| Err(failure(Cause::Gone)))
        };
        let first = stream::iter([Ok(listed(90))]).chain(first).boxed();
        let refused = || future::ready(Err(failure(Cause::Absent))).boxed();
        let second = {
            let absent = Arc::clone(&absent);
            async move {
                absent.notified().await;
                Err(failure(Cause::Absent))
            }
        };
        let source = Telling::new([opened(first), second.boxed(), refused(), refused(), refused()]);
        let asked = Arc::clone(&source.asked);
        let legs = [Leg { side: Side::Records, namespace: None, source, is_dealt_out: false }];
        let barriers = Barriers::new();
        let mut events = open(&legs, &barriers, &Births::default(), &Scope::all(), None);
        assert_eq!(snapshot(&mut events).await.1, [90]);
        asked.notified().await;
        let raise = async || assert_eq!(progress::versions(&barriers.raise(&legs).await.unwrap()), [100]);
        if when == "before" {
            raise().await;
            assert!(matches!(told(&mut events).await, Some(WatchEvent::Progress(_))));
        }
        gone.notify_one();
        tokio::select! {
            event = events.next() => panic!("nothing is to be told: {event:?}"),
            () = asked.notified() => {}
        }
        if when == "during" {
            raise().await;
            assert!(matches!(told(&mut events).await, Some(WatchEvent::Progress(_))));
        }
        absent.notify_one();
        if when == "after" {
            assert!(matches!(told(&mut events).await, Some(WatchEvent::Progress(_))));
            raise().await;
        }
        let began = Instant::now();
        let reached = async {
            while let Some(Ok(WatchEvent::Progress(at))) = events.next().await {
                if progress::versions(&at) == [100] {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(2), reached).await.unwrap_or_else(|_| panic!("counted {when} the answer"));
        assert_eq!(began.elapsed() < Duration::from_millis(500), at_once, "counted {when} the answer");
    }
}
