//! This project as a side of the comparison: a handle, driven by commands.
//!
//! Configured by the same variables as the reference: `DYN_DISCOVERY_BACKEND`, `ETCD_ENDPOINTS`, `DYN_FILE_KV` and so on.

mod gpu;
mod keep;
mod lookup;
mod read;

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use discovery_core::{Discovery, ExecutorKind, Record, Registration};
use discovery_dynamo::{Endpoint, EventChannel, EventSource, Model};
use discovery_peer_protocol::{Answer, Command, Line, Output, Side, Tally, serve};
use futures_util::future::try_join_all;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use {discovery_etcd as _, discovery_file as _, discovery_k8s as _, discovery_memory as _};

use gpu::Gpu;
use keep::Kept;

/// Set where the handle has no thread of its own: it works on its caller's runtime, as the reference does.
pub(crate) const SHARES_RUNTIME: &str = "PEER_SHARES_RUNTIME";

/// How long a handle may take to withdraw its records.
const FAREWELL: Duration = Duration::from_secs(20);

/// A process of ours.
struct Ours {
    discovery: Discovery,
    kept: Mutex<HashMap<String, Arc<dyn Kept>>>,
    filled: Mutex<Vec<Registration<Endpoint>>>,
    tally: Arc<Tally>,
}

/// Obeys until there is nothing more to obey.
pub(crate) async fn run() {
    let ready = async {
        let executor = match std::env::var_os(SHARES_RUNTIME) {
            Some(_) => ExecutorKind::Current,
            None => ExecutorKind::default(),
        };
        let discovery = Discovery::builder().executor(executor).build().await?;
        let instance = discovery.instance_id().await?;
        discovery_core::Result::<_>::Ok((discovery, instance))
    };
    match ready.await {
        Ok((discovery, instance)) => {
            let ours = Ours { discovery, kept: Mutex::default(), filled: Mutex::default(), tally: Arc::default() };
            serve(ours, instance.0).await;
        }
        Err(error) => Output.write(&Line::Ended { reason: error.to_string() }),
    }
}

impl Side for Ours {
    async fn obey(&self, command: Command) -> Answer {
        match command {
            Command::Register { name, record } => self.register(name, record).await,
            Command::Unregister { name } => {
                let kept = self.kept(&name)?;
                kept.deregister().await.map_err(said)?;
                self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
                Ok(Value::Null)
            }
            Command::Update { name, record } => self.kept(&name)?.update(record).await,
            Command::Taints { name, taints } => {
                let kept = self.kept(&name)?;
                let model: Model = parsed(kept.record())?;
                let tainted = model.with_taints(taints).map_err(said)?;
                kept.update(serde_json::to_value(tainted).map_err(said)?).await
            }
            Command::List { query } => read::list(&self.discovery, &query).await,
            Command::TimeList { query, times } => read::time_list(&self.discovery, &query, times).await,
            Command::Watch { name, query } => read::tell(&self.discovery, name, &query).await,
            Command::Watches { queries } => {
                let began = discovery_peer_protocol::now();
                let opening = queries.iter().map(|query| read::count(&self.discovery, query, &self.tally));
                let counts = try_join_all(opening).await?;
                let nanos = discovery_peer_protocol::now() - began;
                Ok(json!({ "nanos": nanos, "records": counts.iter().sum::<usize>() }))
            }
            Command::Tally => Ok(self.tally.take()),
            Command::Lookup { query, groups, .. } => lookup::measure(&self.discovery, &query, groups).await,
            Command::Fill { count } => {
                let registering = (0..count).map(|number| self.discovery.register(filler(number)));
                let registered = try_join_all(registering).await.map_err(said)?;
                self.filled.lock().unwrap_or_else(PoisonError::into_inner).extend(registered);
                Ok(Value::Null)
            }
            Command::Churn { count } => {
                let mut filled = std::mem::take(&mut *self.filled.lock().unwrap_or_else(PoisonError::into_inner));
                for (number, registration) in filled.iter_mut().enumerate().take(count) {
                    registration.deregister().await.map_err(said)?;
                    *registration = self.discovery.register(filler(number)).await.map_err(said)?;
                }
                self.filled.lock().unwrap_or_else(PoisonError::into_inner).extend(filled);
                Ok(Value::Null)
            }
            Command::Usage => Ok(Value::Null),
            Command::Shutdown => {
                let report = self.discovery.shutdown(FAREWELL).await;
                if report.is_clean() { Ok(Value::Null) } else { Err(format!("{report:?}")) }
            }
        }
    }

    /// A handle never gives up.
    async fn ended(&self) -> String {
        pending().await
    }
}

impl Ours {
    async fn register(&self, name: String, record: Value) -> Answer {
        let kept = match record["type"].as_str() {
            Some("Endpoint") => self.register_as::<Endpoint>(record).await?,
            Some("Model") => self.register_as::<Model>(record).await?,
            Some("EventChannel") => self.register_as::<EventChannel>(record).await?,
            Some("EventSource") => self.register_as::<EventSource>(record).await?,
            Some("Gpu") => self.register_as::<Gpu>(record).await?,
            other => return Err(format!("there is no type {other:?} here")),
        };
        let answer = kept.record();
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(name, kept);
        Ok(answer)
    }

    async fn register_as<T: Record>(&self, record: Value) -> Result<Arc<dyn Kept>, String> {
        Ok(Arc::new(self.discovery.register(parsed::<T>(record)?).await.map_err(said)?))
    }

    fn kept(&self, name: &str) -> Result<Arc<dyn Kept>, String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(name).cloned().ok_or_else(|| format!("nothing is registered as {name}"))
    }
}

fn filler(number: usize) -> Endpoint {
    Endpoint::new("bench", format!("pool-{}", number / 1_000), format!("generate-{number}")).tcp(format!(
        "10.0.0.{}:9000/{:020}",
        number % 250,
        0
    ))
}

fn parsed<T: DeserializeOwned>(record: Value) -> Result<T, String> {
    serde_json::from_value(record).map_err(said)
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
