//! What the suite's faults do to a control plane: a history is judged by what they say.

#[path = "support/client.rs"]
mod client;
#[path = "conformance/mod.rs"]
mod worlds;

use bytes::Bytes;
use discovery_conformance::{Fault, Hook, World};
use discovery_core::{ErrorKind, InstanceId, Key, Path, Result};
use discovery_deploy::Mode;
use k8s_openapi::api::core::v1::Pod;
use worlds::{OnKubernetes, Place};

/// A world whose control plane serves no other.
async fn place() -> Result<Place> {
    let [factory] = OnKubernetes::in_modes([Mode::Pod]);
    factory.place(&[Hook::Outage]).await
}

fn pid(place: &Place) -> Result<Option<u32>> {
    Ok(place.plane()?.api().pid())
}

/// What the pod's own object says of it.
async fn is_ready(place: &Place, pod: &str) -> Result<bool> {
    let pod = place.namespace.all::<Pod>().get(pod).await.map_err(|error| client::failed("the pod", error))?;
    let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
    Ok(conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

/// Else each checkpoint would have every view opened anew before it compares them, and so mend what they have missed.
#[tokio::test]
async fn no_server_that_runs_is_ended_to_end_an_outage() -> Result<()> {
    let place = place().await?;
    let before = pid(&place)?;
    place.inject(Fault::Restore).await?;
    assert_eq!(pid(&place)?, before, "nothing was down");
    place.inject(Fault::Outage).await?;
    assert_eq!(pid(&place)?, None);
    place.inject(Fault::Restore).await?;
    assert!(pid(&place)?.is_some(), "it serves again");
    Ok(())
}

/// An outage lasts until it is ended, whatever else strikes meanwhile: a view that said it was live would be told wrong.
#[tokio::test]
async fn no_server_that_is_down_is_started_to_compact_it() -> Result<()> {
    let place = place().await?;
    place.inject(Fault::Outage).await?;
    let compacted = place.inject(Fault::Compact).await;
    assert_eq!(compacted.map_err(|error| error.kind()), Err(ErrorKind::Unavailable));
    assert_eq!(pid(&place)?, None, "the outage goes on");
    place.inject(Fault::Restore).await?;
    place.inject(Fault::Compact).await
}

/// Whoever said that it would be ready again may say so after its process has died.
#[tokio::test]
async fn a_dead_pod_does_not_become_ready_again() -> Result<()> {
    let place = place().await?;
    place.inject(Fault::Ready(1, false)).await?;
    place.inject(Fault::Crash(1)).await?;
    place.inject(Fault::Ready(1, true)).await?;
    assert!(!is_ready(&place, "owner-1").await?);
    // Two that speak of one pod at a time do not wait for what the other one denies.
    let (ready, dead) = tokio::join!(place.inject(Fault::Ready(2, true)), place.inject(Fault::Crash(2)));
    ready.and(dead)?;
    assert!(!is_ready(&place, "owner-2").await?);
    Ok(())
}

/// What an outage keeps from being told is told after it: as a kubelet and an administrator do, who try again.
#[tokio::test]
async fn what_is_said_in_an_outage_holds_after_it() -> Result<()> {
    let place = place().await?;
    place.inject(Fault::Deny(1)).await?;
    // Again: nothing is left to be done, and that is no failure.
    place.inject(Fault::Deny(1)).await?;
    place.inject(Fault::Outage).await?;
    // Whoever is refused has to know it from then on.
    place.inject(Fault::Deny(2)).await.expect_err("nobody is refused now");
    let (not_ready, allowed, restored) =
        tokio::join!(place.inject(Fault::Ready(0, false)), place.inject(Fault::Allow(1)), place.inject(Fault::Restore));
    not_ready.and(allowed).and(restored)?;
    assert!(!is_ready(&place, "owner-0").await?);
    place.inject(Fault::Allow(1)).await
}

/// A control plane that is killed in between leaves a pod without the resource that is to hold the records of nobody here.
#[tokio::test]
async fn what_was_made_in_part_is_made() -> Result<()> {
    let place = place().await?;
    place.namespace.pod("stranger", None).await?;
    let key = Key::new(Path::new("item", ["a"])?, InstanceId(1));
    place.inject(Fault::Write(key, Bytes::from_static(b"{}"))).await
}
