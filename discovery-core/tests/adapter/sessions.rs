//! Sessions on a store of keys: owners, fences, take-overs, and what a network does to them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use discovery_core::adapter::{KeySessions, KeyStore, Stored, Swapped, Tag, name_of};
use discovery_core::backend::{Desired, Drift, Registrar, Session, SessionRequest, Write, WriteBatch};
use discovery_core::{Effect, Error, ErrorKind, InstanceId, Key, Path, Result};
use futures_util::FutureExt;
use tokio::time::sleep;

use crate::toy::{Road, Toy};

const TTL: Duration = Duration::from_secs(10);

fn key(instance: u64) -> Key {
    Key::new(Path::new("worker", ["a"]).expect("a path"), InstanceId(instance))
}

fn value(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn handle(toy: &Toy) -> (Toy, KeySessions<Toy>) {
    let toy = toy.other_road();
    (toy.clone(), KeySessions::new(Arc::new(toy)))
}

async fn open(sessions: &KeySessions<Toy>) -> Box<dyn Session> {
    sessions.open(&SessionRequest::new(Some(TTL), None)).await.expect("a session")
}

fn batch_of(writes: Vec<Write>) -> WriteBatch {
    WriteBatch { writes, atomic: false }
}

async fn put(session: &dyn Session, key: &Key, text: &'static str) -> Result<()> {
    let batch = batch_of(vec![Write::Put { key: key.clone(), value: value(text) }]);
    session.publish(&batch, &Desired::new()).await.remove(0).map(drop)
}

async fn delete(session: &dyn Session, key: &Key) -> Result<()> {
    let batch = batch_of(vec![Write::Delete { key: key.clone() }]);
    session.publish(&batch, &Desired::new()).await.remove(0).map(drop)
}

/// What stands under a key: its incarnation and its value.
async fn stands(toy: &Toy, key: &Key) -> Option<(String, String)> {
    let listed = toy.other_road().list(&name_of(key)).await.expect("a list");
    let document = listed.items.into_iter().find(|(name, _)| *name == name_of(key))?.1.document;
    let text = String::from_utf8(document.to_vec()).expect("text");
    let (head, value) = text.split_once('\n').expect("a line");
    let incarnation = head.split_once(' ').expect("two words").1.to_owned();
    (incarnation != "withdrawn").then(|| (incarnation, value.to_owned()))
}

async fn value_of(toy: &Toy, key: &Key) -> Option<String> {
    stands(toy, key).await.map(|(_, value)| value)
}

fn desired(key: &Key, text: &'static str) -> Desired {
    Desired::from([(key.clone(), value(text))])
}

async fn drifted(session: &dyn Session, desired: &Desired) -> Vec<(Key, Option<ErrorKind>)> {
    let drifts = session.verify(desired).await.expect("verified");
    let kind = |drift: Drift| match drift {
        Drift::Taken(error) => Some(Error::kind(&error)),
        Drift::Unwanted => Some(ErrorKind::Refused),
        _ => None,
    };
    drifts.into_iter().map(|(key, drift)| (key, kind(drift))).collect()
}

#[tokio::test(start_paused = true)]
async fn records_live_as_long_as_they_are_renewed() {
    let (toy, sessions) = handle(&Toy::new());
    let session = open(&sessions).await;
    assert_eq!(session.effective_ttl(), Some(TTL));
    put(&*session, &key(1), "one").await.expect("put");
    for _ in 0..10 {
        sleep(TTL - Duration::from_secs(1)).await;
        assert_eq!(session.renew().await.expect("renewed"), TTL);
    }
    assert_eq!(value_of(&toy, &key(1)).await.as_deref(), Some("one"));
    assert!(session.lost().now_or_never().is_none());
    sleep(TTL).await;
    assert_eq!(value_of(&toy, &key(1)).await, None);
    assert_eq!(session.renew().await.expect_err("lost").kind(), ErrorKind::SessionLost);
    session.renew().await.expect("with nothing stored there is nothing to lose");
}

#[tokio::test(start_paused = true)]
async fn a_ttl_below_the_least_is_raised_and_the_default_is_the_stores() {
    let (_, sessions) = handle(&Toy::new());
    let ttl = async |ttl| sessions.open(&SessionRequest::new(ttl, None)).await.expect("a session").effective_ttl();
    assert_eq!(ttl(Some(Duration::from_millis(1))).await, Some(Duration::from_secs(5)));
    assert_eq!(ttl(None).await, Some(Duration::from_secs(10)));
    let session = sessions.open(&SessionRequest::new(None, Some(InstanceId(7)))).await.expect("a session");
    assert_eq!(session.id(), InstanceId(7));
}

#[tokio::test(start_paused = true)]
async fn an_update_keeps_the_incarnation_and_absence_changes_it() {
    let (toy, sessions) = handle(&Toy::new());
    let session = open(&sessions).await;
    let key = key(1);
    put(&*session, &key, "one").await.expect("put");
    let (first, _) = stands(&toy, &key).await.expect("stored");
    put(&*session, &key, "two").await.expect("put");
    assert_eq!(stands(&toy, &key).await, Some((first.clone(), "two".to_owned())));

    delete(&*session, &key).await.expect("deleted");
    delete(&*session, &key).await.expect("idempotent");
    assert_eq!(stands(&toy, &key).await, None);
    put(&*session, &key, "two").await.expect("put");
    let (second, _) = stands(&toy, &key).await.expect("stored");
    assert_ne!(first, second);

    toy.remove(&name_of(&key));
    put(&*session, &key, "two").await.expect("put");
    let (third, _) = stands(&toy, &key).await.expect("stored");
    assert_ne!(second, third);
}

#[tokio::test(start_paused = true)]
async fn of_two_owners_one_holds_a_key_until_it_lets_go_or_dies() {
    let toy = Toy::new();
    let ((_, first), (_, second)) = (handle(&toy), handle(&toy));
    let (first, second) = (open(&first).await, open(&second).await);
    put(&*first, &key(1), "first").await.expect("put");
    let error = put(&*second, &key(1), "second").await.expect_err("a conflict");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Conflict, Effect::None));
    delete(&*second, &key(1)).await.expect("another's is left alone");
    second.close().await.expect("closed");
    assert_eq!(value_of(&toy, &key(1)).await.as_deref(), Some("first"));

    delete(&*first, &key(1)).await.expect("deleted");
    put(&*second, &key(1), "second").await.expect("free");
    let error = put(&*first, &key(1), "first").await.expect_err("a conflict");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(drifted(&*first, &desired(&key(1), "first")).await, [(key(1), Some(ErrorKind::Conflict))]);

    sleep(TTL).await;
    put(&*first, &key(1), "first").await.expect("its owner is dead");
    second.renew().await.expect("nothing of its own is gone but what another holds");
    assert_eq!(value_of(&toy, &key(1)).await.as_deref(), Some("first"));
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_was_lost_is_found_by_the_next_call() {
    let (toy, sessions) = handle(&Toy::new());
    let session = open(&sessions).await;
    toy.set_road(Road::AnswersLost);
    let error = put(&*session, &key(1), "one").await.expect_err("no answer");
    assert_eq!(error.effect(), Effect::Unknown);
    toy.set_road(Road::Clear);
    assert_eq!(drifted(&*session, &desired(&key(1), "one")).await, []);
    let (incarnation, _) = stands(&toy, &key(1)).await.expect("stored");

    toy.set_road(Road::AnswersLost);
    put(&*session, &key(1), "two").await.expect_err("no answer");
    toy.set_road(Road::Clear);
    sleep(TTL / 2).await;
    session.renew().await.expect("renewed, though under another tag than it knew");
    sleep(TTL / 2).await;
    assert_eq!(drifted(&*session, &desired(&key(1), "one")).await, [(key(1), None)]);
    put(&*session, &key(1), "three").await.expect("put");
    assert_eq!(stands(&toy, &key(1)).await, Some((incarnation, "three".to_owned())));

    toy.set_road(Road::AnswersLost);
    delete(&*session, &key(1)).await.expect_err("no answer");
    toy.set_road(Road::Clear);
    session.renew().await.expect("what it took away itself is no loss");
    delete(&*session, &key(1)).await.expect("deleted");
    assert_eq!(value_of(&toy, &key(1)).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_late_write_changes_nothing_after_a_newer_one() {
    let (toy, sessions) = handle(&Toy::new());
    let session = open(&sessions).await;
    for slow in [Road::Slow, Road::Hangs] {
        let key = key(slow as u64);
        toy.set_road(slow);
        let dropped = put(&*session, &key, "late").now_or_never();
        assert_eq!(dropped.is_none(), slow == Road::Hangs);
        toy.set_road(Road::Clear);
        put(&*session, &key, "newer").await.expect("put");
        assert!(matches!(toy.deliver()[..], [Swapped::Differs(Some(_))]));
        assert_eq!(value_of(&toy, &key).await.as_deref(), Some("newer"));

        toy.set_road(slow);
        assert_eq!(put(&*session, &key, "late").now_or_never().is_none(), slow == Road::Hangs);
        toy.set_road(Road::Clear);
        delete(&*session, &key).await.expect("deleted");
        toy.deliver();
        assert_eq!(value_of(&toy, &key).await, None, "nothing is resurrected");
    }
}

#[tokio::test(start_paused = true)]
async fn a_withdrawal_overtakes_a_first_write_that_is_still_on_its_way() {
    let (toy, sessions) = handle(&Toy::new());
    let session = open(&sessions).await;
    toy.set_road(Road::Hangs);
    assert!(put(&*session, &key(1), "late").now_or_never().is_none());
    toy.set_road(Road::Clear);
    delete(&*session, &key(1)).await.expect("deleted");
    assert_eq!(toy.on_the_way(), 1);
    assert!(matches!(toy.deliver()[..], [Swapped::Differs(Some(_))]));
    assert_eq!(value_of(&toy, &key(1)).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_late_withdrawal_leaves_the_next_incarnation_alone() {
    let toy = Toy::new();
    let ((road, sessions), (_, others)) = (handle(&toy), handle(&toy));
    let (session, other) = (open(&sessions).await, open(&others).await);
    put(&*session, &key(1), "one").await.expect("put");
    road.set_road(Road::Slow);
    delete(&*session, &key(1)).await.expect_err("on its way");
    road.set_road(Road::Clear);
    put(&*session, &key(1), "again").await.expect("put");
    road.deliver();
    assert_eq!(value_of(&toy, &key(1)).await.as_deref(), Some("again"));

    road.set_road(Road::Slow);
    delete(&*session, &key(1)).await.expect_err("on its way");
    sleep(TTL).await;
    put(&*other, &key(1), "other").await.expect("free");
    road.deliver();
    assert_eq!(value_of(&toy, &key(1)).await.as_deref(), Some("other"));
}

#[tokio::test(start_paused = true)]
async fn a_session_takes_over_what_the_lost_one_of_its_handle_wrote() {
    let (toy, sessions) = handle(&Toy::new());
    let lost = open(&sessions).await;
    put(&*lost, &key(1), "one").await.expect("put");
    put(&*lost, &key(2), "two").await.expect("put");
    let (incarnation, _) = stands(&toy, &key(1)).await.expect("stored");

    let next = sessions.open(&SessionRequest::new(Some(TTL), Some(lost.id()))).await.expect("a session");
    for error in [
        put(&*lost, &key(1), "late").await.expect_err("superseded"),
        lost.renew().await.expect_err("superseded"),
        lost.verify(&desired(&key(1), "one")).await.expect_err("superseded"),
        lost.close().await.expect_err("superseded"),
    ] {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::SessionLost, Effect::None));
    }
    put(&*next, &key(1), "newest").await.expect("its own");
    assert_eq!(stands(&toy, &key(1)).await, Some((incarnation, "newest".to_owned())));
    next.close().await.expect("closed");
    assert_eq!(value_of(&toy, &key(1)).await, None);
    assert_eq!(value_of(&toy, &key(2)).await, None, "also what only the lost one wrote");
}

#[tokio::test(start_paused = true)]
async fn verify_tells_what_others_did_and_a_put_repairs_it() {
    let (toy, sessions) = handle(&Toy::new());
    let session = open(&sessions).await;
    let mut wanted = Desired::new();
    for number in 1..=3 {
        put(&*session, &key(number), "mine").await.expect("put");
        wanted.insert(key(number), value("mine"));
    }
    assert_eq!(drifted(&*session, &wanted).await, []);
    toy.remove(&name_of(&key(1)));
    toy.overwrite(&name_of(&key(2)), Stored { tag: Tag(5), document: value("garbage") });
    assert_eq!(drifted(&*session, &wanted).await, [(key(1), None), (key(2), None)]);
    session.renew().await.expect("one of its records is still there");
    for number in 1..=2 {
        put(&*session, &key(number), "mine").await.expect("put back");
    }
    assert_eq!(drifted(&*session, &wanted).await, []);
    wanted.remove(&key(3));
    assert_eq!(drifted(&*session, &wanted).await, [(key(3), Some(ErrorKind::Refused))], "its own, and unwanted");
    session.close().await.expect("closed");
    for number in 1..=3 {
        assert_eq!(value_of(&toy, &key(number)).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn verify_finds_a_session_lost_as_a_renewal_does() {
    let (toy, sessions) = handle(&Toy::new());
    let session = open(&sessions).await;
    let wanted: Desired = (1..=2).map(|number| (key(number), value("mine"))).collect();
    let first = drifted(&*session, &wanted).await;
    assert_eq!(first, [(key(1), None), (key(2), None)], "what was never stored is no loss");
    for number in 1..=3 {
        put(&*session, &key(number), "mine").await.expect("put");
    }
    (1..=2).for_each(|number| toy.remove(&name_of(&key(number))));
    let unwanted = Some(ErrorKind::Refused);
    assert_eq!(drifted(&*session, &wanted).await, [(key(1), None), (key(2), None), (key(3), unwanted)]);
    for number in 1..=2 {
        put(&*session, &key(number), "mine").await.expect("put back");
    }
    (1..=3).for_each(|number| toy.remove(&name_of(&key(number))));
    let lost = session.verify(&wanted).await.expect_err("all that it held is gone");
    assert_eq!(lost.kind(), ErrorKind::SessionLost);
    assert_eq!(drifted(&*session, &wanted).await, [(key(1), None), (key(2), None)], "told once");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_and_leaves_nothing_undecided() {
    let (toy, sessions) = handle(&Toy::new());
    let session = open(&sessions).await;
    put(&*session, &key(1), "one").await.expect("put");
    toy.set_road(Road::Closed);
    let unavailable = |error: Error| assert_eq!(error.kind(), ErrorKind::Unavailable);
    unavailable(session.renew().await.expect_err("unreachable"));
    unavailable(session.verify(&desired(&key(1), "one")).await.expect_err("unreachable"));
    unavailable(put(&*session, &key(1), "two").await.expect_err("unreachable"));
    unavailable(session.close().await.expect_err("unreachable"));
    unavailable(sessions.open(&SessionRequest::default()).await.err().expect("unreachable"));
    toy.set_road(Road::Clear);
    session.renew().await.expect("renewed");
    session.close().await.expect("closed");
    assert_eq!(value_of(&toy, &key(1)).await, None);
}

#[tokio::test(start_paused = true)]
async fn many_records_go_in_portions_and_an_outage_costs_one() {
    let (toy, sessions) = handle(&Toy::new());
    let session = open(&sessions).await;
    let writes = |text| (0..300).map(|n| Write::Put { key: key(n), value: value(text) }).collect();
    let results = session.publish(&batch_of(writes("one")), &Desired::new()).await;
    assert!(results.len() == 300 && results.iter().all(Result::is_ok));
    assert_eq!(toy.calls(), [128, 128, 44]);
    session.renew().await.expect("renewed");
    assert_eq!(toy.calls()[3..], [128, 128, 44]);
    toy.set_road(Road::Closed);
    let results = session.publish(&batch_of(writes("two")), &Desired::new()).await;
    let effects: Vec<_> = results.iter().map(|result| result.as_ref().expect_err("unreachable").effect()).collect();
    assert_eq!(toy.calls()[6..], [128]);
    assert!(effects[..128].iter().all(|effect| *effect == Effect::Unknown));
    assert!(effects[128..].iter().all(|effect| *effect == Effect::None));

    toy.set_road(Road::Clear);
    let large = Bytes::from(vec![b'1'; 600 << 10]);
    let writes = (0..3).map(|n| Write::Put { key: key(n), value: large.clone() }).collect();
    let results = session.publish(&batch_of(writes), &Desired::new()).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(toy.calls()[7..], [1, 1, 1]);

    let atomic = WriteBatch { writes: vec![Write::Delete { key: key(0) }], atomic: true };
    let refused = session.publish(&atomic, &Desired::new()).await.remove(0).expect_err("no transactions");
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
}
