//! What discovery reads of a model's card: its identity, and its taints.

use std::collections::BTreeSet;

use discovery_core::{Error, ErrorKind, Result};
use serde_json::{Map, Value};

/// Taints that start so are derived from `runtime_config.topology_domains`.
pub(crate) const TOPOLOGY_PREFIX: &str = "dynamo.topology/";

const CONFIG: &str = "runtime_config";
const TAINTS: &str = "taints";
const DOMAINS: &str = "topology_domains";

/// Who a model is among the models of its endpoint.
pub(crate) struct Identity<'a> {
    pub(crate) display_name: &'a str,
    source_path: Option<&'a str>,
    aliases: BTreeSet<&'a str>,
    is_adapter: bool,
}

impl<'a> Identity<'a> {
    /// Reads the identity of a card that is registered with or without a suffix.
    pub(crate) fn of(card: &'a Value, has_suffix: bool) -> Result<Self> {
        let text = |name: &str| card.get(name).and_then(Value::as_str);
        let display_name = text("display_name")
            .ok_or_else(|| invalid("the card has no `display_name`: give the model a name there".to_owned()))?;
        let aliases = card.get("aliases").and_then(Value::as_array);
        Ok(Self {
            display_name,
            source_path: text("source_path"),
            aliases: aliases.into_iter().flatten().filter_map(Value::as_str).collect(),
            is_adapter: has_suffix || card.get("lora").is_some_and(|lora| !lora.is_null()),
        })
    }

    fn base(&self) -> &str {
        self.source_path.unwrap_or(self.display_name)
    }

    /// Why the two cannot serve at one endpoint; `None` where they can.
    pub(crate) fn conflict_with(&self, other: &Self) -> Option<&'static str> {
        match (self.is_adapter, other.is_adapter) {
            (true, true) if self.base() == other.base() => None,
            (true, true) => Some("two adapters of one endpoint need the same base model"),
            (true, false) => self.conflict_with_base(other),
            (false, true) => other.conflict_with_base(self),
            (false, false) if self.display_name == other.display_name => None,
            (false, false) if !self.is_same_source(other) => Some("an endpoint serves one base model"),
            (false, false) if self.shares_name_with(other) => Some("an alias of one of them is a name of the other"),
            (false, false) => None,
        }
    }

    fn conflict_with_base(&self, base: &Self) -> Option<&'static str> {
        if self.base() != base.base() {
            Some("an adapter needs the base model of its endpoint")
        } else if self.display_name == base.display_name || base.aliases.contains(self.display_name) {
            Some("an adapter needs a name that its base model does not have")
        } else {
            None
        }
    }

    fn is_same_source(&self, other: &Self) -> bool {
        self.source_path.is_some_and(|path| !path.is_empty()) && self.source_path == other.source_path
    }

    fn shares_name_with(&self, other: &Self) -> bool {
        self.aliases.contains(other.display_name)
            || other.aliases.contains(self.display_name)
            || !self.aliases.is_disjoint(&other.aliases)
    }
}

/// The card as it is stored: taints sorted, each once, the derived ones among them.
pub(crate) fn canonical(mut card: Value) -> Result<Value> {
    if let Some(config) = config_mut(&mut card)? {
        let derived = topology_taints(config)?;
        let given = taints_of(config)?;
        if let Some(stray) = given.iter().flatten().find(|taint| is_reserved(taint) && !derived.contains(*taint)) {
            return Err(invalid(format!(
                "the taint {stray:?} does not follow from `{CONFIG}.{DOMAINS}`: change the domains, or leave it out"
            )));
        }
        if given.is_some() || !derived.is_empty() {
            let all = given.into_iter().flatten().chain(derived).collect();
            set_taints(config, all);
        }
    }
    // Dynamo writes objects in key order, which a build of serde_json with `preserve_order` would not do by itself.
    card.sort_all_objects();
    Ok(card)
}

/// The card with `taints` and the derived ones instead of its present taints.
pub(crate) fn with_taints(mut card: Value, taints: BTreeSet<String>) -> Result<Value> {
    if let Some(reserved) = taints.iter().find(|taint| is_reserved(taint)) {
        return Err(Error::new(
            ErrorKind::Refused,
            format!(
                "the taint {reserved:?} is reserved: `{TOPOLOGY_PREFIX}` taints follow from `{CONFIG}.{DOMAINS}`, leave it out"
            ),
        ));
    }
    let Some(config) = config_mut(&mut card)? else {
        return Err(Error::new(
            ErrorKind::Refused,
            format!("the card has no `{CONFIG}` to hold taints: register it with one, even an empty one"),
        ));
    };
    let derived = topology_taints(config)?;
    set_taints(config, taints.into_iter().chain(derived).collect());
    Ok(card)
}

/// The taints of a card, or none where it has none that can be read.
pub(crate) fn taints(card: &Value) -> impl Iterator<Item = &str> {
    let taints = card.get(CONFIG).and_then(|config| config.get(TAINTS)).and_then(Value::as_array);
    taints.into_iter().flatten().filter_map(Value::as_str)
}

/// Whether two cards are equal but for their taints.
pub(crate) fn equal_but_for_taints(one: &Value, other: &Value) -> bool {
    let without = |card: &Value| {
        let mut card = card.clone();
        if let Some(config) = card.get_mut(CONFIG).and_then(Value::as_object_mut) {
            config.remove(TAINTS);
        }
        card
    };
    one == other || without(one) == without(other)
}

fn is_reserved(taint: &str) -> bool {
    taint.starts_with(TOPOLOGY_PREFIX)
}

fn config_mut(card: &mut Value) -> Result<Option<&mut Map<String, Value>>> {
    match card.get_mut(CONFIG) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(config)) => Ok(Some(config)),
        Some(_) => Err(invalid(format!("`{CONFIG}` of the card is no object"))),
    }
}

fn taints_of(config: &Map<String, Value>) -> Result<Option<BTreeSet<String>>> {
    let wrong = || invalid(format!("`{CONFIG}.{TAINTS}` of the card is no array of strings"));
    let Some(taints) = config.get(TAINTS) else { return Ok(None) };
    let taints = taints.as_array().ok_or_else(wrong)?;
    taints.iter().map(|taint| taint.as_str().map(str::to_owned).ok_or_else(wrong)).collect::<Result<_>>().map(Some)
}

fn set_taints(config: &mut Map<String, Value>, taints: BTreeSet<String>) {
    config.insert(TAINTS.to_owned(), taints.into_iter().map(Value::String).collect());
}

fn topology_taints(config: &Map<String, Value>) -> Result<BTreeSet<String>> {
    let wrong = || invalid(format!("`{CONFIG}.{DOMAINS}` of the card is no object of strings"));
    let domains = match config.get(DOMAINS) {
        None | Some(Value::Null) => return Ok(BTreeSet::new()),
        Some(domains) => domains.as_object().ok_or_else(wrong)?,
    };
    let taint = |(domain, value): (&String, &Value)| {
        let value = value.as_str().ok_or_else(wrong)?;
        Ok(format!("{TOPOLOGY_PREFIX}{}={}", domain.trim(), value.trim()))
    };
    domains.iter().map(taint).collect()
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidValue, message)
}
