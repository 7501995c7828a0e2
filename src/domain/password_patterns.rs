//! Patterns that make a short password long: repetitions, runs, keyboard rows and character substitutions.

use zeroize::Zeroizing;

/// Rows and columns of common keyboards.
const ROWS: [&str; 12] = [
    "qwertyuiop[]",
    "qwertzuiopü+",
    "azertyuiop",
    "asdfghjkl;'",
    "zxcvbnm,./",
    "yxcvbnm,.-",
    "1qaz0p;/",
    "2wsx9ol.",
    "3edc8ik,",
    "4rfv7ujm",
    "5tgb6yhn",
    "!@#$%^&*()_+",
];
/// Shortest run. Two neighbouring characters are often accidental.
const SHORTEST_RUN: usize = 3;
/// Number of characters that a run of any length counts for.
const RUN_WORTH: usize = 2;
/// Digits and signs that replace letters. `1` and `!` each replace two letters, so a text has two readings.
const DISGUISES: [(char, [char; 2]); 11] = [
    ('0', ['o', 'o']),
    ('1', ['i', 'l']),
    ('!', ['i', 'l']),
    ('|', ['i', 'l']),
    ('3', ['e', 'e']),
    ('4', ['a', 'a']),
    ('@', ['a', 'a']),
    ('5', ['s', 's']),
    ('$', ['s', 's']),
    ('7', ['t', 't']),
    ('8', ['b', 'b']),
];

/// Number of characters of a lower-case text after simplification. A repetition counts once. A run of equal,
/// consecutive or neighbouring characters counts as [`RUN_WORTH`].
pub(super) fn substance(lower: &str) -> usize {
    let characters: Zeroizing<Vec<char>> = repeated_unit(lower).chars().collect::<Vec<_>>().into();
    let mut worth = 0;
    let mut start = 0;
    while let Some(first) = characters.get(start) {
        let rest = &characters[start..];
        let run = [0, 1, -1].map(|step| run_length(rest, step)).into_iter().max().unwrap_or(1);
        let run = run.max(row_length(rest, *first));
        worth += if run >= SHORTEST_RUN { RUN_WORTH } else { 1 };
        start += if run >= SHORTEST_RUN { run } else { 1 };
    }
    worth
}

/// The shortest prefix whose repetition yields the text; the last repetition may be cut off. The whole text if there
/// is no repetition.
pub(super) fn repeated_unit(text: &str) -> &str {
    let period = text.char_indices().map(|(index, _)| index).skip(1).take_while(|period| 2 * period <= text.len());
    let repeats = |period: &usize| text.as_bytes()[*period..] == text.as_bytes()[..text.len() - period];
    period.into_iter().find(repeats).map_or(text, |period| &text[..period])
}

/// The text with substitutions reversed, in both readings.
pub(super) fn undisguised(lower: &str) -> Vec<Zeroizing<String>> {
    let reading = |which: usize| {
        let lift = |character| {
            DISGUISES
                .iter()
                .find(|(disguise, _)| *disguise == character)
                .map_or(character, |(_, letters)| letters[which])
        };
        Zeroizing::new(lower.chars().map(lift).collect::<String>())
    };
    vec![reading(0), reading(1)]
}

/// Length of the leading run in which each code point is the previous one plus `step`. 0 follows 9.
fn run_length(characters: &[char], step: i32) -> usize {
    let follows = |pair: &&[char]| match (pair[0], pair[1]) {
        ('9', '0') => step == 1,
        ('0', '9') => step == -1,
        (one, next) => next as i32 - one as i32 == step,
    };
    1 + characters.windows(2).take_while(follows).count()
}

/// Length of the longest prefix that follows a keyboard row, forwards or backwards.
fn row_length(characters: &[char], first: char) -> usize {
    let common =
        |row: &mut dyn Iterator<Item = char>| row.zip(characters).take_while(|(key, typed)| key == *typed).count();
    let from_first = |row: &str| {
        let forwards = common(&mut row.chars().skip_while(|key| *key != first));
        let backwards = common(&mut row.chars().rev().skip_while(|key| *key != first));
        forwards.max(backwards)
    };
    ROWS.iter().map(|row| from_first(row)).max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_count_as_two_and_repetitions_once() {
        for (text, worth) in [
            ("", 0),
            ("a", 1),
            ("ab", 2),
            ("abc", 2),
            ("cba", 2),
            ("789012", 2),
            ("aaaaaa", 1),
            ("xaaaax", 4),
            ("qwerty", 2),
            ("poiuyt", 2),
            ("1qaz2wsx", 4),
            ("abcxyzabcxyzab", 4),
            ("correct", 7),
            ("äöü", 3),
        ] {
            assert_eq!(substance(text), worth, "{text}");
        }
    }

    #[test]
    fn a_repetition_may_be_cut_off_at_the_end() {
        assert_eq!(repeated_unit("abcabcab"), "abc");
        assert_eq!(repeated_unit("abcab"), "abcab");
        assert_eq!(repeated_unit("ééé"), "é");
        assert_eq!(repeated_unit(""), "");
    }

    #[test]
    fn disguises_have_two_readings() {
        let readings = undisguised("l1b3rt!");
        assert_eq!((readings[0].as_str(), readings[1].as_str()), ("liberti", "llbertl"));
    }
}
