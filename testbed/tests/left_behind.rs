//! No server outlives the process that started it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use discovery_testbed::{Etcd, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

/// Says that this process is one that holds a server until it is killed: `running` or `paused`.
const HOLDER: &str = "DISCOVERY_TESTBED_TEST_HOLDER";

const SOON: Duration = Duration::from_secs(60);

/// What a holder does. By itself it only shows that a server ends when it is dropped.
#[tokio::test]
async fn a_dropped_server_is_gone_and_so_are_its_files() -> Result<()> {
    let etcd = Etcd::start().await?;
    let (pid, data) = (etcd.pid().expect("it runs"), etcd.data());
    if let Ok(state) = std::env::var(HOLDER) {
        if state == "paused" {
            etcd.pause()?;
        }
        // Past the harness, which keeps what tests print.
        let line = format!("{pid} {}\n", data.display());
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("written");
        std::future::pending::<()>().await;
    }
    drop(etcd);
    assert!(!runs(pid));
    assert!(!data.exists());
    Ok(())
}

#[tokio::test]
async fn a_server_of_a_killed_test_is_gone() {
    left_by_a_killed_test("running").await;
}

#[tokio::test]
async fn a_paused_server_of_a_killed_test_is_gone() {
    left_by_a_killed_test("paused").await;
}

async fn left_by_a_killed_test(state: &str) {
    let mut holder = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "a_dropped_server_is_gone_and_so_are_its_files"])
        .env(HOLDER, state)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a holder");
    let mut lines = BufReader::new(holder.stderr.take().expect("its stderr")).lines();
    // The server may have to be built first, of which there are lines too.
    let (pid, data) = loop {
        let line = lines.next_line().await.expect("a line").expect("the holder lives");
        let told = line.split_once(' ').and_then(|(pid, data)| Some((pid.parse::<u32>().ok()?, data.to_owned())));
        if let Some(told) = told {
            break told;
        }
    };
    assert!(runs(pid) && Path::new(&data).exists());
    holder.kill().await.expect("killed");
    let deadline = Instant::now() + SOON;
    while runs(pid) || Path::new(&data).exists() {
        assert!(Instant::now() < deadline, "process {pid} or {data} is still there");
        sleep(Duration::from_millis(10)).await;
    }
}

fn runs(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::test_kill_process(pid).is_ok()
}
