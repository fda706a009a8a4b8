//! What others do to the resources that hold records.

use bytes::Bytes;
use discovery_core::{Error, ErrorKind, Key, Result};
use discovery_dynamo::layout;
use discovery_k8s::{GROUP, KIND, PLURAL, VERSION};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use serde_json::{Map, Value, json};

use super::namespace::{Made, Namespace};
use crate::client::failed;

/// How often somebody else may come in between.
const TRIES: usize = 100;

pub(super) struct Resources(Api<DynamicObject>);

/// Where a record stands in a resource.
struct Entry {
    collection: String,
    name: String,
}

impl Entry {
    fn of(key: &Key) -> Result<Self> {
        let (collection, name) = layout::kubernetes_entry(key)?;
        Ok(Self { collection, name })
    }

    fn is_in(&self, resource: &DynamicObject) -> bool {
        resource.data["spec"]["data"][&self.collection].get(&self.name).is_some()
    }
}

impl Resources {
    pub(super) fn of(namespace: &Namespace) -> Self {
        let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, KIND), PLURAL);
        Self(Api::namespaced_with(namespace.client().clone(), &namespace.name, &kind))
    }

    /// Makes a resource without records, unless an earlier try did.
    pub(super) async fn make(&self, name: &str, owner: &Made) -> Result<()> {
        let owner = json!({ "apiVersion": "v1", "kind": "Pod", "name": owner.name, "uid": owner.uid });
        let resource = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": KIND,
            "metadata": { "name": name, "ownerReferences": [owner] },
            "spec": { "data": {} },
        });
        let resource = serde_json::from_value(resource).map_err(|error| failed("a resource", error))?;
        let made = self.0.create(&PostParams::default(), &resource).await;
        match made {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            made => made.map(drop).map_err(|error| failed("a resource", error)),
        }
    }

    /// The name of the resource that holds a record of this key.
    pub(super) async fn holder(&self, key: &Key) -> Result<Option<String>> {
        let entry = Entry::of(key)?;
        let all = self.0.list(&ListParams::default()).await.map_err(|error| failed("the resources", error))?;
        Ok(all.items.into_iter().find(|resource| entry.is_in(resource)).and_then(|resource| resource.metadata.name))
    }

    /// Writes a record. What is no JSON becomes text, which is no record either.
    pub(super) async fn write(&self, name: &str, key: &Key, value: &Bytes) -> Result<()> {
        let text = || Value::String(String::from_utf8_lossy(value).into_owned());
        let value = serde_json::from_slice(value).unwrap_or_else(|_| text());
        self.edit(name, key, |entries, name| drop(entries.insert(name.to_owned(), value.clone()))).await
    }

    pub(super) async fn delete(&self, name: &str, key: &Key) -> Result<()> {
        self.edit(name, key, |entries, name| drop(entries.remove(name))).await
    }

    async fn edit(&self, name: &str, key: &Key, change: impl Fn(&mut Map<String, Value>, &str)) -> Result<()> {
        let entry = Entry::of(key)?;
        for _ in 0..TRIES {
            let mut resource = self.0.get(name).await.map_err(|error| failed(name, error))?;
            let entries = &mut resource.data["spec"]["data"][&entry.collection];
            let mut changed = entries.as_object().cloned().unwrap_or_default();
            change(&mut changed, &entry.name);
            *entries = Value::Object(changed);
            match self.0.replace(name, &PostParams::default(), &resource).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                replaced => return replaced.map(drop).map_err(|error| failed(name, error)),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, format!("others keep writing {name}")))
    }
}
