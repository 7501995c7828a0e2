//! Lists the kinds of stored password hashes. They have a separate column, so the query costs the same for any number
//! of users.

use super::Users;
use crate::store::StoreError;
use crate::store::db::values;

/// Maximum number of schemes to look up. Refusals cannot take equal time for more kinds of hashes anyway.
const MOST_SCHEMES: usize = 256;

impl Users<'_> {
    /// One stored hash of every scheme in use: one index lookup for each.
    pub async fn password_samples(&self) -> Result<Vec<String>, StoreError> {
        const NEXT: &str = "SELECT id, password_scheme, password_hash FROM users
            WHERE password_scheme > $1 ORDER BY password_scheme LIMIT 1";
        let (mut samples, mut after) = (Vec::new(), String::new());
        while samples.len() < MOST_SCHEMES {
            let Some(row) = self.0.row("password_schemes", NEXT, values![after.as_str()]).await? else { break };
            let row = row.of("users", "id");
            after = row.text("password_scheme")?;
            samples.push(row.text("password_hash")?);
        }
        Ok(samples)
    }
}

/// The part of a stored hash before its salt. In a PHC string, all but the last two fields. In bcrypt's form, which
/// joins salt and output, all but the last field.
pub(super) fn scheme_of(hash: &str) -> &str {
    let fields = if hash.starts_with("$2") { 1 } else { 2 };
    hash.rsplitn(fields + 1, '$').nth(fields).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p6_the_scheme_of_a_hash_is_the_part_before_its_salt() {
        for (hash, scheme) in [
            ("$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$b3V0cHV0", "$argon2id$v=19$m=19456,t=2,p=1"),
            ("$scrypt$ln=14,r=8,p=1$c2FsdA$b3V0cHV0", "$scrypt$ln=14,r=8,p=1"),
            ("$pbkdf2-sha256$i=29000,l=32$c2FsdA$b3V0cHV0", "$pbkdf2-sha256$i=29000,l=32"),
            ("$2b$12$z8aqxIoWmhCWl.JLerepfeo41Bj8DTBraSPFL3Tok6sTPyMybsvRm", "$2b$12"),
            ("not a hash", ""),
            ("$", ""),
        ] {
            assert_eq!(scheme_of(hash), scheme, "{hash}");
        }
    }
}
