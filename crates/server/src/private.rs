//! The private listener: what operators ask, and the public must not.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use kitbag_domain::Store;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Serves `/health` at `address` until the server stops.
pub(crate) async fn start(
    address: SocketAddr,
    store: Arc<dyn Store>,
    mut stopping: watch::Receiver<bool>,
) -> Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on the private address {address}"))?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/health", get(health))
        .with_state(store);
    let task = tokio::spawn(async move {
        let stop = async move {
            // An error is the sender's end, which is a stop too.
            drop(stopping.wait_for(|stopping| *stopping).await);
        };
        if let Err(error) = axum::serve(listener, router)
            .with_graceful_shutdown(stop)
            .await
        {
            tracing::error!(%error, "the private listener ended");
        }
    });
    Ok((address, task))
}

async fn health(State(store): State<Arc<dyn Store>>) -> impl IntoResponse {
    let (status, body) = match kitbag_http::check_health(&*store).await {
        Ok(()) => (StatusCode::OK, "{}"),
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            r#"{"error":"the store does not work"}"#,
        ),
    };
    (status, [(CONTENT_TYPE, "application/json")], body)
}
