//! Proving who one is by a password: the one way in, whatever it is proven for (security.md section 1, point 8).

use crate::crypto::{PasswordHash, Priority};
use crate::domain::{ClientId, Password, User, UserId, UserState, Username};

use super::attempts::Attempt;
use super::{Failure, LoginError, Requester, Service};

/// A user who gave the right password.
pub(super) struct Proven {
    /// Who, as of when the hash was read.
    pub(super) user: User,
    /// The installation's epoch, read before the password was checked.
    pub(super) installation_epoch: u32,
    /// The attempt, to be settled by whatever the proof was for.
    pub(super) attempt: Attempt,
    /// The stored hash and a better one, where the stored one is outdated.
    upgrade: Option<(String, PasswordHash)>,
}

/// The result of verifying a password.
enum Looked {
    Right(User, Option<(String, PasswordHash)>),
    /// With the account, where there is one.
    Wrong(Option<UserId>),
}

impl Service {
    /// Counts the attempt, and only then looks at the password (security.md L3). A wrong one is in the audit trail when
    /// this returns; one that could not be looked at is not counted.
    pub(super) async fn prove(
        &self,
        username: &Username,
        password: Password,
        client: &ClientId,
        from: &Requester,
    ) -> Result<Proven, LoginError> {
        let installation_epoch = self.view.installation_epoch();
        let attempt = self.begin_attempt(username, from).await?;
        match self.look_at(username, password, attempt.priority()).await {
            Ok(Looked::Right(user, upgrade)) => Ok(Proven { user, installation_epoch, attempt, upgrade }),
            Ok(Looked::Wrong(user)) => {
                self.note_failed_login(&attempt, user, client, from).await?;
                Err(LoginError::InvalidCredentials)
            }
            Err(error) => {
                self.withdraw_attempt(&attempt).await;
                Err(error)
            }
        }
    }

    /// One path and one cost for every refusal. An unknown name, a disabled account and an unreadable hash are hashed like a
    /// wrong password (security.md P6, P11).
    async fn look_at(&self, username: &Username, password: Password, priority: Priority) -> Result<Looked, LoginError> {
        let credentials = self.store.users().credentials(username).await.map_err(Failure::from)?;
        let account = credentials.as_ref().map(|credentials| credentials.user.id);
        let usable = credentials.filter(|credentials| credentials.user.state == UserState::Enabled);
        let stored = usable.as_ref().and_then(|credentials| {
            PasswordHash::parse(&credentials.password_hash)
                .inspect_err(|error| tracing::error!(user = %credentials.user.id, %error, "the stored password hash is unreadable"))
                .ok()
        });
        let verdict = self.passwords.verify(password, stored, priority).await?;
        Ok(match usable.filter(|_| verdict.matches) {
            Some(credentials) => {
                Looked::Right(credentials.user, verdict.replacement.map(|better| (credentials.password_hash, better)))
            }
            None => Looked::Wrong(account),
        })
    }

    /// Stores a better hash of the password that was just proven. Its failure costs nothing but the next attempt.
    pub(super) async fn upgrade_hash(&self, proven: &Proven) {
        if let Some((old, better)) = &proven.upgrade
            && let Err(error) = self.store.users().upgrade_hash(proven.user.id, old, better.as_str()).await
        {
            tracing::warn!(user = %proven.user.id, %error, "the password hash could not be upgraded");
        }
    }

    /// Tells the hashing threads which schemes stored hashes have, so that every refused password costs the same from the
    /// first one on (security.md P6). Costs a look into an index for each scheme.
    pub async fn learn_password_schemes(&self) -> Result<(), Failure> {
        let samples = self.store.users().password_samples().await?;
        let hashes = samples.iter().filter_map(|sample| PasswordHash::parse(sample).ok());
        self.passwords.expect_schemes(hashes.map(|hash| hash.scheme()));
        Ok(())
    }
}
