//! FLT: faults of the connection, the store's history, its members and its permissions.

use std::time::Duration;

use discovery_core::{Query, Registration, RegistrationState};
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::con::goes_on;
use crate::case::{CaseResult, cases, ensure, fail};
use crate::follow::{Follow, Told};
use crate::item::Item;
use crate::probe::Call;
use crate::trial::{Set, Trial, registered, shown};
use crate::world::Fault;

cases! {
    flt_01_cut_and_healed {Cut};
    flt_02_forgotten_history_is_resynchronised {Cut, Compact};
    flt_03_resync_is_never_partial {Cut, Compact};
    flt_04_recreated_in_the_gap_is_new ["incarnation"] {Cut};
    flt_04_recreated_in_a_forgotten_gap_is_new ["incarnation"] {Cut, Compact};
    flt_05_quiet_prefix_stays_quiet {Cut, Compact};
    flt_06_half_open_watch_is_found {HalfOpen};
    flt_06_half_open_renewals_are_found ["ttl"] {HalfOpen};
    flt_07_lost_member_costs_nothing ["cluster"] {LoseMember};
    flt_07_lost_leader_costs_nothing ["cluster"] {LoseMember};
    flt_08_outage_serves_the_last_set {Outage};
    flt_09_outage_beyond_the_ttl ["ttl"] {Outage};
    flt_10_lost_data_is_put_back {LoseData};
    flt_10_older_data_is_put_back {RollBack};
    flt_10_withdrawn_stays_withdrawn_in_older_data {RollBack};
    flt_10_grace_hides_the_loss {LoseData};
    flt_10_grace_needs_a_proven_loss {Cut, Compact};
}

/// Ten records, of which the writer then updates, removes and adds some while the reader cannot see it.
struct Gap {
    held: Vec<Registration<Item>>,
}

impl Gap {
    async fn prepare(writer: &discovery_core::Discovery) -> CaseResult<Self> {
        let held = try_join_all((0..10).map(|n| writer.register(Item::at(["x"]).id(n + 1).n(n)))).await?;
        Ok(Self { held })
    }

    /// The updated record keeps its place; the removed and the added ones are at the ends.
    async fn write(&mut self, writer: &discovery_core::Discovery) -> CaseResult {
        self.held[0].update(Item::at(["x"]).id(1).n(100)).await?;
        self.held.pop().ok_or_else(|| fail!("ten records"))?.deregister().await?;
        self.held.push(writer.register(Item::at(["x"]).id(11).n(11)).await?);
        Ok(())
    }

    /// What a stream tells of it, in the order of keys.
    fn check(&self, follow: &Follow) -> CaseResult {
        let mut told = follow.told.clone();
        told.sort_by(|a, b| a.key().cmp(b.key()));
        let told = told.iter().map(|told| match told {
            Told::Added(_, n) => ('+', *n),
            Told::Updated(_, _, n) => ('~', *n),
            Told::Removed(_, n) => ('-', *n),
        });
        let told: Vec<_> = told.collect();
        ensure!(told == [('~', 100), ('-', 9), ('+', 11)], "one updated, one removed, one added; told: {told:?}");
        Ok(())
    }
}

async fn flt_01_cut_and_healed(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let mut gap = Gap::prepare(&writer).await?;
    let mut follow = t.follow(&reader).await?;
    t.inject(Fault::Cut(1)).await?;
    gap.write(&writer).await?;
    sleep(t.bounds().propagation).await;
    t.inject(Fault::Heal(1)).await?;
    follow.folds_to(t.recovery(), &registered(&gap.held)).await?;
    follow.freshness(t.recovery(), "live again", |freshness| freshness.is_live()).await?;
    gap.check(&follow)?;
    follow.quiet(t.a_while()).await
}

async fn flt_02_forgotten_history_is_resynchronised(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let mut gap = Gap::prepare(&writer).await?;
    let mut follow = t.follow(&reader).await?;
    t.inject(Fault::Cut(1)).await?;
    gap.write(&writer).await?;
    t.inject(Fault::Compact).await?;
    let last = writer.register(Item::at(["a"]).n(0)).await?;
    last.deregister().await?;
    t.inject(Fault::Heal(1)).await?;
    follow.folds_to(t.recovery(), &registered(&gap.held)).await?;
    follow.freshness(t.recovery(), "live again", |freshness| freshness.is_live()).await?;
    gap.check(&follow)?;
    follow.quiet(t.a_while()).await
}

async fn flt_03_resync_is_never_partial(t: &Trial) -> CaseResult {
    const SIZE: usize = 3_000;
    const LEAST: usize = 512;
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let (began, mut held) = (std::time::Instant::now(), Vec::new());
    // A few at a time, and of a slow store as many as it takes in its time.
    while held.len() < SIZE && (held.len() < LEAST || goes_on(t.clock(), began.elapsed())) {
        let next = held.len() as u64..held.len() as u64 + 64;
        held.extend(try_join_all(next.map(|n| writer.register(Item::at(["x"]).id(n + 1)))).await?);
    }
    let size = held.len();
    let view = t.view(&reader).await?;
    t.eventually(t.propagation(), "the view is whole", async || match view.load().len() {
        count if count == size => Ok(()),
        count => Err(count.to_string()),
    })
    .await?;
    for round in 1..=5 {
        t.inject(Fault::Cut(1)).await?;
        held[0].update(Item::at(["x"]).id(1).n(round)).await?;
        t.inject(Fault::Compact).await?;
        held[0].update(Item::at(["x"]).id(1).n(round + 100)).await?;
        t.inject(Fault::Heal(1)).await?;
        let until = Instant::now() + t.recovery();
        loop {
            let snapshot = view.load();
            ensure!(snapshot.len() == size, "a reader sees {} of {size} records", snapshot.len());
            if snapshot.get(held[0].key()).is_some_and(|item| item.n == round + 100) {
                break;
            }
            ensure!(Instant::now() < until, "not resynchronised within {:?}", t.recovery());
            // Between any two steps of the core where tasks share a thread, now and then where they do not.
            for _ in 0..50 {
                tokio::task::yield_now().await;
                ensure!(view.load().len() == size, "a reader sees {} of {size} records", view.load().len());
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(())
}

async fn recreate(t: &Trial, forget: bool) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"]).n(1)).await?;
    let other = writer.register(Item::at(["y"]).n(2)).await?;
    let mut follow = t.follow(&reader).await?;
    t.inject(Fault::Cut(1)).await?;
    let key = one.key().clone();
    one.deregister().await?;
    let again = writer.register(Item::at(["x"]).n(1)).await?;
    if forget {
        t.inject(Fault::Compact).await?;
        other.update(Item::at(["y"]).n(3)).await?;
    }
    t.inject(Fault::Heal(1)).await?;
    let until = Instant::now() + t.recovery();
    // In one batch where the gap was read as one state, in two where each of its transactions was.
    while follow.told_of(&key).len() < 2 {
        let left = until.saturating_duration_since(Instant::now());
        let next = follow.next(left).await?;
        next.ok_or_else(|| fail!("deleted and recreated in the gap: {:?}, then silence", follow.told_of(&key)))?;
    }
    let expected = [Told::Removed(key.clone(), 1), Told::Added(key.clone(), 1)];
    ensure!(follow.told_of(&key) == expected, "deleted and recreated in the gap: {:?}", follow.told_of(&key));
    follow.folds_to(t.propagation(), &registered([&again, &other])).await
}

async fn flt_04_recreated_in_the_gap_is_new(t: &Trial) -> CaseResult {
    recreate(t, false).await
}

async fn flt_04_recreated_in_a_forgotten_gap_is_new(t: &Trial) -> CaseResult {
    recreate(t, true).await
}

async fn flt_05_quiet_prefix_stays_quiet(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let quiet = writer.register(Item::at(["quiet"])).await?;
    let busy = writer.register(Item::at(["busy"])).await?;
    let view = reader.view::<Item>(Query::path(["quiet"])).await?;
    let mut follow = Follow::start(&view, t.propagation()).await?;
    for n in 1..=20 {
        busy.update(Item::at(["busy"]).n(n)).await?;
    }
    t.inject(Fault::Compact).await?;
    t.inject(Fault::Cut(1)).await?;
    follow.quiet(t.bounds().propagation).await?;
    t.inject(Fault::Heal(1)).await?;
    follow.quiet(t.calm()).await?;
    ensure!(view.freshness().is_live(), "the view is {}", view.freshness().as_str());
    quiet.update(Item::at(["quiet"]).n(1)).await?;
    follow.folds_to(t.propagation(), &registered([&quiet])).await
}

async fn flt_06_half_open_watch_is_found(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let mut gap = Gap::prepare(&writer).await?;
    let mut follow = t.follow(&reader).await?;
    t.inject(Fault::HalfOpen(1)).await?;
    gap.write(&writer).await?;
    follow.freshness(t.recovery(), "stale", |freshness| freshness.stale_for().is_some()).await?;
    ensure!(follow.told.is_empty(), "a dead connection told {:?}", follow.told);
    t.inject(Fault::Heal(1)).await?;
    follow.freshness(t.recovery(), "live again", |freshness| freshness.is_live()).await?;
    follow.folds_to(t.propagation(), &registered(&gap.held)).await?;
    gap.check(&follow)
}

async fn flt_06_half_open_renewals_are_found(t: &Trial) -> CaseResult {
    // An hour: whoever waits for a part of the time to live finds nothing.
    let writer = t.build(t.builder(0).await?.ttl(Duration::from_secs(3_600))).await?;
    let one = writer.register(Item::at(["x"])).await?;
    let mut follow = t.follow(&t.owner(1).await?).await?;
    let probe = t.backend(0).await?;
    t.inject(Fault::HalfOpen(0)).await?;
    let (asked, given_up) = (probe.count(Call::Renew), probe.count(Call::GivenUp));
    let nth = |call, n: usize| probe.times(call).get(n).copied().ok_or_else(|| "not yet".to_owned());
    t.eventually(t.recovery(), "a renewal on the dead connection", async || nth(Call::Renew, asked)).await?;
    t.eventually(t.recovery(), "it is given up", async || nth(Call::GivenUp, given_up)).await?;
    let again = probe.count(Call::Renew);
    t.eventually(t.recovery(), "the next renewal", async || nth(Call::Renew, again)).await?;
    ensure!(one.state().is_registered(), "an hour's session is {} within R", one.state().as_str());
    t.inject(Fault::Heal(0)).await?;
    let renewed = probe.count(Call::Renewed);
    t.eventually(t.recovery(), "a renewal once the connection is whole", async || nth(Call::Renewed, renewed)).await?;
    follow.quiet(t.a_while()).await
}

/// Three processes, which use each another member of three where clients spread over them. The second one only reads.
async fn lose_member(t: &Trial, fault: Fault) -> CaseResult {
    let owners = try_join_all((0..3).map(|n| t.owner(n))).await?;
    let held = [owners[0].register(Item::at(["x"]).id(1)).await?, owners[2].register(Item::at(["x"]).id(2)).await?];
    let mut follows = Vec::new();
    for owner in &owners {
        follows.push(t.follow(owner).await?);
    }
    t.inject(fault).await?;
    for (one, id) in held.iter().zip(1..) {
        t.eventually(t.recovery(), "a write", async || {
            one.update(Item::at(["x"]).id(id).n(1)).await.map_err(|error| error.to_string())
        })
        .await?;
    }
    for follow in &mut follows {
        follow.folds_to(t.recovery(), &registered(&held)).await?;
    }
    for follow in &mut follows {
        follow.quiet(t.ttl() * 2).await?;
        ensure!(follow.told.len() == 2, "two updates were told as {:?}", follow.told);
    }
    t.inject(Fault::RestoreMember).await?;
    for follow in &mut follows {
        follow.quiet(t.calm()).await?;
    }
    Ok(())
}

async fn flt_07_lost_member_costs_nothing(t: &Trial) -> CaseResult {
    // The reader's: its watch has to go on elsewhere.
    lose_member(t, Fault::LoseMember(1)).await
}

async fn flt_07_lost_leader_costs_nothing(t: &Trial) -> CaseResult {
    lose_member(t, Fault::LoseLeader).await
}

async fn flt_08_outage_serves_the_last_set(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = try_join_all((0..5).map(|n| writer.register(Item::at(["x"]).id(n + 1)))).await?;
    let expected = registered(&held);
    let mut follow = t.follow(&reader).await?;
    let began = Instant::now();
    t.inject(Fault::Outage).await?;
    follow.freshness(t.recovery(), "stale", |freshness| freshness.stale_for().is_some()).await?;
    let view = follow.view().clone();
    match view.freshness() {
        discovery_core::Freshness::Stale { since, cause } => {
            ensure!(since >= began, "stale since before the outage");
            ensure!(!cause.message().is_empty(), "stale without a cause");
        }
        other => return Err(fail!("the stream says stale, the view says {}", other.as_str())),
    }
    // Shorter than the time to live: the outage alone removes nothing, now or after it.
    let rest = if t.capabilities().ttl { t.ttl() / 4 } else { t.recovery() };
    follow.quiet(rest).await?;
    ensure!(shown(&view) == expected, "during the outage the view shows {:?}", shown(&view));
    t.inject(Fault::Restore).await?;
    follow.freshness(t.recovery(), "live again", |freshness| freshness.is_live()).await?;
    ensure!(shown(&view) == expected, "after the outage the view shows {:?}", shown(&view));
    let gone: Vec<_> = follow.told.iter().filter(|told| matches!(told, Told::Removed(..))).collect();
    ensure!(gone.is_empty(), "the outage removed {gone:?}");
    Ok(())
}

async fn flt_09_outage_beyond_the_ttl(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = try_join_all((0..5).map(|n| writer.register(Item::at(["x"]).id(n + 1)))).await?;
    let mut follow = t.follow(&reader).await?;
    t.inject(Fault::Outage).await?;
    follow.quiet(t.past_ttl() * 2).await?;
    t.inject(Fault::Restore).await?;
    t.lists(&t.owner(2).await?, t.recovery(), &registered(&held)).await?;
    follow.settles_to(t.calm(), &registered(&held)).await?;
    for one in &held {
        let told = follow.told_of(one.key());
        ensure!(told.len() <= 2, "removed more than once around one outage: {told:?}");
        ensure!(one.state().is_registered(), "the registration says {}", one.state().as_str());
    }
    follow.quiet(t.past_ttl()).await
}

async fn flt_10_lost_data_is_put_back(t: &Trial) -> CaseResult {
    let (writers, reader) = (try_join_all((0..3).map(|n| t.owner(n))).await?, t.owner(3).await?);
    let items = writers.iter().zip(0..).map(|(writer, n)| writer.register(Item::at(["x"]).id(n + 1).n(n)));
    let held = try_join_all(items).await?;
    let mut follow = t.follow(&reader).await?;
    for _ in 0..3 {
        t.inject(Fault::LoseData).await?;
        t.lists(&t.owner(3).await?, t.recovery(), &registered(&held)).await?;
        follow.settles_to(t.propagation(), &registered(&held)).await?;
        for one in &held {
            t.within(t.recovery(), "registered again", one.wait_for(RegistrationState::is_registered)).await?;
        }
    }
    follow.quiet(t.past_ttl()).await
}

async fn flt_10_older_data_is_put_back(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let kept = writer.register(Item::at(["kept"])).await?;
    let mut follow = t.follow(&reader).await?;
    let new = writer.register(Item::at(["new"])).await?;
    kept.update(Item::at(["kept"]).n(1)).await?;
    let expected = registered([&kept, &new]);
    follow.folds_to(t.propagation(), &expected).await?;
    t.inject(Fault::RollBack(2)).await?;
    t.lists(&reader, t.recovery(), &expected).await?;
    follow.settles_to(t.propagation(), &expected).await?;
    follow.quiet(t.past_ttl()).await
}

async fn flt_10_withdrawn_stays_withdrawn_in_older_data(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let kept = writer.register(Item::at(["kept"])).await?;
    let gone = writer.register(Item::at(["gone"])).await?;
    gone.deregister().await?;
    let mut follow = t.follow(&reader).await?;
    t.inject(Fault::RollBack(1)).await?;
    // At the latest when the session that it came back with has ended.
    let limit = t.recovery() + if t.capabilities().ttl { t.death() } else { Duration::ZERO };
    t.lists(&reader, limit, &registered([&kept])).await?;
    follow.settles_to(t.propagation(), &registered([&kept])).await
}

async fn flt_10_grace_hides_the_loss(t: &Trial) -> CaseResult {
    let writer = t.owner(0).await?;
    let reader = t.build(t.builder(1).await?.resync_grace(t.recovery() * 2)).await?;
    let held = try_join_all((0..5).map(|n| writer.register(Item::at(["x"]).id(n + 1)))).await?;
    let dead = t.owner(2).await?.register(Item::at(["dead"])).await?;
    let mut follow = t.follow(&reader).await?;
    t.inject(Fault::Cut(2)).await?;
    t.inject(Fault::LoseData).await?;
    follow.quiet(t.calm()).await?;
    let owners: Set = shown(follow.view()).into_iter().filter(|(key, _)| key != dead.key()).collect();
    ensure!(owners == registered(&held), "the view does not show the records that came back");
    t.lists(&t.owner(3).await?, t.recovery(), &registered(&held)).await?;
    // What does not come back goes when the grace is over.
    follow.folds_to(t.recovery() * 2, &registered(&held)).await?;
    let told = follow.told.clone();
    ensure!(told == [Told::Removed(dead.key().clone(), 0)], "told: {told:?}");
    t.inject(Fault::Heal(2)).await
}

async fn flt_10_grace_needs_a_proven_loss(t: &Trial) -> CaseResult {
    let writer = t.owner(0).await?;
    let reader = t.build(t.builder(1).await?.resync_grace(Duration::from_secs(3_600))).await?;
    let one = writer.register(Item::at(["x"])).await?;
    let two = writer.register(Item::at(["y"])).await?;
    let mut follow = t.follow(&reader).await?;
    one.deregister().await?;
    follow.folds_to(t.propagation(), &registered([&two])).await?;
    // A forgotten history is no loss of data: what was deleted in the gap leaves.
    t.inject(Fault::Cut(1)).await?;
    two.deregister().await?;
    t.inject(Fault::Compact).await?;
    let three = writer.register(Item::at(["z"])).await?;
    t.inject(Fault::Heal(1)).await?;
    let right = registered([&three]);
    follow.until(t.recovery(), "a record deleted in the gap leaves", |fold| *fold == right).await
}
