//! What a homeserver does with the account data of an account.
//!
//! What is written has types of this program's own, and is emptied at the end: all of it is tried,
//! and the device logged out, whatever happens before. Push rules are put back as they were just read.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use kitbag_domain::UserId;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::patient::Patient;
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
///
/// # Errors
/// All that failed; what was seen before is in the report.
pub(super) async fn look(
    homeserver: &Patient,
    report: &mut Report,
    user: &str,
    password: &str,
) -> Result<()> {
    let (session, login) = Session::login(homeserver, user, password).await?;
    let looked = match Account::of(&session, &login) {
        Ok(account) => {
            report.user = Some(account.user.clone());
            let looked = account.look(report).await;
            homeserver.begin_anew();
            both(looked, account.empty(report).await)
        }
        Err(error) => Err(error),
    };
    homeserver.begin_anew();
    both(looked, session.log_out().await)
}

/// Fails with all that failed: each may have left something behind.
fn both(one: Result<()>, other: Result<()>) -> Result<()> {
    match (one, other) {
        (Err(one), Err(other)) => Err(anyhow!("{one:#}; {other:#}")),
        (one, other) => one.and(other),
    }
}

/// A login, of which nothing is known but its token.
struct Session<'a> {
    homeserver: &'a Patient,
    token: String,
}

impl<'a> Session<'a> {
    /// Returns the session and the whole answer to the login.
    async fn login(homeserver: &'a Patient, user: &str, password: &str) -> Result<(Self, Value)> {
        let login = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": user },
            "password": password,
            "initial_device_display_name": "kitbag doctor",
        });
        let path = format!("{C3}/login");
        let answer = homeserver
            .ask("POST", &path, None, &login.to_string())
            .await
            .context("the login")?;
        if answer.status != 200 {
            bail!("the login of {user} was refused: {}", told(&answer));
        }
        let login: Value =
            serde_json::from_slice(&answer.body).context("the answer to the login")?;
        let token = member(&login, "access_token")?;
        Ok((Self { homeserver, token }, login))
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> Asked {
        let (path, token) = (format!("{C3}{path}"), Some(&*self.token));
        self.homeserver.ask(method, &path, token, body).await
    }

    async fn log_out(&self) -> Result<()> {
        let answer = self.send("POST", "/logout", "{}").await;
        let answer = answer.context("the device \"kitbag doctor\" could not be logged out")?;
        ensure!(
            answer.status == 200,
            "the device \"kitbag doctor\" could not be logged out: {}",
            told(&answer)
        );
        Ok(())
    }
}

/// The account that is looked at.
struct Account<'a> {
    session: &'a Session<'a>,
    user: String,
    device: String,
}

impl<'a> Account<'a> {
    fn of(session: &'a Session<'a>, login: &Value) -> Result<Self> {
        let user = member(login, "user_id")?;
        UserId::parse(user.as_str()).context("the answer to the login")?;
        let device = member(login, "device_id")?;
        Ok(Self {
            session,
            user,
            device,
        })
    }

    async fn look(&self, report: &mut Report) -> Result<()> {
        let looked = self.identity(report).await;
        looked.context("whoami and devices")?;
        let looked = self.mapped(report).await;
        looked.context("an entry under a long type")?;
        let looked = self.without_members(report).await;
        looked.context("an entry that is {}")?;
        self.filter(report).await.context("a sync with a filter")?;
        self.push_rules(report).await.context("m.push_rules")?;
        self.revisions(report).await.context("compare-and-swap")?;
        self.deletion(report).await.context("DELETE of an entry")
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

    /// Where `{}` deletes, a device cannot keep it either.
    async fn without_members(&self, report: &mut Report) -> Result<()> {
        let path = self.entry(USUAL);
        let put = self.send("PUT", &path, "{}").await?;
        let got = self.send("GET", &path, "").await?;
        let (said, gateway) = match got.status {
            200 => ("kept".to_owned(), "as it is"),
            404 => (
                "taken for a deletion".to_owned(),
                "the same: of a device too it reads as none",
            ),
            _ => (
                format!("PUT {}, GET {}", told(&put), told(&got)),
                "as it is",
            ),
        };
        report.add("an entry that is {}", said, gateway);
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
                let (homeserver, token) = (self.session.homeserver, Some(&*self.session.token));
                let path = format!("{C3}{path}");
                let rules = text(&got.body);
                // Never later: by then somebody may have changed them.
                let put = homeserver.ask_once("PUT", &path, token, &rules).await?;
                match put.status {
                    200 => "overwritten".to_owned(),
                    429 => format!("not seen ({})", told(&put)),
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

    /// Takes away what was written, of each type whatever becomes of the other.
    async fn empty(&self, report: &mut Report) -> Result<()> {
        let mapped = self.empty_one(MAPPED, report).await;
        both(mapped, self.empty_one(USUAL, report).await)
    }

    /// Where it cannot be deleted, `{}` is left.
    async fn empty_one(&self, event_type: &'static str, report: &mut Report) -> Result<()> {
        // What that came to is seen behind it.
        drop(self.delete(event_type).await);
        let path = self.entry(event_type);
        let got = self.send("GET", &path, "").await;
        if got.is_ok_and(|got| got.status == 404) {
            return Ok(());
        }
        let put = self.send("PUT", &path, "{}").await;
        let emptied = put.and_then(|put| match put.status {
            200 => Ok(()),
            _ => bail!("{}", told(&put)),
        });
        let list = match emptied {
            Ok(()) => &mut report.left,
            Err(_) => &mut report.kept,
        };
        list.push(event_type.to_owned());
        emptied.with_context(|| format!("{event_type} could not be emptied"))
    }

    async fn delete(&self, event_type: &str) -> Asked {
        let entry = self.entry(event_type);
        let path = format!("/_matrix/client/unstable/org.matrix.msc3391{entry}");
        let Session { homeserver, token } = self.session;
        homeserver.ask("DELETE", &path, Some(token), "").await
    }

    fn entry(&self, event_type: &str) -> String {
        let (user, event_type) = (segment(&self.user), segment(event_type));
        format!("/user/{user}/account_data/{event_type}")
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> Asked {
        self.session.send(method, path, body).await
    }
}

fn member(login: &Value, name: &str) -> Result<String> {
    let text = login[name].as_str().map(str::to_owned);
    text.with_context(|| format!("the answer to the login has no `{name}`"))
}

fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

#[cfg(test)]
mod tests;
