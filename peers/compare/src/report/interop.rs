//! `docs/interop.md`.

use std::fmt::Write as _;

use super::{Circumstances, write as write_file};
use crate::Outcome;
use crate::interop::{Finding, Row};

const HEAD: &str = "\
# Interoperability with NVIDIA Dynamo's runtime

Written by `cargo xtask peers interop`; edit `peers/compare/src/report/interop.rs`.

Processes of this project and processes of `dynamo-runtime` 1.6.1, used as it is, share one store: an etcd server, a
directory, and a Kubernetes API server with its controllers, where each process has a pod. Each scenario runs twice, once
with each side acting and the other one looking. The reference runs through `DistributedRuntime::from_settings` with `DYN_EVENT_PLANE=zmq` and `DYN_REQUEST_PLANE=tcp`; both sides are told the same
store by the same variables, and on etcd the same time to live of 5 s.

*matches* means that what was seen is what was written, field by field, and that no watch of either side told of a removal
that was none: after each scenario everything that its watches told is compared with what was withdrawn or left behind.

";

const TAIL: &str = "
## What differs, and why

- **Updates of endpoints.** `Registration::update` replaces an endpoint in place, and a watcher of the reference tells of it as
  added again, with the new value. The reference itself has no update: on etcd and file its `register` over its own key answers
  `Ok` and the old value stays in the store; on Kubernetes it replaces it. Ours shows what is stored.
- **Events of a scope.** A scope is exact: what is published for a namespace is not published for the components in it. The
  reference says so too, and keeps to it with a topic in the query; without one it compares names in the store by their
  beginnings on etcd and file, and answers narrower scopes as well. Ours answers the scope alone.
- **One event source, two processes.** The reference answers `Ok` to a registration of a source that another process holds,
  if it is the same to the letter, and both then believe that they own it; it goes with the one that wrote it. Ours says
  `Conflict`, as for every key that another owner holds.
  On Kubernetes, where every pod has a resource of its own, the reference looks at its own alone.
- **Leaving on Kubernetes.** The reference leaves its records in its pod's resource when it shuts down; they go when the pod
  is no longer ready. Ours withdraws them first, so that nobody is sent to a process that is about to end.
- **Update of models.** Only taints change, on both sides. Ours refuses everything else before it writes; the reference's
  watchers refuse it when they read.
- **Crashes on file.** Ours sees a crash of its own kind at once, by a lock that the kernel releases; what the reference wrote
  carries no such lock and is given its time to live, as the reference gives it to ours. See [benchmarks](benchmarks.md).
- **A lost lease on etcd.** The reference's runtime shuts down, and its processes end. Ours opens a new lease under the same
  instance id and puts its records back.
";

/// Writes the page. Only a complete run may: a part would look like the whole.
pub(crate) fn write(rows: &[Row]) -> Outcome {
    let circumstances = Circumstances::now();
    let mut text = HEAD.to_owned();
    let _ = writeln!(
        text,
        "Last run: {}, {} scenarios, {}, on a machine with a load of {} on {} cores; {}.",
        circumstances.date,
        rows.len(),
        circumstances.servers.join(", "),
        circumstances.load,
        circumstances.cores,
        circumstances.commit
    );
    let mut stores: Vec<&str> = rows.iter().map(|row| &row.store[..]).collect();
    stores.dedup();
    for store in stores {
        let _ = writeln!(
            text,
            "\n## On {store}\n\n| scenario | ours acts, the reference looks | the reference acts, ours looks |"
        );
        let _ = writeln!(text, "|---|---|---|");
        let of_store: Vec<&Row> = rows.iter().filter(|row| row.store == store).collect();
        for pair in of_store.chunks(2) {
            let cell = |acting: &str| {
                pair.iter().find(|row| row.acting == acting).map_or_else(String::new, |row| cell(&row.finding))
            };
            let _ = writeln!(text, "| {} | {} | {} |", pair[0].scenario, cell("ours"), cell("reference"));
        }
    }
    text.push_str(TAIL);
    write_file("interop.md", &text)
}

fn cell(finding: &Result<Finding, String>) -> String {
    let text = match finding {
        Ok(Finding::Matches(detail)) if detail.is_empty() => "matches".to_owned(),
        Ok(Finding::Matches(detail)) => format!("matches: {detail}"),
        Ok(Finding::Differs(why)) => format!("**differs**: {why}"),
        Err(what) => format!("**WRONG**: {what}"),
    };
    text.replace('|', "\\|").replace('\n', " ")
}
