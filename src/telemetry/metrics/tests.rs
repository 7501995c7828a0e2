use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::domain::{Algorithm, Kid, RevocationKind};

fn metrics() -> Metrics {
    Metrics::new("1.2.3", Timestamp::from_seconds(1_767_225_600)).unwrap()
}

#[test]
fn every_documented_metric_is_exported_under_its_name() {
    let metrics = metrics();
    metrics.database("session_rotate", Duration::from_millis(2));
    metrics.route("/v1/login").observe("POST", 200, Duration::from_millis(40));
    let kid = Kid::parse(&"k".repeat(43)).unwrap();
    metrics.at_scrape(move |gauges| {
        gauges.set_rows("sessions", 7);
        gauges.set_signing_keys([(&kid, Algorithm::Es256, 3600.0)]);
    });
    let text = metrics.render();
    let described: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let promised = [
        ("introspections_total", "counter"),
        ("introspection_seconds", "histogram"),
        ("verified_cache_hits_total", "counter"),
        ("verified_cache_misses_total", "counter"),
        ("verified_cache_entries", "gauge"),
        ("logins_total", "counter"),
        ("password_hash_seconds", "histogram"),
        ("password_queue_depth", "gauge"),
        ("refreshes_total", "counter"),
        ("tokens_issued_total", "counter"),
        ("revocations_live", "gauge"),
        ("revocation_lag_seconds", "histogram"),
        ("view_age_seconds", "gauge"),
        ("clock_offset_seconds", "gauge"),
        ("signing_key_expires_seconds", "gauge"),
        ("database_seconds", "histogram"),
        ("database_pool_in_use", "gauge"),
        ("database_pool_idle", "gauge"),
        ("database_pool_waiting", "gauge"),
        ("http_requests_total", "counter"),
        ("http_request_seconds", "histogram"),
        ("rows", "gauge"),
        ("build_info", "gauge"),
        ("log_lines_dropped_total", "counter"),
        ("attempts_refused_total", "counter"),
        ("connections", "gauge"),
        ("connections_refused_total", "counter"),
        ("connections_evicted_total", "counter"),
    ];
    for (name, kind) in promised {
        assert!(described.contains(&(format!("countersign_{name}").as_str(), kind)), "{name}");
    }
    for line in [
        "countersign_build_info{version=\"1.2.3\"} 1",
        "countersign_rows{table=\"sessions\"} 7",
        "countersign_http_requests_total{method=\"POST\",route=\"/v1/login\",status=\"200\"} 1",
        "countersign_tokens_issued_total{grant=\"client_credentials\"} 0",
    ] {
        assert!(text.lines().any(|written| written == line), "{line}");
    }
    let helps = text.lines().filter(|line| line.starts_with("# HELP ")).count();
    assert_eq!(helps, described.len(), "each has a help text");
}

#[test]
fn counting_by_index_reaches_the_series_of_that_name() {
    fn value(text: &str, series: &str) -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    let metrics = metrics();
    for (times, result) in IntrospectionResult::VALUES.iter().enumerate() {
        for (more, cache) in <Option<CacheUse>>::VALUES.iter().enumerate() {
            (0..times * 10 + more).for_each(|_| metrics.introspection(*result, *cache, Duration::from_micros(7)));
        }
    }
    for (times, result) in RefreshResult::VALUES.iter().enumerate() {
        (0..times).for_each(|_| metrics.refreshes.count(*result));
    }
    metrics.gauges().revocations_live.of(RevocationKind::User).set(3);
    let text = metrics.render();
    for (times, result) in IntrospectionResult::VALUES.iter().enumerate() {
        for (more, cache) in <Option<CacheUse>>::VALUES.iter().enumerate() {
            let (cache, result) = (cache.text(), result.text());
            let series = format!("countersign_introspections_total{{cache=\"{cache}\",result=\"{result}\"}}");
            assert_eq!(value(&text, &series), Some((times * 10 + more) as f64), "{series}");
        }
    }
    for (times, result) in RefreshResult::VALUES.iter().enumerate() {
        let series = format!("countersign_refreshes_total{{result=\"{}\"}}", result.text());
        assert_eq!(value(&text, &series), Some(times as f64), "{series}");
    }
    assert_eq!(value(&text, "countersign_verified_cache_hits_total"), Some(60.0));
    assert_eq!(value(&text, "countersign_verified_cache_misses_total"), Some(64.0));
    assert_eq!(value(&text, "countersign_revocations_live{kind=\"user\"}"), Some(3.0));
}

#[test]
fn unknown_label_values_add_no_series() {
    let metrics = metrics();
    let route = metrics.route("/v1/me");
    for method in ["GET", "BREW", "get", "PROPFIND"] {
        route.observe(method, 405, Duration::ZERO);
    }
    route.observe("GET", 418, Duration::ZERO);
    let text = metrics.render();
    let series: Vec<_> = text.lines().filter(|line| line.starts_with("countersign_http_requests_total")).collect();
    assert_eq!(
        series,
        [
            "countersign_http_requests_total{method=\"GET\",route=\"/v1/me\",status=\"405\"} 1",
            "countersign_http_requests_total{method=\"GET\",route=\"/v1/me\",status=\"418\"} 1",
            "countersign_http_requests_total{method=\"other\",route=\"/v1/me\",status=\"405\"} 3",
        ]
    );
}

#[test]
fn a_retired_key_leaves_the_metrics_and_the_lost_lines_counter_never_decreases() {
    let metrics = metrics();
    let kids = ["a", "b"].map(|letter| Kid::parse(&letter.repeat(43)).unwrap());
    metrics.gauges().set_signing_keys(kids.iter().map(|kid| (kid, Algorithm::EdDsa, 1.0)));
    metrics.gauges().set_signing_keys([(&kids[1], Algorithm::EdDsa, 2.0)]);
    for total in [5, 3, 9] {
        metrics.gauges().set_log_lines_dropped(total);
    }
    let text = metrics.render();
    assert_eq!(text.lines().filter(|line| line.starts_with("countersign_signing_key_expires")).count(), 1);
    assert!(text.contains("countersign_log_lines_dropped_total 9\n"));
}

#[test]
fn concurrent_scrapes_run_one_at_a_time() {
    let metrics = metrics();
    let kid = Kid::parse(&"k".repeat(43)).unwrap();
    let running = AtomicUsize::new(0);
    metrics.at_scrape(move |gauges| {
        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "another scrape fills the same gauges");
        gauges.set_signing_keys([(&kid, Algorithm::Es256, 3600.0)]);
        std::thread::yield_now();
        running.fetch_sub(1, Ordering::SeqCst);
    });
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..50 {
                    assert!(metrics.render().contains("countersign_signing_key_expires_seconds{"));
                }
            });
        }
    });
}

#[test]
fn process_metrics_are_exported() {
    let text = metrics().render();
    for name in ["cpu_seconds_total", "resident_memory_bytes", "virtual_memory_bytes", "threads", "open_fds", "max_fds"]
    {
        let line = text.lines().find(|line| line.starts_with(&format!("process_{name} "))).unwrap();
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value > 0.0, "{line}");
    }
    assert!(text.contains("process_start_time_seconds 1767225600\n"));
}

/// promtool is not installed on every machine, so the test only runs on request: `cargo test -- --ignored promtool`.
#[test]
#[ignore = "needs promtool; its path can be given as PROMTOOL"]
fn promtool_accepts_the_metrics() {
    let metrics = metrics();
    metrics.database("session_rotate", Duration::from_millis(2));
    metrics.route("/v1/login").observe("POST", 200, Duration::from_millis(40));
    metrics.gauges().set_rows("sessions", 7);
    let promtool = std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into());
    let mut command = std::process::Command::new(promtool);
    command.args(["check", "metrics"]).stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), metrics.render().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
