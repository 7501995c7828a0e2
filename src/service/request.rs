//! The origin of a request, for audit events and rate limits.

use std::net::IpAddr;

use crate::store::AuditEvent;

/// The origin of a request.
#[derive(Debug, Clone, Default)]
pub struct Requester {
    /// The peer's address, resolved through trusted proxies. `None` on the command line.
    pub address: Option<IpAddr>,
    /// The request id that the response contains.
    pub request_id: String,
    /// The actor of audit events: a client id, a user id, an admin key, `cli` or `background`.
    pub actor: String,
}

impl Requester {
    /// The same origin with another actor.
    #[must_use]
    pub fn acting(&self, actor: impl std::fmt::Display) -> Self {
        Self { actor: actor.to_string(), ..self.clone() }
    }

    /// An audit event caused by this request.
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

    /// A background task of the service.
    pub fn background() -> Self {
        Self { actor: "background".to_owned(), ..Self::default() }
    }

    pub fn command_line() -> Self {
        Self { address: None, request_id: String::new(), actor: "cli".to_owned() }
    }
}
