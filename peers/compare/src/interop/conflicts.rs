//! Rules that hold across both sides: models of one endpoint, taints, descriptors.

use discovery_peer_protocol::{Command, Query};
use serde_json::json;

use super::pair::{Pair, SOON, lists, shown};
use super::{Finding, samples};
use crate::peer::Which;
use crate::store::Store;

/// The owner sets taints; the other side sees them sorted, with those of the topology.
pub(super) async fn taints(pair: &Pair<'_>) -> Result<Finding, String> {
    let (writer, reader) = pair.start().await?;
    reader.watch("model", Query::all("model")).await?;
    let mut model = writer.register("model", &samples::base("backend")).await?;
    shown(&reader, "model", &model).await?;
    let set = |taints: &[&str]| Command::Taints {
        name: "model".to_owned(),
        taints: taints.iter().map(|&taint| taint.to_owned()).collect(),
    };
    writer.ask(set(&["slow", "draining"])).await?;
    model["card_json"]["runtime_config"]["taints"] = json!(["draining", "dynamo.topology/zone=z1", "slow"]);
    shown(&reader, "model", &model).await?;
    lists(&reader, Query::all("model"), std::slice::from_ref(&model)).await?;
    if writer.ask(set(&["dynamo.topology/zone=z2"])).await.is_ok() {
        return Err(format!("{} let a topology taint be set by hand", writer.which.name()));
    }
    writer.ask(set(&[])).await?;
    model["card_json"]["runtime_config"]["taints"] = json!(["dynamo.topology/zone=z1"]);
    shown(&reader, "model", &model).await?;
    Ok(Finding::Matches("set, refused for the reserved prefix, taken back".to_owned()))
}

/// What stands at an endpoint is respected by the other side.
pub(super) async fn models(pair: &Pair<'_>) -> Result<Finding, String> {
    let (first, second) = pair.start().await?;
    first.watch("model", Query::all("model")).await?;
    second.watch("model", Query::all("model")).await?;
    let base = first.register("base", &samples::base("backend")).await?;
    shown(&second, "model", &base).await?;
    if let Ok(taken) = second.register("other", &samples::other("backend")).await {
        return Err(format!("{} registered {taken} beside {base}", second.which.name()));
    }
    let adapter = second.register("adapter", &samples::adapter("backend", "sql")).await?;
    let mut stranger = samples::adapter("backend", "stranger");
    stranger["card_json"]["source_path"] = json!("other/model");
    if let Ok(taken) = second.register("stranger", &stranger).await {
        return Err(format!("{} registered {taken} beside {base}", second.which.name()));
    }
    // The same model at the same endpoint, and another model elsewhere, are no conflict.
    let same = second.register("same", &samples::base("backend")).await?;
    let elsewhere = second.register("elsewhere", &samples::other("prefill")).await?;
    for record in [&adapter, &same, &elsewhere] {
        shown(&first, "model", record).await?;
    }
    lists(&first, Query::all("model"), &[base, adapter, same, elsewhere]).await?;
    Ok(Finding::Matches("two refused without a trace, three accepted".to_owned()))
}

/// A source that one side registered is not changed by the other.
pub(super) async fn sources(pair: &Pair<'_>) -> Result<Finding, String> {
    let (first, second) = pair.start().await?;
    let source = samples::sources().remove(0);
    let registered = first.register("source", &source).await?;
    let mut changed = source.clone();
    changed["metadata"] = json!({ "block_size": 32 });
    second.watch("source", Query::all("event_source")).await?;
    shown(&second, "source", &registered).await?;
    if first.register("again", &changed).await.is_ok() {
        return Err(format!("{} changed the descriptor of its own source", first.which.name()));
    }
    if second.register("changed", &changed).await.is_ok() {
        if second.which == Which::Reference && matches!(pair.store, Store::Kubernetes(_)) {
            return Ok(Finding::Differs(
                "the reference looks at its own pod's records alone, and registers the source of another pod with another \
                 descriptor beside it"
                    .to_owned(),
            ));
        }
        return Err(format!("{} changed the descriptor of a source", second.which.name()));
    }
    lists(&second, Query::all("event_source"), std::slice::from_ref(&registered)).await?;
    let same = second.register("same", &source).await;
    match (second.which, same) {
        (Which::Reference, Ok(_)) => Ok(Finding::Differs(
            "another descriptor is refused; the very same source of another process is Ok in the reference, and one \
             record has two owners then"
                .to_owned(),
        )),
        (Which::Ours, Err(_)) => Ok(Finding::Matches(
            "refused, also the very same source of another process, as every key of another owner".to_owned(),
        )),
        (which, same) => {
            Err(format!("{} answers {same:?} to the same source of another process, after {SOON:?}", which.name()))
        }
    }
}
