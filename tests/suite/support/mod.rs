//! What several tests need.

pub mod database;
pub mod proxy;
pub mod store;
