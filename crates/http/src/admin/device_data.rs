//! What devices tell the server, of all users at once: `GET` below
//! `/_kitbag/admin/v1/device_account_data`.
//!
//! MSC4331's motive: which client versions are there, which devices cannot handle a room version.

use axum::extract::State;
use axum::response::Response;
use kitbag_domain::Pointer;
use serde::Deserialize;
use serde_json::Value;

use super::{DeviceEntriesPage, DeviceEntryRow, DeviceRow, DevicesPage, Summary, page};
use crate::error::ApiError;
use crate::extract::MatrixQuery;
use crate::state::App;

/// Devices on a page, unless another number is asked for.
pub(super) const PAGE_DEVICES: usize = 100;
/// Devices on a page at most.
pub(super) const PAGE_DEVICES_MAX: usize = 1_000;

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    #[serde(rename = "type")]
    event_type: Option<String>,
    from: Option<String>,
    limit: Option<usize>,
}

pub(crate) async fn list(
    State(app): State<App>,
    MatrixQuery(query): MatrixQuery<ListQuery>,
) -> Result<Response, ApiError> {
    let event_type = page::event_type(query.event_type.as_deref())?;
    let limit = page::limit(query.limit, PAGE_DEVICES, PAGE_DEVICES_MAX)?;
    let mut after = page::place(query.from.as_deref())?;
    let reader = app.data.reader();
    let at_once = app.data.limits().device_entries_at_once();
    let mut entries: Vec<DeviceEntryRow> = Vec::new();
    let mut bytes = 0;
    let next_batch = loop {
        let wanted = at_once.min(limit - entries.len());
        let found = reader.device_entries(&event_type, after, wanted).await?;
        entries.extend(found.iter().map(DeviceEntryRow::new));
        bytes += found
            .iter()
            .map(|found| found.entry.size_bytes())
            .sum::<u64>();
        let Some(last) = found.last().filter(|_| found.len() == wanted) else {
            break None;
        };
        if entries.len() == limit || bytes >= page::PAGE_BYTES_MAX {
            break Some(page::from_place(&last.place()));
        }
        after = Some(last.place());
    };
    page::json(&DeviceEntriesPage {
        entries,
        next_batch,
    })
}

#[derive(Deserialize)]
pub(crate) struct SummaryQuery {
    #[serde(rename = "type")]
    event_type: Option<String>,
    pointer: Option<String>,
}

pub(crate) async fn summary(
    State(app): State<App>,
    MatrixQuery(query): MatrixQuery<SummaryQuery>,
) -> Result<Response, ApiError> {
    let event_type = page::event_type(query.event_type.as_deref())?;
    let pointer = pointer(query.pointer.as_deref())?;
    let tally = app.data.reader().tally(&event_type, &pointer).await?;
    page::json(&Summary::new(&event_type, &pointer, tally))
}

#[derive(Deserialize)]
pub(crate) struct LackingQuery {
    #[serde(rename = "type")]
    event_type: Option<String>,
    pointer: Option<String>,
    lacks: Option<String>,
    from: Option<String>,
    limit: Option<usize>,
}

pub(crate) async fn lacking(
    State(app): State<App>,
    MatrixQuery(query): MatrixQuery<LackingQuery>,
) -> Result<Response, ApiError> {
    let event_type = page::event_type(query.event_type.as_deref())?;
    let pointer = pointer(query.pointer.as_deref())?;
    let lacks = query.lacks.ok_or(ApiError::MissingParam("lacks"))?;
    let not_json = |_| ApiError::InvalidParam("`lacks` is not JSON".to_owned());
    let lacks: Value = serde_json::from_str(&lacks).map_err(not_json)?;
    let limit = page::limit(query.limit, PAGE_DEVICES, PAGE_DEVICES_MAX)?;
    let after = page::place(query.from.as_deref())?;
    let reader = app.data.reader();
    let found = reader.lacking(&event_type, &pointer, &lacks, after, limit);
    let found = found.await?;
    let last = found.last().filter(|_| found.len() == limit);
    page::json(&DevicesPage {
        next_batch: last.map(|last| page::from_place(&last.place())),
        devices: found.iter().map(DeviceRow::new).collect(),
    })
}

fn pointer(text: Option<&str>) -> Result<Pointer, ApiError> {
    let text = text.ok_or(ApiError::MissingParam("pointer"))?;
    let invalid = |error| ApiError::InvalidParam(format!("`pointer`: {error}"));
    Pointer::parse(text).map_err(invalid)
}
