//! `GET /_matrix/client/versions`
//!
//! Spec: CS API, API versions. Clients gate features on these, so all are listed whose account data
//! we serve; what is missing of them stands in docs/spec.md.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::Serialize;

use crate::json::MatrixJson;
use crate::state::App;

/// The newest `v1.x`.
const MINOR_MAX: u32 = 18;
/// The newest `v1.x` that has the legacy mention rules (MSC4210).
const MINOR_MAX_WITH_LEGACY_MENTIONS: u32 = 16;

#[derive(Serialize)]
pub(crate) struct Versions {
    versions: Vec<String>,
    unstable_features: BTreeMap<&'static str, bool>,
}

pub(crate) async fn get(State(app): State<App>) -> MatrixJson<Versions> {
    let mut versions = vec!["r0.6.1".to_owned()];
    let minor_max = if app.settings.compat.legacy_mention_rules {
        MINOR_MAX_WITH_LEGACY_MENTIONS
    } else {
        MINOR_MAX
    };
    versions.extend((1..=minor_max).map(|minor| format!("v1.{minor}")));
    let mut unstable_features = BTreeMap::from([("org.matrix.msc4331", true)]);
    // With the flag, clients expect that `PUT {}` deletes.
    if app.settings.features.msc3391.empty_deletes() {
        unstable_features.insert("org.matrix.msc3391", true);
    }
    MatrixJson(Versions {
        versions,
        unstable_features,
    })
}
