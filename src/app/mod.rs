//! The composition root: from a configuration to a running service. Production and tests start the same object.

pub mod background;
mod examine;
mod master_key;
mod memory;
mod wiring;

use crate::replica::Replica;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

pub use self::examine::examine;
use self::master_key::master_keys;
pub use self::memory::Memory;
pub use self::wiring::store_settings;
use self::wiring::{grpc_listener, http_settings, listener, service};
use crate::clock::Clock;
use crate::config::{Config, ConfigErrors};
use crate::crypto::{MasterKeyError, Random, RefreshCodec, Sealer, SettingsError};
use crate::domain::{Algorithm, ClientId, ClientKind, ClientSettings, Grant, Grants};
use crate::grpc;
use crate::http::listener::{Listener, Shutdown, TlsError};
use crate::http::middleware::{Cors, Edge, RequestIdSource, TrustedProxies};
use crate::http::openapi::{self, Servers};
use crate::http::{self, MetadataDocument, Observer, Routes, Shared};
use crate::replica::follower::{Follower, SyncError};
use crate::replica::keyring::{Keyring, KeyringError, RotationLead, UnreadableKeys};
use crate::replica::view::View;
use crate::service::{BUILT_IN_CLIENT, Judge, MaintenanceError, Service};
use crate::store::{Location, NewClient, Rows, SchemaStatus, Store, StoreError, StoreObserver};
use crate::telemetry::metrics::ListenerName;
use crate::telemetry::{Logger, Metrics};

/// The dependencies of an App that differ between production and a test.
#[derive(Clone)]
pub struct Parts {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// The log.
    pub logger: Logger,
}

/// The use cases on an open database, without listeners. The command line works with this.
pub struct Core {
    /// The use cases.
    pub service: Arc<Service>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Keeps the replica synchronised with the change feed.
    pub follower: Arc<Follower>,
    /// The database.
    pub store: Store,
}

/// Whether opening the database may create what is missing (initial set-up).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// Whatever is missing: the schema, the master key beside an embedded database, and that database if
    /// `database.create_if_missing` is set. For `serve` and `migrate`.
    Allowed,
    /// Nothing. For commands that only read, or change existing data.
    Forbidden,
    /// Nothing. Signing keys that the master key does not open are left out instead of refused. For the commands that
    /// withdraw or delete such a key without opening it.
    ForbiddenAndKeysOptional,
}

impl Creation {
    /// Whether anything may be created.
    const fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed)
    }
}

/// A service that is ready to run. Its ports are bound. Its view and keys are loaded, unless the database is
/// unavailable.
pub struct App {
    core: Core,
    /// False if the database could not be reached yet. [`App::run`] continues to try.
    has_started: bool,
    public: (Listener, Edge),
    operations: (Listener, Edge),
    grpc: Option<(Listener, Edge)>,
    config: Config,
    parts: Parts,
}

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The errors that [`examine()`] reports.
    #[error("{0}")]
    Configuration(ConfigErrors),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The master key is invalid.
    #[error("{0}")]
    MasterKey(#[from] MasterKeyError),
    /// The master key's file could not be used.
    #[error("the master key file {0}: {1}")]
    MasterKeyFile(String, io::Error),
    /// The master key's file is missing, and a new key would open no stored key.
    #[error(
        "the master key file {0} is missing, and the signing keys of the database are sealed under it: bring the file back, \
         or set master_key"
    )]
    MasterKeyLost(String),
    /// The database is empty.
    #[error("the database is empty: `countersign serve` or `countersign migrate` sets it up")]
    EmptyDatabase,
    /// The schema is older than this release, and this command does not migrate it.
    #[error("the database is at schema {current}, and this release needs {latest}: run `countersign migrate`")]
    SchemaOlder {
        /// The newest migration that was applied.
        current: u32,
        /// The newest migration of this release.
        latest: u32,
    },
    /// The hashing threads could not be started.
    #[error("passwords: {0}")]
    Passwords(#[from] SettingsError),
    /// The view could not be loaded.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// A due key could not be made.
    #[error(transparent)]
    Key(#[from] MaintenanceError),
    /// An address could not be bound.
    #[error("{listener}.listen = {address}: {cause}")]
    Bind {
        /// The listener.
        listener: &'static str,
        /// The setting's value.
        address: SocketAddr,
        /// The operating system's error.
        cause: io::Error,
    },
    /// A certificate or its key could not be used.
    #[error("{0}.tls: {1}")]
    Tls(&'static str, Box<TlsError>),
    /// The service could not read its initial state from the database.
    #[error(transparent)]
    Service(#[from] crate::service::Failure),
    /// A setting that turned out to be wrong only when it was used.
    #[error("{0}")]
    Setting(String),
}

impl StartError {
    /// Whether the same start may succeed later without a change of configuration.
    fn is_outage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_outage(),
            Self::Sync(SyncError::Store(error) | SyncError::Keys(KeyringError::Store(error))) => error.is_outage(),
            Self::Sync(SyncError::JustFailed) => true,
            Self::Service(error) => error.is_outage(),
            Self::Key(error) => error.is_outage(),
            _ => false,
        }
    }
}

impl Core {
    /// Opens the database, brings its schema up to date, and loads what a replica holds in memory.
    pub async fn open(config: &Config, parts: &Parts) -> Result<Self, StartError> {
        Self::open_with(config, parts, Creation::Allowed).await
    }

    /// The same, but creates no more than `creation` permits.
    pub async fn open_with(config: &Config, parts: &Parts, creation: Creation) -> Result<Self, StartError> {
        let core = Self::assemble(config, parts, creation).await?;
        core.load(parts, creation).await?;
        Ok(core)
    }

    /// Creates every part. An embedded database is opened; a database server is not contacted yet.
    async fn assemble(config: &Config, parts: &Parts, creation: Creation) -> Result<Self, StartError> {
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), parts.clock.now());
        let metrics = Arc::new(metrics.map_err(|error| StartError::Setting(error.to_string()))?);
        let observer = Arc::new(Statements(Arc::clone(&metrics)));
        let mut wanted = store_settings(config);
        if let (Location::Sqlite { create, .. }, false) = (&mut wanted.location, creation.is_allowed()) {
            *create = false;
        }
        let store = Store::prepare(&wanted, Arc::clone(&parts.clock), observer).await?;
        let mut may_make_key = false;
        if config.embedded_key_file().is_some() {
            bring_schema_up_to_date(&store, parts, creation).await?;
            may_make_key = creation.is_allowed() && store.keys().all().await? == Rows::default();
        }
        let (current, previous) = master_keys(config, parts, may_make_key)?;
        let sealer = Arc::new(Sealer::new(&current, previous.as_ref()));
        let lead = RotationLead { rotate_every: config.keys.rotate_every, announce_for: config.keys.announce_for };
        let keyring = Keyring::new(
            store.for_follower(),
            Arc::clone(&sealer),
            Arc::clone(&parts.clock),
            config.keys.jwks_max_age,
            lead,
        );
        let unreadable = if creation == Creation::ForbiddenAndKeysOptional {
            UnreadableKeys::LeaveOut
        } else {
            UnreadableKeys::Refuse
        };
        let keyring = Arc::new(keyring.with_unreadable(unreadable));
        let own = vec![config.tokens.default_audience.clone(), config.issuer.as_audience()];
        let view = Arc::new(View::new(config.revocation.max_lag, own));
        let lag = metrics.revocation_lag_seconds.clone();
        let follower = Arc::new(Follower::new(
            store.for_follower(),
            Arc::clone(&view),
            Arc::clone(&keyring),
            Arc::clone(&parts.clock),
            Arc::clone(&parts.random),
            config.revocation.poll_interval,
            Box::new(move |took: Duration| lag.observe(took.as_secs_f64())),
        ));
        let judge = Judge::new(
            Arc::clone(&view),
            Arc::clone(&keyring),
            Arc::clone(&follower),
            Arc::clone(&parts.clock),
            config.issuer.as_str().to_owned(),
            config.tokens.token_type,
            config.introspection.cache_entries,
        );
        let replica = Replica {
            view,
            keyring,
            follower: Arc::clone(&follower),
            clock: Arc::clone(&parts.clock),
            random: Arc::clone(&parts.random),
            store: store.clone(),
        };
        let refresh_codec = RefreshCodec::new(&current, previous.as_ref());
        let service = Arc::new(service(config, &metrics, replica, Arc::new(judge), sealer, refresh_codec)?);
        Ok(Self { service, metrics, follower, store })
    }

    /// Connects to the database, brings its schema up to date, and loads the in-memory state. May be repeated.
    async fn load(&self, parts: &Parts, creation: Creation) -> Result<(), StartError> {
        self.store.reach().await?;
        bring_schema_up_to_date(&self.store, parts, creation).await?;
        if creation.is_allowed() {
            ensure_built_in_client(&self.store, parts).await?;
        }
        self.follower.sync().await?;
        self.service.passwords.learn_password_schemes().await?;
        Ok(())
    }

    /// The steps of a replica before it serves.
    async fn start(&self, config: &Config, parts: &Parts) -> Result<(), StartError> {
        self.load(parts, Creation::Allowed).await?;
        ensure_signing_key(&self.service, config.tokens.algorithm).await
    }

    /// Starts as soon as the database answers. Returns false after a stop. Until then the replica is not ready and
    /// reports the reason.
    async fn start_when_possible(&self, config: &Config, parts: &Parts, stop: &CancellationToken) -> bool {
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause_before_start(&*parts.random)) => {}
                () = stop.cancelled() => return false,
            }
            let started = tokio::select! {
                started = self.start(config, parts) => started,
                () = stop.cancelled() => return false,
            };
            match started {
                Ok(()) => {
                    self.service.status.set_start_problem(None);
                    tracing::info!("the database answers; the replica has started");
                    return true;
                }
                Err(error) => self.service.status.set_start_problem(Some(&error)),
            }
        }
    }
}

impl App {
    /// Builds everything and binds the ports. With port 0 the system chooses a port, see [`App::public_address`].
    pub async fn build(config: Config, parts: Parts) -> Result<Self, StartError> {
        let errors = examine(&config);
        if !errors.is_empty() {
            return Err(StartError::Configuration(ConfigErrors(errors)));
        }
        let public = listener("public", &config.public, config.issuer.path())?;
        let operations = listener("operations", &config.operations, config.issuer.path())?;
        let config = config.bound_to(public.address().port());
        let core = Core::assemble(&config, &parts, Creation::Allowed).await?;
        let has_started = match core.start(&config, &parts).await {
            Ok(()) => true,
            Err(error) if config.embedded_key_file().is_none() && error.is_outage() => {
                core.service.status.set_start_problem(Some(&error));
                false
            }
            Err(error) => return Err(error),
        };
        let shared = Arc::new(Shared {
            service: Arc::clone(&core.service),
            metrics: Arc::clone(&core.metrics),
            clock: Arc::clone(&parts.clock),
            settings: http_settings(&config)?,
            api_document: openapi::document_of(&Servers {
                base_path: config.issuer.path(),
                operations_scheme: if config.operations.tls.is_some() { "https" } else { "http" },
                operations_port: operations.address().port(),
            })
            .into(),
            metadata: MetadataDocument::new(config.issuer.as_str()),
        });
        background::fill_gauges(&core.metrics, &core.service, &parts.logger);
        let edge = |trusted_proxies: &[IpNet], cors: Option<Cors>, routes: Routes| Edge {
            trusted_proxies: TrustedProxies::new(trusted_proxies.iter().copied()),
            clock: Arc::clone(&parts.clock),
            request_ids: request_ids(&parts.random),
            observer: Arc::new(Observer::new(
                Arc::clone(&core.metrics),
                parts.logger.clone(),
                Arc::clone(&parts.clock),
                config.log.requests,
            )),
            base_path: config.issuer.path().into(),
            cors,
            routes,
        };
        let grpc = grpc_listener(&config.grpc)?
            .map(|listener| (listener, edge(&[], None, grpc::routes(Arc::clone(&shared)).into())));
        let routes = http::public(Arc::clone(&shared), config.issuer.path());
        let origins = config.cors.allowed_origins.iter().map(|origin| origin.0.clone()).collect();
        let public = (public, edge(&config.public.trusted_proxies, Some(Cors::new(origins)), routes));
        let operations = (operations, edge(&config.operations.trusted_proxies, None, http::operations(shared)));
        count_connections(&core.metrics, ListenerName::Public, &public.0);
        count_connections(&core.metrics, ListenerName::Operations, &operations.0);
        if let Some((listener, _)) = &grpc {
            count_connections(&core.metrics, ListenerName::Grpc, listener);
        }
        Ok(Self { core, has_started, public, operations, grpc, config, parts })
    }

    /// The effective configuration.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The address of the public listener.
    pub const fn public_address(&self) -> SocketAddr {
        self.public.0.address()
    }

    /// The address of the operations listener.
    pub const fn operations_address(&self) -> SocketAddr {
        self.operations.0.address()
    }

    /// The address of the gRPC listener, if there is one.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().map(|(listener, _)| listener.address())
    }

    /// The use cases, for the code that starts the App.
    pub const fn core(&self) -> &Core {
        &self.core
    }

    /// Runs until `stop` is cancelled. A start that failed because of the database is repeated until it succeeds. The
    /// stop is orderly: first readiness turns red, and answers say `Connection: close`. After `shutdown.delay` no
    /// connection is accepted. Requests in flight then have `shutdown.drain` to finish.
    pub async fn run(self, stop: CancellationToken) {
        let shutdown = Shutdown::new(self.config.shutdown.drain);
        let stopped = shutdown.stopped.clone();
        let background = async {
            if self.has_started || self.core.start_when_possible(&self.config, &self.parts, &stopped).await {
                background::start(&self.core, &self.config, stopped.clone()).wait().await;
            }
        };
        let (public, public_edge) = self.public;
        let (operations, operations_edge) = self.operations;
        let grpc = async {
            if let Some((listener, edge)) = self.grpc {
                listener.serve(edge, shutdown.clone()).await;
            }
        };
        let listeners = async {
            tokio::join!(
                public.serve(public_edge, shutdown.clone()),
                operations.serve(operations_edge, shutdown.clone()),
                grpc,
            )
        };
        let conductor = async {
            stop.cancelled().await;
            tracing::info!("stopping: no longer ready");
            self.core.service.status.begin_stopping();
            shutdown.announced.cancel();
            tokio::time::sleep(self.config.shutdown.delay).await;
            shutdown.stopped.cancel();
        };
        tokio::join!(listeners, conductor, background);
        tracing::info!("stopped");
        self.parts.logger.flush(Duration::from_secs(1));
    }
}

/// Copies a listener's connection counts into the metrics at each scrape.
fn count_connections(metrics: &Metrics, name: ListenerName, listener: &Listener) {
    let counts = listener.connection_counts();
    metrics.at_scrape(move |gauges| {
        gauges.set_connections(name, counts.open(), counts.refused(), counts.evicted());
    });
}

/// Ids for requests without one: 128 random bits, so that they reveal nothing about the traffic. One read of the
/// system's generator serves 32 requests of a thread. A read for each request would cost a system call.
fn request_ids(random: &Arc<dyn Random>) -> RequestIdSource {
    const BATCH: usize = 32;
    thread_local! {
        static IDS: RefCell<([[u8; 16]; BATCH], usize)> = const { RefCell::new(([[0; 16]; BATCH], 0)) };
    }
    let random = Arc::clone(random);
    Arc::new(move || {
        IDS.with_borrow_mut(|(ids, left)| {
            if *left == 0 {
                random.fill(ids.as_flattened_mut());
                *left = BATCH;
            }
            *left -= 1;
            ids[*left]
        })
    })
}

/// Records the duration of statements in the metrics.
struct Statements(Arc<Metrics>);

impl StoreObserver for Statements {
    fn query(&self, name: &'static str, took: Duration, _: bool) {
        self.0.database(name, took);
    }
}

/// The pause before a repeated start. It is short enough to be ready within two seconds of the database's return. It
/// differs between replicas.
fn pause_before_start(random: &dyn Random) -> Duration {
    Duration::from_millis(250 + u64::from(u16::from_be_bytes(random.bytes())) % 500)
}

async fn bring_schema_up_to_date(store: &Store, parts: &Parts, creation: Creation) -> Result<(), StartError> {
    if creation == Creation::Allowed {
        store.migrate(parts.clock.now()).await?;
        return Ok(());
    }
    let SchemaStatus { current, latest, pending } = store.check_schema().await?;
    match (creation, current, pending) {
        (_, _, 0) => Ok(()),
        (_, 0, _) => Err(StartError::EmptyDatabase),
        _ => Err(StartError::SchemaOlder { current, latest }),
    }
}

/// Makes the keys that are due. A failed rotation does not prevent the start while a key signs: the background work
/// tries again.
async fn ensure_signing_key(service: &Service, algorithm: Algorithm) -> Result<(), StartError> {
    let maintained = service.keys.maintain_keys().await;
    match maintained {
        Err(error) if service.status.can_sign() => {
            tracing::error!(%error, "the signing keys could not be maintained; the present key goes on signing");
            Ok(())
        }
        Err(error) if algorithm.is_generated() && !service.status.has_unreadable_keys() => Err(error.into()),
        // The first key is made when the clocks agree. Until then the replica is not ready.
        Ok(()) if algorithm.is_generated() && !service.status.has_time() => Ok(()),
        _ if service.status.can_sign() => Ok(()),
        // Another replica may be able to open the key. This replica reports the problem, and serves requests that do
        // not need the key.
        _ if service.status.has_unreadable_keys() => Ok(()),
        _ => Err(StartError::Setting(format!(
            "tokens.algorithm = {algorithm}: no key signs with it yet. Import one first: countersign keys import --algorithm \
             {algorithm} FILE"
        ))),
    }
}

/// The client of logins that name no client. If another replica creates it concurrently, the conflict is not an error.
async fn ensure_built_in_client(store: &Store, parts: &Parts) -> Result<(), StartError> {
    let Ok(id) = ClientId::parse(BUILT_IN_CLIENT) else {
        return Ok(());
    };
    if store.clients().by_id(&id).await?.is_some() {
        return Ok(());
    }
    let settings = ClientSettings {
        display_name: "Built-in client for first-party logins".to_owned(),
        grants: Grants::new([Grant::PasswordLogin, Grant::RefreshToken]),
        ..ClientSettings::new(ClientKind::Public)
    };
    match store
        .clients()
        .create(NewClient { id, settings, secret: None, disabled: false }, parts.clock.now(), None)
        .await
    {
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
