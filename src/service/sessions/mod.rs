//! Sessions: login, refresh, logout.

mod list;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod refresh;

use std::sync::Arc;

use crate::replica::Replica;
use crate::service::{Judge, Passwords, Settings, Tokens};

pub use list::SessionPage;

/// Opens, refreshes and ends sessions.
pub struct Sessions {
    pub(crate) replica: Replica,
    pub(crate) judge: Arc<Judge>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) passwords: Arc<Passwords>,
    pub(crate) settings: Settings,
}
