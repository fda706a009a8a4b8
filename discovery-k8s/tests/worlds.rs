//! What the suite's faults do to a control plane: a history is judged by what they say.

#[path = "support/client.rs"]
mod client;
#[path = "conformance/mod.rs"]
mod worlds;

use discovery_conformance::{Fault, Hook, World};
use discovery_core::{ErrorKind, Result};
use discovery_deploy::Mode;
use worlds::{OnKubernetes, Place};

/// A world whose control plane serves no other.
async fn place() -> Result<Place> {
    let [factory] = OnKubernetes::in_modes([Mode::Pod]);
    factory.place(&[Hook::Outage]).await
}

fn pid(place: &Place) -> Result<Option<u32>> {
    Ok(place.plane()?.api().pid())
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
