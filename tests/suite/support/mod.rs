//! What several tests need.

pub mod app;
pub mod database;
