//! Under which leases do the records live, and are those renewed? For `discovery doctor`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::{Error, ErrorKind};
use futures_util::{StreamExt, stream};

use crate::config::Config;
use crate::fault::Fault;
use crate::link::Wire;
use crate::snapshot::{Pages, RESTARTS};
use crate::store::{CALL, Store};

/// How many leases are asked for at most, and how many at a time.
const MOST: usize = 1_000;
const AT_A_TIME: usize = 16;

/// The records below a prefix and their leases. All times are as the servers count them: nobody's clock has a part in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leases {
    /// How many records live under a lease.
    pub records: usize,
    /// Under how many leases they live.
    pub leases: usize,
    /// How many of those leases were asked for: the first thousand.
    pub asked: usize,
    /// The stored keys of records under no lease: nothing but a person removes them.
    pub forever: Vec<String>,
    /// Leases that were not renewed for two thirds of their time to live.
    pub silent: Vec<SilentLease>,
}

/// A lease whose owner does not renew it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SilentLease {
    /// Its id.
    pub id: i64,
    /// The time to live that it was granted, in whole seconds.
    pub granted: Duration,
    /// What is left of it, in whole seconds.
    pub left: Duration,
    /// How many records go with it.
    pub records: usize,
    /// The stored key of one of them.
    pub example: String,
}

/// Looks at the records below the prefix of `config` and at their leases. Writes nothing. Reads every record; takes two
/// seconds at most for each call that is not answered. Cancel-safe.
///
/// # Errors
/// No endpoint answers, or the user may not read there.
pub async fn leases(config: &Config) -> Result<Leases, Error> {
    config.check().map_err(|error| error.with_backend(crate::NAME))?;
    let store = Arc::new(Store::new(config.clone()));
    let mut found = Leases::default();
    let mut held = match owners(&store, &mut found).await {
        Ok(held) => held,
        Err(fault) => return Err(fault.error.with_backend(crate::NAME)),
    };
    found.leases = held.len();
    let asked: Vec<i64> = held.keys().copied().take(MOST).collect();
    let answers = stream::iter(asked).map(|id| {
        let store = &store;
        async move {
            let ask = |mut wire: Wire| async move { wire.lease.time_to_live(id, None).await };
            store.control.read(CALL, ask).await.map(|life| (id, life.granted_ttl(), life.ttl()))
        }
    });
    let mut answers = answers.buffer_unordered(AT_A_TIME);
    while let Some(answer) = answers.next().await {
        let (id, granted, left) = match answer {
            // It expired after its record was read, as it does where that is an error.
            Ok((_, _, left)) if left < 0 => continue,
            Ok(answer) => answer,
            Err(fault) if fault.error.kind() == ErrorKind::SessionLost => continue,
            Err(fault) => return Err(fault.error.with_backend(crate::NAME)),
        };
        found.asked += 1;
        let silent = left.saturating_mul(3) < granted;
        if let (true, Some((records, example))) = (silent, held.remove(&id)) {
            let seconds = |number: i64| Duration::from_secs(number.unsigned_abs());
            let (granted, left) = (seconds(granted), seconds(left));
            found.silent.push(SilentLease { id, granted, left, records, example });
        }
    }
    found.silent.sort_by_key(|lease| lease.id);
    Ok(found)
}

/// The leases of all records, each with how many and the key of one.
async fn owners(store: &Arc<Store>, found: &mut Leases) -> Result<HashMap<i64, (usize, String)>, Fault> {
    let range = store.names.everything();
    let mut restarts = 0;
    'again: loop {
        let mut pages = Pages::new(store, &range);
        let mut held: HashMap<i64, (usize, String)> = HashMap::new();
        *found = Leases::default();
        loop {
            match pages.next().await {
                Ok(Some(records)) => {
                    for record in records.iter().filter(|record| store.names.parse(record.key()).is_some()) {
                        let key = || String::from_utf8_lossy(record.key()).into_owned();
                        if record.lease() == 0 {
                            found.forever.push(key());
                            continue;
                        }
                        found.records += 1;
                        held.entry(record.lease()).or_insert_with(|| (0, key())).0 += 1;
                    }
                }
                Ok(None) => return Ok(held),
                Err(fault) if fault.error.kind() == ErrorKind::Expired && restarts < RESTARTS => {
                    restarts += 1;
                    continue 'again;
                }
                Err(fault) => return Err(fault),
            }
        }
    }
}
