//! What every command that listens tells of its requests.

use std::fmt;

use kitbag_http::Stats;

use super::page::Page;

/// Writes requests, refusals and connections.
pub(super) fn write(stats: &Stats, connections_max: u64, page: &mut Page<'_>) -> fmt::Result {
    let Stats {
        routes, refusals, ..
    } = stats;
    let rows = routes.iter().flat_map(|route| {
        route.requests.iter().map(|requests| {
            let labels = [
                ("route", route.route.to_string()),
                ("method", requests.method.to_owned()),
                ("status", requests.status.to_owned()),
            ];
            (labels, requests.count)
        })
    });
    page.counters("kitbag_http_requests", "Requests that were answered", rows)?;
    let rows = routes.iter().map(|route| {
        let labels = [("route", &*route.route)];
        (labels, &route.durations_us)
    });
    page.durations(
        "kitbag_http_request_duration_seconds",
        "Time from the head of a request to its answer, without syncs that waited",
        rows,
    )?;
    let rows = refusals.iter().map(|refusal| {
        let labels = [("errcode", refusal.errcode), ("reason", refusal.reason)];
        (labels, refusal.count)
    });
    page.counters(
        "kitbag_http_refusals",
        "Requests that were refused or failed",
        rows,
    )?;
    page.gauges(
        "kitbag_http_connections",
        "Open connections, by the listener that they came to",
        stats
            .connections
            .map(|(listener, count)| ([("listener", listener)], count)),
    )?;
    page.gauge(
        "kitbag_http_connections_max",
        "Connections to one listener beyond which new ones wait to be accepted",
        connections_max,
    )
}
