//! What several tests need.

pub mod app;
pub mod database;
pub mod proxy;
pub mod store;
