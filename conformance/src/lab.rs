//! What a scenario is given: a server and a way to make users on it.

use std::sync::Arc;

use kitbag_client::{Client, Login, Register, Request};

use crate::actor::Actor;
use crate::expect::{Failure, Outcome, Reply};

/// The password of every user that scenarios make.
pub(crate) const PASSWORD: &str = "conformance-Passw0rd-1";

/// A server under test.
#[derive(Clone, Debug)]
pub struct Lab {
    client: Client,
    registration_token: Option<Arc<str>>,
}

impl Lab {
    /// A lab on this server. The token is for servers whose registration needs one.
    #[must_use]
    pub fn new(client: Client, registration_token: Option<&str>) -> Self {
        Self {
            client,
            registration_token: registration_token.map(Arc::from),
        }
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
            password: Some(PASSWORD),
            registration_token: self.registration_token(),
            ..Register::default()
        };
        Ok(Actor::new(self.client.register(&register).await?))
    }

    /// Logs the user in on one more device.
    pub(crate) async fn second_device(&self, of: &Actor) -> Outcome<Actor> {
        Ok(Actor::new(
            self.client
                .login(&Login::password(of.user_id(), PASSWORD))
                .await?,
        ))
    }

    /// Logs the user in as the device of this ID.
    pub(crate) async fn login_as(&self, user_id: &str, device_id: &str) -> Outcome<Actor> {
        let login = Login {
            device_id: Some(device_id),
            ..Login::password(user_id, PASSWORD)
        };
        Ok(Actor::new(self.client.login(&login).await?))
    }

    /// Sends a request without a token.
    pub(crate) async fn send(&self, request: Request) -> Outcome<Reply> {
        let summary = request.summary();
        let response = self.client.send(request).await?;
        Ok(Reply {
            request: summary,
            response,
        })
    }
}

/// A localpart that no other run has used.
pub(crate) fn random_name() -> Outcome<String> {
    let number = getrandom::u64()
        .map_err(|error| Failure::new("random numbers of the system", error.to_string()))?;
    Ok(format!("conformance-{number:016x}"))
}
