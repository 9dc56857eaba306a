//! `GET /_matrix/client/versions`
//!
//! Spec: CS API, API versions. Clients gate features on these, so all are listed whose account data
//! we serve; what is missing of them stands in docs/spec.md.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;

use crate::json::json_response;
use crate::settings::Settings;
use crate::state::App;

/// The newest `v1.x`.
const MINOR_MAX: u32 = 18;
/// The newest `v1.x` that has the legacy mention rules (MSC4210).
const MINOR_MAX_WITH_LEGACY_MENTIONS: u32 = 16;

#[derive(Serialize)]
struct Versions {
    versions: Vec<String>,
    unstable_features: BTreeMap<&'static str, bool>,
}

/// Writes the body, which is the same for everybody.
pub(crate) fn body(settings: &Settings) -> Bytes {
    let mut versions = vec!["r0.6.1".to_owned()];
    let minor_max = if settings.compat.legacy_mention_rules {
        MINOR_MAX_WITH_LEGACY_MENTIONS
    } else {
        MINOR_MAX
    };
    versions.extend((1..=minor_max).map(|minor| format!("v1.{minor}")));
    let mut unstable_features = BTreeMap::from([("org.matrix.msc4331", true)]);
    // With the flag, clients expect that `PUT {}` deletes.
    if settings.features.msc3391.empty_deletes() {
        unstable_features.insert("org.matrix.msc3391", true);
    }
    let versions = Versions {
        versions,
        unstable_features,
    };
    let body = serde_json::to_vec(&versions);
    body.expect("names and numbers can be written").into()
}

pub(crate) async fn get(State(app): State<App>) -> Response {
    json_response(StatusCode::OK, app.versions.clone())
}
