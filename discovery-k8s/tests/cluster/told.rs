//! What is told of records that are lost (LIV 6): by their registrations, in the log, and by the counters.

use std::time::Duration;

use discovery_core::{Discovery, ErrorKind, ExecutorKind, Registration, RegistrationState};
use discovery_testbed::{CapturedLog, Network};
use kube::api::DeleteParams;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use crate::support::cluster::{backend, kubeconfig_of, testbed, until};
use crate::{Item, item, space};

/// Sessions that were lost, and records that were put back, since the last look.
fn counted(snapshotter: &Snapshotter) -> [u64; 2] {
    let counted = snapshotter.snapshot().into_vec();
    ["discovery_sessions_lost_total", "discovery_reregistrations_total"].map(|name| {
        let found = counted.iter().find(|(key, ..)| {
            key.key().name() == name && key.key().labels().any(|label| label.value() == discovery_k8s::NAME)
        });
        match found.map(|(.., value)| value) {
            Some(DebugValue::Counter(count)) => *count,
            other => panic!("{name}: {other:?}"),
        }
    })
}

async fn lost(one: &Registration<Item>) -> discovery_core::Error {
    match one.wait_for(|state| !state.is_registered()).await {
        RegistrationState::Lost(cause) => cause,
        other => panic!("{other:?}"),
    }
}

/// All of it on this thread, whose log and counters are the test's.
#[tokio::test]
async fn what_is_lost_and_put_back_is_told_by_state_log_and_counters() {
    let (log, recorder) = (CapturedLog::of_this_thread(tracing::Level::INFO), DebuggingRecorder::new());
    let snapshotter = recorder.snapshotter();
    let _counted = metrics::set_default_local_recorder(&recorder);
    let space = space().await;
    let pod = space.ready_pod("one").await.unwrap();
    let cluster = testbed().await.unwrap();
    let network = Network::to([cluster.kubeconfig().address().await.unwrap()]).unwrap();
    let kubeconfig = kubeconfig_of(cluster, &space, &pod).await.through(&network.proxies()[0]).unwrap();
    let environment = space.environment(&pod).with("KUBECONFIG", cluster.save(&kubeconfig).unwrap());
    let backend = backend(environment).await.unwrap();
    let owner = Discovery::builder().with_backend(backend).executor(ExecutorKind::Current).build().await.unwrap();
    let (x, y) = tokio::join!(owner.register(item("x", 1)), owner.register(item("y", 2)));
    let (x, y) = (x.unwrap(), y.unwrap());
    assert_eq!(counted(&snapshotter), [0, 0]);
    let said = log.taken();
    assert!(said.contains("session open") && !said.contains("WARN"), "{said}");

    // Others delete the resource.
    space.resources().delete("one", &DeleteParams::default()).await.unwrap();
    for one in [&x, &y] {
        let cause = lost(one).await;
        assert_eq!(cause.kind(), ErrorKind::Unavailable, "{cause}");
        assert!(cause.to_string().contains("deleted or overwritten by others"), "{cause}");
    }
    for one in [&x, &y] {
        one.wait_for(RegistrationState::is_registered).await;
    }
    assert!(space.resource("one").await.unwrap().is_some(), "said to be registered, and not stored");
    assert_eq!(counted(&snapshotter), [0, 2]);
    let said = log.taken();
    for line in ["WARN", "records were deleted or overwritten by others", "records put back records=2"] {
        assert!(said.contains(line), "{line}: {said}");
    }

    // Nobody answers: what the API server holds is discovered all the same, and who reads the log knows that nobody looks.
    network.change(|way| way.cut = true);
    until("it is told", || async { log.text().contains("records cannot be verified: trying again") }).await;
    assert!(x.state().is_registered() && y.state().is_registered(), "the cluster decides");
    network.change(|way| way.cut = false);
    until("its end is told", || async { log.text().contains("records can be verified again") }).await;
    let said = log.taken();
    assert_eq!(said.matches("records cannot be verified").count(), 1, "{said}");
    assert_eq!(counted(&snapshotter), [0, 0]);

    // Its pod is deleted, and its token worth nothing: nothing can be proven any more.
    space.delete_pod("one").await.unwrap();
    for one in [&x, &y] {
        let cause = lost(one).await;
        assert_eq!(cause.kind(), ErrorKind::SessionLost, "{cause}");
    }
    assert_eq!(counted(&snapshotter), [1, 0]);
    let said = log.taken();
    assert!(said.contains("session lost: its records are put back under a new one"), "{said}");
    let failed = owner.register(item("z", 3)).await.map(|one| one.state());
    assert!(failed.is_err() && !x.state().is_registered() && !y.state().is_registered(), "{failed:?}");
    assert!(log.taken().contains("no session: trying again"), "{said}");
    owner.shutdown(Duration::from_secs(1)).await;
}
