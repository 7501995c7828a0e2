//! The address of a PostgreSQL server. Every parameter is applied, or refused by its name. Values never appear in an
//! error.

use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tracing::subscriber::NoSubscriber;
use url::Url;

use crate::store::StoreError;

/// Longest parameter name that an error repeats.
const MAX_NAME: usize = 40;

const ESCAPE: &str =
    "percent-escape every character of the user name and the password that is neither a letter nor a digit";

/// A problem of an address and its remedy. Holds no value of the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressError {
    /// Completes the sentence that begins with the setting's name.
    pub problem: String,
    /// The remedy.
    pub remedy: String,
}

impl AddressError {
    fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

impl From<AddressError> for StoreError {
    fn from(AddressError { problem, remedy }: AddressError) -> Self {
        Self::Misconfigured(format!("database.url {problem}: {remedy}"))
    }
}

/// Reads an address. The files that it names must exist and hold the content that their parameter expects.
pub(super) fn parse(text: &str) -> Result<PgConnectOptions, AddressError> {
    let mut url = Url::parse(text).map_err(|_| AddressError::new("is not a URL", ESCAPE))?;
    check_delimiters(&url)?;
    let given: Vec<(String, String)> =
        url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let mut tls = Tls::default();
    let mut kept = Vec::new();
    let mut follows_password = false;
    for (name, value) in given {
        let is_password = matches!(name.as_str(), "password" | "sslpassword");
        match parameter(&name, &value, std::mem::replace(&mut follows_password, is_password))? {
            Parameter::Driver => kept.push((name, value)),
            Parameter::Satisfied => {}
            Parameter::SearchPath => kept.push(("options[search_path]".to_owned(), value)),
            Parameter::Mode(mode) => tls.mode = Some(mode),
            Parameter::RootCertificate => tls.root = Some(value),
            Parameter::ClientCertificate => tls.certificate = Some(value),
            Parameter::ClientKey => tls.key = Some(value),
        }
    }
    url.set_query(None);
    if !kept.is_empty() {
        url.query_pairs_mut().extend_pairs(kept);
    }
    // The driver logs malformed lines of ~/.pgpass, which may hold passwords.
    let options = tracing::subscriber::with_default(NoSubscriber::default(), || PgConnectOptions::from_url(&url));
    let options = options.map_err(|_| AddressError::new("has a part that cannot be read", ESCAPE))?;
    if options.get_host().contains(',') {
        return Err(AddressError::new(
            "names several hosts",
            "name one: the address of the primary, or of a proxy to it",
        ));
    }
    tls.apply(options)
}

/// Refuses an address in which an unescaped character of the password ends the password early. The rest of the password
/// would otherwise become a host name, a database name or a parameter.
fn check_delimiters(url: &Url) -> Result<(), AddressError> {
    let query = url.query().unwrap_or_default();
    let is_split = url.fragment().is_some()
        || url.path().contains('@')
        || url.path().trim_start_matches('/').contains('/')
        || query.contains('@')
        || query.split('&').any(|pair| !pair.is_empty() && !pair.contains('='));
    if is_split {
        return Err(AddressError::new("has an unescaped `@`, `/`, `?`, `#` or `&`", ESCAPE));
    }
    Ok(())
}

enum Parameter {
    /// The driver applies it.
    Driver,
    /// Fixed for every connection of this service.
    Satisfied,
    SearchPath,
    Mode(PgSslMode),
    RootCertificate,
    ClientCertificate,
    ClientKey,
}

fn parameter(name: &str, value: &str, follows_password: bool) -> Result<Parameter, AddressError> {
    let refused = |problem: &str, remedy: &str| Err(AddressError::new(format!("has {name}, {problem}"), remedy));
    let in_range =
        |valid: bool| if valid { Ok(Parameter::Driver) } else { refused("whose value is not valid", "correct it") };
    match name {
        "host" | "dbname" | "user" | "password" | "application_name" | "options" => Ok(Parameter::Driver),
        _ if name.strip_prefix("options[").is_some_and(|rest| rest.strip_suffix(']').is_some_and(is_name)) => {
            Ok(Parameter::Driver)
        }
        "hostaddr" => in_range(value.parse::<std::net::IpAddr>().is_ok()),
        "port" => in_range(value.parse::<u16>().is_ok()),
        "statement-cache-capacity" => in_range(value.parse::<usize>().is_ok()),
        "search_path" => Ok(Parameter::SearchPath),
        "sslmode" | "ssl-mode" => match value {
            "disable" => Ok(Parameter::Mode(PgSslMode::Disable)),
            "prefer" => Ok(Parameter::Mode(PgSslMode::Prefer)),
            "require" => Ok(Parameter::Mode(PgSslMode::Require)),
            "verify-ca" => Ok(Parameter::Mode(PgSslMode::VerifyCa)),
            "verify-full" => Ok(Parameter::Mode(PgSslMode::VerifyFull)),
            _ => refused("whose value is not supported", "write disable, prefer, require, verify-ca or verify-full"),
        },
        "sslrootcert" | "ssl-root-cert" | "ssl-ca" => Ok(Parameter::RootCertificate),
        "sslcert" | "ssl-cert" => Ok(Parameter::ClientCertificate),
        "sslkey" | "ssl-key" => Ok(Parameter::ClientKey),
        "sslpassword" => refused("and encrypted keys are not supported", "name a key without a password in sslkey"),
        "target_session_attrs" => match value {
            // The service refuses every server that is not the primary.
            "any" | "read-write" | "primary" => Ok(Parameter::Satisfied),
            _ => refused("which asks for a standby", "point database.url at the primary"),
        },
        "channel_binding" => match value {
            "disable" | "prefer" => Ok(Parameter::Satisfied),
            _ => refused("and channel binding is not supported", "remove it, and use sslmode=verify-full"),
        },
        "gssencmode" => match value {
            "disable" | "prefer" => Ok(Parameter::Satisfied),
            _ => refused("and GSSAPI encryption is not supported", "remove it, and use sslmode=verify-full"),
        },
        "connect_timeout" => refused("which is not supported", "set database.acquire_timeout"),
        // After a password, an unknown name may be the rest of a password with an unescaped `&`.
        _ if is_name(name) && !follows_password => refused("which is not supported", "remove it"),
        _ => Err(AddressError::new("has a parameter without a valid name", ESCAPE)),
    }
}

/// Whether a text can only be the name of a parameter. Any other text may be part of an unescaped password.
fn is_name(text: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-' | b'.');
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(is_of_name)
}

/// The parameters of TLS.
#[derive(Default)]
struct Tls {
    mode: Option<PgSslMode>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl Tls {
    fn apply(self, mut options: PgConnectOptions) -> Result<PgConnectOptions, AddressError> {
        let is_system = self.root.as_deref() == Some("system");
        let mode = match (self.mode.unwrap_or_else(|| options.get_ssl_mode()), &self.root) {
            // libpq: a root certificate makes `require` verify the chain, and `system` demands the strictest mode.
            (PgSslMode::Require, Some(_)) if !is_system => PgSslMode::VerifyCa,
            (PgSslMode::VerifyFull, _) => PgSslMode::VerifyFull,
            (_, Some(_)) if is_system && self.mode.is_none() => PgSslMode::VerifyFull,
            (_, Some(_)) if is_system => {
                return Err(AddressError::new(
                    "has sslrootcert=system with a weak sslmode",
                    "write sslmode=verify-full",
                ));
            }
            (PgSslMode::Allow, _) => {
                return Err(AddressError::new("is used with PGSSLMODE=allow, which is not supported", "set sslmode"));
            }
            (mode, _) => mode,
        };
        options = options.ssl_mode(mode);
        if let Some(root) = self.root.filter(|_| !is_system) {
            check_certificates("sslrootcert", &root)?;
            options = options.ssl_root_cert(root);
        }
        match (self.certificate, self.key) {
            (None, None) => {}
            (Some(certificate), Some(key)) => {
                check_certificates("sslcert", &certificate)?;
                check_key("sslkey", &key)?;
                options = options.ssl_client_cert(certificate).ssl_client_key(key);
            }
            (Some(_), None) => return Err(AddressError::new("has sslcert without sslkey", "name the file of the key")),
            (None, Some(_)) => {
                return Err(AddressError::new("has sslkey without sslcert", "name the file of the certificate"));
            }
        }
        Ok(options)
    }
}

fn check_certificates(parameter: &str, path: &str) -> Result<(), AddressError> {
    let pem = read(parameter, path)?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    if found.is_ok_and(|found| !found.is_empty()) {
        return Ok(());
    }
    Err(AddressError::new(format!("has {parameter}={path}, which holds no PEM certificate"), "name a file in PEM"))
}

fn check_key(parameter: &str, path: &str) -> Result<(), AddressError> {
    let pem = read(parameter, path)?;
    PrivateKeyDer::from_pem_slice(&pem).map(drop).map_err(|_| {
        let problem = format!("has {parameter}={path}, which holds no PEM private key");
        AddressError::new(problem, "name a key in PEM that is not encrypted")
    })
}

fn read(parameter: &str, path: &str) -> Result<zeroize::Zeroizing<Vec<u8>>, AddressError> {
    std::fs::read(Path::new(path)).map(zeroize::Zeroizing::new).map_err(|error| {
        let problem = format!("has {parameter}={path}, which cannot be read ({error})");
        AddressError::new(problem, "check the path and its permissions")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        let AddressError { problem, remedy } = parse(url).map(drop).unwrap_err();
        format!("{problem}: {remedy}")
    }

    #[test]
    fn d14_an_unknown_parameter_is_refused_by_name_and_without_its_value() {
        for name in
            ["sslpassword", "channel_binding", "connect_timeout", "pgbouncer", "require_auth", "sslcrl", "passfile"]
        {
            let text = refusal(&format!("postgres://cs@db/auth?{name}=hunter2"));
            assert!(text.contains(name) && !text.contains("hunter2"), "{text}");
        }
        for (name, value) in [("sslmode", "hunter2"), ("target_session_attrs", "standby"), ("port", "hunter2")] {
            let text = refusal(&format!("postgres://cs@db/auth?{name}={value}"));
            assert!(text.contains(&format!("has {name}")) && !text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn d14_parameters_of_placement_are_applied() {
        let options = parse("postgres://cs@db/auth?search_path=tenant_a&target_session_attrs=read-write").unwrap();
        assert_eq!(options.get_options(), Some("-c search_path=tenant_a"));
        let options = parse("postgres://cs@db/auth?channel_binding=prefer&application_name=a&dbname=b").unwrap();
        assert_eq!((options.get_application_name(), options.get_database()), (Some("a"), Some("b")));
    }

    #[test]
    fn s6_a_password_that_is_not_escaped_gets_a_hint_and_is_not_repeated() {
        for url in [
            "postgres://cs:hun@ter2/hunter2@db/auth",
            "postgres://cs:hun@ter2?hunter2@db/auth",
            "postgres://cs:hun@ter2#hunter2@db/auth",
            "postgres://cs:12/hunter2@db/auth",
            "postgres://cs:hunter2/x@db/auth",
            "postgres://cs:hunter2#x@db/auth",
            "postgres://cs:hunter2[@db:x/auth",
            "postgres://cs@db/auth?password=x&hunter2",
            "postgres://cs@db/auth?password=x&hunter=y",
            "postgres://cs:hun@ter2?hunter=2@db/auth",
        ] {
            let text = refusal(url);
            assert!(text.contains("percent-escape") && !text.contains("hun"), "{url}: {text}");
        }
        assert_eq!(parse("postgres://cs:p%40ss%2Fw%23@db/auth").unwrap().get_host(), "db");
    }

    #[test]
    fn d15_tls_is_as_strict_as_libpq_makes_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root.pem");
        let made = rcgen::generate_simple_self_signed(["db".to_owned()]).unwrap();
        std::fs::write(&root, made.cert.pem()).unwrap();
        let root = root.display();
        let mode =
            |query: &str| format!("{:?}", parse(&format!("postgres://cs@db/auth?{query}")).unwrap().get_ssl_mode());
        assert_eq!(mode("sslmode=require"), "Require");
        assert_eq!(mode(&format!("sslmode=require&sslrootcert={root}")), "VerifyCa");
        assert_eq!(mode(&format!("sslmode=verify-full&sslrootcert={root}")), "VerifyFull");
        assert_eq!(mode("sslrootcert=system"), "VerifyFull");
        for query in ["sslmode=allow", "sslmode=require&sslrootcert=system"] {
            refusal(&format!("postgres://cs@db/auth?{query}"));
        }
    }

    #[test]
    fn d15_a_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let text = refusal(&format!("postgres://cs@db/auth?sslmode=verify-ca&sslrootcert={}", empty.display()));
        assert!(text.contains("empty.pem, which holds no PEM certificate"), "{text}");
        for parameter in ["sslrootcert", "sslcert"] {
            let text = refusal(&format!("postgres://cs@db/auth?{parameter}=/nowhere/a.pem&sslkey=/nowhere/b.pem"));
            assert!(text.contains(parameter) && text.contains("/nowhere/a.pem, which cannot be read"), "{text}");
        }
    }
}
