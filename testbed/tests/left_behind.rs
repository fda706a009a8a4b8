//! No server outlives the process that started it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use discovery_testbed::{ControlPlane, Etcd, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

/// Says that this process is one that holds servers until it is killed: `running`, `paused` or `plane`.
const HOLDER: &str = "DISCOVERY_TESTBED_TEST_HOLDER";

const SOON: Duration = Duration::from_secs(60);

/// What a holder does. By itself it only shows that a server ends when it is dropped.
#[tokio::test]
async fn a_dropped_server_is_gone_and_so_are_its_files() -> Result<()> {
    let etcd = Etcd::start().await?;
    let (pid, data) = (etcd.pid().expect("it runs"), etcd.data());
    if std::env::var(HOLDER).is_ok_and(|state| state == "paused") {
        etcd.pause()?;
    }
    hold_if_told(&[(pid, &data)]).await;
    drop(etcd);
    assert!(!runs(pid));
    assert!(!data.exists());
    Ok(())
}

/// What a holder of a control plane does.
#[tokio::test]
async fn a_dropped_control_plane_is_gone_and_so_are_its_files() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let api = (plane.api().pid().expect("it runs"), plane.api().log().to_owned());
    let etcd = (plane.etcd().pid().expect("it runs"), plane.etcd().data());
    hold_if_told(&[(api.0, &api.1), (etcd.0, &etcd.1)]).await;
    drop(plane);
    assert!(!runs(api.0) && !runs(etcd.0));
    assert!(!api.1.exists() && !etcd.1.exists());
    Ok(())
}

async fn hold_if_told(servers: &[(u32, &Path)]) {
    if std::env::var_os(HOLDER).is_some() {
        let told: Vec<String> = servers.iter().map(|(pid, file)| format!("{pid} {}", file.display())).collect();
        // Past the harness, which keeps what tests print.
        let line = format!("{HOLDER} {}\n", told.join(" "));
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("written");
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn a_server_of_a_killed_test_is_gone() {
    left_by_a_killed_test("running", "a_dropped_server_is_gone_and_so_are_its_files").await;
}

#[tokio::test]
async fn a_paused_server_of_a_killed_test_is_gone() {
    left_by_a_killed_test("paused", "a_dropped_server_is_gone_and_so_are_its_files").await;
}

#[tokio::test]
async fn a_control_plane_of_a_killed_test_is_gone() {
    left_by_a_killed_test("plane", "a_dropped_control_plane_is_gone_and_so_are_its_files").await;
}

async fn left_by_a_killed_test(state: &str, test: &str) {
    let mut holder = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", test])
        .env(HOLDER, state)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a holder");
    let mut lines = BufReader::new(holder.stderr.take().expect("its stderr")).lines();
    // The server may have to be built first, of which there are lines too.
    let told = loop {
        let line = lines.next_line().await.expect("a line").expect("the holder lives");
        if let Some(told) = line.strip_prefix(HOLDER) {
            break told.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        }
    };
    let there = |words: &[String]| runs(words[0].parse().expect("a process id")) || Path::new(&words[1]).exists();
    assert!(told.chunks(2).all(there), "{told:?}");
    holder.kill().await.expect("killed");
    let deadline = Instant::now() + SOON;
    while told.chunks(2).any(there) {
        assert!(Instant::now() < deadline, "something is still there: {told:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

fn runs(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::test_kill_process(pid).is_ok()
}
