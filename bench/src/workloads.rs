//! The workloads, one kind a file.

mod put;
mod read;
mod start;
mod storm;
mod waiting;
mod wake_up;

use anyhow::{Context as _, Result, bail};

use self::put::Owner;
use crate::plan::Plan;
use crate::report::Table;

/// In the order in which they run: what leaves the machine quiet comes first.
const NAMES: [&str; 21] = [
    "edge",
    "identity",
    "get/1",
    "get/16",
    "get/uncached",
    "push_rules",
    "sync/nothing_new",
    "sync/initial",
    "device/get",
    "device/put",
    "put/1",
    "put/32/one_user",
    "put/32/many_users",
    "put/64/one_user",
    "put/64/many_users",
    "put/128/one_user",
    "put/128/many_users",
    "wake_up",
    "waiting",
    "storm",
    "start",
];

/// Returns the workloads whose name contains `filter`.
pub(crate) fn names(filter: &str) -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().filter(move |name| name.contains(filter))
}

/// Runs one of [`names`].
pub(crate) async fn run(name: &str, plan: &Plan) -> Result<Table> {
    let table = match name {
        "edge" => read::edge(name, plan).await,
        "identity" => read::identity(name, plan).await,
        "get/1" => read::entry(name, plan, 1).await,
        "get/16" => read::entry(name, plan, 16).await,
        "get/uncached" => read::uncached(name, plan).await,
        "push_rules" => read::push_rules(name, plan).await,
        "sync/nothing_new" => read::nothing_new(name, plan).await,
        "sync/initial" => read::initial_sync(name, plan).await,
        "device/get" => read::device_entry(name, plan).await,
        "device/put" => put::entries(name, plan, 64, 64, Owner::Device).await,
        "put/1" => put::entries(name, plan, 1, 1, Owner::Account).await,
        "put/32/one_user" => put::entries(name, plan, 32, 1, Owner::Account).await,
        "put/32/many_users" => put::entries(name, plan, 32, 32, Owner::Account).await,
        "put/64/one_user" => put::entries(name, plan, 64, 1, Owner::Account).await,
        "put/64/many_users" => put::entries(name, plan, 64, 64, Owner::Account).await,
        "put/128/one_user" => put::entries(name, plan, 128, 1, Owner::Account).await,
        "put/128/many_users" => put::entries(name, plan, 128, 128, Owner::Account).await,
        "wake_up" => wake_up::run(name, plan).await,
        "waiting" => waiting::run(name, plan).await,
        "storm" => storm::run(name, plan).await,
        "start" => start::run(name, plan).await,
        _ => bail!("there is no workload `{name}`"),
    };
    table.with_context(|| format!("workload `{name}`"))
}
