//! Password hashes: reading stored ones, making new ones, and verifying on a bounded pool of threads.
//!
//! # The cost of a refused password (security.md P6)
//!
//! An imported hash, or one made under older settings, takes a different amount of work than the current scheme. The
//! time of a refusal must not show which scheme an account has, or that a name is unknown. Waiting until a fixed time
//! has passed hides the difference only on an idle machine. So the *work* is equal, and load, queueing and scheduling
//! affect all cases alike:
//!
//! > Every refused password costs, for each kind of work that any stored hash needs, as much as the most expensive
//! > such hash, within the limit of `passwords.legacy_cost`.
//!
//! An unknown name costs all of it. A failed verification costs the same work in the same order, and its own work is
//! a part of it ([`work::RefusalCost`]). All of it is one job on one thread. PBKDF2 iterations add up exactly, so one
//! amount covers all iteration counts; every other scheme is its own kind. Usually every hash has the current
//! scheme, and a refusal is one hash. While there are imported bcrypt hashes, it is one hash of each.
//!
//! The caller has two duties. A user who may not log in (disabled, deleted, unreadable hash) is verified as `None`,
//! like an unknown name. [`PasswordHasher::expect_schemes`] must be called with the stored schemes at start, after an
//! import and periodically. Without it, the pool knows only the schemes it has verified.
//!
//! # Imported hashes
//!
//! A [`crate::domain::Password`] has only its canonical form, and only that form is verified. Other systems hash the
//! bytes as typed. So an imported hash does not match if the user types another normalization form than NFC, or
//! unusual spaces. Such a password must be set again. ASCII passwords are not affected.
//!
//! At the first match, a hash of the current scheme replaces an imported one if both accept the same passwords (P14).
//! A bcrypt hash covers 72 bytes, so it stays if the user's password has 72 bytes or more.

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
mod workspace;

pub use hasher::{HashObserver, HashingError, PasswordHasher, Verdict};
pub use queue::Priority;
pub use scheme::{Pbkdf2Digest, Scheme};
pub use settings::{HashSettings, SettingsError};
pub use stored::{HashRefusal, PasswordHash};
