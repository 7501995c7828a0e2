//! Configuration errors that only appear when the configured files are read. The check runs before anything is created.

use std::path::Path;

use super::wiring::store_settings;
use crate::config::{Config, ConfigError, Origin, TlsFiles};
use crate::http::listener::{Protocol, TlsError, TlsIdentity};
use crate::store::Store;

/// Every error that a start would report before it opens the database or a port.
pub fn examine(config: &Config) -> Vec<ConfigError> {
    let database = Store::check_settings(&store_settings(config)).err();
    let database = database.map(|error| config_error("database.url", error.problem, &error.remedy));
    let grpc = config.grpc.tls.as_ref().filter(|_| config.grpc.listen.is_some());
    let identities = [
        ("public", Protocol::Http1, config.public.tls.as_ref()),
        ("operations", Protocol::Http1, config.operations.tls.as_ref()),
        ("grpc", Protocol::Http2, grpc),
    ];
    let identities = identities.into_iter().filter_map(|(name, protocol, files)| of_identity(name, protocol, files?));
    database.into_iter().chain(identities).collect()
}

fn of_identity(listener: &str, protocol: Protocol, files: &TlsFiles) -> Option<ConfigError> {
    let error = TlsIdentity::load_for(protocol, &files.cert, &files.key).err()?;
    let (path, problem, remedy) = match &error {
        TlsError::Read(path, cause) => {
            (path, format!("cannot be read ({cause})"), "check the path and its permissions")
        }
        TlsError::NotRegular(path) => (
            path,
            "is not a regular file".to_owned(),
            "name a regular file: a FIFO or device cannot be read again when the certificate changes",
        ),
        TlsError::NoCertificate(path) => {
            (path, "holds no PEM certificate".to_owned(), "name a certificate chain in PEM, leaf first")
        }
        TlsError::NoKey(path) => {
            (path, "holds no PEM private key".to_owned(), "name a private key in PEM that is not encrypted")
        }
        TlsError::Exposed(path) => (
            path,
            "every user of this machine may read or write".to_owned(),
            "leave it to its owner and group with chmod o=",
        ),
        TlsError::OtherKey(certificate, key) => (
            key,
            format!("is not the key of the certificate {}", certificate.display()),
            "name the key that the certificate was made for",
        ),
        TlsError::Unusable(certificate, key, cause) => (
            key,
            format!("cannot be used with the certificate {} ({cause})", certificate.display()),
            "name a certificate and a key of a kind that TLS 1.2 or 1.3 knows",
        ),
    };
    let member = if is_about_certificate(&error, &files.cert) { "cert" } else { "key" };
    Some(config_error(
        &format!("{listener}.tls.{member}"),
        format!("names {}, which {problem}", path.display()),
        remedy,
    ))
}

fn is_about_certificate(error: &TlsError, certificate: &Path) -> bool {
    match error {
        TlsError::Read(path, _) | TlsError::NotRegular(path) => path == certificate,
        TlsError::NoCertificate(_) => true,
        TlsError::NoKey(_) | TlsError::Exposed(_) | TlsError::OtherKey(..) | TlsError::Unusable(..) => false,
    }
}

fn config_error(setting: &str, problem: String, remedy: &str) -> ConfigError {
    ConfigError { setting: setting.to_owned(), origin: Origin::Default, problem, remedy: remedy.to_owned() }
}
