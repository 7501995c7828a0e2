//! Password hashes: reading stored ones, making new ones, and verifying on a bounded pool of threads.
//!
//! # What a refused password costs (security.md P6)
//!
//! An account whose hash was imported, or made under older settings, costs a different amount of work than a name that
//! nobody has. Waiting until a fixed time has passed hides that only while the machine is idle. Here the *work* is the
//! same instead, so that load, queueing and scheduling bear on every case alike:
//!
//! > Every refused password costs, for every kind of work that any stored hash needs, as much of that kind as the
//! > dearest such hash.
//!
//! A verification that fails against a bcrypt hash of cost 10 is topped up with what is missing to the dearest bcrypt
//! hash, and with one hash of every other kind; a name that nobody has pays all of it ([`work::RefusalCost`]). All of it happens
//! in one job on one thread. Work of one kind adds up exactly: iterations of PBKDF2, passes of argon2 over memory of
//! one size, halves of bcrypt. While every hash has the current parameters, which is the usual case, a refusal is one hash.
//!
//! Two duties rest with the caller. A user who may not log in (disabled, deleted, with an unreadable hash) is verified as
//! `None`, like a name that nobody has. And [`PasswordHasher::expect_schemes`] is told which schemes are stored, at
//! start, after an import and now and then; until then the pool knows only those that it has met.
//!
//! # Imported hashes
//!
//! A [`crate::domain::Password`] exists only in canonical form, and that form alone is tried. Elsewhere the bytes were
//! hashed as they were typed, so a password that was typed in another normalisation form than NFC, or with unusual
//! spaces, does not match after an import and has to be set anew. ASCII passwords are not concerned.

mod bench;
mod foreign;
mod hasher;
mod phc;
mod queue;
mod scheme;
mod settings;
mod stored;
#[cfg(test)]
mod vectors;
mod work;

pub use hasher::{HashObserver, HashingError, PasswordHasher, Verdict};
pub use scheme::{Pbkdf2Digest, Scheme};
pub use settings::{HashSettings, SettingsError};
pub use stored::{HashRefusal, PasswordHash};
