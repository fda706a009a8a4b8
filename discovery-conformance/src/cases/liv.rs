//! LIV: liveness.

use std::collections::BTreeSet;
use std::time::Duration;

use discovery_core::{Key, RegistrationState};
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, sleep, sleep_until};

use super::plain::{Plain, RawWatch, put};
use crate::case::{CaseResult, cases, ensure, fail};
use crate::counts::Counts;
use crate::follow::Told;
use crate::item::Item;
use crate::probe::{Call, Renewal};
use crate::trial::{Set, Trial, difference, registered};
use crate::world::{Clock, Fault};

cases! {
    liv_01_live_owner_keeps_its_records;
    liv_02_dead_owner_is_removed {Crash};
    liv_02_death_notice_is_prompt ["death_notice"] {Crash};
    liv_02_unrenewed_session_expires_in_time ["ttl"];
    liv_03_renewing_the_lease_is_enough ["ttl", "lease"];
    liv_03_leader_change_removes_nobody ["lease"] {LeaderChange};
    liv_04_stopped_owner_comes_back ["ttl"] {Pause};
    liv_05_revoked_session_is_replaced {Revoke};
    liv_05_deleted_record_is_put_back {Delete};
    liv_05_overwritten_record_is_put_back {Write};
    liv_06_lost_session_is_told ["ttl"] {Cut};
    liv_06_lost_session_is_counted ["ttl"] {Cut} @ Paused;
    liv_06_validity_counts_from_sending ["ttl"] {Cut};
    liv_07_missed_renewal_is_retried ["ttl"];
    liv_07_unanswered_renewal_is_retried ["ttl"];
    liv_08_deregister_beats_putting_back {Revoke};
    liv_08_deregister_beats_repair {Delete};
    liv_09_wall_clock_means_nothing @ Paused;
    liv_09_wall_clock_jumps_change_nothing {WallClock} @ Real;
    liv_10_effective_ttl_is_reported ["ttl"];
    liv_11_storm_removes_each_once ["ttl", "storm"];
}

fn is_lost(state: &RegistrationState) -> bool {
    matches!(state, RegistrationState::Lost(_))
}

async fn liv_01_live_owner_keeps_its_records(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = try_join_all((0..3).map(|n| writer.register(Item::at(["x"]).id(n + 1)))).await?;
    let mut follow = t.follow(&reader).await?;
    let time = if t.capabilities().ttl { t.ttl() * 10 } else { t.calm() * 2 };
    follow.quiet(time).await?;
    ensure!(t.listed(&reader).await? == registered(&held), "a live owner's records are not listed");
    Ok(())
}

async fn liv_02_dead_owner_is_removed(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = try_join_all((0..3).map(|n| writer.register(Item::at(["x"]).id(n + 1)))).await?;
    let alive = t.owner(2).await?.register(Item::at(["alive"])).await?;
    let mut follow = t.follow(&reader).await?;
    t.inject(Fault::Crash(0)).await?;
    let limit = if t.capabilities().ttl { t.death() } else { t.recovery() };
    follow.folds_to(limit, &registered([&alive])).await?;
    for one in &held {
        ensure!(follow.told_of(one.key()).len() == 1, "{} was told as {:?}", one.key(), follow.told_of(one.key()));
    }
    follow.quiet(t.calm()).await
}

async fn liv_02_death_notice_is_prompt(t: &Trial) -> CaseResult {
    let mut follow = t.follow(&t.owner(0).await?).await?;
    // Who looks now and then is in time by chance, and not each time.
    for n in 1..=8 {
        let writer = t.build(t.builder(n).await?.ttl(Duration::from_secs(3_600))).await?;
        let one = writer.register(Item::at(["x"]).id(n as u64)).await?;
        follow.folds_to(t.propagation(), &registered([&one])).await?;
        t.inject(Fault::Crash(n)).await?;
        follow.folds_to(t.propagation(), &Set::new()).await?;
    }
    Ok(())
}

async fn liv_02_unrenewed_session_expires_in_time(t: &Trial) -> CaseResult {
    let reader = t.owner(1).await?;
    let plain = Plain::open(t, 0).await?;
    let ttl = plain.session.effective_ttl().ok_or_else(|| fail!("[ttl] is claimed and the session has none"))?;
    let key = Item::at(["x"]).key(plain.id())?;
    plain.write(vec![put(&key, r#"{"place":["x"],"n":1}"#)]).await?;
    let mut follow = t.follow(&reader).await?;
    follow.quiet(ttl / 2).await?;
    let renewed = Instant::now();
    plain.session.renew().await?;
    if !t.capabilities().death_notice {
        follow.quiet((renewed + ttl).saturating_duration_since(Instant::now()).mul_f64(0.95)).await?;
    }
    follow.folds_to((renewed + t.death()).saturating_duration_since(Instant::now()), &Set::new()).await?;
    if !t.capabilities().death_notice {
        // Clocks of stores count whole steps; a tenth is what one may be early, where the clock is not the case's own.
        let least = if t.clock() == Clock::Paused { ttl } else { ttl.mul_f64(0.9) };
        ensure!(renewed.elapsed() >= least, "gone {:?} after a renewal for {ttl:?}", renewed.elapsed());
    }
    Ok(())
}

/// Records live under the lease: nobody touches them, and they stay for as long as it is renewed, and go with it.
async fn liv_03_renewing_the_lease_is_enough(t: &Trial) -> CaseResult {
    let reader = t.owner(1).await?;
    let plain = Plain::open(t, 0).await?;
    let ttl = plain.session.effective_ttl().ok_or_else(|| fail!("[ttl] is claimed and the session has none"))?;
    let keys = [Item::at(["x"]).key(plain.id())?, Item::at(["y"]).key(plain.id())?];
    plain.write(keys.iter().map(|key| put(key, r#"{"place":["x"],"n":1}"#)).collect()).await?;
    let mut follow = t.follow(&reader).await?;
    let held: Set = keys.into_iter().map(|key| (key, 1)).collect();
    ensure!(follow.fold == held, "a view shows {:?}", follow.fold);
    for _ in 0..6 {
        follow.quiet(ttl / 3).await?;
        plain.session.renew().await?;
    }
    ensure!(t.listed(&reader).await? == held, "a list lacks what lives under a lease that is renewed");
    plain.session.close().await?;
    follow.folds_to(t.propagation(), &Set::new()).await
}

async fn liv_03_leader_change_removes_nobody(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = try_join_all((0..3).map(|n| writer.register(Item::at(["x"]).id(n + 1)))).await?;
    let mut follow = t.follow(&reader).await?;
    for part in 1..=8 {
        follow.quiet(t.ttl() * part / 8).await?;
        t.inject(Fault::LeaderChange).await?;
    }
    follow.quiet(t.past_ttl()).await?;
    ensure!(t.listed(&reader).await? == registered(&held), "a live owner's records are not listed");
    Ok(())
}

async fn liv_04_stopped_owner_comes_back(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"]).n(1)).await?;
    one.update(Item::at(["x"]).n(2)).await?;
    let mut follow = t.follow(&reader).await?;
    t.inject(Fault::Pause(0)).await?;
    follow.folds_to(t.death(), &Set::new()).await?;
    t.inject(Fault::Resume(0)).await?;
    follow.folds_to(t.recovery(), &registered([&one])).await?;
    t.within(t.recovery(), "the registration knows", one.wait_for(RegistrationState::is_registered)).await?;
    follow.quiet(t.ttl() * 2).await
}

async fn liv_05_revoked_session_is_replaced(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = try_join_all((0..3).map(|n| writer.register(Item::at(["x"]).id(n + 1).n(n)))).await?;
    let own = writer.register(Item::at(["own"])).await?;
    let expected = registered(held.iter().chain([&own]));
    let mut follow = t.follow(&reader).await?;
    for _ in 0..8 {
        t.inject(Fault::Revoke(0)).await?;
        t.lists(&reader, t.recovery(), &expected).await?;
        follow.settles_to(t.propagation(), &expected).await?;
        for one in held.iter().chain([&own]) {
            t.within(t.recovery(), "registered again", one.wait_for(RegistrationState::is_registered)).await?;
        }
    }
    follow.quiet(t.calm()).await?;
    let tries = t.backend(0).await?.count(Call::Open);
    ensure!((9..=40).contains(&tries), "8 sessions were revoked, and {tries} were opened");
    ensure!(writer.instance_id().await? == own.instance(), "the instance id changed");
    Ok(())
}

async fn liv_05_deleted_record_is_put_back(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let (one, two) = (writer.register(Item::at(["x"]).n(1)).await?, writer.register(Item::at(["y"]).n(2)).await?);
    let expected = registered([&one, &two]);
    let mut follow = t.follow(&reader).await?;
    for _ in 0..5 {
        t.inject(Fault::Delete(one.key().clone())).await?;
        t.lists(&reader, t.recovery(), &expected).await?;
        follow.settles_to(t.propagation(), &expected).await?;
    }
    ensure!(follow.told_of(two.key()).is_empty(), "the other record was told as {:?}", follow.told_of(two.key()));
    follow.quiet(t.calm()).await
}

async fn liv_05_overwritten_record_is_put_back(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"]).n(1)).await?;
    let mut follow = t.follow(&reader).await?;
    for _ in 0..5 {
        t.inject(Fault::Write(one.key().clone(), r#"{"place":["x"],"n":99}"#.into())).await?;
        t.lists(&reader, t.recovery(), &registered([&one])).await?;
        follow.settles_to(t.propagation(), &registered([&one])).await?;
    }
    follow.quiet(t.calm()).await
}

async fn liv_06_lost_session_is_told(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"])).await?;
    let mut follow = t.follow(&reader).await?;
    t.inject(Fault::Cut(0)).await?;
    let lost =
        t.within(t.ttl() + t.propagation(), "the registration says that it is lost", one.wait_for(is_lost)).await;
    lost?;
    follow.folds_to(t.death(), &Set::new()).await?;
    ensure!(is_lost(&one.state()), "the record is gone, and its registration says {}", one.state().as_str());
    t.inject(Fault::Heal(0)).await?;
    t.within(t.recovery(), "registered again", one.wait_for(RegistrationState::is_registered)).await?;
    ensure!(t.listed(&reader).await? == registered([&one]), "said to be registered, and not listed");
    follow.folds_to(t.propagation(), &registered([&one])).await
}

/// On a paused clock all is on one thread, whose recorder hears of it.
async fn liv_06_lost_session_is_counted(t: &Trial) -> CaseResult {
    let counts = Counts::default();
    let _heard = metrics::set_default_local_recorder(&counts);
    let writer = t.owner(0).await?;
    let one = writer.register(Item::at(["x"])).await?;
    for n in 1..=2 {
        t.inject(Fault::Cut(0)).await?;
        t.within(t.ttl() + t.propagation(), "the registration says that it is lost", one.wait_for(is_lost)).await?;
        let counted = counts.of("discovery_sessions_lost_total");
        ensure!(counted == n, "{n} sessions were lost, and {counted} are counted");
        t.inject(Fault::Heal(0)).await?;
        t.within(t.recovery(), "registered again", one.wait_for(RegistrationState::is_registered)).await?;
        let counted = counts.of("discovery_reregistrations_total");
        ensure!(counted == n, "{n} records were put back, and {counted} are counted");
    }
    Ok(())
}

async fn liv_06_validity_counts_from_sending(t: &Trial) -> CaseResult {
    let writer = t.build(t.builder(0).await?.ttl(t.ttl() * 2)).await?;
    let probe = t.backend(0).await?;
    let one = writer.register(Item::at(["x"])).await?;
    let ttl = writer.effective_ttl().ok_or_else(|| fail!("[ttl] is claimed and the session has none"))?;
    // As slow as a renewal may be that is not given up: by so much is wrong who counts from the answer.
    let slow = ttl.mul_f64(0.3).min(t.bounds().recovery.mul_f64(0.8));
    let before = probe.count(Call::Renew);
    probe.spoil_renewals([Renewal::Slow(slow)].into_iter().chain([Renewal::Fails; 1_000]));
    let sent = t
        .eventually(ttl, "a renewal", async || probe.times(Call::Renew).get(before).copied().ok_or("none".to_owned()))
        .await?;
    sleep(slow * 5 / 4).await;
    t.inject(Fault::Cut(0)).await?;
    t.within(ttl * 2, "the registration says that it is lost", one.wait_for(is_lost)).await?;
    // Nobody has to be asked for that: half of the error is more than a thread's delay.
    let valid = sent.elapsed();
    ensure!(valid <= ttl + slow / 2, "said to be valid {valid:?} after a renewal for {ttl:?} was sent");
    t.inject(Fault::Heal(0)).await
}

/// `most` is the part of what is left after which the next try must have come. A busy machine makes a try late, never
/// early: so what was due shows in the best of a few.
async fn missed(t: &Trial, renewal: Renewal, most: f64) -> CaseResult {
    let reader = t.owner(1).await?;
    // What is left is long beside what a busy machine delays: its share is the allowance for that.
    let writer = t.build(t.builder(0).await?.ttl(t.ttl() * 3)).await?;
    let probe = t.backend(0).await?;
    let _one = writer.register(Item::at(["x"])).await?;
    let mut renewed = probe.times(Call::Open)[0];
    let ttl = writer.effective_ttl().ok_or_else(|| fail!("[ttl] is claimed and the session has none"))?;
    let mut follow = t.follow(&reader).await?;
    let mut late = String::new();
    for _ in 0..4 {
        let before = probe.count(Call::Renew);
        probe.spoil_renewals([renewal, renewal]);
        let tries = t
            .eventually(ttl * 2, "three tries", async || {
                let tries = probe.times(Call::Renew).split_off(before);
                if tries.len() >= 3 { Ok(tries) } else { Err(format!("{} so far", tries.len())) }
            })
            .await?;
        late = String::new();
        for pair in tries[..3].windows(2) {
            let left = (renewed + ttl).saturating_duration_since(pair[0]);
            let waited = pair[1] - pair[0];
            if waited > left.mul_f64(most) {
                late = format!("with {left:?} left, the next try came after {waited:?}");
            }
        }
        if late.is_empty() {
            break;
        }
        renewed = tries[2];
    }
    ensure!(late.is_empty(), "{late}");
    follow.quiet(ttl).await
}

async fn liv_07_missed_renewal_is_retried(t: &Trial) -> CaseResult {
    // Half of what is left, and a tenth for scheduling.
    missed(t, Renewal::Fails, 0.6).await
}

async fn liv_07_unanswered_renewal_is_retried(t: &Trial) -> CaseResult {
    // Half of what is left until it counts as missed, half of the rest until the next, and a tenth for scheduling.
    missed(t, Renewal::Hangs, 0.85).await
}

async fn liv_08_deregister_beats_putting_back(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let kept = writer.register(Item::at(["kept"])).await?;
    for n in 0..10u32 {
        let one = writer.register(Item::at(["x"]).n(n.into())).await?;
        t.inject(Fault::Revoke(0)).await?;
        // The putting back is at another point each time.
        sleep(t.bounds().recovery * n / 40).await;
        if n % 2 == 0 {
            one.deregister().await?;
        } else {
            drop(one);
        }
        t.lists(&reader, t.recovery(), &registered([&kept])).await?;
        t.follow(&reader).await?.quiet(t.calm()).await?;
    }
    Ok(())
}

/// The record is missing when it is withdrawn: before the owner looks, when a look has found that and its answer is on the
/// way, and when the write that puts it back is.
async fn liv_08_deregister_beats_repair(t: &Trial) -> CaseResult {
    const SPREAD: u32 = 4;
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let probe = t.backend(0).await?;
    let kept = writer.register(Item::at(["kept"])).await?;
    let expected = registered([&kept]);
    let mut follow = t.follow(&reader).await?;
    // The look comes at its own time in each R.
    let spread = (0..SPREAD).map(|n| (None, t.bounds().recovery * n / SPREAD));
    let held = [Call::Found, Call::Publish].map(|call| (Some(call), Duration::ZERO));
    let mut withdrawn = BTreeSet::new();
    for (n, (held, after)) in spread.chain(held).flat_map(|moment| [moment; 2]).enumerate() {
        let one = writer.register(Item::at([format!("x{n}")])).await?;
        let key = one.key().clone();
        follow.until(t.propagation(), "the record shows", |fold| fold.contains_key(&key)).await?;
        let before = held.map(|call| probe.count(call));
        probe.hold_back(held);
        t.inject(Fault::Delete(key.clone())).await?;
        sleep(after).await;
        if let Some((call, before)) = held.zip(before) {
            let reached = async || if probe.count(call) > before { Ok(()) } else { Err(format!("no {call:?}")) };
            t.eventually(t.recovery(), "the missing record is being put back", reached).await?;
        }
        let release = async { probe.hold_back(None) };
        if n % 2 == 0 {
            // The wish ends before anything is awaited.
            tokio::join!(one.deregister(), release).0?;
            ensure!(!t.listed(&reader).await?.contains_key(&key), "withdrawn, and still listed");
        } else {
            drop(one);
            release.await;
            let gone = async || match t.listed(&reader).await {
                Ok(listed) if !listed.contains_key(&key) => Ok(()),
                other => Err(format!("{other:?}")),
            };
            t.eventually(t.recovery(), "withdrawn", gone).await?;
        }
        follow.read_for(t.propagation()).await?;
        let added = |key: &Key| follow.told.iter().any(|told| matches!(told, Told::Added(added, _) if added == key));
        // This one may rightly have been put back until it was withdrawn: what counts is whether it is there now.
        let is_back = |key: &&Key| follow.fold.contains_key(*key);
        if let Some(back) = withdrawn.iter().find(|key| added(key)).or(Some(&key).filter(is_back)) {
            return Err(fail!("withdrawn while it was missing, and back: {back}"));
        }
        ensure!(follow.fold == expected, "{}", difference(&follow.fold, &expected));
        follow.told.clear();
        withdrawn.insert(key);
    }
    follow.quiet(t.calm()).await
}

/// On a paused clock an hour passes while the wall clock stands still: whatever reads the wall clock is an hour behind.
async fn liv_09_wall_clock_means_nothing(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"])).await?;
    let mut follow = t.follow(&reader).await?;
    follow.quiet(Duration::from_secs(3_600)).await?;
    ensure!(follow.view().freshness().is_live(), "the view is {}", follow.view().freshness().as_str());
    ensure!(one.state().is_registered(), "the registration says {}", one.state().as_str());
    if t.capabilities().ttl {
        let plain = Plain::open(t, 2).await?;
        let key = Item::at(["dead"]).key(plain.id())?;
        plain.write(vec![put(&key, r#"{"place":["dead"],"n":0}"#)]).await?;
        follow.folds_to(t.death(), &registered([&one])).await?;
    }
    Ok(())
}

async fn liv_09_wall_clock_jumps_change_nothing(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"])).await?;
    let mut follow = t.follow(&reader).await?;
    for seconds in [3_600, -7_200, 3_600] {
        t.inject(Fault::WallClock(seconds)).await?;
        if t.capabilities().file {
            sleep(t.ttl()).await;
            follow.folds_to(t.recovery(), &registered([&one])).await?;
        } else {
            follow.quiet(t.ttl() * 2).await?;
        }
    }
    Ok(())
}

async fn liv_10_effective_ttl_is_reported(t: &Trial) -> CaseResult {
    let least = t.bounds().min_ttl.ok_or_else(|| fail!("[ttl] is claimed and no minimum is declared"))?;
    let short = t.build(t.builder(0).await?.ttl(Duration::from_millis(1))).await?;
    let _one = short.register(Item::at(["x"])).await?;
    let ttl = short.effective_ttl().ok_or_else(|| fail!("no time to live is reported"))?;
    ensure!(ttl >= least, "a time to live of {ttl:?} is reported, and the minimum is {least:?}");
    let long = t.build(t.builder(1).await?.ttl(t.ttl() * 3)).await?;
    let _two = long.register(Item::at(["x"])).await?;
    let ttl = long.effective_ttl().unwrap_or_default();
    ensure!(ttl >= t.ttl() * 3, "{:?} was asked for, and {ttl:?} is reported", t.ttl() * 3);
    // Renewals come often enough for what is reported, not for what was asked.
    let mut follow = t.follow(&t.owner(2).await?).await?;
    follow.quiet(least * 4).await
}

async fn liv_11_storm_removes_each_once(t: &Trial) -> CaseResult {
    const STORM: usize = 10_000;
    const SURVIVORS: usize = 50;
    // How many sessions are opened at once.
    const AT_ONCE: usize = 16;
    // Long enough that none ends before the last is there.
    let ttl = t.ttl().max(Duration::from_secs(30));
    let backend = t.backend(0).await?;
    let mut watch = RawWatch::open(t, &*backend).await?;
    let open = async |n: usize| {
        let plain = Plain::open_for(t, n + 1, ttl).await?;
        let key = Item::at(["storm"]).id(n as u64 + 1).key(plain.id())?;
        plain.write(vec![put(&key, format!(r#"{{"place":["storm"],"n":{n}}}"#))]).await?;
        CaseResult::Ok((key, plain))
    };
    let survivors = try_join_all((STORM..STORM + SURVIVORS).map(open)).await?;
    let mut dead = Vec::with_capacity(STORM);
    let mut renewed = Instant::now();
    while dead.len() < STORM {
        let next = dead.len()..(dead.len() + AT_ONCE).min(STORM);
        dead.extend(try_join_all(next.map(open)).await?);
        // Read along, lest the watch falls behind the store's history.
        while watch.event_or_again(&*backend, Instant::now() + Duration::from_millis(1)).await?.is_some() {}
        if renewed.elapsed() > ttl / 4 {
            renew_all(survivors.iter().chain(&dead)).await?;
            renewed = Instant::now();
        }
    }
    renew_all(survivors.iter().chain(&dead)).await?;
    let until = Instant::now() + ttl + t.death() * 2;
    let mut renew = Instant::now() + ttl / 3;
    let mut most = 0;
    while Instant::now() < until && (most < STORM || watch.state.len() > SURVIVORS) {
        tokio::select! {
            event = watch.event_or_again(&*backend, until) => drop(event?),
            () = sleep_until(renew) => {
                renew_all(&survivors).await?;
                renew = Instant::now() + ttl / 3;
            }
        }
        most = most.max(watch.state.len());
    }
    let left: BTreeSet<_> = watch.state.keys().collect();
    ensure!(left == survivors.iter().map(|(key, _)| key).collect(), "{} of {SURVIVORS} records are left", left.len());
    let twice = watch.deletes.values().filter(|count| **count != 1).count();
    ensure!(twice == 0 && watch.deletes.len() == STORM, "{} removed, {twice} not once", watch.deletes.len());
    Ok(())
}

async fn renew_all<'a>(sessions: impl IntoIterator<Item = &'a (Key, Plain)>) -> CaseResult {
    // As many at once as one thread asks for and hears of in good time.
    let renewing = sessions.into_iter().map(|(_, plain)| async {
        // A renewal that a busy store does not answer is tried again, as owners do.
        while let Err(error) = plain.session.renew().await {
            ensure!(error.is_temporary(), "a renewed session is gone: {error}");
        }
        CaseResult::Ok(())
    });
    stream::iter(renewing).buffer_unordered(64).try_collect().await
}
