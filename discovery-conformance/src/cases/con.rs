//! CON: consumers.

use std::collections::BTreeSet;
use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use discovery_core::{Discovery, ErrorKind, ExecutorKind, Path, Query, Record, Result, ViewOptions};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::plain::{Plain, put};
use crate::case::{CaseResult, cases, ensure, fail};
use crate::follow::{Follow, Told};
use crate::item::Item;
use crate::probe::{Call, Watching};
use crate::trial::{Set, Trial, registered, shown};
use crate::world::{Clock, Fault};

cases! {
    con_01_unpolled_stream_costs_a_set;
    con_01_bounded_stream_resets;
    con_02_open_and_close_leak_nothing;
    con_03_cancelled_view_leaves_nothing;
    con_03_cancelled_registration_leaves_nothing;
    con_03_cancelled_while_backing_off {Outage};
    con_03_next_loses_nothing;
    con_04_equal_queries_share_a_watch;
    con_05_blocked_consumer_delays_no_renewal ["ttl"] @ Real;
    con_05_panicking_consumer_disturbs_nobody;
    con_06_load_costs_the_same_at_any_size;
    con_06_load_asks_nobody;
    con_07_never_more_watches_than_declared;
    con_07_views_stay_right_while_watches_merge;
}

/// Writes these numbers under a few keys in turn, as fast as the backend takes them.
async fn churn(plain: &Plain, keys: u64, numbers: Range<u64>) -> CaseResult<Set> {
    const GROUP: u64 = 100;
    let names = (1..=keys).map(|id| Item::at(["x"]).id(id).key(plain.id())).collect::<Result<Vec<_>>>()?;
    let mut renewed = Instant::now();
    let mut set = Set::new();
    for first in numbers.clone().step_by(GROUP as usize) {
        let mut writes = Vec::new();
        for n in first..(first + keys.min(GROUP)).min(numbers.end) {
            let key = &names[(n % keys) as usize];
            writes.push(put(key, format!(r#"{{"place":["x"],"n":{n}}}"#)));
            set.insert(key.clone(), n);
        }
        plain.write(writes).await?;
        if renewed.elapsed() > plain.life() / 4 {
            plain.renew().await?;
            renewed = Instant::now();
        }
    }
    Ok(set)
}

/// How long a case may go on making a store large, by the clock on the wall, where the store is slow.
const EFFORT: Duration = Duration::from_secs(30);

async fn con_01_unpolled_stream_costs_a_set(t: &Trial) -> CaseResult {
    const KEYS: u64 = 100;
    const CHANGES: u64 = 100_000;
    const ROUND: u64 = 2_000;
    let reader = t.owner(1).await?;
    let plain = Plain::open_for(t, 0, t.ttl() * 30).await?;
    let mut sleeper = t.follow(&reader).await?;
    let mut other = t.follow(&reader).await?;
    let (began, mut made) = (std::time::Instant::now(), 0);
    // A store that is slow gets as many as it takes in its time.
    while made < CHANGES && (made < ROUND || began.elapsed() < EFFORT) {
        let set = churn(&plain, KEYS, made..made + ROUND).await?;
        plain.renew().await?;
        other.folds_to(t.propagation(), &set).await?;
        made += ROUND;
    }
    let told = sleeper.told.len();
    let batch = sleeper.next(t.propagation()).await?.ok_or_else(|| fail!("the sleeper hears nothing"))?;
    let count = batch.changes().len() as u64;
    ensure!(told == 0 && count == KEYS, "after {made} changes of {KEYS} records the batch has {count}");
    ensure!(sleeper.fold == other.fold, "on resume the stream does not hold the latest state");
    Ok(())
}

async fn con_01_bounded_stream_resets(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = try_join_all((0..10).map(|n| writer.register(Item::at(["x"]).id(n + 1)))).await?;
    let view = t.view(&reader).await?;
    let mut follow = Follow::of(view.changes_bounded(20), t.propagation()).await?;
    let mut whole = Follow::start(&view, t.propagation()).await?;
    // Below the bound it is a stream like any other.
    held[0].update(Item::at(["x"]).id(1).n(1)).await?;
    let batch = follow.next(t.propagation()).await?.ok_or_else(|| fail!("no batch"))?;
    ensure!(!batch.is_reset() && batch.changes().len() == 1, "one change within the bound: {batch:?}");
    for round in 1..=5 {
        for (one, id) in held.iter().zip(1..) {
            one.update(Item::at(["x"]).id(id).n(round * 100 + id)).await?;
        }
        // Seen, each of them: a store may show what was written in a row as one state.
        whole.folds_to(t.propagation(), &registered(&held)).await?;
    }
    let batch = follow.next(t.propagation()).await?.ok_or_else(|| fail!("no batch"))?;
    ensure!(batch.is_reset(), "50 changes beyond a bound of 20, and the batch is no reset");
    ensure!(batch.changes().len() == 10, "the reset has {} of 10 records", batch.changes().len());
    follow.folds_to(t.propagation(), &registered(&held)).await?;
    held[0].update(Item::at(["x"]).id(1).n(1_000)).await?;
    let batch = follow.next(t.propagation()).await?.ok_or_else(|| fail!("no batch"))?;
    ensure!(!batch.is_reset() && batch.changes().len() == 1, "after a reset it goes on as before: {batch:?}");
    Ok(())
}

async fn con_02_open_and_close_leak_nothing(t: &Trial) -> CaseResult {
    const CYCLES: usize = 10_000;
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let _one = writer.register(Item::at(["x"])).await?;
    let probe = t.backend(1).await?;
    let metrics = tokio::runtime::Handle::current().metrics();
    // As another backend may cache something, the first rounds do not count.
    let mut settled = 0;
    let until = Instant::now() + Duration::from_secs(240);
    for n in 0..CYCLES {
        ensure!(Instant::now() < until || t.clock() == Clock::Paused, "{n} cycles took four minutes");
        let view = t.view(&reader).await?;
        let mut changes = view.changes();
        ensure!(changes.next().await.is_some_and(|batch| batch.changes().len() == 1), "the view is not whole");
        if n % 2 == 0 {
            drop(view);
        } else {
            drop(changes);
        }
        if n == 100 {
            settled = metrics.num_alive_tasks();
        }
    }
    let until = Instant::now() + t.recovery();
    while probe.open_watches() > 0 || metrics.num_alive_tasks() > settled + 10 {
        let (watches, tasks) = (probe.open_watches(), metrics.num_alive_tasks());
        ensure!(Instant::now() < until, "{watches} watches and {tasks} tasks are left, {settled} tasks at the start");
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Polls a future so many times, letting everything else run in between, and drops it. Answers what it answered.
async fn polled<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(answer) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(answer);
        }
        tokio::task::yield_now().await;
    }
    None
}

async fn con_03_cancelled_view_leaves_nothing(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = try_join_all((0..100).map(|n| writer.register(Item::at(["x"]).id(n + 1)))).await?;
    let probe = t.backend(1).await?;
    for times in (1..40).chain((40..200).step_by(16)) {
        let cancelled = polled(times, reader.view::<Item>(Query::all())).await;
        drop(cancelled);
        drop(polled(times, reader.list::<Item>(Query::all())).await);
    }
    t.eventually(t.recovery(), "no watch is left", async || match probe.open_watches() {
        0 => Ok(()),
        count => Err(format!("{count} are open")),
    })
    .await?;
    ensure!(shown(&t.view(&reader).await?) == registered(&held), "a view that is not cancelled is not whole");
    Ok(())
}

async fn con_03_cancelled_registration_leaves_nothing(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let kept = writer.register(Item::at(["kept"])).await?;
    for (times, id) in (1..40).chain((40..200).step_by(16)).zip(1..) {
        let one = polled(times, writer.register(Item::at(["x"]).id(id))).await;
        drop(one);
        if let Some(deregistered) = polled(times % 7, kept.deregister()).await {
            deregistered?;
        }
        let again = writer.register(Item::at(["again"]).id(id)).await?;
        drop(polled(times, again.deregister()).await);
    }
    let last = writer.register(Item::at(["last"])).await?;
    t.lists(&reader, t.recovery(), &registered([&last])).await?;
    t.follow(&reader).await?.quiet(t.calm()).await
}

async fn con_03_cancelled_while_backing_off(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    t.inject(Fault::Outage).await?;
    sleep(t.bounds().recovery).await;
    let began = Instant::now();
    for _ in 0..5 {
        let limit = t.bounds().recovery / 5;
        let view = tokio::time::timeout(limit, reader.view::<Item>(Query::all())).await;
        ensure!(view.is_err(), "a view on a store that is down was answered");
        let one = tokio::time::timeout(limit, writer.register(Item::at(["x"]))).await;
        ensure!(one.is_err(), "a registration on a store that is down was answered");
    }
    let took = began.elapsed();
    ensure!(took <= t.bounds().recovery * 2 + t.propagation() * 2, "cancelling ten calls took {took:?}");
    let leaving = t.within(t.recovery(), "a shutdown while the store is down", writer.shutdown(t.bounds().recovery));
    let report = leaving.await?;
    ensure!(report.joined, "tasks are left: {report:?}");
    t.inject(Fault::Restore).await?;
    let view = t.view(&t.owner(2).await?).await?;
    sleep(t.calm()).await;
    ensure!(view.load().is_empty(), "a cancelled registration came to be: {:?}", shown(&view));
    Ok(())
}

async fn con_03_next_loses_nothing(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let view = t.view(&reader).await?;
    let mut changes = view.changes();
    let mut told = Vec::new();
    let one = writer.register(Item::at(["x"])).await?;
    for n in 1..=60 {
        one.update(Item::at(["x"]).n(n)).await?;
        // Dropped at another point each time, now and then with an answer.
        if let Some(Some(batch)) = polled(n as usize % 4, changes.next()).await {
            told.extend(batch.into_changes());
        }
    }
    view.reached(&one.stamp()).await?;
    while told.last().is_none_or(|change: &discovery_core::ViewChange<Item>| change.record().n != 60) {
        let batch = t.within(t.propagation(), "the last state", changes.next()).await?;
        told.extend(batch.ok_or_else(|| fail!("the stream ended"))?.into_changes());
    }
    let mut seen = None;
    for change in &told {
        let n = match change {
            discovery_core::ViewChange::Added(new) if seen.is_none() => new.n,
            discovery_core::ViewChange::Updated { old, new } if seen == Some(old.n) => new.n,
            other => return Err(fail!("after {seen:?} the stream told {other:?}")),
        };
        seen = Some(n);
    }
    Ok(())
}

async fn con_04_equal_queries_share_a_watch(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["a", "b"])).await?;
    let probe = t.backend(1).await?;
    let query = || Query::path(["a", "b"]);
    let views = try_join_all((0..1_000).map(|_| reader.view::<Item>(query()))).await?;
    ensure!(probe.most_watches() == 1, "1,000 equal queries hold {} watches", probe.most_watches());
    ensure!(probe.count(Call::Watch) == 1, "1,000 equal queries opened {} watches", probe.count(Call::Watch));
    one.update(Item::at(["a", "b"]).n(1)).await?;
    for view in &views {
        view.reached(&one.stamp()).await?;
        ensure!(shown(view) == registered([&one]), "one of them shows {:?}", shown(view));
    }
    drop(views);
    t.eventually(t.recovery(), "the watch is closed after the last view", async || match probe.open_watches() {
        0 => Ok(()),
        count => Err(format!("{count} are open")),
    })
    .await
}

async fn con_05_blocked_consumer_delays_no_renewal(t: &Trial) -> CaseResult {
    let writer = t.build(t.builder(0).await?.executor(ExecutorKind::Dedicated)).await?;
    let reader = t.build(t.builder(1).await?.executor(ExecutorKind::Dedicated)).await?;
    let one = writer.register(Item::at(["x"])).await?;
    let ttl = writer.effective_ttl().ok_or_else(|| fail!("[ttl] is claimed and the session has none"))?;
    let mut follow = t.follow(&reader).await?;
    let renewals = t.backend(0).await?.count(Call::Renew);
    // This thread is all that the user's runtime has.
    std::thread::sleep(ttl * 2);
    let made = t.backend(0).await?.count(Call::Renew) - renewals;
    ensure!(made >= 2, "while its user's thread was blocked for two TTL, the session was renewed {made} times");
    follow.quiet(t.a_while()).await?;
    ensure!(one.state().is_registered(), "the registration says {}", one.state().as_str());
    Ok(())
}

async fn con_05_panicking_consumer_disturbs_nobody(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let view = t.view(&reader).await?;
    let mut other = Follow::start(&view, t.propagation()).await?;
    let fuse = view.filter(|item| {
        if item.n == 13 {
            // A panic that the process's panic hook does not hear of.
            std::panic::resume_unwind(Box::new("a predicate may panic"));
        }
        true
    });
    let consumer = tokio::spawn(async move {
        let mut changes = fuse.changes();
        while changes.next().await.is_some() {}
    });
    let one = writer.register(Item::at(["x"])).await?;
    for n in 10..=16 {
        one.update(Item::at(["x"]).n(n)).await?;
        other.folds_to(t.propagation(), &registered([&one])).await?;
    }
    let ended = t.within(t.propagation(), "the consumer's task", consumer).await?;
    ensure!(ended.is_err_and(|error| error.is_panic()), "the consumer did not panic");
    other.quiet(t.ttl() * 2).await?;
    ensure!(one.state().is_registered(), "the registration says {}", one.state().as_str());
    Ok(())
}

async fn con_06_load_costs_the_same_at_any_size(t: &Trial) -> CaseResult {
    // What the clock on the wall measures of a thousand calls, the best of many.
    fn cost(view: &discovery_core::View<Bytes>) -> Duration {
        let once = |_| {
            let began = std::time::Instant::now();
            for _ in 0..1_000 {
                std::hint::black_box(view.load());
            }
            began.elapsed()
        };
        (0..50).map(once).min().unwrap_or_default()
    }
    const LARGE: u64 = 50_000;
    let reader = t.owner(1).await?;
    let plain = Plain::open_for(t, 0, t.ttl() * 30).await?;
    let view = reader.entries(Query::kind("item"), ViewOptions::default()).await?;
    churn_keys(t, &plain, 0..10).await?;
    t.eventually(t.propagation(), "10 records", async || whole(view.load().len(), 10)).await?;
    let small = cost(&view);
    let stored = churn_keys(t, &plain, 10..LARGE).await?;
    t.eventually(t.recovery(), "all records", async || whole(view.load().len(), stored)).await?;
    let large = cost(&view);
    ensure!(large <= small * 4, "1,000 loads take {small:?} of 10 records and {large:?} of {stored}");
    Ok(())
}

fn whole(count: usize, of: usize) -> std::result::Result<(), String> {
    if count == of { Ok(()) } else { Err(format!("{count} of {of}")) }
}

/// Stores records of these ids, as many as a slow store takes in its time. Answers up to which.
async fn churn_keys(t: &Trial, plain: &Plain, ids: Range<u64>) -> CaseResult<usize> {
    let (began, mut renewed) = (std::time::Instant::now(), Instant::now());
    let mut stored = 0;
    let ids: Vec<u64> = ids.collect();
    for group in ids.chunks(500) {
        let mut writes = Vec::with_capacity(group.len());
        for id in group {
            let key = Item::at([format!("p{}", id % 50)]).id(id + 1).key(plain.id())?;
            writes.push(put(&key, r#"{"place":["p"],"n":1}"#));
        }
        stored = group[0] as usize;
        // Where the limit is per owner, this one is full before the effort is over.
        let mut full = false;
        // What a busy store does not answer is tried again, as owners do.
        let answers = loop {
            let answers = plain.publish(writes.clone()).await;
            let unanswered =
                answers.iter().any(|answer| answer.as_ref().is_err_and(discovery_core::Error::is_temporary));
            if !unanswered || began.elapsed() > plain.life().min(EFFORT * 4) {
                break answers;
            }
        };
        for answer in answers {
            match answer {
                Ok(_) => stored += 1,
                Err(error) if error.kind() == ErrorKind::TooLarge => full = true,
                Err(error) => return Err(error.into()),
            }
        }
        if full {
            break;
        }
        if renewed.elapsed() > plain.life() / 4 || t.clock() == Clock::Paused {
            plain.renew().await?;
            renewed = Instant::now();
        }
        if began.elapsed() > EFFORT {
            break;
        }
    }
    plain.renew().await?;
    Ok(stored)
}

async fn con_06_load_asks_nobody(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"])).await?;
    let view = t.view(&reader).await?;
    let probe = t.backend(1).await?;
    let before = probe.calls();
    for _ in 0..10_000 {
        ensure!(view.load().get(one.key()).is_some(), "the record is not shown");
    }
    ensure!(probe.calls() == before, "10,000 loads made {} calls", probe.calls() - before);
    probe.spoil_watches(Some(Watching::Refused(ErrorKind::Unavailable)));
    probe.break_watches();
    ensure!(view.load().get(one.key()).is_some(), "without its watch the view does not show the record");
    probe.spoil_watches(None);
    Ok(())
}

/// A record of the n-th of many places, for queries that no two views share.
async fn scattered(writer: &Discovery, count: u64) -> CaseResult<Vec<discovery_core::Registration<Item>>> {
    let items = (0..count).map(|n| Item::at([format!("a{}", n % 13), format!("b{n}"), "c".to_owned()]).id(n + 1).n(n));
    Ok(try_join_all(items.map(|item| writer.register(item))).await?)
}

async fn con_07_never_more_watches_than_declared(t: &Trial) -> CaseResult {
    const VIEWS: u64 = 300;
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = scattered(&writer, VIEWS).await?;
    let probe = t.backend(1).await?;
    let query = |n: u64| Query::path([format!("a{}", n % 13), format!("b{n}")]);
    let views = try_join_all((0..VIEWS).map(|n| reader.view::<Item>(query(n)))).await?;
    for (view, one) in views.iter().zip(&held) {
        ensure!(shown(view) == registered([one]), "a view shows {:?} and not {}", shown(view), one.key());
    }
    // Another kind beside them: their common parent is everything.
    let others = try_join_all((0..20).map(|n| reader.view::<Other>(Query::path([format!("o{n}")])))).await?;
    sleep(t.a_while()).await;
    let (most, declared) = (probe.most_watches(), t.bounds().max_watches);
    ensure!(most <= declared, "{VIEWS} views hold {most} watches, declared are {declared}");
    drop((views, others));
    t.eventually(t.recovery(), "the watches are closed", async || match probe.open_watches() {
        0 => Ok(()),
        count => Err(format!("{count} are open")),
    })
    .await
}

/// A second kind.
#[derive(Serialize, Deserialize)]
struct Other {
    name: String,
}

impl Record for Other {
    const KIND: &'static str = "other";

    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, [&self.name])
    }
}

async fn con_07_views_stay_right_while_watches_merge(t: &Trial) -> CaseResult {
    const VIEWS: u64 = 60;
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = scattered(&writer, VIEWS).await?;
    let mut follows: Vec<Follow> = Vec::new();
    for n in 0..VIEWS {
        // Each further view may merge the watches of those before it, while records change.
        let query = Query::path([format!("a{}", n % 13), format!("b{n}")]);
        follows.push(Follow::start(&reader.view::<Item>(query).await?, t.propagation()).await?);
        for one in held.iter().take(n as usize + 1).step_by(7) {
            let item = Item { n: one.value().n + 1_000, ..Item::clone(&one.value()) };
            one.update(item).await?;
        }
    }
    let mut keys = BTreeSet::new();
    for (follow, one) in follows.iter_mut().zip(&held) {
        follow.folds_to(t.propagation(), &registered([one])).await?;
        follow.quiet(Duration::from_millis(1)).await?;
        let moved = follow.told.iter().filter(|told| !matches!(told, Told::Updated(..))).count();
        ensure!(moved == 0, "merging watches told {:?}", follow.told);
        keys.insert(one.key().clone());
    }
    ensure!(keys.len() as u64 == VIEWS, "{} distinct keys", keys.len());
    Ok(())
}
