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

/// The gateway can stand before Synapse, which lacks device account data, and a gateway does not.
fn doctor(lab: &Lab<'_>) -> anyhow::Result<()> {
    let user = User::register(lab.synapse.address())?;
    let gateway = lab.gateway.base_url().to_owned();
    for (url, answers) in [(lab.synapse.base_url(), "no"), (gateway, "yes")] {
        let mut doctor = command(lab, &["doctor", "--json", "--password-stdin", "--user"]);
        doctor.args([user.user_id.as_str(), "--upstream", &url]);
        let report = told(&mut doctor, CANARY).context(url)?;
        ensure!(report["is_fit"] == true, "{report}");
        let checks = report["checks"].as_array().context("no checks")?;
        let what = "device account data (MSC4331)";
        let check = checks.iter().find(|check| check["what"] == what);
        let homeserver = check.and_then(|check| check["homeserver"].as_str());
        let homeserver = homeserver.with_context(|| format!("no {what} in {report}"))?;
        ensure!(homeserver.starts_with(answers), "{what}: {homeserver}");
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
