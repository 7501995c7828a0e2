//! The list of common passwords.

/// 30,000 passwords from published breaches: lower-case ASCII, one per line, in byte order. It is the list by which the
/// estimator zxcvbn ranks passwords (MIT; see `common_passwords.LICENSE`). The text is embedded in the program and
/// searched in place.
static LIST: &str = include_str!("common_passwords.txt");

/// Whether the list contains exactly this word, which must be lower-case.
pub(super) fn contains(word: &str) -> bool {
    let (mut low, mut high) = (0, LIST.len());
    // Invariant: `low` and `high` are beginnings of lines, and the word can only be between them.
    while low < high {
        let middle = low + (high - low) / 2;
        let start = LIST.as_bytes()[low..middle].iter().rposition(|byte| *byte == b'\n').map_or(low, |at| low + at + 1);
        let end = LIST.as_bytes()[middle..high].iter().position(|byte| *byte == b'\n').map_or(high, |at| middle + at);
        match LIST[start..end].cmp(word) {
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Less => low = end + 1,
            std::cmp::Ordering::Greater => high = start,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p4_every_listed_word_is_found_and_near_misses_are_not() {
        let mut lines = 0;
        for word in LIST.lines() {
            assert!(contains(word), "{word}");
            assert!(!contains(&format!("{word}\u{7f}")), "{word}");
            lines += 1;
        }
        assert!(lines >= 3000, "{lines}");
        for absent in ["", "\n", "zzzzzzzzzzzz~", "password\n", "Password", "ÿ"] {
            assert!(!contains(absent), "{absent:?}");
        }
    }

    #[test]
    fn the_list_is_sorted_lower_case_ascii_without_duplicates() {
        let words: Vec<&str> = LIST.lines().collect();
        assert!(words.is_sorted_by(|one, next| one < next));
        assert!(
            words.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()))
        );
        assert!(LIST.ends_with('\n'));
    }
}
