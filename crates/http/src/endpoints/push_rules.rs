//! Push rules: all of them, one kind, one rule, and its attributes, below `/pushrules/`.
//!
//! Every `GET` shows a part of the one text that is the value of `m.push_rules`.
//!
//! Spec: CS API, Push rules API. `GET /pushrules/global/{kind}/` is Sytest's, as are the answers of
//! 400 to requests that no endpoint stands behind.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::Uri;
use axum::http::request::Parts;
use bytes::Bytes;
use kitbag_domain::Content;
use kitbag_push::{
    Actions, Edit, Kind, NewRule, Place, RuleId, ServedRule, find_rule, find_rules, find_ruleset,
    parse_enabled,
};
use serde::Deserialize;

use crate::error::ApiError;
use crate::extract::{Authenticated, MatrixQuery, PathParams, read_body};
use crate::json::{EmptyObject, Verbatim};
use crate::state::{App, Call};

const IS_SERVED: &str = "served rules have the scope `global` and all kinds";

/// Answers a request whose path looks like one of push rules and is none, for its method.
pub(crate) async fn misplaced(_auth: Authenticated) -> ApiError {
    ApiError::NoPushRulePath
}

pub(crate) async fn get_all(
    State(app): State<App>,
    auth: Authenticated,
) -> Result<Verbatim, ApiError> {
    Ok(Verbatim(app.data.push_rules(&auth.requester).await?))
}

pub(crate) async fn get_scope(
    State(app): State<App>,
    auth: Authenticated,
) -> Result<Verbatim, ApiError> {
    let served = app.data.push_rules(&auth.requester).await?;
    let rules = find_ruleset(served.as_str()).expect(IS_SERVED);
    Ok(part_of(&served, rules))
}

pub(crate) async fn get_kind(
    State(app): State<App>,
    auth: Authenticated,
    params: PathParams<'static>,
) -> Result<Verbatim, ApiError> {
    let kind = kind_of(&params)?;
    let served = app.data.push_rules(&auth.requester).await?;
    let rules = find_rules(served.as_str(), kind).expect(IS_SERVED);
    Ok(part_of(&served, rules))
}

/// The rule that a path names, which need not be there.
pub(crate) struct Target {
    auth: Authenticated,
    kind: Kind,
    id: String,
}

impl FromRequestParts<Call> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, call: &Call) -> Result<Self, ApiError> {
        let auth = Authenticated::from_request_parts(parts, call).await?;
        let params = PathParams::from_request_parts(parts, call).await?;
        let kind = kind_of(&params)?;
        let id = params.get("rule").unwrap_or_default().to_owned();
        Ok(Self { auth, kind, id })
    }
}

impl Target {
    /// Returns what `show` makes of the rule as it is served.
    async fn shown(
        &self,
        app: &App,
        show: impl FnOnce(&Content, ServedRule<'_>) -> Verbatim,
    ) -> Result<Verbatim, ApiError> {
        let served = app.data.push_rules(&self.auth.requester).await?;
        let rule = find_rule(served.as_str(), self.kind, &self.id);
        let rule = rule.ok_or(ApiError::NotFound("there is no such rule"))?;
        Ok(show(&served, rule))
    }

    async fn edit(&self, app: App, edit: Edit) -> Result<EmptyObject, ApiError> {
        let (rules, user) = (Arc::clone(&app.rules), self.auth.requester.user.clone());
        let edit = move |stored: Option<&Content>| rules.edit(&user, stored, edit.clone());
        app.data.edit_push_rules(&self.auth.requester, edit).await?;
        Ok(EmptyObject)
    }
}

pub(crate) async fn get(State(app): State<App>, target: Target) -> Result<Verbatim, ApiError> {
    let show = |served: &Content, rule: ServedRule<'_>| part_of(served, rule.text);
    target.shown(&app, show).await
}

pub(crate) async fn get_actions(
    State(app): State<App>,
    target: Target,
) -> Result<Verbatim, ApiError> {
    let show =
        |_: &Content, rule: ServedRule<'_>| written(format!("{{\"actions\":{}}}", rule.actions));
    target.shown(&app, show).await
}

pub(crate) async fn get_enabled(
    State(app): State<App>,
    target: Target,
) -> Result<Verbatim, ApiError> {
    let show =
        |_: &Content, rule: ServedRule<'_>| written(format!("{{\"enabled\":{}}}", rule.is_enabled));
    target.shown(&app, show).await
}

#[derive(Deserialize)]
struct PutQuery {
    before: Option<String>,
    after: Option<String>,
}

pub(crate) async fn put(
    State(app): State<App>,
    target: Target,
    uri: Uri,
    body: Body,
) -> Result<EmptyObject, ApiError> {
    let limits = app.rules.limits();
    let id = RuleId::parse(&target.id, limits)?;
    let MatrixQuery(PutQuery { before, after }) = MatrixQuery::of(&uri)?;
    let body = read_text(&app, body).await?;
    let rule = NewRule::parse(target.kind, text(&body)?, limits)?;
    let place = Place { before, after };
    target.edit(app, Edit::Put { id, rule, place }).await
}

pub(crate) async fn delete(
    State(app): State<App>,
    target: Target,
) -> Result<EmptyObject, ApiError> {
    let (kind, id) = (target.kind, target.id.clone());
    target.edit(app, Edit::Delete { kind, id }).await
}

pub(crate) async fn put_actions(
    State(app): State<App>,
    target: Target,
    body: Body,
) -> Result<EmptyObject, ApiError> {
    let body = read_text(&app, body).await?;
    let actions = Actions::parse(text(&body)?, app.rules.limits())?;
    let (kind, id) = (target.kind, target.id.clone());
    target
        .edit(app, Edit::SetActions { kind, id, actions })
        .await
}

pub(crate) async fn put_enabled(
    State(app): State<App>,
    target: Target,
    body: Body,
) -> Result<EmptyObject, ApiError> {
    let body = read_text(&app, body).await?;
    let enabled = parse_enabled(text(&body)?, app.rules.limits())?;
    let (kind, id) = (target.kind, target.id.clone());
    target
        .edit(app, Edit::SetEnabled { kind, id, enabled })
        .await
}

fn kind_of(params: &PathParams<'_>) -> Result<Kind, ApiError> {
    let kind = params.get("kind").unwrap_or_default();
    Kind::parse(kind).ok_or(ApiError::NoPushRulePath)
}

async fn read_text(app: &App, body: Body) -> Result<Bytes, ApiError> {
    read_body(app, body, app.rules.limits().rule_bytes_max as u64).await
}

fn text(body: &[u8]) -> Result<&str, ApiError> {
    std::str::from_utf8(body).map_err(|_| ApiError::NotJson)
}

/// Returns a part of a content, whose bytes it shares.
fn part_of(served: &Content, part: &str) -> Verbatim {
    let part = served.bytes().slice_ref(part.as_bytes());
    Verbatim(Content::from_stored(part))
}

fn written(json: String) -> Verbatim {
    Verbatim(Content::from_stored(json.into()))
}
