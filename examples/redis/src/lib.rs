//! Service discovery on Redis: an example of a backend, written by following `docs/writing-a-backend.md`.
//!
//! Linked into a program with `use discovery_redis as _;`, the crate offers itself as the backend `redis`. All handles
//! with one prefix share one world. Redis must not be a cluster's replica, since lists have to be of the newest state.
//!
//! A record is a hash with a time to live, at `{<prefix>}:record:<name>`, with the fields `tag` and `document`. Names
//! stand in the sorted set `{<prefix>}:names`, so that a list costs what it answers and not the whole of Redis. Each
//! change is told on the channel `{<prefix>}:changed`. `{<prefix>}:lineage` is set with the first write and never again:
//! where it is gone, Redis has lost its data.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use discovery_core::adapter::{KeyStore, Listing, Nudges, Simple, Stored, Swap, Swapped, Tag, Terms};
use discovery_core::{BackendFactory, Environment, Error, ErrorKind, Result};
use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult, Script, ServerErrorKind};

/// The variable for the address, `redis://127.0.0.1:6379` where it is unset. It may hold a user and a password.
pub const URL_VARIABLE: &str = "DYN_DISCOVERY_REDIS_URL";

/// The variable for what all names in Redis begin with, `discovery` where it is unset.
pub const PREFIX_VARIABLE: &str = "DYN_DISCOVERY_REDIS_PREFIX";

/// The variable for the time to live of records in seconds, 10 where it is unset.
pub const TTL_VARIABLE: &str = "DYN_DISCOVERY_REDIS_TTL";

/// The backend `redis`, for programs that name their backends themselves.
pub const FACTORY: BackendFactory =
    BackendFactory::new("redis", env!("CARGO_PKG_NAME"), "a Redis server, an example of a backend", |context| {
        Box::pin(async move { Ok(Arc::new(Simple::new("redis", Redis::new(&context.environment)?)) as _) })
    });

inventory::submit!(FACTORY);

/// How long Redis may take to answer before it counts as out of reach: less than the core waits for a renewal of the
/// shortest time to live, so that the next one goes over another connection.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How long a list may take, which may be of a hundred thousand records on a busy machine.
const LIST_PATIENCE: Duration = Duration::from_secs(8);

const LIST: &str = r"
local records = {}
for _, name in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], '[' .. ARGV[1], '(' .. ARGV[1] .. '\255')) do
  local held = redis.call('HMGET', ARGV[2] .. name, 'tag', 'document')
  if held[1] then
    records[#records + 1] = {name, held[1], held[2] or ''}
  else
    redis.call('ZREM', KEYS[1], name)
  end
end
return {redis.call('GET', KEYS[2]) or '', records}";

/// Answers nothing where nothing stands, one part where it is done, two where something else stands. What is stored or
/// stays is among the names afterwards, whoever took it from there.
const SWAP: &str = r"
local answers, changed = {}, false
for i = 3, #KEYS do
  local name, expect, tag, document = unpack(ARGV, 4 * i - 9, 4 * i - 6)
  local held = redis.call('HMGET', KEYS[i], 'tag', 'document')
  if (held[1] or '') ~= expect then
    answers[i - 2] = held[1] and {held[1], held[2] or ''} or {}
  else
    if tag ~= '' then
      redis.call('HSET', KEYS[i], 'tag', tag, 'document', document)
      redis.call('SET', KEYS[2], tag, 'NX')
      changed = true
    end
    if tag ~= '' or held[1] then
      changed = redis.call('ZADD', KEYS[1], 0, name) == 1 or changed
    end
    redis.call('PEXPIRE', KEYS[i], ARGV[1])
    answers[i - 2] = {'done'}
  end
end
if changed then redis.call('PUBLISH', ARGV[2], '') end
return answers";

/// A Redis server, as one handle sees it. Connects with the first call.
#[derive(Debug)]
pub struct Redis {
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
    prefix: String,
    default_ttl: Duration,
}

impl Redis {
    /// The server that the environment names. Does no I/O.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where a variable is malformed.
    pub fn new(environment: &Environment) -> Result<Self> {
        let url = environment.get(URL_VARIABLE)?.unwrap_or("redis://127.0.0.1:6379");
        let text = || format!("{URL_VARIABLE} is no address of Redis: write redis://host:port");
        let invalid = |error| Error::new(ErrorKind::InvalidConfig, text()).with_source(error);
        let client = Client::open(url).map_err(invalid)?;
        // The braces keep all of it in one slot.
        let prefix = format!("{{{}}}:", environment.get(PREFIX_VARIABLE)?.unwrap_or("discovery"));
        let default_ttl = environment.seconds(TTL_VARIABLE)?.unwrap_or(Duration::from_secs(10));
        Ok(Self { client, connection: Mutex::default(), prefix, default_ttl })
    }

    fn name(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    fn connection(&self) -> MutexGuard<'_, Option<MultiplexedConnection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one thing over the connection. One that has failed, or that did not answer before the caller gave up, is not
    /// used again: it may be half-open.
    async fn with<T>(
        &self,
        patience: Duration,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T> {
        let open = self.connection().clone();
        let mut connection = match open {
            Some(connection) => connection,
            None => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(PATIENCE))
                    .set_response_timeout(Some(PATIENCE));
                let opened = self.client.get_multiplexed_async_connection_with_config(&config).await;
                self.connection().insert(opened.map_err(failed)?).clone()
            }
        };
        connection.set_response_timeout(patience);
        let mut doubt = Doubt { redis: self, settled: false };
        let answer = work(&mut connection).await;
        doubt.settled = answer.is_ok();
        answer.map_err(failed)
    }
}

/// About the connection, until it has answered.
struct Doubt<'a> {
    redis: &'a Redis,
    settled: bool,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if !self.settled {
            *self.redis.connection() = None;
        }
    }
}

fn failed(error: RedisError) -> Error {
    let denied = matches!(error.kind(), redis::ErrorKind::AuthenticationFailed)
        || error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoPerm)
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"));
    if denied {
        let text = format!("Redis refuses this user: check the one in {URL_VARIABLE}");
        return Error::new(ErrorKind::PermissionDenied, text).with_source(error);
    }
    Error::new(ErrorKind::Unavailable, "Redis does not serve: is it up?").with_source(error)
}

fn stored(tag: &[u8], document: &[u8]) -> Stored {
    // What is no number was written by somebody else, and no swap expects it.
    let tag = std::str::from_utf8(tag).ok().and_then(|tag| tag.parse().ok()).unwrap_or_default();
    Stored { tag: Tag(tag), document: Bytes::copy_from_slice(document) }
}

#[async_trait]
impl KeyStore for Redis {
    async fn list(&self, prefix: &str) -> Result<Listing<(String, Stored)>> {
        let script = Script::new(LIST);
        let mut call = script.key(self.name("names"));
        call.key(self.name("lineage")).arg(prefix).arg(self.name("record:"));
        type Records = Vec<(String, Vec<u8>, Vec<u8>)>;
        let (lineage, records): (String, Records) =
            self.with(LIST_PATIENCE, async |redis| call.invoke_async(redis).await).await?;
        let items = records.into_iter().map(|(name, tag, document)| (name, stored(&tag, &document))).collect();
        Ok(Listing { items, lineage: lineage.parse().ok() })
    }

    async fn swap(&self, swaps: &[Swap], ttl: Duration) -> Result<Vec<Swapped>> {
        let script = Script::new(SWAP);
        let mut call = script.key(self.name("names"));
        call.key(self.name("lineage")).arg(ttl.as_millis() as u64).arg(self.name("changed"));
        for Swap { name, expect, put } in swaps {
            let text = |tag: &Tag| tag.0.to_string();
            let (tag, document) = put.as_ref().map(|put| (text(&put.tag), &put.document[..])).unwrap_or_default();
            call.key(self.name("record:") + name);
            call.arg(name).arg(expect.as_ref().map(text).unwrap_or_default()).arg(tag).arg(document);
        }
        let answers: Vec<Vec<Vec<u8>>> = self.with(PATIENCE, async |redis| call.invoke_async(redis).await).await?;
        let swapped = |answer: Vec<Vec<u8>>| match &answer[..] {
            [] => Swapped::Differs(None),
            [tag, document] => Swapped::Differs(Some(stored(tag, document))),
            _ => Swapped::Done,
        };
        Ok(answers.into_iter().map(swapped).collect())
    }

    async fn nudges(&self) -> Result<Nudges> {
        let mut channel = self.client.get_async_pubsub().await.map_err(failed)?;
        channel.subscribe(self.name("changed")).await.map_err(failed)?;
        Ok(channel.into_on_message().map(drop).boxed())
    }

    async fn ping(&self) -> Result<String> {
        let () = self.with(PATIENCE, async |redis| redis::cmd("PING").query_async(redis).await).await?;
        Ok(format!("Redis at {}", self.client.get_connection_info().addr()))
    }

    fn terms(&self) -> Terms {
        Terms { default_ttl: self.default_ttl, ..Terms::default() }
    }
}
