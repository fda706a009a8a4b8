//! Owners on the way from one EndpointSlice to another, and those who are gone.

use std::sync::atomic::AtomicUsize;

use discovery_core::{Key, Path};
use discovery_dynamo::layout;
use tokio::sync::mpsc;
use tokio::time::advance;

use super::*;
use crate::bounds::{PROPAGATION, RECOVERY};
use crate::document::Document;
use crate::handover::SPREAD;
use crate::join::Stored;
use crate::readiness::Claim;

mod counted;
mod gaps;
mod refused;

/// How long a census takes.
const ANSWER: Duration = Duration::from_millis(20);

/// How long one may take from an API server that asks whether its cache is fresh.
const FRESH: Duration = Duration::from_millis(100);
/// What tokio's clock rounds up to.
const TICK: Duration = Duration::from_millis(1);

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
    /// Of what there is by then.
    Late(Duration),
    Fails,
    FailsAfter(Duration),
    Refused,
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
    async fn census(&self, _: Part, _: u32) -> std::result::Result<(Census, Option<String>), Failure> {
        self.counted.fetch_add(1, Ordering::Relaxed);
        let stored = self.stored.lock().unwrap().clone();
        let answer = *self.answer.lock().unwrap();
        match answer {
            Answer::After(time) => sleep(time).await,
            Answer::Late(time) => {
                sleep(time).await;
                return Ok((self.stored.lock().unwrap().clone(), None));
            }
            Answer::Fails => return Err(failure(Cause::Other)),
            Answer::FailsAfter(time) => {
                sleep(time).await;
                return Err(failure(Cause::Other));
            }
            Answer::Refused => {
                let error = Error::new(ErrorKind::PermissionDenied, "not allowed to list");
                return Err(Failure { cause: Cause::Other, error });
            }
            Answer::Never => future::pending().await,
        }
        Ok((stored, None))
    }
}

/// Pods that have registered.
const PODS: [&str; 20] =
    ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"];

/// What a watch of their records is told first.
fn recorded_events() -> impl Iterator<Item = Event> {
    let record = |(pod, version): (&str, u64)| {
        let key = Key::new(Path::new("item", ["x"]).unwrap(), layout::kubernetes_instance_id(pod));
        let document = Document { entries: [(key, "1".into())].into(), unread: Vec::new() };
        let stored = Stored { uid: "u".into(), owner: Some(pod.into()), document: Some(Arc::new(document)) };
        Event::Put(Seen { name: Ref::new("ns", pod), version, object: Object::Records(stored) })
    };
    let records = PODS.into_iter().zip(1..).map(record);
    records.chain([listed(90)])
}

/// Their records.
fn recorded() -> Events {
    stream::iter(recorded_events().map(Ok)).chain(stream::pending()).boxed()
}

/// A watch that shows them while the slices hold the pods.
fn dealt_out(slices: &Arc<Slices>) -> WatchStream {
    dealt_out_beside(Telling::new([opened(recorded())]), slices)
}

fn dealt_out_beside(records: Arc<Telling>, slices: &Arc<Slices>) -> WatchStream {
    let leg = |side, source| Leg { side, namespace: None, source, is_dealt_out: side == Side::Readiness };
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

/// A watch that opens when it is let.
fn held(hold: &Arc<Notify>, events: Events) -> Opened {
    let hold = Arc::clone(hold);
    async move {
        hold.notified().await;
        Ok(events)
    }
    .boxed()
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

/// The API server answers from its cache once that is known to be fresh, which it asks etcd for each 100 ms.
#[tokio::test(start_paused = true)]
async fn who_is_gone_leaves_in_time_though_the_server_waits_for_its_cache() {
    let (slices, send, mut events) = begun(&["a"], []).await;
    slices.answers(Answer::After(FRESH));
    for spread in 0..20 {
        let pods: &[&str] = if spread % 2 == 0 { &[] } else { &["a"] };
        send.send(Ok(slices.write("one", 10 + spread, pods))).unwrap();
        if pods.is_empty() {
            let (_, after) = leave(&mut events, "it is gone").await;
            assert!((HANDOVER + FRESH..PROPAGATION).contains(&after), "{after:?}");
        } else {
            assert!(matches!(told(&mut events).await, Some(WatchEvent::Batch { .. })), "it is back");
        }
    }
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
        send.send(Ok(slices.write("other", version, &["other"]))).unwrap();
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
    // At HANDOVER the first is asked for, and the second half of it later, though the first is not answered before twice that.
    let second = Instant::now();
    let (left, after) = leave(&mut events, "the first is gone").await;
    assert!(
        left == 1 && (HANDOVER * 3 / 2..=HANDOVER * 3 / 2 + SPREAD + TICK).contains(&after),
        "{left} after {after:?}"
    );
    let (left, _) = leave(&mut events, "the second is gone").await;
    assert_eq!((left, slices.counted()), (1, 2));
    let after = second.elapsed();
    assert!((HANDOVER * 2..=PROPAGATION).contains(&after), "{after:?}");
}

/// They are asked for together, and each leaves in time all the same.
#[tokio::test(start_paused = true)]
async fn many_who_go_one_after_the_other_are_asked_for_a_few_times() {
    const STEP: Duration = Duration::from_millis(10);
    let (slices, send, mut events) = begun(&PODS, []).await;
    let began = Instant::now();
    let (mut gone, mut left) = (0, 0);
    while left < PODS.len() {
        if gone < PODS.len() {
            gone += 1;
            send.send(Ok(slices.write("one", 100 + gone as u64, &PODS[gone..]))).unwrap();
        }
        let step = timeout(STEP, async {
            loop {
                left += removed(Some(&events.next().await.unwrap().unwrap()));
            }
        });
        let _: Result<(), _> = step.await;
        let due = (began.elapsed().saturating_sub(PROPAGATION).as_millis() / STEP.as_millis()) as usize;
        assert!(left >= due.min(PODS.len()), "{left} of {due} have left after {:?}", began.elapsed());
    }
    assert!(slices.counted() <= 7, "asked {} times", slices.counted());
}

/// When each of so many watches asks, all of which hear of one who is gone in the same instant.
async fn asked_after(watches: usize) -> Vec<Duration> {
    let mut began = Vec::new();
    for _ in 0..watches {
        began.push(begun(&["a"], []).await);
    }
    let heard = Instant::now();
    let asked = began.iter_mut().map(|(slices, send, events)| async move {
        send.send(Ok(slices.write("one", 10, &[]))).unwrap();
        leave(events, "it is gone").await.1
    });
    let asked = future::join_all(asked).await;
    assert!(heard.elapsed() <= PROPAGATION, "{:?}", heard.elapsed());
    asked.into_iter().map(|after| after - ANSWER).collect()
}

/// A thousand routers hear of it at once, and the API server has two cores.
#[tokio::test(start_paused = true)]
async fn watches_that_hear_the_same_do_not_ask_in_the_same_instant() {
    fastrand::seed(7);
    let asked = asked_after(100).await;
    assert!(asked.iter().all(|after| (HANDOVER..HANDOVER + SPREAD + TICK * 2).contains(after)), "{asked:?}");
    // Of all that ask no fifth does so in one fifth of the time, give or take.
    for tenth in 0..10 {
        let from = HANDOVER + SPREAD / 10 * tenth;
        let together = asked.iter().filter(|after| (from..from + SPREAD / 5).contains(*after)).count();
        assert!(together <= 40, "{together} within {:?}: {asked:?}", SPREAD / 5);
    }
    fastrand::seed(7);
    assert_eq!(asked_after(100).await, asked, "of one seed");
}

/// Whoever else goes missing meanwhile makes nobody ask sooner.
#[tokio::test(start_paused = true)]
async fn a_census_that_fails_is_backed_off_from_though_more_go_missing() {
    let (slices, send, mut events) = begun(&PODS, []).await;
    slices.answers(Answer::Fails);
    for gone in 1..=PODS.len() {
        send.send(Ok(slices.write("one", 100 + gone as u64, &PODS[gone..]))).unwrap();
        keeps(&mut events, Duration::from_millis(100), "nothing is known").await;
    }
    assert!((3..10).contains(&slices.counted()), "asked {} times", slices.counted());
    slices.answers(Answer::After(ANSWER));
    let (left, after) = leave(&mut events, "it is known").await;
    assert!((left, after <= RECOVERY / 2) == (PODS.len(), true), "{left} after {after:?}");
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

/// Whenever somebody goes, and however many went just before: each of them leaves in time, and the API server is asked so often
/// and no more.
#[tokio::test(start_paused = true)]
async fn who_goes_while_others_are_asked_for_leaves_in_time() {
    const STEP: Duration = Duration::from_millis(7);
    const ROUNDS: usize = 10;
    let (slices, send, mut events) = begun(&PODS, []).await;
    slices.answers(Answer::After(FRESH));
    let began = Instant::now();
    let mut version = 100;
    for _ in 0..ROUNDS {
        let round = Instant::now();
        let (mut went, mut left) = (Vec::new(), 0);
        while left < PODS.len() {
            if went.len() < PODS.len() {
                version += 1;
                went.push(Instant::now());
                send.send(Ok(slices.write("one", version, &PODS[went.len()..]))).unwrap();
            }
            let step = timeout(STEP, async {
                loop {
                    for _ in 0..removed(Some(&events.next().await.unwrap().unwrap())) {
                        assert!(went[left].elapsed() <= PROPAGATION, "{left} left after {:?}", went[left].elapsed());
                        left += 1;
                    }
                }
            });
            let _: Result<(), _> = step.await;
        }
        assert!(round.elapsed() <= STEP * PODS.len() as u32 + PROPAGATION);
        version += 1;
        send.send(Ok(slices.write("one", version, &PODS))).unwrap();
        assert!(matches!(told(&mut events).await, Some(WatchEvent::Batch { .. })), "they are back");
    }
    let asked = slices.counted() as f64 / began.elapsed().as_secs_f64();
    assert!(asked <= 29.0, "asked {asked} times a second");
}

/// One that fails is not the end of those who are asked for by a later one too, which proves as much of them.
#[tokio::test(start_paused = true)]
async fn a_census_that_fails_leaves_its_owners_to_a_later_one_that_is_under_way() {
    let (slices, send, mut events) = begun(&["a", "b"], []).await;
    slices.answers(Answer::FailsAfter(FRESH));
    send.send(Ok(slices.write("one", 10, &["b"]))).unwrap();
    keeps(&mut events, HANDOVER / 2, "one is missing").await;
    send.send(Ok(slices.write("one", 11, &[]))).unwrap();
    keeps(&mut events, HANDOVER / 2 + SPREAD + TICK, "the first is asked for").await;
    assert_eq!(slices.counted(), 1);
    slices.answers(Answer::After(FRESH));
    let (left, after) = leave(&mut events, "both are gone").await;
    assert_eq!((left, slices.counted()), (2, 2));
    assert!(after <= PROPAGATION - HANDOVER / 2, "{after:?}");
}
