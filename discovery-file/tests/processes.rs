//! Several processes on one directory. The others are this test binary again, told by their standard input.

mod common;

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path as FilePath;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::*;
use discovery_core::backend::{Backend, Change, Desired, Registrar, Watcher};
use discovery_core::{ErrorKind, Scope};
use rustix::process::{Pid, Signal, kill_process};

const MARK: &str = "peer: ";

/// What the other processes run. Here, where nobody asks for that: such a process ends with its input.
#[test]
fn peer() {
    if std::env::var_os("PEER_ROOT").is_some() {
        return run_as_peer();
    }
    let root = tempfile::tempdir().unwrap();
    let mut peer = Peer::start(root.path(), 7, Duration::from_secs(1));
    drop(peer.input.take());
    assert!(peer.child.wait().unwrap().success());
}

fn run_as_peer() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let (id, ttl) =
        (variable("PEER_ID").parse().unwrap(), Duration::from_millis(variable("PEER_TTL").parse().unwrap()));
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(serve(variable("PEER_ROOT").into(), id, ttl));
}

/// Renews and verifies a session like the core does, and opens the next one when it is lost.
async fn serve(root: std::path::PathBuf, id: u64, ttl: Duration) {
    let say = |text: String| {
        println!("\n{MARK}{text}");
        std::io::stdout().flush().unwrap();
    };
    let backend = backend(&root).await;
    let mut session = match backend.open(&request(id, ttl)).await {
        Ok(session) => session,
        Err(error) => return say(error.kind().to_string()),
    };
    let (commands, mut received) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if commands.send(line.unwrap()).is_err() {
                break;
            }
        }
    });
    say("ready".to_owned());
    let mut stored = None;
    loop {
        tokio::select! {
            command = received.recv() => {
                let Some(command) = command else { return };
                let answer = match command.split_once(' ') {
                    Some(("put", value)) => {
                        let answer = put(&*session, &key(id), value).await;
                        if answer.is_ok() {
                            stored = Some(value.to_owned());
                        }
                        answer
                    }
                    Some(("fill", size)) => put(&*session, &key(id), &format!("{:?}", "x".repeat(size.parse().unwrap()))).await,
                    Some(("watch", value)) => {
                        let mut fold = Fold::open(&backend, &endpoints()).await;
                        fold.until("the value", |fold| fold.value(&key(99)) == Some(value.as_bytes())).await;
                        Ok(())
                    }
                    _ => panic!("no command: {command}"),
                };
                say(answer.map_or_else(|error| error.kind().to_string(), |()| "ok".to_owned()));
            }
            () = tokio::time::sleep(ttl / 3) => {
                if session.renew().await.is_err_and(|error| error.kind() == ErrorKind::SessionLost) {
                    session = backend.open(&request(id, ttl)).await.unwrap();
                }
                // A peer that goes on in the middle of its removal keeps its session and lacks its record.
                let desired: Desired = stored.iter().map(|value| (key(id), Bytes::from(value.clone()))).collect();
                if let (Some(value), Ok([_, ..])) = (&stored, session.verify(&desired).await.as_deref()) {
                    put(&*session, &key(id), value).await.unwrap();
                }
            }
        }
    }
}

/// Another process; killed when dropped.
struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Peer {
    fn start(root: &FilePath, id: u64, ttl: Duration) -> Self {
        let binary = std::env::current_exe().unwrap();
        Self::run(Command::new(binary), root, id, ttl)
    }

    /// Runs a shell's preparations first, in namespaces of the process's own.
    fn start_after(preparation: &str, root: &FilePath, id: u64) -> Self {
        let binary = std::env::current_exe().unwrap();
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        command.arg(format!("{preparation} && exec \"$0\" \"$@\"")).arg(binary);
        Self::run(command, root, id, Duration::from_secs(10))
    }

    fn run(mut command: Command, root: &FilePath, id: u64, ttl: Duration) -> Self {
        let mut child = command
            .args(["--exact", "peer", "--nocapture", "--test-threads=1"])
            .env("PEER_ROOT", root)
            .env("PEER_ID", id.to_string())
            .env("PEER_TTL", ttl.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(answer) = line.strip_prefix(MARK) {
                    let _ = sender.send(answer.to_owned());
                }
            }
        });
        let peer = Self { child, input, answers };
        assert_eq!(peer.answer(), "ready");
        peer
    }

    fn answer(&self) -> String {
        self.answers.recv_timeout(DEADLINE).expect("the peer answers")
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
    }

    fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.answer()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_owner_is_gone_at_once() {
    let root = tempfile::tempdir().unwrap();
    let backend = backend(root.path()).await;
    let mut fold = Fold::open(&backend, &endpoints()).await;
    let mut took = Vec::new();
    for round in 0..5 {
        let mut peer = Peer::start(root.path(), 7, Duration::from_secs(60));
        assert_eq!(peer.ask(&format!("put {round}")), "ok");
        fold.until("the record", |fold| fold.entries.contains_key(&key(7))).await;
        peer.signal(Signal::KILL);
        let start = Instant::now();
        fold.until("the death", |fold| fold.entries.is_empty()).await;
        took.push(start.elapsed());
    }
    took.sort();
    // The pulse alone, without the notice of the close, would take 250 ms in the middle.
    assert!(took[2] < Duration::from_millis(100), "{took:?}");
    let start = Instant::now();
    while !tree(root.path()).is_empty() {
        assert!(start.elapsed() < DEADLINE, "what the dead left is not removed: {:?}", tree(root.path()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_owner_expires_and_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let backend = backend(root.path()).await;
    let ttl = Duration::from_secs(1);
    let mut peer = Peer::start(root.path(), 7, ttl);
    assert_eq!(peer.ask("put 1"), "ok");
    let mut fold = Fold::open(&backend, &endpoints()).await;
    assert!(fold.entries.contains_key(&key(7)));

    peer.signal(Signal::STOP);
    let start = Instant::now();
    fold.until("the expiry", |fold| fold.entries.is_empty()).await;
    let took = start.elapsed();
    assert!(took > ttl / 2 && took < ttl + backend.bounds().slack, "{took:?}");

    peer.signal(Signal::CONT);
    let start = Instant::now();
    fold.until("the record", |fold| fold.value(&key(7)) == Some(b"1")).await;
    assert!(start.elapsed() < backend.bounds().recovery * 2, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_owner_stays() {
    let root = tempfile::tempdir().unwrap();
    let backend = backend(root.path()).await;
    let ttl = Duration::from_secs(1);
    let mut peer = Peer::start(root.path(), 7, ttl);
    assert_eq!(peer.ask("put 1"), "ok");
    let mut fold = Fold::open(&backend, &endpoints()).await;
    // The time itself is what is tried here: six times the TTL.
    let end = Instant::now() + ttl * 6;
    while Instant::now() < end {
        fold.settle(&backend, &endpoints()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(fold.changes.is_empty(), "{:?}", fold.changes);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_claim_a_key_one_gets_it() {
    let root = tempfile::tempdir().unwrap();
    let backend = backend(root.path()).await;
    let mut peers: Vec<_> = (0..4).map(|_| Peer::start(root.path(), 7, Duration::from_secs(10))).collect();
    for round in 0..5 {
        for (number, peer) in peers.iter_mut().enumerate() {
            peer.tell(&format!("put {}", round * 10 + number));
        }
        let answers: Vec<_> = peers.iter().map(Peer::answer).collect();
        let winners = answers.iter().filter(|answer| *answer == "ok").count();
        assert_eq!(winners, 1, "{answers:?}");
        assert!(answers.iter().all(|answer| answer == "ok" || answer == "conflict"), "{answers:?}");
    }
    // The winner dies: whoever comes next gets it.
    let stored = backend.list(&endpoints()).await.unwrap().0.remove(0).value;
    let winner = stored[stored.len() - 1] - b'0';
    drop(peers.remove(winner.into()));
    assert_eq!(peers[0].ask("put 100"), "ok");
    assert_eq!(&*backend.list(&endpoints()).await.unwrap().0[0].value, b"100");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_of_another_process_are_seen_in_order() {
    let root = tempfile::tempdir().unwrap();
    let backend = backend(root.path()).await;
    let mut fold = Fold::open(&backend, &Scope::all()).await;
    let mut peer = Peer::start(root.path(), 7, Duration::from_secs(10));
    for n in 0..200 {
        peer.tell(&format!("put {n}"));
    }
    fold.until("the last value", |fold| fold.value(&key(7)) == Some(b"199")).await;
    let mut last = -1;
    for change in &fold.changes {
        let Change::Put(entry) = change else { panic!("an update is no removal: {change:?}") };
        let value: i32 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
        assert!(value > last, "{value} after {last}");
        last = value;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_an_error_for_the_writer_and_nothing_for_readers() {
    let root = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size=64k tmpfs {}", root.path().display());
    let mut peer = Peer::start_after(&mount, root.path(), 99);
    assert_eq!(peer.ask("put 1"), "ok");
    assert_eq!(peer.ask("fill 200000"), "unavailable");
    assert_eq!(peer.ask("watch 1"), "ok");
    assert_eq!(peer.ask("put 2"), "ok", "the failed write leaves no temporary file that fills the disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_inotify_the_directory_is_polled() {
    let root = tempfile::tempdir().unwrap();
    let mut peer = Peer::start_after("echo 0 > /proc/sys/user/max_inotify_instances", root.path(), 7);
    let backend = backend(root.path()).await;
    let session = session(&backend, 99).await;
    peer.tell("watch 5");
    put(&*session, &key(99), "4").await.unwrap();
    put(&*session, &key(99), "5").await.unwrap();
    assert_eq!(peer.answer(), "ok");
}
