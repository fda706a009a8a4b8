//! A namespace of a real control plane, with pods that are as its kubelet would say, and the program in it.

use std::path::PathBuf;
use std::time::Duration;

use discovery_testbed::Cluster;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::common::{Ended, Place, Running};

/// The label of what is discoverable.
pub(crate) const LABEL: &str = "nvidia.com/dynamo-discovery-enabled";
/// The node that all pods are on.
const NODE: &str = "discovery-cli";

/// A namespace in which workers may register.
pub(crate) struct Space {
    pub(crate) cluster: &'static Cluster,
    pub(crate) namespace: String,
    pub(crate) place: Place,
}

impl Space {
    pub(crate) async fn new(cluster: &'static Cluster, prefix: &str) -> Self {
        let space = Self { namespace: cluster.namespace(prefix).await.unwrap(), place: Place::new(), cluster };
        cluster.node(NODE).await.unwrap();
        let rbac = space.place.run(&["rbac", "--namespace", &space.namespace]);
        cluster.apply(&rbac.stdout).await.unwrap();
        space
    }

    pub(crate) async fn apply(&self, mut object: Value) {
        object["metadata"]["namespace"] = json!(self.namespace);
        self.cluster.apply(&object.to_string()).await.unwrap();
    }

    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl([&["--namespace", &self.namespace], arguments].concat()).await.unwrap()
    }

    /// A Service that selects `app`, with the label.
    pub(crate) async fn service(&self, app: &str) {
        self.apply(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": app, "labels": { LABEL: "true" } },
            "spec": { "clusterIP": "None", "selector": { "app": app } },
        }))
        .await;
    }

    /// A pod that runs, as ready as told. Answers its uid.
    pub(crate) async fn pod(&self, name: &str, app: &str, ready: bool) -> String {
        self.apply(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": app } },
            "spec": {
                "nodeName": NODE, "serviceAccountName": "discovery-worker",
                "containers": [{ "name": "main", "image": "none", "env": [
                    { "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                    { "name": "POD_UID", "valueFrom": { "fieldRef": { "fieldPath": "metadata.uid" } } },
                    { "name": "POD_NAMESPACE", "valueFrom": { "fieldRef": { "fieldPath": "metadata.namespace" } } },
                ] }],
            },
        }))
        .await;
        self.cluster.report(&self.namespace, name, ready).await.unwrap();
        self.cluster.pod_uid(&self.namespace, name).await.unwrap()
    }

    /// What a process in this pod knows of it, and what its token allows.
    pub(crate) async fn in_pod(&self, pod: &str, uid: &str, arguments: &[&str]) -> Running {
        let token = self.cluster.token_of_pod(&self.namespace, "discovery-worker", pod, uid).await.unwrap();
        let kubeconfig = self.cluster.save(&self.cluster.kubeconfig().with_token(&token)).unwrap();
        self.start_as(kubeconfig, arguments, &[("POD_NAME", pod), ("POD_UID", uid), ("POD_NAMESPACE", &self.namespace)])
    }

    /// The program as an administrator's.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, &[])
    }

    pub(crate) fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        self.start_as(self.cluster.kubeconfig_path().to_owned(), arguments, environment).ended()
    }

    pub(crate) fn start_as(&self, kubeconfig: PathBuf, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let mut command = self.place.command(arguments);
        command.env("DYN_DISCOVERY_BACKEND", "kubernetes").env("KUBECONFIG", kubeconfig);
        command.env("DYN_DISCOVERY_KUBERNETES_NAMESPACES", &self.namespace);
        command.envs(environment.iter().copied());
        Running::start(command)
    }

    /// What `explain` says of a pod: the exit code and the one explanation.
    pub(crate) fn explained(&self, pod: &str) -> (i32, Value) {
        let ended = self.run(&["explain", pod, "--output", "json"]);
        let explained: Vec<Value> =
            serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        assert_eq!(explained.len(), 1, "{ended:?}");
        (ended.code.unwrap(), explained[0].clone())
    }

    /// Waits until `explain` says that exactly these things are wrong with a pod, warnings among them. Answers the advice
    /// on the first.
    pub(crate) async fn until_explained(&self, pod: &str, failures: &[&str]) -> String {
        let told = |explained: &Value| -> Vec<String> {
            let steps = explained["steps"].as_array().unwrap().iter();
            steps.filter_map(|step| step["failure"].as_str().map(str::to_owned)).collect()
        };
        let mut last = Value::Null;
        until(&format!("{pod} is explained by {failures:?}"), async || {
            let (code, explained) = self.explained(pod);
            let is_so = told(&explained) == failures;
            assert_eq!(code == 0, explained["discovered"] == true, "{explained:#}");
            last = explained;
            is_so
        })
        .await
        .unwrap_or_else(|| panic!("{last:#}"));
        let steps = last["steps"].as_array().unwrap().iter();
        steps.filter_map(|step| step["advice"].as_str()).next().unwrap_or_default().to_owned()
    }

    /// Does what an advice says: the first command of kubectl in it.
    pub(crate) async fn obey(&self, advice: &str) {
        let command =
            advice.split('`').find_map(|part| part.strip_prefix("kubectl ")).unwrap_or_else(|| panic!("{advice}"));
        let words: Vec<String> = command.split(' ').map(|word| word.trim_matches('\'').to_owned()).collect();
        self.cluster.kubectl(words).await.unwrap();
    }
}

/// Waits until something holds; `None` where it does not within two minutes.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Option<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds().await {
        if Instant::now() > deadline {
            eprintln!("in vain within two minutes: {what}");
            return None;
        }
        sleep(Duration::from_millis(100)).await;
    }
    Some(())
}
