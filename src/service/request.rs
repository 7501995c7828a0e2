//! Who stands behind a request, for the audit trail and the limits.

use std::net::IpAddr;

use crate::store::AuditEvent;

/// Where a request came from.
#[derive(Debug, Clone, Default)]
pub struct Requester {
    /// The client's address, resolved through trusted proxies; none on the command line.
    pub address: Option<IpAddr>,
    /// The request id that the answer bears.
    pub request_id: String,
    /// Who acts: a client id, a user id, an admin key, or `cli`.
    pub actor: String,
}

impl Requester {
    /// The same request, once it is known who acts.
    #[must_use]
    pub fn acting(&self, actor: impl std::fmt::Display) -> Self {
        Self { actor: actor.to_string(), ..self.clone() }
    }

    /// An event of the audit trail that this requester caused.
    pub fn event(&self, name: &'static str) -> AuditEvent {
        let event = AuditEvent {
            event: name,
            actor: Some(self.actor.clone()),
            request_id: Some(self.request_id.clone()).filter(|id| !id.is_empty()),
            ..AuditEvent::default()
        };
        match self.address {
            Some(address) => event.noting("address", address.to_string()),
            None => event,
        }
    }

    /// The service itself, on its own account.
    pub fn background() -> Self {
        Self { actor: "background".to_owned(), ..Self::default() }
    }

    /// The command line, run by someone who can reach the database.
    pub fn command_line() -> Self {
        Self { address: None, request_id: String::new(), actor: "cli".to_owned() }
    }
}
