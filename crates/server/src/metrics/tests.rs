//! Which figure stands under which name: each of them is another number.

use kitbag_domain::{Spread, Usage};
use kitbag_http::{RefusalStats, RequestStats, RouteStats};

use super::*;

/// Two buckets, up to a second or one write and beyond, and a sum.
fn spread(bounds: &'static [u64], counts: [u64; 2], sum: u64) -> Spread {
    Spread {
        bounds,
        counts: counts.to_vec(),
        sum,
    }
}

pub(super) fn seconds_spread(counts: [u64; 2], sum: u64) -> Spread {
    spread(&[1_000_000], counts, sum * 1_000_000)
}

fn api() -> ApiStats {
    ApiStats {
        routes: vec![RouteStats {
            route: "/a".into(),
            requests: vec![RequestStats {
                method: "GET",
                status: "200",
                count: 1,
            }],
            durations_us: seconds_spread([2, 3], 4),
        }],
        refusals: vec![RefusalStats {
            errcode: "M_A",
            reason: "b",
            count: 6,
        }],
        connections: [("public", 7), ("private", 8)],
        syncs_waiting: 10,
        syncs_waited_us: seconds_spread([11, 12], 13),
        sync_wakeups: 14,
        password_checks_waiting: 15,
    }
}

fn store() -> StoreStats {
    StoreStats {
        commits: 1_000,
        commits_us: seconds_spread([16, 17], 18),
        writes: 1_001,
        batches_writes: spread(&[1], [19, 20], 21),
        write_queue_jobs: 22,
        write_queue_jobs_max: 23,
        write_queue_bytes: 24,
        write_queue_bytes_max: 25,
        read_queue_jobs: 26,
        read_queue_jobs_max: 27,
        oldest_read_us: 28_000_000,
        wal_frames: 29,
        checkpoints: 30,
        checkpoints_failed: 31,
        outages: 32,
        writes_failed: 48,
        takes_writes: true,
        cache_bytes: 34,
        cache_hits: 35,
        cache_misses: 36,
        cache_evictions: 37,
    }
}

pub(super) fn process() -> Process {
    Process {
        started_at: 50_000,
        cpu_seconds: Some(51.0),
        resident_bytes: Some(52),
        open_files: Some(53),
        open_files_max: Some(54),
    }
}

/// Returns the lines of a page that tell a value.
pub(super) fn samples(page: &str) -> Vec<&str> {
    page.lines().filter(|line| !line.starts_with('#')).collect()
}

const EXPECTED: &[&str] = &[
    r#"kitbag_http_requests_total{route="/a",method="GET",status="200"} 1"#,
    r#"kitbag_http_request_duration_seconds_sum{route="/a"} 4.0"#,
    r#"kitbag_http_request_duration_seconds_count{route="/a"} 5"#,
    r#"kitbag_http_request_duration_seconds_bucket{le="1.0",route="/a"} 2"#,
    r#"kitbag_http_request_duration_seconds_bucket{le="+Inf",route="/a"} 5"#,
    r#"kitbag_http_refusals_total{errcode="M_A",reason="b"} 6"#,
    r#"kitbag_http_connections{listener="public"} 7"#,
    r#"kitbag_http_connections{listener="private"} 8"#,
    "kitbag_http_connections_max 9",
    "kitbag_password_checks_waiting 15",
    "kitbag_sync_waiting 10",
    "kitbag_sync_waited_seconds_sum 13.0",
    "kitbag_sync_waited_seconds_count 23",
    r#"kitbag_sync_waited_seconds_bucket{le="1.0"} 11"#,
    r#"kitbag_sync_waited_seconds_bucket{le="+Inf"} 23"#,
    "kitbag_sync_wakeups_total 14",
    "kitbag_store_write_queue_jobs 22",
    "kitbag_store_write_queue_jobs_max 23",
    "kitbag_store_write_queue_bytes 24",
    "kitbag_store_write_queue_bytes_max 25",
    "kitbag_store_read_queue_jobs 26",
    "kitbag_store_read_queue_jobs_max 27",
    "kitbag_store_oldest_read_seconds 28.0",
    "kitbag_store_commit_seconds_sum 18.0",
    "kitbag_store_commit_seconds_count 33",
    r#"kitbag_store_commit_seconds_bucket{le="1.0"} 16"#,
    r#"kitbag_store_commit_seconds_bucket{le="+Inf"} 33"#,
    "kitbag_store_batch_writes_sum 21.0",
    "kitbag_store_batch_writes_count 39",
    r#"kitbag_store_batch_writes_bucket{le="1.0"} 19"#,
    r#"kitbag_store_batch_writes_bucket{le="+Inf"} 39"#,
    "kitbag_store_wal_bytes 119480",
    r#"kitbag_store_checkpoints_total{result="done"} 30"#,
    r#"kitbag_store_checkpoints_total{result="failed"} 31"#,
    "kitbag_store_takes_writes 1",
    "kitbag_store_outages_total 32",
    "kitbag_store_writes_failed_total 48",
    "kitbag_store_cache_hits_total 35",
    "kitbag_store_cache_misses_total 36",
    "kitbag_store_cache_evictions_total 37",
    "kitbag_store_cache_bytes 34",
    "kitbag_store_cache_bytes_max 38",
    r#"kitbag_accounts{state="active"} 39"#,
    r#"kitbag_accounts{state="deactivated"} 40"#,
    "kitbag_entries 41",
    "kitbag_entries_bytes 42",
    r#"kitbag_accounts_near_quota{share="0.5"} 43"#,
    r#"kitbag_accounts_near_quota{share="0.75"} 44"#,
    r#"kitbag_accounts_near_quota{share="0.9"} 45"#,
    r#"kitbag_accounts_near_quota{share="1"} 46"#,
    "kitbag_accounts_surveyed_timestamp_seconds 47.0",
    concat!(
        r#"kitbag_build_info{version=""#,
        env!("CARGO_PKG_VERSION"),
        r#""} 1"#
    ),
    "process_start_time_seconds 50.0",
    "process_cpu_seconds_total 51.0",
    "process_resident_memory_bytes 52",
    "process_open_fds 53",
    "process_max_fds 54",
];

#[test]
fn each_figure_of_a_server_stands_under_its_own_name() {
    let page = page::text(Figures {
        api: api(),
        store: store(),
        connections_max: 9,
        cache_bytes_max: 38,
        surveyed: Some(Survey {
            active: 39,
            deactivated: 40,
            usage: Usage {
                entries: 41,
                bytes: 42,
            },
            near: [43, 44, 45, 46],
            at: 47_000,
        }),
        process: process(),
    });
    assert_eq!(samples(&page), EXPECTED);
}
