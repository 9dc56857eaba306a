//! Pass-through: what the gateway does not handle goes to the homeserver as it came, and so does the
//! answer. Bodies are streamed both ways.

use std::pin::pin;

use axum::body::Body;
use axum::http::{Request, StatusCode};

use crate::answer::Answer;
use crate::credentials::Shown;
use crate::gateway::Gateway;
use crate::metrics::Asked;

/// Hands a request on.
pub(crate) async fn pass(gateway: &Gateway, request: Request<Body>) -> Answer {
    let shown = Shown::of(&request);
    let asked = Asked::by_client(request.uri().path());
    // By reference, as at the edge: the count around it would hold it anew.
    let answer = pin!(gateway.upstream().send(request));
    let response = gateway.metrics().upstream(asked, answer).await?;
    if response.status() == StatusCode::UNAUTHORIZED {
        // Whose these credentials were is not remembered any longer.
        gateway.identities().forget(shown.fingerprint());
    }
    Ok(response)
}
