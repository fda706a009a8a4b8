//! Owners on the way from one EndpointSlice to another, and those who are gone.

use std::sync::atomic::AtomicUsize;

use discovery_core::{Key, Path};
use discovery_dynamo::layout;
use tokio::sync::mpsc;
use tokio::time::advance;

use super::*;
use crate::bounds::PROPAGATION;
use crate::document::Document;
use crate::join::Stored;
use crate::readiness::Claim;

/// How long a census takes.
const ANSWER: Duration = Duration::from_millis(20);
/// How long a watch is cut: longer than anybody is waited for, and less than a request may take.
const GAP: Duration = Duration::from_secs(3);
/// Longer than any failure is waited out.
const RECOVERED: Duration = Duration::from_secs(30);

/// The slices of a store, which is what is counted. What watches are told of them the test says.
struct Slices {
    stored: Mutex<Census>,
    watches: Mutex<VecDeque<Opened>>,
    answer: Mutex<Answer>,
    counted: AtomicUsize,
}

/// What becomes of a census.
#[derive(Clone, Copy)]
enum Answer {
    After(Duration),
    Fails,
    Never,
}

impl Slices {
    fn new(watches: impl IntoIterator<Item = Opened>) -> Arc<Self> {
        Arc::new(Self {
            stored: Mutex::default(),
            watches: Mutex::new(watches.into_iter().collect()),
            answer: Mutex::new(Answer::After(ANSWER)),
            counted: AtomicUsize::new(0),
        })
    }

    /// The slice `name` has endpoints of these pods from now on. Answers what a watch would be told of it.
    fn write(&self, name: &str, version: u64, pods: &[&str]) -> Event {
        let name = Ref::new("ns", name);
        let mut stored = self.stored.lock().unwrap();
        stored.version = version;
        stored.objects.insert(name.clone(), version);
        let claim = |pod: &&str| Claim { resource: (*pod).into(), uid: (*pod).into(), ready: true, terminating: false };
        Event::Put(Seen { name, version, object: Object::Ready(pods.iter().map(claim).collect()) })
    }

    /// Everything up to this version has been told.
    fn listed(&self, version: u64) -> Event {
        self.stored.lock().unwrap().version = version;
        listed(version)
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn counted(&self) -> usize {
        self.counted.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Source for Slices {
    async fn list(&self, _: Part, _: u32) -> std::result::Result<Page, Failure> {
        panic!("lists are streamed here")
    }

    async fn watch(&self, _: Start) -> std::result::Result<Events, Failure> {
        let opened = self.watches.lock().unwrap().pop_front().expect("a watch that is foreseen");
        opened.await
    }

    async fn version(&self) -> std::result::Result<u64, Failure> {
        Ok(self.stored.lock().unwrap().version)
    }

    async fn is_absent(&self) -> bool {
        false
    }
}

#[async_trait]
impl Count for Slices {
    async fn census(&self) -> std::result::Result<Census, Failure> {
        self.counted.fetch_add(1, Ordering::Relaxed);
        let stored = self.stored.lock().unwrap().clone();
        let answer = *self.answer.lock().unwrap();
        match answer {
            Answer::After(time) => sleep(time).await,
            Answer::Fails => return Err(failure(Cause::Other)),
            Answer::Never => future::pending().await,
        }
        Ok(stored)
    }
}

/// The records of the pods `a` and `b`.
fn recorded() -> Events {
    let record = |pod: &str, version| {
        let key = Key::new(Path::new("item", ["x"]).unwrap(), layout::kubernetes_instance_id(pod));
        let document = Document { entries: [(key, "1".into())].into(), unread: Vec::new() };
        let stored = Stored { uid: "u".into(), owner: Some(pod.into()), document: Some(Arc::new(document)) };
        Event::Put(Seen { name: Ref::new("ns", pod), version, object: Object::Records(stored) })
    };
    stream::iter([record("a", 1), record("b", 2), listed(9)].map(Ok)).chain(stream::pending()).boxed()
}

/// A watch that shows them while the slices hold the pods.
fn dealt_out(slices: &Arc<Slices>) -> WatchStream {
    let leg = |side, source| Leg { side, namespace: None, source, is_dealt_out: side == Side::Readiness };
    let records = Telling::new([opened(recorded())]);
    let legs = [leg(Side::Records, records as Arc<dyn Count>), leg(Side::Readiness, Arc::clone(slices) as _)];
    open(&legs, &Barriers::new(), &Births::default(), &Scope::all(), None)
}

type Sender = mpsc::UnboundedSender<std::result::Result<Event, Cause>>;

/// Events, and how they end, that the test sends.
fn sent() -> (Sender, Events) {
    let (send, receive) = mpsc::unbounded_channel::<std::result::Result<Event, Cause>>();
    let events = stream::unfold(receive, |mut receive| async move {
        let event = receive.recv().await?;
        Some((event.map_err(failure), receive))
    });
    (send, events.boxed())
}

/// A watch of slices of which `one` holds these pods, and what it is told next.
async fn begun(pods: &[&str], further: impl IntoIterator<Item = Opened>) -> (Arc<Slices>, Sender, WatchStream) {
    let (send, events) = sent();
    let slices = Slices::new([opened(events)].into_iter().chain(further));
    for event in [slices.write("one", 1, pods), slices.listed(9)] {
        send.send(Ok(event)).unwrap();
    }
    let mut events = dealt_out(&slices);
    snapshot(&mut events).await;
    (slices, send, events)
}

fn removed(event: Option<&WatchEvent>) -> usize {
    match event {
        Some(WatchEvent::Batch { changes, .. }) => {
            assert!(changes.iter().all(|change| matches!(change, Change::Delete(_))), "{changes:?}");
            changes.len()
        }
        _ => 0,
    }
}

/// Whatever comes in this time, and that it removes nobody.
async fn keeps(events: &mut WatchStream, time: Duration, what: &str) {
    let all = async {
        loop {
            let event = events.next().await.unwrap().unwrap();
            assert_eq!(removed(Some(&event)), 0, "{what}: {event:?}");
        }
    };
    let _: Result<(), _> = timeout(time, all).await;
}

/// How many leave by the next event that removes somebody, and after what time.
async fn leave(events: &mut WatchStream, what: &str) -> (usize, Duration) {
    let began = Instant::now();
    let next = async {
        loop {
            let removed = removed(Some(&events.next().await.unwrap().unwrap()));
            if removed > 0 {
                return removed;
            }
        }
    };
    let left = timeout(Duration::from_secs(60), next).await.unwrap_or_else(|_| panic!("{what}: nobody leaves"));
    (left, began.elapsed())
}

/// A watch that opens when it is let.
fn held(hold: &Arc<Notify>, events: Events) -> Opened {
    let hold = Arc::clone(hold);
    async move {
        hold.notified().await;
        Ok(events)
    }
    .boxed()
}

#[tokio::test(start_paused = true)]
async fn who_moves_stays_and_who_is_gone_leaves_in_time() {
    let (slices, send, mut events) = begun(&["a"], []).await;
    for (event, after) in [(slices.write("one", 10, &[]), HANDOVER / 2), (slices.write("two", 11, &["a"]), HANDOVER)] {
        send.send(Ok(event)).unwrap();
        keeps(&mut events, after, "it moves").await;
    }
    keeps(&mut events, HANDOVER * 3, "it has moved").await;
    assert_eq!(slices.counted(), 0, "nothing is asked for a move");
    send.send(Ok(slices.write("two", 12, &[]))).unwrap();
    let (left, after) = leave(&mut events, "it is gone").await;
    assert_eq!((left, slices.counted()), (1, 1));
    assert!((HANDOVER..=PROPAGATION).contains(&after), "{after:?}");
}

/// Both events of a move have come, to the watch or to the connection, and the time for it has run out before the second was
/// looked at.
#[tokio::test(start_paused = true)]
async fn what_came_while_the_process_stood_still_is_heard_before_an_owner_is_given_up() {
    for at_the_connection in [false, true] {
        let (send, watched) = sent();
        let watched = watched.then(move |event| async move {
            if at_the_connection {
                tokio::task::yield_now().await;
            }
            event
        });
        let slices = Slices::new([opened(watched.boxed())]);
        slices.answers(Answer::After(Duration::ZERO));
        for event in [slices.write("one", 1, &["a"]), slices.listed(9)] {
            send.send(Ok(event)).unwrap();
        }
        let mut events = dealt_out(&slices);
        snapshot(&mut events).await;
        send.send(Ok(slices.write("one", 10, &[]))).unwrap();
        assert!(matches!(told(&mut events).await, Some(WatchEvent::Progress(_))));
        send.send(Ok(slices.write("two", 11, &["a"]))).unwrap();
        advance(HANDOVER * 3).await;
        keeps(&mut events, HANDOVER * 3, "it stood in the other slice").await;
    }
}

/// There is no end of what is to be heard, and it is gone within `P` all the same.
#[tokio::test(start_paused = true)]
async fn an_owner_that_is_gone_leaves_in_time_though_other_events_keep_coming() {
    let (slices, send, mut events) = begun(&["a"], []).await;
    send.send(Ok(slices.write("one", 10, &[]))).unwrap();
    let began = Instant::now();
    for version in 11.. {
        // There is always one that has come.
        send.send(Ok(slices.write("other", version, &["c"]))).unwrap();
        if removed(told(&mut events).await.as_ref()) == 1 {
            break;
        }
        assert!(began.elapsed() <= PROPAGATION, "it is waited for beyond {PROPAGATION:?}");
        advance(Duration::from_millis(5)).await;
    }
    let after = began.elapsed();
    assert!((HANDOVER..=PROPAGATION).contains(&after), "{after:?}");
}

/// What is asked for one proves nothing of another who went later.
#[tokio::test(start_paused = true)]
async fn each_who_is_missing_has_the_whole_time() {
    let (slices, send, mut events) = begun(&["a", "b"], []).await;
    slices.answers(Answer::After(HANDOVER));
    send.send(Ok(slices.write("one", 10, &["b"]))).unwrap();
    keeps(&mut events, HANDOVER / 2, "one is missing").await;
    send.send(Ok(slices.write("one", 11, &[]))).unwrap();
    // At HANDOVER the first is asked for, at twice that it is answered, and the second, whose time is over by then, is asked for.
    let (left, after) = leave(&mut events, "the first is gone").await;
    assert_eq!((left, after), (1, HANDOVER * 3 / 2));
    let (left, after) = leave(&mut events, "the second is gone").await;
    assert_eq!((left, after, slices.counted()), (1, HANDOVER, 2));
}

/// Nothing is known of who has gone missing before the leg is in touch again, and a time after that.
#[tokio::test(start_paused = true)]
async fn an_outage_in_the_middle_of_a_move_removes_nobody() {
    for comes in [true, false] {
        let (hold, (again, second)) = (Arc::new(Notify::new()), sent());
        let (slices, send, mut events) = begun(&["a"], [held(&hold, second)]).await;
        send.send(Ok(slices.write("one", 10, &[]))).unwrap();
        send.send(Err(Cause::Other)).unwrap();
        assert!(matches!(told(&mut events).await, Some(WatchEvent::Progress(_))));
        assert!(matches!(told(&mut events).await, Some(WatchEvent::Interrupted(_))));
        let during = timeout(GAP, events.next()).await;
        assert!(during.is_err(), "while nothing is heard: {during:?}");
        hold.notify_one();
        assert!(matches!(told(&mut events).await, Some(WatchEvent::Recovered)));
        let early = timeout(HANDOVER - Duration::from_millis(1), events.next()).await;
        assert!(early.is_err(), "before the time is over: {early:?}");
        if comes {
            again.send(Ok(slices.write("two", 11, &["a"]))).unwrap();
            keeps(&mut events, RECOVERED, "it has come").await;
        } else {
            let (_, after) = leave(&mut events, "it did not come").await;
            assert!(after <= ANSWER * 2, "{after:?} more");
        }
    }
}

/// How a watch ends, or does not, of which nobody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    /// The history is gone, and is read anew.
    Gone,
    /// The server ends the watch, and it is resumed.
    Ended,
    /// Packets are lost, which is found out later. It is resumed.
    Lost,
    /// The same, and it is silent for so long that all is read anew.
    Silent,
}

/// It moves in a gap in the watch that nobody has noticed, or that is none to speak of: the time for it runs out in the gap.
#[tokio::test(start_paused = true)]
async fn a_silent_gap_in_the_middle_of_a_move_removes_nobody() {
    for gap in [Gap::Gone, Gap::Ended, Gap::Lost, Gap::Silent] {
        for moves in [true, false] {
            let what = format!("{gap:?}, moves: {moves}");
            let (hold, (again, second)) = (Arc::new(Notify::new()), sent());
            let (slices, send, mut events) = begun(&["a"], [held(&hold, second)]).await;
            let taken_out = slices.write("one", 10, &[]);
            send.send(Ok(taken_out.clone())).unwrap();
            assert!(matches!(told(&mut events).await, Some(WatchEvent::Progress(_))), "{what}");
            let last = slices.write("two", 11, if moves { &["a"] } else { &["c"] });
            let mut send = Some(send);
            match gap {
                Gap::Gone => drop(send.as_ref().unwrap().send(Err(Cause::Gone))),
                Gap::Ended => send = None,
                Gap::Lost | Gap::Silent => {}
            }
            keeps(&mut events, GAP, &what).await;
            match gap {
                Gap::Gone | Gap::Ended => {}
                Gap::Lost => drop(send.as_ref().unwrap().send(Err(Cause::Other))),
                Gap::Silent => drop(send.as_ref().unwrap().send(Err(Cause::Silent))),
            }
            keeps(&mut events, Duration::from_secs(1), &what).await;
            hold.notify_one();
            match gap {
                Gap::Gone | Gap::Silent => [taken_out, last, slices.listed(20)].into_iter().collect::<Vec<_>>(),
                Gap::Ended | Gap::Lost => vec![last],
            }
            .into_iter()
            .for_each(|event| again.send(Ok(event)).unwrap());
            if moves {
                keeps(&mut events, RECOVERED, &what).await;
            } else {
                leave(&mut events, &what).await;
            }
        }
    }
}

/// A server that does not say what there is, or not yet, proves nothing.
#[tokio::test(start_paused = true)]
async fn nobody_is_given_up_before_the_server_has_said_what_there_is() {
    for answer in [Answer::Fails, Answer::Never] {
        let (slices, send, mut events) = begun(&["a"], []).await;
        slices.answers(answer);
        send.send(Ok(slices.write("one", 10, &[]))).unwrap();
        keeps(&mut events, RECOVERED, "nothing is known").await;
        assert!((2..30).contains(&slices.counted()), "asked {} times", slices.counted());
        slices.answers(Answer::After(ANSWER));
        leave(&mut events, "it is known").await;
    }
}

/// The list has the one slice without it, and the other is written after that.
#[tokio::test(start_paused = true)]
async fn a_list_in_the_middle_of_a_move_removes_nobody_at_once() {
    for is_taken_out_before in [true, false] {
        for comes in [true, false] {
            let (again, second) = sent();
            let (slices, send, mut events) = begun(&["a"], [opened(second)]).await;
            let taken_out = slices.write("one", 10, &[]);
            if is_taken_out_before {
                send.send(Ok(taken_out.clone())).unwrap();
                assert!(matches!(told(&mut events).await, Some(WatchEvent::Progress(_))));
            }
            send.send(Err(Cause::Gone)).unwrap();
            for event in [taken_out, slices.listed(20)] {
                again.send(Ok(event)).unwrap();
            }
            let next = told(&mut events).await;
            assert!(matches!(next, Some(WatchEvent::Progress(_))), "by the list: {next:?}");
            let early = timeout(HANDOVER - Duration::from_millis(1), events.next()).await;
            assert!(early.is_err(), "before the time is over: {early:?}");
            if comes {
                again.send(Ok(slices.write("two", 21, &["a"]))).unwrap();
                keeps(&mut events, RECOVERED, "it has come").await;
            } else {
                leave(&mut events, "it did not come").await;
            }
        }
    }
}

/// Nobody is waited for who is missing in a store that went back: what it holds is all that is known.
#[tokio::test(start_paused = true)]
async fn who_is_missing_in_a_store_that_went_back_is_given_up_at_once() {
    let (again, second) = sent();
    let (slices, send, mut events) = begun(&["a"], [opened(second)]).await;
    send.send(Ok(slices.listed(90))).unwrap();
    assert!(matches!(told(&mut events).await, Some(WatchEvent::Progress(_))));
    send.send(Err(Cause::Gone)).unwrap();
    for event in [slices.write("one", 2, &[]), slices.listed(5)] {
        again.send(Ok(event)).unwrap();
    }
    let mut held = 0;
    loop {
        match events.next().await.unwrap().unwrap() {
            WatchEvent::SnapshotChunk(entries) => held += entries.len(),
            WatchEvent::SnapshotEnd(_) => break,
            _ => {}
        }
    }
    assert_eq!(held, 0);
}

/// It went back when the census is asked for, and no watch has noticed: what it holds is read, and nothing concluded before.
#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_proves_nobody_gone() {
    let (hold, (again, second)) = (Arc::new(Notify::new()), sent());
    let (slices, send, mut events) = begun(&["a"], [held(&hold, second)]).await;
    send.send(Ok(slices.write("one", 10, &[]))).unwrap();
    assert!(matches!(told(&mut events).await, Some(WatchEvent::Progress(_))));
    let back = [slices.write("one", 2, &["a"]), slices.listed(5)];
    keeps(&mut events, GAP, "a restored store").await;
    hold.notify_one();
    for event in back {
        again.send(Ok(event)).unwrap();
    }
    assert_eq!(snapshot(&mut events).await.0, Lineage::Reset);
    keeps(&mut events, RECOVERED, "it is there").await;
}

/// One namespace may be out of touch for ever.
#[tokio::test(start_paused = true)]
async fn who_is_missing_in_one_namespace_does_not_wait_for_another() {
    let (send, watched) = sent();
    let slices = Slices::new([opened(watched)]);
    let cut = stream::iter([Ok(listed(9)), Err(failure(Cause::Other))]).boxed();
    let leg = |side, namespace: &str, source| Leg {
        side,
        namespace: Some(namespace.into()),
        source,
        is_dealt_out: side == Side::Readiness,
    };
    let legs = [
        leg(Side::Records, "ns", Telling::new([opened(recorded())]) as Arc<dyn Count>),
        leg(Side::Readiness, "ns", Arc::clone(&slices) as _),
        leg(Side::Readiness, "other", Telling::new([opened(cut), future::pending().boxed()]) as _),
    ];
    let mut events = open(&legs, &Barriers::new(), &Births::default(), &Scope::all(), None);
    for event in [slices.write("one", 1, &["a"]), slices.listed(9)] {
        send.send(Ok(event)).unwrap();
    }
    snapshot(&mut events).await;
    assert!(matches!(told(&mut events).await, Some(WatchEvent::Interrupted(_))));
    send.send(Ok(slices.write("one", 10, &[]))).unwrap();
    assert!(leave(&mut events, "it is gone").await.1 <= PROPAGATION);
}
