//! Pass-through: what the gateway does not handle goes to the homeserver as it came, and so does the
//! answer. Bodies are streamed both ways.

use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};

use crate::answer::Answer;
use crate::credentials::Shown;
use crate::gateway::Gateway;
use crate::metrics::Asked;
use crate::upload::Upload;

/// Hands a request on.
pub(crate) async fn pass(gateway: &Gateway, request: Request<Body>) -> Answer {
    let shown = Shown::of(request.headers(), request.uri());
    let asked = Asked::by_client(request.uri().path());
    let allowed = Duration::from_millis(gateway.settings().listener.body_timeout_ms);
    let (request, upload) = Upload::watch(request, allowed);
    // By reference, as at the edge: the count around it would hold it anew.
    let answer = pin!(gateway.upstream().send(request, upload.as_ref()));
    let response = gateway.metrics().upstream(asked, answer).await;
    let response = match response {
        Ok(response) => response,
        Err(error) => match upload.as_ref().and_then(Upload::denial) {
            Some(denial) => return Err(denial.into()),
            None => return Err(error.into()),
        },
    };
    if response.status() == StatusCode::UNAUTHORIZED {
        // Whose these credentials were is not remembered any longer.
        gateway.identities().forget(shown.fingerprint());
    }
    Ok(response)
}
