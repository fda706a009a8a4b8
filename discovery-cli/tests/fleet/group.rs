//! Many processes that end with the test, also when that is killed.

use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

/// A process group. Its leader is a shell that hears of the end of the test by the end of a pipe, and then kills the
/// group, stopped processes and itself included.
pub(crate) struct Group {
    leader: Child,
    life: Option<ChildStdin>,
}

impl Group {
    pub(crate) fn new() -> Self {
        let mut leader = Command::new("sh");
        leader.args(["-c", "read -r _; kill -KILL 0"]).process_group(0);
        let mut leader = leader.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let life = leader.stdin.take();
        Self { leader, life }
    }

    /// Makes what this command starts one of the group.
    pub(crate) fn join(&self, command: &mut Command) {
        command.process_group(self.leader.id().try_into().unwrap());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(self.life.take());
        // It has killed itself.
        let _ = self.leader.wait();
    }
}
