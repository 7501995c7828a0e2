//! Configuration: a pure function of a TOML file, the environment and secret files.
//!
//! The environment overrides the file, and the file overrides the defaults. All errors are reported together: unknown
//! names, invalid values, and values that contradict each other. Each section is a struct whose `load` declares every
//! setting with its default, range and description. The settings are listed nowhere else.

mod database;
mod environment;
mod error;
mod file;
mod gateway;
mod issuer;
mod judging;
mod keys;
mod lifecycle;
mod limits;
mod listener;
mod log;
mod passwords;
mod raw;
mod reader;
pub mod reference;
mod section;
mod show;
mod sources;
#[cfg(test)]
mod tests;
mod tokens;
mod unknown;
mod value;

use std::io;
use std::path::{Path, PathBuf};

pub use database::{Database, DatabaseUrl, Engine, Pooler};
pub use error::{ConfigError, ConfigErrors, Origin};
pub use gateway::{Cors, ForwardAuth};
pub use issuer::Issuer;
pub use judging::{Feed, Introspection, Revocation};
pub use keys::Keys;
pub use lifecycle::{Audit, Shutdown};
pub use limits::{Limits, RateLimit};
pub use listener::{Grpc, Listener, MOST_DEFAULT_CONNECTIONS, TlsFiles};
pub use log::{Log, LogFormat, LogLevels};
pub use passwords::{HASHING_THREADS, Passwords};
pub use sources::{Sources, read_secret_again};
pub use tokens::{Refresh, Sessions, Tokens};

use reader::Reader;

use crate::crypto::MasterKey;

/// The validated configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub issuer: Issuer,
    pub database: Database,
    /// May be `None` with an embedded database: see [`Config::embedded_key_file`].
    pub master_key: Option<MasterKey>,
    pub master_key_previous: Option<MasterKey>,
    pub public: Listener,
    pub operations: Listener,
    pub grpc: Grpc,
    pub tokens: Tokens,
    pub sessions: Sessions,
    pub refresh: Refresh,
    pub revocation: Revocation,
    pub feed: Feed,
    pub introspection: Introspection,
    pub keys: Keys,
    pub passwords: Passwords,
    pub limits: Limits,
    pub forward_auth: ForwardAuth,
    pub cors: Cors,
    pub log: Log,
    pub shutdown: Shutdown,
    pub audit: Audit,
}

/// The inputs of [`Config::load`].
pub struct Inputs<'a> {
    /// Name and text of the configuration file. The name appears in error messages.
    pub file: Option<(&'a str, &'a str)>,
    /// Variables without the prefix `COUNTERSIGN_` are ignored.
    pub environment: &'a [(String, String)],
    /// Reads the file that a `…_file` setting names.
    pub read_secret_file: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// A configuration, and the origin of each setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub config: Config,
    /// In the order of docs/configuration.md.
    pub settings: Vec<Setting>,
}

/// A setting in printable form. No field contains a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The dotted name, such as `tokens.access_ttl`.
    pub name: String,
    /// The environment variable that sets it.
    pub variable: String,
    /// The heading in docs/configuration.md.
    pub section: &'static str,
    /// The effective value.
    pub value: String,
    pub default: String,
    /// The range of valid values; empty if there is none.
    pub allowed: String,
    pub meaning: String,
    pub origin: Origin,
    /// For a secret, `value` is a placeholder.
    pub secret: bool,
}

impl Config {
    /// Reads and validates all settings.
    pub fn load(inputs: &Inputs<'_>) -> Result<Loaded, ConfigErrors> {
        let mut reader = Reader::new(inputs);
        let config = Self::read(&mut reader);
        config.check(&mut reader);
        reader.finish().map(|settings| Loaded { config, settings }).map_err(ConfigErrors)
    }

    /// Replaces port 0 in the issuer, and in a default audience equal to it, with the port that was bound.
    #[must_use]
    pub fn bound_to(mut self, public_port: u16) -> Self {
        let issuer = self.issuer.clone().with_bound_port(public_port);
        if self.tokens.default_audience == self.issuer.as_audience() {
            self.tokens.default_audience = issuer.as_audience();
        }
        self.issuer = issuer;
        self
    }

    /// Path of the master key file beside the embedded database, used when no master key is configured.
    pub fn embedded_key_file(&self) -> Option<PathBuf> {
        self.database.url.sqlite_path().map(|database| database.with_file_name("master.key"))
    }

    fn read(read: &mut Reader<'_>) -> Self {
        read.section("Issuer");
        let issuer = Issuer::load(read);
        let database = Database::load(read);
        let (master_key, master_key_previous) = keys::load_master_keys(read);
        Self {
            database,
            master_key,
            master_key_previous,
            public: Listener::load_public(read),
            operations: Listener::load_operations(read),
            grpc: Grpc::load(read),
            tokens: Tokens::load(read, &issuer),
            sessions: Sessions::load(read),
            refresh: Refresh::load(read),
            revocation: Revocation::load(read),
            feed: Feed::load(read),
            introspection: Introspection::load(read),
            keys: Keys::load(read),
            passwords: Passwords::load(read),
            limits: Limits::load(read),
            forward_auth: ForwardAuth::load(read),
            cors: Cors::load(read),
            log: Log::load(read),
            shutdown: Shutdown::load(read),
            audit: Audit::load(read),
            issuer,
        }
    }

    /// Checks rules that span several sections.
    fn check(&self, read: &mut Reader<'_>) {
        self.sessions.check(read);
        self.revocation.check(read);
        self.keys.check(read, &self.revocation);
        read.rule(
            &["master_key", "database.url"],
            self.master_key.is_some() || self.database.url.engine() == Engine::Sqlite,
            "is required with PostgreSQL",
            "create one with `openssl rand -base64 32` and use it on every replica",
        );
        let is_apart = self.public.listen != self.operations.listen || self.public.listen.port() == 0;
        read.rule(
            &["operations.listen", "public.listen"],
            is_apart,
            "is the same as public.listen",
            "choose another address or port that the public cannot reach",
        );
        let others = [self.public.listen, self.operations.listen];
        read.rule(
            &["grpc.listen", "public.listen", "operations.listen"],
            self.grpc.listen.is_none_or(|own| own.port() == 0 || !others.contains(&own)),
            "is the address of another listener",
            "choose another address or port",
        );
        read.rule(
            &["sessions.idle_ttl", "tokens.access_ttl"],
            self.sessions.idle_ttl >= self.tokens.access_ttl,
            "is shorter than tokens.access_ttl, so a session ends before its access token",
            "raise it, or lower tokens.access_ttl",
        );
        read.rule(
            &["database.statement_timeout", "public.request_timeout"],
            self.database.url.engine() == Engine::Sqlite
                || self.database.statement_timeout < self.public.request_timeout,
            "is not shorter than public.request_timeout, so a change may be committed after its request was answered with 503",
            "lower it, or raise public.request_timeout",
        );
        read.rule(
            &["sessions.absolute_ttl", "tokens.access_ttl"],
            self.sessions.absolute_ttl >= self.tokens.access_ttl,
            "is shorter than tokens.access_ttl",
            "raise it, or lower tokens.access_ttl",
        );
    }
}
