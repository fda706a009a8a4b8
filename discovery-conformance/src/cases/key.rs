//! KEY: keys, queries, sizes.

use std::collections::BTreeMap;

use discovery_core::backend::{Change, WatchEvent, Watcher};
use discovery_core::{Discovery, ErrorKind, InstanceId, Query, Record, Registration, Scope};
use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::plain::RawWatch;
use crate::case::{CaseResult, cases, ensure, fail};
use crate::follow::{Follow, Told};
use crate::item::Item;
use crate::probe::Call;
use crate::trial::{Set, Trial, registered, shown};

cases! {
    key_01_queries_are_exact_on_segments;
    key_01_watches_are_exact_on_segments;
    key_01_one_instance_of_many;
    key_02_segments_round_trip_or_are_refused;
    key_02_what_is_no_segment_is_refused_before_io;
    key_03_no_two_names_meet;
    key_04_predicate_decides_what_is_in;
    key_05_value_at_the_limit;
    key_06_large_set_is_one_snapshot;
}

async fn key_01_queries_are_exact_on_segments(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let places: [&[&str]; 9] = [
        &["a"],
        &["a", "b"],
        &["a", "b", "c"],
        &["a", "bc"],
        &["ab"],
        &["ab", "c"],
        &["foo"],
        &["foo_other"],
        &["foo-other", "x"],
    ];
    let items = places.into_iter().zip(0..).map(|(place, n)| Item::at(place.iter().copied()).n(n));
    let held = try_join_all(items.map(|item| writer.register(item))).await?;
    let everything = registered(&held);
    let queries: [(&[&str], &[u64]); 8] = [
        (&["a"], &[0, 1, 2, 3]),
        (&["a", "b"], &[1, 2]),
        (&["a", "b", "c"], &[2]),
        (&["ab"], &[4, 5]),
        (&["foo"], &[6]),
        (&["foo-other"], &[8]),
        (&["f"], &[]),
        (&["a", "b", "c", "d"], &[]),
    ];
    for (place, expected) in queries {
        let query = Query::path(place.iter().copied());
        let expected: Set =
            everything.iter().filter(|(_, n)| expected.contains(n)).map(|(key, n)| (key.clone(), *n)).collect();
        let list = reader.list::<Item>(query.clone()).await?;
        let listed: Set = list.iter().map(|item| (item.key().clone(), item.n)).collect();
        ensure!(listed == expected, "the list of {place:?} has {listed:?}");
        let view = reader.view::<Item>(query).await?;
        let mut follow = Follow::start(&view, t.propagation()).await?;
        ensure!(follow.fold == expected, "the view of {place:?} has {:?}", follow.fold);
        // Nothing beside it is told.
        let beside = held.iter().filter(|one| !expected.contains_key(one.key()));
        for one in beside {
            one.update(Item { n: one.value().n + 100, ..Item::clone(&one.value()) }).await?;
            one.update(Item { n: one.value().n - 100, ..Item::clone(&one.value()) }).await?;
        }
        follow.quiet(t.bounds().propagation).await?;
    }
    Ok(())
}

/// The backend's own side: what is beside a scope costs every watcher of it.
async fn key_01_watches_are_exact_on_segments(t: &Trial) -> CaseResult {
    let writer = t.owner(0).await?;
    let backend = t.backend(1).await?;
    let places: [&[&str]; 5] = [&["a"], &["a", "b"], &["a", "bc"], &["ab"], &["a_b", "c"]];
    let held = try_join_all(places.into_iter().map(|place| writer.register(Item::at(place.iter().copied())))).await?;
    for place in [&["a"][..], &["a", "b"], &["ab"], &[]] {
        let scope = backend.coarsen(&Scope::new("item", place)?);
        let mine: Vec<_> = held.iter().map(|one| one.key().clone()).filter(|key| scope.contains(key)).collect();
        let (listed, _) = backend.list(&scope).await?;
        let mut listed: Vec<_> = listed.into_iter().map(|entry| entry.key).collect();
        listed.sort();
        let mut watch = RawWatch::of(t, &*backend, &scope).await?;
        let beside = listed.iter().chain(watch.state.keys()).find(|key| !scope.contains(key));
        ensure!(beside.is_none(), "{beside:?} lies beside {scope}");
        let mut expected = mine.clone();
        expected.sort();
        ensure!(listed == expected, "the list of {scope} has {listed:?}");
        ensure!(watch.state.keys().eq(&expected), "the watch of {scope} has {:?}", watch.state.keys());
        for one in &held {
            one.update(Item { n: one.value().n + 1, ..Item::clone(&one.value()) }).await?;
        }
        let until = Instant::now() + t.a_while();
        while let Some(event) = watch.event(until).await? {
            let WatchEvent::Batch { changes, .. } = event else { continue };
            let beside = changes.iter().map(Change::key).find(|key| !scope.contains(key));
            ensure!(beside.is_none(), "{beside:?} lies beside {scope}");
        }
    }
    Ok(())
}

async fn key_01_one_instance_of_many(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let held = try_join_all((0x10..0x20).map(|id| writer.register(Item::at(["x"]).id(id)))).await?;
    let query = || Query::path(["x"]).instance(InstanceId(0x11));
    let mine = registered([&held[1]]);
    let list = reader.list::<Item>(query()).await?;
    ensure!(list.len() == 1 && list.get(held[1].key()).is_some(), "the list has {} records", list.len());
    let view = reader.view::<Item>(query()).await?;
    let mut follow = Follow::start(&view, t.propagation()).await?;
    ensure!(follow.fold == mine && shown(&view) == mine, "the view has {:?}", follow.fold);
    let extended = writer.register(Item::at(["x", "y"]).id(0x11)).await?;
    let longer = writer.register(Item::at(["x"]).id(0x111)).await?;
    follow.folds_to(t.propagation(), &registered([&held[1], &extended])).await?;
    longer.deregister().await?;
    follow.quiet(t.bounds().propagation).await
}

/// Registers an item where the backend takes its name, and answers `None` where it refuses it as it should.
async fn if_it_can(t: &Trial, writer: &Discovery, item: Item) -> CaseResult<Option<Registration<Item>>> {
    let (place, suffix) = (item.place.clone(), item.suffix.clone());
    let writes = t.backend(0).await?.count(Call::Publish);
    match writer.register(item).await {
        Ok(one) => Ok(Some(one)),
        Err(error) if error.kind() == ErrorKind::InvalidKey => {
            says_why(&error, place.iter().chain(&suffix))?;
            let asked = t.backend(0).await?.count(Call::Publish) - writes;
            ensure!(asked == 0, "{place:?} is refused after {asked} writes");
            Ok(None)
        }
        Err(error) => Err(fail!("{place:?} is refused as {} and not invalid_key: {error}", error.kind())),
    }
}

/// A name is refused for a character, which the message shows, or for its length, of which it gives the limit.
fn says_why<'a>(error: &discovery_core::Error, names: impl Iterator<Item = &'a String>) -> CaseResult {
    let message = error.message();
    let mut odd = names.flat_map(|name| name.chars()).filter(|c| !c.is_ascii_alphanumeric());
    let shown = odd.any(|c| message.contains(c) || message.contains(&c.escape_debug().to_string()));
    let limit = message.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() >= 2);
    ensure!(shown || limit || message.contains("empty"), "refused without a character or a length: {message}");
    Ok(())
}

async fn key_02_segments_round_trip_or_are_refused(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let long = ["x".repeat(100), "y".repeat(255), "z".repeat(2_000), "é".repeat(200)];
    let odd = [
        "a b",
        " ",
        "/",
        "//",
        "%",
        "%2F",
        "%25",
        "%zz",
        ".",
        "..",
        "...",
        "../../etc",
        "a/b/c",
        "\\",
        "\"",
        "'",
        "*",
        "?",
        "~",
        "#",
        ":",
        "|",
        "<>",
        "$HOME",
        "{}",
        "[a]",
        "a=b&c",
        "käse",
        "日本語",
        "🦀",
        "e\u{301}",
        "\u{200b}",
        "ǅ",
        "ß",
        "-",
        "_",
        "A",
        "a",
        "CON",
        "nul",
        "v1",
        "item",
        "0",
        "-1",
        "1e3",
        "null",
        ".tmp_x",
        "\u{feff}x",
    ];
    let mut held = Vec::new();
    for segment in odd.iter().copied().chain(long.iter().map(String::as_str)) {
        for place in [vec![segment], vec!["in", segment, "side"]] {
            let item = Item::at(place.clone()).suffixed(segment);
            held.extend(if_it_can(t, &writer, item).await?);
        }
    }
    ensure!(held.len() >= 20, "only {} of {} odd names are taken", held.len(), odd.len() * 2);
    let list = reader.list::<Item>(Query::all()).await?;
    let view = t.view(&reader).await?.load();
    ensure!(list.len() == held.len(), "{} names were taken, and {} are listed", held.len(), list.len());
    for one in &held {
        for (what, found) in [("list", list.get(one.key())), ("view", view.get(one.key()))] {
            let found = found.ok_or_else(|| fail!("the {what} does not have {}", one.key()))?;
            let segments: Vec<String> = found.key().path().segments().map(|segment| segment.into_owned()).collect();
            ensure!(segments == found.value().place, "{:?} came back as {segments:?}", found.value().place);
            ensure!(found.key().suffix() == found.value().suffix.as_deref(), "the suffix of {} changed", found.key());
        }
        let place = one.value().place.clone();
        let exact = reader.list::<Item>(Query::path(place.clone())).await?;
        ensure!(exact.get(one.key()).is_some(), "a query of {place:?} does not find it");
        ensure!(exact.iter().all(|item| item.place.starts_with(&place)), "a query of {place:?} finds others");
    }
    while let Some(one) = held.pop() {
        one.deregister().await?;
    }
    ensure!(t.listed(&reader).await?.is_empty(), "an odd name cannot be removed");
    Ok(())
}

async fn key_02_what_is_no_segment_is_refused_before_io(t: &Trial) -> CaseResult {
    let writer = t.owner(0).await?;
    let probe = t.backend(0).await?;
    let bad = ["", "a\0b", "\n", "\u{7f}", "a\tb", "\u{85}"];
    for segment in bad {
        for item in [Item::at([segment]), Item::at(["a", segment]), Item::at(["a"]).suffixed(segment)] {
            let what = format!("{:?} {:?}", item.place, item.suffix);
            match writer.register(item).await {
                Ok(_) => return Err(fail!("{what} was taken")),
                Err(error) => {
                    ensure!(error.kind() == ErrorKind::InvalidKey, "{what} is refused as {}: {error}", error.kind());
                    says_why(&error, [segment.to_owned()].iter())?;
                }
            }
        }
        ensure!(writer.view::<Item>(Query::path([segment])).await.is_err(), "a query of {segment:?} was taken");
    }
    ensure!(probe.calls() == 0, "refused names made {} calls", probe.calls());
    Ok(())
}

async fn key_03_no_two_names_meet(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let places: [&[&str]; 22] = [
        &["a", "b"],
        &["a/b"],
        &["a%2Fb"],
        &["a%2fb"],
        &["a%252Fb"],
        &["A", "b"],
        &["a", "B"],
        &["a.b"],
        &["a_b"],
        &["a-b"],
        &["a b"],
        &["a+b"],
        &["a%20b"],
        &["é"],
        &["e\u{301}"],
        &["ß"],
        &["ss"],
        &["İ"],
        &["i"],
        &["I"],
        &["1"],
        &["01"],
    ];
    let mut held: BTreeMap<u64, Registration<Item>> = BTreeMap::new();
    for (place, n) in places.into_iter().zip(0..) {
        // Suffixes may not meet instances either.
        let items = [
            Item::at(place.iter().copied()).id(0xa).n(n),
            Item::at(place.iter().copied()).id(0xa).suffixed("b").n(n + 100),
        ];
        for item in items {
            let n = item.n;
            if let Some(one) = if_it_can(t, &writer, item).await? {
                held.insert(n, one);
            }
        }
    }
    let expected = registered(held.values());
    ensure!(expected.len() == held.len(), "{} names have {} keys", held.len(), expected.len());
    ensure!(t.listed(&reader).await? == expected, "two names meet in the list");
    ensure!(shown(&t.view(&reader).await?) == expected, "two names meet in the view");
    // Removing one takes no other.
    while let Some((_, one)) = held.pop_first() {
        one.deregister().await?;
        let listed = t.listed(&reader).await?;
        ensure!(listed == registered(held.values()), "removing {} changed others", one.key());
    }
    Ok(())
}

async fn key_04_predicate_decides_what_is_in(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let one = writer.register(Item::at(["x"]).n(1)).await?;
    let view = t.view(&reader).await?.filter(|item| item.n >= 10);
    let mut follow = Follow::start(&view, t.propagation()).await?;
    ensure!(follow.fold.is_empty() && view.load().is_empty(), "a record that the predicate refuses is shown");
    for (n, inside) in [(5, false), (10, true), (11, true), (3, false), (4, false), (20, true)] {
        one.update(Item::at(["x"]).n(n)).await?;
        let expected = if inside { registered([&one]) } else { Set::new() };
        follow.folds_to(t.propagation(), &expected).await?;
        view.reached(&one.stamp()).await?;
        ensure!(
            shown(&view) == expected && view.load().len() == expected.len(),
            "with {n} the view has {:?}",
            shown(&view)
        );
    }
    let key = one.key().clone();
    one.deregister().await?;
    follow.folds_to(t.propagation(), &Set::new()).await?;
    let expected = [
        Told::Added(key.clone(), 10),
        Told::Updated(key.clone(), 10, 11),
        Told::Removed(key.clone(), 11),
        Told::Added(key.clone(), 20),
        Told::Removed(key, 20),
    ];
    ensure!(follow.told == expected, "told: {:?}", follow.told);
    Ok(())
}

async fn key_05_value_at_the_limit(t: &Trial) -> CaseResult {
    let (writer, reader) = (t.owner(0).await?, t.owner(1).await?);
    let limit = t.bounds().max_value;
    let id = writer.instance_id().await?;
    let empty = Item::at(["x"]).n(1).padded(1);
    let frame = empty.encode(&empty.key(id)?)?.len() - 1;
    ensure!(limit > frame, "no record fits into the declared {limit} bytes");
    let full = Item::at(["x"]).n(1).padded(limit - frame);
    let one = writer.register(full.clone()).await?;
    let got = reader.get::<Item>(one.key()).await?.ok_or_else(|| fail!("the largest value is not listed"))?;
    ensure!(*got.value() == full, "the largest value came back changed");
    ensure!(t.view(&reader).await?.load().len() == 1, "the largest value is not shown");
    let mut follow = t.follow(&reader).await?;
    let too_large = |error: discovery_core::Error| {
        ensure!(error.kind() == ErrorKind::TooLarge, "{} and not too_large: {error}", error.kind());
        Ok(())
    };
    let beyond = Item::at(["x"]).n(2).padded(limit - frame + 1);
    one.update(beyond).await.err().map_or(Err(fail!("one byte more was taken as an update")), too_large)?;
    let beyond = Item::at(["y"]).n(2).padded(limit - frame + 1);
    writer.register(beyond).await.err().map_or(Err(fail!("one byte more was registered")), too_large)?;
    follow.quiet(t.a_while()).await?;
    ensure!(t.listed(&reader).await?.len() == 1, "one byte more was written");
    ensure!(one.state().is_registered(), "a refused update left the registration {}", one.state().as_str());
    Ok(())
}

/// Two records at the two ends of a large set are written in turn, so in every committed state the first is at the
/// second or one ahead.
async fn key_06_large_set_is_one_snapshot(t: &Trial) -> CaseResult {
    const LAST: u64 = 60;
    // Of several owners: where the limit is per owner, one cannot hold so much.
    const WRITERS: usize = 8;
    let reader = t.owner(WRITERS).await?;
    let writers = try_join_all((0..WRITERS).map(|n| t.owner(n))).await?;
    let size = (t.bounds().max_value / 2).min(64 << 10);
    let count = (6 << 20) / size as u64;
    let place = |n: u64| Item::at([format!("x{n}")]).padded(size);
    let mut held = Vec::new();
    for (n, writer) in (0..count).zip(writers.iter().cycle()) {
        held.push(writer.register(place(n)).await?);
    }
    let (first, last) = (&held[0], &held[held.len() - 1]);
    let lists = std::cell::Cell::new(0);
    let write = async {
        // However slowly it is read, some lists are read while it is written.
        let mut n = 0;
        while n < LAST || lists.get() < 3 {
            n += 1;
            first.update(place(0).n(n)).await?;
            last.update(place(count - 1).n(n)).await?;
            tokio::task::yield_now().await;
        }
        CaseResult::Ok(())
    };
    let read = async {
        while lists.get() < 3 || t.listed(&reader).await?[last.key()] < LAST {
            let listed = t.listed(&reader).await?;
            ensure!(listed.len() as u64 == count, "a list has {} of {count} records", listed.len());
            let (a, b) = (listed[first.key()], listed[last.key()]);
            ensure!(a == b || a == b + 1, "a list shows {a} of the first and {b} of the last: no committed state");
            lists.set(lists.get() + 1);
            tokio::task::yield_now().await;
        }
        CaseResult::Ok(())
    };
    tokio::try_join!(write, read)?;
    ensure!(shown(&t.view(&reader).await?) == registered(&held), "the view is not the set");
    Ok(())
}
