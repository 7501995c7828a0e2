//! The REST API: sessions, the user's account, forward-auth and batch introspection.

pub mod introspect_batch;
pub mod login;
pub mod logout;
pub mod me;
pub mod refresh;
pub mod verify;
