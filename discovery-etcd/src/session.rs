//! Sessions: a lease, and the records under it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::backend::{Desired, Drift, Session, SessionRequest, Stamp, WriteBatch};
use discovery_core::{Error, ErrorKind, InstanceId, Key, Result, TaskScope};
use etcd_client::LeaseGrantResponse;
use tokio::sync::{Mutex, oneshot, watch};

use crate::config::whole_seconds;
use crate::fault::Fault;
use crate::fence::{Fence, superseded};
use crate::keeper::Keeper;
use crate::link::Wire;
use crate::owner::Owner;
use crate::publish::Publishing;
use crate::store::{CALL, Store};
use crate::verify;

/// The longest time to live that etcd grants, in seconds.
const LONGEST_TTL: u64 = 9_000_000_000;

/// What is known of a session's records. Held by a publish or a verification from its beginning to its end.
#[derive(Debug, Default)]
pub(crate) struct Ground {
    /// The revision of the fence, where it is known.
    pub(crate) fence: Option<i64>,
    /// Whether a write may still arrive.
    pub(crate) unsettled: bool,
    /// The stored keys under the lease, each with the revision that it was written at.
    pub(crate) held: HashMap<String, i64>,
    /// How many verifications may go by before one looks at what else is under the lease.
    pub(crate) sure: u32,
    /// The generation of the link when one did.
    pub(crate) generation: u64,
}

/// A lease of etcd. See [`discovery_core::backend::Session`].
pub(crate) struct EtcdSession {
    pub(crate) store: Arc<Store>,
    pub(crate) owner: Arc<Owner>,
    pub(crate) fence: Fence,
    pub(crate) lease: i64,
    instance: InstanceId,
    ttl: Duration,
    ground: Mutex<Ground>,
    keeper: Mutex<Option<Keeper>>,
    lost: watch::Sender<Option<Error>>,
}

impl EtcdSession {
    /// Grants a lease and ends the writes of the handle's earlier sessions.
    pub(crate) async fn open(
        store: &Arc<Store>,
        owner: &Arc<Owner>,
        tasks: &TaskScope,
        request: &SessionRequest,
    ) -> Result<Self> {
        let wanted = request.ttl.unwrap_or(store.config.ttl).max(store.config.min_ttl);
        let wanted = whole_seconds(wanted).as_secs().min(LONGEST_TTL);
        let session = owner.next_session();
        let mut granted = grant_to_the_end(store, tasks, wanted.cast_signed()).await?;
        let lease = granted.id;
        let fence = Fence { stored: store.names.fence(owner.handle), lease, session };
        let revision = match fence.raise(store, None).await {
            Ok(revision) => revision,
            Err(error) => {
                // The next try is granted another. Where this fails, too, it ends by itself.
                let _ = revoke(store, lease).await;
                granted.is_settled = true;
                return Err(error);
            }
        };
        granted.is_settled = true;
        owner.granted(lease);
        Ok(Self {
            store: Arc::clone(store),
            owner: Arc::clone(owner),
            fence,
            lease,
            instance: request.instance.unwrap_or(InstanceId(lease.cast_unsigned())),
            ttl: Duration::from_secs(granted.ttl.max(1).cast_unsigned()),
            ground: Mutex::new(Ground { fence: Some(revision), ..Ground::default() }),
            keeper: Mutex::default(),
            lost: watch::Sender::new(None),
        })
    }

    /// Remembers that the session is lost, where that is what a call found.
    fn noting<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.note(error);
        }
        result
    }

    fn note(&self, error: &Error) {
        if error.kind() == ErrorKind::SessionLost {
            self.lost.send_replace(Some(error.clone()));
        }
    }

    fn check(&self) -> Result<()> {
        if let Some(error) = self.lost.borrow().clone() {
            return Err(error);
        }
        if self.owner.newest_session() > self.fence.session { Err(superseded()) } else { Ok(()) }
    }
}

/// A lease that nobody may come to use: whoever waits for it may give up.
struct Granted {
    store: Arc<Store>,
    tasks: TaskScope,
    id: i64,
    ttl: i64,
    /// Whether it is used, or gone.
    is_settled: bool,
}

impl Drop for Granted {
    fn drop(&mut self) {
        if !self.is_settled {
            let (store, id) = (Arc::clone(&self.store), self.id);
            // Where this fails it ends by itself.
            self.tasks.spawn(async move { drop(revoke(&store, id).await) });
        }
    }
}

/// Grants a lease. Its answer is waited for also where nobody else does any more, for only then it can be revoked. After the
/// handle's end it runs out by itself.
async fn grant_to_the_end(store: &Arc<Store>, tasks: &TaskScope, ttl: i64) -> Result<Granted> {
    let (store, scope) = (Arc::clone(store), tasks.clone());
    let (answer, granted) = oneshot::channel();
    tasks.spawn(async move {
        let granting = grant(&store, ttl).await;
        let granted = granting.map(|granted| Granted {
            id: granted.id(),
            ttl: granted.ttl(),
            is_settled: false,
            store,
            tasks: scope,
        });
        // What nobody takes is revoked.
        drop(answer.send(granted));
    });
    granted.await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Closed, "the handle ended while a lease was granted: connect another one"))
    })
}

async fn revoke(store: &Store, lease: i64) -> Result<(), Fault> {
    store.control.read(CALL, |mut wire: Wire| async move { wire.lease.revoke(lease).await.map(drop) }).await
}

/// Grants a lease that nobody had before: etcd chooses it. One of a given id would be shared by all who are given the same.
async fn grant(store: &Store, ttl: i64) -> Result<LeaseGrantResponse> {
    let granting = store.control.call(CALL, |mut wire: Wire| async move { wire.lease.grant(ttl, None).await });
    granting.await.map_err(|fault| fault.error)
}

#[async_trait]
impl Session for EtcdSession {
    fn id(&self) -> InstanceId {
        self.instance
    }

    fn effective_ttl(&self) -> Option<Duration> {
        Some(self.ttl)
    }

    async fn renew(&self) -> Result<Duration> {
        self.check()?;
        let mut slot = self.keeper.lock().await;
        // Taken out until the answer is there: an answer to a renewal that was given up is never read as one to the next.
        let keeper = slot.take();
        let renewed = Keeper::renew(keeper, &self.store.control, self.lease).await;
        let (keeper, life) = self.noting(renewed.map_err(|fault| fault.error))?;
        *slot = Some(keeper);
        Ok(life.unwrap_or(self.ttl))
    }

    async fn publish(&self, batch: &WriteBatch, _desired: &Desired) -> Vec<Result<Stamp>> {
        let mut ground = self.ground.lock().await;
        if let Err(error) = self.check() {
            return batch.writes.iter().map(|write| Err(error.clone().with_key(write.key()))).collect();
        }
        let results = Publishing::new(self, &mut ground).write(batch).await;
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            ground.sure = 0;
            self.note(error);
        }
        results
    }

    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        self.check()?;
        let mut ground = self.ground.lock().await;
        let compared = verify::compare(self, &mut ground, desired).await;
        if compared.is_err() {
            ground.sure = 0;
        }
        self.noting(compared.map_err(|fault| fault.error))
    }

    async fn lost(&self) -> Error {
        let mut lost = self.lost.subscribe();
        match lost.wait_for(Option::is_some).await.map(|error| error.clone()) {
            Ok(Some(error)) => error,
            _ => std::future::pending().await,
        }
    }

    async fn close(&self) -> Result<()> {
        drop(self.keeper.lock().await.take());
        match revoke(&self.store, self.lease).await {
            // It is gone already, and its records with it.
            Err(fault) if fault.error.kind() == ErrorKind::SessionLost => Ok(()),
            outcome => outcome.map_err(|fault| fault.error),
        }
    }
}
