//! Password verification. Every operation that takes a password uses this path (security.md section 1, point 8).

pub(crate) mod attempts;
pub(crate) mod failed_logins;

use crate::crypto::{PasswordHash, PasswordHasher, Priority};
use crate::domain::{ClientId, Password, User, UserId, UserState, Username};
use crate::replica::Replica;
use crate::service::passwords::attempts::Attempt;
use crate::service::{AttemptRules, FailedLogins, Failure, LoginError, Refusals, Requester};
use crate::store::Credentials;

/// A user whose password was verified.
pub(crate) struct VerifiedUser {
    /// The user as of the time when the hash was read.
    pub(crate) user: User,
    /// The installation's epoch, read with the user: a login that began before everything was revoked opens no session.
    pub(crate) installation_epoch: u32,
    /// The operation must settle the attempt when it succeeds.
    pub(crate) attempt: Attempt,
    /// The stored hash and its replacement, if the stored one is outdated.
    upgrade: Option<(String, PasswordHash)>,
}

/// The result of verifying a password.
enum Checked {
    Right {
        user: User,
        installation_epoch: u32,
        upgrade: Option<(String, PasswordHash)>,
    },
    /// With the user, if the user name exists.
    Wrong(Option<UserId>),
}

/// Verifies passwords, within the limits on attempts.
pub struct Passwords {
    pub(crate) replica: Replica,
    pub(crate) hasher: PasswordHasher,
    pub(crate) attempt_rules: AttemptRules,
    pub(crate) refusals: Refusals,
    pub(crate) failed_logins: FailedLogins,
}

impl Passwords {
    /// Counts the attempt, then checks the password (security.md L3). If the password is wrong, the audit event is written
    /// before this returns. If the password could not be checked, the attempt is no longer counted.
    pub(crate) async fn verify_password(
        &self,
        username: &Username,
        password: Password,
        client: &ClientId,
        from: &Requester,
    ) -> Result<VerifiedUser, LoginError> {
        let attempt = self.begin_attempt(username, from).await?;
        match self.check_password(username, password, attempt.priority()).await {
            Ok(Checked::Right { user, installation_epoch, upgrade }) => {
                Ok(VerifiedUser { user, installation_epoch, attempt, upgrade })
            }
            Ok(Checked::Wrong(user)) => {
                self.note_failed_login(&attempt, user, client, from).await?;
                Err(LoginError::InvalidCredentials)
            }
            Err(error) => {
                self.withdraw_attempt(&attempt).await;
                Err(error)
            }
        }
    }

    /// All refusals take the same path and the same time. For an unknown name, a disabled user and an unreadable hash, the
    /// password is hashed as for a wrong password (security.md P6, P11).
    async fn check_password(
        &self,
        username: &Username,
        password: Password,
        priority: Priority,
    ) -> Result<Checked, LoginError> {
        let credentials = self.replica.store.users().credentials(username).await.map_err(Failure::from)?;
        let account = credentials.as_ref().map(|credentials| credentials.user.id);
        let usable = credentials.filter(|credentials| credentials.user.state == UserState::Enabled);
        let stored = usable.as_ref().and_then(|credentials| {
            PasswordHash::parse(&credentials.password_hash)
                .inspect_err(|error| tracing::error!(user = %credentials.user.id, %error, "the stored password hash is unreadable"))
                .ok()
        });
        let verdict = self.hasher.verify(password, stored, priority).await?;
        Ok(match usable.filter(|_| verdict.matches) {
            Some(credentials) => {
                let Credentials { user, password_hash, installation_epoch } = credentials;
                let upgrade = verdict.replacement.map(|better| (password_hash, better));
                Checked::Right { user, installation_epoch, upgrade }
            }
            None => Checked::Wrong(account),
        })
    }

    /// Stores the replacement hash, if there is one. If that fails, the next login tries again.
    pub(crate) async fn upgrade_hash(&self, verified: &VerifiedUser) {
        if let Some((old, better)) = &verified.upgrade
            && let Err(error) = self.replica.store.users().upgrade_hash(verified.user.id, old, better.as_str()).await
        {
            tracing::warn!(user = %verified.user.id, %error, "upgrading the password hash failed");
        }
    }

    /// Passes the schemes of the stored hashes to the hashing pool, so that all refusals take the same time from the first
    /// one on (security.md P6). Costs one index lookup per scheme.
    pub async fn learn_password_schemes(&self) -> Result<(), Failure> {
        let samples = self.replica.store.users().password_samples().await?;
        let hashes = samples.iter().filter_map(|sample| PasswordHash::parse(sample).ok());
        self.hasher.expect_schemes(hashes.map(|hash| hash.scheme()));
        Ok(())
    }
}
