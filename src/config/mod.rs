//! Configuration: a pure function of a TOML file, the environment and secret files.
//!
//! The environment wins over the file, and the file over the defaults. Every mistake is reported at once: unknown names,
//! values that do not fit, and values that do not fit together. A section is a struct whose `load` names each setting with
//! its default, range and meaning on one line; nothing else lists the settings.

mod database;
mod environment;
mod file;
mod gateway;
mod issuer;
mod judging;
mod keys;
mod lifecycle;
mod limits;
mod listener;
mod log;
mod mistake;
mod passwords;
mod raw;
mod reader;
pub mod reference;
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
pub use gateway::{Cors, ForwardAuth};
pub use issuer::Issuer;
pub use judging::{Introspection, Revocation};
pub use keys::Keys;
pub use lifecycle::{Audit, Shutdown};
pub use limits::{Limits, RateLimit};
pub use listener::{Grpc, Listener, MOST_DEFAULT_CONNECTIONS, TlsFiles};
pub use log::{Log, LogFormat, LogLevels};
pub use mistake::{Mistake, Mistakes, Origin};
pub use passwords::Passwords;
pub use sources::{Sources, read_secret_again};
pub use tokens::{Refresh, Sessions, Tokens};

use reader::Reader;

use crate::domain::SecretText;

/// Everything that can be configured, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `issuer`.
    pub issuer: Issuer,
    /// `database.*`.
    pub database: Database,
    /// `master_key`: 32 bytes in padded standard base64. None with an embedded database: see [`Config::embedded_key_file`].
    pub master_key: Option<SecretText>,
    /// `master_key_previous`, in the same form.
    pub master_key_previous: Option<SecretText>,
    /// `public.*`.
    pub public: Listener,
    /// `operations.*`.
    pub operations: Listener,
    /// `grpc.*`.
    pub grpc: Grpc,
    /// `tokens.*`.
    pub tokens: Tokens,
    /// `sessions.*`.
    pub sessions: Sessions,
    /// `refresh.*`.
    pub refresh: Refresh,
    /// `revocation.*`.
    pub revocation: Revocation,
    /// `introspection.*`.
    pub introspection: Introspection,
    /// `keys.*`.
    pub keys: Keys,
    /// `passwords.*`.
    pub passwords: Passwords,
    /// `limits.*`.
    pub limits: Limits,
    /// `forward_auth.*`.
    pub forward_auth: ForwardAuth,
    /// `cors.*`.
    pub cors: Cors,
    /// `log.*`.
    pub log: Log,
    /// `shutdown.*`.
    pub shutdown: Shutdown,
    /// `audit.*`.
    pub audit: Audit,
}

/// What a configuration is made of.
pub struct Inputs<'a> {
    /// Name (for messages) and text of the configuration file.
    pub file: Option<(&'a str, &'a str)>,
    /// The environment; variables without the prefix `COUNTERSIGN_` are ignored.
    pub environment: &'a [(String, String)],
    /// Reads a file that a `…_file` setting names.
    pub read_secret_file: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// A configuration, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Every setting in the order of the reference.
    pub settings: Vec<Setting>,
}

/// One setting as it may be shown: no field holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its dotted name.
    pub name: String,
    /// The environment variable that sets it.
    pub variable: String,
    /// The heading of the reference under which it stands.
    pub section: &'static str,
    /// What is in force.
    pub value: String,
    /// What would be in force if nobody set it.
    pub default: String,
    /// The range, where there is one.
    pub allowed: String,
    /// What it is for.
    pub meaning: String,
    /// Where the value came from.
    pub origin: Origin,
    /// Whether it is a secret, and `value` stands in for it.
    pub secret: bool,
}

impl Config {
    /// Reads and checks everything.
    pub fn load(inputs: &Inputs<'_>) -> Result<Loaded, Mistakes> {
        let mut reader = Reader::new(inputs);
        let config = Self::read(&mut reader);
        config.check(&mut reader);
        reader.finish().map(|settings| Loaded { config, settings }).map_err(Mistakes)
    }

    /// The configuration once the port of the public listener is known.
    #[must_use]
    pub fn bound_to(mut self, public_port: u16) -> Self {
        let issuer = self.issuer.clone().with_bound_port(public_port);
        if self.tokens.default_audience == self.issuer.as_audience() {
            self.tokens.default_audience = issuer.as_audience();
        }
        self.issuer = issuer;
        self
    }

    /// Where the master key of an embedded database lies when none is configured: beside the database.
    pub fn embedded_key_file(&self) -> Option<PathBuf> {
        self.database.url.sqlite_path().map(|database| database.with_file_name("master.key"))
    }

    fn read(read: &mut Reader<'_>) -> Self {
        read.section("Issuer");
        let issuer = Issuer::load(read);
        let database = Database::load(read);
        let (master_key, master_key_previous) = keys::load_master_keys(read);
        let public = Listener::load_public(read);
        let operations = Listener::load_operations(read);
        let grpc = Grpc::load(read);
        let tokens = Tokens::load(read, &issuer);
        let sessions = Sessions::load(read);
        let refresh = Refresh::load(read);
        let revocation = Revocation::load(read);
        let introspection = Introspection::load(read);
        let keys = Keys::load(read, &revocation);
        Self {
            passwords: Passwords::load(read),
            limits: Limits::load(read),
            forward_auth: ForwardAuth::load(read),
            cors: Cors::load(read),
            log: Log::load(read),
            shutdown: Shutdown::load(read),
            audit: Audit::load(read),
            issuer,
            database,
            master_key,
            master_key_previous,
            public,
            operations,
            grpc,
            tokens,
            sessions,
            refresh,
            revocation,
            introspection,
            keys,
        }
    }

    /// What holds between sections.
    fn check(&self, read: &mut Reader<'_>) {
        read.rule(
            &["master_key", "database.url"],
            self.master_key.is_some() || self.database.url.engine() == Engine::Sqlite,
            "is required with PostgreSQL",
            "make one with `openssl rand -base64 32`, the same for every replica",
        );
        let is_apart = self.public.listen != self.operations.listen || self.public.listen.port() == 0;
        read.rule(
            &["operations.listen", "public.listen"],
            is_apart,
            "is the same as public.listen",
            "give it an address or a port of its own, out of reach of the public",
        );
        let others = [self.public.listen, self.operations.listen];
        read.rule(
            &["grpc.listen", "public.listen", "operations.listen"],
            self.grpc.listen.is_none_or(|own| own.port() == 0 || !others.contains(&own)),
            "is the same as that of another listener",
            "give it an address or a port of its own",
        );
        read.rule(
            &["sessions.idle_ttl", "tokens.access_ttl"],
            self.sessions.idle_ttl >= self.tokens.access_ttl,
            "is shorter than tokens.access_ttl, so a session ends before its access token",
            "lengthen it, or shorten the other",
        );
        read.rule(
            &["database.statement_timeout", "public.request_timeout"],
            self.database.url.engine() == Engine::Sqlite
                || self.database.statement_timeout < self.public.request_timeout,
            "is not shorter than public.request_timeout, so a change may be committed after its request was answered with 503",
            "shorten it, or lengthen the other",
        );
        read.rule(
            &["sessions.absolute_ttl", "tokens.access_ttl"],
            self.sessions.absolute_ttl >= self.tokens.access_ttl,
            "is shorter than tokens.access_ttl",
            "lengthen it, or shorten the other",
        );
    }
}
