//! The entrance of a listener around the routes of a test.

use std::sync::Arc;

use axum::Router;
use countersign::clock::SystemClock;
use countersign::http::middleware::{Cors, Edge, RequestObserver, RequestRecord, TrustedProxies};

/// Discards every record.
struct Unobserved;

impl RequestObserver for Unobserved {
    fn finished(&self, _: &RequestRecord<'_>) {}
}

/// An edge that records nothing.
pub fn unobserved(router: Router) -> Edge {
    observed(router, Arc::new(Unobserved), None)
}

/// An edge with an observer. Only this machine is a trusted proxy.
pub fn observed(router: Router, observer: Arc<dyn RequestObserver>, cors: Option<Cors>) -> Edge {
    Edge {
        trusted_proxies: TrustedProxies::new(["127.0.0.1/32".parse().unwrap()]),
        clock: Arc::new(SystemClock::default()),
        request_ids: Arc::new(|| [7; 16]),
        observer,
        base_path: Box::default(),
        cors,
        routes: router.into(),
    }
}
