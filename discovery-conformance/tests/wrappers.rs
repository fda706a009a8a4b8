//! What chaos does to a backend: each rate strikes, is counted, and shows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use discovery_conformance::wrappers::{Chaos, Rates};
use discovery_core::backend::{
    Backend, Desired, Registrar, Session, SessionRequest, WatchEvent, WatchStream, Watcher, Write, WriteBatch,
};
use discovery_core::{ErrorKind, InstanceId, Key, Path, Result, Scope};
use discovery_memory::Cluster;
use futures_util::StreamExt;
use tokio::time::Instant;

fn scope() -> Scope {
    Scope::new::<&str>("item", []).expect("a scope")
}

async fn put(session: &dyn Session, id: u64) {
    let key = Key::new(Path::new("item", ["pool"]).expect("a path"), InstanceId(id));
    let batch = WriteBatch { writes: vec![Write::Put { key, value: Bytes::from_static(b"1") }], atomic: false };
    for result in session.publish(&batch, &Desired::new()).await {
        result.expect("stored");
    }
}

/// Chaos around one handle on a cluster, and a session of another handle that it does nothing to.
async fn beside(rates: Rates) -> (Arc<Chaos>, Box<dyn Session>) {
    let cluster = Cluster::new();
    let session = cluster.connect().open(&SessionRequest::default()).await.expect("a session");
    (Chaos::around(Arc::new(cluster.connect()), 42, rates), session)
}

/// A watch that has its first state.
async fn watching(chaos: &Chaos) -> WatchStream {
    let mut stream = chaos.watch(&scope(), None).await.expect("a watch");
    while !matches!(stream.next().await.expect("a first state").expect("a first state"), WatchEvent::SnapshotEnd(_)) {}
    stream
}

async fn event(stream: &mut WatchStream) -> WatchEvent {
    stream.next().await.expect("an event").expect("an event")
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_the_stream_and_what_follows_is_lost() {
    let (chaos, session) = beside(Rates::none().streams(1.0, 0.0, 0.0)).await;
    put(&*session, 1).await;
    let mut stream = chaos.watch(&scope(), None).await.expect("a watch");
    let ended = match stream.next().await {
        None => true,
        Some(Err(error)) => error.kind() == ErrorKind::Unavailable && stream.next().await.is_none(),
        Some(Ok(_)) => false,
    };
    assert!(ended && chaos.injected().cut == 1, "{:?}", chaos.injected());
}

#[tokio::test(start_paused = true)]
async fn an_interruption_is_told_and_over_before_the_change_behind_it() {
    let (chaos, session) = beside(Rates::none().streams(0.0, 1.0, 0.0)).await;
    let mut stream = watching(&chaos).await;
    put(&*session, 1).await;
    assert!(matches!(event(&mut stream).await, WatchEvent::Interrupted(_)));
    assert!(matches!(event(&mut stream).await, WatchEvent::Recovered));
    assert!(matches!(event(&mut stream).await, WatchEvent::Batch { .. }));
    assert_eq!(chaos.injected().interrupted, 1);
}

#[tokio::test(start_paused = true)]
async fn a_duplicated_batch_comes_twice_the_same() {
    let (chaos, session) = beside(Rates::none().streams(0.0, 0.0, 1.0)).await;
    let mut stream = watching(&chaos).await;
    put(&*session, 1).await;
    let (one, again) = (event(&mut stream).await, event(&mut stream).await);
    assert!(matches!(one, WatchEvent::Batch { .. }), "{one:?}");
    assert_eq!(format!("{one:?}"), format!("{again:?}"));
    assert_eq!(chaos.injected().duplicated, 1);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_event_comes_late_and_no_later_than_is_said() {
    let by = Duration::from_secs(1);
    let (chaos, session) = beside(Rates::none().delays(1.0, by)).await;
    let most = chaos.bounds().propagation;
    let mut stream = watching(&chaos).await;
    put(&*session, 1).await;
    let began = Instant::now();
    assert!(matches!(event(&mut stream).await, WatchEvent::Batch { .. }));
    assert!(began.elapsed() > Duration::ZERO && began.elapsed() <= most, "{:?}", began.elapsed());
    assert!(chaos.injected().delayed > 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_chaos_ends_is_lost_with_its_records() {
    let (chaos, _other) = beside(Rates::none().sessions(1.0)).await;
    let session = chaos.open(&SessionRequest::default()).await.expect("a session");
    put(&*session, 1).await;
    assert_eq!(chaos.list(&scope()).await.expect("a list").0.len(), 1);
    assert_eq!(session.renew().await.map_err(|error| error.kind()), Err(ErrorKind::SessionLost));
    assert_eq!(session.lost().await.kind(), ErrorKind::SessionLost);
    assert!(chaos.list(&scope()).await.expect("a list").0.is_empty());
    assert_eq!(chaos.injected().lost_sessions, 1);
}

/// In a calm nothing is injected, and what comes after it is what would have come.
#[tokio::test(start_paused = true)]
async fn the_seed_decides_which_calls_fail() {
    let story = async |seed: u64| -> Vec<Result<(), ErrorKind>> {
        let rates = Rates::none().calls(0.3, 0.3);
        let chaos = Chaos::around(Arc::new(Cluster::new().connect()), seed, rates);
        let mut told = Vec::new();
        for call in 0..200 {
            chaos.calm((50..100).contains(&call));
            told.push(chaos.list(&scope()).await.map(drop).map_err(|error| error.kind()));
        }
        let failed = told.iter().filter(|answer| answer.is_err()).count() as u64;
        assert_eq!(chaos.injected().failed + chaos.injected().lost_answers, failed);
        told
    };
    let (one, again, other) = (story(7).await, story(7).await, story(8).await);
    assert_eq!(one, again);
    assert_ne!(one, other);
    assert!(one[50..100].iter().all(Result::is_ok) && one[..50].iter().any(Result::is_err));
}
