//! What a refusal leaves behind, and what its error says of it.
use super::writing::{LONG, handle_on, leader};
use super::*;

/// One key, whoever registers it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Post {
    name: String,
    holder: u32,
}
impl Record for Post {
    const KIND: &'static str = "post";
    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, [&self.name])
    }
    fn instance(&self) -> Option<InstanceId> {
        Some(InstanceId(1))
    }
}
fn post(name: &str, holder: u32) -> Post {
    Post { name: name.into(), holder }
}

/// What is stored under the keys of a path.
fn stored(cluster: &Cluster, path: &str) -> Vec<String> {
    let records = cluster.records().into_iter().filter(|entry| entry.key.path().to_string() == path);
    records.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap()).collect()
}

/// A neighbour that the checks before a write do not see yet.
fn rival(cluster: &Cluster, term: u32) {
    let key = Key::new(Path::new("leader", ["rival"]).unwrap(), InstanceId(7));
    cluster.inject(&key, serde_json::to_vec(&leader("rival", term)).unwrap());
}

/// One of its keys is another owner's, and one was registered before with another value.
#[tokio::test(start_paused = true)]
async fn a_refused_batch_leaves_what_was_registered_before() {
    let cluster = Cluster::new();
    let (me, they) = (Scripted::new(&cluster).handle().await, handle_on(&cluster.connect()).await);
    let theirs = they.register(post("b", 1)).await.unwrap();
    let mine = me.register(post("a", 1)).await.unwrap();
    let before = cluster.revision();
    let error = me.register_all(vec![post("a", 2), post("b", 2)]).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Conflict, Effect::None));
    assert_eq!(error.key(), Some(theirs.key()));
    tokio::time::sleep(LONG).await;
    assert!(mine.state().is_registered(), "{:?}", mine.state());
    assert_eq!(cluster.revision(), before, "nothing was written: {:?}", cluster.records());
    mine.update(post("a", 3)).await.unwrap();
}

/// The same, where reading tells that the other key is taken.
#[tokio::test(start_paused = true)]
async fn a_batch_whose_key_is_taken_leaves_what_was_registered_before() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let (me, they) = (backend.handle().await, handle_on(&cluster.connect()).await);
    let _theirs = they.register(post("b", 1)).await.unwrap();
    let mine = me.register(post("a", 1)).await.unwrap();
    let mut first = true;
    backend.on_publish(move |_| {
        let unknown = || Error::new(ErrorKind::Unavailable, "answer lost").with_effect(Effect::Unknown);
        std::mem::take(&mut first).then(|| (false, unknown()))
    });
    let error = me.register_all(vec![post("a", 2), post("b", 2)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    tokio::time::sleep(LONG).await;
    assert!(mine.state().is_registered(), "{:?}", mine.state());
    assert!(stored(&cluster, "post/a")[0].contains(":1"), "{:?}", cluster.records());
}

/// A key that is withdrawn while its transaction is tried again is no part of it any more.
#[tokio::test(start_paused = true)]
async fn a_withdrawal_is_not_refused_with_a_batch() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let (me, they) = (backend.handle().await, handle_on(&cluster.connect()).await);
    let _theirs = they.register(post("b", 1)).await.unwrap();
    let mine = me.register(post("a", 1)).await.unwrap();
    let mut first = true;
    backend
        .on_publish(move |_| std::mem::take(&mut first).then(|| (false, Error::new(ErrorKind::Unavailable, "later"))));
    *backend.hooks.publish_delay.lock().unwrap() = ms(100);
    let all = tokio::spawn(async move { me.register_all(vec![post("a", 2), post("b", 2)]).await.map(drop) });
    tokio::time::sleep(ms(50)).await;
    let withdrawn = mine.deregister().await;
    assert!(withdrawn.is_ok(), "{withdrawn:?}");
    assert!(all.await.unwrap().is_err());
    assert!(stored(&cluster, "post/a").is_empty());
}

/// The check before passes, the one after finds a neighbour.
#[tokio::test(start_paused = true)]
async fn a_refused_register_over_a_held_record_goes_back_to_its_value() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let first = handle.register(leader("a", 1)).await.unwrap();
    let seen = cluster.clone();
    backend.on_publish(move |_| {
        rival(&seen, 2);
        None
    });
    let error = handle.register(leader("a", 2)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Conflict, Effect::None));
    assert!(stored(&cluster, "leader/a")[0].contains("\"term\":1"), "{:?}", cluster.records());
    assert!(first.state().is_registered());
}

/// Whose own check takes long: another one is acknowledged meanwhile.
#[tokio::test(start_paused = true)]
async fn a_refused_update_takes_back_no_later_one() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let mine = handle.register(leader("a", 1)).await.unwrap();
    let (seen, hooks) = (cluster.clone(), Arc::clone(&backend.hooks));
    let mut first = true;
    backend.on_publish(move |_| {
        if std::mem::take(&mut first) {
            rival(&seen, 2);
            *hooks.list_delay.lock().unwrap() = ms(1_000);
        }
        None
    });
    let later = async {
        tokio::time::sleep(ms(100)).await;
        *backend.hooks.list_delay.lock().unwrap() = Duration::ZERO;
        mine.update(leader("a", 3)).await
    };
    let (refused, later) = tokio::join!(mine.update(leader("a", 2)), later);
    later.unwrap();
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
    tokio::time::sleep(LONG).await;
    assert!(stored(&cluster, "leader/a")[0].contains("\"term\":3"), "{:?}", cluster.records());
}

#[tokio::test(start_paused = true)]
async fn a_step_back_that_is_not_confirmed_has_an_unknown_effect() {
    for held in [None, Some(false), Some(true)] {
        let cluster = Cluster::new();
        let backend = Scripted::new(&cluster);
        let handle = backend.handle().await;
        handle.instance_id().await.unwrap();
        let mine = match held {
            None => None,
            Some(_) => Some(handle.register(leader("a", 1)).await.unwrap()),
        };
        let seen = cluster.clone();
        let mut first = true;
        backend.on_publish(move |_| {
            rival(&seen, 2);
            (!std::mem::take(&mut first)).then(|| (false, Error::new(ErrorKind::PermissionDenied, "no")))
        });
        let refused = match (held, &mine) {
            (Some(true), Some(mine)) => mine.update(leader("a", 2)).await.map(drop),
            _ => handle.register(leader("a", 2)).await.map(drop),
        };
        let error = refused.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Conflict, Effect::Unknown), "{held:?}: {error}");
    }
}

/// The session is lost while a write is under way, and the next one may not write.
#[tokio::test(start_paused = true)]
async fn a_write_that_a_lost_session_cut_short_has_an_unknown_effect() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    handle.instance_id().await.unwrap();
    *backend.hooks.answers_lost.lock().unwrap() = true;
    let register = tokio::spawn(async move { handle.register(worker("a", 1)).await.map(drop) });
    cluster.wait_until(|cluster| cluster.record_count() == 1).await;
    backend.on_publish(|_| Some((false, Error::new(ErrorKind::PermissionDenied, "no"))));
    *backend.hooks.answers_lost.lock().unwrap() = false;
    backend.hooks.published.notify_one();
    let error = register.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::Unknown));
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_needs_no_withdrawal() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.builder().operation_timeout(ms(500)).build().await.unwrap();
    handle.instance_id().await.unwrap();
    backend.inner.link().cut();
    for _ in 0..2 {
        // At first there is a session under which every attempt fails, and later none.
        handle.register(worker("a", 1)).await.unwrap_err();
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    let opens = backend.hooks.opens.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(backend.hooks.opens.load(Ordering::SeqCst), opens, "nobody needs a session");
    let start = Instant::now();
    let report = handle.shutdown(Duration::from_secs(60)).await;
    assert!(report.not_withdrawn.is_empty() && start.elapsed() < ms(100), "{report:?} after {:?}", start.elapsed());
}

/// Withdrawn while its put is under way, which then has no effect.
#[tokio::test(start_paused = true)]
async fn a_put_without_effect_leaves_nothing_to_withdraw() {
    let backend = Scripted::new(&Cluster::new());
    let handle = backend.builder().operation_timeout(ms(50)).build().await.unwrap();
    handle.instance_id().await.unwrap();
    *backend.hooks.publish_delay.lock().unwrap() = ms(100);
    backend.on_publish(|_| Some((false, Error::new(ErrorKind::Unavailable, "not now"))));
    handle.register(worker("a", 1)).await.unwrap_err();
    tokio::time::sleep(LONG).await;
    let batches = backend.hooks.batches.lock().unwrap().clone();
    assert_eq!(batches.len(), 1, "{batches:?}");
}

/// Longer under its own id than under any other.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Grown;
impl Record for Grown {
    const KIND: &'static str = "grown";
    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, ["a"])
    }
    fn encode(&self, key: &Key) -> Result<bytes::Bytes> {
        let len = if key.instance() == InstanceId(5) { 2 << 20 } else { 1 };
        Ok(vec![b'1'; len].into())
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_names_no_key_that_nobody_asked_for() {
    let backend = Scripted::new(&Cluster::new());
    let handle = backend.builder().instance(InstanceId(5)).build().await.unwrap();
    let value = serde_json::Value::String("x".repeat(2 << 20));
    let draft = Draft { kind: "worker".into(), segments: vec!["a".into()], suffix: None, value };
    let error = handle.register_draft(draft).await.unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::TooLarge, None));
    assert!(error.to_string().contains("worker/a: ") && !error.to_string().contains("1fffff"), "{error}");
    let error = handle.register(Grown).await.unwrap_err();
    let key = Key::new(Path::new("grown", ["a"]).unwrap(), InstanceId(5));
    assert_eq!((error.kind(), error.key()), (ErrorKind::TooLarge, Some(&key)), "{error}");
}
