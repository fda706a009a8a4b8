//! A server that takes no token, and does not say whether it is only starting: nobody may ask it without credentials.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use http::{Response, StatusCode};
use kube::client::Body;
use serde_json::json;

use crate::gateway::Gateway;
use crate::support::cluster::{discovery, until};
use crate::{item, listed, space};

#[tokio::test]
async fn a_server_that_may_be_starting_takes_no_session() {
    let space = space().await;
    let pod = space.ready_pod("one").await.unwrap();
    let (is_on, met) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let gateway = Gateway::start(&space, {
        let (is_on, met) = (Arc::clone(&is_on), Arc::clone(&met));
        move |_, answer| {
            if !is_on.load(Ordering::Relaxed) {
                return answer;
            }
            met.fetch_add(1, Ordering::Relaxed);
            let status = json!({ "kind": "Status", "status": "Failure", "code": 401, "message": "Unauthorized" });
            let mut refusal = Response::new(Body::from(status.to_string().into_bytes()));
            *refusal.status_mut() = StatusCode::UNAUTHORIZED;
            std::future::ready(refusal).boxed()
        }
    })
    .await;
    let owner = discovery(gateway.environment(&space, &pod)).await.unwrap();
    let held = owner.register(item("x", 1)).await.unwrap();
    is_on.store(true, Ordering::Relaxed);
    // Two looks at the resource, with a question whether the server is ready each.
    until("it has looked twice", || async {
        assert!(held.state().is_registered(), "{:?}", held.state());
        met.load(Ordering::Relaxed) >= 5
    })
    .await;
    is_on.store(false, Ordering::Relaxed);
    let _next = owner.register(item("y", 2)).await.unwrap();
    assert!(held.state().is_registered(), "{:?}", held.state());
    assert_eq!(listed(&owner).await, [1, 2]);
    owner.shutdown(Duration::from_secs(20)).await;
}
