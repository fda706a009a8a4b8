use super::*;

pub(crate) const LONG: Duration = Duration::from_secs(10);

pub(crate) async fn handle_on(backend: &MemoryBackend) -> Discovery {
    let builder = Discovery::builder().with_backend(Arc::new(backend.clone()));
    builder.executor(ExecutorKind::Current).build().await.unwrap()
}

/// An attempt of unknown effect, then a definite refusal.
#[tokio::test(start_paused = true)]
async fn an_unknown_effect_is_told_and_compensated() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let _other = handle.register(worker("other", 1)).await.unwrap();
    let mut attempt = 0;
    backend.on_publish(move |_| {
        attempt += 1;
        match attempt {
            1 => Some((true, Error::new(ErrorKind::Unavailable, "answer lost").with_effect(Effect::Unknown))),
            2 => Some((false, Error::new(ErrorKind::PermissionDenied, "no"))),
            _ => None,
        }
    });
    let error = handle.register(worker("a", 1)).await.unwrap_err();
    let left = cluster.record_count();
    assert!(
        error.effect() == Effect::Unknown || left == 1,
        "effect {:?}, kind {:?}, and the record is stored",
        error.effect(),
        error.kind()
    );
}

/// Withdrawn while the put is in flight: the record may appear for a moment.
#[tokio::test(start_paused = true)]
async fn withdrawn_while_in_flight_has_an_unknown_effect() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let handle = handle_on(&backend).await;
    let watcher = Scripted::new(&cluster).handle().await;
    let view = watcher.view::<Worker>(Query::all()).await.unwrap();
    let mut changes = view.changes();
    changes.next().await;
    handle.instance_id().await.unwrap();
    backend.link().delay_writes(ms(300));
    let register = {
        let handle = handle.clone();
        tokio::spawn(async move { handle.register(worker("a", 1)).await.map(drop) })
    };
    tokio::time::sleep(ms(50)).await;
    let shutdown = {
        let handle = handle.clone();
        tokio::spawn(async move { handle.shutdown(LONG).await })
    };
    let error = register.await.unwrap().unwrap_err();
    let added = tokio::time::timeout(Duration::from_secs(2), changes.next()).await;
    shutdown.await.unwrap();
    assert!(added.is_err() || error.effect() == Effect::Unknown, "{error:?} and then {added:?}");
}

/// One key, whoever registers it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Seat {
    holder: u32,
}
impl Record for Seat {
    const KIND: &'static str = "seat";
    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, ["one"])
    }
    fn instance(&self) -> Option<InstanceId> {
        Some(InstanceId(1))
    }
}

/// Stored with its answer lost, and then another owner's after all: it may have been seen.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_lost_again_has_an_unknown_effect() {
    let cluster = Cluster::new();
    let (mine, theirs) = (cluster.connect(), cluster.connect());
    let (me, they) = (handle_on(&mine).await, handle_on(&theirs).await);
    let seat = they.register(Seat { holder: 1 }).await.unwrap();
    let key = seat.key().clone();
    me.instance_id().await.unwrap();
    seat.deregister().await.unwrap();
    theirs.link().cut();
    mine.link().drop_acks();
    let register = tokio::spawn(async move { me.register(Seat { holder: 2 }).await.map(drop) });
    cluster.wait_until(|cluster| cluster.owner_of(&key) == Some(mine.owner())).await;
    // As after restoring a backup: the one before holds it again.
    cluster.roll_back(2);
    let error = register.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Conflict, Effect::Unknown));
}

/// A put that is under way when the record is withdrawn is no proof that it is gone.
#[tokio::test(start_paused = true)]
async fn a_put_in_flight_does_not_answer_the_withdrawal_after_it() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let handle = handle_on(&backend).await;
    let mine = Arc::new(handle.register(worker("a", 1)).await.unwrap());
    backend.link().delay_writes(ms(300));
    let update = {
        let mine = Arc::clone(&mine);
        tokio::spawn(async move { mine.update(worker("a", 2)).await.map(drop) })
    };
    tokio::time::sleep(ms(50)).await;
    mine.deregister().await.unwrap();
    assert_eq!(cluster.record_count(), 0, "withdrawn, and still stored");
    let error = update.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Closed, Effect::Unknown));
}

/// What is registered anew answers a withdrawal that it follows: the key holds what came after.
#[tokio::test(start_paused = true)]
async fn a_put_after_it_answers_a_withdrawal() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let handle = handle_on(&backend).await;
    let mine = handle.register(worker("a", 1)).await.unwrap();
    backend.link().cut();
    let withdrawal = tokio::spawn(async move { mine.deregister().await });
    tokio::time::sleep(ms(20)).await;
    let again = {
        let handle = handle.clone();
        tokio::spawn(async move { handle.register(worker("a", 2)).await })
    };
    tokio::time::sleep(ms(20)).await;
    backend.link().heal();
    let again = again.await.unwrap().unwrap();
    withdrawal.await.unwrap().unwrap();
    assert!(again.state().is_registered());
    assert_eq!(cluster.record_count(), 1);
}

/// Replacing a guard: the second registration is pending while the first guard is dropped.
#[tokio::test(start_paused = true)]
async fn dropping_the_old_guard_leaves_a_pending_registration_alone() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let handle = handle_on(&backend).await;
    let old = handle.register(worker("a", 1)).await.unwrap();
    backend.link().delay_writes(ms(300));
    let new = {
        let handle = handle.clone();
        tokio::spawn(async move { handle.register(worker("a", 2)).await })
    };
    tokio::time::sleep(ms(50)).await;
    drop(old);
    let new = new.await.unwrap();
    assert!(new.is_ok(), "{:?}", new.err());
    tokio::time::sleep(LONG).await;
    assert_eq!(cluster.record_count(), 1);
}

/// A put-back is tried for as long as it takes, also when somebody happens to wait for it.
#[tokio::test(start_paused = true)]
async fn a_second_register_does_not_make_a_put_back_give_up() {
    for second in [false, true] {
        let cluster = Cluster::new();
        let backend = Scripted::new(&cluster);
        let handle = backend.handle().await;
        let mine = handle.register(worker("a", 1)).await.unwrap();
        backend.on_publish(|_| Some((false, Error::new(ErrorKind::PermissionDenied, "for a while"))));
        cluster.delete(mine.key());
        mine.wait_for(|state| !state.is_registered()).await;
        if second {
            let _ = handle.register(worker("a", 1)).await.unwrap_err();
        }
        tokio::time::sleep(LONG).await;
        backend.clear_publish();
        tokio::time::sleep(LONG).await;
        assert!(mine.state().is_registered(), "second call: {second}: {:?}", mine.state());
    }
}

/// One key of the batch is registered already, with another value.
#[tokio::test(start_paused = true)]
async fn a_batch_with_a_known_key_is_one_write() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let _mine = handle.register(worker("a", 1)).await.unwrap();
    backend.hooks.batches.lock().unwrap().clear();
    let _all = handle.register_all(vec![worker("a", 2), worker("b", 2)]).await.unwrap();
    let batches = backend.hooks.batches.lock().unwrap().clone();
    assert_eq!(batches.len(), 1, "{batches:?}");
}

/// Deregistered and registered before the delete went out; the put is refused.
#[tokio::test(start_paused = true)]
async fn a_refused_put_leaves_the_delete_before_it_standing() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let mine = handle.register(worker("a", 1)).await.unwrap();
    let mut first = true;
    backend.on_publish(move |batch| {
        let put = batch.writes.iter().any(|write| matches!(write, Write::Put { .. }));
        (std::mem::take(&mut first) || put).then(|| {
            if put {
                (false, Error::new(ErrorKind::PermissionDenied, "no"))
            } else {
                (false, Error::new(ErrorKind::Unavailable, "later"))
            }
        })
    });
    let deregister = mine.deregister();
    let register = async {
        tokio::time::sleep(ms(5)).await;
        handle.register(worker("a", 2)).await
    };
    let (deregistered, registered) = tokio::join!(deregister, register);
    assert!(registered.is_err());
    assert!(
        deregistered.is_ok(),
        "deregister answers another call's refusal, {} stored: {deregistered:?}",
        cluster.record_count()
    );
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Leader {
    pub name: String,
    pub term: u32,
}
impl Record for Leader {
    const KIND: &'static str = "leader";
    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, [&self.name])
    }
    fn neighbours(&self) -> Option<Query> {
        Some(Query::all())
    }
    fn check_beside(&self, other: &Self) -> Result<()> {
        if other.term == self.term { Err(Error::new(ErrorKind::Conflict, "same term")) } else { Ok(()) }
    }
}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Fixed {
    name: String,
    term: u32,
}
impl Record for Fixed {
    const KIND: &'static str = "fixed";
    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, [&self.name])
    }
    fn neighbours(&self) -> Option<Query> {
        Some(Query::all())
    }
    fn check_update(&self, next: &Self) -> Result<()> {
        if self == next { Ok(()) } else { Err(Error::new(ErrorKind::Refused, "for good")) }
    }
}
pub(crate) fn leader(name: &str, term: u32) -> Leader {
    Leader { name: name.into(), term }
}

/// A repeat whose neighbours cannot be read takes nothing away.
#[tokio::test(start_paused = true)]
async fn a_failed_repeat_leaves_the_record_of_the_first_guard() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let first = handle.register(leader("a", 1)).await.unwrap();
    // The list before passes, the list after fails: the store hiccups between them.
    let hooks = Arc::clone(&backend.hooks);
    backend.on_publish(move |_| {
        *hooks.list_fails.lock().unwrap() = Some(Error::new(ErrorKind::Unavailable, "hiccup"));
        None
    });
    let again = handle.register(leader("a", 2)).await;
    assert_eq!(again.as_ref().unwrap_err().kind(), ErrorKind::Timeout, "tried until the operation time-out");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(first.state().is_registered(), "{:?}, {} records", first.state(), cluster.record_count());
}

/// "Temporary failures are tried again until the operation time-out."
#[tokio::test(start_paused = true)]
async fn a_temporary_failure_of_the_neighbour_check_is_retried() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    *backend.hooks.list_fails.lock().unwrap() = Some(Error::new(ErrorKind::Unavailable, "hiccup"));
    let heal = async {
        tokio::time::sleep(ms(100)).await;
        *backend.hooks.list_fails.lock().unwrap() = None;
    };
    let (registered, ()) = tokio::join!(handle.register(leader("a", 1)), heal);
    assert!(registered.is_ok(), "{:?}", registered.err());
}

#[tokio::test(start_paused = true)]
async fn an_update_checks_its_neighbours() {
    let cluster = Cluster::new();
    let handle = Scripted::new(&cluster).handle().await;
    let _a = handle.register(leader("a", 1)).await.unwrap();
    let b = handle.register(leader("b", 2)).await.unwrap();
    assert!(b.update(leader("b", 1)).await.is_err(), "two of term 1");
}

/// The rules are asked about what is wanted at the moment that decides.
#[tokio::test(start_paused = true)]
async fn of_concurrent_registers_of_a_fixed_kind_one_is_refused() {
    let cluster = Cluster::new();
    let handle = Scripted::new(&cluster).handle().await;
    handle.instance_id().await.unwrap();
    let fixed = |term| Fixed { name: "a".into(), term };
    let (one, two) = tokio::join!(handle.register(fixed(1)), handle.register(fixed(2)));
    assert!(one.is_err() || two.is_err(), "both Ok; stored {:?}", cluster.records()[0].value);
}

/// The value of the guard after two concurrent updates.
#[tokio::test(start_paused = true)]
async fn concurrent_updates_leave_the_newest_value() {
    let cluster = Cluster::new();
    let handle = Scripted::new(&cluster).handle().await;
    let mine = handle.register(worker("a", 1)).await.unwrap();
    let mut older = Box::pin(mine.update(worker("a", 2)));
    assert!(futures_util::poll!(&mut older).is_pending());
    let (newer, older) = futures_util::join!(mine.update(worker("a", 3)), older);
    newer.unwrap();
    older.unwrap();
    let stored = String::from_utf8(cluster.records()[0].value.to_vec()).unwrap();
    assert!(
        stored.contains(&format!(":{}", mine.value().load)),
        "the guard says {:?}, stored is {stored}",
        mine.value()
    );
}

/// Whoever sets the state never waits for a user's closure.
#[test]
fn a_closure_that_blocks_does_not_stop_renewals() {
    let cluster = Cluster::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let backend = cluster.connect_with_ttl(ms(300));
        let owner = Discovery::builder().with_backend(Arc::new(backend)).build().await.unwrap();
        let mine = Arc::new(owner.register(worker("a", 1)).await.unwrap());
        let other = owner.register(worker("b", 1)).await.unwrap();
        let waiting = Arc::clone(&mine);
        let (entered, inside) = std::sync::mpsc::channel();
        let blocked = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(waiting.wait_for(|_| {
                entered.send(()).ok();
                std::thread::sleep(ms(3000));
                true
            }));
        });
        inside.recv().unwrap();
        // Any write of the claim notes its state.
        let _ = tokio::time::timeout(ms(50), mine.update(worker("a", 2))).await;
        let before = cluster.revision();
        std::thread::sleep(ms(1500));
        let records = cluster.record_count();
        blocked.join().unwrap();
        assert_eq!(records, 2, "renewals stopped: {:?}, revision {before} -> {}", other.state(), cluster.revision());
    });
}

/// Each key has delays of its own.
#[tokio::test(start_paused = true)]
async fn one_bad_record_delays_no_other_write() {
    let mut worst = Duration::ZERO;
    for offset in 0..10 {
        let cluster = Cluster::new();
        let backend = Scripted::new(&cluster);
        let handle = backend.handle().await;
        handle.instance_id().await.unwrap();
        backend.on_publish(|batch| {
            let bad = batch.writes.iter().any(|w| w.key().path().as_str().contains("bad"));
            bad.then(|| (false, Error::new(ErrorKind::Unavailable, "only this one")))
        });
        let bad = {
            let handle = handle.clone();
            tokio::spawn(async move { handle.register(worker("bad", 1)).await.map(drop) })
        };
        tokio::time::sleep(Duration::from_secs(5) + ms(37 * offset)).await;
        backend.clear_publish();
        let start = tokio::time::Instant::now();
        let _good = handle.register(worker("good", 1)).await.unwrap();
        worst = worst.max(start.elapsed());
        bad.abort();
    }
    assert!(worst < ms(50), "{worst:?} for a write that nothing is wrong with");
}

/// A store that takes every session away after its first write.
#[tokio::test(start_paused = true)]
async fn sessions_that_are_taken_away_at_once_are_opened_less_and_less_often() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    *backend.hooks.lose_at_once.lock().unwrap() = true;
    let handle = backend.handle().await;
    let _mine = handle.register(worker("a", 1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let opens = backend.hooks.opens.load(Ordering::SeqCst);
    assert!(opens < 300, "{opens} sessions in a minute, the cap is one in 500 ms");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_close_is_reported() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let _mine = handle.register(worker("a", 1)).await.unwrap();
    *backend.hooks.close_hangs.lock().unwrap() = true;
    let report = handle.shutdown(Duration::from_secs(2)).await;
    assert!(!report.is_clean() || cluster.session_count() == 0, "clean, and {} session left", cluster.session_count());
}

/// Two callers of one record, the first one cancelled in the instant in which both are answered.
#[tokio::test(start_paused = true)]
async fn a_cancelled_caller_leaves_the_record_of_the_other() {
    let mut failures = Vec::new();
    for yields in 0..40 {
        let failed = tokio::spawn(async move {
            let cluster = Cluster::new();
            let backend = Scripted::new(&cluster);
            let handle = backend.handle().await;
            handle.instance_id().await.unwrap();
            backend.inner.link().delay_writes(ms(10));
            let start = tokio::time::Instant::now();
            let mut first = Box::pin(handle.register(worker("a", 1)));
            let _ = futures_util::poll!(&mut first);
            let second = {
                let handle = handle.clone();
                tokio::spawn(async move { handle.register(worker("a", 1)).await })
            };
            tokio::time::sleep_until(start + ms(10 + yields % 3)).await;
            for _ in 0..yields / 3 {
                let mut waited = false;
                std::future::poll_fn(|context| {
                    if std::mem::replace(&mut waited, true) {
                        return std::task::Poll::Ready(());
                    }
                    context.waker().wake_by_ref();
                    std::task::Poll::Pending
                })
                .await;
            }
            drop(first);
            second.await.unwrap().err().map(|error| error.to_string())
        })
        .await
        .unwrap();
        failures.extend(failed.map(|error| (yields, error)));
    }
    assert!(failures.is_empty(), "{failures:?}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_right_after_an_outage_withdraws() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let handle = handle_on(&backend).await;
    let mine = handle.register(worker("a", 1)).await.unwrap();
    backend.link().cut();
    tokio::time::sleep(Duration::from_secs(30)).await;
    backend.link().heal();
    let report = handle.shutdown(ms(100)).await;
    assert!(report.is_clean(), "{report:?} {:?}", mine.state());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_no_session_that_nobody_needs() {
    let backend = Scripted::new(&Cluster::new());
    *backend.hooks.open_hangs.lock().unwrap() = true;
    let handle = backend.handle().await;
    tokio::time::timeout(ms(100), handle.instance_id()).await.unwrap_err();
    let (asked, waiting) = (handle.clone(), Instant::now());
    // Neither by one who goes on waiting, nor by a record that was never sent.
    let waiter = tokio::spawn(async move { asked.instance_id().await.map(drop) });
    let _ = tokio::time::timeout(ms(100), handle.register(worker("a", 1))).await.map(drop);
    assert_eq!(waiting.elapsed(), ms(100));
    let report = handle.shutdown(Duration::from_secs(5)).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(waiting.elapsed(), ms(100), "at once");
    assert_eq!(waiter.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_session_is_not_called_registered() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let mine = handle.register(worker("a", 1)).await.unwrap();
    backend.on_publish(|_| panic!("a backend's bug"));
    let _ = tokio::time::timeout(ms(500), mine.update(worker("a", 2))).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(cluster.record_count() == 1 || !mine.state().is_registered(), "no record, and {:?}", mine.state());
}
#[tokio::test(start_paused = true)]
async fn a_shutdown_may_have_all_the_time() {
    let cluster = Cluster::new();
    let handle = Scripted::new(&cluster).handle().await;
    handle.shutdown(Duration::MAX).await;
}

/// A store that holds an owner's records in one object writes all that is wanted, whatever the batch is.
#[tokio::test(start_paused = true)]
async fn what_was_refused_is_wanted_no_more() {
    let scripted = Scripted::new(&Cluster::new());
    let handle = scripted.handle().await;
    let held = handle.register(worker("a", 1)).await.unwrap();
    let key = held.key().clone();
    scripted.on_publish(|_| Some((false, Error::new(ErrorKind::PermissionDenied, "no"))));
    assert!(held.deregister().await.is_err());
    *scripted.hooks.publish_delay.lock().unwrap() = ms(100);
    let refused = async {
        assert_eq!(handle.register(worker("a", 2)).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    };
    let allowed = async {
        tokio::time::sleep(ms(50)).await;
        scripted.clear_publish();
        let before = scripted.hooks.desired.lock().unwrap().len();
        // A transaction comes before whatever else is to be written.
        let _other = handle.register_all(vec![worker("b", 1)]).await.unwrap();
        scripted.hooks.desired.lock().unwrap().split_off(before)
    };
    let (_, wanted) = tokio::join!(refused, allowed);
    assert!(!wanted.is_empty() && wanted.iter().all(|wanted| !wanted.contains_key(&key)), "{wanted:?}");
}

#[tokio::test(start_paused = true)]
async fn what_kept_a_write_from_being_done_in_time_is_told() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let full = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_full = Arc::clone(&full);
    backend.on_publish(move |_| {
        is_full.load(Ordering::SeqCst).then(|| (false, Error::new(ErrorKind::Unavailable, "no inodes are left")))
    });
    let error = handle.register(worker("a", 1)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && error.to_string().contains("no inodes are left"), "{error}");
    // What is over is nobody's cause.
    full.store(false, Ordering::SeqCst);
    let _held = handle.register(worker("a", 1)).await.unwrap();
    *backend.hooks.list_fails.lock().unwrap() = Some(Error::new(ErrorKind::Unavailable, "away"));
    let error = handle.list::<Worker>(Query::all()).await.unwrap_err();
    assert!(!error.to_string().contains("inodes"), "{error}");
}
