//! What barriers count proves as much as what is asked for those who went.

use super::*;

/// A watch of one pod, whose slice no longer holds it, and which asks in vain whether it is gone; and a barrier beside it that is
/// raised after this time.
async fn raised(answer: Answer, after: Duration) -> (Arc<Slices>, Sender, WatchStream) {
    let (send, watched) = sent();
    let slices = Slices::new([opened(watched)]);
    let leg = |side, source| Leg { side, namespace: None, source, is_dealt_out: side == Side::Readiness };
    let records = Telling::new([opened(recorded())]) as Arc<dyn Count>;
    let legs = [leg(Side::Records, records), leg(Side::Readiness, Arc::clone(&slices) as _)];
    let barriers = Barriers::new();
    let mut events = open(&legs, &barriers, &Births::default(), &Scope::all(), None);
    for event in [slices.write("one", 1, &["a"]), slices.listed(9)] {
        send.send(Ok(event)).unwrap();
    }
    snapshot(&mut events).await;
    slices.answers(answer);
    send.send(Ok(slices.write("one", 10, &[]))).unwrap();
    assert!(matches!(told(&mut events).await, Some(WatchEvent::Progress(_))));
    keeps(&mut events, after, "it may be on its way").await;
    slices.answers(Answer::After(Duration::ZERO));
    barriers.raise(&legs).await.unwrap();
    slices.answers(answer);
    (slices, send, events)
}

#[tokio::test(start_paused = true)]
async fn who_is_gone_leaves_by_what_a_barrier_counted_after_the_time_for_it() {
    for after in [HANDOVER + TICK * 2, HANDOVER + SPREAD * 2] {
        let (_slices, _send, mut events) = raised(Answer::Never, after).await;
        let (left, after) = leave(&mut events, "it is gone").await;
        assert_eq!((left, after), (1, Duration::ZERO));
    }
}

/// What was counted before the time was over proves nothing.
#[tokio::test(start_paused = true)]
async fn who_may_be_on_its_way_stays_whatever_a_barrier_counted_before() {
    let (slices, _send, mut events) = raised(Answer::Never, HANDOVER - TICK * 2).await;
    keeps(&mut events, RECOVERY * 2, "nothing is known").await;
    slices.answers(Answer::After(ANSWER));
    leave(&mut events, "it is known").await;
}

/// Nobody is left to ask for.
#[tokio::test(start_paused = true)]
async fn a_view_that_could_not_ask_is_right_once_a_barrier_has_counted() {
    for (after, is_told) in [(HANDOVER + SPREAD + TICK, false), (RECOVERY * 2, true)] {
        let (slices, _send, mut events) = raised(Answer::FailsAfter(FRESH), after).await;
        assert_eq!(leave(&mut events, "it is gone").await, (1, Duration::ZERO));
        let asked = slices.counted();
        if is_told {
            assert!(matches!(told(&mut events).await, Some(WatchEvent::Recovered)));
        }
        let event = timeout(RECOVERY * 3, events.next()).await;
        assert!(event.is_err(), "{event:?}");
        assert_eq!(slices.counted(), asked, "nobody is asked for");
    }
}

/// Its other leg took longer than what was asked for since.
#[tokio::test(start_paused = true)]
async fn a_barrier_that_was_counted_before_takes_nothing_from_what_was_counted_since() {
    let (send, watched) = sent();
    let slices = Slices::new([opened(watched)]);
    let records = Late { source: Telling::new([opened(recorded())]), after: HANDOVER * 3 };
    let leg = |side, source| Leg { side, namespace: None, source, is_dealt_out: side == Side::Readiness };
    let legs = [leg(Side::Records, Arc::new(records) as _), leg(Side::Readiness, Arc::clone(&slices) as _)];
    let barriers = Arc::new(Barriers::new());
    let mut events = open(&legs, &barriers, &Births::default(), &Scope::all(), None);
    for event in [slices.write("one", 1, &["a"]), slices.listed(9)] {
        send.send(Ok(event)).unwrap();
    }
    snapshot(&mut events).await;
    slices.answers(Answer::After(Duration::ZERO));
    send.send(Ok(slices.write("one", 10, &[]))).unwrap();
    assert!(matches!(told(&mut events).await, Some(WatchEvent::Progress(_))));
    // What is written from now on is on its way to the watch.
    let (two, _) = (slices.write("two", 12, &[]), slices.listed(13));
    let raised = tokio::spawn({
        let barriers = Arc::clone(&barriers);
        async move { barriers.raise(&legs).await }
    });
    keeps(&mut events, HANDOVER / 2, "it may be on its way").await;
    let (three, _) = (slices.write("three", 15, &[]), slices.listed(20));
    keeps(&mut events, HANDOVER * 4, "the watch is behind").await;
    assert_eq!(progress::versions(&raised.await.unwrap().unwrap()), [100, 13]);
    for event in [two, three] {
        send.send(Ok(event)).unwrap();
    }
    assert_eq!(leave(&mut events, "it is gone").await, (1, Duration::ZERO));
}

/// A source whose censuses take this long.
struct Late {
    source: Arc<Telling>,
    after: Duration,
}

#[async_trait]
impl Source for Late {
    async fn list(&self, part: Part, size: u32) -> std::result::Result<Page, Failure> {
        self.source.list(part, size).await
    }

    async fn watch(&self, start: Start) -> std::result::Result<Events, Failure> {
        self.source.watch(start).await
    }

    async fn version(&self) -> std::result::Result<u64, Failure> {
        Source::version(&*self.source).await
    }

    async fn is_absent(&self) -> bool {
        self.source.is_absent().await
    }
}

#[async_trait]
impl Count for Late {
    async fn census(&self, part: Part, size: u32) -> std::result::Result<(Census, Option<String>), Failure> {
        let counted = self.source.census(part, size).await;
        sleep(self.after).await;
        counted
    }
}

/// What the earlier one counted never comes.
#[tokio::test(start_paused = true)]
async fn a_barrier_that_counts_less_than_one_before_it_is_reached_by_a_watch_that_was_behind_both() {
    let (send, watched) = sent();
    let slices = Slices::new([opened(watched)]);
    slices.answers(Answer::After(Duration::ZERO));
    let legs = [leg(slices.clone())];
    let barriers = Barriers::new();
    let mut events = open(&legs, &barriers, &Births::default(), &Scope::all(), None);
    for event in [slices.write("one", 1, &["a"]), slices.listed(9)] {
        send.send(Ok(event)).unwrap();
    }
    let before = slices.stored.lock().unwrap().clone();
    snapshot(&mut events).await;
    slices.write("two", 12, &["b"]);
    assert_eq!(progress::versions(&barriers.raise(&legs).await.unwrap()), [12]);
    assert!(matches!(told(&mut events).await, Some(WatchEvent::Progress(at)) if progress::versions(&at) == [9]));
    advance(TICK).await;
    *slices.stored.lock().unwrap() = Census { version: 11, ..before };
    assert_eq!(progress::versions(&barriers.raise(&legs).await.unwrap()), [11]);
    assert!(matches!(told(&mut events).await, Some(WatchEvent::Progress(at)) if progress::versions(&at) == [11]));
}
