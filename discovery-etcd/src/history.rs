//! Whether the store still has the history that a place was taken from.

use std::sync::Arc;

use etcd_client::{GetOptions, KeyValue};

use crate::fault::{Fault, is_compacted, is_future};
use crate::link::Wire;
use crate::place::{Place, Witness};
use crate::store::{CALL, Store};

/// How the store relates to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum History {
    /// The same history, with everything since the place.
    Continues,
    /// The same history, of which what follows the place is no longer kept.
    Compacted,
    /// Nothing that was seen proves it either way.
    Unproven,
    /// Another history: the store lost data.
    Other,
}

/// What was found under the key of a witness.
enum Found {
    Record(Option<KeyValue>, i64),
    Compacted,
    Future,
}

/// Compares the store with `place`. Everything that is compared was read from the leader's state.
pub(crate) async fn compare(store: &Arc<Store>, place: &Place) -> Result<History, Fault> {
    let Some(witness) = &place.witness else {
        return Ok(if store.now().await?.revision < place.revision { History::Other } else { History::Unproven });
    };
    match find(store, witness, place.revision).await? {
        Found::Record(record, _) if is(witness, record.as_ref()) => Ok(History::Continues),
        Found::Record(..) | Found::Future => Ok(History::Other),
        Found::Compacted => match find(store, witness, 0).await? {
            Found::Record(_, revision) if revision < place.revision => Ok(History::Other),
            Found::Record(record, _) if is(witness, record.as_ref()) => Ok(History::Compacted),
            _ => Ok(History::Unproven),
        },
    }
}

fn is(witness: &Witness, record: Option<&KeyValue>) -> bool {
    record.is_some_and(|record| Witness::of(record) == *witness)
}

async fn find(store: &Arc<Store>, witness: &Witness, revision: i64) -> Result<Found, Fault> {
    // With the value: etcd 3.7 leaves the lease out where keys alone are asked for.
    let get = |mut wire: Wire| {
        let key = witness.stored.to_vec();
        async move {
            match wire.kv.get(key, Some(GetOptions::new().with_revision(revision))).await {
                Ok(mut answer) => {
                    let now = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
                    Ok(Found::Record(answer.take_kvs().into_iter().next(), now))
                }
                Err(error) if is_compacted(&error) => Ok(Found::Compacted),
                Err(error) if is_future(&error) => Ok(Found::Future),
                Err(error) => Err(error),
            }
        }
    };
    store.control.read(CALL, get).await
}
