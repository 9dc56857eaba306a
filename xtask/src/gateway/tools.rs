//! What operators run against a real Synapse: `kitbag doctor`.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::lab::{Lab, User};
use crate::process;
use crate::server::CANARY;

/// Runs them; returns how many there are.
pub(super) fn run(lab: &Lab<'_>) -> anyhow::Result<u64> {
    doctor(lab).context("doctor")?;
    Ok(1)
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
