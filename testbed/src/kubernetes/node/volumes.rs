//! Which files has a pod? Tokens, what is said of itself, and ConfigMaps: what the API server puts into every pod.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccount, ServiceAccountTokenProjection, Volume,
};
use kube::api::PostParams;
use kube::{Api, Client};

use super::environment::field;

/// Writes the pod's volumes below `home`, and answers where each is, by its name. Cancelled, some are written.
///
/// # Errors
/// A volume is of a sort that is not played here, or what it is made of cannot be had.
pub(super) async fn write(
    client: &Client,
    pod: &Pod,
    address: Ipv4Addr,
    home: &Path,
) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut written = BTreeMap::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let directory = home.join("volumes").join(&volume.name);
        fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let files = files(client, pod, address, volume).await.map_err(|cause| format!("{}: {cause}", volume.name))?;
        for (path, text) in files {
            let relative = Path::new(&path);
            if relative.components().any(|part| !matches!(part, Component::Normal(_))) {
                return Err(format!("{}: {path:?} leads out of the volume", volume.name));
            }
            let file = directory.join(relative);
            let above = file.parent().unwrap_or(&directory);
            let made = fs::create_dir_all(above).and_then(|()| fs::write(&file, text));
            made.map_err(|error| format!("{}: {error}", file.display()))?;
        }
        written.insert(volume.name.clone(), directory);
    }
    Ok(written)
}

async fn files(
    client: &Client,
    pod: &Pod,
    address: Ipv4Addr,
    volume: &Volume,
) -> Result<BTreeMap<String, String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if volume.empty_dir.is_some() {
        return Ok(BTreeMap::new());
    }
    if let Some(downward) = &volume.downward_api {
        return told(pod, address, downward.items.iter().flatten());
    }
    if let Some(map) = &volume.config_map {
        return config(client, namespace, &map.name, map.items.as_deref()).await;
    }
    let Some(projected) = &volume.projected else {
        return Err("a volume of this sort is not played here".to_owned());
    };
    let mut files = BTreeMap::new();
    for source in projected.sources.iter().flatten() {
        if let Some(ServiceAccountTokenProjection { audience, expiration_seconds, path }) =
            &source.service_account_token
        {
            let token = token(client, pod, audience.as_deref(), *expiration_seconds).await?;
            files.insert(path.clone(), token);
        } else if let Some(map) = &source.config_map {
            files.extend(config(client, namespace, &map.name, map.items.as_deref()).await?);
        } else if let Some(downward) = &source.downward_api {
            files.extend(told(pod, address, downward.items.iter().flatten())?);
        } else {
            return Err("a projection of this sort is not played here".to_owned());
        }
    }
    Ok(files)
}

fn told<'a>(
    pod: &Pod,
    address: Ipv4Addr,
    items: impl Iterator<Item = &'a DownwardAPIVolumeFile>,
) -> Result<BTreeMap<String, String>, String> {
    let file = |item: &DownwardAPIVolumeFile| match &item.field_ref {
        Some(source) => Ok((item.path.clone(), field(pod, &source.field_path, Some(address))?)),
        None => Err(format!("{}: only fieldRef is played here", item.path)),
    };
    items.map(file).collect()
}

async fn config(
    client: &Client,
    namespace: &str,
    name: &str,
    items: Option<&[KeyToPath]>,
) -> Result<BTreeMap<String, String>, String> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = maps.get(name).await.map_err(|error| format!("the ConfigMap {name}: {error}"))?;
    let data = map.data.unwrap_or_default();
    let Some(items) = items else { return Ok(data) };
    let chosen = |item: &KeyToPath| match data.get(&item.key) {
        Some(text) => Ok((item.path.clone(), text.clone())),
        None => Err(format!("the ConfigMap {name} has no {}", item.key)),
    };
    items.iter().map(chosen).collect()
}

/// A token of the pod's account, bound to the pod: it ends with it.
async fn token(client: &Client, pod: &Pod, audience: Option<&str>, expires: Option<i64>) -> Result<String, String> {
    let metadata = &pod.metadata;
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let accounts: Api<ServiceAccount> =
        Api::namespaced(client.clone(), metadata.namespace.as_deref().unwrap_or_default());
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
    };
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: audience.map(str::to_owned).into_iter().collect(),
            bound_object_ref: Some(bound),
            expiration_seconds: expires,
        },
        ..TokenRequest::default()
    };
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
    let answer = answer.map_err(|error| format!("a token of {account}: {error}"))?;
    Ok(answer.status.map(|status| status.token).unwrap_or_default())
}
