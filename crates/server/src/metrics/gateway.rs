//! What the private listener of the gateway tells.

use std::fmt;
use std::sync::Arc;

use kitbag_domain::{Clock, UnixMs};
use kitbag_gateway::{GatewayStats, RenderGatewayMetrics};

use super::page::{self, Page};
use super::process::Process;
use super::requests;
use crate::config::Config;

/// Returns the function that writes the page; it reads files of `/proc`, so it may block.
pub(crate) fn renderer(config: &Config, clock: &dyn Clock) -> RenderGatewayMetrics {
    let connections_max = config.listener.connections_max.get() as u64;
    let started_at = clock.now_ms();
    Arc::new(move |stats| render(stats, connections_max, started_at))
}

fn render(stats: GatewayStats, connections_max: u64, started_at: UnixMs) -> String {
    page::text(Figures {
        stats,
        connections_max,
        process: Process::read(started_at),
    })
}

/// All figures of one moment.
#[derive(Debug)]
struct Figures {
    stats: GatewayStats,
    connections_max: u64,
    process: Process,
}

impl page::Figures for Figures {
    fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        requests::write(&self.stats.http, self.connections_max, page)?;
        self.write_upstream(page)?;
        self.write_writes(page)?;
        self.process.write(page)
    }
}

impl Figures {
    fn write_upstream(&self, page: &mut Page<'_>) -> fmt::Result {
        let stats = &self.stats;
        let rows = stats.upstream_us.iter();
        page.durations(
            "kitbag_gateway_upstream_seconds",
            "Time until the homeserver answered, by why it was asked",
            rows.map(|(asked, took_us)| ([("asked", *asked)], took_us)),
        )?;
        page.duration(
            "kitbag_gateway_added_seconds",
            "Time of a request in the gateway itself, without waiting for homeserver and client",
            &stats.added_us,
        )?;
        page.gauge(
            "kitbag_gateway_breaker_open",
            "Whether requests are refused since the homeserver could not be reached just now",
            u64::from(stats.breaker_is_open),
        )?;
        page.counter(
            "kitbag_gateway_breaker_openings",
            "Times that requests began to be refused for that",
            stats.breaker_openings,
        )?;
        let rows = stats.lookups.iter().flat_map(|row| {
            [("hit", row.hits), ("miss", row.misses)]
                .map(|(result, count)| ([("of", row.memory), ("result", result)], count))
        });
        page.counters(
            "kitbag_gateway_lookups",
            "Look-ups of what the homeserver told a short time ago",
            rows,
        )
    }

    fn write_writes(&self, page: &mut Page<'_>) -> fmt::Result {
        let stats = &self.stats;
        let rows = stats.protected_writes.iter().map(|row| {
            let labels = [
                ("type", row.event_type),
                ("outcome", row.outcome),
                ("agent", row.agent),
            ];
            (labels, row.count)
        });
        page.counters(
            "kitbag_gateway_protected_writes",
            "Writes of protected types through account data",
            rows,
        )?;
        let rows = stats.emptied_entries.iter();
        page.counters(
            "kitbag_gateway_emptied_entries",
            "Entries that were emptied since their device ended",
            rows.map(|(cause, count)| ([("cause", *cause)], *count)),
        )?;
        page.gauge(
            "kitbag_gateway_emptyings_pending",
            "Devices that ended and whose entries could not be emptied when that was tried",
            stats.emptyings_pending,
        )?;
        page.gauge(
            "kitbag_gateway_turns_waiting",
            "Requests that wait since another one writes to the same account",
            stats.turns_waiting,
        )?;
        page.gauge(
            "kitbag_gateway_fences",
            "Entries that are not written for now, as the outcome of a write is not known",
            stats.fences,
        )?;
        page.counter(
            "kitbag_gateway_fences_set",
            "Times that an entry came to that",
            stats.fences_set,
        )
    }
}

#[cfg(test)]
mod tests {
    use kitbag_gateway::{LookupStats, ProtectedStats};

    use super::super::tests::{process, samples, seconds_spread};
    use super::*;

    const EXPECTED: &[&str] = &[
        "kitbag_http_connections_max 1",
        r#"kitbag_gateway_upstream_seconds_sum{asked="whoami"} 4.0"#,
        r#"kitbag_gateway_upstream_seconds_count{asked="whoami"} 5"#,
        r#"kitbag_gateway_upstream_seconds_bucket{le="1.0",asked="whoami"} 2"#,
        r#"kitbag_gateway_upstream_seconds_bucket{le="+Inf",asked="whoami"} 5"#,
        "kitbag_gateway_added_seconds_sum 8.0",
        "kitbag_gateway_added_seconds_count 13",
        r#"kitbag_gateway_added_seconds_bucket{le="1.0"} 6"#,
        r#"kitbag_gateway_added_seconds_bucket{le="+Inf"} 13"#,
        "kitbag_gateway_breaker_open 1",
        "kitbag_gateway_breaker_openings_total 9",
        r#"kitbag_gateway_lookups_total{of="token",result="hit"} 10"#,
        r#"kitbag_gateway_lookups_total{of="token",result="miss"} 11"#,
        r#"kitbag_gateway_protected_writes_total{type="a",outcome="b",agent="c"} 12"#,
        r#"kitbag_gateway_emptied_entries_total{cause="d"} 14"#,
        "kitbag_gateway_emptyings_pending 15",
        "kitbag_gateway_turns_waiting 16",
        "kitbag_gateway_fences 17",
        "kitbag_gateway_fences_set_total 18",
    ];

    #[test]
    fn each_figure_of_a_gateway_stands_under_its_own_name() {
        let stats = GatewayStats {
            http: kitbag_http::Stats::default(),
            upstream_us: vec![("whoami", seconds_spread([2, 3], 4))],
            added_us: seconds_spread([6, 7], 8),
            breaker_is_open: true,
            breaker_openings: 9,
            lookups: vec![LookupStats {
                memory: "token",
                hits: 10,
                misses: 11,
            }],
            protected_writes: vec![ProtectedStats {
                event_type: "a",
                outcome: "b",
                agent: "c",
                count: 12,
            }],
            emptied_entries: vec![("d", 14)],
            emptyings_pending: 15,
            turns_waiting: 16,
            fences: 17,
            fences_set: 18,
        };
        let page = page::text(Figures {
            stats,
            connections_max: 1,
            process: process(),
        });
        let told = samples(&page);
        let told = told.into_iter().filter(|line| {
            // Those of every process have a test of their own, and so has what HTTP counts.
            line.starts_with("kitbag_gateway") || line.starts_with("kitbag_http_connections_max")
        });
        assert_eq!(told.collect::<Vec<_>>(), EXPECTED);
    }
}
