//! Since when a pod is ready, or is not any more, by Kubernetes' own word.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use kube::Api;
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::super::told::Moment;
use super::PATIENCE;
use crate::failure::{Failure, Outcome};

/// Between two tries to watch.
const RETRY: Duration = Duration::from_millis(200);

/// A moment from which a pod is ready, or is not any more.
#[derive(Clone, Debug)]
struct Turn {
    pod: String,
    ready: bool,
    at: Moment,
}

/// Follows the EndpointSlices beside discovery. Ends when dropped.
pub(super) struct Slices {
    turns: watch::Receiver<Vec<Turn>>,
    task: JoinHandle<()>,
}

impl Slices {
    pub(super) fn follow(slices: Api<DynamicObject>) -> Self {
        let (sender, turns) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            let mut seen = Seen { slices: BTreeMap::new(), turns: sender };
            loop {
                // A watch ends by itself after some minutes, or with its connection.
                let _ = seen.watch(&slices).await;
                sleep(RETRY).await;
            }
        });
        Self { turns, task }
    }

    /// When this pod became so, the first time after `since`. Cancel-safe.
    pub(super) async fn turned(&mut self, pod: &str, ready: bool, since: Moment) -> Outcome<Moment> {
        let find = |turns: &Vec<Turn>| {
            turns.iter().find(|turn| turn.pod == pod && turn.ready == ready && turn.at >= since).map(|turn| turn.at)
        };
        let turned = timeout(PATIENCE, self.turns.wait_for(|turns| find(turns).is_some())).await;
        turned.ok().and_then(|turns| find(&*turns.ok()?)).ok_or_else(|| {
            let state = if ready { "ready" } else { "no longer ready" };
            Failure::failed(format!("demo: Kubernetes did not say within {PATIENCE:?} that pod {pod} is {state}"))
        })
    }
}

impl Drop for Slices {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Seen {
    /// The ready pods of each slice.
    slices: BTreeMap<String, BTreeSet<String>>,
    turns: watch::Sender<Vec<Turn>>,
}

impl Seen {
    async fn watch(&mut self, slices: &Api<DynamicObject>) -> kube::Result<()> {
        let list = slices.list(&ListParams::default()).await?;
        let version = list.metadata.resource_version.clone().unwrap_or_default();
        self.change(|known| *known = list.items.iter().map(|slice| (name(slice), ready_in(&slice.data))).collect());
        let mut events = slices.watch(&WatchParams::default(), &version).await?.boxed();
        while let Some(event) = events.next().await {
            match event? {
                WatchEvent::Added(slice) | WatchEvent::Modified(slice) => {
                    self.change(|known| drop(known.insert(name(&slice), ready_in(&slice.data))));
                }
                WatchEvent::Deleted(slice) => self.change(|known| drop(known.remove(&name(&slice)))),
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn change(&mut self, change: impl FnOnce(&mut BTreeMap<String, BTreeSet<String>>)) {
        let at = Moment::now();
        let ready = |slices: &BTreeMap<String, BTreeSet<String>>| -> BTreeSet<String> {
            slices.values().flatten().cloned().collect()
        };
        let before = ready(&self.slices);
        change(&mut self.slices);
        let after = ready(&self.slices);
        let turn = |pod: &String| Turn { pod: pod.clone(), ready: after.contains(pod), at };
        let turns: Vec<_> = before.symmetric_difference(&after).map(turn).collect();
        if !turns.is_empty() {
            self.turns.send_modify(|all| all.extend(turns));
        }
    }
}

fn name(slice: &DynamicObject) -> String {
    slice.metadata.name.clone().unwrap_or_default()
}

fn ready_in(slice: &Value) -> BTreeSet<String> {
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    ready.filter_map(|endpoint| Some(endpoint["targetRef"]["name"].as_str()?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(pods: &[(&str, bool)]) -> BTreeSet<String> {
        let endpoint = |(pod, ready): &(&str, bool)| {
            let (conditions, target) = (json!({ "ready": ready }), json!({ "kind": "Pod", "name": pod }));
            json!({ "conditions": conditions, "targetRef": target })
        };
        ready_in(&json!({ "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>() }))
    }

    #[tokio::test]
    async fn a_pod_that_moves_between_slices_does_not_turn() {
        let (sender, turns) = watch::channel(Vec::new());
        let mut seen = Seen { slices: BTreeMap::new(), turns: sender };
        let since = Moment::now();
        seen.change(|slices| drop(slices.insert("one".to_owned(), slice(&[("a", true), ("b", false)]))));
        seen.change(|slices| drop(slices.insert("two".to_owned(), slice(&[("a", true)]))));
        seen.change(|slices| drop(slices.remove("one")));
        assert_eq!(turns.borrow().len(), 1);
        seen.change(|slices| drop(slices.remove("two")));
        let mut slices = Slices { turns, task: tokio::spawn(async {}) };
        let (came, went) =
            (slices.turned("a", true, since).await.unwrap(), slices.turned("a", false, since).await.unwrap());
        assert!(since <= came && came <= went);
    }
}
