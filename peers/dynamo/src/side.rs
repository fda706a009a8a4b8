//! The commands, done by the reference's `Discovery`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use discovery_peer_protocol::{Answer, Command, Output, Side, Tally, now, timed};
use dynamo_runtime::DistributedRuntime;
use dynamo_runtime::discovery::{Discovery, DiscoveryInstance, DiscoveryInstanceId, DiscoverySpec};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::{convert, lookup, watch};

/// A process of the reference's.
pub struct Reference {
    runtime: DistributedRuntime,
    registered: Mutex<HashMap<String, DiscoveryInstance>>,
    tally: Arc<Tally>,
}

impl Reference {
    pub fn new(runtime: DistributedRuntime) -> Self {
        Self { runtime, registered: Mutex::default(), tally: Arc::default() }
    }

    fn discovery(&self) -> Arc<dyn Discovery> {
        self.runtime.discovery()
    }

    fn keep(&self, name: String, instance: DiscoveryInstance) {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner).insert(name, instance);
    }

    fn kept(&self, name: &str) -> Result<DiscoveryInstance> {
        let registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        registered.get(name).cloned().with_context(|| format!("nothing is registered as {name}"))
    }

    async fn run(&self, command: Command) -> Result<Value> {
        let discovery = self.discovery();
        Ok(match command {
            // It has no other way to change a record than to register it again.
            Command::Register { name, record } | Command::Update { name, record } => {
                let instance = discovery.register(convert::spec(record)?).await?;
                let answer = convert::value(&instance);
                self.keep(name, instance);
                answer
            }
            Command::Unregister { name } => {
                discovery.unregister(self.kept(&name)?).await?;
                Value::Null
            }
            Command::Taints { name, taints } => {
                let DiscoveryInstanceId::Model(id) = self.kept(&name)?.id() else { bail!("{name} is no model") };
                discovery.update_model_taints(id, taints.into_iter().collect()).await?;
                Value::Null
            }
            Command::List { query } => {
                let found = discovery.list(convert::query(&query)?).await?;
                Value::Array(found.iter().map(convert::value).collect())
            }
            Command::TimeList { query, times } => {
                let query = convert::query(&query)?;
                let list = || async { anyhow::Ok(discovery.list(query.clone()).await?.len()) };
                timed(times, list).await.map_err(anyhow::Error::msg)?
            }
            Command::Watch { name, query } => {
                watch::tell(discovery, name, convert::query(&query)?, Output).await?;
                Value::Null
            }
            Command::Watches { queries } => {
                let began = now();
                let queries = queries.iter().map(convert::query).collect::<Result<Vec<_>>>()?;
                let opening = queries.into_iter().map(|query| watch::count(discovery.clone(), query, &self.tally));
                let counts = try_join_all(opening).await?;
                json!({ "nanos": now() - began, "records": counts.iter().sum::<usize>() })
            }
            Command::Tally => self.tally.take(),
            Command::Lookup { query, groups, records } => {
                lookup::measure(&self.runtime, &query, groups, records).await?
            }
            Command::Fill { count } => {
                for number in 0..count {
                    discovery.register(filler(number)?).await?;
                }
                Value::Null
            }
            Command::Churn { count } => {
                for number in 0..count {
                    let spec = filler(number)?;
                    discovery.unregister(spec.clone().into_instance(discovery.instance_id())).await?;
                    discovery.register(spec).await?;
                }
                Value::Null
            }
            Command::Usage => Value::Null,
            Command::Shutdown => {
                self.runtime.shutdown();
                // Its lease is revoked, or its files are removed, by tasks that nobody can wait for.
                self.runtime.primary_token().cancelled().await;
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                Value::Null
            }
        })
    }
}

impl Side for Reference {
    async fn obey(&self, command: Command) -> Answer {
        self.run(command).await.map_err(|error| format!("{error:#}"))
    }

    /// What the reference's own worker ends for: its runtime shuts down, as it does when the lease is lost.
    async fn ended(&self) -> String {
        self.runtime.primary_token().cancelled().await;
        "the runtime has shut down".to_owned()
    }
}

fn filler(number: usize) -> Result<DiscoverySpec> {
    convert::spec(json!({
        "type": "Endpoint",
        "namespace": "bench",
        "component": format!("pool-{}", number / 1_000),
        "endpoint": format!("generate-{number}"),
        "transport": { "tcp": format!("10.0.0.{}:9000/{:020}", number % 250, 0) },
    }))
}
