//! Container mode: an instance in each container, ready as its container is.

use std::time::Duration;

use discovery_core::{Environment, ErrorKind, Query};
use discovery_k8s::{DISCOVERY_LABEL, MODE_VARIABLE};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::support::cluster::{Made, Space, discovery};
use crate::{Item, item, listed, shows, space};

/// A pod of two containers, neither of them ready.
async fn pod(space: &Space) -> Made {
    let pod = json!({
        "metadata": { "name": "one", "labels": { DISCOVERY_LABEL: "true" } },
        "spec": {
            "containers": [{ "name": "main", "image": "none" }, { "name": "engine-1", "image": "none" }],
            "automountServiceAccountToken": false,
        },
    });
    let pod = serde_json::from_value(pod).expect("a pod");
    let made = space.pods().create(&PostParams::default(), &pod).await.unwrap();
    Made { name: "one".to_owned(), uid: made.metadata.uid.unwrap() }
}

/// Says what the kubelet would of both.
async fn report(space: &Space, main: bool, engine: bool) {
    let container = |name: &str, ready: bool| json!({ "name": name, "image": "none", "imageID": "", "restartCount": 0, "ready": ready, "started": true });
    let status = json!({ "status": {
        "phase": "Running",
        "containerStatuses": [container("main", main), container("engine-1", engine)],
    } });
    space.pods().patch_status("one", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

fn environment(space: &Space, pod: &Made, container: &str) -> Environment {
    space.environment(pod).with(MODE_VARIABLE, "container").with("CONTAINER_NAME", container)
}

#[tokio::test]
async fn each_container_is_shown_while_it_is_ready() {
    let space = space().await;
    let pod = pod(&space).await;
    let main = discovery(environment(&space, &pod, "main")).await.unwrap();
    let engine = discovery(environment(&space, &pod, "engine-1")).await.unwrap();
    let view = main.view::<Item>(Query::all()).await.unwrap();
    let (x, y) = tokio::join!(main.register(item("x", 1)), engine.register(item("y", 2)));
    let (x, y) = (x.unwrap(), y.unwrap());
    assert_ne!(x.instance(), y.instance());
    for (name, controlled) in [("one", true), ("one-engine-1", false)] {
        let stored = space.resource(name).await.unwrap().unwrap();
        let owner = &stored.metadata.owner_references.unwrap()[0];
        assert_eq!((&owner.uid, owner.controller), (&pod.uid, Some(controlled)), "{name}");
    }
    for (ready, shown) in [((true, false), &[1][..]), ((true, true), &[1, 2]), ((false, true), &[2])] {
        report(&space, ready.0, ready.1).await;
        shows(&view, shown).await;
        assert_eq!(listed(&engine).await, shown);
    }
    let again = discovery(environment(&space, &pod, "engine-1")).await.unwrap();
    assert_eq!(again.register(item("z", 3)).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(engine.shutdown(Duration::from_secs(20)).await.is_clean());
    shows(&view, &[]).await;
    assert!(space.resource("one-engine-1").await.unwrap().is_none(), "records are left behind");
    assert!(space.resource("one").await.unwrap().is_some(), "the other container's went too");
    main.shutdown(Duration::from_secs(20)).await;
}
