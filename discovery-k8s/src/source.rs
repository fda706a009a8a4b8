//! The API server as the source of a reflector.

use std::collections::HashMap;
use std::fmt::Debug;
use std::num::ParseIntError;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use async_trait::async_trait;
use discovery_core::{Error, ErrorKind};
use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::{ObjectList, Status};
use kube::{Api, Client};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::Mode;
use crate::document::Document;
use crate::fault::{Request, is_behind, is_missing_resource, qualified};
use crate::join::{Object, Side, Stored};
use crate::readiness::{self, Ref};
use crate::reflector::{Cause, Event, Events, Failure, Page, Part, Seen, Source, Start};
use crate::resource::{self, Resource, pod_owner, selector};

mod absence;

/// The annotation of the bookmark that ends the first events of a streamed list.
const COMPLETE: &str = "k8s.io/initial-events-end";

/// The names and versions of all objects at one version of the list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census {
    pub(crate) version: u64,
    pub(crate) objects: HashMap<Ref, u64>,
}

/// An object of which only that is known.
#[derive(Clone, Deserialize)]
pub(crate) struct Named {
    #[serde(deserialize_with = "resource::metadata")]
    metadata: ObjectMeta,
}

/// A source that can also be counted.
#[async_trait]
pub(crate) trait Counted: Source {
    /// The names and versions of all objects or of a page of so many, and nothing else of them; and the token of the next page.
    async fn census(&self, part: Part, size: u32) -> Result<(Census, Option<String>), Failure>;

    /// How many names are asked for at a time, 0 for all of them, where they may be many. Whoever counts keeps it.
    fn names_at_a_time(&self) -> Option<&AtomicU32> {
        None
    }
}

/// One side of the join, in one namespace or in all.
#[derive(Clone)]
pub(crate) struct Leg {
    pub(crate) side: Side,
    pub(crate) namespace: Option<Arc<str>>,
    pub(crate) source: Arc<dyn Counted>,
    /// Whether owners go from one of its objects to another.
    pub(crate) is_dealt_out: bool,
}

/// Ways to the API server: requests go by one, and watches, which hold a stream of a connection each, by another where
/// they are many.
#[derive(Clone)]
pub(crate) struct Ways {
    pub(crate) requests: Client,
    pub(crate) watches: Client,
}

/// Both sides of one namespace, or of all: two watches.
pub(crate) fn legs(ways: &Ways, namespace: Option<&str>, mode: Mode, unknown_is_ready: bool) -> [Leg; 2] {
    let read = |resource: Resource| Object::Records(stored(&resource));
    let records = Objects::new(ways, namespace, Side::Records, &qualified(), read).in_pages();
    let ready: Arc<dyn Counted> = match mode {
        Mode::Pod => {
            let read = move |slice: EndpointSlice| Object::Ready(readiness::of_slice(&slice, unknown_is_ready));
            Arc::new(Objects::new(ways, namespace, Side::Readiness, "endpointslices.discovery.k8s.io/v1", read))
        }
        Mode::Container => {
            let read = |pod: Pod| Object::Ready(readiness::of_pod(&pod));
            Arc::new(Objects::new(ways, namespace, Side::Readiness, "pods", read).in_pages())
        }
    };
    let leg = |side, source, is_dealt_out| Leg { side, namespace: namespace.map(Arc::from), source, is_dealt_out };
    [leg(Side::Records, Arc::new(records), false), leg(Side::Readiness, ready, mode == Mode::Pod)]
}

/// What a resource holds and whose it is.
pub(crate) fn stored(resource: &Resource) -> Stored {
    Stored {
        uid: resource.metadata.uid.as_deref().unwrap_or_default().into(),
        owner: pod_owner(&resource.metadata).map(|owner| owner.uid.as_str().into()),
        document: resource.data().map(|data| Arc::new(Document::of(&data))),
    }
}

struct Objects<K> {
    client: Client,
    api: Api<K>,
    /// The same, for watches.
    watched: Api<K>,
    selector: Option<String>,
    side: Side,
    /// None where they are few: a slice holds a hundred owners. A server before Kubernetes 1.34 reads pages past its cache.
    names_at_a_time: Option<AtomicU32>,
    reader: Arc<Reader<K>>,
}

/// Makes sense of answers.
struct Reader<K> {
    /// As rules of a Role name it.
    resource: String,
    namespace: Option<String>,
    read: Box<dyn Fn(K) -> Object + Send + Sync>,
}

impl<K> Objects<K>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    fn new(
        ways: &Ways,
        namespace: Option<&str>,
        side: Side,
        resource: &str,
        read: impl Fn(K) -> Object + Send + Sync + 'static,
    ) -> Self {
        let api = |client: &Client| match namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        Self {
            client: ways.requests.clone(),
            api: api(&ways.requests),
            watched: api(&ways.watches),
            // Resources with records have no label.
            selector: (side == Side::Readiness).then(selector),
            side,
            names_at_a_time: None,
            reader: Arc::new(Reader::new(resource, namespace, read)),
        }
    }

    /// There may be many of them.
    fn in_pages(self) -> Self {
        Self { names_at_a_time: Some(AtomicU32::new(0)), ..self }
    }
}

impl<K: kube::Resource> Objects<K> {
    fn page_params(&self, part: &Part, size: u32) -> ListParams {
        let params = ListParams { label_selector: self.selector.clone(), ..ListParams::default() };
        match part {
            Part::First => params.limit(size),
            Part::Next(token) => params.limit(size).continue_token(token),
            Part::Whole => params,
        }
    }

    /// A list of what the objects are called. [`Api::list_metadata`] reads their `managedFields` too.
    async fn names(&self, params: &ListParams) -> Result<ObjectList<Named>, Failure> {
        let request = kube::core::Request::new(self.api.resource_url()).list_metadata(params);
        let listed = match request.map_err(kube::Error::BuildRequest) {
            Ok(request) => self.client.request(request).await,
            Err(error) => Err(error),
        };
        listed.map_err(|error| self.reader.failure("list", error))
    }
}

impl<K> Reader<K> {
    fn new(resource: &str, namespace: Option<&str>, read: impl Fn(K) -> Object + Send + Sync + 'static) -> Self {
        Self { resource: resource.to_owned(), namespace: namespace.map(str::to_owned), read: Box::new(read) }
    }

    fn failure(&self, verb: &'static str, error: kube::Error) -> Failure {
        let cause = match &error {
            kube::Error::Api(status) => cause(status),
            _ => Cause::Other,
        };
        let request = Request { verb, resource: &self.resource, namespace: self.namespace.as_deref() };
        Failure { cause, error: request.fault(error) }
    }
}

fn cause(status: &Status) -> Cause {
    match status.code {
        410 => Cause::Gone,
        _ if matches!(status.reason.as_str(), "Expired" | "Gone") => Cause::Gone,
        _ if is_behind(status) => Cause::Behind,
        404 if is_missing_resource(status) => Cause::Absent,
        _ => Cause::Other,
    }
}

fn version_of(text: Option<&str>) -> Result<u64, Failure> {
    // Comparable as numbers within one resource type: promised by the API since Kubernetes 1.35 (KEP-5504), and so
    // for as long as it has stood on etcd.
    text.unwrap_or_default().parse().map_err(|error: ParseIntError| {
        let what = format!("the resource version {text:?} is no number: please report it");
        Failure { cause: Cause::Other, error: Error::new(ErrorKind::Internal, what).with_source(error) }
    })
}

fn next_of(token: Option<String>) -> Option<String> {
    token.filter(|token| !token.is_empty())
}

fn name_of(metadata: &ObjectMeta) -> Ref {
    Ref::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

impl<K: kube::Resource> Reader<K> {
    fn seen(&self, object: K) -> Result<Seen, Failure> {
        let name = name_of(object.meta());
        let version = version_of(object.meta().resource_version.as_deref())?;
        Ok(Seen { name, version, object: (self.read)(object) })
    }

    fn event(&self, event: WatchEvent<K>) -> Result<Event, Failure> {
        Ok(match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => Event::Put(self.seen(object)?),
            WatchEvent::Deleted(object) => {
                Event::Gone(name_of(object.meta()), version_of(object.meta().resource_version.as_deref())?)
            }
            WatchEvent::Bookmark(bookmark) => Event::Bookmark {
                version: version_of(Some(&bookmark.metadata.resource_version))?,
                complete: bookmark.metadata.annotations.get(COMPLETE).is_some_and(|complete| complete == "true"),
            },
            WatchEvent::Error(status) => return Err(self.failure("watch", kube::Error::Api(status))),
        })
    }
}

#[async_trait]
impl<K> Source for Objects<K>
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    async fn list(&self, part: Part, size: u32) -> Result<Page, Failure> {
        let list: ObjectList<K> =
            self.api.list(&self.page_params(&part, size)).await.map_err(|error| self.reader.failure("list", error))?;
        let version = version_of(list.metadata.resource_version.as_deref())?;
        let next = next_of(list.metadata.continue_);
        let objects = list.items.into_iter().map(|object| self.reader.seen(object)).collect::<Result<_, _>>()?;
        Ok(Page { objects, version, next })
    }

    async fn watch(&self, start: Start) -> Result<Events, Failure> {
        let mut params = WatchParams { label_selector: self.selector.clone(), ..WatchParams::default() };
        let version = match start {
            Start::After(version) => version.to_string(),
            // No version: as new as the moment of the request. Version 0 would be as old as a server's cache.
            Start::Everything => {
                params = params.initial_events();
                String::new()
            }
        };
        let opened = self.watched.watch(&params, &version).await;
        let events = opened.map_err(|error| {
            let is_refused = matches!(&error, kube::Error::Api(status) if matches!(status.code, 400 | 422));
            let failure = self.reader.failure("watch", error);
            if is_refused && start == Start::Everything {
                return Failure { cause: Cause::NoStreaming, ..failure };
            }
            failure
        })?;
        let reader = Arc::clone(&self.reader);
        let read = move |event: Result<_, _>| match event {
            Ok(event) => reader.event(event),
            Err(error) => Err(reader.failure("watch", error)),
        };
        Ok(events.map(read).boxed())
    }

    async fn version(&self) -> Result<u64, Failure> {
        let params = ListParams { label_selector: self.selector.clone(), ..ListParams::default() }.limit(1);
        let list = self.names(&params).await?;
        version_of(list.metadata.resource_version.as_deref())
    }

    async fn is_absent(&self) -> bool {
        self.side == Side::Records && absence::is_absent(&self.client).await
    }
}

#[async_trait]
impl<K> Counted for Objects<K>
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    async fn census(&self, part: Part, size: u32) -> Result<(Census, Option<String>), Failure> {
        let list = self.names(&self.page_params(&part, size)).await?;
        let version = version_of(list.metadata.resource_version.as_deref())?;
        let object = |metadata: &ObjectMeta| Ok((name_of(metadata), version_of(metadata.resource_version.as_deref())?));
        let objects = list.items.iter().map(|item| object(&item.metadata)).collect::<Result<_, Failure>>()?;
        Ok((Census { version, objects }, next_of(list.metadata.continue_)))
    }

    fn names_at_a_time(&self) -> Option<&AtomicU32> {
        self.names_at_a_time.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u16, reason: &str, message: &str, details: serde_json::Value) -> Cause {
        let status = serde_json::json!({
            "status": "Failure", "code": code, "reason": reason, "message": message, "details": details,
        });
        cause(&serde_json::from_value(status).unwrap())
    }

    #[test]
    fn what_an_answer_means_for_a_watch() {
        let none = serde_json::json!({});
        let named = serde_json::json!({ "name": "one" });
        let ahead = serde_json::json!({ "causes": [{ "reason": "ResourceVersionTooLarge", "message": "" }] });
        for (code, reason, message, details, wanted) in [
            (410, "Expired", "too old resource version: 1 (2)", &none, Cause::Gone),
            (410, "Gone", "the provided continue parameter is too old", &none, Cause::Gone),
            (410, "", "etcdserver: mvcc: required revision has been compacted", &none, Cause::Gone),
            // In a watch that goes on, the reason alone has to do where a proxy or an old server set no code.
            (0, "Expired", "", &none, Cause::Gone),
            (0, "Gone", "", &none, Cause::Gone),
            (500, "Expired", "", &none, Cause::Gone),
            (504, "Timeout", "", &ahead, Cause::Behind),
            (504, "Timeout", "Too large resource version: 9, current: 1", &none, Cause::Behind),
            (404, "NotFound", "the server could not find the requested resource", &none, Cause::Absent),
            (404, "NotFound", "", &named, Cause::Other),
            (504, "Timeout", "", &none, Cause::Other),
            (403, "Forbidden", "", &none, Cause::Other),
            (500, "InternalError", "", &none, Cause::Other),
        ] {
            assert_eq!(
                answered(code, reason, message, details.clone()),
                wanted,
                "{code} {reason} {message:?} {details}"
            );
        }
    }
}
