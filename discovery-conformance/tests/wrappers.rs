//! The wrappers do what their rates say, count it, and do the same again for the same seed.

use std::sync::Arc;
use std::time::Duration;

use discovery_conformance::Item;
use discovery_conformance::wrappers::{Chaos, Distribution, Injected, Latency, Rates};
use discovery_core::backend::{Backend, Change, Position, Registrar, SessionRequest, WatchEvent, WatchStream, Watcher};
use discovery_core::{Discovery, ErrorKind, ExecutorKind, Query, Registration, Result, Scope};
use discovery_memory::Cluster;
use futures_util::StreamExt;
use tokio::time::Instant;

const LATE: Duration = Duration::from_millis(80);

/// A watch through chaos, live, and somebody who writes beside it.
struct Watched {
    chaos: Arc<Chaos>,
    stream: WatchStream,
    writer: Discovery,
    record: Registration<Item>,
}

impl Watched {
    async fn by(seed: u64, rates: Rates) -> Result<Self> {
        let cluster = Cluster::new();
        let writer = handle(Arc::new(cluster.connect())).await?;
        let record = writer.register(Item::at(["pool"])).await?;
        let chaos = Chaos::around(Arc::new(cluster.connect()), seed, rates);
        chaos.calm(true);
        let mut stream = chaos.watch(&Scope::all(), None).await?;
        while !matches!(stream.next().await.expect("a snapshot")?, WatchEvent::SnapshotEnd(_)) {}
        chaos.calm(false);
        Ok(Self { chaos, stream, writer, record })
    }

    async fn write(&self, n: u64) -> Result<()> {
        self.record.update(Item::at(["pool"]).n(n)).await.map(drop)
    }

    /// The next event that is more than a sign of life; nothing where the stream has ended.
    async fn next(&mut self) -> Option<Result<WatchEvent>> {
        loop {
            match self.stream.next().await {
                Some(Ok(WatchEvent::Progress(_))) => {}
                other => return other,
            }
        }
    }

    async fn batch(&mut self) -> Result<(Vec<Change>, Position)> {
        match self.next().await.expect("an event")? {
            WatchEvent::Batch { changes, position } => Ok((changes, position)),
            other => panic!("no batch: {other:?}"),
        }
    }

    async fn end(self) {
        drop(self.record);
        assert!(self.writer.shutdown(Duration::from_secs(5)).await.is_clean());
    }
}

async fn handle(backend: Arc<dyn Backend>) -> Result<Discovery> {
    Discovery::builder().with_backend(backend).executor(ExecutorKind::Current).build().await
}

#[tokio::test(start_paused = true)]
async fn a_call_fails_before_it_reaches_the_store_or_after() -> Result<()> {
    let cluster = Cluster::new();
    for (rates, is) in
        [(Rates::none().calls(1.0, 0.0), (1, 0)), (Rates::none().calls(0.0, 1.0), (0, 1)), (Rates::none(), (0, 0))]
    {
        let chaos = Chaos::around(Arc::new(cluster.connect()), 1, rates);
        let answer = chaos.list(&Scope::all()).await;
        let injected = chaos.injected();
        assert_eq!((injected.failed, injected.lost_answers), is);
        assert_eq!(answer.err().map(|error| error.kind()), (is != (0, 0)).then_some(ErrorKind::Unavailable));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_a_stream() -> Result<()> {
    let (mut silent, mut told) = (0, 0);
    for seed in 0..16 {
        let mut watched = Watched::by(seed, Rates::none().streams(1.0, 0.0, 0.0)).await?;
        watched.write(1).await?;
        match watched.next().await {
            None => silent += 1,
            Some(Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                assert!(watched.next().await.is_none(), "it ends with its error");
                told += 1;
            }
            Some(Ok(event)) => panic!("seed {seed}: the stream goes on: {event:?}"),
        }
        assert_eq!(watched.chaos.injected().cut, 1);
        watched.end().await;
    }
    // Half of the times with an error.
    assert!(silent > 0 && told > 0, "{silent} ended, {told} with an error");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_interruption_ends_before_the_event_that_it_holds() -> Result<()> {
    let mut watched = Watched::by(1, Rates::none().streams(0.0, 1.0, 0.0).delays(0.0, LATE)).await?;
    watched.write(1).await?;
    let Some(Ok(WatchEvent::Interrupted(_))) = watched.next().await else { panic!("it is not interrupted") };
    let began = Instant::now();
    let Some(Ok(WatchEvent::Recovered)) = watched.next().await else { panic!("it does not recover") };
    assert!(began.elapsed() >= LATE, "{:?}", began.elapsed());
    assert_eq!(watched.batch().await?.0.len(), 1);
    assert!(watched.chaos.injected().interrupted > 0);
    watched.end().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_is_the_same_batch_again() -> Result<()> {
    let mut watched = Watched::by(1, Rates::none().streams(0.0, 0.0, 1.0)).await?;
    watched.write(1).await?;
    let (first, again) = (watched.batch().await?, watched.batch().await?);
    assert_eq!(format!("{first:?}"), format!("{again:?}"));
    watched.write(2).await?;
    assert_ne!(format!("{:?}", watched.batch().await?), format!("{first:?}"));
    assert!(watched.chaos.injected().duplicated > 0);
    watched.end().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_delay_makes_events_late_and_keeps_their_order() -> Result<()> {
    let mut watched = Watched::by(1, Rates::none().delays(1.0, LATE)).await?;
    let (mut longest, mut before) = (Duration::ZERO, None);
    for n in 1..=16 {
        watched.write(n).await?;
        let written = Instant::now();
        let (_, position) = watched.batch().await?;
        longest = longest.max(written.elapsed());
        assert_ne!(before.replace(position.clone()), Some(position));
    }
    assert!(longest > LATE / 4 && longest <= LATE + Duration::from_millis(10), "{longest:?}");
    assert!(watched.chaos.injected().delayed >= 16);
    watched.end().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_says_so_and_its_records_are_gone() -> Result<()> {
    let chaos = Chaos::around(Arc::new(Cluster::new().connect()), 1, Rates::none().sessions(1.0));
    let session = chaos.open(&SessionRequest::default()).await?;
    assert_eq!(session.renew().await.err().map(|error| error.kind()), Some(ErrorKind::SessionLost));
    assert_eq!(session.lost().await.kind(), ErrorKind::SessionLost);
    assert_eq!(chaos.injected().lost_sessions, 1);

    // The core puts back what went with the session.
    chaos.calm(true);
    let owner = handle(chaos.clone()).await?;
    let record = owner.register(Item::at(["pool"])).await?;
    chaos.calm(false);
    let lost_again = async {
        while chaos.injected().lost_sessions < 2 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3600), lost_again).await.expect("a session that is lost a second time");
    chaos.calm(true);
    tokio::time::sleep(chaos.bounds().recovery * 2).await;
    assert_eq!(owner.list::<Item>(Query::all()).await?.len(), 1);
    drop(record);
    assert!(owner.shutdown(Duration::from_secs(5)).await.is_clean());
    Ok(())
}

/// What befell calls and events that came in the same order, and what was counted of it.
async fn story(seed: u64) -> Result<(Vec<String>, Injected)> {
    let rates = Rates::none().calls(0.2, 0.2).streams(0.02, 0.2, 0.2).delays(0.3, LATE);
    let mut watched = Watched::by(seed, rates).await?;
    let mut story = Vec::new();
    'story: for n in 1..=32 {
        let listed = watched.chaos.list(&Scope::all()).await;
        story.push(listed.err().map_or_else(|| "listed".to_owned(), |error| error.to_string()));
        watched.write(n).await?;
        let began = Instant::now();
        while let Ok(event) = tokio::time::timeout(LATE * 4, watched.next()).await {
            let what = match event {
                Some(Ok(WatchEvent::Batch { .. })) => "batch",
                Some(Ok(WatchEvent::Interrupted(_))) => "interrupted",
                Some(Ok(WatchEvent::Recovered)) => "recovered",
                Some(Ok(_)) => "another",
                Some(Err(_)) => "error",
                None => "end",
            };
            story.push(format!("{what} after {} ms", began.elapsed().as_millis()));
            if what == "end" {
                break 'story;
            }
        }
    }
    let injected = watched.chaos.injected();
    watched.end().await;
    Ok((story, injected))
}

#[tokio::test(start_paused = true)]
async fn equal_seeds_do_equal_harm() -> Result<()> {
    let (one, again, other) = (story(7).await?, story(7).await?, story(8).await?);
    assert_eq!(one, again);
    assert_ne!(one, other);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn latency_takes_as_long_as_it_says_and_declares_it() -> Result<()> {
    let bare: Arc<dyn Backend> = Arc::new(Cluster::new().connect());
    let took = async |by| {
        let latency = Latency::around(Arc::clone(&bare), 1, by);
        let began = Instant::now();
        latency.list(&Scope::all()).await?;
        // There and back.
        assert!(latency.bounds().propagation >= bare.bounds().propagation + by.longest());
        Result::Ok(began.elapsed())
    };
    let most = LATE + Duration::from_millis(10);
    assert!((LATE * 2..most * 2).contains(&took(Distribution::Constant(LATE)).await?));
    assert!((LATE..most * 2).contains(&took(Distribution::Uniform(LATE / 2, LATE)).await?));
    let tail = Distribution::Tail(LATE / 4, LATE);
    let (one, again) = (took(tail).await?, took(tail).await?);
    assert!(one > Duration::ZERO && one < most * 2, "{one:?}");
    assert_eq!(one, again, "equal seeds take equally long");
    Ok(())
}
