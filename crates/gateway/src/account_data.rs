//! Global and room account data: what clients write to the homeserver passes here.
//!
//! Who asks is the homeserver's to judge, and it is asked only where the gateway refuses something: so
//! an ordinary write costs no request more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::header::USER_AGENT;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use kitbag_domain::{ContentError, Key, PUSH_RULES, PermitError};
use kitbag_http::shared::{Denial, GatewayError, read_body_within};
use serde::de::IgnoredAny;

use crate::answer::{Answer, Failure};
use crate::call::{Call, Head};
use crate::credentials::Credentials;
use crate::gateway::Gateway;
use crate::guard::{self, Guarded};
use crate::identity::Identity;
use crate::metrics::{self, Outcome};
use crate::pass::pass;
use crate::settings::Protection;

/// Where homeservers have the push rules.
const PUSH_RULES_PATH: &str = "/_matrix/client/v3/pushrules/";

/// Bytes of all push rules of a user: Kitbag's own have at most 1 MiB, and Synapse has no bound.
const PUSH_RULES_BYTES_MAX: usize = 16 * 1024 * 1024;

/// `PUT` and `DELETE`: what the server manages is refused before the homeserver sees it (MSC4010), and
/// so is what holds device account data.
pub(crate) async fn write(gateway: &Gateway, mut call: Call) -> Answer {
    if let Some(guarded) = guard::read_strictly(call.head.parts.uri.path()) {
        permit(gateway, &call.head, guarded).await?;
    }
    call.body = match bounded(gateway, call.body).await {
        Ok(body) => body,
        Err(denial) => {
            judge(gateway, &call.head, &call.head.credentials()).await?;
            return Err(denial.into());
        }
    };
    pass(gateway, call.into_request()).await
}

/// `GET` at global scope: the push rules are there also where the homeserver has them by their own
/// path alone.
pub(crate) async fn read(gateway: &Gateway, call: Call) -> Answer {
    let read = guard::read_strictly(call.head.parts.uri.path());
    if read != Some(Guarded::ServerManaged(PUSH_RULES)) {
        return pass(gateway, call.into_request()).await;
    }
    let head = call.head.clone();
    let response = pass(gateway, call.into_request()).await?;
    match response.status() {
        StatusCode::NOT_FOUND => Ok(push_rules(gateway, &head).await?.unwrap_or(response)),
        _ => Ok(response),
    }
}

/// Refuses a write of a guarded type, but for one that is only observed.
async fn permit(gateway: &Gateway, head: &Head, guarded: Guarded) -> Result<(), Failure> {
    let user_agent = head.parts.headers.get(USER_AGENT);
    let count = |event_type, outcome| {
        let user_agent = user_agent.map(HeaderValue::as_bytes);
        gateway.metrics().protected(event_type, outcome, user_agent);
    };
    let is_observed = gateway.settings().protect.push_rules == Protection::Observe;
    if is_observed && guarded == Guarded::ServerManaged(PUSH_RULES) {
        count(PUSH_RULES, Outcome::Observed);
        gateway.observed().saw(&head.parts.headers);
        return Ok(());
    }
    let (_, key) = judge(gateway, head, &head.credentials()).await?;
    count(key.event_type.as_str(), Outcome::Refused);
    Err(match guarded {
        Guarded::Mapped => GatewayError::MappedType.into(),
        Guarded::ServerManaged(_) => PermitError::ServerManaged(key.event_type).into(),
    })
}

/// Tells what is wrong with the token and the path, which the API tells before everything else.
async fn judge(
    gateway: &Gateway,
    head: &Head,
    credentials: &Credentials,
) -> Result<(Arc<Identity>, Key), Failure> {
    let upstream = gateway.upstream();
    let who = gateway.identities().recent(upstream, credentials).await?;
    let key = head.own_path(&who.user)?.key()?;
    Ok((who, key))
}

/// Returns a body that is not too large. It is read here only where its length is not told.
async fn bounded(gateway: &Gateway, body: Body) -> Result<Body, Denial> {
    let limit_bytes = gateway.limits().content_bytes_max;
    match body.size_hint().exact() {
        Some(bytes) if bytes > limit_bytes => Err(ContentError::TooLarge { limit_bytes }.into()),
        Some(_) => Ok(body),
        None => {
            let allowed = Duration::from_millis(gateway.settings().listener.body_timeout_ms);
            let body = read_body_within(body, limit_bytes, allowed);
            metrics::for_client(body).await.map(Body::from)
        }
    }
}

/// Returns the push rules of the caller's own account; `None` where the homeserver has none.
async fn push_rules(gateway: &Gateway, head: &Head) -> Result<Option<Response>, Failure> {
    let credentials = head.credentials();
    // Not each homeserver looks at the user of the path before it says that nothing is there.
    judge(gateway, head, &credentials).await?;
    let request = credentials.request(Method::GET, PUSH_RULES_PATH, Bytes::new());
    let told = gateway
        .upstream()
        .ask(request, PUSH_RULES_BYTES_MAX)
        .await?;
    let members = told.json::<BTreeMap<String, IgnoredAny>>();
    let has_rules = members.is_ok_and(|members| members.contains_key("global"));
    let is_there = told.status() == StatusCode::OK && has_rules;
    Ok(is_there.then(|| told.into_response()))
}
