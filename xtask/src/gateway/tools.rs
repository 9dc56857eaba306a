//! The operator's commands against a real Synapse: `kitbag gateway sweep` and `kitbag doctor`.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::lab::{Lab, User};
use crate::process;
use crate::server::CANARY;

const TYPE: &str = "org.example.device";

/// Runs them; returns how many there are.
pub(super) fn run(lab: &Lab<'_>) -> anyhow::Result<u64> {
    sweep(lab).context("sweep")?;
    doctor(lab).context("doctor")?;
    Ok(2)
}

/// An entry of a device that was logged out past the gateway is emptied, one of a device that is
/// there stays, one of a user who is locked is told, and nothing is left to do for the next one.
fn sweep(lab: &Lab<'_>) -> anyhow::Result<()> {
    let [directly, through] = [lab.synapse.address(), lab.gateway.address()?];
    let gone = User::register(directly)?;
    let there = gone.another_device(directly)?;
    let locked = User::register(directly)?;
    let entry = json!({"canary": CANARY});
    for device in [&gone, &there, &locked] {
        let path = format!(
            "/_matrix/client/v3/user/{}/devices/{}/account_data/{TYPE}",
            device.user_id, device.device_id
        );
        device.ask(through, "PUT", &path, &entry)?;
    }
    for device in [&gone, &locked] {
        device.ask(directly, "POST", "/_matrix/client/v3/logout", &json!({}))?;
    }
    let stored = |device: &User| {
        let path = format!(
            "/_matrix/client/v3/user/{}/account_data/org.matrix.msc4331.device_account_data.{}.{TYPE}",
            device.user_id, device.device_id
        );
        there.ask(directly, "GET", &path, &Value::Null)
    };
    let token = lab.synapse.register_admin()?;
    let path = format!("/_synapse/admin/v2/users/{}", locked.user_id);
    let admin = User {
        token: token.clone(),
        ..locked
    };
    admin.ask(directly, "PUT", &path, &json!({"locked": true}))?;
    let mut sweep = command(lab, &["gateway", "sweep", "--json", "--upstream"]);
    sweep
        .arg(lab.synapse.base_url())
        .env("SYNAPSE_ADMIN_TOKEN", token);

    let mut dry_run = Command::new(sweep.get_program());
    let envs = sweep
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    dry_run.args(sweep.get_args()).envs(envs).arg("--dry-run");
    let found = told(&mut dry_run, "")?;
    ensure!(found["emptied_entries"].as_u64() > Some(0), "found {found}");
    ensure!(stored(&gone)? == entry, "a dry run changed something");

    let done = told(&mut sweep, "")?;
    ensure!(
        done["emptied_entries"] == found["emptied_entries"],
        "{done}, not {found}"
    );
    ensure!(done["failed_users"] == 0, "{done}");
    ensure!(done["locked_entries"] == 1, "{done}");
    ensure!(
        stored(&gone)? == json!({"org.matrix.msc4331.deleted": true}),
        "not emptied"
    );
    ensure!(
        stored(&there)? == entry,
        "the entry of a device that is there went"
    );
    let again = told(&mut sweep, "")?;
    ensure!(again["emptied_entries"] == 0, "{again}");
    ensure!(
        again["living_entries"] == done["living_entries"],
        "{again}, not {done}"
    );
    Ok(())
}

/// What doctor says that Synapse does, what a gateway before it does, and what it says that a gateway
/// before these would do: how the texts begin.
const CHECKS: [(&str, [&str; 2], [&str; 2]); 8] = [
    (
        "device account data (MSC4331)",
        ["no (", "yes ("],
        [
            "yes, kept in the homeserver",
            "yes, but its own entries are not read",
        ],
    ),
    // Synapse writes JSON anew.
    (
        "an entry under a long type",
        ["kept, written anew"; 2],
        ["as it is"; 2],
    ),
    ("an entry that is {}", ["kept"; 2], ["as it is"; 2]),
    ("GET of m.push_rules", ["told"; 2], ["told"; 2]),
    (
        "a sync with a filter",
        ["lists entries by the start of their type"; 2],
        ["as it is"; 2],
    ),
    (
        "PUT of m.push_rules",
        ["refused (405 M_BAD_JSON)"; 2],
        ["405 M_BAD_JSON"; 2],
    ),
    (
        "compare-and-swap (MSC4547)",
        ["no: a wrong expectation is 200", "yes"],
        ["with msc4547.enabled"; 2],
    ),
    (
        "DELETE of an entry (MSC3391)",
        ["no (DELETE 404 M_UNRECOGNIZED, then GET 200)"; 2],
        ["of device account data"; 2],
    ),
];

/// The gateway can stand before Synapse, which lacks device account data, and a gateway does not.
fn doctor(lab: &Lab<'_>) -> anyhow::Result<()> {
    let user = User::register(lab.synapse.address())?;
    let urls = [lab.synapse.base_url(), lab.gateway.base_url().to_owned()];
    for (which, url) in urls.iter().enumerate() {
        let mut doctor = command(lab, &["doctor", "--json", "--password-stdin", "--user"]);
        doctor.args([user.user_id.as_str(), "--upstream", url]);
        let report = told(&mut doctor, CANARY).with_context(|| url.clone())?;
        ensure!(report["is_fit"] == true, "{report}");
        let checks = report["checks"].as_array().context("no checks")?;
        for (what, homeserver, gateway) in CHECKS {
            let check = checks.iter().find(|check| check["what"] == what);
            let check = check.with_context(|| format!("no {what} in {report}"))?;
            for (column, expected) in [("homeserver", homeserver), ("gateway", gateway)] {
                let said = check[column].as_str().unwrap_or_default();
                ensure!(said.starts_with(expected[which]), "{url}: {what}: {said}");
            }
        }
    }
    Ok(())
}

fn command(lab: &Lab<'_>, arguments: &[&str]) -> Command {
    let mut command = Command::new(lab.workspace.program("kitbag"));
    process::remove_own_variables(&mut command);
    command.args(arguments);
    command
}

/// Runs a command that prints one line of JSON, with its standard input.
fn told(command: &mut Command, input: &str) -> anyhow::Result<Value> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start kitbag")?;
    let mut stdin = child.stdin.take().context("it is piped")?;
    // Who does not read it has ended, and tells why.
    std::io::Write::write_all(&mut stdin, input.as_bytes()).ok();
    drop(stdin);
    let ended = child.wait_with_output().context("cannot wait for kitbag")?;
    let [out, err] = [&ended.stdout, &ended.stderr].map(|text| String::from_utf8_lossy(text));
    ensure!(
        !format!("{out}{err}").contains(CANARY),
        "it told a password or a content"
    );
    ensure!(
        ended.status.success(),
        "ended with {}: {out}{err}",
        ended.status
    );
    serde_json::from_str(&out).with_context(|| format!("printed {out}"))
}
