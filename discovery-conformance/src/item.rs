//! The record that the cases register.

use discovery_core::{InstanceId, Key, Path, Record, Result};
use serde::{Deserialize, Serialize};

/// A record of the suite: a place, a number that cases change, and padding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The segments of its path.
    pub place: Vec<String>,
    /// The id it stands under, where it is not its owner's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<u64>,
    /// Its suffix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// What cases change.
    pub n: u64,
    /// What makes it large.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pad: String,
}

impl Item {
    /// An item at some segments, its number 0.
    pub fn at<S: Into<String>>(place: impl IntoIterator<Item = S>) -> Self {
        let place = place.into_iter().map(Into::into).collect();
        Self { place, instance: None, suffix: None, n: 0, pad: String::new() }
    }

    /// With another number.
    pub fn n(mut self, n: u64) -> Self {
        self.n = n;
        self
    }

    /// Under an id of its own.
    pub fn id(mut self, instance: u64) -> Self {
        self.instance = Some(instance);
        self
    }

    /// With a suffix.
    pub fn suffixed(mut self, suffix: impl Into<String>) -> Self {
        self.suffix = Some(suffix.into());
        self
    }

    /// With this many bytes of padding.
    pub fn padded(mut self, bytes: usize) -> Self {
        self.pad = "x".repeat(bytes);
        self
    }

    /// The key under `instance`, or under its own id.
    ///
    /// # Errors
    /// Where the place or the suffix cannot be part of a key.
    pub fn key(&self, instance: InstanceId) -> Result<Key> {
        let key = Key::new(self.path()?, self.instance.map_or(instance, InstanceId));
        match &self.suffix {
            Some(suffix) => key.with_suffix(suffix),
            None => Ok(key),
        }
    }
}

impl Record for Item {
    const KIND: &'static str = "item";

    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, &self.place)
    }

    fn suffix(&self) -> Option<&str> {
        self.suffix.as_deref()
    }

    fn instance(&self) -> Option<InstanceId> {
        self.instance.map(InstanceId)
    }
}
