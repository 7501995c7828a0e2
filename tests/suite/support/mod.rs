//! Helpers that several tests share.

pub mod answers;
pub mod app;
pub mod database;
pub mod edge;
pub mod envoy;
pub mod forge;
pub mod judging;
pub mod outage;
pub mod power;
pub mod process;
pub mod proxy;
pub mod secrets;
pub mod sessions;
pub mod size;
pub mod store;
pub mod tls_front;

use std::os::unix::fs::PermissionsExt as _;

/// Writes a file that only its owner may read.
pub fn write_private(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
