//! The own resource where its neighbours cannot be listed, to see who else holds a key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use discovery_core::backend::{Desired, SessionRequest, Write, WriteBatch};
use discovery_core::{Effect, ErrorKind, InstanceId, Key, Path, Record, Result};
use futures_util::FutureExt;
use http::{Method, Response, StatusCode};
use kube::api::DeleteParams;
use kube::client::Body;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::gateway::Gateway;
use crate::support::cluster::{Space, backend, discovery, until};
use crate::{RECOVERY, space};

const CHOSEN: InstanceId = InstanceId(7);

/// A record under an id of its own choice.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Chosen {}

impl Record for Chosen {
    const KIND: &'static str = "item";

    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, ["chosen"])
    }

    fn instance(&self) -> Option<InstanceId> {
        Some(CHOSEN)
    }
}

/// Lists are refused, or for ever unanswered.
#[derive(Clone, Copy, PartialEq)]
enum Lists {
    Refused,
    Silent,
}

#[derive(Default)]
struct Kept {
    /// From when on.
    is_on: AtomicBool,
    met: AtomicUsize,
}

/// A way on which the resources cannot be listed.
async fn without_lists(space: &Space, lists: Lists) -> (Gateway, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let gateway = Gateway::start(space, {
        let kept = Arc::clone(&kept);
        move |request, answer| {
            let is_list = request.method() == Method::GET && request.uri().path().ends_with(discovery_k8s::PLURAL);
            if !is_list || !kept.is_on.load(Ordering::Relaxed) {
                return answer;
            }
            kept.met.fetch_add(1, Ordering::Relaxed);
            let status =
                json!({ "kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no" });
            let mut refusal = Response::new(Body::from(status.to_string().into_bytes()));
            *refusal.status_mut() = StatusCode::FORBIDDEN;
            async move {
                match lists {
                    Lists::Refused => refusal,
                    Lists::Silent => std::future::pending().await,
                }
            }
            .boxed()
        }
    })
    .await;
    (gateway, kept)
}

#[tokio::test]
async fn what_others_delete_is_put_back_though_nobody_can_look_for_who_else_holds_a_key() {
    let space = space().await;
    for (name, lists) in [("refused", Lists::Refused), ("silent", Lists::Silent)] {
        let pod = space.ready_pod(name).await.unwrap();
        let (gateway, kept) = without_lists(&space, lists).await;
        let owner = discovery(gateway.environment(&space, &pod)).await.unwrap();
        let _held = owner.register(Chosen {}).await.unwrap();
        kept.is_on.store(true, Ordering::Relaxed);
        until("it has looked again", || async { kept.met.load(Ordering::Relaxed) > 0 }).await;
        for _ in 0..2 {
            space.resources().delete(name, &DeleteParams::default()).await.unwrap();
            let began = Instant::now();
            until("the resource is back", || async { space.resource(name).await.unwrap().is_some() }).await;
            let took = began.elapsed();
            assert!(took <= RECOVERY + Duration::from_secs(2), "{name}: {took:?}");
        }
        let met = kept.met.load(Ordering::Relaxed);
        until("it looks again and again", || async { kept.met.load(Ordering::Relaxed) > met }).await;
        owner.shutdown(Duration::from_secs(20)).await;
    }
}

#[tokio::test]
async fn a_key_that_nobody_can_look_for_is_refused_alone() {
    let space = space().await;
    for (name, lists) in [("refused", Lists::Refused), ("silent", Lists::Silent)] {
        let pod = space.ready_pod(name).await.unwrap();
        let (gateway, kept) = without_lists(&space, lists).await;
        let backend = backend(gateway.environment(&space, &pod)).await.unwrap();
        let session = backend.open(&SessionRequest::new(None, None)).await.unwrap();
        let key = |place: &str, id| Key::new(Path::new("item", [place]).unwrap(), id);
        let own = |place: &str| key(place, session.id());
        let put = |key: Key| Write::Put { key, value: Bytes::from_static(b"{}") };
        let desired =
            |keys: &[Key]| -> Desired { keys.iter().map(|key| (key.clone(), Bytes::from_static(b"{}"))).collect() };
        let batch = |writes| WriteBatch { writes, atomic: false };
        let first = session.publish(&batch(vec![put(own("x"))]), &desired(&[own("x")])).await;
        assert!(first.iter().all(Result::is_ok), "{first:?}");
        kept.is_on.store(true, Ordering::Relaxed);

        let foreign = key("chosen", CHOSEN);
        let writes = vec![put(foreign.clone()), put(own("y")), Write::Delete { key: own("x") }];
        let results = session.publish(&batch(writes), &desired(&[foreign.clone(), own("y")])).await;
        let error = results[0].as_ref().unwrap_err();
        let kind = if lists == Lists::Refused { ErrorKind::PermissionDenied } else { ErrorKind::Timeout };
        assert_eq!((error.kind(), error.effect(), error.key()), (kind, Effect::None, Some(&foreign)), "{error}");
        assert!(results[1].is_ok() && results[2].is_ok(), "{results:?}");
        let stored = space.resource(name).await.unwrap().unwrap();
        let expected = json!({ format!("y/{}", session.id()): {} });
        assert_eq!(stored.data["spec"]["data"]["item"], expected);

        let all = WriteBatch { writes: vec![put(foreign.clone()), put(own("z"))], atomic: true };
        let results = session.publish(&all, &desired(&[foreign, own("y"), own("z")])).await;
        assert!(results.iter().all(|result| result.as_ref().is_err_and(|error| error.kind() == kind)), "{results:?}");
        session.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_session_that_opens_over_its_own_resource_keeps_a_key_that_nobody_can_look_for() {
    let space = space().await;
    let pod = space.ready_pod("one").await.unwrap();
    let (gateway, kept) = without_lists(&space, Lists::Refused).await;
    let backend = backend(gateway.environment(&space, &pod)).await.unwrap();
    let first = backend.open(&SessionRequest::new(None, None)).await.unwrap();
    let key = |place: &str, id| Key::new(Path::new("item", [place]).unwrap(), id);
    let keys = [key("own", first.id()), key("chosen", CHOSEN)];
    let value = Bytes::from_static(b"{}");
    let desired: Desired = keys.iter().map(|key| (key.clone(), value.clone())).collect();
    let writes = keys.iter().map(|key| Write::Put { key: key.clone(), value: value.clone() }).collect();
    let all = WriteBatch { writes, atomic: false };
    let results = first.publish(&all, &desired).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    kept.is_on.store(true, Ordering::Relaxed);

    let second = backend.open(&SessionRequest::new(None, None)).await.unwrap();
    let results = second.publish(&all, &desired).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let stored = space.resource("one").await.unwrap().unwrap();
    let expected = json!({ format!("own/{}", first.id()): {}, format!("chosen/{CHOSEN}"): {} });
    assert_eq!(stored.data["spec"]["data"]["item"], expected);
    assert!(second.verify_by().is_some(), "nobody looks any more for who else holds it");

    // What the process does not want any more goes.
    let own: Desired = [(keys[0].clone(), value)].into();
    let third = backend.open(&SessionRequest::new(None, None)).await.unwrap();
    let results = third.publish(&WriteBatch { writes: Vec::new(), atomic: false }, &own).await;
    assert!(results.is_empty());
    let stored = space.resource("one").await.unwrap().unwrap();
    assert_eq!(stored.data["spec"]["data"]["item"], json!({ format!("own/{}", first.id()): {} }));
    third.close().await.unwrap();
}
