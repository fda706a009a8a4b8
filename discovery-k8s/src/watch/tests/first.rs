//! First states that take long to read.

use super::*;

/// As a handle waits by default for a word of a watch that has told no state yet.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between one part of a state and the next: less than a request may take.
const STEP: Duration = Duration::from_secs(3);

/// A store of five objects that come one by one: each a page of its own, or all in one streamed list.
struct Slow {
    is_streamed: bool,
}

fn object(number: u64) -> Seen {
    Seen { name: Ref::new("ns", &number.to_string()), version: number, object: Object::Ready(Vec::new()) }
}

#[async_trait]
impl Source for Slow {
    async fn list(&self, part: Part, _: u32) -> std::result::Result<Page, Failure> {
        sleep(STEP).await;
        let number = match part {
            Part::First => 1,
            Part::Next(token) => token.parse().unwrap(),
            Part::Whole => panic!("no token expires here"),
        };
        let next = (number < 5).then(|| (number + 1).to_string());
        Ok(Page { objects: vec![object(number)], version: 9, next })
    }

    async fn watch(&self, start: Start) -> std::result::Result<Events, Failure> {
        match start {
            Start::After(_) => Ok(stream::pending().boxed()),
            Start::Everything if !self.is_streamed => Err(failure(Cause::NoStreaming)),
            Start::Everything => {
                let events = (1..=5).map(|number| Event::Put(object(number))).chain([listed(9)]);
                let slowly = stream::iter(events).then(|event| async {
                    sleep(STEP).await;
                    Ok(event)
                });
                Ok(slowly.chain(stream::pending()).boxed())
            }
        }
    }

    async fn version(&self) -> std::result::Result<u64, Failure> {
        Ok(9)
    }

    async fn is_absent(&self) -> bool {
        false
    }
}

#[async_trait]
impl Count for Slow {
    async fn census(&self, _: Part, _: u32) -> std::result::Result<(Census, Option<String>), Failure> {
        panic!("nobody raises a barrier here")
    }
}

/// Whoever waits for it hears that it is on its way, and gives up no watch that would begin all over.
#[tokio::test(start_paused = true)]
async fn a_first_state_that_takes_long_is_told_to_be_on_its_way() {
    for is_streamed in [false, true] {
        let quick = Telling::new([opened(stream::iter([Ok(listed(9))]).chain(stream::pending()).boxed())]);
        let leg = |side, source| Leg { side, namespace: None, source, is_dealt_out: false };
        let legs = [leg(Side::Records, quick as Arc<dyn Count>), leg(Side::Readiness, Arc::new(Slow { is_streamed }))];
        let mut events = open(&legs, &Barriers::new(), &Births::default(), &Scope::all(), None);
        let (began, mut starts) = (Instant::now(), 0);
        loop {
            let next = timeout(PATIENCE, events.next()).await;
            let next = next.unwrap_or_else(|_| panic!("nothing for {PATIENCE:?}, streamed: {is_streamed}"));
            match next.unwrap().unwrap() {
                WatchEvent::SnapshotStart { .. } => starts += 1,
                WatchEvent::SnapshotEnd(_) => break,
                event => panic!("nothing is known yet: {event:?}"),
            }
        }
        assert!(began.elapsed() > PATIENCE, "{:?}", began.elapsed());
        assert!(starts > 1);
    }
}
