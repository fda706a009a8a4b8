//! Views that cannot ask who is gone: they keep everybody, and say that they may be wrong.

use discovery_testbed::CapturedLog;

use super::*;

/// The next event that is no mere progress, and after what time it came.
async fn said(events: &mut WatchStream) -> (WatchEvent, Duration) {
    let began = Instant::now();
    let next = async {
        loop {
            match events.next().await.unwrap().unwrap() {
                WatchEvent::Progress(_) => {}
                event => return event,
            }
        }
    };
    let event = timeout(Duration::from_secs(60), next).await.expect("something is said");
    (event, began.elapsed())
}

/// Nothing but progress is told in this time.
async fn quiet(events: &mut WatchStream, time: Duration, what: &str) {
    let event = timeout(time, said(events)).await;
    assert!(event.is_err(), "{what}: {event:?}");
}

fn is_interrupted(event: &WatchEvent, kind: ErrorKind) -> bool {
    matches!(event, WatchEvent::Interrupted(error) if error.kind() == kind)
}

/// It leaves when it can be asked for, and the view is right again.
async fn heals(slices: &Slices, events: &mut WatchStream) {
    slices.answers(Answer::After(ANSWER));
    let (event, after) = said(events).await;
    assert!(removed(Some(&event)) == 1 && after <= RECOVERY, "{event:?} after {after:?}");
    let (event, after) = said(events).await;
    assert!(matches!(event, WatchEvent::Recovered) && after.is_zero(), "{event:?} after {after:?}");
    quiet(events, RECOVERY * 3, "it is over").await;
}

#[tokio::test(start_paused = true)]
async fn a_view_that_may_not_ask_who_is_gone_says_so_at_once_and_once() {
    let log = CapturedLog::of_this_thread(tracing::Level::INFO);
    let (slices, send, mut events) = begun(&["a"], []).await;
    slices.answers(Answer::Refused);
    send.send(Ok(slices.write("one", 10, &[]))).unwrap();
    let (event, after) = said(&mut events).await;
    assert!(is_interrupted(&event, ErrorKind::PermissionDenied), "{event:?}");
    assert!(after <= HANDOVER + SPREAD + TICK, "{after:?}");
    quiet(&mut events, RECOVERY * 3, "it is said").await;
    assert!(slices.counted() > 5, "asked {} times", slices.counted());
    heals(&slices, &mut events).await;
    let text = log.taken();
    assert!(text.matches("WARN").count() == 1 && text.contains("not allowed to list"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_view_that_is_not_told_who_is_gone_says_so_after_r() {
    for answer in [Answer::Fails, Answer::Never] {
        let (slices, send, mut events) = begun(&["a"], []).await;
        slices.answers(answer);
        send.send(Ok(slices.write("one", 10, &[]))).unwrap();
        let (event, after) = said(&mut events).await;
        assert!(matches!(event, WatchEvent::Interrupted(_)), "{event:?}");
        assert!((RECOVERY..=RECOVERY + HANDOVER + SPREAD + TICK).contains(&after), "{after:?}");
        quiet(&mut events, RECOVERY * 3, "it is said").await;
        heals(&slices, &mut events).await;
    }
}

/// A short trouble is nobody's business.
#[tokio::test(start_paused = true)]
async fn a_census_that_fails_for_less_than_r_is_not_spoken_of() {
    let (slices, send, mut events) = begun(&["a"], []).await;
    for round in 0..3 {
        slices.answers(Answer::Fails);
        send.send(Ok(slices.write("one", 10 + round * 2, &[]))).unwrap();
        quiet(&mut events, RECOVERY / 2, "for a short time").await;
        slices.answers(Answer::After(ANSWER));
        leave(&mut events, "it is gone").await;
        send.send(Ok(slices.write("one", 11 + round * 2, &["a"]))).unwrap();
        assert!(matches!(said(&mut events).await.0, WatchEvent::Batch { .. }));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_for_who_has_come_and_the_view_is_right() {
    let (slices, send, mut events) = begun(&["a"], []).await;
    slices.answers(Answer::Refused);
    send.send(Ok(slices.write("one", 10, &[]))).unwrap();
    assert!(is_interrupted(&said(&mut events).await.0, ErrorKind::PermissionDenied));
    send.send(Ok(slices.write("two", 11, &["a"]))).unwrap();
    let (event, after) = said(&mut events).await;
    assert!(matches!(event, WatchEvent::Recovered) && after.is_zero(), "{event:?} after {after:?}");
    quiet(&mut events, RECOVERY * 3, "it is over").await;
}

/// What was asked for one who has come since is nobody's business, and neither is what becomes of it.
#[tokio::test(start_paused = true)]
async fn a_census_that_fails_once_nobody_is_missing_is_not_spoken_of() {
    let (slices, send, mut events) = begun(&["a"], []).await;
    slices.answers(Answer::FailsAfter(FRESH));
    send.send(Ok(slices.write("one", 10, &[]))).unwrap();
    quiet(&mut events, HANDOVER + SPREAD + TICK, "it is asked for").await;
    assert_eq!(slices.counted(), 1);
    send.send(Ok(slices.write("two", 11, &["a"]))).unwrap();
    quiet(&mut events, RECOVERY * 3, "it has come").await;
    assert_eq!(slices.counted(), 1);
}

/// The watch breaks and is mended, which says nothing of what may be asked; and the other way round.
#[tokio::test(start_paused = true)]
async fn one_trouble_that_ends_hides_no_other() {
    for asks_first in [true, false] {
        let (cut, records) = sent();
        for event in recorded_events() {
            cut.send(Ok(event)).unwrap();
        }
        let (hold, (_again, second)) = (Arc::new(Notify::new()), sent());
        let records = Telling::new([opened(records), held(&hold, second)]);
        let (send, watched) = sent();
        let slices = Slices::new([opened(watched)]);
        for event in [slices.write("one", 1, &["a"]), slices.listed(9)] {
            send.send(Ok(event)).unwrap();
        }
        let mut events = dealt_out_beside(records, &slices);
        snapshot(&mut events).await;
        slices.answers(Answer::Refused);
        send.send(Ok(slices.write("one", 10, &[]))).unwrap();
        assert!(is_interrupted(&said(&mut events).await.0, ErrorKind::PermissionDenied));
        cut.send(Err(Cause::Other)).unwrap();
        assert!(is_interrupted(&said(&mut events).await.0, ErrorKind::Unavailable));
        if asks_first {
            slices.answers(Answer::After(ANSWER));
            assert_eq!(removed(Some(&said(&mut events).await.0)), 1);
            quiet(&mut events, Duration::from_secs(3), "the records are out of touch").await;
            hold.notify_one();
            assert!(matches!(said(&mut events).await.0, WatchEvent::Recovered));
            quiet(&mut events, RECOVERY, "it is over").await;
        } else {
            hold.notify_one();
            quiet(&mut events, RECOVERY, "nothing may be asked").await;
            heals(&slices, &mut events).await;
        }
    }
}
