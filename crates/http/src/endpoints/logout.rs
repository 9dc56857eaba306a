//! `POST /logout`, `POST /logout/all`: the device goes with its session (law 6).
//!
//! Spec: CS API, Login. MSC4331: its account data goes too. MSC3890.

use axum::extract::State;
use kitbag_domain::DeviceSelection;

use crate::error::ApiError;
use crate::extract::Authenticated;
use crate::json::EmptyObject;
use crate::state::App;

pub(crate) async fn logout(
    State(app): State<App>,
    auth: Authenticated,
) -> Result<EmptyObject, ApiError> {
    let own = auth
        .requester
        .device
        .iter()
        .map(|(device, _)| device.clone());
    app.remove_devices(&auth, DeviceSelection::These(own.collect()))
        .await
}

pub(crate) async fn logout_all(
    State(app): State<App>,
    auth: Authenticated,
) -> Result<EmptyObject, ApiError> {
    app.remove_devices(&auth, DeviceSelection::All).await
}

impl App {
    pub(crate) async fn remove_devices(
        &self,
        auth: &Authenticated,
        devices: DeviceSelection,
    ) -> Result<EmptyObject, ApiError> {
        let write = auth.requester.write_at(self.clock.now_ms());
        self.store
            .remove_devices(&auth.requester.user, write, devices)
            .await?;
        Ok(EmptyObject)
    }
}
