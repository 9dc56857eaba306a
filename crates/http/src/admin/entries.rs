//! Any user's entries: the list, and `GET`, `PUT` and `DELETE` of one in every scope, below
//! `/_kitbag/admin/v1/users/{user}`.

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::Uri;
use axum::http::request::Parts;
use axum::response::Response;
use kitbag_domain::{
    Content, DescribeError, DeviceId, Expectation, Key, OperatorWriteError, PermitError, RoomId,
    Scope, Selector, UserId, WritePolicy,
};
use serde::Deserialize;

use super::{EntriesPage, EntryRow, page};
use crate::dispatch::{self, Methods};
use crate::endpoints::account_data::PutQuery;
use crate::error::ApiError;
use crate::extract::{MatrixQuery, PathParams, read_body};
use crate::json::{EmptyObject, Verbatim};
use crate::state::{App, Call};

const NO_ACCOUNT: ApiError = ApiError::NotFound("there is no such account, or it is deactivated");

/// Returns the methods of an entry's path.
pub(crate) fn entry() -> Methods {
    dispatch::get(get).put(put).delete(delete)
}

/// The user that the path names.
pub(crate) struct TargetUser(pub(super) UserId);

impl TargetUser {
    /// Checks that there is such an account.
    async fn check(&self, app: &App) -> Result<(), ApiError> {
        let account = app.store.account(&self.0).await?;
        let live = account.filter(|account| account.deactivated_at.is_none());
        live.map(drop).ok_or(NO_ACCOUNT)
    }
}

impl FromRequestParts<Call> for TargetUser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, call: &Call) -> Result<Self, ApiError> {
        let params = PathParams::from_request_parts(parts, call).await?;
        Ok(Self(UserId::parse(params.get("user").unwrap_or_default())?))
    }
}

/// The entry that the path names, whoever's it is.
pub(crate) struct AnyTarget {
    user: TargetUser,
    key: Key,
}

impl AnyTarget {
    /// Checks that there are such an account and such a device.
    async fn check(&self, app: &App) -> Result<(), ApiError> {
        self.user.check(app).await?;
        match self.key.scope.device() {
            Some(device) => check_device(app, &self.user.0, device).await,
            None => Ok(()),
        }
    }

    /// Checks that the operator may write the entry, before anything of a body is read.
    async fn check_write(&self, app: &App) -> Result<(), ApiError> {
        self.check(app).await?;
        match WritePolicy::of(&self.key) {
            WritePolicy::ServerManaged => {
                Err(PermitError::ServerManaged(self.key.event_type.clone()).into())
            }
            WritePolicy::AnyDevice | WritePolicy::OwnDevice => Ok(()),
        }
    }
}

impl FromRequestParts<Call> for AnyTarget {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, call: &Call) -> Result<Self, ApiError> {
        let user = TargetUser::from_request_parts(parts, call).await?;
        let params = PathParams::from_request_parts(parts, call).await?;
        let key = params.key()?;
        Ok(Self { user, key })
    }
}

async fn check_device(app: &App, user: &UserId, device: &DeviceId) -> Result<(), ApiError> {
    let known = app.store.device(user, device).await?;
    known.map(drop).ok_or(PermitError::NoSuchDevice.into())
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum ListScope {
    Devices,
    Global,
    Rooms,
}

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    scope: Option<ListScope>,
    room_id: Option<String>,
    device_id: Option<String>,
}

impl ListQuery {
    /// Returns what is asked for.
    fn selector(&self) -> Result<Selector, ApiError> {
        let rooms = [None, Some(ListScope::Rooms)].contains(&self.scope);
        let devices = [None, Some(ListScope::Devices)].contains(&self.scope);
        match (&self.room_id, &self.device_id) {
            (Some(room), None) if rooms => {
                let room = RoomId::parse(room.as_str())?;
                Ok(Selector::Scope(Scope::Room(room)))
            }
            (None, Some(device)) if devices => {
                let device =
                    DeviceId::parse(device.as_str()).map_err(|_| PermitError::NoSuchDevice)?;
                Ok(Selector::Scope(Scope::Device(device)))
            }
            (None, None) => Ok(match self.scope {
                Some(ListScope::Devices) => Selector::AllDevices,
                Some(ListScope::Global) => Selector::Scope(Scope::Global),
                Some(ListScope::Rooms) => Selector::AllRooms,
                None => Selector::All,
            }),
            _ => Err(ApiError::InvalidParam(
                "`scope`, `room_id` and `device_id` name different scopes".to_owned(),
            )),
        }
    }
}

pub(crate) async fn list(
    State(app): State<App>,
    user: TargetUser,
    MatrixQuery(query): MatrixQuery<ListQuery>,
) -> Result<Response, ApiError> {
    let selector = query.selector()?;
    user.check(&app).await?;
    // As an initial sync: tens of thousands of rows may come into memory.
    let _turn = app.sync_turns.full().await;
    let reader = app.data.reader();
    let mut entries: Vec<EntryRow> = Vec::new();
    let mut after = None;
    loop {
        let page = reader.describe(&user.0, selector.clone(), after).await?;
        entries.extend(page.entries.iter().map(EntryRow::new));
        after = page.next;
        if after.is_none() {
            return page::json(&EntriesPage { entries });
        }
    }
}

async fn get(State(app): State<App>, target: AnyTarget) -> Result<Verbatim, ApiError> {
    target.check(&app).await?;
    let reader = app.data.reader();
    Ok(Verbatim(reader.content(&target.user.0, &target.key).await?))
}

async fn put(
    State(app): State<App>,
    target: AnyTarget,
    uri: Uri,
    body: Body,
) -> Result<EmptyObject, ApiError> {
    target.check_write(&app).await?;
    let MatrixQuery(query) = MatrixQuery::<PutQuery>::of(&uri)?;
    let limits = app.data.limits();
    let limit_bytes = limits.content_bytes_max_in(&target.key.scope);
    let content = Content::parse(read_body(&app, body, limit_bytes).await?, limits)?;
    let expectation = Expectation::from(query);
    let AnyTarget { user, key } = target;
    let operator = app.data.operator();
    operator.put(&user.0, key, content, expectation).await?;
    Ok(EmptyObject)
}

async fn delete(State(app): State<App>, target: AnyTarget) -> Result<EmptyObject, ApiError> {
    target.check_write(&app).await?;
    let AnyTarget { user, key } = target;
    app.data.operator().delete(&user.0, key).await?;
    Ok(EmptyObject)
}

impl From<DescribeError> for ApiError {
    fn from(error: DescribeError) -> Self {
        match error {
            DescribeError::NoSuchDevice(_) => PermitError::NoSuchDevice.into(),
            DescribeError::Store(error) => error.into(),
        }
    }
}

impl From<OperatorWriteError> for ApiError {
    fn from(error: OperatorWriteError) -> Self {
        match error {
            // Gone since it was looked for.
            OperatorWriteError::NoSuchAccount => NO_ACCOUNT,
            OperatorWriteError::NoSuchDevice => PermitError::NoSuchDevice.into(),
            OperatorWriteError::ServerManaged(event_type) => {
                PermitError::ServerManaged(event_type).into()
            }
            OperatorWriteError::Write(error) => error.into(),
        }
    }
}
