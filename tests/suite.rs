//! Everything that is tested from outside: one file for each endpoint or promise.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a helper of a test fails like the test, says what it skips, and bounds its waits for real processes"
)]

#[path = "suite/support/mod.rs"]
mod support;

#[path = "suite/admin_api.rs"]
mod admin_api;
#[path = "suite/architecture.rs"]
mod architecture;
#[path = "suite/audit_trail.rs"]
mod audit_trail;
#[path = "suite/cli.rs"]
mod cli;
#[path = "suite/cli_beside.rs"]
mod cli_beside;
#[path = "suite/cli_serve.rs"]
mod cli_serve;
#[path = "suite/client_authentication.rs"]
mod client_authentication;
#[path = "suite/crash.rs"]
mod crash;
#[path = "suite/database_server.rs"]
mod database_server;
#[path = "suite/discovery.rs"]
mod discovery;
#[path = "suite/ext_authz.rs"]
mod ext_authz;
#[path = "suite/feed.rs"]
mod feed;
#[path = "suite/forgeries.rs"]
mod forgeries;
#[path = "suite/forward_auth.rs"]
mod forward_auth;
#[path = "suite/grpc_limits.rs"]
mod grpc_limits;
#[path = "suite/header_snapshots.rs"]
mod header_snapshots;
#[path = "suite/health.rs"]
mod health;
#[path = "suite/hot_routes.rs"]
mod hot_routes;
#[path = "suite/http_raw.rs"]
mod http_raw;
#[path = "suite/http_tls.rs"]
mod http_tls;
#[path = "suite/introspection.rs"]
mod introspection;
#[path = "suite/introspection_batch.rs"]
mod introspection_batch;
#[path = "suite/json_errors.rs"]
mod json_errors;
#[path = "suite/jwks.rs"]
mod jwks;
#[path = "suite/keys.rs"]
mod keys;
#[path = "suite/limits.rs"]
mod limits;
#[path = "suite/login.rs"]
mod login;
#[path = "suite/logout.rs"]
mod logout;
#[path = "suite/me.rs"]
mod me;
#[path = "suite/openapi.rs"]
mod openapi;
#[path = "suite/password_change.rs"]
mod password_change;
#[path = "suite/refresh.rs"]
mod refresh;
#[path = "suite/refresh_faults.rs"]
mod refresh_faults;
#[path = "suite/refresh_races.rs"]
mod refresh_races;
#[path = "suite/replicas.rs"]
mod replicas;
#[path = "suite/request_log.rs"]
mod request_log;
#[path = "suite/restore.rs"]
mod restore;
#[path = "suite/revocation.rs"]
mod revocation;
#[path = "suite/revocation_races.rs"]
mod revocation_races;
#[path = "suite/round_trips.rs"]
mod round_trips;
#[path = "suite/sessions.rs"]
mod sessions;
#[path = "suite/sqlite_to_postgres.rs"]
mod sqlite_to_postgres;
#[path = "suite/store_clients.rs"]
mod store_clients;
#[path = "suite/store_feed.rs"]
mod store_feed;
#[path = "suite/store_keys.rs"]
mod store_keys;
#[path = "suite/store_ledgers.rs"]
mod store_ledgers;
#[path = "suite/store_outages.rs"]
mod store_outages;
#[path = "suite/store_races.rs"]
mod store_races;
#[path = "suite/store_schema.rs"]
mod store_schema;
#[path = "suite/store_sessions.rs"]
mod store_sessions;
#[path = "suite/store_sweep.rs"]
mod store_sweep;
#[path = "suite/store_users.rs"]
mod store_users;
#[path = "suite/token_endpoint.rs"]
mod token_endpoint;
#[path = "suite/unreadable_rows.rs"]
mod unreadable_rows;
#[path = "suite/unusual_http.rs"]
mod unusual_http;
#[path = "suite/upgrade.rs"]
mod upgrade;
#[path = "suite/user_import.rs"]
mod user_import;
#[path = "suite/wycheproof.rs"]
mod wycheproof;
