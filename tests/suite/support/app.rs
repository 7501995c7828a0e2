//! The service itself, started as production starts it: real ports, a database of its own, a clock that is moved by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign::app::{App, Core, Parts, StartError};
use countersign::clock::ManualClock;
use countersign::config::{Config, Inputs, LogLevels};
use countersign::crypto::SeededRandom;
use countersign::domain::{
    Audience, ClientId, ClientKind, ClientSettings, Grant, Grants, IntrospectRight, Password, Role, ScopeSet, Username,
};
use countersign::service::{Requester, Service};
use countersign::store::Location;
use countersign::telemetry::metrics::Metrics;
use countersign::telemetry::{LogSink, Logger, MemoryLog};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;

use super::answers;
use super::database::{START, TestDatabase};
use super::secrets::{self, Watch};

/// The issuer of every test.
pub const ISSUER: &str = "http://localhost:8080";
/// The user that every test starts with.
pub const USER: &str = "ada";
/// Test fixture: the password of [`USER`].
pub const PASSWORD: &str = "correct horse battery staple 7";
/// A confidential client that may introspect every token.
pub const GATEWAY: &str = "gateway";
/// Test fixture: the key under which everything is sealed.
pub const MASTER_KEY: &str = "dGVzdC1maXh0dXJlLW1hc3Rlci1rZXktMDEyMzQ1Njc=";

/// A running service.
pub struct TestApp {
    pub public: SocketAddr,
    pub operations: SocketAddr,
    /// The gRPC listener for Envoy; none unless `grpc.listen` is set.
    pub grpc: Option<SocketAddr>,
    pub clock: Arc<ManualClock>,
    pub http: reqwest::Client,
    /// Secret of [`GATEWAY`].
    pub gateway_secret: String,
    /// A key for the administration.
    pub admin_key: String,
    pub service: Arc<Service>,
    pub log: MemoryLog,
    pub database: Arc<TestDatabase>,
    pub follower: Arc<countersign::replica::follower::Follower>,
    pub metrics: Arc<Metrics>,
    logger: Logger,
    stop: CancellationToken,
    running: Option<JoinHandle<()>>,
    watch: Option<Watch>,
}

/// The tokens in an endpoint's answer.
#[derive(Debug, Clone, serde::Deserialize, PartialEq, Eq)]
pub struct Tokens {
    pub access_token: String,
    pub token_type: String,
    pub expires_in: u64,
    #[serde(default)]
    pub refresh_token: String,
    #[serde(default)]
    pub refresh_expires_in: u64,
    #[serde(default)]
    pub scope: String,
    #[serde(default)]
    pub session_id: String,
}

impl TestApp {
    /// A service with [`USER`] and [`GATEWAY`], on `database`.
    pub async fn start(database: TestDatabase) -> Self {
        Self::start_with(database, "").await
    }

    /// The same, with more settings (TOML).
    pub async fn start_with(database: TestDatabase, settings: &str) -> Self {
        let clock = Arc::new(ManualClock::starting_at(START));
        Self::replica(Arc::new(database), clock, 1, settings).await.with_fixtures().await
    }

    /// Starts another replica on a database that others may use; `number` seeds its randomness.
    pub async fn replica(database: Arc<TestDatabase>, clock: Arc<ManualClock>, number: u64, settings: &str) -> Self {
        Self::try_replica(database, clock, number, settings).await.unwrap()
    }

    /// The same for a replica that may refuse to start.
    pub async fn try_replica(
        database: Arc<TestDatabase>,
        clock: Arc<ManualClock>,
        number: u64,
        settings: &str,
    ) -> Result<Self, StartError> {
        let watch = Watch::begin();
        secrets::used(MASTER_KEY);
        secrets::used(PASSWORD);
        let config = config(&database, settings);
        let log = MemoryLog::default();
        let log_settings = countersign::config::Log { level: LogLevels::all(LevelFilter::TRACE), ..config.log.clone() };
        let logger =
            Logger::start(LogSink::Memory(log.clone()), &log_settings, Arc::<ManualClock>::clone(&clock)).unwrap();
        let parts = Parts {
            clock: Arc::<ManualClock>::clone(&clock),
            random: Arc::new(SeededRandom::new(number)),
            logger: logger.clone(),
        };
        let app = App::build(config, parts).await?;
        let (public, operations, grpc) = (app.public_address(), app.operations_address(), app.grpc_address());
        let Core { service, follower, metrics, .. } = app.core();
        let (service, follower, metrics) = (Arc::clone(service), Arc::clone(follower), Arc::clone(metrics));
        let stop = CancellationToken::new();
        let running = tokio::spawn(app.run(stop.clone()));
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Ok(Self {
            public,
            operations,
            grpc,
            clock,
            http,
            gateway_secret: String::new(),
            admin_key: String::new(),
            service,
            log,
            database,
            follower,
            metrics,
            logger,
            stop,
            running: Some(running),
            watch: Some(watch),
        })
    }

    /// Creates [`USER`], [`GATEWAY`] and an admin key.
    pub async fn with_fixtures(mut self) -> Self {
        let from = Requester::command_line();
        let (name, password) = (Username::parse(USER).unwrap(), Password::parse(PASSWORD).unwrap());
        self.service.users.create_user(name, password, vec![Role::parse("reader").unwrap()], &from).await.unwrap();
        let settings =
            ClientSettings { introspect: IntrospectRight::Any, ..ClientSettings::new(ClientKind::Confidential) };
        self.gateway_secret = self.client(GATEWAY, settings).await.unwrap();
        self.admin_key =
            self.service.administration.create_admin_key("tests", None, &from).await.unwrap().expose().to_owned();
        secrets::used(&self.admin_key);
        self
    }

    /// Creates a client, and returns its secret if it has one.
    pub async fn client(&self, id: &str, settings: ClientSettings) -> Option<String> {
        let from = Requester::command_line();
        let created =
            self.service.clients.create_client(ClientId::parse(id).unwrap(), settings, true, &from).await.unwrap();
        let secret = created.1.map(|secret| secret.0.expose().to_owned());
        secret.iter().for_each(|secret| secrets::used(secret));
        secret
    }

    /// Advances the time; the replica polls the feed twice a second, as in production.
    pub async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.follower.sync().await.unwrap();
    }

    /// Polls the feed once.
    pub async fn sync(&self) {
        self.follower.sync().await.unwrap();
    }

    /// A request to the public listener.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.public))
    }

    /// A GET of the public listener.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// A POST of JSON to the public listener.
    pub fn post_json(&self, path: &str, body: &Value) -> RequestBuilder {
        note_secrets("", body);
        self.request(Method::POST, path).json(body)
    }

    /// A POST of a form to the public listener.
    pub fn post_form(&self, path: &str, form: &[(&str, &str)]) -> RequestBuilder {
        form.iter().filter(|(name, _)| is_secret(name)).for_each(|(_, value)| secrets::used(value));
        self.request(Method::POST, path).form(form)
    }

    /// A request to the administration, with the admin key.
    pub fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.operations)).bearer_auth(&self.admin_key)
    }

    /// Logs [`USER`] in on the built-in client.
    pub async fn log_in(&self) -> Tokens {
        let answer =
            self.post_json("/v1/login", &json!({"username": USER, "password": PASSWORD})).send().await.unwrap();
        tokens(answer).await
    }

    /// Refreshes on the built-in client.
    pub async fn refresh(&self, refresh_token: &str) -> Response {
        self.post_json("/v1/refresh", &json!({"refresh_token": refresh_token})).send().await.unwrap()
    }

    /// Introspects a token as [`GATEWAY`] and returns the body.
    pub async fn introspect(&self, token: &str) -> Value {
        let answer = self.introspection(token).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    }

    /// Introspects a token as [`GATEWAY`] and returns the whole answer.
    pub async fn introspection(&self, token: &str) -> Response {
        let request = self.post_form("/oauth2/introspect", &[("token", token)]);
        request.basic_auth(GATEWAY, Some(&self.gateway_secret)).send().await.unwrap()
    }

    /// Whether a token is active for [`GATEWAY`].
    pub async fn is_active(&self, token: &str) -> bool {
        self.introspect(token).await["active"].as_bool().unwrap()
    }

    /// Everything that was logged so far.
    pub fn logged(&self) -> String {
        assert!(self.logger.flush(Duration::from_secs(5)));
        self.log.text()
    }

    /// Collects the events of this thread, on which a test without a flavor runs everything.
    pub fn collect_events(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(self.logger.subscriber())
    }

    /// The lines of the process's log at every level that contain `part`. Other tests run concurrently in the process.
    pub fn events(&self, part: &str) -> Vec<String> {
        let log = self.watch.as_ref().unwrap().log();
        log.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }

    /// Stops as production does and returns the database.
    pub async fn stop_and_keep_database(self) -> Arc<TestDatabase> {
        let database = Arc::clone(&self.database);
        self.stop().await;
        database
    }

    /// Stops as production does.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.running.take().unwrap().await.unwrap();
    }
}

impl Drop for TestApp {
    /// Checks security.md S1 and the documented statuses, for every test that starts a service.
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            running.abort();
        }
        if std::thread::panicking() {
            return;
        }
        answers::are_documented(&self.metrics.render());
        self.logger.flush(Duration::from_secs(30));
        let own = self.log.text().into_bytes();
        let files = self.database.files();
        let mut others = vec![("the log of the service", own.as_slice())];
        others.extend(files.iter().map(|file| ("the database", file.as_slice())));
        let found = self.watch.take().map(|watch| watch.search(&others)).unwrap_or_default();
        assert!(found.is_empty(), "S1: {} secrets slipped out, first {}", found.len(), found[0]);
    }
}

/// Records every member of a body whose name marks it as a secret.
fn note_secrets(name: &str, value: &Value) {
    match value {
        Value::String(text) if is_secret(name) => secrets::used(text),
        Value::Array(items) => items.iter().for_each(|item| note_secrets(name, item)),
        Value::Object(members) => members.iter().for_each(|(name, value)| note_secrets(name, value)),
        _ => {}
    }
}

fn is_secret(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "password",
        "current_password",
        "new_password",
        "token",
        "tokens",
        "access_token",
        "refresh_token",
        "client_secret",
        "client_assertion",
    ];
    NAMES.contains(&name)
}

/// The tokens of an answer that must succeed.
pub async fn tokens(answer: Response) -> Tokens {
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, StatusCode::OK, "{text}");
    let tokens: Tokens = serde_json::from_str(&text).unwrap();
    secrets::used(&tokens.access_token);
    secrets::used(&tokens.refresh_token);
    tokens
}

/// Status and `code` (REST) or `error` (OAuth) of an answer that must be an error.
pub async fn error_of(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text}"));
    let code = body["code"].as_str().or_else(|| body["error"].as_str());
    (status, code.unwrap_or_else(|| panic!("{status} {text}")).to_owned())
}

/// A confidential client with these audiences and scopes, for `client_credentials`.
pub fn machine(audiences: &[&str], scopes: &str) -> ClientSettings {
    ClientSettings {
        grants: Grants::new([Grant::ClientCredentials]),
        audiences: audiences.iter().map(|audience| Audience::parse(audience).unwrap()).collect(),
        scopes: ScopeSet::parse(scopes).unwrap(),
        ..ClientSettings::new(ClientKind::Confidential)
    }
}

/// A public client that logs users in.
pub fn application(scopes: &str) -> ClientSettings {
    ClientSettings {
        grants: Grants::new([Grant::PasswordLogin, Grant::RefreshToken]),
        scopes: ScopeSet::parse(scopes).unwrap(),
        ..ClientSettings::new(ClientKind::Public)
    }
}

fn config(database: &TestDatabase, settings: &str) -> Config {
    let url = match &database.settings.location {
        Location::Sqlite { path, .. } => format!("sqlite://{}", path.display()),
        Location::Postgres { url, .. } => url.clone(),
    };
    // Cheap hashes, but not cheaper than the floor; a fixture key; the poll does not interfere with the manual clock.
    let pool_size = super::database::pool_size().map_or_else(String::new, |size| size.to_string());
    let environment: Vec<(String, String)> = [
        ("ISSUER", ISSUER),
        ("DATABASE__URL", if settings.contains("url_file =") { "" } else { &url }),
        ("DATABASE__CREATE_IF_MISSING", "true"),
        ("MASTER_KEY", MASTER_KEY),
        ("PUBLIC__LISTEN", "127.0.0.1:0"),
        ("OPERATIONS__LISTEN", "127.0.0.1:0"),
        ("SHUTDOWN__DELAY", "0s"),
        ("PASSWORDS__THREADS", "2"),
        ("DATABASE__MAX_CONNECTIONS", &pool_size),
    ]
    .iter()
    .filter(|(_, value)| !value.is_empty())
    // Settings of the test itself are left out here: the environment would override them.
    .filter(|(name, _)| !settings.lines().any(|line| line.starts_with(&format!("{} =", name.to_lowercase()))))
    .map(|(name, value)| (format!("COUNTERSIGN_{name}"), (*value).to_owned()))
    .collect();
    let inputs = Inputs {
        file: Some(("test.toml", settings)),
        environment: &environment,
        read_secret_file: &|path| std::fs::read_to_string(path),
    };
    Config::load(&inputs).unwrap_or_else(|errors| panic!("{errors}")).config
}
