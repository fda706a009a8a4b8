//! Models: what an instance serves at an endpoint.

use std::borrow::Cow;

use bytes::Bytes;
use discovery_core::{Error, ErrorKind, Key, Path, Query, Record, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::card::{self, Identity};
use crate::endpoint::Endpoint;
use crate::names::Names;
use crate::wire;

/// An instance serves a model at the endpoint `namespace/component/endpoint`.
///
/// Stored under the id of its owner. The card is Dynamo's model deployment card; of it, discovery reads `display_name`,
/// which is required, `source_path`, `aliases`, `lora` and `runtime_config`. An adapter (LoRA) is registered with a
/// suffix, beside its base model.
///
/// **Updates.** A registered model changes only in `runtime_config.taints`, by [`Model::with_taints`]. Every other
/// update is [`Refused`](ErrorKind::Refused): deregister and register again. Taints are kept sorted, each once. Those
/// that read `dynamo.topology/{domain}={value}` follow from `runtime_config.topology_domains`: they are always there
/// and cannot be set.
///
/// **Neighbours.** The models of one endpoint agree, whoever registers them, or the registration is a
/// [`Conflict`](ErrorKind::Conflict). The base identity of a model is its `source_path`, or else its `display_name`.
/// - Two base models have one `display_name`, or else one `source_path` and no alias that the other goes by too.
/// - An adapter and a base model have one base identity, and the adapter a name that the base model does not go by.
/// - Two adapters have one base identity.
///
/// ```
/// use discovery_core::{ErrorKind, Record};
/// use discovery_dynamo::Model;
/// use serde_json::json;
///
/// let base = Model::new("dynamo", "backend", "generate", json!({
///     "display_name": "Qwen/Qwen3-0.6B",
///     "runtime_config": { "topology_domains": { "zone": "a" } },
/// }));
/// let adapter = Model::new("dynamo", "backend", "generate", json!({
///     "display_name": "sql",
///     "source_path": "Qwen/Qwen3-0.6B",
/// }))
/// .adapter("sql");
/// adapter.check_beside(&base)?;
///
/// let tainted = base.with_taints(["draining"])?;
/// base.check_update(&tainted)?;
/// assert!(tainted.taints().eq(["draining", "dynamo.topology/zone=a"]));
///
/// let other = Model::new("dynamo", "backend", "generate", json!({ "display_name": "other/model" }));
/// assert_eq!(other.check_beside(&base).unwrap_err().kind(), ErrorKind::Conflict);
/// assert_eq!(base.check_update(&other).unwrap_err().kind(), ErrorKind::Refused);
/// # Ok::<_, discovery_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    names: Names,
    card: Value,
    suffix: Option<String>,
}

impl Model {
    /// A base model with this card.
    ///
    /// A card that cannot be registered, as without a `display_name`, is refused by [`Record::encode`], before
    /// anything is written.
    pub fn new(
        namespace: impl Into<String>,
        component: impl Into<String>,
        endpoint: impl Into<String>,
        card: impl Into<Value>,
    ) -> Self {
        let card = card.into();
        let card = card::canonical(card.clone()).unwrap_or(card);
        Self { names: Names::new(namespace, component, endpoint), card, suffix: None }
    }

    /// The same model as an adapter: `suffix` tells it from its base model and from other adapters of its instance.
    pub fn adapter(mut self, suffix: impl Into<String>) -> Self {
        self.suffix = Some(suffix.into());
        self
    }

    /// The same model with these taints, and those that follow from its topology domains.
    ///
    /// # Errors
    /// [`Refused`](ErrorKind::Refused) where a taint starts with `dynamo.topology/`, or where the card has no
    /// `runtime_config` to hold taints; [`InvalidValue`](ErrorKind::InvalidValue) where its topology domains are no
    /// object of strings.
    pub fn with_taints<T: Into<String>>(&self, taints: impl IntoIterator<Item = T>) -> Result<Self> {
        let taints = taints.into_iter().map(Into::into).collect();
        Ok(Self { card: card::with_taints(self.card.clone(), taints)?, ..self.clone() })
    }

    /// Every model in `namespace`.
    pub fn in_namespace(namespace: impl Into<String>) -> Query {
        Endpoint::in_namespace(namespace)
    }

    /// Every model of `component`.
    pub fn in_component(namespace: impl Into<String>, component: impl Into<String>) -> Query {
        Endpoint::in_component(namespace, component)
    }

    /// Every model of one endpoint.
    pub fn at(namespace: impl Into<String>, component: impl Into<String>, endpoint: impl Into<String>) -> Query {
        Endpoint::at(namespace, component, endpoint)
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.names.all()[0]
    }

    /// The component.
    pub fn component(&self) -> &str {
        self.names.all()[1]
    }

    /// The endpoint's own name.
    pub fn endpoint(&self) -> &str {
        self.names.all()[2]
    }

    /// The card.
    pub fn card(&self) -> &Value {
        &self.card
    }

    /// The name that users ask for.
    pub fn display_name(&self) -> &str {
        self.card.get("display_name").and_then(Value::as_str).unwrap_or_default()
    }

    /// The taints, those that follow from the topology domains among them.
    pub fn taints(&self) -> impl Iterator<Item = &str> {
        card::taints(&self.card)
    }

    fn identity(&self) -> Result<Identity<'_>> {
        Identity::of(&self.card, self.suffix.is_some())
    }
}

impl Record for Model {
    const KIND: &'static str = "model";

    fn path(&self) -> Result<Path> {
        if let Some(suffix) = &self.suffix {
            wire::check_plain("suffix", suffix)?;
        }
        self.names.path(Self::KIND)
    }

    fn suffix(&self) -> Option<&str> {
        self.suffix.as_deref()
    }

    fn encode(&self, key: &Key) -> Result<Bytes> {
        let at_key = |error: Error| error.with_key(key);
        self.identity().map_err(at_key)?;
        let card_json = card::canonical(self.card.clone()).map_err(at_key)?;
        let wire = Wire { instance_id: Some(key.instance().0), card_json: Cow::Owned(card_json), ..Wire::of(self) };
        wire::write(key, &wire)
    }

    fn decode(key: &Key, value: &[u8]) -> Result<Self> {
        let wire: Wire<'_> = wire::read(key, Self::KIND, value)?;
        let id = wire.instance_id;
        let model = wire.into_model(|names| Names::read(names, key.path()));
        wire::check_key(&model, id, key)?;
        model.identity().map_err(|error| error.with_key(key))?;
        Ok(model)
    }

    fn check_update(&self, next: &Self) -> Result<()> {
        let same_place = (&self.names, &self.suffix) == (&next.names, &next.suffix);
        if same_place && card::equal_but_for_taints(&self.card, &next.card) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Refused,
            format!(
                "the registered model {:?} may change in `runtime_config.taints` only: deregister it and register the new one",
                self.display_name()
            ),
        ))
    }

    fn neighbours(&self) -> Option<Query> {
        let [namespace, component, endpoint] = self.names.all();
        Some(Self::at(namespace, component, endpoint))
    }

    fn check_beside(&self, other: &Self) -> Result<()> {
        let (own, others) = (self.identity()?, other.identity()?);
        let Some(reason) = own.conflict_with(&others) else { return Ok(()) };
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "the model {:?} cannot join {:?}, which is registered at the endpoint {:?}: {reason}",
                own.display_name, others.display_name, self.names
            ),
        ))
    }
}

impl Serialize for Model {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Wire::of(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Wire::deserialize(deserializer).map(|wire| wire.into_model(Names::own))
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Tag {
    Model,
}

/// The stored fields, in their order.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    r#type: Tag,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    component: Cow<'a, str>,
    #[serde(borrow)]
    endpoint: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance_id: Option<u64>,
    card_json: Cow<'a, Value>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    model_suffix: Option<Cow<'a, str>>,
}

impl<'a> Wire<'a> {
    fn of(model: &'a Model) -> Self {
        let [namespace, component, endpoint] = model.names.all().map(Cow::Borrowed);
        Self {
            r#type: Tag::Model,
            namespace,
            component,
            endpoint,
            instance_id: None,
            card_json: Cow::Borrowed(&model.card),
            model_suffix: model.suffix.as_deref().map(Cow::Borrowed),
        }
    }

    fn into_model(self, names: impl FnOnce([Cow<'a, str>; 3]) -> Names) -> Model {
        Model {
            names: names([self.namespace, self.component, self.endpoint]),
            card: self.card_json.into_owned(),
            suffix: self.model_suffix.map(Cow::into_owned),
        }
    }
}
