//! What a scenario is given: a server and a way to make users on it.

use std::sync::Arc;

use kitbag_client::{Account, Client, Login, Register, Request};

use crate::actor::Actor;
use crate::canary::Canary;
use crate::device_data::DeviceData;
use crate::expect::{Failure, Outcome, Reply};

/// A server under test.
#[derive(Clone, Debug)]
pub struct Lab {
    client: Client,
    registration_token: Option<Arc<str>>,
    canary: Arc<Canary>,
    device_data: DeviceData,
}

impl Lab {
    /// A lab on this server. The token is for servers whose registration needs one; the canary
    /// goes into all contents and passwords.
    #[must_use]
    pub fn new(client: Client, registration_token: Option<&str>, canary: Canary) -> Self {
        Self {
            client,
            registration_token: registration_token.map(Arc::from),
            canary: Arc::new(canary),
            device_data: DeviceData::default(),
        }
    }

    /// This lab, with device account data at another place in syncs.
    #[must_use]
    pub fn with_device_data(self, device_data: DeviceData) -> Self {
        Self {
            device_data,
            ..self
        }
    }

    /// How many writes that carried the canary the server has accepted.
    #[must_use]
    pub fn canary_stored(&self) -> u64 {
        self.canary.stored()
    }

    /// The password of every user that scenarios make.
    pub(crate) fn password(&self) -> &str {
        self.canary.password()
    }

    /// This login, as scenarios use it.
    pub(crate) fn actor(&self, account: Account) -> Actor {
        Actor::new(account, Arc::clone(&self.canary), self.device_data)
    }

    pub(crate) fn registration_token(&self) -> Option<&str> {
        self.registration_token.as_deref()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Registers a new user and returns its first device.
    pub(crate) async fn user(&self) -> Outcome<Actor> {
        self.user_named(&random_name()?).await
    }

    pub(crate) async fn user_named(&self, name: &str) -> Outcome<Actor> {
        let register = Register {
            username: Some(name),
            password: Some(self.password()),
            registration_token: self.registration_token(),
            ..Register::default()
        };
        Ok(self.actor(self.client.register(&register).await?))
    }

    /// Logs the user in on one more device.
    pub(crate) async fn second_device(&self, of: &Actor) -> Outcome<Actor> {
        Ok(self.actor(
            self.client
                .login(&Login::password(of.user_id(), self.password()))
                .await?,
        ))
    }

    /// Logs the user in as the device of this ID.
    pub(crate) async fn login_as(&self, user_id: &str, device_id: &str) -> Outcome<Actor> {
        let login = Login {
            device_id: Some(device_id),
            ..Login::password(user_id, self.password())
        };
        Ok(self.actor(self.client.login(&login).await?))
    }

    /// Sends a request without a token.
    pub(crate) async fn send(&self, request: Request) -> Outcome<Reply> {
        let summary = request.summary();
        let response = self.client.send(request).await?;
        self.canary.reply(summary, response)
    }
}

/// A localpart that no other run has used.
pub(crate) fn random_name() -> Outcome<String> {
    let number = getrandom::u64()
        .map_err(|error| Failure::new("random numbers of the system", error.to_string()))?;
    Ok(format!("conformance-{number:016x}"))
}
