//! Global and room account data: what clients write to the homeserver passes here.
//!
//! Who asks is the homeserver's to judge, and it is asked only where the gateway refuses something: so
//! an ordinary write costs no request more.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use kitbag_domain::{EventType, PUSH_RULES, PermitError};
use kitbag_http::shared::{Denial, GatewayError, expectation};
use serde::de::IgnoredAny;
use tracing::Instrument as _;

use crate::answer::{Answer, Failure, is_unauthorized};
use crate::bodies;
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

/// The entry of a room that its tags are.
const TAGS: &str = "m.tag";

/// Where homeservers have the push rules.
const PUSH_RULES_PATH: &str = "/_matrix/client/v3/pushrules/";

/// Bytes of all push rules of a user: Kitbag's own have at most 1 MiB, and Synapse has no bound.
const PUSH_RULES_BYTES_MAX: usize = 16 * 1024 * 1024;

/// `PUT` and `DELETE`: what the server manages is refused before the homeserver sees it (MSC4010), and
/// so is what holds device account data.
pub(crate) async fn write(gateway: &Gateway, call: Call) -> Answer {
    let guarded = guard::read_strictly(call.head.parts.uri.path());
    let Some(guarded) = guarded else {
        return write_unguarded(gateway, call).await;
    };
    permit(gateway, &call.head, guarded).await?;
    let headers = call.head.parts.headers.clone();
    let answer = write_unguarded(gateway, call).await?;
    if answer.status().is_success() {
        count_guarded(gateway, &headers, PUSH_RULES, Outcome::Observed);
        gateway.observed().saw(&headers);
    }
    Ok(answer)
}

/// Writes what anybody may, within the limits.
async fn write_unguarded(gateway: &Gateway, call: Call) -> Answer {
    let write = |call: Call| async {
        match gateway.compare().is_enabled() {
            true => compare_and_write(gateway, call).await,
            false => pass(gateway, call.into_request()).await,
        }
    };
    within_limits(gateway, call, write).await
}

/// Counts a write, by its size too, and does it where it may go on. One of nobody counts nothing.
async fn within_limits<F>(gateway: &Gateway, call: Call, write: impl FnOnce(Call) -> F) -> Answer
where
    F: Future<Output = Answer>,
{
    let Call { head, body } = call;
    let limit_bytes = gateway.limits().content_bytes_max;
    let measured = bodies::measure(gateway, body, limit_bytes).await;
    // One that is refused counts too: the homeserver is asked whose it is.
    let bytes = measured.as_ref().map_or(0, |measured| measured.bytes);
    let path_bytes = head.parts.uri.path().len();
    let session = head.credentials().session();
    let counted = gateway.write_rates().count(&session, bytes, path_bytes);
    let answer = match (&counted, measured) {
        (Ok(_), Ok(bodies::Measured { body, .. })) => write(Call { head, body }).await,
        (Ok(_), Err(denial)) => Err(beyond_limit(gateway, &head, denial).await),
        (Err(too_many), _) => {
            let denial = Denial::from(too_many.clone());
            Err(beyond_limit(gateway, &head, denial).await)
        }
    };
    if let Ok(counted) = &counted
        && is_unauthorized(&answer)
    {
        gateway.write_rates().take_back(counted);
    }
    answer
}

/// Returns why a write is refused: what is wrong with the token and the path comes before limits.
async fn beyond_limit(gateway: &Gateway, head: &Head, denial: Denial) -> Failure {
    match judge(gateway, head, &head.credentials()).await {
        Ok((who, event_type)) => {
            let excesses = gateway.excesses();
            excesses.tell(&denial, head, &who, event_type.as_str());
            denial.into()
        }
        Err(failure) => failure,
    }
}

/// Writes by turns (MSC4547). The homeserver is asked first who asks, since no one else may have, or
/// wait for, the turn of the entry.
async fn compare_and_write(gateway: &Gateway, call: Call) -> Answer {
    let Call { head, body } = call;
    let (upstream, credentials) = (gateway.upstream(), head.credentials());
    let who = gateway.identities().recent(upstream, &credentials).await?;
    let path = head.own_path(&who.user)?;
    let (room, event_type) = (path.get("room"), path.get("type").unwrap_or_default());
    // Deletions expect nothing.
    let is_put = head.parts.method == Method::PUT;
    let expectation = is_put.then(|| expectation(&head.parts.uri)).transpose()?;
    let expectation = expectation.filter(|expected| !expected.is_empty());
    let body = whole(gateway, body).await?;
    if expectation.is_some() {
        bodies::content(body.clone(), gateway.limits())?;
    }
    let entry = EntryId::new(&who.user, room, None, event_type);
    let turn = gateway.compare().turn(entry).await?;
    if let Some(expectation) = &expectation {
        let target = mapped::entry_path(&who.user, room, event_type);
        compare::judge(stored(gateway, &credentials, &target).await?, expectation)?;
    }
    send(gateway, turn, head, body).await
}

/// `PUT` and `DELETE` of a tag: all tags of a room are one entry of it, so that they count as writes of
/// it, and take turns where writes do.
pub(crate) async fn tag(gateway: &Gateway, call: Call) -> Answer {
    within_limits(gateway, call, |call| write_tag(gateway, call)).await
}

async fn write_tag(gateway: &Gateway, call: Call) -> Answer {
    if !gateway.compare().is_enabled() {
        return pass(gateway, call.into_request()).await;
    }
    let Call { head, body } = call;
    let (upstream, credentials) = (gateway.upstream(), head.credentials());
    let who = gateway.identities().recent(upstream, &credentials).await?;
    let path = head.own_path(&who.user)?;
    let body = whole(gateway, body).await?;
    let entry = EntryId::new(&who.user, path.get("room"), None, TAGS);
    let turn = gateway.compare().turn(entry).await?;
    send(gateway, turn, head, body).await
}

/// Sends a write whose turn it is.
async fn send(gateway: &Gateway, turn: compare::Turn, head: Head, body: Bytes) -> Answer {
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
    let is_observed = gateway.settings().protect.push_rules == Protection::Observe;
    if is_observed && guarded == Guarded::ServerManaged(PUSH_RULES) {
        return Ok(());
    }
    let (_, event_type) = judge(gateway, head, &head.credentials()).await?;
    let (headers, outcome) = (&head.parts.headers, Outcome::Refused);
    count_guarded(gateway, headers, event_type.as_str(), outcome);
    Err(match guarded {
        Guarded::Mapped => GatewayError::MappedType.into(),
        Guarded::ServerManaged(_) => PermitError::ServerManaged(event_type).into(),
    })
}

fn count_guarded(gateway: &Gateway, headers: &HeaderMap, event_type: &str, outcome: Outcome) {
    let user_agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes);
    gateway.metrics().protected(event_type, outcome, user_agent);
}

/// Tells what is wrong with the token and the path, which the API tells before everything else, and
/// else who asks and the type of the entry.
async fn judge(
    gateway: &Gateway,
    head: &Head,
    credentials: &Credentials,
) -> Result<(Arc<Identity>, EventType), Failure> {
    let upstream = gateway.upstream();
    let who = gateway.identities().recent(upstream, credentials).await?;
    let path = head.own_path(&who.user)?;
    let event_type = match path.get("tag") {
        Some(_) => EventType::parse(TAGS)?,
        None => path.key()?.event_type,
    };
    Ok((who, event_type))
}

async fn whole(gateway: &Gateway, body: Body) -> Result<Bytes, Denial> {
    bodies::whole(gateway, body, gateway.limits().content_bytes_max).await
}

/// Returns the push rules of the caller's own account; `None` where the homeserver says that it has
/// none. What it cannot say now is no reason to tell the client that there are none.
async fn push_rules(gateway: &Gateway, head: &Head) -> Result<Option<Response>, Failure> {
    let credentials = head.credentials();
    // Not each homeserver looks at the user of the path before it says that nothing is there.
    judge(gateway, head, &credentials).await?;
    let request = credentials.request(Method::GET, PUSH_RULES_PATH, Bytes::new())?;
    let upstream = gateway.upstream();
    let told = upstream.ask(request, PUSH_RULES_BYTES_MAX).await?;
    if told.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let told = told.done()?;
    let members = told.json::<BTreeMap<String, IgnoredAny>>()?;
    match members.contains_key("global") {
        true => Ok(Some(told.into_response())),
        false => Err(told.strange().into()),
    }
}
