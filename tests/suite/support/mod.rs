//! What several tests need.

pub mod answers;
pub mod app;
pub mod database;
pub mod envoy;
pub mod forge;
pub mod judging;
pub mod outage;
pub mod process;
pub mod proxy;
pub mod secrets;
pub mod sessions;
pub mod store;
