//! Password hashes: reading stored ones, making new ones, and verifying on a bounded pool of threads.
//!
//! # What a refused password costs (security.md P6)
//!
//! An account whose hash was imported, or made under older settings, costs a different amount of work than a name that
//! nobody has. Waiting until a fixed time has passed hides that only while the machine is idle. Here the *work* is the
//! same instead, so that load, queueing and scheduling bear on every case alike:
//!
//! > Every refused password costs, for every kind of work that any stored hash needs, as much of that kind as the
//! > most expensive such hash, within the limit of `passwords.legacy_cost`.
//!
//! An unknown name pays all of it. A verification that fails pays the same in the same order, its own work being a part
//! of it ([`work::RefusalCost`]), in one job on one thread. Iterations of PBKDF2 add up exactly, so one amount stands for all
//! counts of them; every other scheme is a kind by itself. While every hash has the current scheme, which is the usual
//! case, a refusal is one hash; while imported bcrypt hashes wait for their users, it is one of either.
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
//!
//! At the first match an imported hash is replaced by one of the current scheme, made of the same canonical form, if both
//! accept the same passwords (P14). bcrypt compares 72 bytes, so a bcrypt hash stays while its user logs in with 72 bytes
//! or more.

mod bench;
mod foreign;
mod hasher;
mod limits;
mod phc;
mod queue;
mod scheme;
mod settings;
mod stored;
#[cfg(test)]
mod vectors;
mod work;

pub use hasher::{HashObserver, HashingError, PasswordHasher, Verdict};
pub use queue::Priority;
pub use scheme::{Pbkdf2Digest, Scheme};
pub use settings::{HashSettings, SettingsError};
pub use stored::{HashRefusal, PasswordHash};
