//! What a homeserver does with the account data of an account.
//!
//! What is written has types of this program's own, and is emptied at the end, whatever happens. Push
//! rules are put back as they were just read.

use anyhow::{Context as _, Result, bail, ensure};
use kitbag_domain::UserId;
use kitbag_gateway::Homeserver;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{Asked, Report, errcode, told};

const C3: &str = "/_matrix/client/v3";

/// Of the form that the gateway keeps entries of devices under, dots and percent signs too.
const MAPPED: &str = "org.kitbag.doctor.device_account_data.A%2EB.org.example.type";
/// A usual one.
const USUAL: &str = "org.kitbag.doctor.usual";

/// With what a homeserver could lose: order, nesting, characters, numbers.
const CONTENT: &str =
    r#"{ "z": [1, {"a": null}], "a": "é\u0000\"<&>😀", "big": 9007199254740991 }"#;

/// The entry of [`USUAL`], with a revision.
const REVISED: &str = r#"{"com.beeper.revision_id":"1"}"#;

/// Logs in, looks, empties what it wrote, and logs out.
pub(super) async fn look(
    homeserver: &Homeserver,
    report: &mut Report,
    user: &str,
    password: &str,
) -> Result<()> {
    let session = Session::login(homeserver, user, password).await?;
    report.user = Some(session.user.clone());
    let looked = session.look(report).await;
    let emptied = session.empty(report).await;
    let logged_out = session.send("POST", "/logout", "{}").await;
    looked?;
    emptied?;
    let logged_out = logged_out?;
    ensure!(
        logged_out.status == 200,
        "the device {} could not be logged out: {}",
        session.device,
        told(&logged_out)
    );
    Ok(())
}

struct Session<'a> {
    homeserver: &'a Homeserver,
    token: String,
    user: String,
    device: String,
}

impl<'a> Session<'a> {
    async fn login(homeserver: &'a Homeserver, user: &str, password: &str) -> Result<Self> {
        let login = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": user },
            "password": password,
            "initial_device_display_name": "kitbag doctor",
        });
        let path = format!("{C3}/login");
        let answer = homeserver
            .ask("POST", &path, None, login.to_string())
            .await
            .context("the login")?;
        if answer.status != 200 {
            bail!("the login of {user} was refused: {}", told(&answer));
        }
        let body: Value =
            serde_json::from_slice(&answer.body).context("the answer to the login")?;
        let member = |name: &str| {
            let text = body[name].as_str().map(str::to_owned);
            text.with_context(|| format!("the answer to the login has no `{name}`"))
        };
        let user = member("user_id")?;
        UserId::parse(user.as_str()).context("the answer to the login")?;
        Ok(Self {
            homeserver,
            token: member("access_token")?,
            user,
            device: member("device_id")?,
        })
    }

    async fn look(&self, report: &mut Report) -> Result<()> {
        self.identity(report).await?;
        self.mapped(report).await?;
        self.filter(report).await?;
        self.push_rules(report).await?;
        self.revisions(report).await?;
        self.deletion(report).await
    }

    async fn identity(&self, report: &mut Report) -> Result<()> {
        let whoami = self.send("GET", "/account/whoami", "").await?;
        let body: Value = serde_json::from_slice(&whoami.body).unwrap_or_default();
        let is_right = body["user_id"] == self.user.as_str() && body["device_id"] == *self.device;
        let said = match is_right {
            true => "user and device".to_owned(),
            false => told(&whoami),
        };
        report.need("whoami with a token", is_right, said);
        let path = format!("/devices/{}", segment(&self.device));
        let device = self.send("GET", &path, "").await?;
        let none = self
            .send("GET", "/devices/ORG.KITBAG.DOCTOR.NONE", "")
            .await?;
        // Any other 404 may be of a proxy or of a path that is not there.
        let is_none = none.status == 404 && errcode(&none).as_deref() == Some("M_NOT_FOUND");
        let is_right = device.status == 200 && is_none;
        let said = format!("{}; of none {}", told(&device), told(&none));
        report.need("GET of a device", is_right, said);
        Ok(())
    }

    async fn mapped(&self, report: &mut Report) -> Result<()> {
        let path = self.entry(MAPPED);
        let put = self.send("PUT", &path, CONTENT).await?;
        let got = self.send("GET", &path, "").await?;
        let value = |text: &[u8]| serde_json::from_slice::<Value>(text).ok();
        let is_kept = got.status == 200 && value(&got.body) == value(CONTENT.as_bytes());
        let said = match (is_kept, *got.body == *CONTENT.as_bytes()) {
            (true, true) => "kept byte for byte".to_owned(),
            (true, false) => "kept, written anew".to_owned(),
            (false, _) => format!("PUT {}, GET {}", told(&put), told(&got)),
        };
        report.need("an entry under a long type", is_kept, said);
        Ok(())
    }

    async fn filter(&self, report: &mut Report) -> Result<()> {
        let filter = json!({
            "account_data": { "types": ["org.kitbag.doctor.*"] },
            "presence": { "types": [] },
            "room": { "rooms": [] },
        });
        let path = format!("/sync?timeout=0&filter={}", segment(&filter.to_string()));
        let sync = self.send("GET", &path, "").await?;
        let body: Value = serde_json::from_slice(&sync.body).unwrap_or_default();
        let events = body["account_data"]["events"].as_array();
        let types: Vec<&str> = events
            .into_iter()
            .flatten()
            .filter_map(|event| event["type"].as_str())
            .collect();
        let is_there = types.contains(&MAPPED);
        let is_filtered = types
            .iter()
            .all(|name| name.starts_with("org.kitbag.doctor."));
        let said = match (is_there, is_filtered) {
            (true, true) => "lists entries by the start of their type".to_owned(),
            (true, false) => "lists them among all: each listing costs more".to_owned(),
            (false, _) => format!("does not list them: {}", told(&sync)),
        };
        report.need("a sync with a filter", is_there, said);
        Ok(())
    }

    /// Nothing is put but what was just read in the same place.
    async fn push_rules(&self, report: &mut Report) -> Result<()> {
        let path = self.entry("m.push_rules");
        let got = self.send("GET", &path, "").await?;
        let said = match got.status {
            200 => "told".to_owned(),
            _ => format!("not told ({})", told(&got)),
        };
        report.add("GET of m.push_rules", said, "told");
        let said = match got.status {
            200 => {
                let put = self.send("PUT", &path, &text(&got.body)).await?;
                match put.status {
                    200 => "overwritten".to_owned(),
                    _ => format!("refused ({})", told(&put)),
                }
            }
            _ => "not tried, with nothing to put back".to_owned(),
        };
        report.add(
            "PUT of m.push_rules",
            said,
            "405 M_BAD_JSON, in every scope and spelling",
        );
        Ok(())
    }

    async fn revisions(&self, report: &mut Report) -> Result<()> {
        let path = self.entry(USUAL);
        self.send("PUT", &path, REVISED).await?;
        let expecting = format!("{path}?com.beeper.expect_revision_id=none");
        let put = self.send("PUT", &expecting, REVISED).await?;
        let said = match put.status {
            409 => "yes".to_owned(),
            _ => format!("no: a wrong expectation is {}", told(&put)),
        };
        report.add(
            "compare-and-swap (MSC4547)",
            said,
            "with msc4547.enabled, among its own writes",
        );
        Ok(())
    }

    async fn deletion(&self, report: &mut Report) -> Result<()> {
        let deleted = self.delete(USUAL).await?;
        let got = self.send("GET", &self.entry(USUAL), "").await?;
        let said = match (deleted.status, got.status) {
            (200, 404) => "yes".to_owned(),
            _ => format!("no (DELETE {}, then GET {})", told(&deleted), told(&got)),
        };
        report.add(
            "DELETE of an entry (MSC3391)",
            said,
            "of device account data; else as it is",
        );
        Ok(())
    }

    /// Takes away what was written: where it cannot be deleted, `{}` is left.
    async fn empty(&self, report: &mut Report) -> Result<()> {
        for event_type in [MAPPED, USUAL] {
            self.delete(event_type).await?;
            let path = self.entry(event_type);
            if self.send("GET", &path, "").await?.status == 200 {
                self.send("PUT", &path, "{}").await?;
                report.left.push(event_type.to_owned());
            }
        }
        Ok(())
    }

    async fn delete(&self, event_type: &str) -> Asked {
        let entry = self.entry(event_type);
        let path = format!("/_matrix/client/unstable/org.matrix.msc3391{entry}");
        let token = Some(&*self.token);
        self.homeserver.ask("DELETE", &path, token, "").await
    }

    fn entry(&self, event_type: &str) -> String {
        let (user, event_type) = (segment(&self.user), segment(event_type));
        format!("/user/{user}/account_data/{event_type}")
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> Asked {
        let (path, token) = (format!("{C3}{path}"), Some(&*self.token));
        self.homeserver
            .ask(method, &path, token, body.to_owned())
            .await
    }
}

fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use kitbag_gateway::UpstreamSettings;
    use kitbag_testkit::scripted::{Asked, Scripted, whole};

    use super::*;

    const RULES: &str = r#"{ "global": {"override": []} }"#;

    /// What the script does otherwise than a homeserver that takes every write.
    #[derive(Clone, Copy, PartialEq)]
    enum Fault {
        None,
        /// Its syncs are larger than what is read.
        EndlessSync,
        /// It says of every device that it is there.
        EveryDevice,
        /// It says of no device that it is not there, but that there is no such path.
        NoSuchPath,
    }

    type Stored = Arc<Mutex<BTreeMap<String, Bytes>>>;

    fn answer(asked: &Asked, stored: &Stored, fault: Fault) -> (u16, Bytes) {
        let mut stored = stored.lock().unwrap();
        let path = asked.target.split('?').next().unwrap().to_owned();
        let json = |status, value: Value| (status, Bytes::from(value.to_string()));
        let none = || json(404, json!({"errcode": "M_NOT_FOUND"}));
        match (asked.method.as_str(), &*path) {
            ("POST", "/_matrix/client/v3/login") | ("GET", "/_matrix/client/v3/account/whoami") => {
                json(
                    200,
                    json!({"user_id": "@a:b", "device_id": "D", "access_token": "t"}),
                )
            }
            ("GET", path) if path.starts_with("/_matrix/client/v3/devices/") => {
                match path.ends_with("/D") || fault == Fault::EveryDevice {
                    true => json(200, json!({})),
                    false if fault == Fault::NoSuchPath => {
                        json(404, json!({"errcode": "M_UNRECOGNIZED"}))
                    }
                    false => none(),
                }
            }
            ("GET", "/_matrix/client/v3/sync") if fault == Fault::EndlessSync => {
                (200, vec![b' '; 17 * 1024 * 1024].into())
            }
            ("GET", "/_matrix/client/v3/sync") => {
                let events = json!([{"type": MAPPED, "content": {}}]);
                json(200, json!({"account_data": {"events": events}}))
            }
            ("PUT", _) => {
                stored.insert(path, asked.body.clone());
                json(200, json!({}))
            }
            ("POST", _) => json(200, json!({})),
            ("GET", _) if path.ends_with("m%2Epush%5Frules") => (200, RULES.into()),
            ("GET", _) => stored
                .get(&path)
                .map_or_else(none, |body| (200, body.clone())),
            _ => none(),
        }
    }

    /// Has a homeserver looked at, and returns what was asked of it and what it has at the end.
    async fn examined(fault: Fault) -> (Result<Report>, Vec<Asked>, Vec<Bytes>) {
        let stored = Stored::default();
        let kept = Arc::clone(&stored);
        let scripted = Scripted::start(move |asked| {
            let (status, body) = answer(&asked, &stored, fault);
            async move { whole(status, body) }
        });
        let scripted = scripted.await;
        let homeserver = Homeserver::new(UpstreamSettings {
            url: Some(scripted.url().parse().unwrap()),
            ..UpstreamSettings::default()
        });
        let mut report = Report::new(scripted.url());
        let looked = look(&homeserver.unwrap(), &mut report, "a", "secret").await;
        let kept = kept.lock().unwrap();
        let left = kept
            .iter()
            .filter(|(path, _)| path.contains("org%2Ekitbag%2Edoctor"));
        let left = left.map(|(_, body)| body.clone()).collect();
        (looked.map(|()| report), scripted.asked(), left)
    }

    fn said<'a>(report: &'a Report, what: &str) -> &'a str {
        let check = report.checks.iter().find(|check| check.what == what);
        &check.unwrap().homeserver
    }

    #[tokio::test]
    async fn nothing_is_written_but_types_of_its_own_and_push_rules_as_they_were_read() {
        let (report, asked, left) = examined(Fault::None).await;
        let report = report.unwrap();
        assert_eq!(said(&report, "PUT of m.push_rules"), "overwritten");
        assert_eq!(
            said(&report, "an entry under a long type"),
            "kept byte for byte"
        );
        assert!(report.is_fit, "{report:?}");
        let mut rules = 0;
        for asked in &asked {
            let is_write = ["PUT", "DELETE"].contains(&asked.method.as_str());
            if asked.target.ends_with("m%2Epush%5Frules") && is_write {
                assert_eq!(
                    (asked.method.as_str(), &*asked.body),
                    ("PUT", RULES.as_bytes())
                );
                rules += 1;
            } else if is_write {
                let is_own = asked.target.contains("/account_data/org%2Ekitbag%2Edoctor");
                assert!(is_own, "{asked:?}");
            }
        }
        assert_eq!(rules, 1);
        // It cannot delete, so that is what is left, and it is told.
        assert_eq!(left, ["{}", "{}"]);
        assert_eq!(report.left, [MAPPED, USUAL]);
        assert!(asked.last().unwrap().target.ends_with("/logout"));
    }

    #[tokio::test]
    async fn where_something_fails_it_empties_and_logs_out_all_the_same() {
        let (report, asked, left) = examined(Fault::EndlessSync).await;
        let error = report.unwrap_err().to_string();
        assert!(error.contains("larger than"), "{error}");
        assert_eq!(left, ["{}"], "the second was not written yet");
        assert!(asked.last().unwrap().target.ends_with("/logout"));
    }

    #[tokio::test]
    async fn what_the_gateway_needs_and_is_not_there_makes_it_unfit() {
        for fault in [Fault::EveryDevice, Fault::NoSuchPath] {
            let (report, ..) = examined(fault).await;
            let report = report.unwrap();
            assert!(!report.is_fit);
            let missing = report.checks.iter().filter(|check| check.is_missing);
            let missing: Vec<_> = missing.map(|check| check.what).collect();
            assert_eq!(missing, ["GET of a device"]);
            let text = report.text();
            assert!(text.contains("does not work: the gateway needs this"));
        }
    }
}
