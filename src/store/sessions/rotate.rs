//! Refreshes a session: one conditional statement decides (design.md, section 4).

use std::sync::Arc;
use std::time::Duration;

use super::end::end_session;
use super::{EndRequest, Owner, SessionDetail, Sessions};
use crate::domain::{
    Audience, ClientId, EndReason, RefreshRefusal, ScopeSet, Session, SessionId, SessionState, Timestamp,
};
use crate::store::columns::{installation_epoch, session_columns};
use crate::store::db::{Lane, Row, Sql, Written, pause, values};
use crate::store::rows::joined;
use crate::store::{AuditEvent, StoreError};

/// `asked` holds the presented tokens, one for each session.
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
          AND (asked.audiences IS NULL
              OR replace(asked.audiences, mark || audience || mark, '') <> asked.audiences)"
        )
    };
}

/// The columns that a rotation writes. The marks are the [`RetryMarks`](crate::domain::RetryMarks).
macro_rules! rotate_changes {
    () => {
        "SET generation = sessions.generation + 1, rotated_at = asked.at, idle_expires_at = asked.idle_end,
          marked_generation = sessions.generation + 1,
          floor_generation = CASE WHEN marked_generation <> sessions.generation THEN sessions.generation - 1
              WHEN asked.at - middle_at > asked.retry_window THEN middle_generation ELSE floor_generation END,
          middle_generation = CASE WHEN marked_generation <> sessions.generation
              OR asked.at - middle_at > asked.retry_window THEN sessions.generation ELSE middle_generation END,
          middle_at = CASE WHEN marked_generation <> sessions.generation
              OR asked.at - middle_at > asked.retry_window THEN rotated_at ELSE middle_at END
        "
    };
}

macro_rules! asked_in_sqlite {
    () => {
        "(SELECT unhex(value ->> 0) AS id, value ->> 1 AS generation, unhex(value ->> 2) AS family_digest,
            value ->> 3 AS client_id, value ->> 4 AS at, value ->> 5 AS idle_end, value ->> 6 AS retry_window,
            value ->> 7 AS audiences, value ->> 8 AS mark FROM json_each($1)) AS asked,
            users, clients
        "
    };
}

macro_rules! asked_in_postgres {
    () => {
        "unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
                $8::text[], $9::text[])
            AS asked (id, generation, family_digest, client_id, at, idle_end, retry_window, audiences, mark)"
    };
}

/// SQLite's `RETURNING` reaches no joined table.
macro_rules! rotate_in_sqlite {
    () => {
        concat!(
            "UPDATE sessions ",
            rotate_changes!(),
            "FROM ",
            asked_in_sqlite!(),
            rotate_condition!(),
            " RETURNING ",
            session_columns!(),
            ", (SELECT username FROM users WHERE users.id = user_id) AS username,
                (SELECT roles FROM users WHERE users.id = user_id) AS roles"
        )
    };
}

/// Of all requests that present a token, the one whose statement changes the row wins. One statement serves many
/// sessions at once.
///
/// On PostgreSQL it skips rows that may be locked, because all its callers would wait for the lock. The `xmax` of a
/// locked row is not zero. It is not zero after a rolled-back update either, so [`ROTATE_UNLOCKED`] then tries the
/// skipped rows.
const ROTATE: Sql = Sql::each(
    rotate_in_sqlite!(),
    concat!(
        "UPDATE sessions ",
        rotate_changes!(),
        "FROM ",
        asked_in_postgres!(),
        ", users, clients
        ",
        rotate_condition!(),
        " AND sessions.xmax = 0 RETURNING ",
        session_columns!(),
        ", users.username, users.roles"
    ),
);

/// The same for every row that is not locked. PostgreSQL takes each lock in a separate step, which raises the cost
/// by half.
const ROTATE_UNLOCKED: Sql = Sql::each(
    rotate_in_sqlite!(),
    concat!(
        "WITH unlocked AS MATERIALIZED (
            SELECT sessions.id, asked.at, asked.idle_end, asked.retry_window, users.username, users.roles
            FROM sessions, ",
        asked_in_postgres!(),
        ", users, clients
            ",
        rotate_condition!(),
        " FOR NO KEY UPDATE OF sessions SKIP LOCKED)
        UPDATE sessions ",
        rotate_changes!(),
        "FROM unlocked AS asked WHERE sessions.id = asked.id RETURNING ",
        session_columns!(),
        ", asked.username, asked.roles"
    ),
);

/// A presented refresh token whose MAC has been checked.
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
    /// How long after its rotation a superseded token is answered with the current pair. Zero: never.
    pub retry_window: Duration,
    /// When the revocation expires, if this is reuse.
    pub revocation_expires_at: Timestamp,
    /// The event to write if this is reuse. It is written once, however many requests present the token at the same
    /// time.
    pub reuse_audit: AuditEvent,
    /// Rotate only a session whose audience equals one of these lists, word for word. None: rotate any session, because
    /// the caller has read it before.
    pub audiences: Option<Vec<Vec<Audience>>>,
}

/// The outcome for a presented refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RotateOutcome {
    /// This request won: the session has a new generation.
    Rotated(SessionDetail),
    /// The token was superseded within the retry window. Holds the session as of the latest rotation, so that its
    /// current pair can be answered again (security.md R4).
    Retried(SessionDetail),
    /// No change: this token would rotate this session, but the session has none of [`RotateRequest::audiences`].
    Undecided(Box<SessionDetail>),
    /// Refused. After [`RefreshRefusal::Reused`] the session has ended.
    Refused(RefreshRefusal),
}

/// A session whose family secret the caller has presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchingSession {
    /// The session, and the user data for its tokens.
    pub detail: SessionDetail,
    /// User and client are enabled, and the session has their epochs.
    pub is_current: bool,
}

/// Requests with the same key present the same token under the same conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RotateKey {
    generation: u32,
    family_digest: [u8; 32],
    client: ClientId,
    idle_ttl: Duration,
    retry_window: Duration,
    audiences: Option<Vec<Vec<Audience>>>,
}

impl From<&RotateRequest> for RotateKey {
    fn from(request: &RotateRequest) -> Self {
        let RotateRequest { generation, family_digest, idle_ttl, retry_window, .. } = *request;
        let (client, audiences) = (request.client.clone(), request.audiences.clone());
        Self { generation, family_digest, client, idle_ttl, retry_window, audiences }
    }
}

impl Sessions<'_> {
    /// Rotates a session's refresh token. Requests for one session are serialized; those with the same token share an
    /// outcome.
    pub async fn rotate(&self, request: RotateRequest, now: Timestamp) -> Result<Written<RotateOutcome>, StoreError> {
        if let Some(refusal) = self.known_refusal(&request, now) {
            return Ok(unchanged(RotateOutcome::Refused(refusal)));
        }
        let (key, session, window) = (RotateKey::from(&request), request.session, request.retry_window);
        let (database, gate) = (self.database.clone(), Arc::clone(self.gate));
        let work = async move { Sessions { database: &database, gate: &gate }.rotate_in_turn(request, now).await };
        let rotated = self.gate.rotations.run(session, key, |outcome| repeated(outcome, window), work).await;
        rotated.unwrap_or_else(|| Err(interrupted("session_rotate")))
    }

    async fn rotate_in_turn(
        &self,
        request: RotateRequest,
        now: Timestamp,
    ) -> Result<Written<RotateOutcome>, StoreError> {
        // A preceding operation on this session may have recorded its end.
        if let Some(refusal) = self.known_refusal(&request, now) {
            return Ok(unchanged(RotateOutcome::Refused(refusal)));
        }
        let RotateRequest { session, generation, family_digest, ref client, ref audiences, .. } = request;
        let audiences = audiences.as_deref().map(listed);
        let window = i64::try_from(request.retry_window.as_millis()).unwrap_or(i64::MAX);
        let (mut attempts, mut waited) = (0, Duration::ZERO);
        loop {
            let idle_expires_at = now.plus(request.idle_ttl);
            let proof = values![session, generation, family_digest, client, now, idle_expires_at, window];
            let values = [proof, values![audiences.as_deref(), BETWEEN_LISTS]].concat();
            let sql = if attempts == 0 { ROTATE } else { ROTATE_UNLOCKED };
            let id = *session.as_bytes();
            let changed = self.database.write_row("session_rotate", "sessions", sql, id, values).await?;
            if let Some(row) = changed.row {
                return Ok(unchanged(RotateOutcome::Rotated(SessionDetail::try_from(&row)?)));
            }
            let found = self.look(Lane::Refreshes, session).await?;
            self.gate.remember(session, found.as_ref(), now, self.database.elapsed());
            match judge(found.as_ref(), &request, now) {
                Verdict::Retry(detail) => return Ok(unchanged(RotateOutcome::Retried(*detail))),
                Verdict::Refuse(refusal) => {
                    log_refusal(&request, found.as_ref(), refusal);
                    return Ok(unchanged(RotateOutcome::Refused(refusal)));
                }
                // This request may have rotated the session itself, without getting the answer.
                Verdict::Reuse if !changed.is_certain => {
                    let text = "the connection was closed before the answer of a rotation".to_owned();
                    return Err(StoreError::OutcomeUnknown(text));
                }
                Verdict::Reuse => {
                    log_refusal(&request, found.as_ref(), RefreshRefusal::Reused);
                    return self.end_reused(request, now).await;
                }
                Verdict::Rotatable(detail) if request.audiences.is_some() => {
                    return Ok(unchanged(RotateOutcome::Undecided(detail)));
                }
                Verdict::Rotatable(_) if waited >= self.database.patience() => {
                    return Err(StoreError::Unavailable("the session is locked, or changes too fast".to_owned()));
                }
                Verdict::Rotatable(_) if attempts > 0 => waited += pause(attempts).await,
                Verdict::Rotatable(_) => {}
            }
            attempts += 1;
        }
    }

    /// The reason for refusing a token whose session is known to have ended.
    fn known_refusal(&self, request: &RotateRequest, now: Timestamp) -> Option<RefreshRefusal> {
        let row = self.gate.over(request.session, self.database.elapsed())?;
        match judge(row.as_deref(), request, now) {
            Verdict::Refuse(refusal) => {
                log_refusal(request, row.as_deref(), refusal);
                Some(refusal)
            }
            _ => None,
        }
    }

    /// The session of a refresh token of any generation, identified by the digest of its family secret.
    pub async fn matching(
        &self,
        id: SessionId,
        family_digest: [u8; 32],
    ) -> Result<Option<MatchingSession>, StoreError> {
        self.matching_over(Lane::Requests, id, family_digest).await
    }

    /// The same for a refresh, over the connections reserved for refreshes. Also None for a session known to have
    /// ended.
    pub async fn matching_for_refresh(
        &self,
        id: SessionId,
        family_digest: [u8; 32],
    ) -> Result<Option<MatchingSession>, StoreError> {
        if self.gate.over(id, self.database.elapsed()).is_some() {
            return Ok(None);
        }
        self.matching_over(Lane::Refreshes, id, family_digest).await
    }

    async fn matching_over(
        &self,
        lane: Lane,
        id: SessionId,
        family_digest: [u8; 32],
    ) -> Result<Option<MatchingSession>, StoreError> {
        let (database, gate) = (self.database.clone(), Arc::clone(self.gate));
        let work = async move {
            let found = Sessions { database: &database, gate: &gate }.look(lane, id).await?;
            Ok(found.map(Arc::new))
        };
        let found = self.gate.looks.run(id, lane, |outcome| Some(outcome.clone()), work).await;
        let found = found.unwrap_or_else(|| Err(interrupted("session_read")))?;
        let found = found.filter(|found| found.family_digest == family_digest);
        Ok(found.map(|found| MatchingSession { detail: found.detail.clone(), is_current: found.is_current }))
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
        let rows = self.database.read("session_read", lane, LOOK.into(), values![id]).await?;
        rows.first().map(Found::try_from).transpose()
    }

    /// Ends a session whose old token was presented again, with its revocation and its audit event. The commit remains
    /// although the answer is a refusal. Of many requests that detect the same reuse, one ends the session.
    async fn end_reused(&self, request: RotateRequest, now: Timestamp) -> Result<Written<RotateOutcome>, StoreError> {
        let request = EndRequest {
            session: request.session,
            owner: Owner::Family(request.family_digest, None),
            reason: EndReason::Reused,
            revocation_expires_at: request.revocation_expires_at,
            audit: Some(request.reuse_audit),
        };
        let ended = end_session(self.database, "session_reused", request, now).await?;
        Ok(ended.map(|_| RotateOutcome::Refused(RefreshRefusal::Reused)))
    }
}

/// Separates lists of audiences, and encloses them. It cannot occur within a list, whose words are separated by spaces.
const BETWEEN_LISTS: &str = "\n";

/// The concatenated lists. A statement tests for a list by replacing it and comparing the result; both engines have
/// that function.
fn listed(audiences: &[Vec<Audience>]) -> String {
    let mut text = BETWEEN_LISTS.to_owned();
    for list in audiences {
        text.push_str(&joined(list));
        text.push_str(BETWEEN_LISTS);
    }
    text
}

/// A session as read from the database.
pub(super) struct Found {
    pub(super) detail: SessionDetail,
    pub(super) family_digest: [u8; 32],
    /// User and client are enabled, and the session has their epochs.
    pub(super) is_current: bool,
}

impl Found {
    /// The fields that decide a refusal, without the texts that take memory.
    pub(super) fn without_texts(&self) -> Self {
        let Self { detail, family_digest, is_current } = self;
        let (scope, audience) = (ScopeSet::default(), Vec::new());
        let session = Session { client: detail.session.client.clone(), scope, audience, ..detail.session };
        let detail =
            SessionDetail { session, methods: Vec::new(), username: detail.username.clone(), roles: Vec::new() };
        Self { detail, family_digest: *family_digest, is_current: *is_current }
    }
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
    /// The token would rotate this session now. The attempt failed because the row has changed since, was locked, or
    /// did not meet the further conditions of the attempt.
    Rotatable(Box<SessionDetail>),
}

/// Returns the reason why the conditional statement changed no row. A token of another client or of an unknown session
/// is judged first and changes nothing (security.md R7).
fn judge(found: Option<&Found>, request: &RotateRequest, now: Timestamp) -> Verdict {
    let Some(Found { detail, family_digest, is_current }) = found else {
        return Verdict::Refuse(RefreshRefusal::Unknown);
    };
    let session = &detail.session;
    // Not a secret comparison: the token's MAC was checked, so its bearer did not choose these bytes.
    if *family_digest != request.family_digest || request.generation > session.generation {
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
        return Verdict::Rotatable(Box::new(detail.clone()));
    }
    let window = request.retry_window;
    let is_recent = session.superseded_at(request.generation).is_some_and(|at| now.since(at) <= window);
    if is_recent && !window.is_zero() { Verdict::Retry(Box::new(detail.clone())) } else { Verdict::Reuse }
}

/// The outcome that a request shares with an equal one. Without a retry window, a second use of a token is reuse, so a
/// rotation is not shared.
fn repeated(
    outcome: &Result<Written<RotateOutcome>, StoreError>,
    retry_window: Duration,
) -> Option<Result<Written<RotateOutcome>, StoreError>> {
    let value = match outcome {
        Err(error) => return Some(Err(error.clone())),
        Ok(Written { value: RotateOutcome::Rotated(_), .. }) if retry_window.is_zero() => return None,
        Ok(Written { value: RotateOutcome::Rotated(detail), .. }) => RotateOutcome::Retried(detail.clone()),
        Ok(Written { value, .. }) => value.clone(),
    };
    Some(Ok(unchanged(value)))
}

/// The error of an operation whose task panicked.
pub(super) fn interrupted(name: &'static str) -> StoreError {
    StoreError::Internal(format!("`{name}` did not run to its end"))
}

/// Logs why a refresh was refused. The token's MAC was checked, so its session is known. The user is known if the row
/// exists.
fn log_refusal(request: &RotateRequest, found: Option<&Found>, refusal: RefreshRefusal) {
    let (session, client) = (request.session, &request.client);
    let known = found.map(|found| (found.detail.session.user, found.detail.session.state));
    let user = known.map(|(user, _)| tracing::field::display(user));
    if refusal == RefreshRefusal::Reused {
        tracing::warn!(cause = refusal.as_str(), %session, user, %client, "refresh refused: the session is over");
        return;
    }
    // The session exists, but a password change has since replaced its family secret.
    let is_superseded = refusal == RefreshRefusal::Unknown && known.is_some();
    let cause = if is_superseded { "superseded" } else { refusal.as_str() };
    let ended = known.and_then(|(_, state)| match state {
        SessionState::Ended(_, reason) => Some(reason.as_str()),
        SessionState::Live => None,
    });
    tracing::info!(cause, ended, %session, user, %client, "refresh refused");
}

const fn unchanged(value: RotateOutcome) -> Written<RotateOutcome> {
    Written { value, changes: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{RetryMarks, UserId, Username};

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
            audiences: None,
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
            marks: RetryMarks { generation: 5, floor: 2, middle: 4, middle_at: NOW.minus(2 * age) },
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
        judge(Some(&found), &request, NOW)
    }

    #[test]
    fn r4_the_previous_token_is_a_retry_until_the_window_closes() {
        assert!(matches!(verdict(|_, _| {}), Verdict::Retry(_)));
        let late = WINDOW + Duration::from_millis(1);
        assert_eq!(verdict(|found, _| found.detail.session.rotated_at = NOW.minus(late)), Verdict::Reuse);
        // Another replica's clock may be slightly ahead.
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
    fn r3_a_token_that_was_superseded_before_the_window_is_reuse() {
        for generation in 0..4 {
            assert_eq!(verdict(|_, request| request.generation = generation), Verdict::Reuse, "{generation}");
        }
    }

    #[test]
    fn r4_a_token_superseded_within_the_window_is_a_retry_however_many_rotations_lie_between() {
        let presented = |generation: u32, marked: u32| {
            verdict(move |found, request| {
                found.detail.session.rotated_at = NOW.minus(WINDOW / 5);
                found.detail.session.marks.middle_at = NOW.minus(WINDOW / 2);
                found.detail.session.marks.generation = marked;
                request.generation = generation;
            })
        };
        for generation in [2, 3, 4] {
            assert!(matches!(presented(generation, 5), Verdict::Retry(_)), "{generation}");
        }
        for generation in [0, 1] {
            assert_eq!(presented(generation, 5), Verdict::Reuse, "{generation} lies below the marks");
        }
        // Release 0.1.0 rotated last: the marks are out of date.
        assert_eq!((presented(2, 4), presented(3, 4)), (Verdict::Reuse, Verdict::Reuse));
        assert!(matches!(presented(4, 4), Verdict::Retry(_)));
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
    fn a_row_that_changed_after_the_attempt_is_retried() {
        assert!(matches!(verdict(|_, request| request.generation = 5), Verdict::Rotatable(_)));
    }
}
