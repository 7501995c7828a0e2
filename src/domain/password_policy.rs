//! The policy for new passwords. Logins do not apply it: a user keeps a password that the current policy would
//! refuse.

use zeroize::Zeroizing;

use super::{Password, Username, common_passwords, password_patterns};

/// Minimum length of a password after names and patterns are removed. NIST's minimum for any password (SP 800-63B
/// §3.1.1.2).
const LEAST_SUBSTANCE: usize = 8;
/// Shorter names occur in other words by chance.
const SHORTEST_NAME: usize = 4;
/// Maximum number of digits and signs around a common password that are ignored when the list is searched.
const MAX_DECORATION: usize = 8;
/// Labels of host names that are not names of a service.
const GENERIC_LABELS: [&str; 4] = ["auth", "login", "account", "localhost"];

/// The rules for new passwords: a minimum length, no common password, and no password built from the user's or the
/// service's name. There are no rules about kinds of characters, and passwords do not expire (NIST SP 800-63B
/// §3.1.1.2).
#[derive(Debug, Clone)]
pub struct PasswordPolicy {
    min_length: usize,
    service_names: Vec<String>,
}

/// Why a new password is refused. The text is for the person who chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PolicyRefusal {
    #[error("the password is too short: at least {min_length} characters are needed")]
    TooShort { min_length: usize },
    /// On the list of common passwords, or a pattern such as a keyboard row or a repetition.
    #[error("the password is one that many people use or that follows a simple pattern; choose another")]
    TooCommon,
    /// Little more than the user's or the service's name.
    #[error("the password is little more than the user name or the name of this service; choose another")]
    ContainsName,
}

impl PasswordPolicy {
    /// The labels of `issuer_host` count as names of the service.
    pub fn new(min_length: usize, issuer_host: &str) -> Self {
        let mut service_names = names_in(issuer_host);
        service_names.retain(|name| !GENERIC_LABELS.contains(&name.as_str()));
        service_names.push("countersign".to_owned());
        Self { min_length, service_names }
    }

    /// Checks a new password of this user (security.md P4).
    pub fn check(&self, password: &Password, username: &Username) -> Result<(), PolicyRefusal> {
        if password.chars() < self.min_length {
            return Err(PolicyRefusal::TooShort { min_length: self.min_length });
        }
        let lower = Zeroizing::new(password.as_str().to_lowercase());
        let user_names = names_in(username.as_str());
        if self.service_names.iter().chain(&user_names).any(|name| is_little_more_than(&lower, name)) {
            return Err(PolicyRefusal::ContainsName);
        }
        if password_patterns::substance(&lower) < LEAST_SUBSTANCE || is_common(&lower) {
            return Err(PolicyRefusal::TooCommon);
        }
        Ok(())
    }
}

/// A name in lower case, and its parts: `jane.doe@example.com` also yields `jane` and `example`.
fn names_in(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let parts = lower.split(|character: char| !character.is_alphanumeric());
    let mut names: Vec<String> = parts.map(str::to_owned).chain([lower.clone()]).collect();
    names.extend(lower.split_once('@').map(|(local, _)| local.to_owned()));
    names.retain(|name| name.chars().count() >= SHORTEST_NAME);
    names
}

/// Whether fewer than [`LEAST_SUBSTANCE`] letters and digits are left without the name. Covers the name reversed and
/// with substituted characters.
fn is_little_more_than(lower: &str, name: &str) -> bool {
    let reversed: String = name.chars().rev().collect();
    let mut spellings = password_patterns::undisguised(lower);
    spellings.push(lower.to_owned().into());
    spellings.iter().any(|spelling| {
        [name, &reversed].into_iter().any(|name| {
            let rest = Zeroizing::new(spelling.replace(name, ""));
            let substance = rest.chars().filter(|character| character.is_alphanumeric()).count();
            rest.len() < spelling.len() && substance < LEAST_SUBSTANCE
        })
    })
}

/// Whether the text is a common password after simplification. The text is tried whole, without signs and spaces, and
/// reduced to its repeated part. In each of these, [`is_decorated`] removes decoration and reverses substitutions.
fn is_common(lower: &str) -> bool {
    let core = lower.trim_matches(is_decoration);
    let spaceless: Zeroizing<String> = lower.chars().filter(|sign| sign.is_alphanumeric()).collect::<String>().into();
    let texts = [lower, &spaceless, password_patterns::repeated_unit(lower), password_patterns::repeated_unit(core)];
    texts.into_iter().any(is_decorated)
}

fn is_decorated(text: &str) -> bool {
    let mut readings = password_patterns::undisguised(text);
    readings.push(text.to_owned().into());
    let starts = decoration_ends(text.chars());
    let ends = decoration_ends(text.chars().rev());
    starts.iter().enumerate().any(|(leading, start)| {
        ends.iter().take(MAX_DECORATION + 1 - leading).any(|end| {
            let core = *start..text.len() - end.min(&(text.len() - start));
            readings.iter().any(|reading| reading.get(core.clone()).is_some_and(common_passwords::contains))
        })
    })
}

/// Byte lengths of the first 0, 1, 2 … decorating characters, [`MAX_DECORATION`] at most.
fn decoration_ends(characters: impl Iterator<Item = char>) -> Vec<usize> {
    let mut ends = vec![0];
    for character in characters.take_while(|character| is_decoration(*character)).take(MAX_DECORATION) {
        ends.push(ends.last().unwrap_or(&0) + character.len_utf8());
    }
    ends
}

fn is_decoration(character: char) -> bool {
    !character.is_alphabetic()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(password: &str, username: &str) -> Result<(), &'static str> {
        let policy = PasswordPolicy::new(12, "login.acme-corp.example");
        let password = Password::parse(password).unwrap();
        policy.check(&password, &Username::parse(username).unwrap()).map_err(|refusal| match refusal {
            PolicyRefusal::TooShort { .. } => "too_short",
            PolicyRefusal::TooCommon => "too_common",
            PolicyRefusal::ContainsName => "contains_name",
        })
    }

    #[test]
    fn p2_the_minimum_length_counts_characters() {
        assert_eq!(check("x7!kQ9#mZ2w", "somebody"), Err("too_short"));
        assert_eq!(check("x7!kQ9#mZ2wé", "somebody"), Ok(()));
        assert_eq!(check("🦀🦀🦀", "somebody"), Err("too_short"));
        let said = PolicyRefusal::TooShort { min_length: 12 }.to_string();
        assert!(said.contains("12"), "{said}");
    }

    #[test]
    fn p4_decorated_common_passwords_are_refused() {
        for common in [
            "password1234",
            "Password2024!",
            "P@ssw0rd1234",
            "p4$$w0rd!!!!",
            "1234password",
            "!!!letmein!!!",
            "Dragon-2024-!",
            "passwordpassword",
            "MonkeyMonkeyMonkey",
            "p.a.s.s.w.o.r.d",
            "pass word 2024",
            "Sunshine!2023",
            "1q2w3e4r5t6y",
            "iloveyou2024",
            "trustno1trustno1",
            "b@sk3tb411!!",
        ] {
            assert_eq!(check(common, "somebody"), Err("too_common"), "{common}");
        }
    }

    #[test]
    fn p4_every_word_of_the_list_with_a_suffix_is_refused() {
        let policy = PasswordPolicy::new(8, "localhost");
        let user = Username::parse("zaphod").unwrap();
        for word in include_str!("common_passwords.txt").lines() {
            let typed = Password::parse(&format!("{word}1234!")).unwrap();
            assert!(policy.check(&typed, &user).is_err(), "{word}");
        }
    }

    #[test]
    fn p4_patterns_are_refused() {
        for pattern in [
            "aaaaaaaaaaaaaaa",
            "123456789012",
            "qwertyuiop12",
            "QWERTZUIOPÜ12",
            "abcdefgh1234",
            "zyxwvutsrqpo",
            "abcabcabcabcabc",
            "1qaz2wsx3edc",
            "asdfghjkl;'12",
            "121212121212",
            "x!7x!7x!7x!7",
            "          1  ",
        ] {
            assert_eq!(check(pattern, "somebody"), Err("too_common"), "{pattern}");
        }
    }

    #[test]
    fn p4_decorated_names_of_the_user_and_the_service_are_refused() {
        for (password, user) in [
            ("janedoe-2024", "janedoe"),
            ("JaneDoe!!!!!", "janedoe"),
            ("J4n3D03!2024", "janedoe"),
            ("eodenaj12345", "janedoe"),
            ("janedoejanedoe", "janedoe"),
            ("jane.doe@example.com", "jane.doe@example.com"),
            ("Example-12345", "jane@example.com"),
            ("countersign1", "somebody"),
            ("C0unters1gn!", "somebody"),
            ("acme-2024-!!", "somebody"),
        ] {
            assert_eq!(check(password, user), Err("contains_name"), "{password}");
        }
    }

    #[test]
    fn p4_long_passphrases_may_mention_a_name_or_a_common_word() {
        for good in [
            "correct horse battery staple",
            "jane likes purple walruses",
            "my password is not a secret",
            "countersign is where I work",
            "x7!kQ9#mZ2w-",
            "Пароль-на-долгие-годы",
            "東京の夜は長くて静かだった",
            "9f86d081884c7d65",
            "bananas and 42 monkeys",
        ] {
            assert_eq!(check(good, "jane"), Ok(()), "{good}");
        }
        assert_eq!(check("a bob-tailed dog 7", "bob"), Ok(()), "short names occur by chance");
    }

    proptest::proptest! {
        #[test]
        fn p4_checking_never_panics(text in "\\PC{1,80}", name in "[a-z@.]{1,30}") {
            if let (Ok(password), Ok(user)) = (Password::parse(&text), Username::parse(&name)) {
                let _ = PasswordPolicy::new(8, "auth.example.com").check(&password, &user);
            }
        }
    }
}
