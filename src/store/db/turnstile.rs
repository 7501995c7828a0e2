//! Turns of several processes to write to the SQLite file.
//!
//! SQLite lets waiting writers retry from time to time, soon only every 100 ms. A server that writes without a pause
//! takes its own lock again within microseconds. An administrator's revocation from the command line would then retry
//! in vain until its wait ends. Here a writer takes its turn first, by locking a file beside the database. It gives the
//! turn up only after it holds SQLite's lock, so a process that has just written queues behind one that waits. SQLite's
//! lock alone keeps the data safe; this one keeps the waiting short.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use crate::store::StoreError;

/// How often a waiting process tries to take the turn.
const PAUSE: Duration = Duration::from_millis(2);

/// The file that processes lock in turn.
pub(super) struct Turnstile {
    file: File,
    patience: Duration,
}

/// This process holds the turn until this is dropped.
pub(super) struct Turn<'a>(&'a File);

impl Turnstile {
    /// Opens the lock file of a database, or creates it.
    pub(super) fn open(database: &Path, patience: Duration) -> Result<Self, StoreError> {
        let mut path = database.as_os_str().to_owned();
        path.push("-turn");
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let refused =
            |error| StoreError::Misconfigured(format!("{} cannot be made: {error}", Path::new(&path).display()));
        Ok(Self { file: opened.map_err(refused)?, patience })
    }

    /// Waits for this process's turn.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, StoreError> {
        let waiting = tokio::time::timeout(self.patience, async {
            loop {
                match self.file.try_lock() {
                    Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
                    // A file system without locks: SQLite's own order decides.
                    Ok(()) | Err(TryLockError::Error(_)) => return Turn(&self.file),
                }
            }
        });
        waiting.await.map_err(|_| StoreError::Unavailable("other processes write to the database".to_owned()))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Closing the file would also release the lock.
        let _ = self.0.unlock();
    }
}
