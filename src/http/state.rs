//! What handlers are given.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Clock;
use crate::service::Service;
use crate::telemetry::Metrics;

use super::well_known::MetadataDocument;

/// Shared by every handler of both listeners.
pub struct Shared {
    /// The use cases.
    pub service: Arc<Service>,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What handlers need of the configuration.
    pub settings: HttpSettings,
    /// The OpenAPI document, with the servers of this one.
    pub api_document: Bytes,
    /// The metadata document: it never changes while the process runs.
    pub metadata: MetadataDocument,
}

/// What handlers need of the configuration.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// `introspection.max_age`.
    pub introspection_max_age: Duration,
    /// `forward_auth.header_prefix`.
    pub forward_auth: super::ForwardAuthHeaders,
    /// `forward_auth.allow_preflight`.
    pub allow_preflight: bool,
}
