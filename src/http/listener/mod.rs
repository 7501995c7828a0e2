//! The sockets: an accept loop over hyper's HTTP/1 with limits on everything that a client can make us keep or wait for
//! (security.md H5, H6, H9, H10, H15). HTTP/2 is spoken on the gRPC listener alone, see [`http2`].
//!
//! What is ours to refuse and what hyper's: [`head`] judges every head on its raw bytes before hyper parses it, so nothing
//! ambiguous reaches a second parser; hyper decodes bodies. A refused head still becomes an ordinary request with an
//! answer, a request id and a line in the log.

mod accept;
mod connection;
mod flood;
mod head;
mod http2;
mod places;
mod settings;
mod tls;
mod vitals;
mod wire;

pub use accept::{ConnectionCounts, Listener, Protocol};
pub use connection::{Arrival, RequestBody, RequestBodyError};
pub use settings::{ListenSettings, Shutdown};
pub use tls::{TlsError, TlsIdentity};
pub use vitals::{Refusal, Stage, Tick};
