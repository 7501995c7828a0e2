//! The one test binary: what the service promises, tried from outside.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper of a test fails like the test")]

#[path = "suite/http_raw.rs"]
mod http_raw;
#[path = "suite/http_tls.rs"]
mod http_tls;
