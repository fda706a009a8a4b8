//! CON, continued: what a load costs, and how many watches there are.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use discovery_core::{Discovery, ErrorKind, Path, Query, Record, Result, ViewOptions};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::con::EFFORT;
use super::plain::{Plain, put};
use crate::case::{CaseResult, cases, ensure};
use crate::follow::{Follow, Told};
use crate::item::Item;
use crate::probe::Watching;
use crate::trial::{Trial, registered, shown};
use crate::world::Clock;

cases! {
    con_06_load_costs_the_same_at_any_size;
    con_06_load_asks_nobody;
    con_07_never_more_watches_than_declared;
    con_07_views_stay_right_while_watches_merge;
}

async fn con_06_load_costs_the_same_at_any_size(t: &Trial) -> CaseResult {
    // What the clock on the wall measures of a thousand calls, the best of many.
    fn cost(view: &discovery_core::View<Bytes>) -> Duration {
        let once = |_| {
            let began = std::time::Instant::now();
            for _ in 0..1_000 {
                std::hint::black_box(view.load());
            }
            began.elapsed()
        };
        (0..50).map(once).min().unwrap_or_default()
    }
    const LARGE: u64 = 50_000;
    let reader = t.owner(1).await?;
    let plain = Plain::open_for(t, 0, t.ttl() * 30).await?;
    let view = reader.entries(Query::kind("item"), ViewOptions::default()).await?;
    churn_keys(t, &plain, 0..10).await?;
    t.eventually(t.propagation(), "10 records", async || whole(view.load().len(), 10)).await?;
    let small = cost(&view);
    let stored = churn_keys(t, &plain, 10..LARGE).await?;
    t.eventually(t.recovery(), "all records", async || whole(view.load().len(), stored)).await?;
    let large = cost(&view);
    ensure!(large <= small * 4, "1,000 loads take {small:?} of 10 records and {large:?} of {stored}");
    Ok(())
}

fn whole(count: usize, of: usize) -> std::result::Result<(), String> {
    if count == of { Ok(()) } else { Err(format!("{count} of {of}")) }
}

/// Stores records of these ids, as many as a slow store takes in its time. Answers up to which.
async fn churn_keys(t: &Trial, plain: &Plain, ids: Range<u64>) -> CaseResult<usize> {
    let (began, mut renewed) = (std::time::Instant::now(), Instant::now());
    let mut stored = 0;
    let ids: Vec<u64> = ids.collect();
    for group in ids.chunks(500) {
        let mut writes = Vec::with_capacity(group.len());
        for id in group {
            let key = Item::at([format!("p{}", id % 50)]).id(id + 1).key(plain.id())?;
            writes.push(put(&key, r#"{"place":["p"],"n":1}"#));
        }
        stored = group[0] as usize;
        // Where the limit is per owner, this one is full before the effort is over.
        let mut full = false;
        // What a busy store does not answer is tried again, as owners do.
        let answers = loop {
            let answers = plain.publish(writes.clone()).await;
            let unanswered =
                answers.iter().any(|answer| answer.as_ref().is_err_and(discovery_core::Error::is_temporary));
            if !unanswered || began.elapsed() > plain.life().min(EFFORT * 4) {
                break answers;
            }
        };
        for answer in answers {
            match answer {
                Ok(_) => stored += 1,
                Err(error) if error.kind() == ErrorKind::TooLarge => full = true,
                Err(error) => return Err(error.into()),
            }
        }
        if full {
            break;
        }
        if renewed.elapsed() > plain.life() / 4 || t.clock() == Clock::Paused {
            plain.renew().await?;
            renewed = Instant::now();
        }
        if began.elapsed() > EFFORT {
            break;
        }
    }
    plain.renew().await?;
    Ok(stored)
}

async fn con_06_load_asks_nobody(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"])).await?;
    let view = t.view(&reader).await?;
    let probe = t.backend(1).await?;
    let before = probe.calls();
    for _ in 0..10_000 {
        ensure!(view.load().get(one.key()).is_some(), "the record is not shown");
    }
    ensure!(probe.calls() == before, "10,000 loads made {} calls", probe.calls() - before);
    probe.spoil_watches(Some(Watching::Refused(ErrorKind::Unavailable)));
    probe.break_watches();
    ensure!(view.load().get(one.key()).is_some(), "without its watch the view does not show the record");
    probe.spoil_watches(None);
    Ok(())
}

/// A record of the n-th of many places, for queries that no two views share.
async fn scattered(writer: &Discovery, count: u64) -> CaseResult<Vec<discovery_core::Registration<Item>>> {
    let items = (0..count).map(|n| Item::at([format!("a{}", n % 13), format!("b{n}"), "c".to_owned()]).id(n + 1).n(n));
    Ok(try_join_all(items.map(|item| writer.register(item))).await?)
}

async fn con_07_never_more_watches_than_declared(t: &Trial) -> CaseResult {
    const VIEWS: u64 = 300;
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = scattered(&writer, VIEWS).await?;
    let probe = t.backend(1).await?;
    let query = |n: u64| Query::path([format!("a{}", n % 13), format!("b{n}")]);
    let views = try_join_all((0..VIEWS).map(|n| reader.view::<Item>(query(n)))).await?;
    for (view, one) in views.iter().zip(&held) {
        ensure!(shown(view) == registered([one]), "a view shows {:?} and not {}", shown(view), one.key());
    }
    // Another kind beside them: their common parent is everything.
    let others = try_join_all((0..20).map(|n| reader.view::<Other>(Query::path([format!("o{n}")])))).await?;
    sleep(t.a_while()).await;
    let (most, declared) = (probe.most_watches(), t.bounds().max_watches);
    ensure!(most <= declared, "{VIEWS} views hold {most} watches, declared are {declared}");
    drop((views, others));
    t.eventually(t.recovery(), "the watches are closed", async || match probe.open_watches() {
        0 => Ok(()),
        count => Err(format!("{count} are open")),
    })
    .await
}

/// A second kind.
#[derive(Serialize, Deserialize)]
struct Other {
    name: String,
}

impl Record for Other {
    const KIND: &'static str = "other";

    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, [&self.name])
    }
}

async fn con_07_views_stay_right_while_watches_merge(t: &Trial) -> CaseResult {
    const VIEWS: u64 = 60;
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = scattered(&writer, VIEWS).await?;
    let mut follows: Vec<Follow> = Vec::new();
    for n in 0..VIEWS {
        // Each further view may merge the watches of those before it, while records change.
        let query = Query::path([format!("a{}", n % 13), format!("b{n}")]);
        follows.push(Follow::start(&reader.view::<Item>(query).await?, t.propagation()).await?);
        for one in held.iter().take(n as usize + 1).step_by(7) {
            let item = Item { n: one.value().n + 1_000, ..Item::clone(&one.value()) };
            one.update(item).await?;
        }
    }
    let mut keys = BTreeSet::new();
    for (follow, one) in follows.iter_mut().zip(&held) {
        follow.folds_to(t.propagation(), &registered([one])).await?;
        follow.quiet(Duration::from_millis(1)).await?;
        let moved = follow.told.iter().filter(|told| !matches!(told, Told::Updated(..))).count();
        ensure!(moved == 0, "merging watches told {:?}", follow.told);
        keys.insert(one.key().clone());
    }
    ensure!(keys.len() as u64 == VIEWS, "{} distinct keys", keys.len());
    Ok(())
}
