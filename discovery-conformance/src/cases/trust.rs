//! FLT, continued: permissions, foreign and undecodable records, files.

use std::time::Duration;

use bytes::Bytes;
use discovery_core::{ErrorKind, Freshness, InstanceId, Key, Path, Query, ViewOptions};
use tokio::time::sleep;

use crate::case::{CaseResult, cases, ensure, fail};
use crate::counts::Counts;
use crate::follow::Follow;
use crate::item::Item;
use crate::trial::{Set, Trial, registered, shown};
use crate::world::Fault;

cases! {
    flt_14_undecodable_hides_nobody {Write};
    flt_14_last_good_value_stays {Write};
    flt_14_last_good_value_goes_with_its_incarnation {Write, Delete};
    flt_14_undecodable_is_counted {Write} @ Paused;
    flt_14_panic_in_decoding_hides_nobody {Write};
    flt_15_refused_at_open_is_typed {Deny};
    flt_15_refused_later_is_stale {Deny};
    flt_16_unknown_fields_are_shown_unchanged {Write};
    flt_16_unknown_kinds_are_skipped {Write};
    flt_17_read_only_directory ["file"] {ReadOnly};
    flt_17_full_disk ["file"] {DiskFull};
    flt_17_torn_file ["file"] {Torn};
}

fn foreign(place: &str, id: u64) -> CaseResult<Key> {
    Ok(Item::at([place]).key(InstanceId(id))?)
}

async fn flt_14_undecodable_hides_nobody(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"])).await?;
    let mut follow = t.follow(&reader).await?;
    let bad: [&[u8]; 4] = [b"no json", br#"{"n":"a word"}"#, b"", &[0xff, 0x00, 0xfe]];
    for (bytes, id) in bad.into_iter().zip(1..) {
        t.inject(Fault::Write(foreign("bad", id)?, Bytes::copy_from_slice(bytes))).await?;
    }
    let two = writer.register(Item::at(["y"])).await?;
    follow.folds_to(t.propagation(), &registered([&one, &two])).await?;
    ensure!(t.listed(&reader).await? == registered([&one, &two]), "an undecodable record changes the list");
    t.eventually(t.propagation(), "undecodable records can be listed", async || {
        match follow.view().undecodable().len() {
            4 => Ok(()),
            count => Err(format!("{count} of 4 are listed")),
        }
    })
    .await?;
    let late = t.owner(2).await?;
    ensure!(shown(&t.view(&late).await?) == registered([&one, &two]), "a later view is not whole");
    // Mended, it is a record like any other.
    let key = foreign("bad", 1)?;
    t.inject(Fault::Write(key.clone(), r#"{"place":["bad"],"n":5}"#.into())).await?;
    follow.until(t.propagation(), "the mended record", |fold| fold.get(&key) == Some(&5)).await?;
    follow.quiet(t.a_while()).await
}

async fn flt_14_last_good_value_stays(t: &Trial) -> CaseResult {
    let reader = t.owner(1).await?;
    let key = foreign("x", 7)?;
    let good = Set::from([(key.clone(), 1)]);
    t.inject(Fault::Write(key.clone(), r#"{"place":["x"],"n":1}"#.into())).await?;
    let mut follow = t.follow(&reader).await?;
    ensure!(follow.fold == good, "the first state is {:?}", follow.fold);
    t.inject(Fault::Write(key.clone(), "no json".into())).await?;
    follow.quiet(t.a_while()).await?;
    let report = follow.view().undecodable();
    ensure!(report.len() == 1 && report[0].last_good_shown, "what is listed as undecodable: {report:?}");
    // Later views of the same handle, wider and narrower, show it too.
    let narrow = reader.view::<Item>(Query::path(["x"])).await?;
    ensure!(shown(&narrow) == good, "a later view shows {:?}", shown(&narrow));
    t.inject(Fault::Write(key.clone(), r#"{"place":["x"],"n":2}"#.into())).await?;
    follow.folds_to(t.propagation(), &Set::from([(key, 2)])).await?;
    ensure!(follow.view().undecodable().is_empty(), "a mended record is still listed as undecodable");
    Ok(())
}

async fn flt_14_last_good_value_goes_with_its_incarnation(t: &Trial) -> CaseResult {
    let reader = t.owner(1).await?;
    let key = foreign("x", 7)?;
    t.inject(Fault::Write(key.clone(), r#"{"place":["x"],"n":1}"#.into())).await?;
    let mut follow = t.follow(&reader).await?;
    ensure!(follow.fold == Set::from([(key.clone(), 1)]), "the first state is {:?}", follow.fold);
    t.inject(Fault::Delete(key.clone())).await?;
    follow.folds_to(t.propagation(), &Set::new()).await?;
    // Another record under the same key: what the one before it said is nothing of its own.
    t.inject(Fault::Write(key.clone(), "no json".into())).await?;
    let listed = t.eventually(t.propagation(), "it is listed as undecodable", async || {
        follow.view().undecodable().first().cloned().ok_or_else(|| "nothing is".to_owned())
    });
    let listed = listed.await?;
    ensure!(!listed.last_good_shown, "the value of an earlier incarnation is said to be shown: {listed:?}");
    follow.quiet(t.a_while()).await?;
    ensure!(
        shown(follow.view()).is_empty(),
        "the value of an earlier incarnation is shown: {:?}",
        shown(follow.view())
    );
    let late = t.view(&t.owner(2).await?).await?;
    ensure!(shown(&late).is_empty(), "a later view shows the value of an earlier incarnation: {:?}", shown(&late));
    Ok(())
}

/// On a paused clock all is on one thread, whose recorder hears of it.
async fn flt_14_undecodable_is_counted(t: &Trial) -> CaseResult {
    let counts = Counts::default();
    let _heard = metrics::set_default_local_recorder(&counts);
    let reader = t.owner(1).await?;
    let follow = t.follow(&reader).await?;
    for n in 1..=3 {
        t.inject(Fault::Write(foreign("x", n)?, "no json".into())).await?;
        t.eventually(t.propagation(), "it is listed as undecodable", async || {
            match follow.view().undecodable().len() as u64 {
                count if count == n => Ok(()),
                count => Err(format!("{count} are")),
            }
        })
        .await?;
        let counted = counts.of("discovery_undecodable_total");
        ensure!(counted == n, "{n} records do not decode, and {counted} are counted");
    }
    Ok(())
}

/// A record type whose decoding panics.
#[derive(serde::Serialize, serde::Deserialize)]
struct Fuse {
    n: u64,
}

impl discovery_core::Record for Fuse {
    const KIND: &'static str = "item";

    fn path(&self) -> discovery_core::Result<Path> {
        Path::new(Self::KIND, ["x"])
    }

    fn decode(_: &Key, value: &[u8]) -> discovery_core::Result<Self> {
        let fuse: Self = serde_json::from_slice(value)
            .map_err(|error| discovery_core::Error::new(ErrorKind::InvalidValue, "no fuse").with_source(error))?;
        if fuse.n == 13 {
            // A panic that the process's panic hook does not hear of.
            std::panic::resume_unwind(Box::new("a record type may panic"));
        }
        Ok(fuse)
    }
}

async fn flt_14_panic_in_decoding_hides_nobody(t: &Trial) -> CaseResult {
    let reader = t.owner(1).await?;
    t.inject(Fault::Write(foreign("x", 1)?, r#"{"place":["x"],"n":1}"#.into())).await?;
    t.inject(Fault::Write(foreign("x", 2)?, r#"{"place":["x"],"n":13}"#.into())).await?;
    let view = reader.view::<Fuse>(Query::all()).await?;
    t.inject(Fault::Write(foreign("x", 3)?, r#"{"place":["x"],"n":3}"#.into())).await?;
    t.eventually(t.propagation(), "the others are shown", async || match view.load().len() {
        2 => Ok(()),
        count => Err(format!("{count} of 2")),
    })
    .await?;
    ensure!(view.undecodable().len() == 1, "{} records are listed as undecodable", view.undecodable().len());
    ensure!(reader.list::<Fuse>(Query::all()).await?.len() == 2, "the list is not whole");
    Ok(())
}

async fn flt_15_refused_at_open_is_typed(t: &Trial) -> CaseResult {
    let reader = t.owner(1).await?;
    t.inject(Fault::Deny(1)).await?;
    let refused = |what: &str, error: Option<discovery_core::Error>| match error {
        Some(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        Some(error) => Err(fail!("{what} fails with {} and not permission_denied: {error}", error.kind())),
        None => Err(fail!("{what} is allowed")),
    };
    refused("a view", t.within(t.recovery(), "the view", reader.view::<Item>(Query::all())).await?.err())?;
    refused("a list", t.within(t.recovery(), "the list", reader.list::<Item>(Query::all())).await?.err())?;
    let registering = reader.register(Item::at(["x"]));
    refused("a registration", t.within(t.recovery(), "the registration", registering).await?.err())?;
    t.inject(Fault::Allow(1)).await?;
    let one = reader.register(Item::at(["x"])).await?;
    let view = reader.view_with::<Item>(Query::all(), ViewOptions::default().deadline(t.recovery())).await?;
    ensure!(shown(&view) == registered([&one]), "allowed again, the view shows {:?}", shown(&view));
    Ok(())
}

async fn flt_15_refused_later_is_stale(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"])).await?;
    let mut follow = t.follow(&reader).await?;
    t.inject(Fault::Deny(1)).await?;
    let denied = |freshness: &Freshness| match freshness {
        Freshness::Stale { cause, .. } => cause.kind() == ErrorKind::PermissionDenied,
        _ => false,
    };
    follow.freshness(t.recovery(), "stale for want of permission", denied).await?;
    follow.quiet(t.a_while()).await?;
    ensure!(shown(follow.view()) == registered([&one]), "the last known set is {:?}", shown(follow.view()));
    one.update(Item::at(["x"]).n(1)).await?;
    t.inject(Fault::Allow(1)).await?;
    follow.folds_to(t.recovery(), &registered([&one])).await?;
    follow.freshness(t.recovery(), "live again", |freshness| freshness.is_live()).await
}

async fn flt_16_unknown_fields_are_shown_unchanged(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let key = foreign("x", 7)?;
    let value = Bytes::from_static(br#"{"place":["x"],"n":1,"later":{"version":[2,3],"z":null},"a":"b"}"#);
    t.inject(Fault::Write(key.clone(), value.clone())).await?;
    let _own = writer.register(Item::at(["own"])).await?;
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    for round in 0..2 {
        let got = reader.get::<Item>(&key).await?.ok_or_else(|| fail!("get does not find the record"))?;
        ensure!(got.n == 1, "its known fields are {:?}", got.value());
        ensure!(json(got.stored()) == json(&value), "get shows {:?}", got.stored());
        let listed = reader.list_entries(Query::kind("item")).await?;
        let stored = listed.get(&key).ok_or_else(|| fail!("the list does not show the record"))?.value().clone();
        ensure!(json(&stored) == json(&value), "the list shows {stored:?}");
        if round == 0 {
            // Whatever the owners around it do, it stays as it is.
            sleep(t.calm()).await;
        }
    }
    Ok(())
}

async fn flt_16_unknown_kinds_are_skipped(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let stranger = Key::new(Path::new("stranger", ["x"])?, InstanceId(7));
    t.inject(Fault::Write(stranger.clone(), r#"{"what":"ever"}"#.into())).await?;
    let one = writer.register(Item::at(["x"])).await?;
    let mut follow = t.follow(&reader).await?;
    ensure!(follow.fold == registered([&one]), "a record of an unknown kind changes the view: {:?}", follow.fold);
    let all = reader.entries(Query::all(), ViewOptions::default()).await?;
    ensure!(all.load().get(&stranger).is_some(), "a view of all kinds lacks the unknown one");
    t.inject(Fault::Write(stranger.clone(), "no json".into())).await?;
    follow.quiet(t.a_while()).await?;
    ensure!(t.listed(&reader).await? == registered([&one]), "a record of an unknown kind changes the list");
    Ok(())
}

/// Writes that cannot be done fail with one of these kinds, and readers go on as before.
async fn writer_fails_readers_do_not(t: &Trial, fault: fn(bool) -> Fault, kinds: &[ErrorKind]) -> CaseResult {
    let reader = t.owner(1).await?;
    let writer = t.build(t.builder(0).await?.operation_timeout(t.bounds().recovery)).await?;
    let one = writer.register(Item::at(["x"])).await?;
    let before = registered([&one]);
    let mut follow = t.follow(&reader).await?;
    t.inject(fault(true)).await?;
    let refused = [
        ("a registration", writer.register(Item::at(["y"])).await.err()),
        ("an update", one.update(Item::at(["x"]).n(1)).await.err()),
    ];
    follow.quiet(t.a_while()).await?;
    let (listed, viewed) = (t.listed(&reader).await?, shown(&t.view(&t.owner(2).await?).await?));
    t.inject(fault(false)).await?;
    for (what, error) in refused {
        let error = error.ok_or_else(|| fail!("{what} that cannot be stored is answered with Ok"))?;
        ensure!(kinds.contains(&error.kind()), "{what} fails with {} and not one of {kinds:?}: {error}", error.kind());
    }
    ensure!(listed == before, "a fault of the writer's changes what readers list: {listed:?}");
    ensure!(viewed == before, "a fault of the writer's changes what a new view shows: {viewed:?}");
    one.update(Item::at(["x"]).n(2)).await?;
    let two = writer.register(Item::at(["y"]).n(2)).await?;
    follow.settles_to(t.calm(), &registered([&one, &two])).await
}

async fn flt_17_read_only_directory(t: &Trial) -> CaseResult {
    writer_fails_readers_do_not(t, Fault::ReadOnly, &[ErrorKind::PermissionDenied]).await
}

async fn flt_17_full_disk(t: &Trial) -> CaseResult {
    // Space may be freed: it is tried again for as long as the caller waits.
    writer_fails_readers_do_not(t, Fault::DiskFull, &[ErrorKind::Timeout, ErrorKind::Unavailable]).await
}

async fn flt_17_torn_file(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"])).await?;
    let view = t.view(&reader).await?;
    let mut follow = Follow::start(&view, t.propagation()).await?;
    t.inject(Fault::Torn(foreign("torn", 7)?)).await?;
    follow.quiet(t.a_while().max(Duration::from_millis(200))).await?;
    let two = writer.register(Item::at(["y"])).await?;
    follow.folds_to(t.propagation(), &registered([&one, &two])).await?;
    ensure!(t.listed(&reader).await? == registered([&one, &two]), "a torn file changes the list");
    Ok(())
}
