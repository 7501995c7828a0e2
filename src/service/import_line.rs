//! One line of an import of users: JSON Lines, one user per line.
//!
//! ```json
//! {"username": "jane", "password_hash": "$2b$12$…", "roles": ["editor"], "disabled": false, "created_at": "2019-05-04T12:30:00Z"}
//! ```
//!
//! `username` and `password_hash` are required. `created_at` is RFC 3339 or whole Unix seconds. Unknown members are
//! refused, so that a misspelt `roles` does not become a user without roles. Hashes are read in every spelling that
//! [`PasswordHash::parse`] knows and stored in its own; a hash is upgraded at the user's first login.
//!
//! # Resuming
//!
//! An import keeps no state beside the users themselves. A user is inserted if the name is free, and never changed when it is
//! taken: the account may have changed its password, or had its hash upgraded, since an earlier run. So an import that
//! stopped, for whatever reason, is resumed by running it again from the start, on any replica, and two runs at once do no
//! harm. Each line gets an [`ImportOutcome`], and [`ImportProgress`] adds them up:
//!
//! - a line that cannot be read is refused with its number and reason, and the import goes on;
//! - a name that is taken by the same hash is `unchanged`: an earlier run put it there;
//! - a name that is taken by another hash is `taken`: upgraded or changed since, or somebody else. Reported, not touched.
//!
//! Users are inserted in batches, one transaction each, with progress after each batch. The bytes read out of those of the file
//! ([`ImportProgress::bytes`]) tell how far it is. What is there already costs one insertion that inserts nothing, and one look.

use serde::Deserialize;
use serde_json::Value;

use crate::crypto::{HashRefusal, PasswordHash};
use crate::domain::{ParseError, Role, Timestamp, Username, check_roles};

/// Longest line in bytes, line end included; whoever reads the file stops collecting a line here.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// A user as a line describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedUser {
    /// In canonical form.
    pub username: Username,
    /// In the spelling that is stored.
    pub password_hash: PasswordHash,
    /// Sorted, without duplicates.
    pub roles: Vec<Role>,
    /// Whether the user cannot log in.
    pub disabled: bool,
    /// When the account was made, if the line says so.
    pub created_at: Option<Timestamp>,
}

/// Why a line is not a user. Names the member, and repeats nothing that stands in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportLineError {
    /// Too long to be looked at.
    #[error("the line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// Not one JSON object.
    #[error("the line is not a JSON object (column {column})")]
    NotJson {
        /// Where reading stopped, from 1.
        column: usize,
    },
    /// A member that is unknown, missing or there twice.
    #[error("{0}")]
    Members(String),
    /// The user name.
    #[error("username: {0}")]
    Username(ParseError),
    /// The hash.
    #[error("password_hash: {0}")]
    PasswordHash(#[from] HashRefusal),
    /// The roles together.
    #[error("roles: {0}")]
    Roles(ParseError),
    /// A role; counted from 1.
    #[error("role {0}: {1}")]
    Role(usize, ParseError),
    /// A member of the wrong type, or out of range.
    #[error("{0} must be {1}")]
    Value(&'static str, &'static str),
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportOutcome {
    /// The user is new.
    Created,
    /// The user is there already, with this very hash.
    Unchanged,
    /// The name is taken, with another hash.
    Taken,
    /// The line was refused.
    Refused,
}

/// How far an import is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportProgress {
    /// Bytes read.
    pub bytes: u64,
    /// Users created.
    pub created: u64,
    /// Users that were there already, with this very hash: an earlier run, or an earlier line, had created them.
    pub unchanged: u64,
    /// Names that were taken.
    pub taken: u64,
    /// Lines refused.
    pub refused: u64,
}

impl ImportProgress {
    /// Counts a line of so many bytes.
    pub const fn record(&mut self, outcome: ImportOutcome, bytes: u64) {
        self.bytes += bytes;
        match outcome {
            ImportOutcome::Created => self.created += 1,
            ImportOutcome::Unchanged => self.unchanged += 1,
            ImportOutcome::Taken => self.taken += 1,
            ImportOutcome::Refused => self.refused += 1,
        }
    }

    /// Lines counted so far.
    pub const fn lines(&self) -> u64 {
        self.created + self.unchanged + self.taken + self.refused
    }
}

/// The line's members, their types not yet judged, so that errors are ours.
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
    /// Reads one line, with or without its line end. `None` for a line of white space.
    pub fn parse(line: &[u8]) -> Result<Option<Self>, ImportLineError> {
        if line.len() > MAX_LINE_BYTES {
            return Err(ImportLineError::TooLong);
        }
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).trim_ascii();
        let Some(first) = line.first() else { return Ok(None) };
        // serde would read an array as well, and repeat a text in its error.
        if *first != b'{' {
            return Err(ImportLineError::NotJson { column: 1 });
        }
        let line: Line = serde_json::from_slice(line).map_err(members_error)?;
        Ok(Some(Self {
            username: Username::parse(text("username", &line.username)?).map_err(ImportLineError::Username)?,
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

/// With members of type `Value`, an error of data is about the names of members alone.
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
    /// The end of the year 9999.
    const MAX_SECONDS: i64 = 253_402_300_799;
    let time = match value {
        Value::Null => return Ok(None),
        Value::String(text) => rfc3339(text).ok_or(ERROR)?,
        Value::Number(seconds) => Timestamp::from_seconds(seconds.as_i64().ok_or(ERROR)?),
        _ => return Err(ERROR),
    };
    if (0..=MAX_SECONDS).contains(&time.seconds()) { Ok(Some(time)) } else { Err(ERROR) }
}

/// RFC 3339 with any offset; the library reads UTC alone.
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
    // What is left of an offset here would be read as part of the fraction.
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
    fn a_full_line_is_a_user_in_canonical_form() {
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
    fn what_is_left_out_or_null_has_its_usual_value() {
        for members in ["", r#","roles":null,"disabled":null,"created_at":null"#, r#","roles":[],"disabled":false"#] {
            let user = with(members).unwrap().unwrap();
            assert_eq!((user.roles.len(), user.disabled, user.created_at), (0, false, None), "{members}");
        }
        assert_eq!((parse(""), parse(" \r\n")), (Ok(None), Ok(None)));
    }

    #[test]
    fn times_are_read_in_both_forms() {
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
    fn every_mistake_is_named_and_nothing_secret_is_repeated() {
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
    fn a_line_is_bounded_in_length_and_roles() {
        let padded = format!("{:width$}", "", width = MAX_LINE_BYTES);
        assert_eq!(parse(&padded), Ok(None));
        assert_eq!(parse(&format!("{padded} ")), Err(ImportLineError::TooLong));
        let many =
            |count| format!(",\"roles\":[{}]", (0..count).map(|n| format!("\"r{n}\"")).collect::<Vec<_>>().join(","));
        assert!(with(&many(64)).is_ok() && with(&many(65)).is_err());
    }

    #[test]
    fn progress_adds_up() {
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
