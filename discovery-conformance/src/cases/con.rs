//! CON: consumers.

use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use discovery_core::{ExecutorKind, Query, Result};
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::plain::{Plain, put};
use crate::case::{CaseResult, cases, ensure, fail};
use crate::follow::Follow;
use crate::item::Item;
use crate::probe::Call;
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
    con_05_blocked_consumer_delays_no_other @ Real;
    con_05_panicking_consumer_disturbs_nobody;
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
pub(super) const EFFORT: Duration = Duration::from_secs(30);

/// Whether a case goes on making a store large after so long. A store on a paused clock is never slow: where the clock on
/// the wall says so it is the machine that is, and the case goes on until it has all that it needs.
pub(super) fn goes_on(clock: Clock, elapsed: Duration) -> bool {
    clock == Clock::Paused || elapsed < EFFORT
}

async fn con_01_unpolled_stream_costs_a_set(t: &Trial) -> CaseResult {
    const KEYS: u64 = 100;
    const CHANGES: u64 = 100_000;
    const ROUND: u64 = 2_000;
    // A few sets: what the sleeper saw, what there is, what is on its way from one to the other.
    const MOST: usize = KEYS as usize * 10;
    // What a store of this very process may remember of its past.
    const HISTORY: usize = 20_000;
    let reader = t.owner(1).await?;
    let plain = Plain::open_for(t, 0, t.ttl() * 30).await?;
    // Whatever is told to the reader's process, and whatever the store is given, for as long as anybody holds it.
    let (told, stored) = (t.backend(1).await?.count_values(), t.backend(0).await?.count_values());
    let mut sleeper = t.follow(&reader).await?;
    let mut other = t.follow(&reader).await?;
    let (began, mut made) = (std::time::Instant::now(), 0);
    // A store that is slow gets as many as it takes in its time.
    while made < CHANGES && (made < ROUND || goes_on(t.clock(), began.elapsed())) {
        let set = churn(&plain, KEYS, made..made + ROUND).await?;
        plain.renew().await?;
        other.folds_to(t.propagation(), &set).await?;
        made += ROUND;
        for (what, held, most) in [("told", &told, MOST), ("stored", &stored, MOST + HISTORY)] {
            let held = held.load(Ordering::Acquire);
            ensure!(held <= most, "after {made} changes of {KEYS} records {held} of the values {what} are still held");
        }
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

/// What a process has open, where that can be seen. Other cases of the same process come and go in it.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

async fn con_02_open_and_close_leak_nothing(t: &Trial) -> CaseResult {
    const CYCLES: usize = 10_000;
    // As another backend may cache something, the first rounds do not count.
    const FIRST: usize = 100;
    // Even where the store is slow.
    const LEAST: usize = 400;
    // How many descriptors others may open meanwhile.
    const OTHERS: usize = 500;
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let _one = writer.register(Item::at(["x"])).await?;
    let probe = t.backend(1).await?;
    let metrics = tokio::runtime::Handle::current().metrics();
    let tasks = || metrics.num_alive_tasks() + reader.alive_tasks() + t.tasks();
    let (mut settled, mut open) = (0, 0);
    let (began, mut cycles) = (std::time::Instant::now(), 0);
    while cycles < CYCLES && (cycles < LEAST || goes_on(t.clock(), began.elapsed())) {
        let view = t.view(&reader).await?;
        let mut changes = view.changes();
        ensure!(changes.next().await.is_some_and(|batch| batch.changes().len() == 1), "the view is not whole");
        if cycles % 2 == 0 {
            drop(view);
        } else {
            drop(changes);
        }
        if cycles == FIRST {
            (settled, open) = (tasks(), descriptors());
        }
        if cycles > FIRST && cycles.is_multiple_of(64) {
            let more = descriptors().saturating_sub(open);
            ensure!(more <= OTHERS + cycles / 8, "after {cycles} cycles {more} descriptors more are open");
        }
        cycles += 1;
    }
    t.eventually(t.recovery(), "nothing is left over", async || {
        let (watches, tasks, more) = (probe.open_watches(), tasks(), descriptors().saturating_sub(open));
        // One that leaks leaves as many as there were cycles.
        if watches == 0 && tasks <= settled + 10 && more <= OTHERS.min(cycles / 2) {
            return Ok(());
        }
        Err(format!(
            "after {cycles} cycles {watches} watches and {tasks} tasks are left, {settled} tasks at the start, and {more} \
             descriptors more are open"
        ))
    })
    .await
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

/// One consumer blocks its thread; another one of the same view has a thread of its own.
async fn con_05_blocked_consumer_delays_no_other(t: &Trial) -> CaseResult {
    const BLOCKED: Duration = Duration::from_secs(3);
    let writer = t.build(t.builder(0).await?.executor(ExecutorKind::Dedicated)).await?;
    let reader = t.build(t.builder(1).await?.executor(ExecutorKind::Dedicated)).await?;
    let one = writer.register(Item::at(["x"])).await?;
    let view = t.view(&reader).await?;
    let mut other = Follow::start(&view, t.propagation()).await?;
    let mut changes = view.changes();
    let (blocks, blocked) = tokio::sync::oneshot::channel();
    let consumer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            changes.next().await;
            // In the midst of its work, and whoever waits for it is gone only where the case has failed.
            let _ = blocks.send(());
            std::thread::sleep(BLOCKED);
            changes.next().await;
        });
        std::io::Result::Ok(())
    });
    t.within(t.recovery(), "a first batch", blocked).await?.map_err(|_| fail!("the consumer has no thread"))?;
    let until = Instant::now() + BLOCKED;
    let mut n = 0;
    while Instant::now() < until {
        n += 1;
        one.update(Item::at(["x"]).n(n)).await?;
        other.folds_to(t.propagation(), &registered([&one])).await?;
        ensure!(shown(&view) == registered([&one]), "a view shows {:?} beside a blocked consumer", shown(&view));
        sleep(t.bounds().propagation / 4).await;
    }
    let joined = tokio::task::spawn_blocking(move || consumer.join()).await;
    match joined {
        Ok(Ok(Ok(()))) => Ok(()),
        other => Err(fail!("the consumer that had been blocked did not go on: {other:?}")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is caught by the last of many rounds is caught on a loaded machine too.
    #[test]
    fn only_a_store_on_a_real_clock_is_slow() {
        assert!(goes_on(Clock::Paused, EFFORT * 10));
        assert!(goes_on(Clock::Real, EFFORT / 2) && !goes_on(Clock::Real, EFFORT));
    }
}
