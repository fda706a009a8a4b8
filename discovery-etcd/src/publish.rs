//! A batch of writes, as few transactions as possible.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use discovery_core::backend::{Stamp, Write, WriteBatch};
use discovery_core::{Effect, Error, ErrorKind, Result};
use etcd_client::{GetResponse, ResponseHeader, Txn, TxnOp, TxnOpResponse, TxnResponse};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use crate::bounds::{MAX_BATCH, MAX_REQUEST};
use crate::fault::Fault;
use crate::fence::Standing;
use crate::link::Wire;
use crate::place::Place;
use crate::session::{EtcdSession, Ground};
use crate::store::CALL;
use crate::write::{Guard, Order, Verdict, unreadable};

/// How many independent writes go into one transaction. Each has a guard and an answer of its own there.
const GROUP: usize = 64;
/// How many bytes such a transaction has, unless one write alone has more.
const GROUP_BYTES: usize = 256 << 10;
/// How many transactions are under way at once, of no more bytes together than the largest one may have: on a slow link all of
/// them would else be late.
const PIPELINE: usize = 8;
/// How much longer a transaction may take for each record of the lease, where users are demanded: etcd then looks at all of
/// them for each that is written (`checkLeasePuts` in its `apply/auth.go`), and what is under way together waits for each other.
const EACH: Duration = Duration::from_millis(1);
/// How many bytes a second the slowest link carries. Half of what a small call may take is for as many as it does in that time.
const SLOWEST: usize = 350_000;
/// How long a transaction may take at most: the core waits for a publish no longer than R.
const LONGEST: Duration = Duration::from_secs(5);
/// How much sooner a publish answers: one that the core gives up has told nobody what of it was written.
const SPARE: Duration = Duration::from_millis(300);
/// How often a write is tried again because the record was not what it was thought to be.
const ROUNDS: usize = 6;

pub(crate) struct Publishing<'a> {
    session: &'a EtcdSession,
    ground: &'a mut Ground,
    results: Vec<Option<Result<Stamp>>>,
    /// Whether a transaction had no answer.
    unanswered: bool,
    /// When it has answered, at the latest.
    until: Instant,
}

impl<'a> Publishing<'a> {
    pub(crate) fn new(session: &'a EtcdSession, ground: &'a mut Ground) -> Self {
        Self { session, ground, results: Vec::new(), unanswered: false, until: Instant::now() + LONGEST - SPARE }
    }

    /// Writes, and answers one result for each write.
    pub(crate) async fn write(mut self, batch: &WriteBatch) -> Vec<Result<Stamp>> {
        self.results = vec![None; batch.writes.len()];
        let mut orders = Vec::with_capacity(batch.writes.len());
        for (index, write) in batch.writes.iter().enumerate() {
            match self.session.store.names.stored(write.key()) {
                Ok(stored) => {
                    let guard = if self.ground.held.contains_key(&stored) { Guard::Own } else { Guard::Absent };
                    orders.push(Order { index, stored, write: write.clone(), guard });
                }
                Err(error) => self.results[index] = Some(Err(error)),
            }
        }
        if batch.atomic && orders.len() < batch.writes.len() {
            let error = self.results.iter().find_map(|result| result.clone()?.err());
            return self.all(error.unwrap_or_else(unreadable));
        }
        if let Err(error) = self.settle().await {
            // What was sent before may still arrive.
            return self.all(error);
        }
        // Until every answer is there, something may still arrive, also after this call was given up.
        self.ground.unsettled = true;
        let written = if batch.atomic {
            self.together(orders).await
        } else {
            self.apart(orders).await;
            Ok(())
        };
        self.ground.unsettled = self.unanswered;
        if let Err(error) = written {
            return self.all(error);
        }
        self.results.into_iter().map(|result| result.unwrap_or_else(|| Err(restless()))).collect()
    }

    /// Takes note of a transaction of which it is not known what came. One that was answered does not arrive any more.
    fn failed(&mut self, fault: &Fault) {
        self.unanswered |= fault.broken && fault.error.effect() == Effect::Unknown;
    }

    fn all(self, error: Error) -> Vec<Result<Stamp>> {
        vec![Err(error); self.results.len()]
    }

    /// Makes sure that nothing of what was sent before can still arrive.
    async fn settle(&mut self) -> Result<()> {
        if self.ground.fence.is_none() || self.ground.unsettled {
            self.raise(self.ground.fence).await?;
        }
        Ok(())
    }

    async fn raise(&mut self, last: Option<i64>) -> Result<()> {
        self.ground.fence = Some(self.session.fence.raise(&self.session.store, last).await?);
        Ok(())
    }

    /// Takes note of how the fence was found by a transaction that it kept from being written.
    async fn refence(&mut self, found: &GetResponse) -> Result<()> {
        match self.session.fence.standing(found) {
            Standing::At(revision) => self.raise(Some(revision)).await,
            Standing::Absent => self.raise(None).await,
            Standing::Superseded => Err(crate::fence::superseded()),
        }
    }

    /// Writes that do not depend on each other: grouped, and several groups at once. Those for which the time does not suffice
    /// are not sent: what is tried again is less than this was.
    async fn apart(&mut self, mut orders: Vec<Order>) {
        let pace = Pace { until: self.until, longest: Mutex::default() };
        for _ in 0..ROUNDS {
            if orders.is_empty() {
                return;
            }
            let Some(fence) = self.ground.fence else { return };
            let session = self.session;
            let bytes: usize = orders.iter().map(Order::size).sum();
            let (before, limit) = (session.store.known(), self.patience(orders.len(), bytes.min(MAX_REQUEST)));
            let groups = groups(std::mem::take(&mut orders));
            let largest = groups.iter().map(|group| group.iter().map(Order::size).sum()).max().unwrap_or(1);
            let at_once = (MAX_REQUEST / largest).clamp(1, PIPELINE);
            let pace = &pace;
            let sending = groups.into_iter().map(|group| async move {
                let bytes = group.iter().map(Order::size).sum();
                let Some(limit) = pace.limit(bytes, limit) else { return (group, None) };
                let begun = Instant::now();
                let answer = send(session, grouped(session, fence, &group), limit).await;
                pace.took(bytes, begun.elapsed());
                (group, Some(answer))
            });
            let answers: Vec<_> = stream::iter(sending).buffer_unordered(at_once).collect().await;
            let mut fenced: Option<GetResponse> = None;
            for (group, answer) in answers {
                match answer {
                    None => self.put_off(group),
                    Some(Ok(answer)) if answer.succeeded() => {
                        let stamp = session.store.answered(before, revision_of(&answer));
                        let answers = answer.op_responses();
                        for (at, order) in group.into_iter().enumerate() {
                            let verdict = order.verdict(answers.get(at), session.lease, &session.owner);
                            orders.extend(self.conclude(order, verdict, &stamp));
                        }
                    }
                    Some(Ok(answer)) => {
                        if let Some(TxnOpResponse::Get(found)) = answer.op_responses().into_iter().next() {
                            fenced = Some(found);
                        }
                        orders.extend(group);
                    }
                    Some(Err(fault)) => {
                        self.failed(&fault);
                        for order in group {
                            self.ground.held.remove(&order.stored);
                            self.results[order.index] = Some(Err(fault.error.clone()));
                        }
                    }
                }
            }
            let refenced = match &fenced {
                Some(found) => self.refence(found).await,
                None => Ok(()),
            };
            if let Err(error) = refenced {
                for order in orders {
                    self.results[order.index] = Some(Err(error.clone()));
                }
                return;
            }
        }
    }

    /// Answers orders that are not sent for want of time.
    fn put_off(&mut self, orders: Vec<Order>) {
        for order in orders {
            if order.guard == Guard::Own {
                // The next publish is to begin with what this one found out. At a revision that no record has, so that its value is
                // compared.
                self.ground.held.entry(order.stored).or_insert(-1);
            }
            self.results[order.index] = Some(Err(late()));
        }
    }

    /// Takes note of what came of an order; answers it where it is to be tried again.
    fn conclude(&mut self, mut order: Order, verdict: Verdict, at: &Place) -> Option<Order> {
        match verdict {
            Verdict::Done => {
                self.hold(&order, at.revision);
                self.results[order.index] = Some(Ok(Stamp::at(at.position())));
                None
            }
            Verdict::Again(guard) => {
                order.guard = guard;
                Some(order)
            }
            Verdict::Failed(error) => {
                self.ground.held.remove(&order.stored);
                self.results[order.index] = Some(Err(error));
                None
            }
        }
    }

    fn hold(&mut self, order: &Order, revision: i64) {
        match order.write {
            Write::Put { .. } => self.ground.held.insert(order.stored.clone(), revision),
            Write::Delete { .. } => self.ground.held.remove(&order.stored),
        };
    }

    /// How long a transaction may take, beside so many writes, and where so many bytes are under way together.
    fn patience(&self, writes: usize, bytes: usize) -> Duration {
        let users = self.session.store.config.credentials.is_some();
        patience(users, self.ground.held.len() + writes, bytes)
    }

    /// Writes all of them or none.
    async fn together(&mut self, mut orders: Vec<Order>) -> Result<()> {
        let bytes: usize = orders.iter().map(Order::size).sum();
        if orders.len() > MAX_BATCH || bytes > MAX_REQUEST {
            let message = format!(
                "{} writes of {bytes} bytes are too many for one transaction: at most {MAX_BATCH}, and {MAX_REQUEST} bytes",
                orders.len()
            );
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let session = self.session;
        for _ in 0..ROUNDS {
            let Some(fence) = self.ground.fence else { return Err(restless()) };
            let compares: Vec<_> = std::iter::once(session.fence.holds(fence))
                .chain(orders.iter().map(|order| order.compare(session.lease)))
                .collect();
            let ops: Vec<_> = orders.iter().filter_map(|order| order.op(session.lease)).collect();
            let looks: Vec<_> = std::iter::once(session.fence.get()).chain(orders.iter().map(Order::look)).collect();
            let txn = Txn::new().when(compares).and_then(ops).or_else(looks);
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(late());
            }
            let before = session.store.known();
            let answer = match send(session, txn, self.patience(orders.len(), bytes).min(left)).await {
                Ok(answer) => answer,
                Err(fault) => {
                    self.failed(&fault);
                    for order in &orders {
                        self.ground.held.remove(&order.stored);
                    }
                    return Err(fault.error);
                }
            };
            if answer.succeeded() {
                let at = session.store.answered(before, revision_of(&answer));
                for order in &orders {
                    self.hold(order, at.revision);
                }
                for result in self.results.iter_mut().filter(|result| result.is_none()) {
                    *result = Some(Ok(Stamp::at(at.position())));
                }
                return Ok(());
            }
            let mut found = answer.op_responses().into_iter();
            let Some(TxnOpResponse::Get(standing)) = found.next() else { return Err(unreadable()) };
            if session.fence.standing(&standing) != Standing::At(fence) {
                self.refence(&standing).await?;
            }
            let mut next = Vec::with_capacity(orders.len());
            for mut order in orders {
                let Some(TxnOpResponse::Get(record)) = found.next() else { return Err(unreadable()) };
                match order.judge(&record, session.lease, &session.owner) {
                    // A deletion of what is not there, or another's.
                    Verdict::Done => {}
                    Verdict::Again(guard) => {
                        order.guard = guard;
                        next.push(order);
                    }
                    Verdict::Failed(error) => return Err(error),
                }
            }
            orders = next;
        }
        Err(restless())
    }
}

fn patience(users: bool, records: usize, bytes: usize) -> Duration {
    let looking = if users { EACH * u32::try_from(records).unwrap_or(u32::MAX) } else { Duration::ZERO };
    let sending = Duration::from_secs_f64(bytes as f64 / SLOWEST as f64).saturating_sub(CALL / 2);
    (CALL + looking + sending).min(LONGEST)
}

/// How quickly the transactions of a publish are answered, and how much time it has.
struct Pace {
    until: Instant,
    /// Of those that were answered, how long one took at most, and of how many bytes it was.
    longest: Mutex<Option<(Duration, usize)>>,
}

impl Pace {
    /// How long a transaction of so many bytes may take, which else may take `limit`. `None` where it is not to be sent, since
    /// its answer would come too late.
    fn limit(&self, bytes: usize, limit: Duration) -> Option<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        let longest = *self.longest.lock().unwrap_or_else(PoisonError::into_inner);
        // The first is sent whatever is left: something has to be tried.
        let needed = longest.map_or(Duration::ZERO, |(took, of)| {
            let more = (bytes as f64 / of.max(1) as f64).max(1.0);
            // What a round trip takes is not said by few bytes. No more than the slowest link needs.
            Duration::try_from_secs_f64(took.as_secs_f64() * more).unwrap_or(limit).min(limit.saturating_sub(CALL / 2))
        });
        (!left.is_zero() && left >= needed).then(|| limit.min(left))
    }

    fn took(&self, bytes: usize, time: Duration) {
        let mut longest = self.longest.lock().unwrap_or_else(PoisonError::into_inner);
        if longest.is_none_or(|(known, _)| time > known) {
            *longest = Some((time, bytes));
        }
    }
}

fn late() -> Error {
    let message =
        "not sent: what was written together with it took all the time that there was: is the link to etcd slow?";
    Error::new(ErrorKind::Unavailable, message).with_effect(Effect::None)
}

fn restless() -> Error {
    let message = "the records change all the time, and none of the tries to write found them as they had been read";
    Error::new(ErrorKind::Unavailable, message)
}

fn revision_of(answer: &TxnResponse) -> i64 {
    answer.header().map_or(0, ResponseHeader::revision)
}

/// Sends one transaction. What its answer would have been is unknown after an error, unless that says otherwise.
async fn send(session: &EtcdSession, txn: Txn, limit: Duration) -> Result<TxnResponse, Fault> {
    session.store.control.call(limit, |mut wire: Wire| async move { wire.kv.txn(txn).await }).await
}

/// One transaction of several independent ones, which takes place while the fence stands.
fn grouped(session: &EtcdSession, fence: i64, group: &[Order]) -> Txn {
    let ops: Vec<TxnOp> = group.iter().map(|order| TxnOp::txn(order.txn(session.lease))).collect();
    Txn::new().when([session.fence.holds(fence)]).and_then(ops).or_else([session.fence.get()])
}

fn groups(orders: Vec<Order>) -> Vec<Vec<Order>> {
    let mut groups: Vec<Vec<Order>> = Vec::new();
    let mut bytes = 0;
    for order in orders {
        let size = order.size();
        match groups.last_mut() {
            Some(group) if group.len() < GROUP && bytes + size <= GROUP_BYTES => {
                bytes += size;
                group.push(order);
            }
            _ => {
                bytes = size;
                groups.push(vec![order]);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_users_the_time_of_a_transaction_grows_with_what_the_lease_holds() {
        assert_eq!(patience(false, 50_000, 0), CALL);
        assert_eq!(patience(true, 1_500, 0), CALL + Duration::from_millis(1_500));
        assert_eq!(patience(true, 1_000_000, 0), crate::bounds::bounds(CALL, CALL).recovery);
    }

    #[test]
    fn much_that_is_written_is_given_the_time_that_a_slow_link_takes() {
        assert_eq!(patience(false, 1_000, 1_000 * 300), CALL);
        assert_eq!(patience(false, 1, 700_000), CALL + Duration::from_secs(1));
        assert_eq!(patience(false, 1, MAX_REQUEST), LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn what_would_be_answered_too_late_is_not_sent() {
        let (limit, quick) = (Duration::from_secs(4), Duration::from_millis(5));
        let pace = Pace { until: Instant::now() + LONGEST, longest: Mutex::default() };
        assert_eq!(pace.limit(MAX_REQUEST, limit), Some(limit));
        // Few bytes say little of what many need.
        pace.took(100, quick);
        assert_eq!(pace.limit(MAX_REQUEST, limit), Some(limit));
        tokio::time::advance(Duration::from_millis(2_600)).await;
        pace.took(1 << 20, Duration::from_millis(2_600));
        assert_eq!(pace.limit(1 << 20, limit), None);
        let pace = Pace { until: pace.until, longest: Mutex::new(Some((quick, 1 << 20))) };
        let left = LONGEST - Duration::from_millis(2_600);
        assert_eq!(pace.limit(1 << 20, limit), Some(left));
        tokio::time::advance(left).await;
        assert_eq!(pace.limit(1, limit), None);
    }
}
