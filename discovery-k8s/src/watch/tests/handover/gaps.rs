//! Moves of which a watch hears one half: nobody leaves for that.

use super::*;

/// How long a watch is cut: longer than anybody is waited for, and less than a request may take.
const GAP: Duration = Duration::from_secs(3);
/// Longer than any failure is waited out.
const RECOVERED: Duration = Duration::from_secs(30);

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
            assert!(after <= SPREAD + ANSWER * 2, "{after:?} more");
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
            let last = slices.write("two", 11, if moves { &["a"] } else { &["other"] });
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

/// It was asked for before the watch found out by itself, and is answered when that has begun anew.
#[tokio::test(start_paused = true)]
async fn a_census_that_is_overtaken_interrupts_nobody() {
    let (again, second) = sent();
    let (slices, send, mut events) = begun(&["a"], [opened(second)]).await;
    send.send(Ok(slices.write("one", 100, &[]))).unwrap();
    slices.answers(Answer::Late(Duration::from_secs(1)));
    keeps(&mut events, HANDOVER + SPREAD * 2, "it is asked for").await;
    assert_eq!(slices.counted(), 1);
    send.send(Err(Cause::Gone)).unwrap();
    for event in [slices.write("one", 2, &["a"]), slices.listed(5)] {
        again.send(Ok(event)).unwrap();
    }
    assert_eq!(snapshot(&mut events).await.0, Lineage::Reset);
    let event = timeout(RECOVERED, events.next()).await;
    assert!(event.is_err(), "{event:?}");
}
