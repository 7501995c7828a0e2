//! Explains failed TLS handshakes with PostgreSQL.

use rustls::{CertificateError, Error};

/// The cause, if a handshake failed.
pub(super) fn failure(error: &sqlx::Error) -> Option<&Error> {
    let source: &(dyn std::error::Error + 'static) = match error {
        sqlx::Error::Io(error) => error.get_ref()?,
        sqlx::Error::Tls(error) => &**error,
        _ => return None,
    };
    source.downcast_ref()
}

/// The problem and its remedy.
pub(super) fn explained(error: &Error) -> String {
    let (problem, remedy) = match error {
        Error::InvalidCertificate(error) => about_certificate(error),
        Error::AlertReceived(alert) => (
            format!("the server refused the handshake ({alert:?})"),
            "where the server asks for a client certificate, set sslcert and sslkey",
        ),
        other => (other.to_string(), "check that the server speaks TLS 1.2 or 1.3"),
    };
    format!("TLS with the database server failed: {problem}; {remedy}")
}

fn about_certificate(error: &CertificateError) -> (String, &'static str) {
    let (problem, remedy) = match error {
        CertificateError::UnknownIssuer => (
            "is not issued by a certificate authority in sslrootcert or a public one",
            "name the certificate of its issuer in sslrootcert",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "is for another host name than the one in database.url",
            "use a host name of its subjectAltName (a common name alone does not count), or sslmode=verify-ca",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => ("has expired", "renew it"),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("is not valid yet", "check this machine's clock")
        }
        CertificateError::Other(other) if is_about_version(other) => {
            ("is X.509 version 1", "issue it as version 3, with a subjectAltName")
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => (
            "is that of a certificate authority, used as the server's own",
            "issue a server certificate from it, and name the authority in sslrootcert",
        ),
        CertificateError::BadEncoding => ("is malformed", "issue it again as X.509 version 3"),
        other => return (format!("the server's certificate is refused: {other}"), "replace it"),
    };
    (format!("the server's certificate {problem}"), remedy)
}

fn is_about_version(error: &rustls::OtherError) -> bool {
    error.to_string().contains("UnsupportedCertVersion")
}
