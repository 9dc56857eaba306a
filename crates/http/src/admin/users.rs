//! `GET /_kitbag/admin/v1/users`: all accounts, page by page.

use axum::extract::State;
use axum::response::Response;
use kitbag_domain::UserId;
use serde::Deserialize;

use super::{UserRow, UsersPage, page};
use crate::error::ApiError;
use crate::extract::MatrixQuery;
use crate::state::App;

/// Accounts on a page, unless another number is asked for.
pub(super) const PAGE_USERS: usize = 100;
/// Accounts on a page at most.
pub(super) const PAGE_USERS_MAX: usize = 500;

#[derive(Deserialize)]
pub(crate) struct UsersQuery {
    from: Option<String>,
    limit: Option<usize>,
}

pub(crate) async fn list(
    State(app): State<App>,
    MatrixQuery(query): MatrixQuery<UsersQuery>,
) -> Result<Response, ApiError> {
    let limit = page::limit(query.limit, PAGE_USERS, PAGE_USERS_MAX)?;
    let from = query.from.map(UserId::parse).transpose()?;
    let accounts = app.store.accounts(from, limit).await?;
    let last = accounts.last().filter(|_| accounts.len() == limit);
    page::json(&UsersPage {
        next_batch: last.map(|account| account.user.to_string()),
        users: accounts.iter().map(UserRow::new).collect(),
    })
}
