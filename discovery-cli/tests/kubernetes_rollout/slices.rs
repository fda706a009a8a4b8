//! Who is ready, by the API server's own word, seen by somebody who is no part of discovery.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use discovery_testbed::{Cluster, Program};
use serde_json::Value;

/// A moment from which an address is ready, or is not any more.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) at: Instant,
    pub(crate) address: String,
    pub(crate) ready: bool,
}

/// kubectl, watching the EndpointSlices that discovery goes by.
pub(crate) struct Slices {
    kubectl: Child,
    turns: Arc<Mutex<Vec<Turn>>>,
}

impl Slices {
    pub(crate) fn watch(cluster: &Cluster) -> Self {
        let words = Program::Kubectl.command().unwrap();
        let mut kubectl = Command::new(&words[0]);
        kubectl.args(&words[1..]).args(["get", "endpointslices", "--namespace=default", "--watch", "--output=json"]);
        kubectl.args(["--output-watch-events", "--selector=nvidia.com/dynamo-discovery-enabled=true"]);
        kubectl.env("KUBECONFIG", cluster.kubeconfig_path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut kubectl = kubectl.spawn().unwrap();
        let output = BufReader::new(kubectl.stdout.take().unwrap());
        let turns = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&turns);
        thread::spawn(move || {
            let mut slices = BTreeMap::new();
            let mut ready = BTreeSet::new();
            for event in serde_json::Deserializer::from_reader(output).into_iter::<Value>() {
                let Ok(event) = event else { return };
                let at = Instant::now();
                let slice = &event["object"];
                let name = slice["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let held = if event["type"] == "DELETED" { BTreeSet::new() } else { ready_in(slice) };
                slices.insert(name, held);
                let all: BTreeSet<String> = slices.values().flatten().cloned().collect();
                for address in all.symmetric_difference(&ready) {
                    let turn = Turn { at, address: address.clone(), ready: all.contains(address) };
                    noted.lock().unwrap().push(turn);
                }
                ready = all;
            }
        });
        Self { kubectl, turns }
    }

    pub(crate) fn turns(&self) -> Vec<Turn> {
        self.turns.lock().unwrap().clone()
    }
}

impl Drop for Slices {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

fn ready_in(slice: &Value) -> BTreeSet<String> {
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints
        .filter(|endpoint| endpoint["conditions"]["ready"] == true && endpoint["conditions"]["terminating"] != true);
    ready.filter_map(|endpoint| Some(endpoint["addresses"][0].as_str()?.to_owned())).collect()
}
