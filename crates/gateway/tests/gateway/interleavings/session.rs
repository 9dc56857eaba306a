//! A session, and what its user does with the password.

use kitbag_client::{Account, Error, Method, Request};
use serde_json::{Value, json};

use crate::support::PASSWORD;

#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) account: Account,
    pub(super) number: usize,
}

impl Session {
    pub(super) fn device(&self) -> String {
        self.account.session().device_id.clone()
    }
}

/// Does what needs the password.
pub(super) async fn with_password(
    account: &Account,
    path: &str,
    mut body: Value,
) -> Result<(), Error> {
    let request = Request::new(Method::POST, format!("/_matrix/client/v3/{path}"));
    let challenge = account.send(request.clone().json(&body)).await?;
    let state: Value = match challenge.status {
        401 => challenge.json()?,
        _ => return challenge.success().map(drop),
    };
    body["auth"] = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": account.session().user_id},
        "password": PASSWORD,
        "session": state["session"],
    });
    let done = account.send(request.json(&body)).await?;
    done.success().map(drop)
}
