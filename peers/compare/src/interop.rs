//! Does each side understand the other? Every scenario runs in both directions on every store.

mod conflicts;
mod fleet;
mod link;
mod pair;
mod records;
mod samples;

use std::time::Instant;

use futures_util::future::LocalBoxFuture;
use serde::Serialize;

use crate::Outcome;
use crate::peer::Which;
use crate::store::Store;
use pair::Pair;

/// What a scenario found where it found nothing wrong.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Finding {
    /// Both sides agree; with a figure worth telling.
    Matches(String),
    /// They differ, as is known and explained here.
    Differs(String),
}

/// One scenario in one direction on one store.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) store: String,
    /// Who acts; the other one looks.
    pub(crate) acting: String,
    /// What was found, or what is wrong.
    pub(crate) finding: Result<Finding, String>,
    pub(crate) seconds: f64,
}

type Scenario = for<'a> fn(&'a Pair<'a>) -> LocalBoxFuture<'a, Result<Finding, String>>;

const STORES: [&str; 3] = ["etcd", "file", "kubernetes"];

/// On two quiet cores, in the mean.
const SECONDS_EACH: f64 = 4.2;

/// What is tried, in the order of the report.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("endpoints with every optional field", |pair| Box::pin(records::endpoints(pair))),
    ("models: base, adapter, topology", |pair| Box::pin(records::models(pair))),
    ("event channels of every transport and scope", |pair| Box::pin(records::channels(pair))),
    ("event sources of every scope", |pair| Box::pin(records::sources(pair))),
    ("the same content under the same names", |pair| Box::pin(records::bytes(pair))),
    ("queries are exact on path segments", |pair| Box::pin(records::queries(pair))),
    ("who comes later sees what is there", |pair| Box::pin(records::late(pair))),
    ("an endpoint is updated", |pair| Box::pin(records::update(pair))),
    ("taints of a model are set", |pair| Box::pin(conflicts::taints(pair))),
    ("models that do not agree are refused", |pair| Box::pin(conflicts::models(pair))),
    ("an event source does not change its descriptor", |pair| Box::pin(conflicts::sources(pair))),
    ("one of several records is withdrawn", |pair| Box::pin(records::withdraw(pair))),
    ("a process leaves in order", |pair| Box::pin(fleet::leave(pair))),
    ("a process crashes", |pair| Box::pin(fleet::crash(pair))),
    ("a user's own kind beside Dynamo's", |pair| Box::pin(fleet::own_kind(pair))),
    ("idle beside each other for 25 s", |pair| Box::pin(fleet::idle(pair))),
    ("a fleet is replaced one by one", |pair| Box::pin(fleet::replaced(pair))),
];

/// What is tried besides where a server is at the other end of a link.
const WITH_A_LINK: &[(&str, Scenario)] = &[("a watcher's link is cut for a while", |pair| Box::pin(link::cut(pair)))];

/// Runs the scenarios whose name holds `part`, or on a store of that name all of them. What is wrong is in its row: the
/// others are tried all the same.
pub(crate) async fn run(part: &str) -> Outcome<Vec<Row>> {
    let (stores, part) = match STORES.iter().find(|store| **store == part) {
        Some(store) => (std::slice::from_ref(store), ""),
        None => (&STORES[..], part),
    };
    let scenarios = |store: &str| {
        let more = if store == "etcd" { WITH_A_LINK } else { &[] };
        SCENARIOS.iter().chain(more).filter(|(name, _)| name.contains(part)).collect::<Vec<_>>()
    };
    let rows: usize = stores.iter().map(|store| 2 * scenarios(store).len()).sum();
    if rows == 0 {
        let names: Vec<_> = SCENARIOS.iter().chain(WITH_A_LINK).map(|(name, _)| *name).collect();
        return Err(format!(
            "there is no store and no scenario {part:?}: there are {}; {}",
            STORES.join(", "),
            names.join("; ")
        )
        .into());
    }
    println!("{rows} scenarios, about {} minutes", (rows as f64 * SECONDS_EACH / 60.0).ceil());
    let mut rows = Vec::new();
    for name in stores {
        let store = Store::start(name).await.map_err(|error| format!("there is no {name}: {error}"));
        for &(scenario, run) in scenarios(name) {
            for acting in Which::BOTH {
                let began = Instant::now();
                let finding = match &store {
                    Ok(store) => one(store, acting, run).await,
                    Err(error) => Err(error.clone()),
                };
                let seconds = began.elapsed().as_secs_f64();
                let said = match &finding {
                    Ok(Finding::Matches(detail)) => format!("matches {detail}"),
                    Ok(Finding::Differs(why)) => format!("differs: {why}"),
                    Err(what) => format!("WRONG: {what}"),
                };
                println!("{name:<5} {scenario:<48} {:<9} {seconds:>5.1} s  {said}", acting.name());
                rows.push(Row {
                    scenario: scenario.to_owned(),
                    store: (*name).to_owned(),
                    acting: acting.name().to_owned(),
                    finding,
                    seconds,
                });
            }
        }
    }
    Ok(rows)
}

async fn one(store: &Store, acting: Which, scenario: Scenario) -> Result<Finding, String> {
    store.clear().await.map_err(|error| format!("cannot be cleared: {error}"))?;
    let pair = Pair::new(store, acting);
    let finding = scenario(&pair).await?;
    pair.no_false_removals()?;
    Ok(finding)
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_scenario_that_there_is_none_of_is_refused_with_those_there_are() {
        let error = super::run("crashs").await.expect_err("there is none");
        let text = error.to_string();
        assert!(
            text.contains("\"crashs\"") && text.contains("etcd, file") && text.contains("a process crashes"),
            "{text}"
        );
    }
}
