//! Classifies driver errors: which error the caller gets, and whether a retry can help.

use std::time::Duration;

use sqlx::error::ErrorKind;

use super::tls;
use crate::store::StoreError;

/// The server refuses the login: wrong password, role or database.
pub(super) const LOGIN_REFUSED: [&str; 3] = ["28000", "28P01", "3D000"];

/// The state of connection and transaction after a failed statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The statement was refused; connection and server work.
    Statement,
    /// The transaction lost a conflict: 40001 or 40P01, which rolled it back, or SQLITE_BUSY. A retry may succeed.
    Contention,
    /// The connection is closed or unusable, and other connections to the same server may be too.
    Connection,
    /// The same, and the server may still work on the statement: it did not answer in time.
    Silence,
}

impl Fault {
    /// Whether the connection must not be used again.
    pub(super) const fn is_of_connection(self) -> bool {
        matches!(self, Self::Connection | Self::Silence)
    }
}

/// A classified driver error.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) fault: Fault,
    pub(super) error: StoreError,
}

impl Failure {
    /// No answer within `patience`: the server, or the network path to it, is gone.
    pub(super) fn no_answer(patience: Duration) -> Self {
        let error = StoreError::Unavailable(format!("no answer within {} ms", patience.as_millis()));
        Self { fault: Fault::Silence, error }
    }

    /// Treated as an outage: the next attempt may succeed.
    pub(super) fn into_outage(self) -> Self {
        match self.error {
            StoreError::Misconfigured(text) => Self { error: StoreError::Unavailable(text), ..self },
            _ => self,
        }
    }

    /// A failure that says nothing about the connection.
    pub(super) const fn of_statement(error: StoreError) -> Self {
        Self { fault: Fault::Statement, error }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let (fault, error) = match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                let text = format!("{} (code {code})", database.message());
                if code.len() == 5 { postgres(&code, text) } else { sqlite(&code, text, database.kind()) }
            }
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
                let text = tls::failure(&error).map_or_else(|| error.to_string(), tls::explained);
                (Fault::Connection, StoreError::Unavailable(text))
            }
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
                (Fault::Statement, StoreError::Unavailable(error.to_string()))
            }
            sqlx::Error::Configuration(cause) => (Fault::Statement, StoreError::Misconfigured(cause.to_string())),
            _ => (Fault::Statement, StoreError::Internal(error.to_string())),
        };
        Self { fault, error }
    }
}

/// By SQLSTATE (PostgreSQL, Appendix A).
fn postgres(code: &str, text: String) -> (Fault, StoreError) {
    match code {
        "40001" | "40P01" => (Fault::Contention, StoreError::Unavailable(text)),
        "23505" => (Fault::Statement, StoreError::Conflict { what: "a unique value is taken" }),
        // A privilege was revoked from the role, until an operator grants it again (security.md D6).
        "42501" => {
            let text = format!("{text}: grant the role of database.url the missing right");
            (Fault::Statement, StoreError::Unavailable(text))
        }
        // Statement or lock timeout: the server is reachable but overloaded.
        "57014" | "55P03" => (Fault::Statement, StoreError::Unavailable(text)),
        code if LOGIN_REFUSED.contains(&code) => {
            let text = format!("the database refused the login: {text}: correct database.url{}", hint(code));
            (Fault::Connection, StoreError::Misconfigured(text))
        }
        // Read-only: a standby, or a primary that was demoted during the connection.
        "25006" => (Fault::Connection, StoreError::CannotWrite(text)),
        // The disk is full.
        "53100" => (Fault::Statement, StoreError::CannotWrite(text)),
        // Idle-session and idle-in-transaction timeouts ended the connection.
        "25P03" | "57P05" => (Fault::Connection, StoreError::Unavailable(text)),
        _ => match code.get(..2) {
            // Connection exceptions, operator intervention, system errors.
            Some("08" | "57" | "58") => (Fault::Connection, StoreError::Unavailable(text)),
            // Insufficient resources: out of memory, too many connections.
            Some("53") => (Fault::Statement, StoreError::Unavailable(text)),
            _ => (Fault::Statement, StoreError::Internal(text)),
        },
    }
}

fn hint(code: &str) -> &'static str {
    if code == "28P01" { ", where special characters of the password are percent-escaped" } else { "" }
}

/// By extended result code (sqlite.org/rescode.html). The primary code is its low byte.
fn sqlite(code: &str, text: String, kind: ErrorKind) -> (Fault, StoreError) {
    if kind == ErrorKind::UniqueViolation {
        return (Fault::Statement, StoreError::Conflict { what: "a unique value is taken" });
    }
    match code.parse::<i32>().map(|code| code & 0xFF) {
        // BUSY, LOCKED: another process writes.
        Ok(5 | 6) => (Fault::Contention, StoreError::Unavailable(text)),
        // READONLY, IOERR, FULL.
        Ok(8 | 10 | 13) => (Fault::Connection, StoreError::CannotWrite(text)),
        // PERM, NOMEM, CANTOPEN, PROTOCOL, NOLFS, AUTH: the disk or the file is at fault until an operator acts.
        Ok(3 | 7 | 14 | 15 | 22 | 23) => (Fault::Connection, StoreError::Unavailable(text)),
        // CORRUPT, NOTADB.
        Ok(11 | 26) => (Fault::Connection, StoreError::Misconfigured(text)),
        _ => (Fault::Statement, StoreError::Internal(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_postgres(code: &str) -> (Fault, bool) {
        let (fault, error) = postgres(code, String::new());
        (fault, error.is_outage())
    }

    #[test]
    fn d2_only_serialization_failures_and_deadlocks_are_tried_again() {
        assert_eq!(of_postgres("40001").0, Fault::Contention);
        assert_eq!(of_postgres("40P01").0, Fault::Contention);
        for code in ["40002", "23505", "53100", "57P01", "42601"] {
            assert_ne!(of_postgres(code).0, Fault::Contention, "{code}");
        }
    }

    #[test]
    fn d6_a_full_disk_a_lost_right_a_standby_and_a_shutdown_are_outages() {
        assert_eq!(of_postgres("53100"), (Fault::Statement, true));
        assert_eq!(of_postgres("42501"), (Fault::Statement, true));
        assert_eq!(of_postgres("25006"), (Fault::Connection, true));
        for code in ["57P01", "57P02", "57P03", "08006", "58030"] {
            assert_eq!(of_postgres(code), (Fault::Connection, true), "{code}");
        }
        // FULL, READONLY_DBMOVED, BUSY_SNAPSHOT, IOERR_WRITE, CANTOPEN.
        for code in ["13", "1032", "517", "778", "14"] {
            let (_, error) = sqlite(code, String::new(), ErrorKind::Other);
            assert!(error.is_outage(), "{code}");
        }
    }

    #[test]
    fn an_sql_error_is_not_an_outage() {
        assert_eq!(of_postgres("42601"), (Fault::Statement, false));
        assert!(matches!(sqlite("1", String::new(), ErrorKind::Other).1, StoreError::Internal(_)));
    }
}
