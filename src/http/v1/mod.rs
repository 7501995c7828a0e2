//! The REST API: sessions, the user's account, forward-auth, batch introspection and
//! the revocation feed.

pub mod introspect_batch;
pub mod login;
pub mod logout;
pub mod me;
pub mod refresh;
pub mod revocations;
pub mod verify;
