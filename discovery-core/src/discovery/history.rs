//! The history of committed changes, where the store keeps one.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;

use super::Discovery;
use crate::backend::{Change, Position};
use crate::error::{Error, ErrorKind, Result};
use crate::query::Query;

/// A token of the store's history: see [`Discovery::change_token`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeToken(Position);

/// One committed transaction of the store: its changes in order, and the token after it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Committed {
    /// The changes.
    pub changes: Vec<Change>,
    /// Where the history goes on.
    pub token: ChangeToken,
}

impl Discovery {
    /// A token for now, on stores that keep a history (`[changelog]`). Cancel-safe.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the backend does not claim it.
    pub async fn change_token(&self) -> Result<ChangeToken> {
        let backend = Arc::clone(&self.inner.backend);
        self.inner
            .run_limited("change_token", async move { Ok(ChangeToken(backend.require_change_log()?.now().await?)) })
            .await
    }

    /// Every committed change of the query's kind, or of all kinds, after `token`, in commit order; then new ones as
    /// they come. The store is read only as fast as the stream is polled, one transaction ahead, on the handle's own
    /// thread. The stream keeps its handle, and ends when that is shut down. Cancel-safe, and so is the stream.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the backend does not claim `[changelog]`;
    /// [`ErrorKind::Expired`](crate::ErrorKind::Expired), here or as an item, once the history no longer reaches back.
    pub async fn changes_since(
        &self,
        query: Query,
        token: &ChangeToken,
    ) -> Result<BoxStream<'static, Result<Committed>>> {
        let scope = query.scope(None)?;
        let (backend, scopes) = (Arc::clone(&self.inner.backend), Arc::clone(&self.inner.scopes));
        let position = token.0.clone();
        let (told, committed) = mpsc::channel(1);
        self.inner
            .run_limited("changes_since", async move {
                let changes = backend.require_change_log()?.changes_since(&scope, &position).await?;
                scopes.spawn_reading(read_on(changes, told));
                Ok(())
            })
            .await?;
        let held = (committed, Arc::clone(&self.inner));
        Ok(stream::unfold(held, |(mut committed, inner)| async move {
            let item: Result<_> = committed.recv().await?;
            let named = |error: Error| error.with_backend(inner.backend.name()).with_operation("changes_since");
            Some((item.map_err(named), (committed, inner)))
        })
        .boxed())
    }
}

/// Reads while there is room, until the history ends or nobody reads what was told.
async fn read_on(
    mut changes: BoxStream<'static, Result<(Vec<Change>, Position)>>,
    told: mpsc::Sender<Result<Committed>>,
) {
    while let Ok(room) = told.reserve().await {
        let item = tokio::select! {
            biased;
            () = told.closed() => return,
            item = AssertUnwindSafe(changes.next()).catch_unwind() => item,
        };
        match item {
            Ok(Some(item)) => {
                room.send(item.map(|(changes, position)| Committed { changes, token: ChangeToken(position) }));
            }
            Ok(None) => return,
            Err(_) => {
                return room.send(Err(Error::new(ErrorKind::Internal, "the backend panicked: please report it")));
            }
        }
    }
}
