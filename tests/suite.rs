//! Everything that is tested from outside: one file for each endpoint or promise.

#[path = "suite/support/mod.rs"]
mod support;

#[path = "suite/architecture.rs"]
mod architecture;
#[path = "suite/http_raw.rs"]
mod http_raw;
#[path = "suite/store_users.rs"]
mod store_users;
#[path = "suite/wycheproof.rs"]
mod wycheproof;
