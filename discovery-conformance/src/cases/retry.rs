//! FLT, continued: opening while the store is down, and how the core tries again.

use std::time::Duration;

use discovery_core::{ErrorKind, Query, ViewOptions};
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use crate::case::{CaseResult, cases, ensure, fail};
use crate::item::Item;
use crate::probe::{Call, Watching};
use crate::trial::{Trial, registered, shown};
use crate::world::Fault;

cases! {
    flt_11_open_while_down_keeps_trying {Outage};
    flt_11_open_while_down_fails_fast {Outage};
    flt_12_transient_failures_end_no_stream;
    flt_12_what_ends_a_stream;
    flt_13_reconnects_back_off;
    flt_13_only_progress_resets_the_delay;
}

async fn flt_11_open_while_down_keeps_trying(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = try_join_all((0..3).map(|n| writer.register(Item::at(["x"]).id(n + 1)))).await?;
    t.inject(Fault::Outage).await?;
    let restore = async {
        sleep(t.ttl() / 4).await;
        t.inject(Fault::Restore).await
    };
    let opening = reader.view_with::<Item>(Query::all(), ViewOptions::default().deadline(t.recovery() + t.ttl()));
    let (view, restored) = tokio::join!(opening, restore);
    restored?;
    let view = view?;
    ensure!(shown(&view) == registered(&held), "the first state is {:?}", shown(&view));
    // A handle that is built while the store is down serves once it is up.
    t.inject(Fault::Outage).await?;
    let late = t.owner(2).await?;
    let registering = late.register(Item::at(["late"]));
    let restore = async {
        sleep(t.ttl() / 4).await;
        t.inject(Fault::Restore).await
    };
    let (one, restored) = tokio::join!(registering, restore);
    restored?;
    ensure!(one?.state().is_registered(), "registered, and not so");
    Ok(())
}

async fn flt_11_open_while_down_fails_fast(t: &Trial) -> CaseResult {
    let reader = t.owner(0).await?;
    t.inject(Fault::Outage).await?;
    let opening = reader.view_with::<Item>(Query::all(), ViewOptions::default().fail_fast());
    match t.within(t.recovery(), "the call", opening).await? {
        Ok(view) => Err(fail!("a store that is down shows {:?}", shown(&view))),
        Err(error) => {
            ensure!(error.is_temporary(), "an outage is told as permanent: {error}");
            Ok(())
        }
    }
}

async fn flt_12_transient_failures_end_no_stream(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let probe = t.backend(1).await?;
    let one = writer.register(Item::at(["x"])).await?;
    let mut follow = t.follow(&reader).await?;
    for n in 1..=10u64 {
        let kinds = [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Expired, ErrorKind::Internal];
        probe.spoil_watches(match n as usize % 5 {
            4 => Some(Watching::Mute),
            kind => Some(Watching::Refused(kinds[kind])),
        });
        probe.break_watches();
        one.update(Item::at(["x"]).n(n)).await?;
        follow.freshness(t.recovery(), "stale", |freshness| freshness.stale_for().is_some()).await?;
        probe.spoil_watches(None);
        follow.folds_to(t.recovery(), &registered([&one])).await?;
        follow.freshness(t.recovery(), "live again", |freshness| freshness.is_live()).await?;
    }
    ensure!(follow.told.len() == 10, "ten updates were told as {} changes", follow.told.len());
    Ok(())
}

async fn flt_12_what_ends_a_stream(t: &Trial) -> CaseResult {
    for (n, kind) in [ErrorKind::InvalidQuery, ErrorKind::Unsupported].into_iter().enumerate() {
        let reader = t.owner(n).await?;
        let mut follow = t.follow(&reader).await?;
        let probe = t.backend(n).await?;
        probe.spoil_watches(Some(Watching::Refused(kind)));
        probe.break_watches();
        follow.ends(t.recovery()).await?;
        let cause = follow.view().ended().ok_or_else(|| fail!("the stream ended, and the view does not say why"))?;
        ensure!(cause.kind() == kind, "the view says that it ended for {}", cause.kind());
        let again = reader.view::<Item>(Query::all()).await.err();
        let again = again.ok_or_else(|| fail!("a view that the backend refuses was opened"))?;
        ensure!(again.kind() == kind, "a view that the backend refuses fails with {}", again.kind());
    }
    let reader = t.owner(2).await?;
    let mut follow = t.follow(&reader).await?;
    reader.shutdown(t.recovery()).await;
    follow.ends(t.propagation()).await?;
    ensure!(reader.view::<Item>(Query::all()).await.is_err(), "a handle that was shut down opens a view");
    Ok(())
}

async fn flt_13_reconnects_back_off(t: &Trial) -> CaseResult {
    let reader = t.owner(0).await?;
    let probe = t.backend(0).await?;
    let follow = t.follow(&reader).await?;
    let before = probe.count(Call::Watch);
    probe.spoil_watches(Some(Watching::Refused(ErrorKind::Unavailable)));
    probe.break_watches();
    sleep(t.bounds().recovery * 10).await;
    let times = probe.times(Call::Watch)[before..].to_vec();
    // At once, doubling from something small up to a cap: some twenty tries in ten times R, never hundreds.
    ensure!((5..=80).contains(&times.len()), "{} tries in ten times R", times.len());
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let longest = gaps.iter().max().copied().unwrap_or_default();
    ensure!(longest <= t.bounds().recovery.mul_f64(1.2), "a pause of {longest:?} is longer than R");
    ensure!(gaps[0] * 4 <= longest, "the pauses do not grow: {gaps:?}");
    // Those at the cap differ by their jitter alone, and by more than a timer's delays.
    let late = &gaps[gaps.len() / 2..];
    let spread = longest - late.iter().min().copied().unwrap_or_default();
    ensure!(spread * 20 >= longest, "the pauses have no jitter: {late:?}");
    probe.spoil_watches(None);
    let until = Instant::now() + t.recovery();
    while !follow.view().freshness().is_live() {
        ensure!(Instant::now() < until, "not live within R after the store is back");
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn flt_13_only_progress_resets_the_delay(t: &Trial) -> CaseResult {
    let (reader, writer) = (t.owner(0).await?, t.owner(1).await?);
    let probe = t.backend(0).await?;
    let mut follow = t.follow(&reader).await?;
    let before = probe.count(Call::Watch);
    // Watches open, and fail before they say anything.
    probe.spoil_watches(Some(Watching::Mute));
    probe.break_watches();
    sleep(t.bounds().recovery * 10).await;
    let tries = probe.count(Call::Watch) - before;
    ensure!(tries <= 80, "{tries} tries in ten times R: opening alone must not reset the delay");
    // After progress the delay is small again.
    probe.spoil_watches(None);
    let one = writer.register(Item::at(["x"])).await?;
    follow.folds_to(t.recovery(), &registered([&one])).await?;
    one.update(Item::at(["x"]).n(1)).await?;
    follow.folds_to(t.propagation(), &registered([&one])).await?;
    // A busy machine makes a try late, never early: what was due shows in the best of a few.
    let mut first = Duration::MAX;
    for n in 2..=4 {
        let before = probe.count(Call::Watch);
        let began = Instant::now();
        probe.break_watches();
        let again = t.eventually(t.recovery(), "the watch is opened again", async || {
            probe.times(Call::Watch).get(before).copied().ok_or_else(|| "not yet".to_owned())
        });
        first = first.min(again.await? - began);
        one.update(Item::at(["x"]).n(n)).await?;
        follow.folds_to(t.recovery(), &registered([&one])).await?;
    }
    ensure!(first <= t.bounds().recovery / 4, "after progress the first delay is {first:?}");
    Ok(())
}
