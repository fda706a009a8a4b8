//! RDY: readiness.

use discovery_core::InstanceId;
use futures_util::future::try_join_all;
use tokio::time::sleep;

use crate::case::{CaseResult, cases, ensure};
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

async fn rdy_05_flapping_ends_right(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"]).n(0)).await?;
    let mut follow = t.follow(&reader).await?;
    for n in 1..=20u32 {
        t.inject(Fault::Ready(0, n % 2 == 0)).await?;
        one.update(Item::at(["x"]).n(n.into())).await?;
        sleep(t.bounds().propagation * (n % 3) / 4).await;
    }
    // The value shown with each readiness was one that was.
    follow.settles_to(t.propagation(), &registered([&one])).await?;
    t.inject(Fault::Ready(0, false)).await?;
    follow.settles_to(t.propagation(), &Set::new()).await
}
