//! Whether a cluster lacks the resource type of the records.
//!
//! An answer of 404 decides nothing: something that stands before the API server and has lost it says that of everything. So
//! the list of what there is tells, and only one that the API server gave. One that starts may not have put all types into it
//! yet, and is not ready before it has (`crd-informer-synced`, `autoregister-completion` and `apiservice-discovery-controller`
//! of `/readyz`): it is asked for that first.

use kube::Client;

use crate::doubting::{READY, Undecided};
use crate::fault::undecided;
use crate::resource::{GROUP, PLURAL, VERSION};

/// Whether the cluster says that it lacks the type.
pub(super) async fn is_absent(client: &Client) -> bool {
    if !may_be_complete(client).await {
        return false;
    }
    let version = format!("{GROUP}/{VERSION}");
    match client.list_api_groups().await {
        // Each server has some groups: one without any is none.
        Ok(list) if list.groups.is_empty() => false,
        Ok(list) => {
            let mut versions = list.groups.iter().flat_map(|group| &group.versions);
            !versions.any(|served| served.group_version == version) || lacks_type(client, &version).await
        }
        Err(error) => is_forbidden(&error),
    }
}

async fn lacks_type(client: &Client, version: &str) -> bool {
    match client.list_api_group_resources(version).await {
        Ok(list) => list.group_version == version && list.resources.iter().all(|resource| resource.name != PLURAL),
        Err(error) => is_forbidden(&error),
    }
}

/// Who may not ask what there is has the first answer to go by.
fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// Whether the server does not say that it starts. It may be that nobody is allowed to ask that.
async fn may_be_complete(client: &Client) -> bool {
    let Ok(request) = http::Request::get(READY).body(Vec::new()) else { return false };
    match client.request_text(request).await {
        Ok(_) => true,
        // Something before it may pass no such question on.
        Err(kube::Error::Api(status)) => (400..500).contains(&status.code) && status.code != 429,
        Err(error) => undecided(&error) == Some(Undecided::Silent),
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::StreamExt;
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::BoxError;

    use super::*;
    use crate::config::Mode;
    use crate::reflector::{Told, follow};
    use crate::resource::KIND;
    use crate::source::{Ways, legs};

    /// What is said of each path, and of all others.
    #[derive(Clone, Default)]
    struct Says {
        ready: Option<u16>,
        groups: Option<(u16, String)>,
        resources: Option<(u16, String)>,
    }

    const NOT_FOUND: (u16, &str) = (404, "404 page not found");

    fn client(says: Says) -> Client {
        let server = tower::service_fn(move |request: Request<Body>| {
            let resources = format!("/apis/{GROUP}/{VERSION}");
            let (code, text) = match request.uri().path() {
                "/readyz" => (says.ready.unwrap_or(404), "ok".to_owned()),
                "/apis" => says.groups.clone().unwrap_or((NOT_FOUND.0, NOT_FOUND.1.to_owned())),
                path if path == resources => says.resources.clone().unwrap_or((NOT_FOUND.0, NOT_FOUND.1.to_owned())),
                _ => (NOT_FOUND.0, NOT_FOUND.1.to_owned()),
            };
            async move {
                let response = Response::builder().status(code).body(Body::from(text.into_bytes()));
                response.map_err(BoxError::from)
            }
        });
        Client::new(server, "default")
    }

    fn groups(listed: &[(&str, &str)]) -> Option<(u16, String)> {
        let group = |(name, version): &(&str, &str)| {
            let version = json!({ "groupVersion": format!("{name}/{version}"), "version": version });
            json!({ "name": name, "versions": [version], "preferredVersion": version })
        };
        let groups: Vec<Value> = listed.iter().map(group).collect();
        Some((200, json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }).to_string()))
    }

    fn resources(plurals: &[&str]) -> Option<(u16, String)> {
        let resource = |plural: &&str| json!({ "name": plural, "singularName": "", "namespaced": true, "kind": "Kind", "verbs": ["list"] });
        let resources: Vec<Value> = plurals.iter().map(resource).collect();
        let list = json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"), "resources": resources,
        });
        Some((200, list.to_string()))
    }

    #[tokio::test]
    async fn only_a_list_that_lacks_the_type_says_that_it_is_absent() {
        let apps = ("apps", "v1");
        let refused = |code: u16| Some((code, "no".to_owned()));
        let nothing = || Some((200, "{}".to_owned()));
        let html = || Some((200, "<html></html>".to_owned()));
        let ready = Some(200);
        let cases: Vec<(&str, Says, bool)> = vec![
            ("a proxy that has lost the server", Says::default(), false),
            ("one that says 503", Says { ready: Some(503), groups: refused(503), resources: refused(503) }, false),
            ("one that shows a page", Says { ready, groups: html(), resources: html() }, false),
            ("one that says nothing", Says { ready, groups: nothing(), resources: nothing() }, false),
            ("no group", Says { ready, groups: groups(&[apps]), ..Says::default() }, true),
            (
                "another version of the group",
                Says { ready, groups: groups(&[apps, (GROUP, "v1")]), ..Says::default() },
                true,
            ),
            (
                "another type of the group",
                Says { ready, groups: groups(&[apps, (GROUP, VERSION)]), resources: resources(&["others"]) },
                true,
            ),
            (
                "the type",
                Says { ready, groups: groups(&[apps, (GROUP, VERSION)]), resources: resources(&["others", PLURAL]) },
                false,
            ),
            (
                "a group whose types are not known yet",
                Says { ready, groups: groups(&[apps, (GROUP, VERSION)]), ..Says::default() },
                false,
            ),
            ("a server that starts", Says { ready: Some(500), groups: groups(&[apps]), ..Says::default() }, false),
            ("nobody says whether it starts", Says { groups: groups(&[apps]), ..Says::default() }, true),
            // Who may not ask has the first answer to go by.
            ("not allowed", Says { ready, groups: refused(403), resources: refused(403) }, true),
        ];
        for (what, says, wanted) in cases {
            assert_eq!(is_absent(&client(says)).await, wanted, "{what}");
        }
    }

    /// A server that has one resource until the watch ends, and from then on is hidden by a proxy that does not find it.
    #[tokio::test]
    async fn a_proxy_that_has_lost_the_server_empties_no_view() {
        let is_lost = Arc::new(AtomicBool::new(false));
        let server = tower::service_fn(move |request: Request<Body>| {
            let is_watch = request.uri().query().is_some_and(|query| query.contains("sendInitialEvents=true"));
            let (code, text) = if !is_watch || is_lost.swap(true, Ordering::Relaxed) {
                (NOT_FOUND.0, NOT_FOUND.1.to_owned())
            } else {
                let object = |metadata: Value| json!({ "apiVersion": "nvidia.com/v1alpha1", "kind": KIND, "metadata": metadata });
                let one = object(json!({ "name": "one", "namespace": "default", "resourceVersion": "3" }));
                let complete =
                    json!({ "resourceVersion": "7", "annotations": { "k8s.io/initial-events-end": "true" } });
                let events = [("ADDED", one), ("BOOKMARK", object(complete))];
                let event = |(kind, object)| format!("{}\n", json!({ "type": kind, "object": object }));
                (200, events.map(event).concat())
            };
            async move {
                let response = Response::builder().status(code).body(Body::from(text.into_bytes()));
                response.map_err(BoxError::from)
            }
        });
        let client = Client::new(server, "default");
        let ways = Ways { requests: client.clone(), watches: client };
        let [records, _] = legs(&ways, Some("default"), Mode::Pod, false);
        let mut told = follow(records.source, Arc::default()).filter(|told| ready(!matches!(told, Told::Reading)));
        assert!(matches!(told.next().await, Some(Told::All { objects, .. }) if objects.len() == 1));
        for _ in 0..3 {
            let next = told.next().await;
            assert!(matches!(next, Some(Told::Interrupted(_))), "{next:?}");
        }
    }
}
