//! `GET /metrics` on the private listener: the figures of the server, for Prometheus.

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use tokio::task;

use crate::error::ApiError;
use crate::state::App;

/// OpenMetrics, which Prometheus reads by this very type.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Returns the page, of which one is written at a time: it costs a millisecond, and reads `/proc`.
pub(crate) async fn get(
    State(app): State<App>,
) -> Result<([(HeaderName, &'static str); 1], String), ApiError> {
    let turn = app.metrics.turn().await;
    // The turn goes along: where the client leaves, the page is written all the same.
    let page = task::spawn_blocking(move || {
        let page = (app.render_metrics)(app.stats());
        drop(turn);
        page
    });
    let page = page.await.map_err(|_panic| ApiError::Panicked)?;
    Ok(([(CONTENT_TYPE, OPENMETRICS)], page))
}
