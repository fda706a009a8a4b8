//! The change log: every committed change after a token.

use std::sync::Arc;

use async_trait::async_trait;
use discovery_core::backend::{Change, ChangeLog, Position, WatchEvent};
use discovery_core::{Error, ErrorKind, Result, Scope};
use futures_util::stream::{self, BoxStream};

use crate::backend::EtcdBackend;
use crate::history::{Found, History, compare, first};
use crate::place::{Place, Witness};
use crate::watch::Watch;

type Item = Result<(Vec<Change>, Position)>;

fn expired() -> Error {
    let message = "etcd no longer keeps the changes after this token: list, and take a new one";
    Error::new(ErrorKind::Expired, message)
}

#[async_trait]
impl ChangeLog for EtcdBackend {
    async fn now(&self) -> Result<Position> {
        let store = self.store();
        let (everything, before) = (store.names.everything(), store.known());
        let found =
            first(store, everything.clone(), 0).await.map_err(|fault| self.name_error(fault.error, "changes"))?;
        let (record, revision) = match found {
            Found::Record(record, revision) => (record, revision),
            Found::Compacted | Found::Future => return Err(self.name_error(expired(), "changes")),
        };
        let nothing = || Witness::of_nothing(everything.start, revision);
        let witness = Some(record.as_ref().map_or_else(nothing, Witness::of));
        Ok(Place { witness, ..store.answered(before, revision) }.position())
    }

    async fn changes_since(&self, scope: &Scope, token: &Position) -> Result<BoxStream<'static, Item>> {
        let named = |error: Error| self.name_error(error, "changes");
        let store = self.store();
        let range = store.names.range(scope).map_err(named)?;
        let place = Place::parse(token).ok_or_else(|| named(expired()))?;
        if store.is_of_lost_history(&place) {
            return Err(named(expired()));
        }
        if compare(store, &range, &place).await.map_err(|fault| named(fault.error))? != History::Continues {
            return Err(named(expired()));
        }
        // A connection of its own: what is not read must not hold up watches.
        let link = Arc::new(store.watching.elsewhere());
        let mut watch = Watch::new(store, range, link);
        watch.join(place);
        watch.open_log().await.map_err(named)?;
        Ok(Box::pin(stream::unfold(Some(watch), |watch| async {
            let mut watch = watch?;
            loop {
                match watch.next().await? {
                    Ok(WatchEvent::Batch { changes, position }) => return Some((Ok((changes, position)), Some(watch))),
                    // Instead of changes that are gone.
                    Ok(WatchEvent::SnapshotStart { .. }) => return Some((Err(expired()), None)),
                    Ok(_) => {}
                    Err(error) => return Some((Err(error), None)),
                }
            }
        })))
    }
}
