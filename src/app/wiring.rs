//! Converts the sections of a configuration into the settings of each part of the service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Semaphore;

use crate::config;
use crate::config::{Config, HASHING_THREADS, Pooler};
use crate::crypto::{HashSettings, PasswordHasher, RefreshCodec, Sealer};
use crate::domain::PasswordPolicy;
use crate::http::listener::{ListenSettings, Listener, Protocol, TlsIdentity};
use crate::http::middleware::TrustedProxies;
use crate::http::{ForwardAuthHeaders, HttpSettings};
use crate::replica::Replica;
use crate::service::{
    Account, Administration, AssertionKeys, AttemptRules, AuditSearches, ClientCache, ClientFailures, Clients, Denials,
    FailedLogins, Feed, Introspections, Judge, Keys, Passwords, Refusals, ReplicaStatus, RevocationLimit, Revocations,
    Service, Sessions, Settings, Tokens, UNKNOWN_CLIENTS, Users,
};
use crate::store::{AttemptLimits, Location, ReadAddress, StoreSettings};
use crate::telemetry::Metrics;

use super::StartError;
use super::memory::Memory;

/// The options with which the store is opened.
pub fn store_settings(config: &Config) -> StoreSettings {
    let database = &config.database;
    let location = match database.url.sqlite_path() {
        Some(path) => Location::Sqlite { path: path.to_owned(), create: database.create_if_missing },
        None => Location::Postgres {
            url: database.url.expose().to_owned(),
            pooler_transaction_mode: database.pooler == Pooler::Transaction,
        },
    };
    let read_address = database
        .url_file
        .clone()
        .map(|path| -> ReadAddress { Arc::new(move || config::read_secret_again(&path).ok()) });
    StoreSettings {
        read_address,
        key_file: config.embedded_key_file(),
        max_connections: database.max_connections as usize,
        acquire_timeout: database.acquire_timeout,
        statement_timeout: database.statement_timeout,
        feed_timeout: config.revocation.max_lag / 2,
        busy_timeout: database.acquire_timeout,
        ..StoreSettings::new(location)
    }
}

fn hasher(config: &Config, replica: &Replica, metrics: &Metrics) -> Result<PasswordHasher, StartError> {
    let passwords = &config.passwords;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = HashSettings {
        memory_kib: passwords.memory_kib,
        iterations: passwords.iterations,
        parallelism: passwords.parallelism,
        threads: passwords.threads.unwrap_or_else(|| threads_for(cores)),
        queue: passwords.queue,
        legacy_cost: passwords.legacy_cost,
        legacy_memory_kib: passwords.legacy_memory_kib,
    };
    let seconds = metrics.password_hash_seconds.clone();
    let observer = Arc::new(move |took: Duration| seconds.observe(took.as_secs_f64()));
    Ok(PasswordHasher::start(settings, Arc::clone(&replica.random), Arc::clone(&replica.clock), observer)?)
}

/// The default number of hashing threads for a machine with this many cores.
fn threads_for(cores: usize) -> usize {
    cores.clamp(*HASHING_THREADS.start(), *HASHING_THREADS.end())
}

fn attempt_rules(limits: &config::Limits) -> AttemptRules {
    // An address has no hard stop. Its count restarts after the time in which a full burst is refilled.
    let refilled = u64::from(limits.address.burst) * 60 / u64::from(limits.address.per_minute);
    let address = AttemptLimits {
        free: limits.address.burst,
        hard_stop: u32::MAX,
        window: Duration::from_secs(refilled).max(MINUTE),
    };
    let stopped = |free| AttemptLimits { free, hard_stop: limits.hard_stop, window: limits.hard_stop_for };
    AttemptRules {
        enabled: limits.enabled,
        account: stopped(limits.account_free),
        address,
        pair: stopped(limits.pair_free),
    }
}

fn client_failures(limits: &config::Limits) -> ClientFailures {
    let config::RateLimit { burst, per_minute } = limits.client;
    if limits.enabled {
        ClientFailures::new(burst, per_minute, limits.max_entries)
    } else {
        ClientFailures::unlimited()
    }
}

fn revocation_limit(limits: &config::Limits) -> RevocationLimit {
    let config::RateLimit { burst, per_minute } = limits.revocation;
    if limits.enabled {
        RevocationLimit::new(burst, per_minute, limits.max_entries)
    } else {
        RevocationLimit::unlimited()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

fn settings(config: &Config) -> Settings {
    Settings {
        access_ttl: config.tokens.access_ttl,
        algorithm: config.tokens.algorithm,
        token_type: config.tokens.token_type,
        default_audience: config.tokens.default_audience.clone(),
        idle_ttl: config.sessions.idle_ttl,
        absolute_ttl: config.sessions.absolute_ttl,
        max_sessions: config.sessions.max_per_user,
        retry_window: config.refresh.retry_window,
        rotate_every: config.keys.rotate_every,
        announce_for: config.keys.announce_for,
    }
}

pub(super) fn http_settings(config: &Config) -> Result<HttpSettings, StartError> {
    let forward_auth = ForwardAuthHeaders::new(&config.forward_auth.header_prefix.0)
        .ok_or_else(|| StartError::Setting("forward_auth.header_prefix: makes no header name".to_owned()))?;
    Ok(HttpSettings {
        introspection_max_age: config.introspection.max_age,
        longest_wait: config.public.request_timeout.saturating_sub(Duration::from_secs(1)),
        forward_auth,
        allow_preflight: config.forward_auth.allow_preflight,
    })
}

/// The use cases of a replica.
pub(super) fn service(
    config: &Config,
    metrics: &Metrics,
    replica: Replica,
    judge: Arc<Judge>,
    sealer: Arc<Sealer>,
    refresh_codec: RefreshCodec,
) -> Result<Service, StartError> {
    let (issuer, settings) = (config.issuer.as_str(), settings(config));
    let policy = Arc::new(PasswordPolicy::new(config.passwords.min_length, host_of(issuer)));
    let client_failures = Arc::new(client_failures(&config.limits));
    let tokens = Arc::new(Tokens {
        replica: replica.clone(),
        issuer: issuer.to_owned(),
        refresh_codec,
        settings: settings.clone(),
    });
    let passwords = Arc::new(Passwords {
        hasher: hasher(config, &replica, metrics)?,
        replica: replica.clone(),
        attempt_rules: attempt_rules(&config.limits),
        refusals: Refusals::new(config.limits.max_entries),
        failed_logins: FailedLogins::default(),
    });
    let sessions = Arc::new(Sessions {
        replica: replica.clone(),
        judge: Arc::clone(&judge),
        tokens: Arc::clone(&tokens),
        passwords: Arc::clone(&passwords),
        settings: settings.clone(),
    });
    let stopping = Arc::new(AtomicBool::new(false));
    let keys = Arc::new(Keys { replica: replica.clone(), sealer, settings: settings.clone() });
    let revocations = Arc::new(Revocations {
        replica: replica.clone(),
        judge: Arc::clone(&judge),
        tokens: Arc::clone(&tokens),
        sessions: Arc::clone(&sessions),
        keys: Arc::clone(&keys),
        limit: revocation_limit(&config.limits),
        revoking: Arc::default(),
    });
    Ok(Service {
        introspection: Introspections {
            replica: replica.clone(),
            judge: Arc::clone(&judge),
            tokens: Arc::clone(&tokens),
            client_failures: Arc::clone(&client_failures),
            denials: Denials::default(),
        },
        account: Account {
            replica: replica.clone(),
            passwords: Arc::clone(&passwords),
            policy: Arc::clone(&policy),
            tokens: Arc::clone(&tokens),
            sessions: Arc::clone(&sessions),
            revocations: Arc::clone(&revocations),
            settings: settings.clone(),
        },
        clients: Clients {
            replica: replica.clone(),
            judge: Arc::clone(&judge),
            failures: client_failures,
            assertion_keys: AssertionKeys::default(),
            assertion_audiences: assertion_audiences(issuer),
            unknown_clients: Semaphore::new(UNKNOWN_CLIENTS),
            cache: ClientCache::default(),
            tokens: Arc::clone(&tokens),
        },
        users: Users { replica: replica.clone(), passwords: Arc::clone(&passwords), policy },
        feed: Feed {
            replica: replica.clone(),
            judge: Arc::clone(&judge),
            readers: Arc::new(Semaphore::new(config.feed.max_readers)),
            max_readers: config.feed.max_readers,
            stopping: Arc::clone(&stopping),
        },
        administration: Administration {
            replica: replica.clone(),
            judge: Arc::clone(&judge),
            tokens: Arc::clone(&tokens),
            audit_searches: AuditSearches::default(),
        },
        status: ReplicaStatus {
            replica,
            judge: Arc::clone(&judge),
            passwords: Arc::clone(&passwords),
            settings,
            stopping,
            start_problem: ArcSwapOption::empty(),
        },
        tokens,
        judge,
        sessions,
        revocations,
        keys,
        passwords,
    })
}

/// A listener for HTTP/1.1. `base_path` is the issuer's path.
pub(super) fn listener(
    name: &'static str,
    listener: &config::Listener,
    base_path: &str,
) -> Result<Listener, StartError> {
    let memory = Memory::of_process();
    let max_connections = listener.max_connections.unwrap_or_else(|| memory.connections());
    let settings = ListenSettings {
        max_connections,
        max_per_address: per_address(listener.max_connections_per_address, max_connections),
        trusted_proxies: TrustedProxies::new(listener.trusted_proxies.iter().copied()),
        body_memory: memory.bodies(),
        head: listener.header_timeout,
        body: listener.body_timeout,
        request: listener.request_timeout,
        idle: listener.idle_timeout,
        write: listener.write_timeout,
        base_path: base_path.into(),
        ..ListenSettings::default()
    };
    let bound = bind(name, settings, listener.listen)?;
    match &listener.tls {
        Some(files) => Ok(bound.with_tls(identity(name, Protocol::Http1, files)?)),
        None => Ok(bound),
    }
}

/// The maximum number of connections from one address, by default a quarter of the listener's. An office behind one
/// address needs far fewer, and one machine cannot take every connection.
fn per_address(setting: Option<usize>, max_connections: usize) -> usize {
    setting.unwrap_or(max_connections / 4).max(1)
}

/// The gRPC listener, if one is configured.
pub(super) fn grpc_listener(grpc: &config::Grpc) -> Result<Option<Listener>, StartError> {
    let Some(address) = grpc.listen else { return Ok(None) };
    let settings = ListenSettings {
        max_connections: grpc.max_connections,
        max_per_address: per_address(grpc.max_connections_per_address, grpc.max_connections),
        ..ListenSettings::default()
    };
    let bound = bind("grpc", settings, address)?;
    Ok(Some(match &grpc.tls {
        Some(files) => bound.with_tls(identity("grpc", Protocol::Http2, files)?),
        None => bound.with_http2(),
    }))
}

fn bind(name: &'static str, settings: ListenSettings, address: SocketAddr) -> Result<Listener, StartError> {
    Listener::bind(settings, address).map_err(|cause| StartError::Bind { listener: name, address, cause })
}

fn identity(name: &'static str, protocol: Protocol, files: &config::TlsFiles) -> Result<TlsIdentity, StartError> {
    TlsIdentity::load_for(protocol, &files.cert, &files.key).map_err(|error| StartError::Tls(name, Box::new(error)))
}

/// The token endpoint's URL and the issuer (RFC 7523 §3). The URLs of other endpoints are included because clients use
/// them as well.
fn assertion_audiences(issuer: &str) -> Vec<String> {
    let base = issuer.trim_end_matches('/');
    let endpoints = ["token", "introspect", "revoke"].map(|name| format!("{base}/oauth2/{name}"));
    [issuer.to_owned()].into_iter().chain(endpoints).collect()
}

fn host_of(issuer: &str) -> &str {
    let after_scheme = issuer.split_once("://").map_or(issuer, |(_, rest)| rest);
    after_scheme.split(['/', ':']).next().unwrap_or(after_scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_of_hashing_threads_starts_on_every_machine() {
        assert_eq!([1, 2, 64, 65, 256].map(threads_for), [1, 2, 64, 64, 64]);
    }
}
