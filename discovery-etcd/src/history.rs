//! Whether the store still has the history that a place was taken from.

use std::sync::Arc;

use etcd_client::{GetOptions, KeyValue};

use crate::fault::{Fault, is_compacted, is_future};
use crate::link::Wire;
use crate::names::Range;
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

/// What was found where a witness was.
pub(crate) enum Found {
    /// The first record, if there is one, and the store's revision.
    Record(Option<KeyValue>, i64),
    Compacted,
    Future,
}

/// Compares the store with `place`, where a watch of `range` stands. Everything that is compared was read from the leader's
/// state.
pub(crate) async fn compare(store: &Arc<Store>, range: &Range, place: &Place) -> Result<History, Fault> {
    let Some(witness) = &place.witness else {
        let now = store.now(range.start.clone()).await?;
        return Ok(if now.revision < place.revision { History::Other } else { History::Unproven });
    };
    // A watch knows that a record of its own range was still there. What became of another one it was not told: that one is
    // looked for where it was seen, and only then where it may have gone.
    let own = range.holds(&witness.stored);
    let places = if own { [Some(place.revision), None] } else { [Some(witness.modified), Some(place.revision)] };
    for (tried, revision) in places.into_iter().flatten().enumerate() {
        match find(store, witness, revision).await? {
            Found::Record(record, _) if is(witness, record.as_ref()) => {
                let known = place.held.filter(|_| own);
                return Ok(if is_held(store, range, revision, known).await? {
                    History::Continues
                } else {
                    History::Other
                });
            }
            Found::Record(..) if tried > 0 => return Ok(History::Unproven),
            Found::Record(..) | Found::Future => return Ok(History::Other),
            Found::Compacted => {}
        }
    }
    match find(store, witness, 0).await? {
        Found::Record(_, revision) if revision < place.revision => Ok(History::Other),
        Found::Record(record, _) if is(witness, record.as_ref()) => Ok(History::Compacted),
        _ => Ok(History::Unproven),
    }
}

/// Whether a range had as many keys at `revision` as a watch knew there. A store that went back to before the last of what the
/// watch was told, and has come further since, may still hold the witness.
async fn is_held(store: &Arc<Store>, range: &Range, revision: i64, known: Option<u64>) -> Result<bool, Fault> {
    let Some(known) = known else { return Ok(true) };
    let options = GetOptions::new().with_range(range.end.clone()).with_revision(revision).with_count_only();
    let count = |mut wire: Wire| {
        let (start, options) = (range.start.clone(), options.clone());
        async move {
            match wire.kv.get(start, Some(options)).await {
                Ok(answer) => Ok(Some(answer.count())),
                // Since the witness was found.
                Err(error) if is_compacted(&error) => Ok(None),
                Err(error) => Err(error),
            }
        }
    };
    let found = store.control.read(CALL, count).await?;
    Ok(found.is_none_or(|found| u64::try_from(found) == Ok(known)))
}

fn is(witness: &Witness, record: Option<&KeyValue>) -> bool {
    match record {
        Some(record) => Witness::of(record) == *witness,
        None => witness.is_of_nothing(),
    }
}

async fn find(store: &Arc<Store>, witness: &Witness, revision: i64) -> Result<Found, Fault> {
    let key = witness.stored.to_vec();
    let end = if witness.is_of_nothing() { store.names.everything().end } else { [&key[..], &[0]].concat() };
    first(store, Range { start: key, end }, revision).await
}

/// The first record of a range as it was at `revision`; 0 for now.
pub(crate) async fn first(store: &Arc<Store>, range: Range, revision: i64) -> Result<Found, Fault> {
    // With the value: etcd 3.7 leaves the lease out where keys alone are asked for.
    let options = GetOptions::new().with_range(range.end).with_limit(1).with_revision(revision);
    let get = |mut wire: Wire| {
        let (start, options) = (range.start.clone(), options.clone());
        async move {
            match wire.kv.get(start, Some(options)).await {
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
