//! Everything that is tested from outside: one file for each endpoint or promise.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper of a test fails like the test")]

#[path = "suite/support/mod.rs"]
mod support;

#[path = "suite/architecture.rs"]
mod architecture;
#[path = "suite/http_raw.rs"]
mod http_raw;
#[path = "suite/http_tls.rs"]
mod http_tls;
#[path = "suite/sessions.rs"]
mod sessions;
#[path = "suite/store_users.rs"]
mod store_users;
#[path = "suite/wycheproof.rs"]
mod wycheproof;
