//! How often the store is asked, and whose turn it is.
use super::*;

/// The bound that the in-memory backend declares.
const R: Duration = Duration::from_secs(1);

/// Two callers that keep registering batches.
#[tokio::test(start_paused = true)]
async fn transactions_that_keep_coming_starve_no_single_write() {
    let backend = Scripted::new(&Cluster::new());
    let handle = backend.handle().await;
    handle.instance_id().await.unwrap();
    *backend.hooks.publish_delay.lock().unwrap() = ms(10);
    let mut callers = tokio::task::JoinSet::new();
    for caller in ["one", "two"] {
        let handle = handle.clone();
        callers.spawn(async move {
            let mut held = Vec::new();
            for load in 0.. {
                held = handle.register_all(vec![worker(caller, load)]).await.unwrap();
            }
            held
        });
    }
    tokio::time::sleep(ms(100)).await;
    let single = tokio::time::timeout(ms(100), handle.register(worker("single", 1))).await;
    assert!(single.is_ok(), "ten publishes, and it was in none of them");
}

/// LIV 6: whatever moment the connection goes silent at.
#[tokio::test(start_paused = true)]
async fn a_session_is_never_called_alive_beyond_its_time_to_live() {
    for ttl in (100..400).step_by(7).map(ms) {
        let backend = Cluster::new().connect_with_ttl(ttl);
        let handle = writing::handle_on(&backend).await;
        let sent = Instant::now();
        let mine = handle.register(worker("a", 1)).await.unwrap();
        backend.link().half_open();
        mine.wait_for(|state| !state.is_registered()).await;
        // One for the clock, which goes by milliseconds.
        assert!(sent.elapsed() <= ttl + ms(1), "{:?} with a time to live of {ttl:?}", sent.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_is_read_once_in_each_recovery_bound() {
    let backend = Scripted::new(&Cluster::new());
    let handle = backend.handle().await;
    let mine = handle.register(worker("a", 1)).await.unwrap();
    for load in 2..600 {
        tokio::time::sleep(ms(100)).await;
        mine.update(worker("a", load)).await.unwrap();
    }
    let verified = backend.hooks.verified.lock().unwrap().clone();
    let gaps: Vec<_> = verified.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((60..=63).contains(&verified.len()), "{} reads in a minute", verified.len());
    // Sooner than R by what a repair may take, and not all owners at the same moment.
    assert!(gaps.iter().all(|gap| (R * 95 / 100..=R * 99 / 100).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| gap != &gaps[0]), "{gaps:?}");
}

/// LIV 5.
#[tokio::test(start_paused = true)]
async fn a_deleted_record_is_back_within_the_recovery_bound() {
    let cluster = Cluster::new();
    let handle = Scripted::new(&cluster).handle().await;
    let mine = handle.register(worker("a", 1)).await.unwrap();
    for n in 0..100 {
        tokio::time::sleep(ms(37 * (n % 40))).await;
        cluster.delete(mine.key());
        let start = Instant::now();
        cluster.wait_until(|cluster| cluster.record_count() == 1).await;
        assert!(start.elapsed() <= R, "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_failed_is_tried_again_soon() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let mine = handle.register(worker("a", 1)).await.unwrap();
    *backend.hooks.verify_fails.lock().unwrap() = Some(Error::new(ErrorKind::Unavailable, "hiccup"));
    while backend.hooks.verified.lock().unwrap().is_empty() {
        tokio::time::sleep(ms(1)).await;
    }
    cluster.delete(mine.key());
    *backend.hooks.verify_fails.lock().unwrap() = None;
    let start = Instant::now();
    cluster.wait_until(|cluster| cluster.record_count() == 1).await;
    assert!(start.elapsed() <= ms(100), "{:?}", start.elapsed());
    // A store that goes on failing is asked less and less often.
    *backend.hooks.verify_fails.lock().unwrap() = Some(Error::new(ErrorKind::Unavailable, "down"));
    let before = backend.hooks.verified.lock().unwrap().len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let reads = backend.hooks.verified.lock().unwrap().len() - before;
    assert!((100..=260).contains(&reads), "{reads} reads in a minute, the longest pause is half a second");
}

/// A session that knows when something may be to be found, whenever the reads of each R come.
#[tokio::test(start_paused = true)]
async fn a_session_may_ask_to_be_verified_sooner() {
    for n in 0..20 {
        let backend = Scripted::new(&Cluster::new());
        let handle = backend.handle().await;
        handle.instance_id().await.unwrap();
        tokio::time::sleep(R * n / 20).await;
        let by = Instant::now() + R / 2;
        *backend.hooks.verify_by.lock().unwrap() = Some(by);
        let _mine = handle.register(worker("a", 1)).await.unwrap();
        tokio::time::sleep_until(by + ms(2)).await;
        let verified = backend.hooks.verified.lock().unwrap().clone();
        let last = verified.last().expect("a read");
        assert!((by..=by + ms(1)).contains(last), "{verified:?}, asked for by {by:?}");
        // A moment that is over asks for nothing.
        tokio::time::sleep(R / 2).await;
        assert_eq!(backend.hooks.verified.lock().unwrap().len(), verified.len());
    }
}
