#[path = "suite/wycheproof.rs"]
mod wycheproof;
//! Everything that is tested from outside: one file for each endpoint or promise.

#[path = "suite/support/mod.rs"]
mod support;

#[path = "suite/store_users.rs"]
mod store_users;
//! The one test binary: what the service promises, tried from outside.

#[path = "suite/http_raw.rs"]
mod http_raw;
