//! RDY: readiness.

use std::time::Duration;

use discovery_core::InstanceId;
use futures_util::future::try_join_all;
use tokio::time::Instant;

use crate::case::{CaseResult, cases, ensure, fail};
use crate::follow::Told;
use crate::item::Item;
use crate::trial::{Set, Trial, registered};
use crate::world::Fault;

cases! {
    rdy_01_visible_when_ready_and_registered ["readiness"] {Ready};
    rdy_01_lists_show_the_ready_only ["readiness"] {Ready};
    rdy_02_ready_again ["readiness"] {Ready};
    rdy_03_terminating_is_not_ready ["readiness"] {Terminate};
    rdy_04_impostor_stays_invisible ["readiness"] {Impostor};
    rdy_05_flapping_ends_right ["readiness"] {Ready};
}

async fn rdy_01_visible_when_ready_and_registered(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let mut follow = t.follow(&reader).await?;
    // Registered first, then ready.
    t.inject(Fault::Ready(0, false)).await?;
    let one = writer.register(Item::at(["x"]).n(1)).await?;
    follow.quiet(t.a_while()).await?;
    t.inject(Fault::Ready(0, true)).await?;
    follow.folds_to(t.propagation(), &registered([&one])).await?;
    // Losing readiness.
    t.inject(Fault::Ready(0, false)).await?;
    follow.folds_to(t.propagation(), &Set::new()).await?;
    // Losing the registration while not ready: nothing more.
    let key = one.key().clone();
    one.deregister().await?;
    follow.quiet(t.a_while()).await?;
    // Ready first, then registered.
    t.inject(Fault::Ready(0, true)).await?;
    follow.quiet(t.a_while()).await?;
    let two = writer.register(Item::at(["x"]).n(2)).await?;
    follow.folds_to(t.propagation(), &registered([&two])).await?;
    two.deregister().await?;
    follow.folds_to(t.propagation(), &Set::new()).await?;
    let told = |n| [Told::Added(key.clone(), n), Told::Removed(key.clone(), n)];
    ensure!(follow.told == [told(1), told(2)].concat(), "told: {:?}", follow.told);
    Ok(())
}

async fn rdy_01_lists_show_the_ready_only(t: &Trial) -> CaseResult {
    let (one, two, reader) = (t.owner(0).await?, t.owner(1).await?, t.owner(2).await?);
    t.inject(Fault::Ready(0, false)).await?;
    let hidden = one.register(Item::at(["x"]).id(1)).await?;
    let visible = two.register(Item::at(["x"]).id(2)).await?;
    ensure!(t.listed(&reader).await? == registered([&visible]), "a list shows a record whose owner is not ready");
    t.inject(Fault::Ready(0, true)).await?;
    t.lists(&reader, t.propagation(), &registered([&hidden, &visible])).await
}

async fn rdy_02_ready_again(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = try_join_all((0..3).map(|n| writer.register(Item::at(["x"]).id(n + 1).n(n)))).await?;
    let mut follow = t.follow(&reader).await?;
    for ready in [false, true, false, true] {
        t.inject(Fault::Ready(0, ready)).await?;
        let expected = if ready { registered(&held) } else { Set::new() };
        follow.folds_to(t.propagation(), &expected).await?;
    }
    for (one, n) in held.iter().zip(0..) {
        let turn = [Told::Removed(one.key().clone(), n), Told::Added(one.key().clone(), n)];
        ensure!(follow.told_of(one.key()) == [turn.clone(), turn].concat(), "told: {:?}", follow.told_of(one.key()));
    }
    Ok(())
}

async fn rdy_03_terminating_is_not_ready(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"])).await?;
    let mut follow = t.follow(&reader).await?;
    ensure!(follow.fold == registered([&one]), "not visible while ready");
    t.inject(Fault::Terminate(0)).await?;
    follow.folds_to(t.propagation(), &Set::new()).await?;
    follow.quiet(t.calm()).await
}

async fn rdy_04_impostor_stays_invisible(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"])).await?;
    let mut follow = t.follow(&reader).await?;
    let key = Item::at(["y"]).key(InstanceId(4242))?;
    t.inject(Fault::Impostor(key, r#"{"place":["y"],"n":1}"#.into())).await?;
    follow.quiet(t.calm()).await?;
    ensure!(t.listed(&reader).await? == registered([&one]), "the record of another owner is listed");
    Ok(())
}

/// A state, and when it was: from before it was asked for until after the next one was there.
struct Was<T> {
    state: T,
    from: Instant,
    until: Option<Instant>,
}

fn now_is<T>(history: &mut Vec<Was<T>>, state: T, asked: Instant) {
    if let Some(last) = history.last_mut() {
        last.until = Some(Instant::now());
    }
    history.push(Was { state, from: asked, until: None });
}

async fn rdy_05_flapping_ends_right(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let began = Instant::now();
    let one = writer.register(Item::at(["x"]).n(0)).await?;
    let mut follow = t.follow(&reader).await?;
    let (mut values, mut readiness) = (Vec::new(), Vec::new());
    now_is(&mut values, 0, began);
    now_is(&mut readiness, true, began);
    for n in 1..=16u32 {
        let asked = Instant::now();
        t.inject(Fault::Ready(0, n % 2 == 0)).await?;
        now_is(&mut readiness, n % 2 == 0, asked);
        let asked = Instant::now();
        one.update(Item::at(["x"]).n(n.into())).await?;
        now_is(&mut values, n.into(), asked);
        follow.read_for(t.bounds().propagation * (n % 3) / 4).await?;
    }
    // A value that is gone when its owner is ready again, and was not there while it had been.
    for (ready, n) in [(Some(false), None), (None, Some(17)), (None, Some(18)), (Some(true), None)] {
        let asked = Instant::now();
        if let Some(ready) = ready {
            t.inject(Fault::Ready(0, ready)).await?;
            now_is(&mut readiness, ready, asked);
        }
        if let Some(n) = n {
            one.update(Item::at(["x"]).n(n)).await?;
            now_is(&mut values, n, asked);
        }
        follow.read_for(t.propagation() * 2).await?;
    }
    follow.settles_to(t.propagation(), &registered([&one])).await?;
    let shown = follow.told.iter().filter_map(|told| match told {
        Told::Added(_, n) | Told::Updated(_, _, n) => Some(*n),
        Told::Removed(..) => None,
    });
    // Each value that was shown was there at most P before or after a time at which its owner was ready.
    for n in shown {
        let value = values.iter().find(|was| was.state == n).ok_or_else(|| fail!("{n} was shown and never written"))?;
        let apart = |ready: &Was<bool>| {
            let (from, until) = (value.from.max(ready.from), value.until.into_iter().chain(ready.until).min());
            until.map_or(Duration::ZERO, |until| from.saturating_duration_since(until))
        };
        let apart = readiness.iter().filter(|was| was.state).map(apart).min().unwrap_or(Duration::MAX);
        ensure!(apart <= t.propagation(), "{n} was shown, and readiness was {apart:?} away from it");
    }
    t.inject(Fault::Ready(0, false)).await?;
    follow.settles_to(t.propagation(), &Set::new()).await
}
