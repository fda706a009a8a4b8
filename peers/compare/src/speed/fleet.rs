//! What a hundred processes that only register ask of the server.

use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::json;

use super::load;
use super::{Comparison, Goal, Measure, in_turns, rows};
use crate::Outcome;
use crate::peer::{Peer, Which};
use crate::store::Store;

const ROUNDS: usize = 3;
const PROCESSES: usize = 100;
const ENDPOINTS: usize = 10;
const IDLE: Duration = Duration::from_secs(20);

pub(super) async fn measure() -> Vec<Comparison> {
    let measure = |what: &str, unit, goal| {
        Measure::new(what, unit, goal)
            .note("counted by the server: its own metrics. Streams' messages count as requests")
    };
    let measures = vec![
        measure("watches", "", Goal::AtMost(0.0)),
        measure("requests to register", "", Goal::None),
        measure("kB to clients, to register", "kB", Goal::Times(5.0)),
        measure("kB from clients, to register", "kB", Goal::None),
        measure("processor time of the server, to register", "ms", Goal::None),
        measure("requests in 20 s of idling", "", Goal::None),
        measure("kB to clients in 20 s of idling", "kB", Goal::None),
        Measure::new("resident memory of a process", "MB", Goal::None),
    ];
    let work = format!("load on the server by {PROCESSES} registering processes");
    let on = format!("etcd, an endpoint and a model each, at {ENDPOINTS} endpoints");
    rows(&work, &on, measures, Ok(in_turns(ROUNDS, one).await))
}

async fn one(which: Which) -> Outcome<Vec<f64>> {
    let store = Store::etcd().await?;
    let Store::Etcd(etcd) = &store else { return Err("no etcd".into()) };
    let counters = async || -> Outcome<[f64; 3]> {
        Ok([
            load::metric(etcd, "grpc_server_msg_received_total").await?,
            load::metric(etcd, "etcd_network_client_grpc_sent_bytes_total").await? / 1e3,
            load::metric(etcd, "etcd_network_client_grpc_received_bytes_total").await? / 1e3,
        ])
    };
    let (before, processor) = (counters().await?, load::processor(etcd)?);
    let mut peers = Vec::new();
    for number in 0..PROCESSES {
        let peer = store.peer(which).await?;
        register(&peer, number).await?;
        peers.push(peer);
    }
    let (registered, used) = (counters().await?, load::processor(etcd)? - processor);
    let watches = load::metric(etcd, "etcd_debugging_mvcc_watcher_total").await?;
    tokio::time::sleep(IDLE).await;
    let idled = counters().await?;
    let usages = try_join_all(peers.iter().map(Peer::usage)).await?;
    let resident = usages.iter().map(|usage| usage.resident as f64 / 1e6).sum::<f64>() / PROCESSES as f64;
    let part = |of: &[f64; 3], since: &[f64; 3], at: usize| of[at] - since[at];
    Ok(vec![
        watches,
        part(&registered, &before, 0),
        part(&registered, &before, 1),
        part(&registered, &before, 2),
        used,
        part(&idled, &registered, 0),
        part(&idled, &registered, 1),
        resident,
    ])
}

/// As a worker does: its endpoint, then its model's card.
async fn register(peer: &Peer, number: usize) -> Outcome {
    let at = |kind: &str| {
        json!({
            "type": kind, "namespace": "bench", "component": format!("pool-{}", number % ENDPOINTS),
            "endpoint": "generate",
        })
    };
    let mut endpoint = at("Endpoint");
    endpoint["transport"] = json!({ "tcp": format!("10.0.0.{number}:9000/generate") });
    peer.register("endpoint", &endpoint).await?;
    let mut model = at("Model");
    // About as large as a card of a served model.
    model["card_json"] = json!({
        "display_name": "Qwen/Qwen3-0.6B", "slug": "qwen-qwen3-0-6b", "model_type": { "bits": 3 },
        "context_length": 40960, "kv_cache_block_size": 16, "prompt_formatter": "x".repeat(1_000),
        "runtime_config": { "taints": [], "total_kv_blocks": 1024 },
    });
    peer.register("model", &model).await?;
    Ok(())
}
