//! The workloads, one kind a file.

mod beside_synapse;
mod devices;
pub(crate) mod gateway;
pub(crate) mod push;
mod put;
mod read;
mod start;
pub(crate) mod storm;
mod waiting;
mod wake_up;

use anyhow::{Context as _, Result, bail};

use self::put::Owner;
use crate::BenchArguments;
use crate::plan::Plan;
use crate::report::Table;

/// In the order in which they run: what leaves the machine quiet comes first.
const NAMES: [&str; 35] = [
    "push/evaluate",
    "push/compile",
    "edge",
    "identity",
    "get/1",
    "get/16",
    "get/16/many_users",
    "get/uncached",
    "push_rules",
    "sync/nothing_new",
    "sync/initial",
    "sync/changed_initial",
    "device/get",
    "device/put",
    "put/1",
    "put/32/one_user",
    "put/32/many_users",
    "put/64/one_user",
    "put/64/many_users",
    "put/128/one_user",
    "put/128/many_users",
    "gateway/get/1",
    "gateway/get/16",
    "gateway/entry",
    "gateway/put",
    "gateway/device/get",
    "gateway/device/put",
    "gateway/wake_up",
    "gateway/bodies",
    "wake_up",
    "waiting",
    "gateway/waiting",
    "storm",
    "start",
    "report",
];

/// Those that are run beside a Synapse: what both can do.
const BESIDE_SYNAPSE: [&str; 9] = [
    "synapse/idle",
    "synapse/get",
    "synapse/push_rules",
    "synapse/sync/nothing_new",
    "synapse/sync/initial",
    "synapse/put/1",
    "synapse/put/32",
    "synapse/put/64",
    "synapse/wake_up",
];

/// Returns the workloads that are asked for.
pub(crate) fn names(arguments: &BenchArguments) -> impl Iterator<Item = &'static str> {
    let names = match arguments.synapse {
        None => &NAMES[..],
        Some(_) => &BESIDE_SYNAPSE[..],
    };
    let names = names.iter().copied();
    names.filter(|name| name.contains(&arguments.filter))
}

/// Runs one of [`names`].
pub(crate) async fn run(name: &str, plan: &Plan) -> Result<Table> {
    let table = match name {
        "push/evaluate" => push::evaluate(name, plan),
        "push/compile" => push::compile(name, plan),
        "edge" => read::edge(name, plan).await,
        "identity" => read::identity(name, plan).await,
        "get/1" => read::entry(name, plan, 1).await,
        "get/16" => read::entry(name, plan, 16).await,
        "get/16/many_users" => read::entry_of_each(name, plan).await,
        "get/uncached" => read::uncached(name, plan).await,
        "push_rules" => read::push_rules(name, plan).await,
        "sync/nothing_new" => read::nothing_new(name, plan).await,
        "sync/initial" => read::initial_sync(name, plan).await,
        "sync/changed_initial" => read::changed_initial_sync(name, plan).await,
        "device/get" => read::device_entry(name, plan).await,
        "device/put" => put::entries(name, plan, 64, 64, Owner::Device).await,
        "put/1" => put::entries(name, plan, 1, 1, Owner::Account).await,
        "put/32/one_user" => put::entries(name, plan, 32, 1, Owner::Account).await,
        "put/32/many_users" => put::entries(name, plan, 32, 32, Owner::Account).await,
        "put/64/one_user" => put::entries(name, plan, 64, 1, Owner::Account).await,
        "put/64/many_users" => put::entries(name, plan, 64, 64, Owner::Account).await,
        "put/128/one_user" => put::entries(name, plan, 128, 1, Owner::Account).await,
        "put/128/many_users" => put::entries(name, plan, 128, 128, Owner::Account).await,
        "gateway/get/1" => gateway::pass(name, plan, 1).await,
        "gateway/get/16" => gateway::pass(name, plan, 16).await,
        "gateway/entry" => gateway::get_account(name, plan).await,
        "gateway/put" => gateway::put(name, plan).await,
        "gateway/device/get" => gateway::device_get(name, plan).await,
        "gateway/device/put" => gateway::device_put(name, plan).await,
        "gateway/wake_up" => gateway::wake_up(name, plan).await,
        "gateway/bodies" => gateway::bodies(name, plan).await,
        "gateway/waiting" => gateway::waiting(name, plan).await,
        "wake_up" => wake_up::run(name, plan).await,
        "waiting" => waiting::run(name, plan).await,
        "storm" => storm::run(name, plan).await,
        "report" => devices::report(name, plan).await,
        "start" => start::run(name, plan).await,
        "synapse/idle" => beside_synapse::idle(name, plan).await,
        "synapse/get" => beside_synapse::entry(name, plan).await,
        "synapse/push_rules" => beside_synapse::push_rules(name, plan).await,
        "synapse/sync/nothing_new" => beside_synapse::nothing_new(name, plan).await,
        "synapse/sync/initial" => beside_synapse::initial_sync(name, plan).await,
        "synapse/put/1" => beside_synapse::puts(name, plan, 1).await,
        "synapse/put/32" => beside_synapse::puts(name, plan, 32).await,
        "synapse/put/64" => beside_synapse::puts(name, plan, 64).await,
        "synapse/wake_up" => beside_synapse::wake_up(name, plan).await,
        _ => bail!("there is no workload `{name}`"),
    };
    table.with_context(|| format!("workload `{name}`"))
}
