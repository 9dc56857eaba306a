//! What anybody can see of a homeserver.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use super::patient::Patient;
use super::{Report, errcode, told};

/// How often it is asked, to tell its usual time.
const TRIES: usize = 5;

const VERSIONS: &str = "/_matrix/client/versions";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
/// A path of device account data, of nobody.
const DEVICE_DATA: &str = "/_matrix/client/v3/user/@org.kitbag.doctor:localhost/devices/NONE/\
                           net.zemos.account_data/org.kitbag.doctor";

/// Looks at it, and fails only where it does not answer at all.
pub(super) async fn look(homeserver: &Patient, report: &mut Report) -> Result<()> {
    let mut took = Vec::new();
    let mut versions = None;
    for _ in 0..TRIES {
        let started = Instant::now();
        versions = Some(homeserver.ask("GET", VERSIONS, None, "").await?);
        took.push(started.elapsed());
    }
    took.sort_unstable();
    let versions = versions.expect("it is asked at least once");
    report.add(
        "time of an answer",
        shown(took[TRIES / 2]),
        "some tenths of a millisecond more",
    );
    let body: Value = serde_json::from_slice(&versions.body).unwrap_or_default();
    let spoken = spoken(&body);
    let is_there = versions.status == 200 && spoken.is_some();
    report.need(
        "/versions",
        is_there,
        spoken.unwrap_or_else(|| told(&versions)),
    );
    let has_flag = |name: &str| body["unstable_features"][name] == true;
    let offers = |has: bool| if has { "yes" } else { "no" };
    let device_data = has_flag("org.matrix.msc4331");
    report.add(
        "says that it has device account data",
        offers(device_data),
        "yes (org.matrix.msc4331)",
    );
    let whoami = homeserver.ask("GET", WHOAMI, None, "").await?;
    let is_right = whoami.status == 401 && errcode(&whoami).is_some();
    report.need("whoami without a token", is_right, told(&whoami));
    let entry = homeserver.ask("GET", DEVICE_DATA, None, "").await?;
    let (has, gateway) = match entry.status {
        401 => ("yes", "yes, but its own entries are not read"),
        _ => ("no", "yes, kept in the homeserver"),
    };
    let has = format!("{has} ({})", told(&entry));
    report.add("device account data (MSC4331)", has, gateway);
    if entry.status == 401 {
        report.warnings.push(
            "It has device account data already. Unless it is the gateway itself: what devices have \
             there is\nnot read through a gateway, which keeps theirs elsewhere.",
        );
    }
    Ok(())
}

/// Returns the first and the last version that it speaks.
fn spoken(versions: &Value) -> Option<String> {
    let versions = versions["versions"].as_array()?;
    let first = versions.first()?.as_str()?;
    let last = versions.last()?.as_str()?;
    Some(match first == last {
        true => first.to_owned(),
        false => format!("{first} to {last}"),
    })
}

fn shown(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1_000.0)
}
