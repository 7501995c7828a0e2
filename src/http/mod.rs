//! HTTP: the listeners, what every request passes through, and the endpoints.

pub mod error;
pub mod extract;
pub mod listener;
pub mod middleware;
