//! The connection to the API server.

use std::path::PathBuf;
use std::time::Duration;

use discovery_core::{Environment, Error, ErrorKind, Result};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tower::ServiceBuilder;

use crate::bounds::RECOVERY;
use crate::doubting::Doubting;

/// How often an open connection is asked for a sign of life, and how long it may take for it. Together they are well
/// below `R`: packets that get lost without a word are found in that time (FLT 6).
const PING: Duration = RECOVERY.checked_div(5).expect("a constant");
const PONG: Duration = RECOVERY.checked_div(5).expect("a constant");

/// Where the API server is and how to speak to it: `KUBECONFIG` where it is set, else the pod's ServiceAccount, else
/// `~/.kube/config`.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] where there is none of them, or where it cannot be read.
pub(crate) async fn settings(environment: &Environment) -> Result<kube::Config> {
    let invalid = |what: String, source: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::InvalidConfig, what).with_source(source)
    };
    if let Some(paths) = environment.path("KUBECONFIG") {
        return kubeconfig(std::env::split_paths(paths))
            .await
            .map_err(|error| invalid(format!("KUBECONFIG={} cannot be used", paths.display()), error.into()));
    }
    if environment.is_set("KUBERNETES_SERVICE_HOST") {
        return kube::Config::incluster().map_err(|error| {
            invalid("the pod's ServiceAccount cannot be used: mount its token".to_owned(), error.into())
        });
    }
    let home = environment.path("HOME").map(|home| home.join(".kube/config"));
    match home.filter(|path| path.exists()) {
        Some(path) => kubeconfig([path.clone()])
            .await
            .map_err(|error| invalid(format!("{} cannot be used", path.display()), error.into())),
        None => Err(Error::new(
            ErrorKind::InvalidConfig,
            "no cluster: this process is in no pod, and there is no ~/.kube/config: set KUBECONFIG",
        )),
    }
}

async fn kubeconfig(
    paths: impl IntoIterator<Item = PathBuf>,
) -> std::result::Result<kube::Config, kube::config::KubeconfigError> {
    let mut merged = Kubeconfig::default();
    for path in paths.into_iter().filter(|path| !path.as_os_str().is_empty()) {
        merged = merged.merge(Kubeconfig::read_from(path)?)?;
    }
    let asks_for_proxy = asks_for_proxy(&merged);
    let mut settings = kube::Config::from_custom_kubeconfig(merged, &KubeConfigOptions::default()).await?;
    if !asks_for_proxy {
        // kube takes the proxy of the process's environment for that of the cluster, also where `NO_PROXY` excepts it.
        settings.proxy_url = None;
    }
    Ok(settings)
}

/// Whether the cluster of the current context is to be reached by a proxy.
fn asks_for_proxy(merged: &Kubeconfig) -> bool {
    let is_current = |name: &str| merged.current_context.as_deref() == Some(name);
    let context = merged.contexts.iter().find(|named| is_current(&named.name)).and_then(|named| named.context.as_ref());
    let clusters = merged.clusters.iter().filter(|named| context.is_some_and(|context| context.cluster == named.name));
    let mut proxies = clusters.filter_map(|named| named.cluster.as_ref()?.proxy_url.as_deref());
    proxies.next().is_some_and(|proxy| !proxy.is_empty())
}

/// A client that finds out about dead connections by itself. kube's own asks for no sign of life, and its HTTP/1 has
/// none to ask for.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] for certificates or credentials that cannot be used, and for a proxy.
pub(crate) fn client(settings: &kube::Config) -> Result<kube::Client> {
    let invalid = |error: kube::Error| {
        Error::new(ErrorKind::InvalidConfig, "the credentials for the cluster cannot be used").with_source(error)
    };
    if settings.proxy_url.is_some() {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            "the kubeconfig asks for a proxy, which is not supported: connect to the API server directly",
        ));
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(PING + PONG));
    connector.set_keepalive(Some(PING));
    connector.set_keepalive_interval(Some(PING));
    connector.set_keepalive_retries(Some(2));
    // Nor does the kernel go on sending for a connection that was given up.
    connector.set_tcp_user_timeout(Some(PING + PONG));
    let mut tls =
        HttpsConnectorBuilder::new().with_tls_config(settings.rustls_client_config().map_err(invalid)?).https_or_http();
    if let Some(name) = &settings.tls_server_name {
        let invalid = |_| Error::new(ErrorKind::InvalidConfig, format!("tls-server-name {name:?} is no host name"));
        let name = name.clone().try_into().map_err(invalid)?;
        tls = tls.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let server = settings.cluster_url.to_string();
    let server = server.trim_end_matches('/').to_owned();
    let connector = tls.enable_http1().enable_http2().wrap_connector(connector);
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PONG)
        .http2_keep_alive_while_idle(false)
        .build::<_, Body>(connector);
    let named = move |error: hyper_util::client::legacy::Error| {
        tower::BoxError::from(format!("{server}: {}", innermost(&error)))
    };
    let anonymous = ServiceBuilder::new().layer(settings.base_uri_layer()).map_err(named.clone()).service(http.clone());
    let server = ServiceBuilder::new()
        .layer(settings.base_uri_layer())
        .option_layer(settings.auth_layer().map_err(invalid)?)
        .layer(settings.extra_headers_layer().map_err(invalid)?)
        .map_err(named)
        .service(http);
    Ok(kube::Client::new(Doubting { server, anonymous }, settings.default_namespace.clone()))
}

/// What it comes down to: the layers above it say only that they failed.
fn innermost(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error).to_string()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const CHILD: &str = "DISCOVERY_TEST_KUBECONFIG";
    const TEST: &str = "client::tests::a_proxy_of_the_environment_is_not_the_kubeconfig_s";

    fn kubeconfig(proxy: &str) -> String {
        format!(
            "{{current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}], users: [{{name: u, user: {{}}}}], \
             clusters: [{{name: k, cluster: {{server: 'https://127.0.0.1:6443'{proxy}}}}}]}}"
        )
    }

    /// In processes of their own, since kube reads the variables of its process.
    #[tokio::test]
    async fn a_proxy_of_the_environment_is_not_the_kubeconfig_s() {
        if let Some(path) = std::env::var_os(CHILD) {
            let settings = settings(&Environment::default().with("KUBECONFIG", path)).await.unwrap();
            let said = client(&settings).map_or_else(|error| error.to_string(), |_| "a client".to_owned());
            return println!("said: {said}.");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        for (proxy, wanted) in
            [("", "said: a client."), (", proxy-url: 'http://127.0.0.1:3128'", "said: the kubeconfig asks for a proxy")]
        {
            std::fs::write(&path, kubeconfig(proxy)).unwrap();
            let mut process = Command::new(std::env::current_exe().unwrap());
            process.args([TEST, "--exact", "--nocapture"]).env(CHILD, &path);
            process.env("HTTPS_PROXY", "http://127.0.0.1:3129").env("https_proxy", "http://127.0.0.1:3129");
            let ended = tokio::task::spawn_blocking(move || process.output()).await.unwrap().unwrap();
            let said = [ended.stdout, ended.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
            assert!(said.contains(wanted), "{proxy:?}: {said}");
        }
    }
}
