//! The endpoints that need a session.

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Client, REQUEST_TIMEOUT};
use crate::error::Error;
use crate::path::{self, Naming, Scope, V3};
use crate::request::Request;
use crate::response::Response;
use crate::types::{Device, Session, SyncParams, SyncResponse, Whoami};

/// A client that acts as one logged-in device.
#[derive(Clone, Debug)]
pub struct Account {
    client: Client,
    session: Session,
}

/// What a conditional write came to (MSC4547).
#[derive(Clone, Debug, PartialEq)]
pub enum PutOutcome {
    /// The stored revision was another; nothing was written.
    Conflict {
        /// What is stored, if the server says so.
        current: Option<Value>,
    },
    /// The content is stored.
    Written,
}

/// The revision that a conditional write expects, and the names it is sent under (MSC4547).
#[derive(Clone, Copy, Debug)]
pub struct Revision<'a> {
    /// The expected `m.revision_id` or `com.beeper.revision_id`.
    pub id: &'a str,
    /// The names to use.
    pub naming: Naming,
}

impl Revision<'_> {
    /// The query string that carries the expectation, with its `?`.
    #[must_use]
    pub fn query(&self) -> String {
        let name = match self.naming {
            Naming::Stable => "expect_revision_id",
            Naming::Unstable => "com.beeper.expect_revision_id",
        };
        format!("?{name}={}", path::segment(self.id))
    }
}

impl Account {
    pub(crate) fn new(client: Client, session: Session) -> Self {
        Self { client, session }
    }

    /// The client under this account.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whom this account acts as.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Sends a request with this account's token and returns the answer as it came.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send(&self, request: Request) -> Result<Response, Error> {
        self.client
            .send(request.token(&self.session.access_token))
            .await
    }

    /// Returns an entry's content, `None` if there is none.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn get(&self, scope: Scope<'_>, kind: &str) -> Result<Option<Value>, Error> {
        let path = path::account_data(&self.session.user_id, scope, Naming::Stable, kind);
        let response = self.send(Request::new(Method::GET, path)).await?;
        if response.status == 404 && Error::of_response(&response).errcode() == Some("M_NOT_FOUND")
        {
            return Ok(None);
        }
        response.success()?.json().map(Some)
    }

    /// Replaces an entry's content.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn put(&self, scope: Scope<'_>, kind: &str, content: &Value) -> Result<(), Error> {
        let path = path::account_data(&self.session.user_id, scope, Naming::Stable, kind);
        self.send(Request::new(Method::PUT, path).json(content))
            .await?
            .success()?;
        Ok(())
    }

    /// Replaces an entry's content if its revision is the expected one (MSC4547).
    ///
    /// # Errors
    /// All of [`Error`]; a conflict is not an error.
    pub async fn put_expecting(
        &self,
        scope: Scope<'_>,
        kind: &str,
        content: &Value,
        expected: Revision<'_>,
    ) -> Result<PutOutcome, Error> {
        let path = path::account_data(&self.session.user_id, scope, Naming::Stable, kind);
        let path = path + &expected.query();
        let response = self
            .send(Request::new(Method::PUT, path).json(content))
            .await?;
        if response.status != 409 {
            response.success()?;
            return Ok(PutOutcome::Written);
        }
        let body: Value = response.json()?;
        let current = body
            .get("current_content")
            .or(body.get("com.beeper.current_content"));
        Ok(PutOutcome::Conflict {
            current: current.cloned(),
        })
    }

    /// Deletes an entry (MSC3391); also succeeds if there is none.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn delete(&self, scope: Scope<'_>, kind: &str) -> Result<(), Error> {
        let user_id = &self.session.user_id;
        let path = path::account_data_deletion(user_id, scope, Naming::Stable, kind);
        self.send(Request::new(Method::DELETE, path))
            .await?
            .success()?;
        Ok(())
    }

    /// Returns what is new, waiting for it as long as `params` says.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn sync(&self, params: SyncParams<'_>) -> Result<SyncResponse, Error> {
        let request = Request::new(Method::GET, params.path())
            .timeout(params.timeout.saturating_add(REQUEST_TIMEOUT));
        self.send(request).await?.success()?.json()
    }

    /// Returns whom the token belongs to.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn whoami(&self) -> Result<Whoami, Error> {
        let request = Request::new(Method::GET, format!("{V3}/account/whoami"));
        self.send(request).await?.success()?.json()
    }

    /// Returns the account's devices.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn devices(&self) -> Result<Vec<Device>, Error> {
        #[derive(Deserialize)]
        struct Devices {
            devices: Vec<Device>,
        }
        let request = Request::new(Method::GET, format!("{V3}/devices"));
        let devices: Devices = self.send(request).await?.success()?.json()?;
        Ok(devices.devices)
    }

    /// Returns one device, `None` if the account has none of this ID.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn device(&self, device_id: &str) -> Result<Option<Device>, Error> {
        let response = self
            .send(Request::new(Method::GET, path::device(device_id)))
            .await?;
        if response.status == 404 {
            Ok(None)
        } else {
            response.success()?.json().map(Some)
        }
    }

    /// Gives a device another name.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn rename_device(&self, device_id: &str, name: &str) -> Result<(), Error> {
        let request = Request::new(Method::PUT, path::device(device_id));
        self.send(request.json(&json!({"display_name": name})))
            .await?
            .success()?;
        Ok(())
    }

    /// Removes a device and all that it had, proving the user's presence by the password.
    ///
    /// # Errors
    /// All of [`Error`]; a wrong password is [`Error::Matrix`] with `M_FORBIDDEN`.
    pub async fn delete_device(&self, device_id: &str, password: &str) -> Result<(), Error> {
        let request = Request::new(Method::DELETE, path::device(device_id));
        let challenge = self.send(request.clone().json(&json!({}))).await?;
        if challenge.status != 401 {
            challenge.success()?;
            return Ok(());
        }
        let state: Value = challenge.json()?;
        let auth = json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.session.user_id},
            "password": password,
            "session": state["session"],
        });
        self.send(request.json(&json!({"auth": auth})))
            .await?
            .success()?;
        Ok(())
    }

    /// Exchanges the refresh token for new tokens, which this account then uses.
    ///
    /// # Errors
    /// All of [`Error`]; [`Error::BadBody`] if the session has no refresh token.
    pub async fn refresh(&mut self) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Refreshed {
            access_token: String,
            refresh_token: Option<String>,
            expires_in_ms: Option<u64>,
        }
        let Some(refresh_token) = &self.session.refresh_token else {
            return Err(Error::BadBody("session has no refresh token".to_owned()));
        };
        let request = Request::new(Method::POST, format!("{V3}/refresh"))
            .json(&json!({"refresh_token": refresh_token}));
        let refreshed: Refreshed = self.client.send(request).await?.success()?.json()?;
        self.session.access_token = refreshed.access_token;
        self.session.expires_in_ms = refreshed.expires_in_ms;
        if refreshed.refresh_token.is_some() {
            self.session.refresh_token = refreshed.refresh_token;
        }
        Ok(())
    }

    /// Ends the session; the device and its account data go with it.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn logout(&self) -> Result<(), Error> {
        self.post_empty("logout").await
    }

    /// Ends all sessions of the account.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn logout_all(&self) -> Result<(), Error> {
        self.post_empty("logout/all").await
    }

    async fn post_empty(&self, endpoint: &str) -> Result<(), Error> {
        let request = Request::new(Method::POST, format!("{V3}/{endpoint}")).json(&json!({}));
        self.send(request).await?.success()?;
        Ok(())
    }
}
