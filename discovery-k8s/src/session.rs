//! Sessions: a pod, whose records are one resource.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::backend::{Desired, Drift, Session, Stamp, Write, WriteBatch};
use discovery_core::{Effect, Error, ErrorKind, InstanceId, Key, Result};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};

use crate::bounds::{MAX_BATCH, RECOVERY};
use crate::document::{Document, Draft};
use crate::fault::is_unrecognised;
use crate::join::precedence;
use crate::late::FirstWrites;
use crate::own::{Own, PodState, Standing, Version, Written};
use crate::plan;
use crate::progress;
use crate::readiness::Ref;
use crate::resource::Resource;
use crate::source::stored;
use crate::unrecognised::Unrecognised;

/// How often a write is tried again that somebody else's came in between.
const TRIES: u32 = 3;
/// How long it may take to find out who else holds some keys. There is time left to write, or to put back.
const LOOK: Duration = Duration::from_secs(RECOVERY.as_secs() / 2);

/// Where a write of the own resource stands in a watch's positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Which leg watches the own namespace; `None` where none does.
    pub(crate) leg: Option<usize>,
    pub(crate) legs: usize,
}

impl Place {
    fn stamp(self, version: &Version) -> Stamp {
        let Some((leg, number)) = self.leg.zip(version.number()) else { return Stamp::unordered() };
        Stamp::at(progress::position((0..self.legs).map(|each| if each == leg { number } else { 0 })))
    }
}

/// What is known of the stored resource.
#[derive(Clone, Debug, PartialEq)]
enum Known {
    /// A write is under way, or its answer was lost: it is read before the next one.
    Unknown,
    Absent,
    Present(Version),
}

#[derive(Debug)]
struct Writer {
    known: Known,
    /// What was acknowledged last, or stood there when the session began.
    stored: Draft,
}

/// A session of the Kubernetes backend.
#[derive(Debug)]
pub(crate) struct KubernetesSession {
    own: Own,
    place: Place,
    /// Held over each group of requests.
    writer: Mutex<Writer>,
    /// When to look once more whether another owner has written a key at the same moment.
    look_again: StdMutex<Option<Instant>>,
    unrecognised: Unrecognised,
    lost: watch::Sender<Option<Error>>,
    handle: Arc<Handle>,
    number: u64,
}

/// What the sessions of one handle share.
#[derive(Debug, Default)]
pub(crate) struct Handle {
    /// The number of the newest session.
    newest: AtomicU64,
    first_writes: FirstWrites,
}

impl KubernetesSession {
    /// Opens a session: the pod lives, and its resource is there for it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where there is no such pod; [`ErrorKind::Conflict`] where another one that lives has
    /// the resource.
    pub(crate) async fn open(own: Own, place: Place, handle: Arc<Handle>) -> Result<Self> {
        if own.own_pod().await? == PodState::Gone {
            return Err(own.no_such_pod());
        }
        let mut stored = Draft::default();
        let known = match own.standing().await? {
            Standing::Absent => Known::Absent,
            Standing::Ours(resource) => {
                stored = held(&resource);
                Known::Present(Version::of(&resource))
            }
            Standing::Left(version) => {
                tracing::info!(
                    resource = own.identity.resource,
                    uid = version.uid,
                    "an earlier pod's resource is removed"
                );
                match own.clear(&version).await? {
                    Written::Done(()) => Known::Absent,
                    Written::Outdated => Known::Unknown,
                }
            }
            Standing::Taken(conflict) => return Err(conflict),
        };
        let number = handle.newest.fetch_add(1, Ordering::AcqRel) + 1;
        // Those of other ids are published without a look at who else holds them: it comes later.
        let is_foreign = stored.keys().any(|key| own.identity.is_foreign(key));
        let look_again = StdMutex::new(is_foreign.then(|| Instant::now() + RECOVERY / 2));
        Ok(Self {
            own,
            place,
            writer: Mutex::new(Writer { known, stored }),
            look_again,
            unrecognised: Unrecognised::default(),
            lost: watch::Sender::new(None),
            handle,
            number,
        })
    }

    fn check(&self) -> Result<()> {
        if let Some(error) = self.lost.borrow().clone() {
            return Err(error);
        }
        if self.handle.newest.load(Ordering::Acquire) != self.number {
            return Err(self.lose("a later session of this handle has taken over"));
        }
        Ok(())
    }

    fn lose(&self, why: &str) -> Error {
        let error = Error::new(ErrorKind::SessionLost, why);
        self.lost.send_replace(Some(error.clone()));
        error
    }

    /// The session is lost where the own pod is: whatever it wrote would be removed, and its name may be another's.
    async fn check_pod(&self) -> Result<()> {
        match self.own.own_pod().await? {
            PodState::Gone => Err(self.lose("this process's pod was deleted: end the process")),
            PodState::Lives | PodState::Unknown => Ok(()),
        }
    }

    /// Reads the resource and makes room for the own one.
    async fn settle(&self, writer: &mut Writer) -> Result<Option<Box<Resource>>> {
        let (known, resource) = match self.own.standing().await? {
            Standing::Absent => {
                self.check_pod().await?;
                (Known::Absent, None)
            }
            Standing::Ours(resource) => (Known::Present(Version::of(&resource)), Some(resource)),
            Standing::Left(version) => {
                self.check_pod().await?;
                match self.own.clear(&version).await? {
                    Written::Done(()) => (Known::Absent, None),
                    Written::Outdated => (Known::Unknown, None),
                }
            }
            Standing::Taken(conflict) => {
                self.check_pod().await?;
                return Err(conflict);
            }
        };
        writer.known = known;
        Ok(resource)
    }

    /// Stores the draft, whole. Answers its version; `None` where there is nothing to store any more.
    async fn write(&self, writer: &mut Writer, draft: Draft) -> Result<Option<Version>> {
        for _ in 0..TRIES {
            if writer.known == Known::Unknown {
                self.settle(writer).await?;
            }
            let known = std::mem::replace(&mut writer.known, Known::Unknown);
            let version = match &known {
                Known::Unknown => continue,
                Known::Absent => None,
                Known::Present(version) => Some(version),
            };
            let is_wanted = self.is_wanted(&draft);
            let written = match version {
                None if !is_wanted => Written::Done(None),
                Some(version) if !is_wanted => match self.own.delete(version).await {
                    Ok(Written::Done(None)) => Written::Done(None),
                    Ok(Written::Done(Some(held))) => self.empty(*held, &draft).await?,
                    Ok(Written::Outdated) => Written::Outdated,
                    Err(error) => return Err(self.remember(writer, known, error)),
                },
                version => match self.apply(&draft, version).await {
                    Ok(Written::Done(resource)) => self.right(resource, &draft).await?,
                    Ok(Written::Outdated) => Written::Outdated,
                    Err(error) => return Err(self.remember(writer, known, error)),
                },
            };
            if let Written::Done(version) = written {
                writer.known = version.clone().map_or(Known::Absent, Known::Present);
                writer.stored = draft;
                return Ok(version);
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "others keep writing this process's resource: it is tried again"))
    }

    /// What finalizers hold shows nothing more at least.
    async fn empty(&self, held: Resource, draft: &Draft) -> Result<Written<Option<Version>>> {
        let version = Version::of(&held);
        if self.own.is_right(&held, draft) {
            return Ok(Written::Done(Some(version)));
        }
        match self.apply(draft, Some(&version)).await? {
            Written::Done(resource) => self.right(resource, draft).await,
            Written::Outdated => Ok(Written::Outdated),
        }
    }

    /// Whether there is to be a resource, of this draft.
    fn is_wanted(&self, draft: &Draft) -> bool {
        !draft.is_empty() || self.handle.first_writes.may_arrive()
    }

    async fn apply(&self, draft: &Draft, known: Option<&Version>) -> Result<Written<Resource>> {
        if let Some(known) = known {
            return match self.own.apply(draft, Some(known)).await {
                // An apply leaves other owners in, under which an admission policy lets nobody write.
                Err(error) if error.kind() == ErrorKind::PermissionDenied && self.has_others().await? => {
                    self.own.repair(draft, known).await
                }
                written => written,
            };
        }
        // An empty one may arrive whenever it likes.
        if draft.is_empty() {
            return self.own.apply(draft, None).await;
        }
        let before = self.handle.first_writes.sent();
        let written = self.own.apply(draft, None).await;
        if written.as_ref().err().is_none_or(|error| error.effect() == Effect::None) {
            self.handle.first_writes.answered(before);
        }
        written
    }

    async fn has_others(&self) -> Result<bool> {
        let resource = self.own.read(false).await?;
        Ok(resource.is_some_and(|resource| self.own.is_ours(&resource) && !self.own.is_ours_alone(&resource)))
    }

    /// A write that certainly had no effect leaves what was known.
    fn remember(&self, writer: &mut Writer, known: Known, error: Error) -> Error {
        if error.effect() == Effect::None {
            writer.known = known;
        }
        error
    }

    /// What others put beside is taken out.
    async fn right(&self, resource: Resource, draft: &Draft) -> Result<Written<Option<Version>>> {
        let version = Version::of(&resource);
        if self.own.is_right(&resource, draft) {
            return Ok(Written::Done(Some(version)));
        }
        tracing::info!(
            resource = self.own.identity.resource,
            "others have written into this resource: it is set right"
        );
        // The apply before had its effect, whatever becomes of this.
        match self.own.repair(draft, &version).await.map_err(|error| error.with_effect(Effect::Unknown))? {
            Written::Done(resource) => Ok(Written::Done(Some(Version::of(&resource)))),
            Written::Outdated => Ok(Written::Outdated),
        }
    }

    /// Who is not recognised any more has no session: most likely its pod was deleted, and its token with it. A server that
    /// may be starting takes none before it has had the time to.
    fn judge<T>(&self, outcome: Result<T>) -> Result<T> {
        let is_lost = self.unrecognised.is_lost(outcome.as_ref());
        outcome.map_err(|error| if is_lost { self.lose(error.message()).with_effect(error.effect()) } else { error })
    }

    /// Which of these keys, whose ids are not this owner's own, another living owner holds. `first`: only where its
    /// record is the one that readers show.
    async fn conflicts(&self, keys: &[&Key], first: bool) -> Result<Vec<(Key, Error)>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        timeout(LOOK, self.held_by_others(keys, first)).await.unwrap_or_else(|_| {
            let text = format!("who else holds a key of another id could not be read within {LOOK:?}");
            Err(Error::new(ErrorKind::Timeout, text))
        })
    }

    async fn held_by_others(&self, keys: &[&Key], first: bool) -> Result<Vec<(Key, Error)>> {
        let mut conflicts = Vec::new();
        let identity = &self.own.identity;
        let own = Ref::new(&identity.namespace, &identity.resource);
        for resource in self.own.neighbours().await? {
            let name = resource.metadata.name.clone().unwrap_or_default();
            let other = Ref::new(&identity.namespace, &name);
            if other == own {
                continue;
            }
            let Some(document) = stored(&resource).document else { continue };
            let held = keys.iter().filter(|key| document.entries.contains_key(**key));
            let held: Vec<_> = held.filter(|key| !first || precedence(key, &other) < precedence(key, &own)).collect();
            let Some(owner) = crate::resource::pod_owner(&resource.metadata).filter(|_| !held.is_empty()) else {
                continue;
            };
            if self.own.pod(&owner.name, &owner.uid).await? != PodState::Gone {
                conflicts.extend(held.into_iter().map(|key| ((*key).clone(), taken(key, &name))));
            }
        }
        Ok(conflicts)
    }

    /// What is to be stored, and which of the writes cannot be.
    async fn plan(&self, writer: &Writer, batch: &WriteBatch, desired: &Desired) -> Result<(Draft, Vec<(Key, Error)>)> {
        let puts: Vec<&Key> =
            batch.writes.iter().filter(|write| matches!(write, Write::Put { .. })).map(Write::key).collect();
        let fresh: Vec<&Key> = puts
            .iter()
            .copied()
            .filter(|key| self.own.identity.is_foreign(key) && !writer.stored.contains(key))
            .collect();
        let mut refused = match self.conflicts(&fresh, false).await {
            Err(error) if is_unrecognised(&error) => return Err(error),
            // The other writes do not depend on it.
            Err(error) => fresh.iter().map(|key| ((*key).clone(), error.clone().with_key(key))).collect(),
            Ok(conflicts) => conflicts,
        };
        let draft = plan::next(&writer.stored, desired, &puts, &mut refused);
        Ok((draft, refused))
    }

    async fn publish_now(&self, batch: &WriteBatch, desired: &Desired) -> Result<Vec<Result<Stamp>>> {
        if batch.atomic && batch.writes.len() > MAX_BATCH {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "a batch of {} writes, and {MAX_BATCH} are possible: register fewer at a time",
                    batch.writes.len()
                ),
            ));
        }
        let mut writer = self.writer.lock().await;
        self.check()?;
        let (draft, refused) = self.plan(&writer, batch, desired).await?;
        let refusal = |key: &Key| refused.iter().find(|(refused, _)| refused == key).map(|(_, error)| error.clone());
        if batch.atomic
            && let Some(error) = batch.writes.iter().find_map(|write| refusal(write.key()))
        {
            return Err(error);
        }
        if !batch.writes.is_empty() && batch.writes.iter().all(|write| refusal(write.key()).is_some()) {
            // What is stored stays as it is, and a whole object near its limit is not sent for nothing.
            return Ok(batch.writes.iter().filter_map(|write| refusal(write.key()).map(Err)).collect());
        }
        if batch
            .writes
            .iter()
            .any(|write| self.own.identity.is_foreign(write.key()) && !writer.stored.contains(write.key()))
        {
            // Who writes the same key at the same moment has been answered by then, and the loser learns it within R.
            *self.look_at() = Some(Instant::now() + RECOVERY / 2);
        }
        let stamp = self.write(&mut writer, draft).await?.map(|version| self.place.stamp(&version)).unwrap_or_default();
        Ok(batch.writes.iter().map(|write| refusal(write.key()).map_or_else(|| Ok(stamp.clone()), Err)).collect())
    }

    async fn verify_now(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        let mut writer = self.writer.lock().await;
        self.check()?;
        let draft = Draft::of(desired)?;
        let drifts = self.drifts(&mut writer, desired, &draft).await?;
        // What is gone is put back first. Who else holds a key can be looked for the next time too.
        if drifts.is_empty() { Ok(self.look_again(&draft).await) } else { Ok(drifts) }
    }

    /// How what is stored differs.
    async fn drifts(&self, writer: &mut Writer, desired: &Desired, draft: &Draft) -> Result<Vec<(Key, Drift)>> {
        if draft.is_empty() && matches!(writer.known, Known::Present(_)) != self.is_wanted(draft) {
            self.write(writer, Draft::default()).await?;
        }
        if self.is_stored(writer, draft).await? {
            return Ok(Vec::new());
        }
        let resource = match self.settle(writer).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                return Ok(desired.keys().map(|key| (key.clone(), Drift::Taken(error.clone()))).collect());
            }
            resource => resource?,
        };
        let Some(resource) = resource else {
            return Ok(desired.keys().map(|key| (key.clone(), Drift::Changed)).collect());
        };
        let differences = draft.differences(resource.data().as_ref());
        let is_clean = differences.changed.is_empty() && differences.unwanted.is_empty();
        if is_clean && !draft.is_empty() && !self.own.is_right(&resource, draft) {
            // Nothing of ours is missing: what does not belong here goes without a word.
            writer.known = Known::Unknown;
            if let Written::Done(Some(version)) = self.right(*resource, draft).await? {
                writer.known = Known::Present(version);
            }
        }
        let changed = differences.changed.into_iter().map(|key| (key, Drift::Changed));
        Ok(changed.chain(differences.unwanted.into_iter().map(|key| (key, Drift::Unwanted))).collect())
    }

    /// Whether all is as it should be, by one read that costs the store nothing.
    async fn is_stored(&self, writer: &Writer, draft: &Draft) -> Result<bool> {
        let Some(resource) = self.own.read(true).await? else {
            return Ok(draft.is_empty() && writer.known == Known::Absent);
        };
        let version = Version::of(&resource);
        let is_known = match &writer.known {
            Known::Present(known) => known.uid == version.uid && known.number() <= version.number(),
            Known::Absent | Known::Unknown => false,
        };
        Ok(is_known && self.own.is_right(&resource, draft))
    }

    fn look_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.look_again.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which keys another owner turns out to hold. Where that cannot be read it is looked for the next time.
    async fn look_again(&self, draft: &Draft) -> Vec<(Key, Drift)> {
        let at = *self.look_at();
        if at.is_none_or(|at| Instant::now() < at) {
            return Vec::new();
        }
        let keys: Vec<&Key> = draft.keys().filter(|key| self.own.identity.is_foreign(key)).collect();
        match self.conflicts(&keys, true).await {
            Ok(taken) => {
                *self.look_at() = None;
                taken.into_iter().map(|(key, error)| (key, Drift::Taken(error))).collect()
            }
            Err(error) => {
                tracing::warn!(%error, "whether another owner holds the same keys is not known: it is looked for again");
                Vec::new()
            }
        }
    }
}

/// What an earlier session, or an earlier process of this pod, has left: what is still wanted of it stays where it cannot be
/// published anew.
fn held(resource: &Resource) -> Draft {
    let mut held = Draft::default();
    for (key, value) in resource.data().map(|data| Document::of(&data).entries).unwrap_or_default() {
        // What has no place there is nothing that was published.
        let _ = held.put(&key, &value);
    }
    held
}

fn taken(key: &Key, resource: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("the resource {resource:?} holds this key: end that one, or use another id"),
    )
    .with_key(key)
}

#[async_trait]
impl Session for KubernetesSession {
    fn id(&self) -> InstanceId {
        self.own.identity.instance()
    }

    /// The cluster decides: a pod that is not ready is not shown, and a deleted one's resource is collected.
    fn effective_ttl(&self) -> Option<Duration> {
        None
    }

    async fn renew(&self) -> Result<Duration> {
        Err(Error::new(ErrorKind::Unsupported, "there is nothing to renew on Kubernetes"))
    }

    async fn publish(&self, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        match self.judge(self.publish_now(batch, desired).await) {
            Ok(results) => results,
            Err(error) => {
                let error = error.with_backend(crate::NAME).with_operation("publish");
                batch.writes.iter().map(|write| Err(error.clone().with_key(write.key()))).collect()
            }
        }
    }

    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        let verified = self.judge(self.verify_now(desired).await);
        verified.map_err(|error| error.with_backend(crate::NAME).with_operation("verify"))
    }

    fn verify_by(&self) -> Option<Instant> {
        *self.look_at()
    }

    async fn lost(&self) -> Error {
        let mut lost = self.lost.subscribe();
        match lost.wait_for(Option::is_some).await.map(|error| error.clone()) {
            Ok(Some(error)) => error,
            // The sender lives as long as this does.
            _ => std::future::pending().await,
        }
    }

    async fn close(&self) -> Result<()> {
        let mut writer = self.writer.lock().await;
        // What a later session holds is not this one's to remove.
        if self.check().is_err() {
            return Ok(());
        }
        let removed = self.write(&mut writer, Draft::default()).await.map(drop);
        match removed {
            // With the pod its resource goes too.
            Err(error) if matches!(error.kind(), ErrorKind::SessionLost | ErrorKind::Conflict) => Ok(()),
            removed => removed.map_err(|error| error.with_backend(crate::NAME).with_operation("close")),
        }
    }
}
