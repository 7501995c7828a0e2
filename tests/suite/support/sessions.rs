//! Helpers for the tests of logins and sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign::crypto::{FamilySecret, MasterKey, RefreshCodec, RefreshToken, SeededRandom};
use countersign::domain::{ClientId, SessionId, UserId, Username};
use countersign::service::{BUILT_IN_CLIENT, Requester};
use countersign::store::{AuditEvent, NewSession, Store};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::app::{ISSUER, MASTER_KEY, TestApp, Tokens, USER, tokens};
use super::database::{Engine, TestDatabase};
use super::store::{ABSOLUTE, IDLE, REMEMBERED};
use super::{judging, secrets};

impl TestApp {
    /// Starts another replica on the same database, at the same time.
    pub async fn beside(&self, number: u64, settings: &str) -> Self {
        let mut other = Self::replica(Arc::clone(&self.database), Arc::clone(&self.clock), number, settings).await;
        other.gateway_secret.clone_from(&self.gateway_secret);
        other.admin_key.clone_from(&self.admin_key);
        other
    }

    /// Returns the answer of `/v1/login`.
    pub async fn login(&self, body: &Value) -> Response {
        self.post_json("/v1/login", body).send().await.unwrap()
    }

    /// The tokens of a refresh that must succeed, on the built-in client.
    pub async fn refreshed(&self, refresh_token: &str) -> Tokens {
        tokens(self.refresh(refresh_token).await).await
    }

    /// Returns the answer of `/v1/refresh` on a client.
    pub async fn refresh_on(&self, client: &str, refresh_token: &str) -> Response {
        let body = json!({"refresh_token": refresh_token, "client_id": client});
        self.post_json("/v1/refresh", &body).send().await.unwrap()
    }

    /// A request with a user's access token.
    pub async fn as_bearer(&self, method: Method, path: &str, access_token: &str) -> Response {
        self.request(method, path).bearer_auth(access_token).send().await.unwrap()
    }

    /// The audit trail's records of an event, newest first.
    pub async fn audit(&self, event: &str) -> Vec<Value> {
        let mut list = self.administer(Method::GET, &format!("/admin/v1/audit?limit=1000&event={event}"), None).await;
        serde_json::from_value(list["events"].take()).unwrap()
    }

    /// The number of failed logins in the audit trail, including those that `replicas` have only counted so far.
    pub async fn failed_logins(replicas: &[Arc<Self>]) -> u64 {
        for replica in replicas {
            replica.service.passwords.audit_failed_logins().await.unwrap();
        }
        let events = replicas[0].audit("login.failed").await;
        events.iter().map(|event| event["detail"]["attempts"].as_u64().unwrap_or(1)).sum()
    }

    /// The number of passwords that this replica has hashed or verified.
    pub async fn hashed(&self) -> u64 {
        self.settled("countersign_password_hash_seconds_count").await
    }

    /// Waits until a metric no longer changes. A job answers before it is counted, and continues after its caller has
    /// disconnected.
    pub async fn settled(&self, name_and_labels: &str) -> u64 {
        let mut before = f64::NAN;
        loop {
            let now = self.figure(name_and_labels).await;
            if now == before {
                return now as u64;
            }
            before = now;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// The id of a user.
    pub async fn user_id(&self, name: &str) -> UserId {
        self.service.users.user_named(&Username::parse(name).unwrap()).await.unwrap().unwrap().id
    }

    /// Disables a user or enables the account again.
    pub async fn set_enabled(&self, name: &str, enabled: bool) {
        let id = self.user_id(name).await;
        self.service.users.set_user_enabled(id, enabled, &Requester::command_line()).await.unwrap();
    }

    /// Changes the settings of a client.
    pub async fn change_client(&self, id: &str, change: impl FnOnce(&mut countersign::domain::ClientSettings)) {
        let id = ClientId::parse(id).unwrap();
        let mut settings = self.service.clients.client(&id).unwrap().settings.clone();
        change(&mut settings);
        let replace = |_| Ok::<_, countersign::service::ClientError>(settings.clone());
        self.service.clients.change_client(&id, replace, None, &Requester::command_line()).await.unwrap();
    }
}

/// Opens sessions of [`USER`] on the built-in client as a login would, without the cost of a password hash.
pub struct Sessions {
    pub store: Store,
    codec: RefreshCodec,
    random: SeededRandom,
    opened: AtomicU64,
}

impl Sessions {
    pub async fn of(app: &TestApp) -> Self {
        let codec = RefreshCodec::new(&MasterKey::parse(MASTER_KEY).unwrap(), None);
        Self { store: app.database.open().await, codec, random: SeededRandom::new(77), opened: AtomicU64::new(0) }
    }

    /// The refresh token of a new session that opens at the service's present.
    pub async fn open(&self, app: &TestApp) -> String {
        let random: &dyn countersign::crypto::Random = &self.random;
        let user = self.store.users().by_username(&Username::parse(USER).unwrap()).await.unwrap().unwrap();
        let client = self.store.clients().by_id(&ClientId::parse(BUILT_IN_CLIENT).unwrap()).await.unwrap().unwrap();
        self.opened.fetch_add(1, Ordering::Relaxed);
        let now = countersign::clock::Clock::now(&*app.clock);
        let family = FamilySecret::generate(random);
        let token = RefreshToken { session: SessionId::from_bytes(random.bytes()), generation: 0, family };
        let new = NewSession {
            id: token.session,
            user: user.id,
            user_epoch: user.epoch,
            client: client.id,
            client_epoch: client.epoch,
            installation_epoch: app.service.status.installation_epoch(),
            family_digest: token.family.digest().0,
            methods: vec!["pwd".to_owned()],
            scope: client.settings.scopes,
            audience: vec![countersign::domain::Audience::parse(ISSUER).unwrap()],
            idle_expires_at: now.plus(IDLE),
            absolute_expires_at: now.plus(ABSOLUTE),
            max_per_user: 10_000,
            revocation_expires_at: now.plus(REMEMBERED),
            settled: Vec::new(),
            audit: AuditEvent { event: "login.succeeded", ..AuditEvent::default() },
            displaced_audit: AuditEvent { event: "session.displaced", ..AuditEvent::default() },
            caller: tokio_util::sync::CancellationToken::new(),
        };
        assert!(self.store.sessions().open(new, now).await.unwrap().value.is_some());
        let text = self.codec.mint(&token).expose().to_owned();
        secrets::used(&text);
        text
    }

    /// The generation that a refresh token carries.
    pub fn generation_of(&self, refresh_token: &str) -> u32 {
        self.codec.read(refresh_token).unwrap().generation
    }

    /// How often the session of a refresh token was rotated, and whether it is live.
    pub async fn state_of(&self, refresh_token: &str) -> (u32, bool) {
        let id = self.codec.read(refresh_token).unwrap().session;
        let session = self.store.sessions().by_id(id).await.unwrap().unwrap().session;
        (session.generation, session.state == countersign::domain::SessionState::Live)
    }
}

/// Makes every statement of a kind on a table fail until it is repaired.
pub struct Broken<'a> {
    database: &'a TestDatabase,
    table: &'static str,
}

impl<'a> Broken<'a> {
    /// `what` is the event of a trigger, such as `BEFORE UPDATE`.
    pub async fn on(database: &'a TestDatabase, what: &str, table: &'static str) -> Self {
        let sql = match database.engine {
            Engine::Sqlite => {
                format!("CREATE TRIGGER broken {what} ON {table} BEGIN SELECT RAISE(ABORT, 'injected'); END")
            }
            Engine::Postgres => format!(
                "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql
                     AS $$ BEGIN RAISE EXCEPTION 'injected'; END $$;
                 CREATE TRIGGER broken {what} ON {table} FOR EACH ROW EXECUTE FUNCTION broken()"
            ),
        };
        database.tamper(&sql).await;
        Self { database, table }
    }

    pub async fn mend(self) {
        let sql = match self.database.engine {
            Engine::Sqlite => "DROP TRIGGER broken".to_owned(),
            Engine::Postgres => format!("DROP TRIGGER broken ON {}; DROP FUNCTION broken()", self.table),
        };
        self.database.tamper(&sql).await;
    }
}

/// Checks the headers that every private answer carries, whatever its content.
pub fn is_private(answer: &Response) {
    let header = |name| judging::header(answer, name);
    assert_eq!((header("cache-control"), header("x-content-type-options")), ("no-store", "nosniff"));
    assert!(!header("x-request-id").is_empty());
    let content_type = if answer.status().is_success() { "application/json" } else { "application/problem+json" };
    if answer.status() != 204 {
        assert_eq!(header("content-type"), content_type);
    }
    assert_eq!(answer.status() == 401, !header("www-authenticate").is_empty());
    assert_eq!(matches!(answer.status().as_u16(), 429 | 503), !header("retry-after").is_empty());
}

/// Everything in an answer that its caller can see, except the date.
pub async fn seen(answer: Response) -> (u16, Vec<(String, String)>, String) {
    let headers = answer.headers().iter().filter(|(name, _)| *name != "date");
    let mut headers: Vec<_> =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    headers.sort_unstable();
    (answer.status().as_u16(), headers, answer.text().await.unwrap())
}

/// `jti`, `iat` and `exp` of an access token: a retry must return the same values.
pub fn marks(access_token: &str) -> (Value, Value, Value) {
    let claims = judging::claims_of(access_token);
    (claims["jti"].clone(), claims["iat"].clone(), claims["exp"].clone())
}
