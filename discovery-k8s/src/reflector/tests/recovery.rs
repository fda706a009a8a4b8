//! When a watch that was broken is whole again, and when one that seems whole is not.

use super::super::anew::ANEW;
use super::*;

/// What is told, and when.
async fn timed(script: &Arc<Script>, count: usize) -> Vec<(String, Duration)> {
    let began = Instant::now();
    let news = followed(script).filter(|told| std::future::ready(!matches!(told, Told::Reading)));
    news.take(count).map(|told| (short(&told), began.elapsed())).collect().await
}

fn names(told: &[(String, Duration)]) -> Vec<&str> {
    told.iter().map(|(told, _)| told.as_str()).collect()
}

/// Events that come slowly are on their way, however long all of them take.
#[tokio::test(start_paused = true)]
async fn a_view_that_is_behind_has_not_recovered_while_what_was_missed_still_comes() {
    let missed: Vec<u64> = (8..=14).collect();
    let every = STANDS / 2;
    let start = |events: Vec<Event>| {
        let broken = Answer::Watch(vec![], End::Fail(Cause::Other));
        Script::at(14, [NO_STREAMING, page(&["a"], 7, None), broken, Answer::Slowly(events, every)])
    };
    let script = start(missed.iter().map(|version| put("b", *version)).collect());
    let told = timed(&script, missed.len() + 3).await;
    let wanted = missed.iter().map(|version| format!("put b at {version}"));
    let wanted: Vec<_> = ["all a at 7", "interrupted"].map(str::to_owned).into_iter().chain(wanted).collect();
    assert_eq!(names(&told)[..wanted.len()], wanted);
    assert_eq!(told.last().unwrap().0, "recovered");
    // One to which nothing more comes is whole, after a while.
    let script = start(vec![put("b", 8), put("b", 9)]);
    let told = timed(&script, 5).await;
    assert_eq!(names(&told)[2..], ["put b at 8", "put b at 9", "recovered"]);
    assert_eq!(told[4].1 - told[3].1, STANDS);
}

/// The pause after it has grown by what went before.
#[tokio::test(start_paused = true)]
async fn a_watch_that_is_opened_again_only_after_a_while_is_told() {
    for end in [End::Close, End::Fail(Cause::Gone)] {
        let failures = std::iter::repeat_n(Answer::Refuse(Cause::Other), 10);
        let broken = Answer::Watch(vec![], End::Fail(Cause::Other));
        let script = Script::at(
            7,
            [NO_STREAMING, page(&["a"], 7, None), broken]
                .into_iter()
                .chain(failures)
                // It is live again, and for less than proves anything.
                .chain([Answer::Watch(vec![], end.clone()), page(&["a"], 7, None), Answer::Watch(vec![], End::Hang)]),
        );
        let told = timed(&script, 14).await;
        assert_eq!(names(&told)[12..], ["recovered", "interrupted"], "{end:?}");
        assert!(told[13].1 - told[12].1 < PROPAGATION, "{end:?}: {told:?}");
    }
}

/// No watch is open meanwhile.
#[tokio::test(start_paused = true)]
async fn a_view_that_is_read_anew_for_long_is_stale_until_it_is_read() {
    let gone = Answer::Watch(vec![], End::Fail(Cause::Gone));
    let start = || [NO_STREAMING, page(&["a"], 7, None), gone.clone()].into_iter();
    let pages = |last: Answer| {
        let parts = ["1", "2", "3", "4"].map(|next| Answer::After(ANEW * 2 / 5, Box::new(page(&["b"], 9, Some(next)))));
        parts.into_iter().chain([last, Answer::Watch(vec![put("c", 10)], End::Hang)])
    };
    let script = Script::new(start().chain(pages(page(&["b"], 9, None))));
    let told = timed(&script, 5).await;
    assert_eq!(names(&told), ["all a at 7", "interrupted", "all bbbbb at 9", "recovered", "put c at 10"]);
    assert!((ANEW..ANEW + PROPAGATION).contains(&told[1].1), "{told:?}");
    // Also while one answer is waited for.
    let late = Answer::After(ANEW * 3, Box::new(page(&["b"], 9, None)));
    let script = Script::new(start().chain([late, Answer::Watch(vec![put("c", 10)], End::Hang)]));
    let told = timed(&script, 5).await;
    assert_eq!(names(&told), ["all a at 7", "interrupted", "all b at 9", "recovered", "put c at 10"]);
    assert!((ANEW..ANEW + PROPAGATION).contains(&told[1].1), "{told:?}");
    // Its end is told once, where something fails besides.
    let fails = pages(Answer::Refuse(Cause::Other)).take(5);
    let again = [page(&["b"], 9, None), Answer::Watch(vec![put("c", 10)], End::Hang)];
    let told = timed(&Script::new(start().chain(fails).chain(again)), 6).await;
    assert_eq!(names(&told), ["all a at 7", "interrupted", "interrupted", "all b at 9", "recovered", "put c at 10"]);
    // Who reads it soon says nothing.
    let soon = Answer::After(ANEW / 2, Box::new(page(&["b"], 9, None)));
    let script = Script::new(start().chain([soon, Answer::Watch(vec![put("c", 10)], End::Hang)]));
    assert_eq!(names(&timed(&script, 3).await), ["all a at 7", "all b at 9", "put c at 10"]);
}
