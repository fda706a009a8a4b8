//! How does a test get a network that it shares with nobody?

use std::env;
use std::process::Command;

/// Set for the process inside.
const INSIDE: &str = "DISCOVERY_TESTBED_NAMESPACE";

/// kube-apiserver looks for a default route and an address of the machine on its way. Both stay on the loopback
/// interface; the address is one that RFC 5737 keeps for documentation.
const SET_UP: &str =
    "ip link set lo up && ip address add 192.0.2.1/32 dev lo && ip route add default dev lo && exec \"$@\"";

/// For the first line of a test whose pods have addresses: runs it again, alone, in a network namespace of its own that
/// has a loopback interface and nothing else, so that no packet to an address that has gone ever leaves the machine.
/// Answers whether that was done: then the test is over. It ends with this process, by whatever that ends.
///
/// # Panics
/// Where the test fails in there, or root, `unshare`, `setpriv` or `ip` is missing, which the text tells.
pub fn ran_in_own_network(test: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return false;
    }
    let program = env::current_exe().expect("the path of the test's program");
    let mut run = Command::new("unshare");
    run.args(["--net", "setpriv", "--pdeathsig", "KILL", "sh", "-c", SET_UP, "sh"]);
    run.arg(program).args([test, "--exact", "--nocapture"]).env(INSIDE, "1");
    let ended = run.status().expect("unshare, which is in the package util-linux");
    assert!(
        ended.success(),
        "{test} failed in a network of its own, see above; it needs root, unshare and setpriv of util-linux, and ip of iproute2"
    );
    true
}
