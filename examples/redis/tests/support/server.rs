//! A `redis-server` of the test's own, on a socket in a directory of its own, that dies with the test.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use discovery_testbed::Program;
use tempfile::TempDir;

/// Starts the server, whose data outlive it and not the machine: a busy disk stops no test. When its own input ends, however
/// the test died, it ends the server.
const KEEPER: &str = r#"
directory=$1
shift
"$@" --port 0 --unixsocket "$directory/redis.sock" --dir "$directory" --appendonly yes --appendfsync no --save '' \
    --logfile "$directory/log" --pidfile "$directory/pid" < /dev/null &
cat > /dev/null
kill -KILL $!
wait
"#;

/// Why there is no server to test on, and what to do. Fetches one where none is installed.
pub(crate) fn missing() -> Option<String> {
    Program::RedisServer.command().err().map(|error| error.to_string())
}

pub(crate) struct Server {
    directory: TempDir,
    keeper: Mutex<Option<Child>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let directory = TempDir::new().expect("a directory");
        let server = Self { directory, keeper: Mutex::default() };
        server.start_again();
        server
    }

    /// One of its files: `redis.sock`, `pid`, `log`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.file("redis.sock").display())
    }

    /// Starts it with the data that it had, and waits until it serves.
    pub(crate) fn start_again(&self) {
        let redis = Program::RedisServer.command().expect("a server");
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(self.directory.path()).args(redis);
        keeper.stdin(Stdio::piped()).stdout(Stdio::null());
        *self.keeper.lock().expect("no panic under the lock") = Some(keeper.spawn().expect("a shell"));
        let deadline = Instant::now() + Duration::from_secs(60);
        while redis::Client::open(self.url()).and_then(|client| client.get_connection()).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not serve");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it. Its data stay.
    pub(crate) fn kill(&self) {
        if let Some(mut keeper) = self.keeper.lock().expect("no panic under the lock").take() {
            // The keeper ends with its input, and has ended the server by then.
            drop(keeper.stdin.take());
            keeper.wait().expect("the keeper's end");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
