//! kube's client as one uses it directly: both resources, kept in maps.

use std::collections::HashMap;

use discovery_k8s::DISCOVERY_LABEL;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;

use crate::{Outcome, fleet};

/// As many as the backend asks for.
const PAGE: u32 = 500;

fn label() -> String {
    format!("{DISCOVERY_LABEL}=true")
}

/// The names of the pods that a slice says are ready.
pub(crate) fn ready(slice: &EndpointSlice) -> impl Iterator<Item = &str> {
    let ready = slice.endpoints.iter().filter(|endpoint| {
        endpoint.conditions.as_ref().is_some_and(|is| is.ready == Some(true) && is.terminating != Some(true))
    });
    ready.filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.as_deref())
}

pub(crate) struct Objects<K> {
    api: Api<K>,
    labels: Option<String>,
    pub(crate) known: HashMap<String, K>,
    version: String,
}

pub(crate) fn slices(client: &Client, namespace: &str) -> Objects<EndpointSlice> {
    Objects::new(Api::namespaced(client.clone(), namespace), Some(label()))
}

pub(crate) fn resources(client: &Client, namespace: &str) -> Objects<DynamicObject> {
    Objects::new(fleet::resources(client, namespace), None)
}

impl<K: Clone + std::fmt::Debug + DeserializeOwned + ResourceExt + Send + 'static> Objects<K> {
    fn new(api: Api<K>, labels: Option<String>) -> Self {
        Self { api, labels, known: HashMap::new(), version: String::new() }
    }

    /// Reads all pages.
    pub(crate) async fn list(&mut self) -> Outcome {
        let mut params = ListParams { label_selector: self.labels.clone(), ..ListParams::default() }.limit(PAGE);
        loop {
            let page = self.api.list(&params).await?;
            self.version = page.metadata.resource_version.unwrap_or_default();
            self.known.extend(page.items.into_iter().map(|object| (object.name_any(), object)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    pub(crate) async fn watch(&self) -> Outcome<BoxStream<'static, kube::Result<WatchEvent<K>>>> {
        let params = WatchParams { label_selector: self.labels.clone(), ..WatchParams::default() };
        Ok(self.api.watch(&params, &self.version).await?.boxed())
    }

    pub(crate) fn hear(&mut self, event: WatchEvent<K>) -> Outcome {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                self.known.insert(object.name_any(), object);
            }
            WatchEvent::Deleted(object) => drop(self.known.remove(&object.name_any())),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => return Err(status.message.clone().into()),
        }
        Ok(())
    }
}
