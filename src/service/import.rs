//! Importing users with the password hashes that they have. The rules are on the page of [`super::import_line`].

use crate::crypto::PasswordHash;
use crate::domain::UserId;
use crate::store::NewUser;

use super::import_line::{ImportLineError, ImportOutcome, ImportProgress, ImportedUser};
use super::{Failure, Requester, Service};

/// Users that are inserted in one transaction.
pub const IMPORT_BATCH: usize = 500;

/// A line that was not imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedLine {
    /// From 1.
    pub number: u64,
    /// Why.
    pub reason: String,
}

/// What came of an import so far.
#[derive(Debug, Clone, Default)]
pub struct ImportReport {
    /// Counts.
    pub progress: ImportProgress,
    /// Lines that were refused, or whose name another account has.
    pub refused: Vec<RefusedLine>,
    lines_seen: u64,
}

impl Service {
    /// Imports a batch of lines, at most [`IMPORT_BATCH`] of them, and adds what came of it to `report`. Running a whole
    /// import again continues it: what is there already is left alone.
    pub async fn import_users(
        &self,
        lines: &[&[u8]],
        report: &mut ImportReport,
        from: &Requester,
    ) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut batch: Vec<(u64, u64, ImportedUser)> = Vec::with_capacity(lines.len());
        for line in lines {
            report.lines_seen += 1;
            let (number, bytes) = (report.lines_seen, line.len() as u64 + 1);
            match ImportedUser::parse(line) {
                Ok(Some(user)) => batch.push((number, bytes, user)),
                Ok(None) => report.progress.bytes += bytes,
                Err(error) => report.refuse(number, bytes, &error),
            }
        }
        let new: Vec<NewUser> = batch.iter().map(|(_, _, user)| self.new_user(user)).collect();
        let event = from.event("users.imported");
        let created = self.store.users().import(new, now, Some(event)).await?;
        self.learn_password_schemes().await?;
        for ((number, bytes, user), is_created) in batch.into_iter().zip(created) {
            let outcome = if is_created { ImportOutcome::Created } else { self.present(&user).await? };
            report.progress.record(outcome, bytes);
            if outcome == ImportOutcome::Taken {
                report.refused.push(RefusedLine {
                    number,
                    reason: "the name belongs to an account with another password hash; it was left alone".to_owned(),
                });
            }
        }
        Ok(())
    }

    fn new_user(&self, user: &ImportedUser) -> NewUser {
        NewUser {
            id: UserId::from_bytes(self.random.bytes()),
            username: user.username.clone(),
            password_hash: user.password_hash.as_str().to_owned(),
            roles: user.roles.clone(),
            disabled: user.disabled,
            created_at: user.created_at,
        }
    }

    /// Whether the account that has the name is the one of the line.
    async fn present(&self, user: &ImportedUser) -> Result<ImportOutcome, Failure> {
        let stored = self.store.users().credentials(&user.username).await?;
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
