//! Everything that decides what is discovered, read once: for explanations and for the doctor.

use std::fmt::Debug;
use std::time::Duration;

use discovery_core::{Environment, Error, ErrorKind, Result};
use futures_util::future;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, ListParams};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::bounds::RECOVERY;
use crate::client;
use crate::config::{Config, Mode, Namespaces};
use crate::fault::{Request, is_missing_resource, qualified};
use crate::reflector::PAGE;
use crate::resource::Resource;

/// How long one request may take.
const REQUEST: Duration = RECOVERY;

/// A cluster, to be looked at. Nothing here writes.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) client: Client,
    pub(crate) config: Config,
}

/// What was read of some namespaces: services, endpoint slices, pods, and the resources that hold records.
#[derive(Debug, Default)]
pub struct Survey {
    /// Those that were looked at; none for the whole cluster.
    pub(crate) namespaces: Vec<String>,
    pub(crate) mode: Mode,
    pub(crate) unknown_is_ready: bool,
    pub(crate) services: Part<Service>,
    pub(crate) slices: Part<EndpointSlice>,
    pub(crate) pods: Part<Pod>,
    pub(crate) resources: Part<Resource>,
}

/// Objects of one type, and where they could not be read.
#[derive(Debug)]
pub(crate) struct Part<K> {
    pub(crate) objects: Vec<K>,
    pub(crate) unread: Vec<Unread>,
}

/// A namespace, or the whole cluster, whose objects of one type could not be read.
#[derive(Clone, Debug)]
pub(crate) struct Unread {
    pub(crate) namespace: Option<String>,
    /// The cluster lacks the type.
    pub(crate) is_absent: bool,
    pub(crate) error: Error,
}

impl<K> Default for Part<K> {
    fn default() -> Self {
        Self { objects: Vec::new(), unread: Vec::new() }
    }
}

impl<K> Part<K> {
    /// Why the objects of a namespace are not known.
    pub(crate) fn unread(&self, namespace: &str) -> Option<&Unread> {
        self.unread.iter().find(|unread| unread.namespace.as_deref().is_none_or(|name| name == namespace))
    }

    fn add(&mut self, namespace: Option<&str>, read: Result<Vec<K>, (bool, Error)>) {
        match read {
            Ok(objects) => self.objects.extend(objects),
            Err((is_absent, error)) => {
                self.unread.push(Unread { namespace: namespace.map(str::to_owned), is_absent, error });
            }
        }
    }
}

impl Survey {
    /// Why nothing at all could be read, where that is so.
    pub fn unreadable(&self) -> Option<&Error> {
        fn nothing<K>(part: &Part<K>) -> Option<&Unread> {
            part.unread.first().filter(|_| part.objects.is_empty())
        }
        let parts = [nothing(&self.pods), nothing(&self.services), nothing(&self.slices), nothing(&self.resources)];
        let unread: Option<Vec<&Unread>> = parts.into_iter().collect();
        unread?.first().map(|unread| &unread.error)
    }
}

impl Cluster {
    /// The cluster that the environment names. Asks nothing of it yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a malformed setting, and where no cluster is named.
    pub async fn connect(environment: &Environment) -> Result<Self> {
        let opened = async {
            let config = Config::from_environment(environment)?;
            let settings = client::settings(environment).await?;
            Ok(Self { client: client::client(&settings)?, config })
        };
        opened.await.map_err(|error: Error| error.with_backend(crate::NAME).with_operation("connect"))
    }

    /// The namespaces that are watched with these settings.
    pub fn namespaces(&self) -> Namespaces {
        let own = || match &self.config.identity {
            Ok(identity) => identity.namespace.clone(),
            Err(_) => self.client.default_namespace().to_owned(),
        };
        self.config.namespaces.clone().unwrap_or_else(|| Namespaces::Named(vec![own()]))
    }

    /// Reads what decides over the pods of the watched namespaces, or of `pod` where this identity may not list pods.
    /// What cannot be read is remembered as such: explanations go on with the rest. Cancel-safe.
    pub async fn survey(&self, pod: Option<&str>) -> Survey {
        let named = match self.namespaces() {
            Namespaces::All => Vec::new(),
            Namespaces::Named(names) => names,
        };
        let mut survey = Survey {
            mode: self.config.mode,
            unknown_is_ready: self.config.unknown_is_ready,
            namespaces: named.clone(),
            ..Survey::default()
        };
        let all = named.is_empty().then_some(None);
        for namespace in named.iter().map(|name| Some(name.as_str())).chain(all) {
            let kind = qualified();
            let (services, slices, pods, resources) = future::join4(
                list(self.api(namespace), "services", namespace),
                list(self.api(namespace), "endpointslices.discovery.k8s.io/v1", namespace),
                self.pods(pod, namespace),
                list::<Resource>(self.api(namespace), &kind, namespace),
            )
            .await;
            survey.services.add(namespace, services);
            survey.slices.add(namespace, slices);
            survey.pods.add(namespace, pods);
            survey.resources.add(namespace, resources);
        }
        survey
    }

    fn api<K>(&self, namespace: Option<&str>) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// All pods, or where these may not be listed the one.
    async fn pods(&self, pod: Option<&str>, namespace: Option<&str>) -> Result<Vec<Pod>, (bool, Error)> {
        let listed = list(self.api(namespace), "pods", namespace).await;
        match (listed, pod, namespace) {
            (Err((_, error)), Some(pod), Some(_)) if error.kind() == ErrorKind::PermissionDenied => {
                let asked = Request { verb: "get", resource: "pods", namespace };
                let found = answer(asked, self.api::<Pod>(namespace).get_opt(pod)).await?;
                Ok(found.into_iter().collect())
            }
            (listed, ..) => listed,
        }
    }
}

async fn list<K>(api: Api<K>, resource: &str, namespace: Option<&str>) -> Result<Vec<K>, (bool, Error)>
where
    K: Clone + Debug + DeserializeOwned,
{
    let asked = Request { verb: "list", resource, namespace };
    let mut params = ListParams::default().limit(PAGE);
    let mut objects = Vec::new();
    loop {
        let page = answer(asked, api.list(&params)).await?;
        objects.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(objects),
        }
    }
}

/// The answer, or whether the cluster lacks the type and what the failure means.
pub(crate) async fn answer<T>(
    asked: Request<'_>,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, (bool, Error)> {
    match timeout(REQUEST, request).await {
        Err(_) => {
            let text = format!("the API server did not answer within {REQUEST:?}");
            Err((false, Error::new(ErrorKind::Timeout, text)))
        }
        Ok(Err(error)) => {
            let is_absent = matches!(&error, kube::Error::Api(status) if is_missing_resource(status));
            Err((is_absent, asked.fault(error)))
        }
        Ok(Ok(answer)) => Ok(answer),
    }
}
