//! Countersign: short-lived access tokens, rotating refresh tokens, and introspection from memory.
//!
//! The map of the crate follows a request downwards: [`http`] (or [`grpc`]) reads it, [`service`] decides, [`domain`] gives both their
//! words; [`crypto`] and [`store`] are the only rooms with keys and with SQL; [`view`], [`keyring`] and [`follower`] are
//! what a replica holds in memory and how it stays in step. [`app`] puts it together, [`cli`] starts it.
//!
//! Invariants, each held by a test (ARCHITECTURE.md has the reasons):
//!
//! - No database on the validation path: judging an access token reads [`view`] and [`keyring`] alone.
//! - Nothing is stored per access token, and nothing per refresh: one row per session.
//! - A verdict is given only while the view is proven fresh; otherwise the answer is 503.
//! - Time and randomness are arguments.

pub mod app;
pub mod background;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod domain;
pub mod follower;
pub mod grpc;
pub mod http;
pub mod keyring;
pub mod request_id;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod view;
