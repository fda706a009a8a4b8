//! REG: registration.

use discovery_core::{Discovery, Effect, ErrorKind, Path, Record, Registration};
use futures_util::future::{join_all, try_join_all};
use tokio::time::sleep;

use super::plain::{Plain, put};
use crate::case::{CaseResult, cases, ensure, fail};
use crate::follow::Told;
use crate::item::Item;
use crate::probe::Call;
use crate::trial::{Trial, registered, shown};
use crate::world::Fault;

cases! {
    reg_01_ok_means_listed;
    reg_01_ok_means_listed_beside_an_open_view;
    reg_02_no_effect_is_never_shown;
    reg_02_lost_acknowledgement_converges {DropAcks};
    reg_02_timed_out_write_is_compensated {DelayWrites};
    reg_03_repeat_is_silent;
    reg_03_equal_json_is_silent;
    reg_04_update_is_never_absent;
    reg_04_kind_without_updates_refuses_them;
    reg_05_exactly_one_owner ["exclusive"];
    reg_05_one_deterministic_winner -"exclusive";
    reg_06_loser_leaves_nothing;
    reg_06_rolled_back_batch_leaves_nothing ["exclusive", "batch"];
    reg_07_many_registrars;
    reg_08_deregister_then_register;
}

pub(super) async fn register_many(
    discovery: &Discovery,
    items: impl IntoIterator<Item = Item>,
) -> CaseResult<Vec<Registration<Item>>> {
    Ok(try_join_all(items.into_iter().map(|item| discovery.register(item))).await?)
}

async fn reg_01_ok_means_listed(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let mut held = Vec::new();
    for n in 0..20 {
        let item = Item::at(["a", "b"]).id(n + 1).n(n);
        let one = writer.register(item.clone()).await?;
        for (who, list) in [("another process", &reader), ("its owner", &writer)] {
            let found = list.get::<Item>(one.key()).await?;
            let found = found.ok_or_else(|| fail!("{who} does not list {} after Ok", one.key()))?;
            ensure!(*found.value() == item, "{who} lists {:?} for {item:?}", found.value());
        }
        held.push(one);
    }
    let listed = t.listed(&t.owner(2).await?).await?;
    ensure!(listed == registered(&held), "a new process lists {listed:?}");
    Ok(())
}

async fn reg_01_ok_means_listed_beside_an_open_view(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let _view = t.view(&reader).await?;
    let mut held = Vec::new();
    for n in 0..20 {
        held.push(writer.register(Item::at(["a"]).id(n + 1).n(n)).await?);
        let listed = t.listed(&reader).await?;
        ensure!(listed == registered(&held), "after {} registrations the list has {}", held.len(), listed.len());
    }
    Ok(())
}

async fn reg_02_no_effect_is_never_shown(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let mut follow = t.follow(&reader).await?;
    let large = Item::at(["large"]).padded(t.bounds().max_value);
    let refused = [(large, ErrorKind::TooLarge), (Item::at(["bad", ""]), ErrorKind::InvalidKey)];
    for (item, kind) in refused {
        match writer.register(item).await {
            Ok(_) => return Err(fail!("a registration that must be refused as {kind} was taken")),
            Err(error) => {
                ensure!(error.kind() == kind, "{} and not {kind}: {error}", error.kind());
                ensure!(error.effect() == Effect::None, "refused before any I/O, and the effect is unknown: {error}");
            }
        }
    }
    follow.quiet(t.a_while()).await?;
    ensure!(t.listed(&reader).await?.is_empty(), "a refused registration is listed");
    Ok(())
}

async fn reg_02_lost_acknowledgement_converges(t: &Trial) -> CaseResult {
    let reader = t.owner(1).await?;
    let writer = t.build(t.builder(0).await?.operation_timeout(t.bounds().recovery)).await?;
    let kept = writer.register(Item::at(["kept"])).await?;
    let mut follow = t.follow(&reader).await?;
    t.inject(Fault::DropAcks(0, true)).await?;
    let first = writer.register(Item::at(["x"]).id(7).n(1)).await;
    t.inject(Fault::DropAcks(0, false)).await?;
    let one = match first {
        Ok(one) => one,
        Err(error) => {
            ensure!(error.effect() == Effect::Unknown, "the write may have happened, and the error denies it: {error}");
            writer.register(Item::at(["x"]).id(7).n(1)).await?
        }
    };
    // The compensation of the first try may come before the retry's write, and never after it.
    let expected = registered([&kept, &one]);
    t.lists(&reader, t.recovery(), &expected).await?;
    follow.settles_to(t.calm(), &expected).await?;
    follow.quiet(t.calm()).await
}

async fn reg_02_timed_out_write_is_compensated(t: &Trial) -> CaseResult {
    let reader = t.owner(1).await?;
    let limit = t.bounds().recovery;
    let writer = t.build(t.builder(0).await?.operation_timeout(limit)).await?;
    let kept = writer.register(Item::at(["kept"])).await?;
    t.inject(Fault::DelayWrites(0, Some(limit * 3))).await?;
    match writer.register(Item::at(["x"]).n(1)).await {
        Ok(_) => return Err(fail!("registered within {limit:?} though its write takes three times as long")),
        Err(error) => {
            ensure!(error.effect() == Effect::Unknown, "the write is under way, and the error denies it: {error}");
        }
    }
    t.inject(Fault::DelayWrites(0, None)).await?;
    sleep(limit * 4).await;
    t.lists(&reader, t.recovery(), &registered([&kept])).await?;
    t.follow(&reader).await?.quiet(t.calm()).await
}

async fn reg_03_repeat_is_silent(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let first = writer.register(Item::at(["x"]).n(1)).await?;
    let mut follow = t.follow(&reader).await?;
    let mut again = Vec::new();
    for _ in 0..3 {
        again.push(writer.register(Item::at(["x"]).n(1)).await?);
    }
    ensure!(again.iter().all(|one| one.key() == first.key()), "a repeated registration stands under another key");
    follow.quiet(t.a_while()).await?;
    ensure!(t.listed(&reader).await?.len() == 1, "more than one record");
    Ok(())
}

async fn reg_03_equal_json_is_silent(t: &Trial) -> CaseResult {
    let reader = t.owner(1).await?;
    let plain = Plain::open(t, 0).await?;
    let item = Item::at(["x"]).n(1);
    let key = item.key(plain.id())?;
    plain.write(vec![put(&key, r#"{"place":["x"],"n":1}"#)]).await?;
    let mut follow = t.follow(&reader).await?;
    plain.write(vec![put(&key, r#"{ "n": 1, "place": [ "x" ] }"#)]).await?;
    follow.quiet(t.a_while()).await
}

async fn reg_04_update_is_never_absent(t: &Trial) -> CaseResult {
    const LAST: u64 = 100;
    let (writer, reader, lister) = (t.owner(0).await?, t.owner(1).await?, t.owner(2).await?);
    let one = writer.register(Item::at(["x"])).await?;
    let key = one.key().clone();
    let mut follow = t.follow(&reader).await?;
    let update = async {
        for n in 1..=LAST {
            one.update(Item::at(["x"]).n(n)).await?;
        }
        CaseResult::Ok(())
    };
    let list = async {
        let mut seen = 0;
        while seen < LAST {
            let listed = t.listed(&lister).await?;
            let n = *listed.get(&key).ok_or_else(|| fail!("absent from a list after {seen}"))?;
            ensure!(n >= seen, "a list shows {n} after {seen}");
            seen = n;
            tokio::task::yield_now().await;
        }
        CaseResult::Ok(())
    };
    let follow = async {
        follow.until(t.propagation() * 100, "the last update", |fold| fold.get(&key) == Some(&LAST)).await?;
        let gone = follow.told.iter().find(|told| !matches!(told, Told::Updated(..)));
        ensure!(gone.is_none(), "an updated record was told as {gone:?}");
        CaseResult::Ok(())
    };
    let (updated, listed, followed) = tokio::join!(update, list, follow);
    updated.and(listed).and(followed)
}

/// A record of a kind that forbids updates.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Fixed {
    place: Vec<String>,
    n: u64,
}

impl Record for Fixed {
    const KIND: &'static str = "item";

    fn path(&self) -> discovery_core::Result<Path> {
        Path::new(Self::KIND, &self.place)
    }

    fn check_update(&self, next: &Self) -> discovery_core::Result<()> {
        if self.n == next.n {
            return Ok(());
        }
        Err(discovery_core::Error::new(ErrorKind::Refused, "withdraw it and register the other one"))
    }
}

async fn reg_04_kind_without_updates_refuses_them(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let fixed = |n| Fixed { place: vec!["x".to_owned()], n };
    let one = writer.register(fixed(1)).await?;
    let mut follow = t.follow(&reader).await?;
    let publishes = t.backend(0).await?.count(Call::Publish);
    let refused =
        [("an update", one.update(fixed(2)).await.err()), ("a repetition", writer.register(fixed(2)).await.err())];
    for (what, error) in refused {
        let error = error.ok_or_else(|| fail!("{what} with another value was taken, and the kind forbids it"))?;
        ensure!(error.kind() == ErrorKind::Refused, "{what} fails with {} and not refused: {error}", error.kind());
        ensure!(error.effect() == Effect::None, "{what} is refused, and may have had an effect: {error}");
    }
    let asked = t.backend(0).await?.count(Call::Publish) - publishes;
    ensure!(asked == 0, "refused updates made {asked} writes");
    follow.quiet(t.a_while()).await?;
    ensure!(one.value().n == 1 && one.state().is_registered(), "the registration says {}", one.state().as_str());
    ensure!(follow.fold.values().eq([&1]), "the stream folds to {:?}", follow.fold);
    Ok(())
}

async fn reg_05_exactly_one_owner(t: &Trial) -> CaseResult {
    const CLAIMANTS: usize = 6;
    let reader = t.owner(CLAIMANTS).await?;
    let owners = try_join_all((0..CLAIMANTS).map(|n| t.owner(n))).await?;
    for round in 0..5 {
        let place = format!("round{round}");
        let claims = owners.iter().zip(0..).map(|(owner, n)| owner.register(Item::at([&place]).id(7).n(n)));
        let mut held = Vec::new();
        for claim in join_all(claims).await {
            match claim {
                Ok(one) => held.push(one),
                Err(error) => ensure!(error.kind() == ErrorKind::Conflict, "a loser gets {}: {error}", error.kind()),
            }
        }
        ensure!(held.len() == 1, "{} of {CLAIMANTS} owners hold one key", held.len());
        let listed = t.listed(&reader).await?;
        ensure!(listed == registered(&held), "the list shows {listed:?} and the winner is {:?}", held[0].value());
        held[0].deregister().await?;
    }
    Ok(())
}

async fn reg_05_one_deterministic_winner(t: &Trial) -> CaseResult {
    let (one, two) = (t.owner(0).await?, t.owner(1).await?);
    let (first, second) =
        tokio::join!(one.register(Item::at(["x"]).id(7).n(1)), two.register(Item::at(["x"]).id(7).n(2)),);
    let readers = [t.owner(2).await?, t.owner(3).await?];
    let sets = try_join_all(readers.iter().map(|reader| t.listed(reader))).await?;
    ensure!(sets[0] == sets[1] && sets[0].len() == 1, "readers see {sets:?}");
    let winner = sets[0].values().next().copied().unwrap_or_default();
    let loser = if winner == 1 { second } else { first };
    match loser {
        Err(error) => ensure!(error.kind() == ErrorKind::Conflict, "the loser gets {}: {error}", error.kind()),
        Ok(loser) => {
            let told = loser.wait_for(|state| matches!(state, discovery_core::RegistrationState::Failed(_)));
            t.within(t.recovery(), "the loser learns of its conflict", told).await?;
        }
    }
    Ok(())
}

async fn reg_06_loser_leaves_nothing(t: &Trial) -> CaseResult {
    let (winner, loser, reader) = (t.owner(0).await?, t.owner(1).await?, t.owner(2).await?);
    let won = winner.register(Item::at(["x"]).id(7).n(1)).await?;
    let own = loser.register(Item::at(["own"])).await?;
    let mut follow = t.follow(&reader).await?;
    if let Ok(lost) = loser.register(Item::at(["x"]).id(7).n(2)).await {
        let told = lost.wait_for(|state| matches!(state, discovery_core::RegistrationState::Failed(_)));
        t.within(t.recovery(), "the loser learns of its conflict", told).await?;
    }
    follow.quiet(t.calm()).await?;
    ensure!(t.listed(&reader).await? == registered([&won, &own]), "the loser left something behind");
    won.deregister().await?;
    follow.folds_to(t.propagation(), &registered([&own])).await?;
    follow.quiet(t.calm()).await
}

async fn reg_06_rolled_back_batch_leaves_nothing(t: &Trial) -> CaseResult {
    let (winner, loser, reader) = (t.owner(0).await?, t.owner(1).await?, t.owner(2).await?);
    let won = winner.register(Item::at(["x"]).id(7).n(1)).await?;
    let mut follow = t.follow(&reader).await?;
    let batch = vec![Item::at(["first"]), Item::at(["x"]).id(7).n(2), Item::at(["last"])];
    match loser.register_all(batch).await {
        Ok(_) => return Err(fail!("a batch with another owner's key was taken")),
        Err(error) => ensure!(error.kind() == ErrorKind::Conflict, "{} and not conflict: {error}", error.kind()),
    }
    follow.quiet(t.calm()).await?;
    ensure!(t.listed(&reader).await? == registered([&won]), "half of a refused batch is listed");
    Ok(())
}

async fn reg_07_many_registrars(t: &Trial) -> CaseResult {
    const OWNERS: usize = 16;
    const EACH: u64 = 16;
    let reader = t.owner(OWNERS).await?;
    let mut follow = t.follow(&reader).await?;
    let owners = try_join_all((0..OWNERS).map(|n| t.owner(n))).await?;
    let of = |owner: u64| (0..EACH).map(move |n| Item::at(["a", "b"]).id(owner * EACH + n + 1).n(n));
    let held = try_join_all(owners.iter().zip(0..).map(|(owner, n)| register_many(owner, of(n)))).await?;
    let expected = registered(held.iter().flatten());
    ensure!(expected.len() == OWNERS * EACH as usize, "{} distinct keys", expected.len());
    for owner in owners.iter().chain([&reader]).step_by(4) {
        let listed = t.listed(owner).await?;
        ensure!(listed == expected, "a list has {} of {}", listed.len(), expected.len());
    }
    follow.folds_to(t.propagation(), &expected).await?;
    ensure!(shown(follow.view()) == expected, "the view is not what its stream folds to");
    Ok(())
}

async fn reg_08_deregister_then_register(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let mut one = writer.register(Item::at(["x"])).await?;
    let mut follow = t.follow(&reader).await?;
    for n in 1..=20 {
        one.deregister().await?;
        one = writer.register(Item::at(["x"]).n(n)).await?;
        follow.folds_to(t.propagation(), &registered([&one])).await?;
    }
    // Without waiting for the answer: the wish to remove comes first, the wish to store last.
    for n in 21..=40 {
        drop(one);
        one = writer.register(Item::at(["x"]).n(n)).await?;
    }
    follow.folds_to(t.propagation(), &registered([&one])).await?;
    follow.quiet(t.a_while()).await
}
