//! Global and room account data: what clients write to the homeserver passes here.
//!
//! Who asks is the homeserver's to judge, and it is asked only where the gateway refuses something: so
//! an ordinary write costs no request more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::header::USER_AGENT;
use axum::http::{HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use kitbag_domain::{Content, ContentError, Key, PUSH_RULES, PermitError};
use kitbag_http::shared::{Denial, GatewayError, expectation, read_body_within};
use serde::de::IgnoredAny;
use tracing::Instrument as _;

use crate::answer::{Answer, Failure};
use crate::call::{Call, Head};
use crate::compare::{self, EntryId};
use crate::credentials::Credentials;
use crate::gateway::Gateway;
use crate::guard::{self, Guarded};
use crate::identity::Identity;
use crate::mapped;
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
    let credentials = call.head.credentials();
    if let Err(too_many) = gateway.write_rates().count(&credentials.session()) {
        let (who, key) = judge(gateway, &call.head, &credentials).await?;
        let headers = &call.head.parts.headers;
        return Err(too_many.tell(&who, key.event_type.as_str(), headers).into());
    }
    if gateway.compare().is_enabled() {
        return compare_and_write(gateway, call, &credentials).await;
    }
    call.body = match bounded(gateway, call.body).await {
        Ok(body) => body,
        Err(denial) => {
            judge(gateway, &call.head, &credentials).await?;
            return Err(denial.into());
        }
    };
    pass(gateway, call.into_request()).await
}

/// Writes by turns (MSC4547). The homeserver is asked first who asks, since no one else may have, or
/// wait for, the turn of the entry.
async fn compare_and_write(gateway: &Gateway, call: Call, credentials: &Credentials) -> Answer {
    let Call { head, body } = call;
    let upstream = gateway.upstream();
    let who = gateway.identities().recent(upstream, credentials).await?;
    let path = head.own_path(&who.user)?;
    let (room, event_type) = (path.get("room"), path.get("type").unwrap_or_default());
    // Deletions expect nothing.
    let is_put = head.parts.method == Method::PUT;
    let expectation = is_put.then(|| expectation(&head.parts.uri)).transpose()?;
    let expectation = expectation.filter(|expected| !expected.is_empty());
    let body = whole(gateway, body).await?;
    if expectation.is_some() {
        Content::parse(body.clone(), gateway.limits())?;
    }
    let entry = EntryId::new(&who.user, room, None, event_type);
    let turn = gateway.compare().turn(entry).await?;
    if let Some(expectation) = &expectation {
        let target = mapped::entry_path(&who.user, room, event_type);
        compare::judge(stored(gateway, credentials, &target).await?, expectation)?;
    }
    let gateway = gateway.clone();
    let request = Request::from_parts(head.parts, body.into());
    // A task of its own: a client that goes away does not leave the outcome open.
    let write = async move { turn.write(gateway.upstream(), request).await };
    let told = metrics::for_client(tokio::spawn(write.in_current_span())).await;
    Ok(told.map_err(|_| Denial::panicked())??.into_response())
}

/// Returns what the homeserver has; `None` for nothing.
async fn stored(
    gateway: &Gateway,
    credentials: &Credentials,
    target: &str,
) -> Result<Option<Bytes>, Failure> {
    let request = credentials.request(Method::GET, target, Bytes::new())?;
    let bytes_max = compare::stored_bytes_max(gateway.limits());
    let told = gateway.upstream().ask(request, bytes_max).await?;
    Ok(told.found()?.map(|told| told.body().clone()))
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
        None => whole(gateway, body).await.map(Body::from),
    }
}

async fn whole(gateway: &Gateway, body: Body) -> Result<Bytes, Denial> {
    let limit_bytes = gateway.limits().content_bytes_max;
    let allowed = Duration::from_millis(gateway.settings().listener.body_timeout_ms);
    metrics::for_client(read_body_within(body, limit_bytes, allowed)).await
}

/// Returns the push rules of the caller's own account; `None` where the homeserver has none.
async fn push_rules(gateway: &Gateway, head: &Head) -> Result<Option<Response>, Failure> {
    let credentials = head.credentials();
    // Not each homeserver looks at the user of the path before it says that nothing is there.
    judge(gateway, head, &credentials).await?;
    let request = credentials.request(Method::GET, PUSH_RULES_PATH, Bytes::new())?;
    let told = gateway
        .upstream()
        .ask(request, PUSH_RULES_BYTES_MAX)
        .await?;
    let members = told.json::<BTreeMap<String, IgnoredAny>>();
    let has_rules = members.is_ok_and(|members| members.contains_key("global"));
    let is_there = told.status() == StatusCode::OK && has_rules;
    Ok(is_there.then(|| told.into_response()))
}
