//! The settings, from an injected environment.

use discovery_core::{Environment, Error, ErrorKind, Result};

use crate::identity::Identity;

/// The variable that says whether a pod or each of its containers is an instance: `pod` or `container`.
pub const MODE_VARIABLE: &str = "DYN_KUBE_DISCOVERY_MODE";
/// The variable that names the watched namespaces, with commas between them, or `*` for all.
pub const NAMESPACES_VARIABLE: &str = "DYN_DISCOVERY_KUBERNETES_NAMESPACES";
/// The variable that says how an endpoint without `ready` counts: `not-ready` or `ready`.
pub const UNKNOWN_READINESS_VARIABLE: &str = "DYN_DISCOVERY_KUBERNETES_UNKNOWN_READINESS";

/// What an instance is, and where its readiness is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A pod; its readiness is that of its endpoints in EndpointSlices.
    #[default]
    Pod,
    /// A container of a pod; its readiness is that in the pod's status.
    Container,
}

/// Which namespaces are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// These.
    Named(Vec<String>),
    /// The whole cluster.
    All,
}

/// How the backend reads and writes.
#[derive(Clone, Debug)]
pub struct Config {
    /// What an instance is.
    pub mode: Mode,
    /// The namespaces to watch; `None` for the own one.
    pub namespaces: Option<Namespaces>,
    /// Whether an endpoint whose `ready` is absent counts as ready, as the API defines it. `false` is the reference's
    /// reading.
    pub unknown_is_ready: bool,
    /// Who registers, or what is missing to know it. A process that only watches needs none.
    pub identity: Result<Identity>,
}

impl Config {
    /// Reads [`MODE_VARIABLE`], [`NAMESPACES_VARIABLE`], [`UNKNOWN_READINESS_VARIABLE`] and the identity: the files of
    /// the downward API, or else `POD_NAME`, `POD_UID` and `POD_NAMESPACE`, and `CONTAINER_NAME`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a malformed setting. A missing identity is no error yet.
    pub fn from_environment(environment: &Environment) -> Result<Self> {
        let mode = match environment.get(MODE_VARIABLE)? {
            None | Some("pod") => Mode::Pod,
            Some("container") => Mode::Container,
            Some(other) => return Err(malformed(MODE_VARIABLE, other, "`pod` or `container`")),
        };
        let unknown_is_ready = match environment.get(UNKNOWN_READINESS_VARIABLE)? {
            None | Some("not-ready") => false,
            Some("ready") => true,
            Some(other) => return Err(malformed(UNKNOWN_READINESS_VARIABLE, other, "`not-ready` or `ready`")),
        };
        let namespaces = environment.get(NAMESPACES_VARIABLE)?.map(namespaces).transpose()?;
        Ok(Self { mode, namespaces, unknown_is_ready, identity: Identity::from_environment(environment, mode) })
    }
}

fn namespaces(text: &str) -> Result<Namespaces> {
    let mut names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    names.sort();
    names.dedup();
    let is_label = |name: &String| {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !name.is_empty() && name.len() <= 63 && name.bytes().all(legal)
    };
    match names.as_slice() {
        [all] if all == "*" => Ok(Namespaces::All),
        names if names.iter().all(is_label) => Ok(Namespaces::Named(names.to_vec())),
        _ => Err(malformed(NAMESPACES_VARIABLE, text, "names of namespaces with commas between them, or `*`")),
    }
}

fn malformed(variable: &str, text: &str, expected: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{variable}={text:?} is not {expected}: correct it or unset it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variable: &str, value: &str) -> Result<Config> {
        Config::from_environment(&Environment::default().with(variable, value))
    }

    #[test]
    fn namespaces_are_own_named_or_all() {
        let of = |text| config(NAMESPACES_VARIABLE, text).map(|config| config.namespaces);
        assert_eq!(of("").unwrap(), None);
        assert_eq!(of("*").unwrap(), Some(Namespaces::All));
        let named = Namespaces::Named(vec!["a".to_owned(), "b-1".to_owned()]);
        assert_eq!(of("b-1, a,a").unwrap(), Some(named));
        for wrong in ["a,,b", "*,a", "A", "a/b"] {
            assert_eq!(of(wrong).unwrap_err().kind(), ErrorKind::InvalidConfig, "{wrong}");
        }
    }

    #[test]
    fn unknown_words_are_refused_with_what_is_allowed() {
        for variable in [MODE_VARIABLE, UNKNOWN_READINESS_VARIABLE] {
            let error = config(variable, "maybe").unwrap_err();
            assert!(error.to_string().contains(" or "), "{error}");
        }
        assert_eq!(config(MODE_VARIABLE, "container").unwrap().mode, Mode::Container);
        assert!(config(UNKNOWN_READINESS_VARIABLE, "ready").unwrap().unknown_is_ready);
    }
}
