//! The reflector against scripted lists and watches, with tokio's clock paused.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::reading::{LEAST, read};
use super::*;
use crate::bounds::PROPAGATION;
use crate::source::Census;

mod recovery;

/// An answer to one request.
#[derive(Clone, Debug)]
enum Answer {
    List(Result<Page, Cause>),
    /// A list that is not answered in time.
    Slow,
    /// One that takes this long.
    After(Duration, Box<Answer>),
    /// The events of a watch, each after this time, which then hangs.
    Slowly(Vec<Event>, Duration),
    /// The events of a watch, which then hangs, ends or fails.
    Watch(Vec<Event>, End),
    Refuse(Cause),
}

#[derive(Clone, Debug)]
enum End {
    Hang,
    Close,
    Fail(Cause),
}

#[derive(Clone, Debug, PartialEq)]
enum Asked {
    List(Part),
    Watch(Start),
}

#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<(Duration, Asked)>>,
    /// Of the pages that were asked for.
    sizes: Mutex<Vec<u32>>,
    begun: Mutex<Option<Instant>>,
    /// Where the store says that it is, if it is not far ahead.
    version: Option<u64>,
    /// It is not said which resource types there are.
    hangs: bool,
    mark: Arc<Mark>,
}

fn failure(cause: Cause) -> Failure {
    Failure { cause, error: Error::new(ErrorKind::Unavailable, format!("{cause:?}")) }
}

impl Script {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        let script = Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() };
        Arc::new(script)
    }

    fn at(version: u64, answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        let answers = Mutex::new(answers.into_iter().collect());
        Arc::new(Self { answers, version: Some(version), ..Self::default() })
    }

    fn ask(&self, asked: Asked) -> Answer {
        let begun = *self.begun.lock().unwrap().get_or_insert_with(Instant::now);
        self.asked.lock().unwrap().push((begun.elapsed(), asked));
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().map(|(_, asked)| asked.clone()).collect()
    }
}

#[async_trait]
impl Source for Script {
    async fn list(&self, part: Part, size: u32) -> Result<Page, Failure> {
        self.sizes.lock().unwrap().push(size);
        match self.ask(Asked::List(part)) {
            Answer::Slow => std::future::pending().await,
            Answer::List(page) => page.map_err(failure),
            Answer::After(time, answer) => {
                sleep(time).await;
                let Answer::List(page) = *answer else { panic!("a list where the script has {answer:?}") };
                page.map_err(failure)
            }
            Answer::Refuse(cause) => Err(failure(cause)),
            other => panic!("a list where the script has {other:?}"),
        }
    }

    async fn watch(&self, start: Start) -> Result<Events, Failure> {
        match self.ask(Asked::Watch(start)) {
            Answer::Watch(events, end) => {
                let events = stream::iter(events.into_iter().map(Ok));
                Ok(match end {
                    End::Hang => events.chain(stream::pending()).boxed(),
                    End::Close => events.boxed(),
                    End::Fail(cause) => events.chain(stream::iter([Err(failure(cause))])).boxed(),
                })
            }
            Answer::Slowly(events, every) => {
                let slowly = move |event| async move {
                    sleep(every).await;
                    Ok(event)
                };
                Ok(stream::iter(events).then(slowly).chain(stream::pending()).boxed())
            }
            Answer::Refuse(cause) => Err(failure(cause)),
            other => panic!("a watch where the script has {other:?}"),
        }
    }

    async fn version(&self) -> Result<u64, Failure> {
        Ok(self.version.unwrap_or(u64::MAX))
    }

    async fn is_absent(&self) -> bool {
        if self.hangs {
            std::future::pending().await
        }
        true
    }
}

#[async_trait]
impl Counted for Script {
    async fn census(&self, _: Part, _: u32) -> Result<(Census, Option<String>), Failure> {
        Err(failure(Cause::Absent))
    }
}

fn seen(name: &str, version: u64) -> Seen {
    Seen { name: Ref::new("ns", name), version, object: Object::Ready(Vec::new()) }
}

fn page(names: &[&str], version: u64, next: Option<&str>) -> Answer {
    let objects = names.iter().map(|name| seen(name, version)).collect();
    Answer::List(Ok(Page { objects, version, next: next.map(str::to_owned) }))
}

fn put(name: &str, version: u64) -> Event {
    Event::Put(seen(name, version))
}

fn done(version: u64) -> Event {
    Event::Bookmark { version, complete: true }
}

const NO_STREAMING: Answer = Answer::Refuse(Cause::NoStreaming);

fn followed(script: &Arc<Script>) -> BoxStream<'static, Told> {
    follow(Arc::clone(script) as Arc<dyn Counted>, Arc::clone(&script.mark))
}

/// What is told, in short, and not that something is being read.
async fn tell(script: &Arc<Script>, count: usize) -> Vec<String> {
    let news = followed(script).filter(|told| std::future::ready(!matches!(told, Told::Reading)));
    let told: Vec<Told> = news.take(count).collect().await;
    told.iter().map(short).collect()
}

fn short(told: &Told) -> String {
    match told {
        Told::All { objects, version, reset } => {
            let names: Vec<_> = objects.iter().map(|seen| seen.name.name.to_string()).collect();
            format!("all {} at {version}{}", names.join(""), if *reset { " reset" } else { "" })
        }
        Told::Put(seen) => format!("put {} at {}", seen.name.name, seen.version),
        Told::Gone(name, version) => format!("gone {} at {version}", name.name),
        Told::At(version) => format!("at {version}"),
        Told::Reading => "reading".to_owned(),
        Told::Interrupted(_) => "interrupted".to_owned(),
        Told::Recovered => "recovered".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_streamed_list_goes_on_as_a_watch() {
    let events = vec![put("a", 3), put("b", 5), put("a", 6), done(7), put("c", 8), Event::Gone(Ref::new("ns", "a"), 9)];
    let script = Script::new([Answer::Watch(events, End::Hang)]);
    assert_eq!(tell(&script, 3).await, ["all ab at 7", "put c at 8", "gone a at 9"]);
    assert_eq!(script.asked(), [Asked::Watch(Start::Everything)]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_streams_no_lists_is_asked_for_pages_from_then_on() {
    let script = Script::new([
        NO_STREAMING,
        page(&["a"], 7, Some("t")),
        page(&["b"], 7, None),
        Answer::Watch(vec![put("c", 8)], End::Fail(Cause::Gone)),
        page(&["c"], 9, None),
        Answer::Watch(vec![], End::Hang),
    ]);
    assert_eq!(tell(&script, 3).await, ["all ab at 7", "put c at 8", "all c at 9"]);
    let asked = [
        Asked::Watch(Start::Everything),
        Asked::List(Part::First),
        Asked::List(Part::Next("t".to_owned())),
        Asked::Watch(Start::After(7)),
        Asked::List(Part::First),
    ];
    assert_eq!(script.asked(), asked);
}

#[tokio::test(start_paused = true)]
async fn a_streamed_list_that_never_completes_is_read_in_pages() {
    for end in [End::Hang, End::Close, End::Fail(Cause::Other)] {
        let script = Script::new([
            Answer::Watch(vec![put("a", 3)], end),
            page(&["a"], 7, None),
            Answer::Watch(vec![], End::Hang),
        ]);
        assert_eq!(tell(&script, 1).await, ["all a at 7"]);
    }
}

/// It may have been any other trouble. Who never completes one, time after time, does not stream.
#[tokio::test(start_paused = true)]
async fn a_list_is_streamed_again_after_one_that_broke_off() {
    let breaks = || Answer::Watch(vec![put("a", 3)], End::Close);
    let gone = |event| Answer::Watch(vec![event], End::Fail(Cause::Gone));
    let paged = |version| [page(&["a"], version, None), gone(put("b", version + 1))];
    let whole = Answer::Watch(vec![put("c", 9), done(9)], End::Hang);
    let script = Script::new([breaks()].into_iter().chain(paged(7)).chain([whole]));
    let told = ["all a at 7", "put b at 8", "all c at 9"];
    assert_eq!(tell(&script, told.len()).await, told);
    let cycle = (1..=4).flat_map(|n| [breaks()].into_iter().take(usize::from(n < 4)).chain(paged(n * 10)));
    let script = Script::new(cycle);
    assert_eq!(tell(&script, 8).await.last().unwrap(), "put b at 41");
    let streamed = script.asked().iter().filter(|asked| **asked == Asked::Watch(Start::Everything)).count();
    assert_eq!(streamed, 3);
    // One that is refused is refused for good.
    let script = Script::new([NO_STREAMING].into_iter().chain((1..=3).flat_map(|n| paged(n * 10))));
    assert_eq!(tell(&script, 6).await.last().unwrap(), "put b at 31");
    assert_eq!(script.asked().iter().filter(|asked| **asked == Asked::Watch(Start::Everything)).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_is_resumed_without_a_word() {
    let script = Script::new([
        NO_STREAMING,
        page(&["a"], 7, None),
        Answer::Watch(vec![put("b", 8), Event::Bookmark { version: 20, complete: false }], End::Close),
        Answer::Watch(vec![put("c", 21)], End::Hang),
    ]);
    assert_eq!(tell(&script, 4).await, ["all a at 7", "put b at 8", "at 20", "put c at 21"]);
    assert_eq!(script.asked()[2..], [Asked::Watch(Start::After(7)), Asked::Watch(Start::After(20))]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_resumed_at_once_is_interrupted_then_recovered() {
    let script = Script::at(
        8,
        [
            NO_STREAMING,
            page(&["a"], 7, None),
            Answer::Watch(vec![], End::Fail(Cause::Other)),
            Answer::Refuse(Cause::Other),
            Answer::Watch(vec![put("b", 8)], End::Hang),
        ],
    );
    assert_eq!(tell(&script, 5).await, ["all a at 7", "interrupted", "interrupted", "put b at 8", "recovered"]);
    assert!(script.asked()[2..].iter().all(|asked| *asked == Asked::Watch(Start::After(7))), "nothing is read anew");
}

#[tokio::test(start_paused = true)]
async fn history_that_is_gone_is_read_anew_in_each_of_its_forms() {
    let start = || [NO_STREAMING, page(&["a"], 7, None)];
    let end = || [page(&["b"], 9, None), Answer::Watch(vec![], End::Hang)];
    let forms = [
        vec![Answer::Refuse(Cause::Gone)],
        vec![Answer::Watch(vec![], End::Fail(Cause::Gone))],
        vec![Answer::Refuse(Cause::Gone), page(&["x"], 8, Some("t")), Answer::Refuse(Cause::Gone)],
    ];
    for form in forms {
        let script = Script::new(start().into_iter().chain(form).chain(end()));
        assert_eq!(tell(&script, 2).await, ["all a at 7", "all b at 9"]);
    }
}

#[tokio::test(start_paused = true)]
async fn pages_that_expire_again_and_again_become_one() {
    let expiring = [page(&["x"], 8, Some("t")), Answer::Refuse(Cause::Gone)];
    let answers = [NO_STREAMING].into_iter().chain(expiring.iter().cloned().cycle().take(6));
    let script = Script::new(answers.chain([page(&["a"], 9, None), Answer::Watch(vec![], End::Hang)]));
    assert_eq!(tell(&script, 1).await, ["all a at 9"]);
    assert_eq!(script.asked().last(), Some(&Asked::List(Part::Whole)));
}

#[tokio::test(start_paused = true)]
async fn pages_that_take_too_long_become_smaller() {
    let answers = |slow: usize| std::iter::repeat_n(Answer::Slow, slow).chain([page(&["a"], 7, None)]);
    let script = Script::new([NO_STREAMING].into_iter().chain(answers(2)).chain([Answer::Watch(vec![], End::Hang)]));
    assert_eq!(tell(&script, 4).await, ["interrupted", "interrupted", "all a at 7", "recovered"]);
    assert_eq!(*script.sizes.lock().unwrap(), [PAGE, PAGE / 4, PAGE / 16]);
    // And larger again once they come soon, for a list that is read again.
    let start = [NO_STREAMING].into_iter().chain(answers(2));
    let gone = Answer::Watch(vec![], End::Fail(Cause::Gone));
    let pages = ["1", "2", "3", "4", "5", "6"].map(|next| page(&["a"], 8, Some(next)));
    let again = pages.into_iter().chain([page(&["b"], 8, None), Answer::Watch(vec![], End::Hang)]);
    let script = Script::new(start.chain([gone]).chain(again));
    assert_eq!(tell(&script, 5).await[4], "all aaaaaab at 8");
    assert_eq!(script.sizes.lock().unwrap()[3..], [62, 124, 248, 496, PAGE, PAGE, PAGE]);
    // And where a list is read once.
    let script = Script::new(answers(3));
    assert_eq!(read(&*script).await.unwrap().version, 7);
    assert_eq!(*script.sizes.lock().unwrap(), [PAGE, PAGE / 4, PAGE / 16, LEAST]);
    let failed = read(&*Script::new([Answer::Slow])).await.unwrap_err();
    assert_eq!(failed.error.kind(), ErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_is_told_as_such() {
    let script = Script::new([
        NO_STREAMING,
        page(&["a"], 100, None),
        Answer::Refuse(Cause::Gone),
        page(&[], 5, None),
        Answer::Watch(vec![put("a", 6)], End::Hang),
    ]);
    assert_eq!(tell(&script, 3).await, ["all a at 100", "all  at 5 reset", "put a at 6"]);
}

#[tokio::test(start_paused = true)]
async fn a_type_that_is_not_there_yet_is_empty_and_waited_for() {
    let absent = || Answer::Refuse(Cause::Absent);
    let script = Script::new([absent(), absent(), absent(), Answer::Watch(vec![put("a", 3), done(4)], End::Hang)]);
    assert_eq!(tell(&script, 2).await, ["all  at 0", "all a at 4"]);
    let times: Vec<_> = script.asked.lock().unwrap().iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(times, [0, 1, 2, 3]);
}

/// It may be there: who is not told goes by the first answer.
#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_say_whether_the_type_is_there_is_not_waited_for() {
    let answers = Mutex::new([Answer::Refuse(Cause::Absent)].into());
    let script = Arc::new(Script { answers, hangs: true, ..Script::default() });
    let within = Duration::from_secs(6);
    assert_eq!(timeout(within, tell(&script, 1)).await.expect("something is told"), ["interrupted"]);
    let failed = timeout(within, count(&*script)).await.expect("a census has an end").unwrap_err();
    assert_eq!(failed.to_string(), failure(Cause::Absent).error.to_string());
}

#[tokio::test(start_paused = true)]
async fn delays_grow_and_start_over_on_progress_alone() {
    let gaps = |script: &Script| {
        let asked = script.asked.lock().unwrap();
        asked.windows(2).map(|pair| pair[1].0 - pair[0].0).collect::<Vec<_>>()
    };
    // Lists that succeed prove nothing while each watch fails at once.
    let cycle = [page(&[], 7, None), Answer::Refuse(Cause::Gone)];
    let script = Script::new([NO_STREAMING].into_iter().chain(cycle.iter().cloned().cycle().take(40)));
    let begun = Instant::now();
    followed(&script).filter(|told| std::future::ready(matches!(told, Told::All { .. }))).take(15).count().await;
    assert!(begun.elapsed() > RECOVERY, "15 lists took {:?}", begun.elapsed());
    let late = gaps(&script).into_iter().rev().take(6).max().unwrap();
    assert!(late >= RECOVERY / 4 && late <= RECOVERY / 2, "{late:?}");
    // Watches that end at once without an event are asked for less and less often, and events bring them back.
    let ends = std::iter::repeat_n(Answer::Watch(vec![], End::Close), 12);
    let script = Script::at(
        8,
        [NO_STREAMING, page(&[], 7, None)].into_iter().chain(ends).chain([
            Answer::Watch(vec![put("a", 8)], End::Close),
            Answer::Watch(vec![], End::Close),
            Answer::Watch(vec![put("b", 9)], End::Hang),
        ]),
    );
    let told = tell(&script, 15).await;
    assert_eq!(told[12..], ["put a at 8", "recovered", "put b at 9"]);
    let gaps = gaps(&script);
    assert!(gaps[12] > Duration::from_secs(1), "{gaps:?}");
    assert!(*gaps.last().unwrap() < Duration::from_millis(100), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_bookmarks_is_dead_after_a_while_and_what_it_missed_is_read() {
    let script = Script::new([
        NO_STREAMING,
        page(&["a"], 7, None),
        Answer::Watch(vec![], End::Hang),
        page(&["b"], 8, None),
        Answer::Watch(vec![put("c", 9)], End::Hang),
    ]);
    let begun = Instant::now();
    assert_eq!(tell(&script, 5).await, ["all a at 7", "interrupted", "all b at 8", "recovered", "put c at 9"]);
    assert!(begun.elapsed() >= SILENCE);
}

/// A watch from a version to come is accepted, and told nothing before that.
#[tokio::test(start_paused = true)]
async fn a_watch_is_not_resumed_on_a_store_that_went_back() {
    for end in [End::Fail(Cause::Other), End::Close] {
        let interrupted = usize::from(matches!(end, End::Fail(_)));
        let script = Script::at(
            5,
            [
                NO_STREAMING,
                page(&["a"], 100, None),
                Answer::Watch(vec![], end),
                page(&["b"], 5, None),
                Answer::Watch(vec![put("c", 6)], End::Hang),
            ],
        );
        let told = tell(&script, 5 + interrupted).await;
        assert_eq!(told[..1 + interrupted], ["all a at 100", "interrupted"][..1 + interrupted]);
        assert_eq!(told[1 + interrupted..], ["interrupted", "all b at 5 reset", "recovered", "put c at 6"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_told_that_the_store_went_back_begins_anew() {
    let script = Script::new([
        NO_STREAMING,
        page(&["a"], 100, None),
        Answer::Watch(vec![], End::Hang),
        page(&["b"], 5, None),
        Answer::Watch(vec![put("c", 6)], End::Hang),
    ]);
    let mut told = followed(&script);
    assert!(matches!(told.next().await, Some(Told::All { version: 100, .. })));
    let tell = async {
        tokio::task::yield_now().await;
        script.mark.back.notify_one();
    };
    let (next, ()) = tokio::join!(told.next(), tell);
    assert!(matches!(next, Some(Told::Interrupted(_))), "{next:?}");
    assert!(matches!(told.next().await, Some(Told::All { version: 5, reset: true, .. })));
}

#[tokio::test(start_paused = true)]
async fn a_history_that_is_gone_again_and_again_is_told() {
    let cycle = [page(&["a"], 7, None), Answer::Refuse(Cause::Gone)];
    let script = Script::new([NO_STREAMING].into_iter().chain(cycle.iter().cloned().cycle().take(6)).chain([
        page(&["a"], 7, None),
        Answer::Watch(vec![put("b", 8)], End::Fail(Cause::Gone)),
        page(&["c"], 9, None),
        Answer::Watch(vec![], End::Hang),
    ]));
    let told = ["all a at 7", "all a at 7", "interrupted", "all a at 7", "recovered", "interrupted", "all a at 7"];
    let told = told.into_iter().chain(["recovered", "put b at 8", "all c at 9"]).collect::<Vec<_>>();
    assert_eq!(tell(&script, told.len()).await, told, "an event is progress");
}

/// A server whose cache lags streams no list that it could complete, and says so within it.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_behind_is_asked_for_pages_and_that_is_told_if_they_fail_too() {
    let script = Script::new([
        Answer::Watch(vec![], End::Fail(Cause::Behind)),
        Answer::Refuse(Cause::Behind),
        page(&["a"], 7, None),
        Answer::Watch(vec![put("b", 8)], End::Fail(Cause::Behind)),
        Answer::Watch(vec![], End::Fail(Cause::Behind)),
        page(&["c"], 9, None),
        Answer::Watch(vec![], End::Hang),
    ]);
    let told = ["interrupted", "all a at 7", "recovered", "put b at 8", "interrupted", "all c at 9", "recovered"];
    assert_eq!(tell(&script, told.len()).await, told);
}

/// One that is ended at once tells nothing, and is behind by the pause before the next.
#[tokio::test(start_paused = true)]
async fn watches_that_end_at_once_again_and_again_are_told_until_one_is_of_use() {
    let ends = |times: usize| std::iter::repeat_n(Answer::Watch(vec![], End::Close), times);
    let start = || [NO_STREAMING, page(&["a"], 7, None)].into_iter();
    // Once may happen to anybody.
    let script = Script::new(start().chain(ends(1)).chain([Answer::Watch(vec![put("b", 8)], End::Hang)]));
    assert_eq!(tell(&script, 2).await, ["all a at 7", "put b at 8"]);
    let script = Script::at(8, start().chain(ends(10)).chain([Answer::Watch(vec![put("b", 8)], End::Hang)]));
    let told = tell(&script, 12).await;
    assert_eq!(told[..1], ["all a at 7"]);
    assert!(told[1..10].iter().all(|told| told == "interrupted"), "{told:?}");
    assert_eq!(told[10..], ["put b at 8", "recovered"]);
    // One that stands, on which nothing happens, is of use, and within the declared recovery.
    let script = Script::new(start().chain(ends(10)).chain([Answer::Watch(vec![], End::Hang)]));
    let mut events = followed(&script).filter(|told| std::future::ready(!matches!(told, Told::Reading)));
    for _ in 0..10 {
        events.next().await;
    }
    let interrupted = Instant::now();
    assert!(matches!(events.next().await, Some(Told::Recovered)));
    assert!(interrupted.elapsed() <= RECOVERY / 2 + STANDS + Duration::from_millis(10), "{:?}", interrupted.elapsed());
}

/// An API server that was started anew accepts a watch from before, and says only in it that the history is gone.
#[tokio::test(start_paused = true)]
async fn a_watch_that_was_accepted_and_has_no_history_is_no_recovery() {
    let script = Script::new([
        NO_STREAMING,
        page(&["a"], 7, None),
        Answer::Watch(vec![], End::Fail(Cause::Other)),
        Answer::Refuse(Cause::Other),
        Answer::Watch(vec![], End::Fail(Cause::Gone)),
        page(&["b"], 50, None),
        Answer::Watch(vec![], End::Hang),
    ]);
    let told = ["all a at 7", "interrupted", "interrupted", "all b at 50", "recovered"];
    assert_eq!(tell(&script, told.len()).await, told);
}

/// What was missed comes before the word that nothing is missing.
#[tokio::test(start_paused = true)]
async fn who_resumes_has_recovered_with_what_was_missed() {
    let script = Script::at(
        9,
        [
            NO_STREAMING,
            page(&["a"], 7, None),
            Answer::Watch(vec![], End::Fail(Cause::Other)),
            Answer::Watch(vec![put("b", 8), put("c", 9)], End::Hang),
        ],
    );
    let began = Instant::now();
    let told = ["all a at 7", "interrupted", "put b at 8", "put c at 9", "recovered"];
    assert_eq!(tell(&script, told.len()).await, told);
    assert!(began.elapsed() < STANDS, "{:?}", began.elapsed());
    // Where nothing was missed that is known at once; where nothing comes of it, after a while.
    for (version, at_once) in [(7, true), (9, false)] {
        let script = Script::at(
            version,
            [
                NO_STREAMING,
                page(&["a"], 7, None),
                Answer::Watch(vec![], End::Fail(Cause::Other)),
                Answer::Watch(vec![], End::Hang),
            ],
        );
        let began = Instant::now();
        let told = ["all a at 7", "interrupted", "recovered"];
        assert_eq!(tell(&script, told.len()).await, told);
        assert_eq!(began.elapsed() < STANDS, at_once, "{:?}", began.elapsed());
    }
}
