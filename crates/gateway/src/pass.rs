//! Pass-through: what the gateway does not handle goes to the homeserver as it came, and so does the
//! answer. Bodies are streamed both ways.

use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use kitbag_http::shared::Denial;

use crate::answer::Answer;
use crate::credentials::Shown;
use crate::gateway::Gateway;
use crate::metrics::Asked;
use crate::upload::Silence;

/// Hands a request on.
pub(crate) async fn pass(gateway: &Gateway, request: Request<Body>) -> Answer {
    let shown = Shown::of(&request);
    let asked = Asked::by_client(request.uri().path());
    let allowed = Duration::from_millis(gateway.settings().listener.body_timeout_ms);
    let (request, silence) = Silence::watch(request, allowed);
    // By reference, as at the edge: the count around it would hold it anew.
    let answer = pin!(gateway.upstream().send(request));
    let response = gateway.metrics().upstream(asked, answer).await;
    let was_silent = silence.is_some_and(|silence| silence.was_too_long());
    let response = match response {
        Err(_) if was_silent => return Err(Denial::body_timeout().into()),
        response => response?,
    };
    if response.status() == StatusCode::UNAUTHORIZED {
        // Whose these credentials were is not remembered any longer.
        gateway.identities().forget(shown.fingerprint());
    }
    Ok(response)
}
