//! The one test binary: what the service promises, tried from outside.

#[path = "suite/http_raw.rs"]
mod http_raw;
#[path = "suite/http_tls.rs"]
mod http_tls;
