//! When a watch that was broken is whole again, and when one that seems whole is not.

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
