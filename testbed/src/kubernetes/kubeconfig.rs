//! What a client needs to speak to an API server: where it is, whom to trust, and who the client is.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::proxy::Proxy;

/// A kubeconfig of one cluster, one user and one context. Its `Debug` shows no credentials.
#[derive(Clone)]
pub struct Kubeconfig(Value);

impl Kubeconfig {
    pub(super) fn of_server(url: &str, authority: &Path, token: &str) -> Self {
        Self(json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "testbed", "cluster": { "server": url, "certificate-authority": authority } }],
            "users": [{ "name": "testbed", "user": { "token": token } }],
            "contexts": [{ "name": "testbed", "context": { "cluster": "testbed", "user": "testbed" } }],
            "current-context": "testbed",
        }))
    }

    /// Reads what `kubectl config view --raw --minify --flatten --output=json` prints.
    pub(super) fn of_view(text: &str) -> Result<Self> {
        let read: Value = serde_json::from_str(text).map_err(|error| Error::because("the kubeconfig", error))?;
        let read = Self(read);
        read.url()?;
        Ok(read)
    }

    /// Its text, which is JSON and so YAML too.
    pub fn text(&self) -> String {
        self.0.to_string()
    }

    /// The same for a client that shows this token and nothing else.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        self.set("/users/0/user", json!({ "token": token }))
    }

    /// The same for a client whose packets go through a proxy, which is to lead to [`Kubeconfig::address`].
    ///
    /// # Errors
    /// The URL of the server is none.
    pub fn through(&self, proxy: &Proxy) -> Result<Self> {
        let (host, _, path) = self.url()?;
        let name = self.0.pointer("/clusters/0/cluster/tls-server-name").cloned().unwrap_or_else(|| host.into());
        let server = format!("https://{}{path}", proxy.address());
        Ok(self.set("/clusters/0/cluster/server", server.into()).set("/clusters/0/cluster/tls-server-name", name))
    }

    /// Where the server listens.
    ///
    /// # Errors
    /// The URL of the server is none, or its host is not known.
    pub async fn address(&self) -> Result<SocketAddr> {
        let (host, port, _) = self.url()?;
        let failed = |error: &dyn fmt::Display| Error::because(format!("the address of {host}"), error);
        let mut found = tokio::net::lookup_host((host, port)).await.map_err(|error| failed(&error))?;
        found.next().ok_or_else(|| failed(&"there is none"))
    }

    /// Host, port and path.
    fn url(&self) -> Result<(&str, u16, &str)> {
        let url = self.0.pointer("/clusters/0/cluster/server").and_then(Value::as_str).unwrap_or_default();
        let read = || {
            let rest = url.strip_prefix("https://")?;
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            match authority.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => Some((host, port.parse().ok()?, path)),
                _ => Some((authority, 443, path)),
            }
        };
        let (host, port, path) =
            read().ok_or_else(|| Error::new(format!("the server in the kubeconfig is no https URL: {url:?}")))?;
        Ok((host.trim_start_matches('[').trim_end_matches(']'), port, path))
    }

    fn set(&self, pointer: &str, value: Value) -> Self {
        let mut changed = self.0.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap_or_default();
        if let Some(parent) = changed.pointer_mut(parent).and_then(Value::as_object_mut) {
            parent.insert(name.to_owned(), value);
        }
        Self(changed)
    }
}

impl fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kubeconfig").field(&self.0.pointer("/clusters/0/cluster/server")).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Kubeconfig {
        Kubeconfig::of_server(url, Path::new("ca.crt"), "a-secret")
    }

    #[test]
    fn a_server_has_a_host_a_port_and_a_path() {
        assert_eq!(of("https://127.0.0.1:6443").url().unwrap(), ("127.0.0.1", 6443, ""));
        assert_eq!(of("https://a.cluster/k8s/c-1").url().unwrap(), ("a.cluster", 443, "/k8s/c-1"));
        assert_eq!(of("https://[::1]:6443/").url().unwrap(), ("::1", 6443, "/"));
        assert_eq!(of("https://[::1]").url().unwrap(), ("::1", 443, ""));
        assert!(of("http://127.0.0.1").url().is_err() && of("https://a:port").url().is_err());
    }

    #[test]
    fn through_a_proxy_the_server_keeps_its_name() {
        let proxy = Proxy::to_port(1).unwrap();
        let through = of("https://a.cluster/k8s").through(&proxy).unwrap();
        let cluster = &through.0["clusters"][0]["cluster"];
        assert_eq!(cluster["server"], format!("https://{}/k8s", proxy.address()));
        assert_eq!(cluster["tls-server-name"], "a.cluster");
    }

    #[test]
    fn a_token_replaces_what_was_there_and_is_not_shown() {
        let mine = of("https://a").with_token("mine");
        assert!(mine.text().contains("mine") && !mine.text().contains("a-secret"));
        assert!(!format!("{mine:?}").contains("mine"));
    }
}
