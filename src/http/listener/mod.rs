//! The listeners: an accept loop around hyper's HTTP/1, with limits on all memory and time that a client can claim
//! (security.md H5, H6, H9, H10, H15). Only the gRPC listener uses HTTP/2, see [`http2`].
//!
//! [`head`] checks the raw bytes of every head before hyper parses it, so an ambiguous head never reaches a second
//! parser. hyper decodes bodies. A refused head still becomes an ordinary request with an answer, a request id and a
//! log line.

mod accept;
mod connection;
mod flood;
mod head;
mod http2;
mod places;
mod settings;
mod state;
mod tls;
mod wire;

pub use accept::{ConnectionCounts, Listener, Protocol};
pub use connection::{Arrival, RequestBody, RequestBodyError, Streamed};
pub use settings::{ListenSettings, Shutdown};
pub use state::{CoarseInstant, Refusal, Stage};
pub use tls::{TlsError, TlsIdentity};
