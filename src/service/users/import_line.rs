//! One line of an import of users: JSON Lines, one user per line.
//!
//! ```json
//! {"username": "jane", "password_hash": "$2b$12$…", "roles": ["editor"], "disabled": false, "created_at": "2019-05-04T12:30:00Z"}
//! ```
//!
//! `username` and `password_hash` are required. `created_at` is RFC 3339 or whole Unix seconds. Unknown members are
//! refused, so that a misspelt `roles` does not create a user without roles. [`PasswordHash::parse`] reads the formats that
//! it supports; the canonical form is stored. The hash is upgraded at the user's first login.
//!
//! # Resuming
//!
//! An import stores nothing but the users. A user is inserted if the name is free. An existing user is never changed, because
//! its password may have been changed or its hash upgraded since an earlier run. An import that stopped is therefore resumed
//! by running it again from the start, on any replica. Two concurrent runs are safe. Each line gets an [`ImportOutcome`],
//! and [`ImportProgress`] counts them:
//!
//! - `refused`: the line is invalid. It is reported with its number and the reason, and the import continues.
//! - `unchanged`: the name exists with the same hash, because an earlier run created it.
//! - `taken`: the name exists with another hash. It is another user, or its hash has changed. It is reported, not changed.
//!
//! Users are inserted in batches, one transaction each, with progress after each batch. [`ImportProgress::bytes`] compared to
//! the size of the file shows the progress. A user that exists costs an insert without effect and one lookup.

use serde::Deserialize;
use serde_json::Value;

use crate::crypto::{HashRefusal, PasswordHash};
use crate::domain::{ParseError, Role, Timestamp, Username, check_roles};

/// Maximum length of a line in bytes, including the line end. A reader of the file need not buffer more.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// The user that a line describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedUser {
    /// In canonical form.
    pub username: Username,
    /// In canonical form, as stored.
    pub password_hash: PasswordHash,
    /// Sorted, without duplicates.
    pub roles: Vec<Role>,
    pub disabled: bool,
    pub created_at: Option<Timestamp>,
}

/// Why a line is invalid. The error names the member and never contains its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportLineError {
    #[error("the line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    #[error("the line is not a JSON object (column {column})")]
    NotJson {
        /// Column of the syntax error, counted from 1.
        column: usize,
    },
    /// A member is unknown, missing or duplicate.
    #[error("{0}")]
    Members(String),
    #[error("username: {0}")]
    Username(ParseError),
    #[error("password_hash: {0}")]
    PasswordHash(#[from] HashRefusal),
    /// The list of roles as a whole.
    #[error("roles: {0}")]
    Roles(ParseError),
    /// One role, with its position counted from 1.
    #[error("role {0}: {1}")]
    Role(usize, ParseError),
    /// A member has the wrong type or is out of range.
    #[error("{0} must be {1}")]
    Value(&'static str, &'static str),
}

/// The outcome of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportOutcome {
    Created,
    /// The user exists with the same hash.
    Unchanged,
    /// The name exists with another hash.
    Taken,
    /// The line is invalid.
    Refused,
}

/// Progress of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportProgress {
    /// Bytes of the file processed.
    pub bytes: u64,
    pub created: u64,
    /// Users that an earlier run, or an earlier line, created.
    pub unchanged: u64,
    pub taken: u64,
    pub refused: u64,
}

impl ImportProgress {
    /// Counts a line of `bytes` bytes.
    pub const fn record(&mut self, outcome: ImportOutcome, bytes: u64) {
        self.bytes += bytes;
        match outcome {
            ImportOutcome::Created => self.created += 1,
            ImportOutcome::Unchanged => self.unchanged += 1,
            ImportOutcome::Taken => self.taken += 1,
            ImportOutcome::Refused => self.refused += 1,
        }
    }

    pub const fn lines(&self) -> u64 {
        self.created + self.unchanged + self.taken + self.refused
    }
}

/// The members of a line. Their types are checked later, so that serde's errors do not repeat values.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    username: Value,
    password_hash: Value,
    #[serde(default)]
    roles: Value,
    #[serde(default)]
    disabled: Value,
    #[serde(default)]
    created_at: Value,
}

/// U+FEFF, with which editors on Windows begin a file.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

impl ImportedUser {
    /// Parses one line, with or without its line end. `None` for a blank line.
    pub fn parse(line: &[u8]) -> Result<Option<Self>, ImportLineError> {
        if line.len() > MAX_LINE_BYTES {
            return Err(ImportLineError::TooLong);
        }
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).trim_ascii();
        let Some(first) = line.first() else { return Ok(None) };
        // serde would also accept an array, and would repeat a string in its error.
        if *first != b'{' {
            return Err(ImportLineError::NotJson { column: 1 });
        }
        let line: Line = serde_json::from_slice(line).map_err(members_error)?;
        Ok(Some(Self {
            username: Username::parse_new(text("username", &line.username)?).map_err(ImportLineError::Username)?,
            password_hash: PasswordHash::parse(text("password_hash", &line.password_hash)?)
                .map_err(ImportLineError::PasswordHash)?,
            roles: roles(&line.roles)?,
            disabled: match line.disabled {
                Value::Null => false,
                Value::Bool(disabled) => disabled,
                _ => return Err(ImportLineError::Value("disabled", "true or false")),
            },
            created_at: created_at(&line.created_at)?,
        }))
    }
}

/// All members have type `Value`, so a data error contains only names of members.
fn members_error(error: serde_json::Error) -> ImportLineError {
    if !error.is_data() {
        return ImportLineError::NotJson { column: error.column() };
    }
    let said = error.to_string();
    ImportLineError::Members(said.split_once(" at line ").map_or(said.as_str(), |(what, _)| what).to_owned())
}

fn text<'a>(name: &'static str, value: &'a Value) -> Result<&'a str, ImportLineError> {
    value.as_str().ok_or(ImportLineError::Value(name, "a string"))
}

fn roles(value: &Value) -> Result<Vec<Role>, ImportLineError> {
    const ERROR: ImportLineError = ImportLineError::Value("roles", "an array of strings");
    let listed = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(listed) => listed,
        _ => return Err(ERROR),
    };
    let mut roles = Vec::with_capacity(listed.len());
    for (index, role) in listed.iter().enumerate() {
        let role = Role::parse(role.as_str().ok_or(ERROR)?);
        roles.push(role.map_err(|error| ImportLineError::Role(index + 1, error))?);
    }
    roles.sort_unstable();
    roles.dedup();
    check_roles(&roles).map_err(ImportLineError::Roles)?;
    Ok(roles)
}

fn created_at(value: &Value) -> Result<Option<Timestamp>, ImportLineError> {
    const ERROR: ImportLineError =
        ImportLineError::Value("created_at", "an RFC 3339 time or whole Unix seconds, from 1970 to 9999");
    /// The last second of the year 9999.
    const MAX_SECONDS: i64 = 253_402_300_799;
    let time = match value {
        Value::Null => return Ok(None),
        Value::String(text) => rfc3339(text).ok_or(ERROR)?,
        Value::Number(seconds) => Timestamp::from_seconds(seconds.as_i64().ok_or(ERROR)?),
        _ => return Err(ERROR),
    };
    if (0..=MAX_SECONDS).contains(&time.seconds()) { Ok(Some(time)) } else { Err(ERROR) }
}

/// Parses RFC 3339 with any offset. `humantime` supports only UTC.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let (local, offset_minutes) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, 0),
        None => {
            let (local, offset) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
            let (sign, clock) = offset.split_at_checked(1)?;
            let (hours, minutes) = clock.split_once(':')?;
            let (hours, minutes) = (two_digits(hours, 23)?, two_digits(minutes, 59)?);
            let sign = match sign {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            (local, sign * (60 * hours + minutes))
        }
    };
    // `humantime` would parse the rest of a malformed offset as part of the fraction.
    if local.contains(['Z', '+']) {
        return None;
    }
    let local = humantime::parse_rfc3339_weak(local).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let millis = i64::try_from(local.as_millis()).ok()?;
    Some(Timestamp::from_millis(millis - offset_minutes * 60_000))
}

fn two_digits(text: &str, most: i64) -> Option<i64> {
    let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|value| is_plain && *value <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2b$04$z8aqxIoWmhCWl.JLerepfeo41Bj8DTBraSPFL3Tok6sTPyMybsvRm";

    fn parse(line: &str) -> Result<Option<ImportedUser>, ImportLineError> {
        ImportedUser::parse(line.as_bytes())
    }

    fn with(members: &str) -> Result<Option<ImportedUser>, ImportLineError> {
        parse(&format!(r#"{{"username":"jane","password_hash":"{HASH}"{members}}}"#))
    }

    #[test]
    fn a_line_with_all_members_yields_a_user_in_canonical_form() {
        let line = format!(
            "{{\"username\":\"JANE\",\"password_hash\":\"{}\",\"roles\":[\"b\",\"a\",\"b\"],\"disabled\":true,\"created_at\":\"2019-05-04T14:30:00.250+02:00\"}}\r\n",
            HASH.replace("$2b$", "$2y$")
        );
        let user = parse(&line).unwrap().unwrap();
        assert_eq!(user.username.as_str(), "jane");
        assert_eq!(user.password_hash.as_str(), HASH);
        assert_eq!(user.roles.iter().map(Role::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert!(user.disabled);
        assert_eq!(user.created_at, Some(Timestamp::from_millis(1_556_973_000_250)));
    }

    #[test]
    fn missing_and_null_members_have_their_defaults() {
        for members in ["", r#","roles":null,"disabled":null,"created_at":null"#, r#","roles":[],"disabled":false"#] {
            let user = with(members).unwrap().unwrap();
            assert_eq!((user.roles.len(), user.disabled, user.created_at), (0, false, None), "{members}");
        }
        assert_eq!((parse(""), parse(" \r\n")), (Ok(None), Ok(None)));
    }

    #[test]
    fn created_at_is_rfc_3339_or_unix_seconds() {
        for (time, millis) in [
            ("0", 0),
            ("1556973000", 1_556_973_000_000),
            ("\"1970-01-01T00:00:00Z\"", 0),
            ("\"2019-05-04T12:30:00.123456789Z\"", 1_556_973_000_123),
            ("\"2019-05-04T12:30:00+00:00\"", 1_556_973_000_000),
            ("\"2019-05-04T07:00:00-05:30\"", 1_556_973_000_000),
            ("\"2019-05-04 12:30:00Z\"", 1_556_973_000_000),
        ] {
            let user = with(&format!(",\"created_at\":{time}")).unwrap().unwrap();
            assert_eq!(user.created_at, Some(Timestamp::from_millis(millis)), "{time}");
        }
        for bad in [
            "-1",
            "1.5",
            "1e300",
            "253402300800",
            "true",
            "{}",
            "\"\"",
            "\"yesterday\"",
            "\"2019-05-04\"",
            "\"2019-05-04T12:30:00\"",
            "\"2019-02-30T12:30:00Z\"",
            "\"2019-05-04T12:30:00+24:00\"",
            "\"2019-05-04T12:30:00+0100\"",
            "\"2019-05-04T12:30:00Z+01:00\"",
            "\"1969-12-31T23:59:59Z\"",
            "\"1970-01-01T00:00:00+01:00\"",
            "\"ééééééééééééé\"",
        ] {
            let refused = with(&format!(",\"created_at\":{bad}")).unwrap_err();
            assert!(refused.to_string().starts_with("created_at must be"), "{bad}: {refused}");
        }
    }

    #[test]
    fn errors_name_the_member_and_contain_no_secret() {
        let secret = "hunter2-is-my-password";
        for (line, said) in [
            (format!("\"{secret}\""), "the line is not a JSON object (column 1)"),
            (format!("[\"{secret}\", \"{HASH}\"]"), "the line is not a JSON object (column 1)"),
            (format!("{{\"username\":\"{secret}"), "the line is not a JSON object"),
            (
                format!("{{\"username\":\"jane\",\"password_hash\":\"{HASH}\"}} {secret}"),
                "the line is not a JSON object",
            ),
            (r#"{"username":"jane"}"#.into(), "missing field `password_hash`"),
            (format!(r#"{{"password_hash":"{HASH}"}}"#), "missing field `username`"),
            (
                format!(r#"{{"username":"jane","username":"jane","password_hash":"{HASH}"}}"#),
                "duplicate field `username`",
            ),
            (
                format!(r#"{{"username":"jane","password_hash":"{HASH}","role":["a"]}}"#),
                "unknown field `role`, expected",
            ),
            (format!(r#"{{"username":"{secret} x","password_hash":"{HASH}"}}"#), "username: a user name is"),
            (format!(r#"{{"username":7,"password_hash":"{HASH}"}}"#), "username must be a string"),
            (
                format!(r#"{{"username":"jane","password_hash":"{secret}"}}"#),
                "password_hash: the password hash is in none",
            ),
            (
                r#"{"username":"jane","password_hash":"$2b$31$z8aqxIoWmhCWl.JLerepfeo41Bj8DTBraSPFL3Tok6sTPyMybsvRm"}"#
                    .into(),
                "password_hash: the bcrypt hash has the cost outside of 4 to 16",
            ),
            (
                format!(r#"{{"username":"jane","password_hash":"{HASH}","roles":["ok","{secret} x"]}}"#),
                "role 2: a role is",
            ),
            (format!(r#"{{"username":"jane","password_hash":"{HASH}","roles":"{secret}"}}"#), "roles must be an array"),
            (
                format!(r#"{{"username":"jane","password_hash":"{HASH}","disabled":"{secret}"}}"#),
                "disabled must be true or false",
            ),
        ] {
            let error = parse(&line).unwrap_err().to_string();
            assert!(error.starts_with(said), "{line}: {error}");
            assert!(!error.contains(secret) && !error.contains("z8aqx"), "{error}");
        }
    }

    #[test]
    fn the_length_and_the_number_of_roles_are_bounded() {
        let padded = format!("{:width$}", "", width = MAX_LINE_BYTES);
        assert_eq!(parse(&padded), Ok(None));
        assert_eq!(parse(&format!("{padded} ")), Err(ImportLineError::TooLong));
        let many =
            |count| format!(",\"roles\":[{}]", (0..count).map(|n| format!("\"r{n}\"")).collect::<Vec<_>>().join(","));
        assert!(with(&many(86)).is_ok() && with(&many(87)).is_err());
    }

    #[test]
    fn progress_counts_lines_and_bytes() {
        let mut progress = ImportProgress::default();
        for outcome in [ImportOutcome::Created, ImportOutcome::Unchanged, ImportOutcome::Taken, ImportOutcome::Refused]
        {
            progress.record(outcome, 100);
        }
        assert_eq!((progress.lines(), progress.bytes, progress.created), (4, 400, 1));
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(line in "\\{\"(username|created_at)\":[ -~]{0,60}\\}?") {
            let _ = parse(&line);
        }

        #[test]
        fn reading_a_time_never_panics(text in "[0-9TZ:.+ é-]{0,40}") {
            let _ = rfc3339(&text);
        }
    }
}
