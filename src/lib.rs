//! Countersign: short-lived access tokens, rotating refresh tokens, and introspection from memory.

pub mod clock;
pub mod crypto;
pub mod domain;
pub mod store;
