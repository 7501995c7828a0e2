//! State of the handlers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Clock;
use crate::service::Service;
use crate::telemetry::Metrics;

use super::well_known::MetadataDocument;

/// State shared by the handlers of both listeners.
pub struct Shared {
    pub service: Arc<Service>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    /// Configuration of the handlers.
    pub settings: HttpSettings,
    /// The OpenAPI document with the servers of this service.
    pub api_document: Bytes,
    /// The metadata documents; constant while the process runs.
    pub metadata: MetadataDocument,
}

/// Configuration of the handlers.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// `introspection.max_age`.
    pub introspection_max_age: Duration,
    /// The longest wait for an item of the revocation feed. It is shorter than `public.request_timeout`.
    pub longest_wait: Duration,
    /// `forward_auth.header_prefix`.
    pub forward_auth: super::ForwardAuthHeaders,
    /// `forward_auth.allow_preflight`.
    pub allow_preflight: bool,
}
