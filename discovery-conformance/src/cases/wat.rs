//! WAT: starting to watch.

use std::time::Duration;

use discovery_core::{ErrorKind, Freshness, Query, Registration, ViewOptions};
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use crate::case::{CaseResult, cases, ensure, fail};
use crate::follow::{Follow, Told};
use crate::item::Item;
use crate::probe::Call;
use crate::trial::{Set, Trial, registered, shown};
use crate::world::Fault;

cases! {
    wat_01_view_is_live_when_it_returns;
    wat_01_view_fails_by_its_deadline {Outage};
    wat_02_synced_is_a_committed_state;
    wat_03_empty_is_synced;
    wat_03_silence_is_not_emptiness {Outage};
    wat_04_no_gap_under_writes;
    wat_05_first_state_is_not_told_again;
    wat_06_watch_before_anything_exists;
    wat_07_joining_view_is_current;
    wat_07_joining_a_stale_view {Cut};
    wat_08_registering_opens_no_watch;
}

async fn wat_01_view_is_live_when_it_returns(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"]).n(1)).await?;
    let view = t.view(&reader).await?;
    ensure!(view.freshness().is_live(), "the view that was returned is {}", view.freshness().as_str());
    ensure!(shown(&view) == registered([&one]), "the view that was returned shows {:?}", shown(&view));
    for n in 2..10 {
        one.update(Item::at(["x"]).n(n)).await?;
        t.eventually(t.propagation(), "the change is in the view", async || match shown(&view) {
            set if set == registered([&one]) => Ok(()),
            set => Err(format!("{set:?}")),
        })
        .await?;
    }
    Ok(())
}

async fn wat_01_view_fails_by_its_deadline(t: &Trial) -> CaseResult {
    let reader = t.owner(0).await?;
    t.inject(Fault::Outage).await?;
    let deadline = t.bounds().recovery;
    let options = ViewOptions::default().deadline(deadline);
    let opening = reader.view_with::<Item>(Query::all(), options);
    match t.within(deadline + t.propagation(), "the call", opening).await? {
        Ok(view) => return Err(fail!("a view on a store that is down is {}", view.freshness().as_str())),
        Err(error) => ensure!(error.kind() == ErrorKind::Timeout, "{} and not timeout: {error}", error.kind()),
    }
    let lazy = reader.view_with::<Item>(Query::all(), ViewOptions::default().lazy()).await?;
    ensure!(matches!(lazy.freshness(), Freshness::Syncing), "a lazy view is {}", lazy.freshness().as_str());
    ensure!(!lazy.load().is_synced(), "a lazy view on a store that is down claims to be synced");
    t.inject(Fault::Restore).await?;
    lazy.synced(t.recovery()).await?;
    Ok(())
}

/// A writer stores 1, 2, 3, ... in order, so every committed state is a run from 1 on.
async fn wat_02_synced_is_a_committed_state(t: &Trial) -> CaseResult {
    const LAST: u64 = 150;
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let (acknowledged, read_enough) = (std::cell::Cell::new(0), std::cell::Cell::new(false));
    let write = async {
        let mut held: Vec<Registration<Item>> = Vec::new();
        for n in 1.. {
            if read_enough.get() {
                break;
            }
            held.push(writer.register(Item::at(["run"]).id(n).n(n)).await?);
            acknowledged.set(n);
        }
        CaseResult::Ok(held)
    };
    let read = async {
        let mut opened = 0;
        // However fast the writer is, some views open while it writes.
        while acknowledged.get() < LAST || opened < 3 {
            let before = acknowledged.get();
            let view = t.view(&reader).await?;
            let follow = Follow::start(&view, t.propagation()).await?;
            let after = acknowledged.get() + 1;
            let run: Vec<u64> = follow.fold.values().copied().collect();
            let count = run.len() as u64;
            ensure!(run == (1..=count).collect::<Vec<_>>(), "no committed state: {run:?}");
            ensure!((before..=after).contains(&count), "{count} at Synced, {before} before the call, {after} after it");
            drop((follow, view));
            opened += 1;
            tokio::task::yield_now().await;
        }
        read_enough.set(true);
        Ok(())
    };
    tokio::try_join!(write, read).map(drop)
}

async fn wat_03_empty_is_synced(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let _other = writer.register(Item::at(["other"])).await?;
    let view = reader.view::<Item>(Query::path(["nothing", "here"])).await?;
    ensure!(view.load().is_synced() && view.load().is_empty(), "an empty query's view is {:?}", view.load());
    let follow = Follow::start(&view, t.propagation()).await?;
    ensure!(follow.fold.is_empty(), "an empty query folds to {:?}", follow.fold);
    ensure!(t.listed(&reader).await?.len() == 1, "the other record is not listed");
    Ok(())
}

async fn wat_03_silence_is_not_emptiness(t: &Trial) -> CaseResult {
    let (reader, lister) = (t.owner(0).await?, t.owner(1).await?);
    t.inject(Fault::Outage).await?;
    let view = reader.view_with::<Item>(Query::all(), ViewOptions::default().lazy()).await?;
    let mut changes = view.changes();
    let first = tokio::time::timeout(t.recovery(), changes.next()).await;
    ensure!(first.is_err(), "a store that is down was told as {first:?}");
    // With a view of the same open, and without.
    for handle in [&reader, &lister] {
        let listed = handle.list::<Item>(Query::all()).await;
        ensure!(listed.is_err(), "a store that is down is listed as {:?}", listed.map(|list| list.len()));
    }
    t.inject(Fault::Restore).await?;
    let follow = Follow::of(changes, t.recovery()).await?;
    ensure!(follow.fold.is_empty(), "an empty store folds to {:?}", follow.fold);
    Ok(())
}

async fn wat_04_no_gap_under_writes(t: &Trial) -> CaseResult {
    const VIEWS: usize = 100;
    let (writer, lister) = (t.owner(0).await?, t.owner(1).await?);
    let readers = try_join_all((2..22).map(|n| t.owner(n))).await?;
    let done = std::cell::Cell::new(false);
    let write = async {
        let (mut kept, mut played): (Vec<Registration<Item>>, Vec<Registration<Item>>) = (Vec::new(), Vec::new());
        for n in 0.. {
            let item = Item::at([format!("p{}", n % 5)]).id(n + 1).n(n);
            match n % 4 {
                // Never touched again, so that nothing later hides that one was missed.
                0 => kept.push(writer.register(item).await?),
                1 => played.push(writer.register(item).await?),
                2 => {
                    let one = &played[n as usize * 5 % played.len()];
                    one.update(Item { n, ..Item::clone(&one.value()) }).await?;
                }
                _ if played.len() > 1 => played.swap_remove(n as usize * 7 % played.len()).deregister().await?,
                _ => {}
            }
            if done.get() && n >= 200 {
                break;
            }
        }
        kept.extend(played);
        CaseResult::Ok(kept)
    };
    let open = async {
        let mut follows = Vec::with_capacity(VIEWS);
        for n in 0..VIEWS {
            let query = if n % 2 == 0 { Query::all() } else { Query::path([format!("p{}", n % 5)]) };
            let view = readers[n % readers.len()].view::<Item>(query).await?;
            follows.push((n, Follow::start(&view, t.propagation()).await?));
        }
        done.set(true);
        CaseResult::Ok(follows)
    };
    let (held, follows) = tokio::join!(write, open);
    let (held, follows) = (held?, follows?);
    let listed = t.listed(&lister).await?;
    ensure!(listed == registered(&held), "the list is not what was written");
    for (n, mut follow) in follows {
        let place = format!("p{}", n % 5);
        let mine = |key: &discovery_core::Key| n % 2 == 0 || key.path().segments().next().is_some_and(|s| s == place);
        let expected: Set = listed.iter().filter(|(key, _)| mine(key)).map(|(key, n)| (key.clone(), *n)).collect();
        follow.folds_to(t.propagation(), &expected).await?;
    }
    Ok(())
}

async fn wat_05_first_state_is_not_told_again(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = try_join_all((0..20).map(|n| writer.register(Item::at(["x"]).id(n + 1)))).await?;
    let mut follow = t.follow(&reader).await?;
    ensure!(follow.fold == registered(&held), "the first state is not what is registered");
    follow.quiet(t.a_while()).await?;
    held[7].update(Item::at(["x"]).id(8).n(1)).await?;
    follow.folds_to(t.propagation(), &registered(&held)).await?;
    ensure!(follow.told == [Told::Updated(held[7].key().clone(), 0, 1)], "one record changed, told: {:?}", follow.told);
    follow.quiet(t.a_while()).await
}

async fn wat_06_watch_before_anything_exists(t: &Trial) -> CaseResult {
    let reader = t.owner(1).await?;
    let view = reader.view::<Item>(Query::path(["new", "place"])).await?;
    let mut follow = Follow::start(&view, t.propagation()).await?;
    sleep(t.a_while()).await;
    let writer = t.owner(0).await?;
    let one = writer.register(Item::at(["new", "place"])).await?;
    follow.folds_to(t.propagation(), &registered([&one])).await
}

async fn wat_07_joining_view_is_current(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let _first = t.view(&reader).await?;
    let mut held = Vec::new();
    for n in 0..10 {
        held.push(writer.register(Item::at(["x"]).id(n + 1)).await?);
        let written = Instant::now();
        let expected = registered(&held);
        t.eventually(t.propagation(), "a joining view is at most P behind", async || {
            let view = t.view(&reader).await.map_err(|end| end.to_string())?;
            match shown(&view) {
                set if set == expected => Ok(()),
                set => Err(format!("{} records {:?} after the write", set.len(), written.elapsed())),
            }
        })
        .await?;
    }
    Ok(())
}

async fn wat_07_joining_a_stale_view(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"])).await?;
    let mut follow = t.follow(&reader).await?;
    t.inject(Fault::Cut(1)).await?;
    follow.freshness(t.recovery(), "stale", |freshness| freshness.stale_for().is_some()).await?;
    let fast = reader.view_with::<Item>(Query::all(), ViewOptions::default().fail_fast()).await;
    ensure!(fast.is_err(), "a view that was to fail fast joined a stale one");
    let stale = reader.view_with::<Item>(Query::all(), ViewOptions::default().allow_stale()).await?;
    ensure!(stale.freshness().stale_for().is_some(), "the view is {}", stale.freshness().as_str());
    ensure!(shown(&stale) == registered([&one]), "the stale view shows {:?}", shown(&stale));
    let waiting = reader.view_with::<Item>(Query::all(), ViewOptions::default().deadline(Duration::from_secs(3_600)));
    let heal = async {
        sleep(t.bounds().recovery).await;
        t.inject(Fault::Heal(1)).await
    };
    let (waited, healed) = tokio::join!(t.within(t.recovery() * 2, "the waiting view", waiting), heal);
    healed?;
    let view = waited??;
    ensure!(view.freshness().is_live(), "the view that waited is {}", view.freshness().as_str());
    Ok(())
}

async fn wat_08_registering_opens_no_watch(t: &Trial) -> CaseResult {
    let writer = t.owner(0).await?;
    let one = writer.register(Item::at(["x"])).await?;
    one.update(Item::at(["x"]).n(1)).await?;
    sleep(t.calm() + t.a_while()).await;
    one.deregister().await?;
    let probe = t.backend(0).await?;
    ensure!(probe.count(Call::Watch) == 0, "a process that only registers opened {} watches", probe.count(Call::Watch));
    Ok(())
}
