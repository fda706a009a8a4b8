//! Connections: one at a time, to one member, left for the next one when it is of no use.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use discovery_core::{Error, ErrorKind, Result};
use etcd_client::{Channel, Client, ConnectOptions, KvClient, LeaseClient, WatchClient};
use tokio::time::{Instant, timeout};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::alive::{Received, connect};
use crate::config::{CA_VARIABLE, CERTIFICATE_VARIABLE, Config, KEY_VARIABLE};
use crate::fault::{Fault, is_without_users};

/// How long one member may take to accept a connection.
const DIAL: Duration = Duration::from_secs(2);
/// How long it may then take to accept a user. A password is made slow to check on purpose, and after a failure a fleet signs in
/// all at once.
const SIGN_IN: Duration = Duration::from_secs(4);
/// One page of a snapshot, or one watch response: a revoked lease may have many keys.
pub(crate) const LARGEST_MESSAGE: usize = 512 << 20;
/// A caller that gives up sooner does not blame the connection.
const PATIENCE: Duration = Duration::from_millis(500);

/// A connection to one member. Clones share it.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) endpoint: Arc<str>,
    pub(crate) kv: KvClient,
    pub(crate) lease: LeaseClient,
    pub(crate) watch: WatchClient,
    pub(crate) client: Client,
    pub(crate) received: Received,
    /// Whether the client has a user, be he asked for or not.
    has_user: bool,
    index: usize,
    generation: u64,
    /// How many verdicts there were on the member before the connection was made.
    verdicts: u64,
}

/// What the links of a handle have found out about the members: what one has, the others need not.
struct Members {
    /// How often each was found to be of no use.
    verdicts: Vec<AtomicU64>,
    /// The one that a link begins with.
    preferred: AtomicUsize,
}

impl Members {
    fn verdicts(&self, index: usize) -> u64 {
        self.verdicts.get(index).map_or(0, |verdicts| verdicts.load(Ordering::Relaxed))
    }

    /// One more verdict, unless there was one since the connection was made.
    fn judge(&self, wire: &Wire) {
        let Some(verdicts) = self.verdicts.get(wire.index) else { return };
        let (known, more) = (wire.verdicts, wire.verdicts + 1);
        if verdicts.compare_exchange(known, more, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.prefer(wire.index, wire.index + 1);
        }
    }

    /// Another member, where `from` is the one preferred.
    fn prefer(&self, from: usize, to: usize) {
        let to = to % self.verdicts.len().max(1);
        let _ = self.preferred.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Wire {
    /// A call over it that failed.
    pub(crate) fn failed(&self, error: &etcd_client::Error) -> Fault {
        Fault::calling(&self.endpoint, self.has_user, error)
    }

    /// A watch over it that the server ended, for its own reason.
    pub(crate) fn canceled(&self, reason: &str) -> Fault {
        Fault::canceled(&self.endpoint, self.has_user, reason)
    }
}

#[derive(Default)]
struct State {
    wire: Option<Wire>,
    generation: u64,
    /// The member to try next, where it is not the one that is preferred.
    next: Option<usize>,
    closed: bool,
}

/// One connection's worth of traffic, so that bulk reads do not starve watches.
pub(crate) struct Link {
    config: Arc<Config>,
    state: Mutex<State>,
    members: Arc<Members>,
    /// Held while a connection is made, so that one is made for all who wait.
    dialing: tokio::sync::Mutex<()>,
}

impl Link {
    /// A link that connects when it is used first, with the member of this number.
    pub(crate) fn new(config: &Arc<Config>, first: usize) -> Self {
        let verdicts = config.endpoints.iter().map(|_| AtomicU64::new(0)).collect();
        let members = Members { verdicts, preferred: AtomicUsize::new(first) };
        Self::to(config, Arc::new(members), None)
    }

    /// Another link of the same handle, to the same member.
    pub(crate) fn beside(&self) -> Self {
        Self::to(&self.config, Arc::clone(&self.members), None)
    }

    /// Another link of the same handle, to any member.
    pub(crate) fn elsewhere(&self) -> Self {
        let first = fastrand::usize(..self.config.endpoints.len().max(1));
        Self::to(&self.config, Arc::clone(&self.members), Some(first))
    }

    fn to(config: &Arc<Config>, members: Arc<Members>, next: Option<usize>) -> Self {
        let state = Mutex::new(State { next, ..State::default() });
        Self { config: Arc::clone(config), state, members, dialing: tokio::sync::Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open connection, if there is one.
    fn open(&self) -> Result<Option<Wire>, Fault> {
        let mut state = self.state();
        if state.closed {
            let error = Error::new(ErrorKind::Closed, "this handle was closed: connect another one");
            return Err(Fault { error, broken: false });
        }
        state.wire.take_if(|wire| !self.trusts(wire));
        Ok(state.wire.clone())
    }

    /// Whether no link of this handle has found the member to be of no use since this connection was made. Where there is
    /// one member, others go by what they find out themselves: a server that is slow for one call would else have all of
    /// them connect and sign in anew, renewals included, which makes it slower.
    pub(crate) fn trusts(&self, wire: &Wire) -> bool {
        self.config.endpoints.len() == 1 || self.members.verdicts(wire.index) == wire.verdicts
    }

    /// The open connection, or a new one to the first member that takes it. Cancel-safe.
    pub(crate) async fn wire(&self) -> Result<Wire, Fault> {
        if let Some(wire) = self.open()? {
            return Ok(wire);
        }
        let _turn = self.dialing.lock().await;
        if let Some(wire) = self.open()? {
            return Ok(wire);
        }
        let members = self.config.endpoints.len();
        let preferred = self.members.preferred.load(Ordering::Relaxed);
        let first = self.state().next.unwrap_or(preferred);
        let mut failures: Vec<Error> = Vec::new();
        for step in 0..members {
            let index = (first + step) % members;
            // Whoever gives up meanwhile has the next dial go elsewhere.
            self.state().next = Some((index + 1) % members);
            let verdicts = self.members.verdicts(index);
            match dial(&self.config, index).await {
                Ok((endpoint, client, received)) => {
                    let mut state = self.state();
                    state.generation += 1;
                    let wire = Wire {
                        endpoint,
                        kv: client.kv_client().max_decoding_message_size(LARGEST_MESSAGE),
                        lease: client.lease_client(),
                        watch: client.watch_client().max_decoding_message_size(LARGEST_MESSAGE),
                        client,
                        received,
                        has_user: self.config.credentials.is_some(),
                        index,
                        generation: state.generation,
                        verdicts,
                    };
                    state.next = None;
                    self.members.prefer(first, index);
                    if !state.closed {
                        state.wire = Some(wire.clone());
                    }
                    return Ok(wire);
                }
                // The user or the settings are wrong: no other member will see it otherwise.
                Err(fault) if !fault.broken => return Err(fault),
                Err(fault) => failures.push(fault.error),
            }
        }
        Err(Fault { error: none_of(failures), broken: true })
    }

    /// Changes with every new connection, and when one is to be made.
    pub(crate) fn generation(&self) -> u64 {
        self.state().generation
    }

    /// Leaves a member that is of no use, with all links of the handle, unless that was done already. The next connections go
    /// to the next member.
    pub(crate) fn leave(&self, wire: &Wire) {
        tracing::debug!(endpoint = &*wire.endpoint, "leaving this member");
        self.members.judge(wire);
        self.state().wire.take_if(|open| open.generation == wire.generation);
    }

    /// Leaves a connection that may be of no use, unless that was done already. The next one goes to the next member.
    fn forget(&self, wire: &Wire) {
        let mut state = self.state();
        if state.wire.as_ref().is_some_and(|open| open.generation == wire.generation) {
            tracing::debug!(endpoint = &*wire.endpoint, "leaving this member's connection");
            state.wire = None;
            state.next = Some((wire.index + 1) % self.config.endpoints.len());
        }
    }

    /// Leaves the connection, whatever it is worth.
    pub(crate) fn renew(&self) {
        let mut state = self.state();
        state.generation += 1;
        state.wire = None;
    }

    /// Calls once, for at most `limit`. A call that fails for the connection's sake leaves it, and so does one that is
    /// given up by its caller after a while.
    pub(crate) async fn call<T, W>(&self, limit: Duration, work: impl FnOnce(Wire) -> W) -> Result<T, Fault>
    where
        W: Future<Output = Result<T, etcd_client::Error>>,
    {
        let wire = self.wire().await?;
        let attempt = Attempt::new(self, &wire);
        let outcome = timeout(limit, work(wire.clone())).await;
        attempt.ended();
        let fault = match outcome {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => wire.failed(&error),
            Err(_) => Fault::silent(&wire.endpoint, limit),
        };
        if fault.broken {
            self.leave(&wire);
        }
        Err(fault)
    }

    /// Calls what may be repeated: once more for each member while connections fail.
    pub(crate) async fn read<T, W>(&self, limit: Duration, work: impl Fn(Wire) -> W) -> Result<T, Fault>
    where
        W: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut left = self.config.endpoints.len();
        loop {
            match self.call(limit, &work).await {
                Err(fault) if fault.broken && left > 0 => left -= 1,
                outcome => return outcome,
            }
        }
    }

    /// Ends the connection once its last call is done, and makes none any more.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.wire = None;
    }
}

/// A call under way. Dropped before its end, after a while, it leaves the connection.
pub(crate) struct Attempt<'a> {
    link: &'a Link,
    wire: &'a Wire,
    begun: Instant,
    ended: bool,
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(link: &'a Link, wire: &'a Wire) -> Self {
        Self { link, wire, begun: Instant::now(), ended: false }
    }

    pub(crate) fn ended(mut self) {
        self.ended = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.ended && self.begun.elapsed() >= PATIENCE {
            self.link.forget(self.wire);
        }
    }
}

/// Connects to one member and signs in.
pub(crate) async fn dial(config: &Config, index: usize) -> Result<(Arc<str>, Client, Received), Fault> {
    let url = config.endpoints.get(index).map(String::as_str).unwrap_or_default();
    // No other member is of use where a directory that is mounted does not answer.
    let endpoint = timeout(DIAL, endpoint(config, url)).await.unwrap_or_else(|_| Err(unread()));
    let endpoint = endpoint.map_err(|error| Fault { error, broken: false })?;
    let connecting = timeout(DIAL, connect(&endpoint, DIAL)).await.map_err(|_| Fault::silent(url, DIAL))?;
    let (channel, received) = connecting.map_err(|error| Fault::connecting(url, &error))?;
    let signing_in = timeout(SIGN_IN, sign_in(config, channel)).await.map_err(|_| Fault::silent(url, SIGN_IN))?;
    let client = signing_in.map_err(|error| Fault::calling(url, config.credentials.is_some(), &error))?;
    tracing::debug!(endpoint = url, "connected");
    Ok((url.into(), client, received))
}

async fn sign_in(config: &Config, channel: tonic::transport::Channel) -> Result<Client, etcd_client::Error> {
    let plain = ConnectOptions::new().with_require_leader(true);
    let Some(user) = &config.credentials else {
        return Client::from_channel(Channel::Tonic(channel), Some(plain)).await;
    };
    let signed = plain.clone().with_user(&user.username, &user.password).with_auto_token_refresh(true);
    match Client::from_channel(Channel::Tonic(channel.clone()), Some(signed)).await {
        Err(error) if is_without_users(&error) => {
            tracing::warn!("this etcd has no users enabled: the one that is set is not used");
            Client::from_channel(Channel::Tonic(channel), Some(plain)).await
        }
        outcome => outcome,
    }
}

async fn endpoint(config: &Config, url: &str) -> Result<Endpoint> {
    let wrong = |error: tonic::transport::Error| {
        let message = format!("{url}: the address, certificates or key cannot be used: correct them");
        Error::new(ErrorKind::InvalidConfig, message).with_source(error)
    };
    let mut endpoint = Endpoint::from_shared(url.to_owned()).map_err(wrong)?.connect_timeout(DIAL);
    if let Some((interval, timeout)) = config.keepalive {
        // etcd ends connections that ping while there is nothing on them.
        endpoint =
            endpoint.http2_keep_alive_interval(interval).keep_alive_timeout(timeout).keep_alive_while_idle(false);
    }
    if url.starts_with("https://") {
        let material = config.tls.clone();
        let read = tokio::task::spawn_blocking(move || material.read()).await;
        let (ca, identity) = read.map_err(|error| {
            Error::new(ErrorKind::Internal, "reading the certificates did not end: please report it").with_source(error)
        })??;
        let mut tls = match ca {
            Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        endpoint = endpoint.tls_config(tls).map_err(wrong)?;
    }
    Ok(endpoint)
}

fn unread() -> Error {
    let message = format!(
        "the files that {CA_VARIABLE}, {CERTIFICATE_VARIABLE} and {KEY_VARIABLE} name were not read within {DIAL:?}: does what \
         they are on answer?"
    );
    Error::new(ErrorKind::Unavailable, message)
}

/// One error for a store none of whose members can be reached.
fn none_of(mut failures: Vec<Error>) -> Error {
    if failures.len() == 1 {
        return failures.remove(0);
    }
    let texts: Vec<&str> = failures.iter().map(Error::message).collect();
    Error::new(ErrorKind::Unavailable, format!("no member can be reached: {}", texts.join("; ")))
}

#[cfg(test)]
mod tests {
    use discovery_core::Environment;
    use discovery_testbed::{Etcd, EtcdOptions, Proxy};
    use etcd_client::WatchStream;

    use super::*;
    use crate::config::{ENDPOINTS_VARIABLE, KEEPALIVE_INTERVAL_VARIABLE, KEEPALIVE_TIMEOUT_VARIABLE};

    fn config(network: &Proxy) -> Config {
        Config::new([format!("http://{}", network.address())])
    }

    /// A watch of what nobody writes, once the server has taken it.
    async fn quiet_watch(client: &Client) -> WatchStream {
        let mut watch = client.watch_client().watch("quiet", None).await.unwrap();
        assert!(watch.message().await.unwrap().is_some_and(|message| message.created()));
        watch
    }

    /// Nothing but a ping can find it: this is below what asks the server for signs of life.
    #[tokio::test]
    async fn pings_as_they_are_set_find_a_half_open_connection_on_which_nothing_is_said() {
        let (interval, unanswered) = (Duration::from_secs(5), Duration::from_secs(1));
        let etcd = Etcd::start().await.unwrap();
        let network = Proxy::to_port(etcd.port()).unwrap();
        let environment = Environment::default()
            .with(ENDPOINTS_VARIABLE, network.address().to_string())
            .with(KEEPALIVE_INTERVAL_VARIABLE, interval.as_secs().to_string())
            .with(KEEPALIVE_TIMEOUT_VARIABLE, unanswered.as_secs().to_string());
        let config = Config::from_environment(&environment).unwrap();
        let (_, client, _) = dial(&config, 0).await.unwrap();
        let mut watch = quiet_watch(&client).await;
        network.stall();
        let stalled = Instant::now();
        // Twice the time, for a machine that does other things, too.
        let ended = timeout((interval + unanswered) * 2, watch.message()).await.expect("the dead connection is found");
        assert!(ended.is_err(), "{ended:?}");
        assert!(stalled.elapsed() > unanswered, "{:?}", stalled.elapsed());
    }

    #[tokio::test]
    async fn pings_make_no_server_end_the_connection_with_something_on_it_or_nothing() {
        // etcd ends a connection with the third ping that comes too soon, and any is where there is nothing.
        const PINGS: u32 = 6;
        let every = Duration::from_secs(1);
        let flags = vec![format!("--grpc-keepalive-min-time={}s", every.as_secs())];
        let etcd = Etcd::start_with(EtcdOptions { flags, ..EtcdOptions::default() }).await.unwrap();
        let networks = [Proxy::to_port(etcd.port()).unwrap(), Proxy::to_port(etcd.port()).unwrap()];
        let [watched, idle] =
            networks.each_ref().map(|network| Config { keepalive: Some((every, every * 10)), ..config(network) });
        let (watched, idle) = (dial(&watched, 0).await.unwrap().1, dial(&idle, 0).await.unwrap().1);
        let mut watch = quiet_watch(&watched).await;
        idle.kv_client().get("quiet", None).await.unwrap();
        let told = timeout(every * PINGS, watch.message()).await;
        assert!(told.is_err(), "nothing is said, and nothing ends: {told:?}");
        for client in [watched, idle] {
            client.kv_client().get("quiet", None).await.unwrap();
        }
        assert_eq!(networks.each_ref().map(Proxy::connections), [1, 1]);
    }
}
