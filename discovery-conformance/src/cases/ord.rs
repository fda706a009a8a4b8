//! ORD: order, loss, duplicates.

use std::collections::BTreeMap;

use discovery_core::backend::{Backend, Change};
use discovery_core::{ErrorKind, InstanceId, Query, Registration};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep, timeout};

use super::plain::{Plain, RawWatch, put};
use crate::case::{CaseResult, cases, ensure, fail};
use crate::follow::{Follow, Told};
use crate::item::Item;
use crate::probe::Call;
use crate::trial::{Set, Trial, registered, shown};
use crate::world::Fault;

cases! {
    ord_01_states_come_in_commit_order;
    ord_01_states_come_in_commit_order_though_shuffled {Reorder};
    ord_02_every_fold_ends_equal;
    ord_03_nothing_changed_is_nothing_told;
    ord_03_duplicates_are_not_told {Duplicate};
    ord_04_added_and_removed_take_turns;
    ord_05_new_incarnation_shows_in_one_batch;
    ord_06_versions_only_grow;
    ord_07_batch_is_applied_whole;
    ord_07_transaction_is_never_split ["batch"];
    ord_08_reads_never_go_back;
    ord_08_reads_never_go_back_over_reconnects {Cut};
    ord_09_read_your_writes;
    ord_10_change_log_is_complete ["changelog"];
    ord_10_forgotten_history_is_expired ["changelog"] {Compact};
    ord_10_without_a_log_is_unsupported -"changelog";
}

async fn count_up(t: &Trial) -> CaseResult {
    const LAST: u64 = 100;
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = try_join_all((0..5).map(|n| writer.register(Item::at(["x"]).id(n + 1)))).await?;
    let mut follow = t.follow(&reader).await?;
    let write = async {
        for n in 1..=LAST {
            let updates = held.iter().zip(1..).map(|(one, id)| one.update(Item::at(["x"]).id(id).n(n)));
            try_join_all(updates).await?;
        }
        CaseResult::Ok(())
    };
    let done = |fold: &Set| fold.values().all(|n| *n == LAST);
    let (written, read) = tokio::join!(write, follow.until(t.propagation() * LAST as u32, "the last update", done));
    written?;
    read?;
    for one in &held {
        let mut seen = 0;
        for told in follow.told_of(one.key()) {
            let Told::Updated(_, _, n) = told else { return Err(fail!("only updates were written, told: {told:?}")) };
            ensure!(n > seen, "{n} came after {seen}");
            seen = n;
        }
    }
    follow.quiet(t.a_while()).await
}

async fn ord_01_states_come_in_commit_order(t: &Trial) -> CaseResult {
    count_up(t).await
}

async fn ord_01_states_come_in_commit_order_though_shuffled(t: &Trial) -> CaseResult {
    t.inject(Fault::Reorder(true)).await?;
    count_up(t).await
}

/// A small generator, so that a run is the same each time.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

async fn ord_02_every_fold_ends_equal(t: &Trial) -> CaseResult {
    let writers = try_join_all((0..3).map(|n| t.owner(n))).await?;
    let readers = try_join_all((3..6).map(|n| t.owner(n))).await?;
    let mut follows = Vec::new();
    for reader in &readers {
        follows.push(t.follow(reader).await?);
    }
    let mut held: BTreeMap<u64, Registration<Item>> = BTreeMap::new();
    let mut seed = 0x5eed_u64;
    for _ in 0..300 {
        let (id, n) = (next(&mut seed) % 20 + 1, next(&mut seed) % 1_000);
        match (held.remove(&id), next(&mut seed) % 3) {
            (Some(one), 0) => one.deregister().await?,
            (Some(one), _) => {
                one.update(Item::at(["x"]).id(id).n(n)).await?;
                held.insert(id, one);
            }
            (None, _) => {
                let writer = &writers[id as usize % writers.len()];
                held.insert(id, writer.register(Item::at(["x"]).id(id).n(n)).await?);
            }
        }
    }
    let model = registered(held.values());
    for follow in &mut follows {
        follow.folds_to(t.propagation(), &model).await?;
        ensure!(shown(follow.view()) == model, "the view is not the model");
    }
    for reader in &readers {
        ensure!(t.listed(reader).await? == model, "the list is not the model");
    }
    Ok(())
}

async fn ord_03_nothing_changed_is_nothing_told(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"]).n(1)).await?;
    let mut follow = t.follow(&reader).await?;
    let written = t.backend(0).await?.count(Call::Publish);
    for _ in 0..5 {
        one.update(Item::at(["x"]).n(1)).await?;
    }
    // What is stored is known to be: nobody has to be asked.
    let more = t.backend(0).await?.count(Call::Publish) - written;
    ensure!(more == 0, "five updates to what is stored made {more} writes");
    follow.quiet(t.a_while()).await?;
    // Long enough for keep-alives of every kind.
    follow.quiet(t.ttl() * 3).await
}

async fn ord_03_duplicates_are_not_told(t: &Trial) -> CaseResult {
    t.inject(Fault::Duplicate(true)).await?;
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let mut follow = t.follow(&reader).await?;
    let one = writer.register(Item::at(["x"])).await?;
    follow.folds_to(t.propagation(), &registered([&one])).await?;
    one.update(Item::at(["x"]).n(1)).await?;
    follow.folds_to(t.propagation(), &registered([&one])).await?;
    let key = one.key().clone();
    one.deregister().await?;
    follow.folds_to(t.propagation(), &Set::new()).await?;
    follow.quiet(t.a_while()).await?;
    let expected = [Told::Added(key.clone(), 0), Told::Updated(key.clone(), 0, 1), Told::Removed(key, 1)];
    ensure!(follow.told == expected, "told: {:?}", follow.told);
    Ok(())
}

async fn ord_04_added_and_removed_take_turns(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let mut follow = t.follow(&reader).await?;
    let write = async {
        for n in 0..60 {
            let one = writer.register(Item::at(["x"]).n(n)).await?;
            if n % 2 == 0 {
                one.update(Item::at(["x"]).n(n + 1_000)).await?;
            }
            one.deregister().await?;
        }
        CaseResult::Ok(writer.register(Item::at(["x"]).n(9_999)).await?)
    };
    // `Follow` checks each change against what it has.
    let done = |fold: &Set| fold.values().eq([&9_999]);
    let (written, read) = tokio::join!(write, follow.until(t.propagation() * 60, "the last registration", done));
    let last = written?;
    read?;
    follow.quiet(t.a_while()).await?;
    ensure!(last.state().is_registered(), "the last registration says {}", last.state().as_str());
    Ok(())
}

async fn ord_05_new_incarnation_shows_in_one_batch(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let mut one = writer.register(Item::at(["x"]).n(1)).await?;
    let mut follow = t.follow(&reader).await?;
    let key = one.key().clone();
    for _ in 0..5 {
        // The stream is not polled meanwhile: both come together.
        one.deregister().await?;
        one = writer.register(Item::at(["x"]).n(1)).await?;
        follow.view().reached(&one.stamp()).await?;
        let told = follow.told.len();
        while follow.told.len() == told {
            follow
                .next(t.propagation())
                .await?
                .ok_or_else(|| fail!("a new incarnation with an equal value: silence"))?;
        }
        let expected = [Told::Removed(key.clone(), 1), Told::Added(key.clone(), 1)];
        ensure!(follow.told[told..] == expected, "a new incarnation was told as {:?}", &follow.told[told..]);
    }
    Ok(())
}

async fn ord_06_versions_only_grow(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let view = t.view(&reader).await?;
    let one = writer.register(Item::at(["x"])).await?;
    let mut follow = Follow::start(&view, t.propagation()).await?;
    view.reached(&one.stamp()).await?;
    follow.folds_to(t.propagation(), &registered([&one])).await?;
    let mut last = view.load().version();
    for n in 1..=50 {
        one.update(Item::at(["x"]).n(n)).await?;
        view.reached(&one.stamp()).await?;
        let version = view.load().version();
        ensure!(version > last, "after a change the version is {version}, before it was {last}");
        last = version;
        // Nobody else writes: the batch of this change leads to the version that is there.
        follow.folds_to(t.propagation(), &registered([&one])).await?;
        ensure!(follow.version() == last, "the batch leads to version {}, and load() is at {last}", follow.version());
    }
    // `Follow` checks every batch's version, that load() is as new, and that it is the fold where it is no newer.
    Ok(())
}

async fn ord_07_batch_is_applied_whole(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let mut follow = t.follow(&reader).await?;
    let held = try_join_all((0..50).map(|n| writer.register(Item::at(["x"]).id(n + 1)))).await?;
    while follow.fold.len() < held.len() {
        let batch = follow.next(t.propagation()).await?.ok_or_else(|| fail!("{} of 50", follow.fold.len()))?;
        let snapshot = follow.view().load();
        let missing = batch.changes().iter().find(|change| snapshot.get(change.key()).is_none());
        ensure!(missing.is_none(), "load() after the batch does not show {missing:?}");
    }
    Ok(())
}

async fn ord_07_transaction_is_never_split(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let size = t.bounds().max_batch.min(16) as u64;
    let views = [
        t.view(&reader).await?,
        reader.view::<Item>(Query::path(["left"])).await?,
        reader.view::<Item>(Query::path(["right"])).await?,
    ];
    let mut raw = RawWatch::open(t, &*t.backend(2).await?).await?;
    let mut follow = Follow::start(&views[0], t.propagation()).await?;
    let side = |n: u64| if n.is_multiple_of(2) { "left" } else { "right" };
    for round in 0..20 {
        let items = (0..size).map(|n| Item::at([side(n)]).id(n + 1).n(round)).collect::<Vec<_>>();
        let held = writer.register_all(items).await?;
        let changes = raw.batch(t.propagation()).await?;
        ensure!(changes.len() == held.len(), "the store's batch has {} of {size} changes", changes.len());
        while follow.fold.len() != held.len() {
            let batch = follow.next(t.propagation()).await?.ok_or_else(|| fail!("the transaction does not arrive"))?;
            // Views of one scope move together.
            let [all, left, right] = [&views[0], &views[1], &views[2]].map(|view| view.load().len());
            ensure!(all == left + right, "of one transaction one view shows {all}, others {left} and {right}");
            let count = batch.changes().len();
            ensure!(count == 0 || count == held.len(), "a batch has {count} of {size} records");
        }
        // One by one, so as to come back to nothing.
        for one in held {
            one.deregister().await?;
            raw.batch(t.propagation()).await?;
        }
        follow.folds_to(t.propagation(), &Set::new()).await?;
    }
    Ok(())
}

async fn never_back(t: &Trial, faults: bool) -> CaseResult {
    const LAST: u64 = 120;
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let views = [t.view(&reader).await?, reader.view::<Item>(Query::path(["x"])).await?];
    let one = writer.register(Item::at(["x"])).await?;
    let key = one.key().clone();
    views[0].reached(&one.stamp()).await?;
    let write = async {
        for n in 1..=LAST {
            one.update(Item::at(["x"]).n(n)).await?;
            if faults && n % 20 == 0 {
                t.inject(Fault::Cut(1)).await?;
                sleep(t.bounds().propagation).await;
                t.inject(Fault::Heal(1)).await?;
            }
            sleep(t.bounds().propagation / 10).await;
        }
        CaseResult::Ok(())
    };
    let read = async {
        let (mut seen, mut turn) = (0, 0_usize);
        while seen < LAST {
            turn += 1;
            let (what, n) = match turn % 3 {
                0 => match t.listed(&reader).await {
                    Ok(listed) => ("a list", listed.get(&key).copied()),
                    Err(_) if faults => continue,
                    Err(end) => return Err(end),
                },
                view => ("a view", views[view - 1].load().get(&key).map(|item| item.n)),
            };
            let n = n.ok_or_else(|| fail!("{what} does not show the record"))?;
            ensure!(n >= seen, "{what} shows {n} after {seen} was read");
            seen = n;
            sleep(t.bounds().propagation / 20).await;
        }
        CaseResult::Ok(())
    };
    let limit = t.recovery() * 20;
    let (written, read) = tokio::join!(write, t.within(limit, "the last value", read));
    written.and(read?)
}

async fn ord_08_reads_never_go_back(t: &Trial) -> CaseResult {
    never_back(t, false).await
}

async fn ord_08_reads_never_go_back_over_reconnects(t: &Trial) -> CaseResult {
    never_back(t, true).await
}

async fn ord_09_read_your_writes(t: &Trial) -> CaseResult {
    let owner = t.owner(0).await?;
    let other = t.owner(1).await?;
    let (view, foreign) = (t.view(&owner).await?, t.view(&other).await?);
    let mut held = Vec::new();
    for n in 0..20 {
        let one = owner.register(Item::at(["x"]).id(n + 1)).await?;
        let key = one.key().clone();
        ensure!(t.listed(&owner).await?.contains_key(&key), "a list of the same handle lacks what it registered");
        for (whose, view) in [("its own", &view), ("another handle's", &foreign)] {
            t.within(t.propagation(), "reached", view.reached(&one.stamp())).await??;
            ensure!(view.load().get(&key).is_some(), "{whose} view has reached the write and does not show it");
        }
        let stamp = one.update(Item::at(["x"]).id(n + 1).n(1)).await?;
        view.reached(&stamp).await?;
        ensure!(view.load().get(&key).is_some_and(|item| item.n == 1), "the view has reached the update, and lacks it");
        held.push(one);
    }
    Ok(())
}

async fn ord_10_change_log_is_complete(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let _before = writer.register(Item::at(["before"])).await?;
    let token = reader.change_token().await?;
    let one = writer.register(Item::at(["x"]).n(0)).await?;
    let key = one.key().clone();
    for n in 1..20 {
        one.update(Item::at(["x"]).n(n)).await?;
    }
    one.deregister().await?;
    let mut log = reader.changes_since(Query::all(), &token).await?;
    let mut expected = (0..20).map(Some).chain([None]).collect::<std::collections::VecDeque<Option<u64>>>();
    let mut tokens = vec![token];
    let until = Instant::now() + t.propagation() * 4;
    while !expected.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        let item = timeout(left, log.next()).await.map_err(|_| fail!("{} changes are missing", expected.len()))?;
        let committed = item.ok_or_else(|| fail!("the log ended before {} changes", expected.len()))??;
        for change in &committed.changes {
            ensure!(*change.key() == key, "a change that was before the token, or nobody's: {change:?}");
            let n = match change {
                Change::Put(entry) => Some(number(&entry.value)?),
                Change::Delete(_) => None,
            };
            ensure!(expected.pop_front() == Some(n), "{n:?} is not the next change");
        }
        tokens.push(committed.token);
    }
    // From any token in between, the rest.
    let middle = &tokens[tokens.len() / 2];
    let mut rest = reader.changes_since(Query::kind("item"), middle).await?;
    let after = tokens.len() - 1 - tokens.len() / 2;
    for _ in 0..after {
        timeout(t.propagation(), rest.next()).await.map_err(|_| fail!("the rest of the log is short"))?;
    }
    let two = writer.register(Item::at(["y"])).await?;
    let new = timeout(t.propagation(), rest.next()).await.map_err(|_| fail!("the log does not go on"))?;
    let new = new.ok_or_else(|| fail!("the log ended"))??;
    ensure!(new.changes.iter().any(|change| change.key() == two.key()), "the log goes on with {:?}", new.changes);
    Ok(())
}

pub(super) fn number(value: &[u8]) -> CaseResult<u64> {
    let item: Item = serde_json::from_slice(value).map_err(|error| fail!("no item: {error}"))?;
    Ok(item.n)
}

async fn ord_10_forgotten_history_is_expired(t: &Trial) -> CaseResult {
    let reader = t.owner(1).await?;
    let plain = Plain::open(t, 0).await?;
    let key = Item::at(["x"]).key(InstanceId(1))?;
    let token = reader.change_token().await?;
    for n in 0..5 {
        plain.write(vec![put(&key, format!(r#"{{"place":["x"],"n":{n}}}"#))]).await?;
    }
    t.inject(Fault::Compact).await?;
    plain.write(vec![put(&key, r#"{"place":["x"],"n":99}"#)]).await?;
    let expired = |error: discovery_core::Error| {
        ensure!(error.kind() == ErrorKind::Expired, "{} and not expired: {error}", error.kind());
        Ok(())
    };
    match reader.changes_since(Query::all(), &token).await {
        Err(error) => expired(error),
        Ok(mut log) => match timeout(t.propagation(), log.next()).await {
            Ok(Some(Err(error))) => expired(error),
            other => Err(fail!("history was forgotten, and the log goes on with {other:?}")),
        },
    }
}

/// What is not claimed is refused as such, and nobody takes it for a failure that passes.
async fn ord_10_without_a_log_is_unsupported(t: &Trial) -> CaseResult {
    let reader = t.owner(0).await?;
    let error =
        reader.change_token().await.err().ok_or_else(|| fail!("[changelog] is not claimed, and there is a token"))?;
    ensure!(error.kind() == ErrorKind::Unsupported, "{} and not unsupported: {error}", error.kind());
    ensure!(!error.is_temporary(), "what a backend cannot do is told as temporary: {error}");
    ensure!(t.backend(0).await?.change_log().is_none(), "[changelog] is not claimed, and the backend has one");
    Ok(())
}
