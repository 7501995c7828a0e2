//! Refreshing a session: one conditional statement decides (design.md, section 4).

use std::time::Duration;

use super::{SessionDetail, Sessions};
use crate::domain::{Audience, ClientId, EndReason, RefreshRefusal, Revocation, SessionId, SessionState, Timestamp};
use crate::store::columns::{installation_epoch, session_columns};
use crate::store::db::{Lane, Row, Sql, Tx, Written, values};
use crate::store::rows::joined;
use crate::store::{AuditEvent, StoreError, audit};

/// How often a refresh looks again when the row changed between its attempt and its look.
const MAX_LOOKS: u32 = 4;

/// When a session is rotated: `asked` are the tokens that were presented, one for each session.
macro_rules! rotate_condition {
    () => {
        concat!(
            "WHERE sessions.id = asked.id AND sessions.generation = asked.generation
          AND sessions.family_digest = asked.family_digest AND sessions.client_id = asked.client_id
          AND ended_at IS NULL AND idle_expires_at > asked.at AND absolute_expires_at > asked.at
          AND users.id = user_id AND users.epoch = user_epoch AND users.disabled_at IS NULL
          AND clients.id = sessions.client_id AND clients.epoch = client_epoch AND clients.disabled_at IS NULL
          AND installation_epoch = ",
            installation_epoch!(),
            "
          AND (most_chars IS NULL OR length(scope) + length(audience) + length(methods)
              + length(users.roles) + length(users.username) <= most_chars)
          AND (asked.audiences IS NULL
              OR replace(asked.audiences, mark || audience || mark, '') <> asked.audiences)"
        )
    };
}

/// Of all who present a token, the one whose statement changes the row has won. It serves many sessions at once. SQLite's
/// `RETURNING` reaches no joined table.
const ROTATE: Sql = Sql::each(
    concat!(
        "UPDATE sessions
        SET generation = sessions.generation + 1, rotated_at = asked.at, idle_expires_at = asked.idle_end
        FROM (SELECT unhex(value ->> 0) AS id, value ->> 1 AS generation, unhex(value ->> 2) AS family_digest,
                value ->> 3 AS client_id, value ->> 4 AS at, value ->> 5 AS idle_end, value ->> 6 AS audiences,
                value ->> 7 AS most_chars, value ->> 8 AS mark FROM json_each($1)) AS asked,
            users, clients
        ",
        rotate_condition!(),
        "
        RETURNING ",
        session_columns!(),
        ", (SELECT username FROM users WHERE users.id = user_id) AS username,
            (SELECT roles FROM users WHERE users.id = user_id) AS roles"
    ),
    concat!(
        "UPDATE sessions
        SET generation = sessions.generation + 1, rotated_at = asked.at, idle_expires_at = asked.idle_end
        FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::text[], $5::bigint[], $6::bigint[], $7::text[],
                $8::bigint[], $9::text[])
              AS asked (id, generation, family_digest, client_id, at, idle_end, audiences, most_chars, mark),
            users, clients
        ",
        rotate_condition!(),
        "
        RETURNING ",
        session_columns!(),
        ", users.username, users.roles"
    ),
);

/// A refresh token that was presented, its MAC already checked.
#[derive(Debug, Clone)]
pub struct RotateRequest {
    /// The session that the token names.
    pub session: SessionId,
    /// The generation that the token carries.
    pub generation: u32,
    /// SHA-256 of the family secret that the token carries.
    pub family_digest: [u8; 32],
    /// The client that presents it.
    pub client: ClientId,
    /// The session's new idle end is this far from now.
    pub idle_ttl: Duration,
    /// For how long after a rotation the token before is answered with the same successor again. Zero: never.
    pub retry_window: Duration,
    /// Until when the revocation is remembered, should this be reuse.
    pub revocation_expires_at: Timestamp,
    /// What to remember, should this be reuse. Written once, however many present the token at the same time.
    pub reuse_audit: AuditEvent,
    /// Rotate only such a session. None: whatever it says, because it was read before.
    pub only: Option<Answerable>,
}

/// Sessions of which the caller knows without having read them that their next tokens can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answerable {
    /// The audience is one of these lists, word for word.
    pub audiences: Vec<Vec<Audience>>,
    /// Scope, audience, methods, roles and user name have no more characters together.
    pub most_chars: usize,
}

/// What a presented refresh token led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RotateOutcome {
    /// This request won: the session has a new generation.
    Rotated(SessionDetail),
    /// The token was already rotated, just now: here is the session as that left it, so that the same successor can be
    /// answered again (security.md R4).
    Retried(SessionDetail),
    /// Nothing was changed: this token would rotate this session, which is none of [`RotateRequest::only`].
    Undecided(Box<SessionDetail>),
    /// Refused. After [`RefreshRefusal::Reused`] the session is over.
    Refused(RefreshRefusal),
}

/// A session whose family secret somebody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenSession {
    /// The session, and what its tokens say about its user.
    pub detail: SessionDetail,
    /// User and client are enabled and of the session's epochs.
    pub is_current: bool,
}

impl Sessions<'_> {
    /// Rotates a session's refresh token.
    pub async fn rotate(&self, request: RotateRequest, now: Timestamp) -> Result<Written<RotateOutcome>, StoreError> {
        let RotateRequest { session, generation, family_digest, ref client, ref only, .. } = request;
        let most_chars = only.as_ref().map(|only| i64::try_from(only.most_chars).unwrap_or(i64::MAX));
        let audiences = only.as_ref().map(|only| listed(&only.audiences));
        for _ in 0..MAX_LOOKS {
            let idle_expires_at = now.plus(request.idle_ttl);
            let proof = values![session, generation, family_digest, client, now, idle_expires_at];
            let values = [proof, values![audiences.as_deref(), most_chars, BETWEEN_LISTS]].concat();
            let id = *session.as_bytes();
            if let Some(row) = self.0.write_row("session_rotate", "sessions", ROTATE, id, values).await? {
                return Ok(unchanged(RotateOutcome::Rotated(SessionDetail::try_from(&row)?)));
            }
            return match judge(self.look(Lane::Refreshes, session).await?, &request, now) {
                Verdict::Retry(detail) => Ok(unchanged(RotateOutcome::Retried(*detail))),
                Verdict::Refuse(refusal) => Ok(unchanged(RotateOutcome::Refused(refusal))),
                Verdict::Reuse => self.end_reused(request, now).await,
                Verdict::LookAgain(detail) if request.only.is_some() => Ok(unchanged(RotateOutcome::Undecided(detail))),
                Verdict::LookAgain(_) => continue,
            };
        }
        Err(StoreError::Unavailable("the session changes too fast to be judged".to_owned()))
    }

    /// The session of a refresh token of any generation, proven by the digest of its family secret.
    pub async fn proven(&self, id: SessionId, family_digest: [u8; 32]) -> Result<Option<ProvenSession>, StoreError> {
        self.proven_over(Lane::Requests, id, family_digest).await
    }

    /// The same for a refresh, over the connections that are kept for those.
    pub async fn proven_for_refresh(
        &self,
        id: SessionId,
        family_digest: [u8; 32],
    ) -> Result<Option<ProvenSession>, StoreError> {
        self.proven_over(Lane::Refreshes, id, family_digest).await
    }

    async fn proven_over(
        &self,
        lane: Lane,
        id: SessionId,
        family_digest: [u8; 32],
    ) -> Result<Option<ProvenSession>, StoreError> {
        let found = self.look(lane, id).await?.filter(|found| found.family_digest == family_digest);
        Ok(found.map(|found| ProvenSession { detail: found.detail, is_current: found.is_current }))
    }

    async fn look(&self, lane: Lane, id: SessionId) -> Result<Option<Found>, StoreError> {
        const LOOK: &str = concat!(
            "SELECT ",
            session_columns!(),
            ", users.username, users.roles,
                CAST(CASE WHEN users.epoch = user_epoch AND users.disabled_at IS NULL
                    AND clients.epoch = client_epoch AND clients.disabled_at IS NULL
                    AND installation_epoch = ",
            installation_epoch!(),
            " THEN 1 ELSE 0 END AS BIGINT) AS is_current
            FROM sessions JOIN users ON users.id = user_id JOIN clients ON clients.id = client_id
            WHERE sessions.id = $1"
        );
        let rows = self.0.read("session_look", lane, LOOK.into(), values![id]).await?;
        rows.first().map(Found::try_from).transpose()
    }

    /// Ends a session whose old token came back, with its revocation and its audit event; the commit stands although the
    /// answer is a refusal. Of many that find the same reuse, one ends it.
    async fn end_reused(&self, request: RotateRequest, now: Timestamp) -> Result<Written<RotateOutcome>, StoreError> {
        let written = self
            .0
            .write("session_reused", (request, now), |tx, (request, now)| Box::pin(end_reused(tx, request, *now)));
        Ok(written.await?.map(|()| RotateOutcome::Refused(RefreshRefusal::Reused)))
    }
}

async fn end_reused(tx: &mut Tx, request: &RotateRequest, now: Timestamp) -> Result<(), StoreError> {
    const END: &str = "UPDATE sessions SET ended_at = $1, end_reason = $2
        WHERE id = $3 AND family_digest = $4 AND ended_at IS NULL RETURNING id";
    let values = values![now, EndReason::Reused.as_str(), request.session, request.family_digest];
    if tx.row(END, values).await?.is_some() {
        tx.revoke(Revocation::Session(request.session), now, request.revocation_expires_at).await?;
        audit::record(tx, now, [&request.reuse_audit]).await?;
    }
    Ok(())
}

/// Stands between lists of audiences, and before and after them; within one it cannot be, and between words is a space.
const BETWEEN_LISTS: &str = "\n";

/// The lists one after the other. One is found in it by what replacing it changes, a function that both engines have.
fn listed(audiences: &[Vec<Audience>]) -> String {
    let mut text = BETWEEN_LISTS.to_owned();
    for list in audiences {
        text.push_str(&joined(list));
        text.push_str(BETWEEN_LISTS);
    }
    text
}

/// A session as the look found it.
struct Found {
    detail: SessionDetail,
    family_digest: [u8; 32],
    /// User and client are enabled and of the session's epochs.
    is_current: bool,
}

impl TryFrom<&Row> for Found {
    type Error = StoreError;

    fn try_from(row: &Row) -> Result<Self, StoreError> {
        let detail = SessionDetail::try_from(row)?;
        let row = row.of("sessions", "id");
        Ok(Self { detail, family_digest: row.array("family_digest")?, is_current: row.int("is_current")? != 0 })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Retry(Box<SessionDetail>),
    Refuse(RefreshRefusal),
    Reuse,
    /// Everything speaks for rotating now: the row changed since the attempt, or the attempt asked for more.
    LookAgain(Box<SessionDetail>),
}

/// Names the cause why the conditional statement changed nothing. What belongs to another client, or to nobody, is
/// judged first and changes nothing (security.md R7).
fn judge(found: Option<Found>, request: &RotateRequest, now: Timestamp) -> Verdict {
    let Some(Found { detail, family_digest, is_current }) = found else {
        return Verdict::Refuse(RefreshRefusal::Unknown);
    };
    let session = &detail.session;
    // Not a secret comparison: the token's MAC was checked, so its bearer did not choose these bytes.
    if family_digest != request.family_digest || request.generation > session.generation {
        return Verdict::Refuse(RefreshRefusal::Unknown);
    }
    if session.client != request.client {
        return Verdict::Refuse(RefreshRefusal::ForeignClient);
    }
    let is_old = request.generation < session.generation;
    match session.state {
        SessionState::Ended(_, EndReason::Reused) if is_old => return Verdict::Refuse(RefreshRefusal::Reused),
        SessionState::Ended(..) => return Verdict::Refuse(RefreshRefusal::Ended),
        SessionState::Live => {}
    }
    if session.has_expired(now) {
        return Verdict::Refuse(RefreshRefusal::Expired);
    }
    if !is_current {
        return Verdict::Refuse(RefreshRefusal::Revoked);
    }
    if !is_old {
        return Verdict::LookAgain(Box::new(detail));
    }
    let is_previous = session.generation - request.generation == 1;
    let is_recent = now.since(session.rotated_at) <= request.retry_window;
    if is_previous && is_recent && !request.retry_window.is_zero() {
        Verdict::Retry(Box::new(detail))
    } else {
        Verdict::Reuse
    }
}

const fn unchanged(value: RotateOutcome) -> Written<RotateOutcome> {
    Written { value, changes: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ScopeSet, Session, UserId, Username};

    const NOW: Timestamp = Timestamp::from_seconds(1000);
    const WINDOW: Duration = Duration::from_secs(10);

    fn request(generation: u32) -> RotateRequest {
        RotateRequest {
            session: SessionId::from_bytes([1; 16]),
            generation,
            family_digest: [7; 32],
            client: ClientId::parse("app").unwrap(),
            idle_ttl: WINDOW,
            retry_window: WINDOW,
            revocation_expires_at: NOW,
            reuse_audit: AuditEvent::default(),
            only: None,
        }
    }

    /// A session at generation 5 that was rotated `age` ago.
    fn found(age: Duration) -> Found {
        let session = Session {
            id: SessionId::from_bytes([1; 16]),
            user: UserId::from_bytes([2; 16]),
            client: ClientId::parse("app").unwrap(),
            generation: 5,
            authenticated_at: Timestamp::from_seconds(1),
            rotated_at: NOW.minus(age),
            idle_expires_at: NOW.plus(WINDOW),
            absolute_expires_at: NOW.plus(WINDOW),
            scope: ScopeSet::default(),
            audience: vec![Audience::parse("api").unwrap()],
            user_epoch: 0,
            client_epoch: 0,
            installation_epoch: 0,
            state: SessionState::Live,
        };
        let username = Username::parse("ada").unwrap();
        let detail = SessionDetail { session, methods: Vec::new(), username, roles: Vec::new() };
        Found { detail, family_digest: [7; 32], is_current: true }
    }

    fn verdict(change: impl FnOnce(&mut Found, &mut RotateRequest)) -> Verdict {
        let (mut found, mut request) = (found(WINDOW), request(4));
        change(&mut found, &mut request);
        judge(Some(found), &request, NOW)
    }

    #[test]
    fn r4_the_previous_token_is_a_retry_until_the_window_closes() {
        assert!(matches!(verdict(|_, _| {}), Verdict::Retry(_)));
        let late = WINDOW + Duration::from_millis(1);
        assert_eq!(verdict(|found, _| found.detail.session.rotated_at = NOW.minus(late)), Verdict::Reuse);
        // Another replica's clock may be a little ahead of ours.
        let ahead = verdict(|found, _| found.detail.session.rotated_at = NOW.plus(Duration::from_millis(3)));
        assert!(matches!(ahead, Verdict::Retry(_)));
    }

    #[test]
    fn r4_without_a_window_even_the_same_millisecond_is_reuse() {
        let verdict = verdict(|found, request| {
            found.detail.session.rotated_at = NOW;
            request.retry_window = Duration::ZERO;
        });
        assert_eq!(verdict, Verdict::Reuse);
    }

    #[test]
    fn r3_every_older_token_is_reuse() {
        for generation in 0..4 {
            assert_eq!(verdict(|_, request| request.generation = generation), Verdict::Reuse, "{generation}");
        }
    }

    #[test]
    fn a_generation_that_was_never_given_out_is_unknown() {
        assert_eq!(verdict(|_, request| request.generation = 6), Verdict::Refuse(RefreshRefusal::Unknown));
        assert_eq!(judge(None, &request(4), NOW), Verdict::Refuse(RefreshRefusal::Unknown));
    }

    #[test]
    fn r7_a_foreign_client_and_a_foreign_family_are_refused_before_reuse_is_seen() {
        let foreign = verdict(|_, request| {
            request.client = ClientId::parse("other").unwrap();
            request.generation = 0;
        });
        assert_eq!(foreign, Verdict::Refuse(RefreshRefusal::ForeignClient));
        let family = verdict(|_, request| {
            request.family_digest = [8; 32];
            request.generation = 0;
        });
        assert_eq!(family, Verdict::Refuse(RefreshRefusal::Unknown));
    }

    #[test]
    fn a_dead_session_names_its_cause() {
        use RefreshRefusal::{Ended, Expired, Reused, Revoked};
        let ended = |reason, generation| {
            verdict(move |found, request| {
                found.detail.session.state = SessionState::Ended(NOW, reason);
                request.generation = generation;
            })
        };
        assert_eq!(ended(EndReason::LoggedOut, 5), Verdict::Refuse(Ended));
        assert_eq!(ended(EndReason::LoggedOut, 1), Verdict::Refuse(Ended));
        assert_eq!(ended(EndReason::Reused, 5), Verdict::Refuse(Ended));
        assert_eq!(ended(EndReason::Reused, 1), Verdict::Refuse(Reused));
        assert_eq!(verdict(|found, _| found.detail.session.idle_expires_at = NOW), Verdict::Refuse(Expired));
        assert_eq!(verdict(|found, _| found.is_current = false), Verdict::Refuse(Revoked));
    }

    #[test]
    fn a_row_that_became_right_after_the_attempt_is_tried_again() {
        assert!(matches!(verdict(|_, request| request.generation = 5), Verdict::LookAgain(_)));
    }
}
