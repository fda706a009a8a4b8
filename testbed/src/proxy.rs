//! A network between a client and a server that can fail in the ways networks do.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::error::{Error, Result};
use crate::port::Port;

const CHUNK: usize = 64 * 1024;

/// How many chunks of one direction are under way, as in the buffers of a network. With a delay, this bounds what flows:
/// 64 MiB in the time of the delay.
const CHUNKS: usize = 1024;

/// How long a port may be held by a process that is being started: until its program runs it has open whatever this one had.
const STARTED: Duration = Duration::from_secs(5);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From clients to the server.
    ToServer,
    /// From the server to clients.
    ToClient,
}

/// What the network does now.
#[derive(Clone, Debug, Default)]
struct Weather {
    /// How often it changed.
    changes: u64,
    cut: bool,
    /// How often every connection was reset.
    resets: u64,
    stalled: [bool; 2],
    travel: [Travel; 2],
}

/// How bytes travel one way.
#[derive(Clone, Copy, Debug, Default)]
struct Travel {
    delay: Duration,
    /// How many bytes of each connection arrive in a second.
    bandwidth: Option<u64>,
}

/// What came to the proxy since it began.
#[derive(Debug, Default)]
struct Traffic {
    connections: AtomicU64,
    bytes: [AtomicU64; 2],
}

/// Which changes of the weather the proxy's thread has put in force.
#[derive(Debug)]
struct Done {
    latest: u64,
    told: Receiver<u64>,
}

/// A port of 127.0.0.1 whose connections go on to a server, until it is told to break them.
///
/// What it is told is in force for every byte and every connection that arrives after the method returned. It runs on a thread of its own, so
/// what the test's runtime does neither slows nor stops it. When it is dropped, its connections are reset and the thread
/// has ended.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    /// Dropped first, which ends the thread.
    weather: Option<watch::Sender<Weather>>,
    done: Mutex<Done>,
    traffic: Arc<Traffic>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy to a port of 127.0.0.1, which need not be listening yet.
    ///
    /// # Errors
    /// There is no free port, or no thread.
    pub fn to_port(port: u16) -> Result<Self> {
        Self::to((Ipv4Addr::LOCALHOST, port).into())
    }

    /// A proxy to an address, which need not be listening yet.
    ///
    /// # Errors
    /// There is no free port, or no thread.
    pub fn to(server: SocketAddr) -> Result<Self> {
        Self::guarded(server, |_, _| true)
    }

    /// A proxy to an address that resets those new connections which `admits` refuses, asked with the client's address and
    /// the proxy's own.
    ///
    /// # Errors
    /// There is no free port, or no thread.
    pub(crate) fn guarded(
        server: SocketAddr,
        admits: impl Fn(SocketAddr, SocketAddr) -> bool + Send + 'static,
    ) -> Result<Self> {
        let failed = |error: io::Error| Error::because(format!("a proxy to {server}"), error);
        let port = Port::reserve()?;
        let address = port.address();
        let (weather, told) = watch::channel(Weather::default());
        let traffic = Arc::<Traffic>::default();
        let counted = Arc::clone(&traffic);
        let (tells, done) = channel();
        let (opens, opened) = channel();
        let work = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(opens.send(Err(error))),
            };
            runtime.block_on(async {
                match listen(address).await {
                    Ok(listener) => {
                        let _ = opens.send(Ok(()));
                        serve(listener, address, server, admits, told, tells, counted).await;
                    }
                    Err(error) => drop(opens.send(Err(error))),
                }
            });
        };
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn(work).map_err(failed)?;
        opened.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended"))).map_err(failed)?;
        let done = Mutex::new(Done { latest: 0, told: done });
        Ok(Self { port, weather: Some(weather), done, traffic, thread: Some(thread) })
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Resets every connection, and refuses new ones, until [`Proxy::heal`].
    pub fn cut(&self) {
        self.change(|weather| {
            weather.cut = true;
            weather.resets += 1;
        });
    }

    /// Resets every connection, and goes on to accept new ones.
    pub fn reset(&self) {
        self.change(|weather| weather.resets += 1);
    }

    /// From now on nothing passes either way, not even the end of a connection. Connections stay open, and new ones
    /// seem to open. What was sent meanwhile arrives after [`Proxy::heal`].
    pub fn stall(&self) {
        self.change(|weather| weather.stalled = [true; 2]);
    }

    /// [`Proxy::stall`] for one direction. Towards clients: the server gets requests and does them, and no answer
    /// arrives.
    pub fn stall_only(&self, direction: Direction) {
        self.change(|weather| weather.stalled[direction as usize] = true);
    }

    /// From now on bytes take this much longer each way.
    pub fn delay(&self, by: Duration) {
        self.change(|weather| weather.travel.iter_mut().for_each(|travel| travel.delay = by));
    }

    /// [`Proxy::delay`] for one direction.
    pub fn delay_only(&self, direction: Direction, by: Duration) {
        self.change(|weather| weather.travel[direction as usize].delay = by);
    }

    /// From now on each connection takes one second for so many bytes of one direction, whatever the others carry.
    pub fn limit(&self, direction: Direction, bytes_per_second: u64) {
        self.change(|weather| weather.travel[direction as usize].bandwidth = Some(bytes_per_second.max(1)));
    }

    /// Everything passes again, at once. Connections that were reset stay so.
    pub fn heal(&self) {
        self.change(|weather| {
            *weather = Weather { changes: weather.changes, resets: weather.resets, ..Weather::default() };
        });
    }

    /// How many connections it has accepted since it began.
    pub fn connections(&self) -> u64 {
        self.traffic.connections.load(Ordering::Relaxed)
    }

    /// How many bytes of one direction have come to it since it began, handed on or not.
    pub fn received(&self, direction: Direction) -> u64 {
        self.traffic.bytes[direction as usize].load(Ordering::Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut Weather)) {
        let Some(weather) = &self.weather else { return };
        let mut number = 0;
        weather.send_modify(|weather| {
            change(weather);
            weather.changes += 1;
            number = weather.changes;
        });
        // The thread opens and closes the port. It does nothing that takes long, and if it has ended, so has the port.
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        while done.latest < number
            && let Ok(latest) = done.told.recv()
        {
            done.latest = latest;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.weather.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was printed, and there is nobody to hand it to.
            let _ = thread.join();
        }
    }
}

async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let until = Instant::now() + STARTED;
    loop {
        match bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                sleep(Duration::from_millis(1)).await;
            }
            bound => return bound,
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

/// Until the proxy is dropped.
async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    server: SocketAddr,
    admits: impl Fn(SocketAddr, SocketAddr) -> bool,
    mut told: watch::Receiver<Weather>,
    done: Sender<u64>,
    traffic: Arc<Traffic>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    let mut resets = 0;
    loop {
        tokio::select! {
            biased;
            changed = told.changed() => {
                if changed.is_err() {
                    return;
                }
                let weather = told.borrow_and_update().clone();
                if weather.resets != resets {
                    resets = weather.resets;
                    // With it go the connections that nobody has accepted yet.
                    listener = None;
                    connections.shutdown().await;
                }
                if !weather.cut && listener.is_none() {
                    // The port is ours alone, so only a want of resources can refuse it; then clients are refused.
                    listener = listen(address).await.ok();
                }
                let _ = done.send(weather.changes);
            }
            Some((client, from)) = accept(listener.as_ref()) => {
                if !admits(from, address) {
                    let _ = set_socket_linger(&client, Some(Duration::ZERO));
                    continue;
                }
                traffic.connections.fetch_add(1, Ordering::Relaxed);
                connections.spawn(carry(client, server, resets, told.clone(), Arc::clone(&traffic)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> Option<(TcpStream, SocketAddr)> {
    loop {
        // A connection that ended before it was accepted is no reason to stop.
        if let Ok(accepted) = listener?.accept().await {
            return Some(accepted);
        }
    }
}

/// One connection, from its first byte to its last. Until that both ends are set to be reset when they are closed, for
/// that happens wherever this is dropped.
async fn carry(
    mut client: TcpStream,
    server: SocketAddr,
    resets: u64,
    weather: watch::Receiver<Weather>,
    traffic: Arc<Traffic>,
) {
    let reset_when_closed = Some(Duration::ZERO);
    if set_socket_linger(&client, reset_when_closed).is_err() {
        return;
    }
    // The server must not see a client whose packets do not arrive.
    if passes(Direction::ToServer, resets, &mut weather.clone()).await.is_none() {
        return;
    }
    let Ok(socket) = TcpSocket::new_v4() else { return };
    if set_socket_linger(&socket, reset_when_closed).is_err() {
        return;
    }
    let Ok(mut server) = socket.connect(server).await else { return };
    if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let both = tokio::try_join!(
        pump(Direction::ToServer, from_client, to_server, resets, weather.clone(), &traffic),
        pump(Direction::ToClient, from_server, to_client, resets, weather, &traffic),
    );
    if both.is_ok() {
        // What is still under way in the kernel arrives. An end for which this fails is gone already.
        let _ = set_socket_linger(&client, None).and(set_socket_linger(&server, None));
    }
}

/// Waits until bytes pass this way, and answers how they travel. `None`: never again on this connection.
async fn passes(direction: Direction, resets: u64, weather: &mut watch::Receiver<Weather>) -> Option<Travel> {
    let weather = weather.wait_for(|weather| weather.resets != resets || !weather.stalled[direction as usize]);
    let weather = weather.await.ok()?;
    (weather.resets == resets).then(|| weather.travel[direction as usize])
}

/// One direction of one connection, until its end has been handed on.
async fn pump(
    direction: Direction,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    resets: u64,
    mut weather: watch::Receiver<Weather>,
    traffic: &Traffic,
) -> io::Result<()> {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let mut before = weather.clone();
    let read = async move {
        let mut buffer = vec![0; CHUNK];
        loop {
            // What cannot pass is left with the sender, as by a network that loses it.
            let Some(_) = passes(direction, resets, &mut before).await else { return broken() };
            let length = from.read(&mut buffer).await?;
            traffic.bytes[direction as usize].fetch_add(length as u64, Ordering::Relaxed);
            let Some(travel) = passes(direction, resets, &mut before).await else { return broken() };
            let chunk = (Instant::now() + travel.delay, buffer[..length].to_vec());
            if sender.send(chunk).await.is_err() || length == 0 {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = under_way.recv().await {
            sleep_until(due).await;
            let Some(travel) = passes(direction, resets, &mut weather).await else { return broken() };
            if chunk.is_empty() {
                return to.shutdown().await;
            }
            if let Some(bandwidth) = travel.bandwidth {
                let takes = Duration::from_secs_f64(chunk.len() as f64 / bandwidth as f64);
                let other = |weather: &Weather| weather.travel[direction as usize].bandwidth != Some(bandwidth);
                drop(timeout(takes, weather.wait_for(other)).await);
            }
            to.write_all(&chunk).await?;
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(|_| ())
}

fn broken() -> io::Result<()> {
    Err(io::ErrorKind::ConnectionReset.into())
}
