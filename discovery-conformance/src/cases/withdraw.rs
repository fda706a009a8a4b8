//! REG, continued: fencing, withdrawing, batches.

use std::time::Duration;

use discovery_core::backend::{Desired, Write, WriteBatch};
use discovery_core::{Effect, ErrorKind, Registration};
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::plain::{Plain, put};
use super::reg::register_many;
use crate::case::{CaseResult, cases, ensure, fail};
use crate::follow::Told;
use crate::item::Item;
use crate::trial::{Set, Trial, registered};
use crate::world::Fault;

cases! {
    reg_09_expiry_of_an_earlier_session_takes_nothing ["ttl"];
    reg_09_write_of_an_earlier_session_is_fenced {Revoke};
    reg_09_late_write_never_overwrites {DelayWrites};
    reg_09_late_deregister_takes_nothing {DelayWrites};
    reg_10_deregister_is_idempotent;
    reg_10_removing_the_absent_is_no_error;
    reg_10_deregister_takes_only_its_own;
    reg_11_deregistered_is_gone_at_once;
    reg_11_write_under_way_is_no_withdrawal {DelayWrites};
    reg_12_concurrent_registers_of_one_owner;
    reg_13_closing_removes_all;
    reg_13_closing_out_of_reach_expires ["ttl"] {Cut};
    reg_14_dropped_guard_deregisters;
    reg_14_shutdown_names_what_is_left {Cut};
    reg_15_batch_is_seen_as_one ["batch"];
    reg_15_batch_is_one_transaction ["batch"];
    reg_15_too_large_a_batch_writes_nothing ["batch"];
    reg_15_without_batches_is_unsupported -"batch";
}

async fn reg_09_expiry_of_an_earlier_session_takes_nothing(t: &Trial) -> CaseResult {
    let reader = t.owner(1).await?;
    let first = Plain::open(t, 0).await?;
    let key = Item::at(["x"]).key(first.id())?;
    first.write(vec![put(&key, r#"{"place":["x"],"n":1}"#)]).await?;
    // The owner gives its first session up for lost before the store does, and takes a second one.
    let second = Plain::again(t, 0, first.id()).await?;
    second.write(vec![put(&key, r#"{"place":["x"],"n":1}"#)]).await?;
    let mut follow = t.follow(&reader).await?;
    let until = Instant::now() + t.past_ttl() * 2;
    while Instant::now() < until {
        second.renew().await?;
        follow.quiet(t.ttl() / 4).await?;
    }
    ensure!(t.listed(&reader).await? == Set::from([(key, 1)]), "the earlier session took the record with it");
    Ok(())
}

async fn reg_09_write_of_an_earlier_session_is_fenced(t: &Trial) -> CaseResult {
    let reader = t.owner(1).await?;
    let first = Plain::open(t, 0).await?;
    let key = Item::at(["x"]).key(first.id())?;
    let other = Item::at(["other"]).key(first.id())?;
    first.write(vec![put(&key, r#"{"place":["x"],"n":1}"#)]).await?;
    t.inject(Fault::Revoke(0)).await?;
    let second = Plain::again(t, 0, first.id()).await?;
    second.write(vec![put(&key, r#"{"place":["x"],"n":2}"#)]).await?;
    let late = vec![Write::Delete { key: key.clone() }];
    for writes in [late, vec![put(&key, r#"{"place":["x"],"n":1}"#)], vec![put(&other, r#"{"place":["other"],"n":1}"#)]]
    {
        let answers = first.publish(writes).await;
        ensure!(answers.iter().all(Result::is_err), "a write of a session that was lost is answered with Ok");
    }
    // The answer of a lost session's close is of no interest; its effect is.
    let _ = first.close().await;
    second.renew().await?;
    let listed = t.listed(&reader).await?;
    ensure!(listed == Set::from([(key, 2)]), "a write of the session before took effect: {listed:?}");
    Ok(())
}

async fn reg_09_late_write_never_overwrites(t: &Trial) -> CaseResult {
    let reader = t.owner(1).await?;
    let limit = t.bounds().recovery;
    let writer = t.build(t.builder(0).await?.operation_timeout(limit)).await?;
    let one = writer.register(Item::at(["x"]).n(1)).await?;
    t.inject(Fault::DelayWrites(0, Some(limit * 4))).await?;
    // Answered with a time-out; it reaches the store much later.
    let _ = one.update(Item::at(["x"]).n(2)).await;
    t.inject(Fault::DelayWrites(0, None)).await?;
    let key = one.key().clone();
    t.eventually(t.recovery(), "a later update is stored", async || {
        one.update(Item::at(["x"]).n(3)).await.map_err(|error| error.to_string())
    })
    .await?;
    let mut follow = t.follow(&reader).await?;
    follow.until(t.propagation(), "the later update", |fold| fold.get(&key) == Some(&3)).await?;
    follow.quiet(limit * 8).await
}

async fn reg_09_late_deregister_takes_nothing(t: &Trial) -> CaseResult {
    let reader = t.owner(1).await?;
    let limit = t.bounds().recovery;
    let writer = t.build(t.builder(0).await?.operation_timeout(limit)).await?;
    let one = writer.register(Item::at(["x"]).n(1)).await?;
    t.inject(Fault::DelayWrites(0, Some(limit * 4))).await?;
    // Answered with a time-out; it reaches the store much later.
    if one.deregister().await.is_ok() {
        return Err(fail!("withdrawn within {limit:?} though its deletion takes four times as long"));
    }
    t.inject(Fault::DelayWrites(0, None)).await?;
    let again = t
        .eventually(t.recovery(), "it is registered again", async || {
            writer.register(Item::at(["x"]).n(3)).await.map_err(|error| error.to_string())
        })
        .await?;
    let (key, expected) = (again.key().clone(), registered([&again]));
    let mut follow = t.follow(&reader).await?;
    follow.until(t.propagation(), "the next registration", |fold| fold.get(&key) == Some(&3)).await?;
    follow.quiet(limit * 8).await?;
    ensure!(t.listed(&reader).await? == expected, "a late deregister took the next registration with it");
    ensure!(again.state().is_registered(), "the next registration says {}", again.state().as_str());
    Ok(())
}

async fn reg_10_deregister_is_idempotent(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let first = writer.register(Item::at(["x"]).n(1)).await?;
    first.deregister().await?;
    first.deregister().await?;
    let second = writer.register(Item::at(["x"]).n(2)).await?;
    first.deregister().await?;
    drop(first);
    ensure!(
        t.listed(&reader).await? == registered([&second]),
        "a guard of an earlier registration withdrew the next one"
    );
    t.follow(&reader).await?.quiet(t.a_while()).await
}

async fn reg_10_removing_the_absent_is_no_error(t: &Trial) -> CaseResult {
    let plain = Plain::open(t, 0).await?;
    let foreign = Plain::open(t, 1).await?;
    let (absent, other) = (Item::at(["x"]).key(plain.id())?, Item::at(["y"]).id(7).key(foreign.id())?);
    foreign.write(vec![put(&other, r#"{"place":["y"],"n":1}"#)]).await?;
    for _ in 0..2 {
        plain.write(vec![Write::Delete { key: absent.clone() }]).await?;
        plain.write(vec![Write::Delete { key: other.clone() }]).await?;
    }
    let listed = t.listed(&t.owner(2).await?).await?;
    ensure!(listed == Set::from([(other, 1)]), "removing what is another's: {listed:?}");
    Ok(())
}

async fn reg_10_deregister_takes_only_its_own(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let base = || Item::at(["a", "b"]).id(7);
    let items = [base(), base().suffixed("one"), base().suffixed("two"), base().id(8), Item::at(["a", "b", "c"]).id(7)];
    let mut held = register_many(&writer, items).await?;
    while held.len() > 1 {
        held.remove(0).deregister().await?;
        let listed = t.listed(&reader).await?;
        ensure!(listed == registered(&held), "others went with it: {listed:?}");
    }
    Ok(())
}

async fn reg_11_deregistered_is_gone_at_once(t: &Trial) -> CaseResult {
    let (writer, reader, lister) = (t.owner(0).await?, t.owner(1).await?, t.owner(2).await?);
    let mut follow = t.follow(&reader).await?;
    for n in 0..10 {
        let one = writer.register(Item::at(["x"]).n(n)).await?;
        let key = one.key().clone();
        follow.folds_to(t.propagation(), &registered([&one])).await?;
        one.deregister().await?;
        for list in [&lister, &reader] {
            ensure!(t.listed(list).await?.is_empty(), "still listed after deregister answered Ok");
        }
        follow.until(t.propagation(), "Removed", |fold| fold.is_empty()).await?;
        ensure!(follow.told_of(&key).last() == Some(&Told::Removed(key.clone(), n)), "no Removed for {key}");
    }
    Ok(())
}

async fn reg_11_write_under_way_is_no_withdrawal(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"])).await?;
    let mut follow = t.follow(&reader).await?;
    // Late enough to be overtaken, and not so late that a backend gives the call up and can never be done with it.
    let late = t.bounds().recovery / 10;
    t.inject(Fault::DelayWrites(0, Some(late))).await?;
    let withdrawal = async {
        sleep(late / 4).await;
        one.deregister().await?;
        t.listed(&reader).await
    };
    let (updated, listed) = tokio::join!(one.update(Item::at(["x"]).n(1)), withdrawal);
    ensure!(listed?.is_empty(), "still listed after deregister answered Ok: a write before it was under way");
    ensure!(updated.is_err(), "an update that a withdrawal overtook is answered with Ok");
    t.inject(Fault::DelayWrites(0, None)).await?;
    follow.settles_to(t.calm(), &Set::new()).await
}

async fn reg_12_concurrent_registers_of_one_owner(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let first = register_many(&writer, (0..64).map(|n| Item::at([format!("p{}", n % 4)]).id(n + 1).n(n))).await?;
    let (second, gone) = tokio::join!(
        register_many(&writer, (64..128).map(|n| Item::at([format!("p{}", n % 4)]).id(n + 1).n(n))),
        try_join_all(first[..32].iter().map(Registration::deregister)),
    );
    gone?;
    let second = second?;
    let expected = registered(first[32..].iter().chain(&second));
    let listed = t.listed(&reader).await?;
    ensure!(listed.len() == 96 && listed == expected, "{} records listed and not 96", listed.len());
    Ok(())
}

async fn reg_13_closing_removes_all(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let mut follow = t.follow(&reader).await?;
    let held = register_many(&writer, (0..10).map(|n| Item::at(["x"]).id(n + 1))).await?;
    follow.folds_to(t.propagation(), &registered(&held)).await?;
    let report = writer.shutdown(t.recovery()).await;
    ensure!(report.is_clean(), "the shutdown left something: {report:?}");
    follow.folds_to(t.propagation(), &Set::new()).await?;
    follow.quiet(t.calm()).await
}

async fn reg_13_closing_out_of_reach_expires(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let mut follow = t.follow(&reader).await?;
    let held = register_many(&writer, (0..10).map(|n| Item::at(["x"]).id(n + 1))).await?;
    follow.folds_to(t.propagation(), &registered(&held)).await?;
    t.inject(Fault::Cut(0)).await?;
    let _ = writer.shutdown(Duration::from_millis(200)).await;
    follow.folds_to(t.death(), &Set::new()).await?;
    t.inject(Fault::Heal(0)).await?;
    follow.quiet(t.calm()).await
}

async fn reg_14_dropped_guard_deregisters(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let mut follow = t.follow(&reader).await?;
    let kept = writer.register(Item::at(["kept"])).await?;
    let one = writer.register(Item::at(["x"])).await?;
    follow.folds_to(t.propagation(), &registered([&kept, &one])).await?;
    drop(one);
    follow.folds_to(t.propagation(), &registered([&kept])).await?;
    // A guard that lives while another of the same record is dropped keeps it.
    let twin = writer.register(Item::at(["kept"])).await?;
    drop(twin);
    follow.quiet(t.a_while()).await?;
    let report = writer.shutdown(t.recovery()).await;
    ensure!(report.is_clean(), "the shutdown left something: {report:?}");
    follow.folds_to(t.propagation(), &Set::new()).await
}

async fn reg_14_shutdown_names_what_is_left(t: &Trial) -> CaseResult {
    let writer = t.owner(0).await?;
    let held = register_many(&writer, (0..3).map(|n| Item::at(["x"]).id(n + 1))).await?;
    t.inject(Fault::Cut(0)).await?;
    let limit = Duration::from_millis(500);
    let report = t.within(limit + t.recovery(), "shutdown", writer.shutdown(limit)).await?;
    let mut named = report.not_withdrawn.clone();
    named.sort();
    let expected: Vec<_> = registered(&held).into_keys().collect();
    ensure!(named == expected, "{expected:?} could not be withdrawn, and the report names {named:?}");
    Ok(())
}

async fn reg_15_batch_is_seen_as_one(t: &Trial) -> CaseResult {
    let (writer, reader, lister) = (t.owner(0).await?, t.owner(1).await?, t.owner(2).await?);
    let size = t.bounds().max_batch;
    ensure!(size >= 2, "[batch] is claimed with max_batch {size}");
    let mut follow = t.follow(&reader).await?;
    let batch = (0..size as u64).map(|n| Item::at(["x"]).id(n + 1).n(n)).collect();
    let write = async { CaseResult::Ok(writer.register_all::<Item>(batch).await?) };
    let list = async {
        loop {
            let count = t.listed(&lister).await?.len();
            ensure!(count == 0 || count == size, "a list shows {count} of {size}");
            if count == size {
                return CaseResult::Ok(());
            }
            tokio::task::yield_now().await;
        }
    };
    let (held, listed) = tokio::join!(write, list);
    let held = held?;
    listed?;
    while follow.fold.len() < size {
        let batch = follow.next(t.propagation()).await?.ok_or_else(|| fail!("the batch does not arrive"))?;
        let count = batch.changes().len();
        ensure!(count == 0 || count == size, "a batch of the stream has {count} of {size} records");
    }
    ensure!(follow.fold == registered(&held), "the stream folds to something else");
    Ok(())
}

async fn reg_15_batch_is_one_transaction(t: &Trial) -> CaseResult {
    let size = t.bounds().max_batch.min(64);
    let backend = t.backend(1).await?;
    let mut watch = super::plain::RawWatch::open(t, &*backend).await?;
    let writer = t.owner(0).await?;
    let held = writer.register_all((0..size as u64).map(|n| Item::at(["x"]).id(n + 1)).collect::<Vec<_>>()).await?;
    let changes = watch.batch(t.propagation()).await?;
    ensure!(changes.len() == held.len(), "the store's batch has {} of {} changes", changes.len(), held.len());
    Ok(())
}

async fn reg_15_too_large_a_batch_writes_nothing(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let size = t.bounds().max_batch as u64 + 1;
    match writer.register_all((0..size).map(|n| Item::at(["x"]).id(n + 1)).collect::<Vec<_>>()).await {
        Ok(_) => return Err(fail!("a batch of {size} was taken")),
        Err(error) => ensure!(error.kind() == ErrorKind::TooLarge, "{} and not too_large: {error}", error.kind()),
    }
    // The backend itself refuses it too.
    let plain = Plain::open(t, 2).await?;
    let keys = (0..size).map(|n| Item::at(["y"]).id(n + 1).key(plain.id())).collect::<Result<Vec<_>, _>>()?;
    let writes = keys.iter().map(|key| put(key, r#"{"place":["y"],"n":0}"#)).collect();
    let desired = keys.iter().map(|key| (key.clone(), r#"{"place":["y"],"n":0}"#.into())).collect::<Desired>();
    let answers = plain.session.publish(&WriteBatch { writes, atomic: true }, &desired).await;
    let refused = |answer: &discovery_core::Result<_>| {
        answer.as_ref().is_err_and(|error: &discovery_core::Error| error.kind() == ErrorKind::TooLarge)
    };
    ensure!(answers.iter().all(refused), "the backend does not answer too_large to each write");
    ensure!(t.listed(&reader).await?.is_empty(), "a batch above the limit wrote something");
    Ok(())
}

/// What is not claimed is refused as such, before anything is written.
async fn reg_15_without_batches_is_unsupported(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let refused = writer.register_all(vec![Item::at(["x"]), Item::at(["y"])]).await.err();
    let error = refused.ok_or_else(|| fail!("[batch] is not claimed, and a batch was taken"))?;
    ensure!(error.kind() == ErrorKind::Unsupported, "{} and not unsupported: {error}", error.kind());
    ensure!(error.effect() == Effect::None, "a batch that is refused may have been written: {error}");
    // So does the backend itself, whoever asks it.
    let plain = Plain::open(t, 2).await?;
    let keys = [Item::at(["x"]).key(plain.id())?, Item::at(["y"]).key(plain.id())?];
    let value = r#"{"place":["x"],"n":0}"#;
    let writes = keys.iter().map(|key| put(key, value)).collect();
    let desired = keys.iter().map(|key| (key.clone(), value.into())).collect::<Desired>();
    for answer in plain.session.publish(&WriteBatch { writes, atomic: true }, &desired).await {
        let error =
            answer.err().ok_or_else(|| fail!("[batch] is not claimed, and the backend takes an atomic batch"))?;
        ensure!(error.kind() == ErrorKind::Unsupported, "the backend: {} and not unsupported: {error}", error.kind());
    }
    ensure!(t.listed(&reader).await?.is_empty(), "a batch that is refused wrote something");
    Ok(())
}
