//! The shared database. Only this module imports sqlx, and only its submodule [`db`] distinguishes the two engines.
//!
//! Every method that changes something is one transaction, including its entries on the change feed and in the audit
//! trail. Its entries on the feed are returned as [`Written::changes`], which this replica applies at once; the others
//! read the feed. `now` is always an argument.

mod admin_keys;
mod assertions;
mod attempts;
mod audit;
mod clients;
mod columns;
mod db;
mod error;
mod feed;
mod installation;
mod keys;
mod migrate;
mod rows;
mod sessions;
mod settings;
mod sweep;
mod turns;
mod users;

use std::sync::Arc;
use std::time::Duration;

pub use self::admin_keys::{AdminKey, AdminKeys, NewAdminKey};
pub use self::assertions::Assertions;
pub use self::attempts::{AttemptKey, AttemptLimits, Attempts, Decision, Exemption, Settlement};
pub use self::audit::{Audit, AuditEvent, AuditFilter, AuditRecord, AuditStep};
pub use self::clients::{ClientChange, Clients, NewClient};
use self::db::Database;
pub use self::db::{AddressError, ChangeListener, PoolStatus, ReadAddress, Written};
pub use self::error::StoreError;
pub use self::feed::{Feed, FeedCursor, FeedEntry, LiveRevocation, Place, PublicCursor, Reading};
pub use self::keys::{AfterWithdrawal, Keys, NewKey, StoredKey};
pub use self::migrate::SchemaStatus;
pub use self::rows::{Rows, UnreadableRow};
use self::sessions::SessionGate;
pub use self::sessions::{
    EndOutcome, EndRequest, MatchingSession, NewSession, Opened, Owner, RotateOutcome, RotateRequest, SessionDetail,
    Sessions,
};
pub use self::settings::{Location, StoreSettings};
pub use self::sweep::{Round, SWEEP_BATCH, SweepCursor, SweepStep, Swept};
pub use self::turns::Turns;
pub use self::users::{Credentials, KeptSession, NewUser, PasswordChange, RotatedByPassword, UserChange, Users};
use crate::clock::Clock;

/// Observes every operation of the store, for metrics. Called on the request's path: it must be quick.
pub trait StoreObserver: Send + Sync + 'static {
    /// The operation `name` took this long; `is_well` unless the database caused a failure.
    fn query(&self, name: &'static str, took: Duration, is_well: bool);
}

/// An observer that ignores every operation.
impl StoreObserver for () {
    fn query(&self, _: &'static str, _: Duration, _: bool) {}
}

/// The shared database. Cheap to clone.
#[derive(Clone)]
pub struct Store(Database, Arc<SessionGate>);

impl Store {
    /// Whether the settings are usable, without connecting.
    pub fn check_settings(settings: &StoreSettings) -> Result<(), AddressError> {
        Database::check_settings(settings)
    }

    /// Opens the database and refuses one that cannot be used safely (security.md D4, D5, D16). Its tables may be
    /// missing or old: see [`Store::migrate`] and [`Store::check_schema`]. The clock times operations and idle
    /// connections.
    pub async fn open(
        settings: &StoreSettings,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn StoreObserver>,
    ) -> Result<Self, StoreError> {
        let store = Self::prepare(settings, clock, observer).await?;
        store.reach().await?;
        Ok(store)
    }

    /// The same without connecting to a server; [`Store::reach`] connects.
    pub async fn prepare(
        settings: &StoreSettings,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn StoreObserver>,
    ) -> Result<Self, StoreError> {
        let database = Database::prepare(settings, clock, observer).await?;
        Ok(Self(database, Arc::default()))
    }

    /// Opens the first connection, and refuses a database that cannot be used safely.
    pub async fn reach(&self) -> Result<(), StoreError> {
        self.0.reach().await
    }

    /// The same database for the follower of the feed. Its reads use a separate connection, so that it can sync while
    /// requests wait for connections.
    pub fn for_follower(&self) -> Self {
        Self(self.0.in_feed_lane(), Arc::clone(&self.1))
    }

    /// Users and their password hashes.
    pub const fn users(&self) -> Users<'_> {
        Users(&self.0)
    }

    /// OAuth clients and their secrets.
    pub const fn clients(&self) -> Clients<'_> {
        Clients(&self.0)
    }

    /// Sessions: one row each.
    pub const fn sessions(&self) -> Sessions<'_> {
        Sessions { database: &self.0, gate: &self.1 }
    }

    /// The change feed.
    pub const fn feed(&self) -> Feed<'_> {
        Feed(&self.0)
    }

    /// Sealed signing keys.
    pub const fn keys(&self) -> Keys<'_> {
        Keys(&self.0)
    }

    /// Keys of administrators.
    pub const fn admin_keys(&self) -> AdminKeys<'_> {
        AdminKeys(&self.0)
    }

    /// Counts of failed logins.
    pub const fn attempts(&self) -> Attempts<'_> {
        Attempts(&self.0)
    }

    /// Used client assertions.
    pub const fn assertions(&self) -> Assertions<'_> {
        Assertions(&self.0)
    }

    /// The audit trail.
    pub const fn audit(&self) -> Audit<'_> {
        Audit(&self.0)
    }

    /// Waits until the other replicas were notified of all commits so far, or the notification failed. A process that
    /// ends right after its commit calls this. Without it, the replicas detect the commit by polling.
    pub async fn settle(&self) {
        self.0.settle().await;
    }

    /// Why the last write failed, if the database could not store it.
    pub fn write_problem(&self) -> Option<String> {
        self.0.write_problem()
    }

    /// Size of SQLite's write-ahead log in bytes.
    pub async fn wal_bytes(&self) -> Option<u64> {
        self.0.wal_bytes().await
    }

    /// The load of the connections.
    pub fn pool_status(&self) -> PoolStatus {
        self.0.pool_status()
    }
}
