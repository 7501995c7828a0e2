//! Import of users with existing password hashes. [`super::import_line`] documents the rules.

use crate::crypto::PasswordHash;
use crate::domain::UserId;
use crate::service::users::import_line::{ImportLineError, ImportOutcome, ImportProgress, ImportedUser};
use crate::service::{Failure, Requester, Users};
use crate::store::NewUser;

/// Number of lines in a batch.
pub const IMPORT_BATCH: usize = 500;

/// Users per transaction. On SQLite, every other write waits for the transaction; this many take a few milliseconds.
const TRANSACTION: usize = 50;

/// A line that was not imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedLine {
    /// Counted from 1.
    pub number: u64,
    pub reason: String,
}

/// The results of an import so far.
#[derive(Debug, Clone, Default)]
pub struct ImportReport {
    pub progress: ImportProgress,
    /// Lines that are invalid, or whose name exists with another hash.
    pub refused: Vec<RefusedLine>,
    lines_seen: u64,
}

impl Users {
    /// Imports a batch of at most [`IMPORT_BATCH`] lines and adds their outcomes to `report`. Existing users are not changed,
    /// so a whole import can be run again to resume it.
    pub async fn import_users(
        &self,
        lines: &[&[u8]],
        report: &mut ImportReport,
        from: &Requester,
    ) -> Result<(), Failure> {
        let now = self.replica.clock.now();
        let mut batch: Vec<(u64, u64, ImportedUser)> = Vec::with_capacity(lines.len());
        for line in lines {
            report.lines_seen += 1;
            let (number, bytes) = (report.lines_seen, line.len() as u64 + 1);
            let parsed = ImportedUser::parse(line).and_then(|user| {
                user.as_ref().map_or(Ok(()), |user| self.passwords.hasher.check_import(&user.password_hash))?;
                Ok(user)
            });
            match parsed {
                Ok(Some(user)) => batch.push((number, bytes, user)),
                Ok(None) => report.progress.bytes += bytes,
                Err(error) => report.refuse(number, bytes, &error),
            }
        }
        for part in batch.chunks(TRANSACTION) {
            let new: Vec<NewUser> = part.iter().map(|(_, _, user)| self.new_user(user)).collect();
            let created = self.replica.store.users().import(new, now, Some(from.event("users.imported"))).await?;
            for ((number, bytes, user), is_created) in part.iter().zip(created) {
                let outcome = if is_created { ImportOutcome::Created } else { self.present(user).await? };
                report.progress.record(outcome, *bytes);
                if outcome == ImportOutcome::Taken {
                    let reason = "a user with this name and another password hash exists; it was not changed";
                    report.refused.push(RefusedLine { number: *number, reason: reason.to_owned() });
                }
            }
        }
        self.passwords.learn_password_schemes().await
    }

    fn new_user(&self, user: &ImportedUser) -> NewUser {
        NewUser {
            id: UserId::from_bytes(self.replica.random.bytes()),
            username: user.username.clone(),
            password_hash: user.password_hash.as_str().to_owned(),
            roles: user.roles.clone(),
            disabled: user.disabled,
            created_at: user.created_at,
        }
    }

    /// The outcome for a user whose name exists: `Unchanged` if it has the same hash.
    async fn present(&self, user: &ImportedUser) -> Result<ImportOutcome, Failure> {
        let stored = self.replica.store.users().credentials(&user.username).await?;
        let stored = stored.and_then(|stored| PasswordHash::parse(&stored.password_hash).ok());
        Ok(if stored.as_ref() == Some(&user.password_hash) { ImportOutcome::Unchanged } else { ImportOutcome::Taken })
    }
}

impl ImportReport {
    fn refuse(&mut self, number: u64, bytes: u64, error: &ImportLineError) {
        self.progress.record(ImportOutcome::Refused, bytes);
        self.refused.push(RefusedLine { number, reason: error.to_string() });
    }
}
