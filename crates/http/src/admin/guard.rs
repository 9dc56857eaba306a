//! What stands before every admin endpoint: the check of its token, and the audit.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts as _, Request};
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use tracing::{info, warn};

use crate::dispatch::Endpoint;
use crate::error::ApiError;
use crate::extract::{Client, MatrixQuery, PathParams};
use crate::state::{App, Call};

/// The target of the audit's lines in the log.
const AUDIT: &str = "kitbag::audit";

/// Lets only who has an admin token come to the endpoint, and notes each who tried.
pub(crate) fn guarded(endpoint: Endpoint) -> Endpoint {
    let endpoint = Arc::new(endpoint);
    Box::new(move |request, call| {
        let endpoint = Arc::clone(&endpoint);
        Box::pin(async move { answer(request, call, &endpoint).await })
    })
}

async fn answer(request: Request<Body>, call: Call, endpoint: &Endpoint) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(client) = Client::from_request_parts(&mut parts, &call).await;
    let mut audit = Audit::of(&mut parts, &call, &client).await;
    match authorize(&parts, &call.app, &client) {
        Ok(name) => audit.admin = Some(name),
        Err(error) => {
            let response = error.into_response();
            audit.status = Some(response.status().as_u16());
            return response;
        }
    }
    let response = endpoint(Request::from_parts(parts, body), call).await;
    audit.status = Some(response.status().as_u16());
    response
}

/// Returns the name of the request's token.
///
/// Who has tried too many wrong ones is refused before theirs is looked at: so nobody guesses.
fn authorize(parts: &Parts, app: &App, client: &Client) -> Result<String, ApiError> {
    app.rate_limits.admin(client.address)?;
    match app.settings.admin.authorize(&parts.headers) {
        Ok(name) => Ok(name.to_owned()),
        Err(error @ ApiError::UnknownToken { .. }) => {
            app.rate_limits.wrong_admin_token(client.address)?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// What is noted of a request, once: when it is answered, or where it ends without an answer.
///
/// Of the query the type alone: another parameter can hold a part of a content.
struct Audit {
    method: Method,
    route: &'static str,
    address: String,
    admin: Option<String>,
    user: Option<String>,
    scope: Option<&'static str>,
    place: Option<String>,
    event_type: Option<String>,
    status: Option<u16>,
}

#[derive(Deserialize)]
struct TypeQuery {
    #[serde(rename = "type")]
    event_type: Option<String>,
}

impl Audit {
    async fn of(parts: &mut Parts, call: &Call, client: &Client) -> Self {
        let params = PathParams::from_request_parts(parts, call).await.ok();
        let param = |name: &str| Some(params.as_ref()?.get(name)?.to_owned());
        let event_type = param("type");
        let (scope, place) = match (param("room"), param("device")) {
            (Some(room), _) => (Some("room"), Some(room)),
            (None, Some(device)) => (Some("device"), Some(device)),
            (None, None) => (event_type.is_some().then_some("global"), None),
        };
        Self {
            method: parts.method.clone(),
            route: call.template,
            address: client.address.to_string(),
            admin: None,
            user: param("user"),
            scope,
            place,
            event_type: event_type.or_else(|| type_in_query(&parts.uri)),
            status: None,
        }
    }
}

fn type_in_query(uri: &Uri) -> Option<String> {
    let query = MatrixQuery::<TypeQuery>::of(uri);
    query.ok().and_then(|MatrixQuery(query)| query.event_type)
}

impl Drop for Audit {
    /// Also where the client left, or a handler panicked: what was begun may have been done.
    fn drop(&mut self) {
        let Self {
            method,
            route,
            address,
            admin,
            user,
            scope,
            place,
            event_type,
            status,
        } = self;
        let method = method.as_str();
        let user = user.as_deref();
        let place = place.as_deref();
        let event_type = event_type.as_deref();
        match admin.as_deref() {
            Some(admin) => info!(
                target: AUDIT,
                admin,
                method,
                route,
                address,
                user,
                scope,
                place,
                r#type = event_type,
                status,
                "admin request"
            ),
            None => warn!(
                target: AUDIT,
                method,
                route,
                address,
                user,
                scope,
                place,
                r#type = event_type,
                status,
                "admin request refused"
            ),
        }
    }
}
