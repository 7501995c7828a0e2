#[path = "suite/wycheproof.rs"]
mod wycheproof;
//! Everything that is tested from outside: one file for each endpoint or promise.

#[path = "suite/support/mod.rs"]
mod support;

#[path = "suite/store_users.rs"]
mod store_users;
