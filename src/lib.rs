//! Countersign: short-lived access tokens, rotating refresh tokens, and introspection from memory.
//!
//! Modules, in the order in which a request passes them: [`http`] (or [`grpc`]) parses it, [`service`] decides, and
//! [`domain`] has the types of both. [`crypto`] is the only module with keys, [`store`] the only one with SQL.
//! [`replica`] is a replica's in-memory state and its synchronization. [`app`] composes the modules, [`cli`] starts the
//! process.
//!
//! Invariants, each checked by a test (ARCHITECTURE.md has the reasons):
//!
//! - Judging an access token reads only [`replica::view`] and [`replica::keyring`], never the database.
//! - Nothing is stored per access token or per refresh; there is one row per session.
//! - A replica gives verdicts only while its view is fresh; otherwise it answers 503.
//! - Time and randomness are arguments.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod domain;
pub mod grpc;
pub mod http;
pub mod json;
pub mod replica;
pub mod request_id;
pub mod service;
pub mod store;
pub mod telemetry;
