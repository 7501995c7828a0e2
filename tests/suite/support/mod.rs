//! What several tests need.

pub mod app;
pub mod database;
pub mod process;
pub mod forge;
pub mod judging;
pub mod outage;
pub mod proxy;
pub mod store;
