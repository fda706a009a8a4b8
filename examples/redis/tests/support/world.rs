//! Worlds of the conformance suite, each on a server of its own: what one case does to a large set holds up no other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use discovery_conformance::{Absent, Factory, Fault, Hook, World};
use discovery_core::adapter::{Simple, name_of};
use discovery_core::backend::Backend;
use discovery_core::{Environment, Error, ErrorKind, Result};
use discovery_redis::{PREFIX_VARIABLE, Redis, URL_VARIABLE};
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, AsyncConnectionConfig, RedisError};

use super::gate::{Gate, Switch, Way};
use super::server::{Server, missing};

/// How long a fault may take, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What all names in Redis begin with.
const PREFIX: &str = "world";

/// A server for each world.
pub(crate) struct OnRedis;

#[async_trait]
impl Factory for OnRedis {
    fn name(&self) -> &str {
        "redis"
    }

    fn hooks(&self) -> Vec<Hook> {
        vec![
            Hook::Cut,
            Hook::HalfOpen,
            Hook::Outage,
            Hook::Revoke,
            Hook::Crash,
            Hook::Pause,
            Hook::LoseData,
            Hook::Delete,
            Hook::Write,
            Hook::DropAcks,
            Hook::DelayWrites,
            Hook::Deny,
        ]
    }

    fn absent(&self) -> Option<Absent> {
        missing().map(Absent::Ignored)
    }

    async fn world(&self) -> Result<Box<dyn World>> {
        let server = Server::start();
        let settings = [(URL_VARIABLE, server.url()), (PREFIX_VARIABLE, PREFIX.to_owned())];
        let environment = settings.into_iter().collect();
        Ok(Box::new(Place { environment, server, owners: Mutex::default() }))
    }
}

struct Place {
    environment: Environment,
    server: Server,
    owners: Mutex<Owners>,
}

/// The ways of all owners, and whether the store is away for each of them, those who come later included.
#[derive(Default)]
struct Owners {
    switches: BTreeMap<usize, (Switch, Way)>,
    outage: bool,
}

impl Owners {
    fn switch(&mut self, n: usize) -> Switch {
        let first = if self.outage { Way::Cut } else { Way::Open };
        let new = || {
            let switch = Switch::default();
            switch.set(first);
            (switch, Way::Open)
        };
        self.switches.entry(n).or_insert_with(new).0.clone()
    }

    fn set(&mut self, n: usize, way: Way) {
        let switch = self.switch(n);
        switch.set(if self.outage { Way::Cut } else { way });
        self.switches.insert(n, (switch, way));
    }

    fn set_outage(&mut self, outage: bool) {
        self.outage = outage;
        for (switch, way) in self.switches.values() {
            switch.set(if outage { Way::Cut } else { *way });
        }
    }
}

fn failed(error: RedisError) -> Error {
    Error::new(ErrorKind::Internal, "a fault could not be done").with_source(error)
}

impl Place {
    fn owners(&self) -> MutexGuard<'_, Owners> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn redis(&self) -> Result<MultiplexedConnection> {
        let client = redis::Client::open(self.server.url()).map_err(failed)?;
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(LIMIT)).set_response_timeout(Some(LIMIT));
        client.get_multiplexed_async_connection_with_config(&config).await.map_err(failed)
    }

    fn at(&self, name: &str) -> String {
        format!("{{{PREFIX}}}:{name}")
    }

    /// All at once: nobody sees a part of them gone, and puts that back meanwhile.
    async fn remove(&self, names: impl IntoIterator<Item = String>, besides: &[&str]) -> Result<()> {
        let mut redis = self.redis().await?;
        let mut keys: Vec<String> = names.into_iter().map(|name| self.at(&format!("record:{name}"))).collect();
        keys.extend(besides.iter().map(|name| self.at(name)));
        if !keys.is_empty() {
            let () = redis.del(keys).await.map_err(failed)?;
        }
        redis.publish(self.at("changed"), "").await.map_err(failed)
    }

    /// Keeps the line that says whose it is, as somebody would who edits a record by hand.
    async fn write(&self, name: String, value: &Bytes) -> Result<()> {
        let mut redis = self.redis().await?;
        let record = self.at(&format!("record:{name}"));
        let held: Option<Vec<u8>> = redis.hget(&record, "document").await.map_err(failed)?;
        let mut document = held.unwrap_or_default();
        document.truncate(document.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        document.extend_from_slice(value);
        let tag = redis.incr::<_, _, u64>(self.at("forger"), 1).await.map_err(failed)?.to_string();
        let fields = [("tag", tag.as_bytes()), ("document", &document[..])];
        let () = redis.hset_multiple(&record, &fields).await.map_err(failed)?;
        let () = redis.zadd(self.at("names"), name, 0).await.map_err(failed)?;
        redis.publish(self.at("changed"), "").await.map_err(failed)
    }

    async fn lose_data(&self) -> Result<()> {
        let mut redis = self.redis().await?;
        let names: Vec<String> = redis.zrange(self.at("names"), 0, -1).await.map_err(failed)?;
        self.remove(names, &["names", "lineage"]).await
    }
}

#[async_trait]
impl World for Place {
    async fn owner(&self, n: usize) -> Result<Arc<dyn Backend>> {
        let gate = Gate { store: Redis::new(&self.environment)?, switch: self.owners().switch(n) };
        Ok(Arc::new(Simple::new("redis", gate)))
    }

    async fn inject(&self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Cut(n) | Fault::Crash(n) => self.owners().set(n, Way::Cut),
            Fault::HalfOpen(n) => self.owners().set(n, Way::HalfOpen),
            Fault::Pause(n) => self.owners().set(n, Way::Paused),
            Fault::Deny(n) => self.owners().set(n, Way::Denied),
            Fault::DropAcks(n, true) => self.owners().set(n, Way::AnswersLost),
            Fault::DelayWrites(n, Some(by)) => self.owners().set(n, Way::Slow(by)),
            Fault::Heal(n)
            | Fault::Resume(n)
            | Fault::Allow(n)
            | Fault::DropAcks(n, false)
            | Fault::DelayWrites(n, None) => self.owners().set(n, Way::Open),
            Fault::Outage => self.owners().set_outage(true),
            Fault::Restore => self.owners().set_outage(false),
            Fault::Revoke(n) => {
                let names = self.owners().switch(n).names();
                self.remove(names, &[]).await?;
            }
            Fault::LoseData => self.lose_data().await?,
            Fault::Delete(key) => self.remove([name_of(&key)], &[]).await?,
            Fault::Write(key, value) => self.write(name_of(&key), &value).await?,
            other => {
                let text = format!("Redis has nothing like {}", other.hook());
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
        }
        Ok(())
    }
}
