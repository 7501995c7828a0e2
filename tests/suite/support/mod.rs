//! What several tests need.

pub mod app;
pub mod database;
pub mod process;
pub mod proxy;
pub mod store;
