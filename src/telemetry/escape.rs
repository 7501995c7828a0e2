//! Escapes untrusted text for log lines (security.md S3).

use std::io::Write;

/// The maximum length of one value in bytes. Longer values are cut, so that a line stays bounded. The service's own
/// values are shorter.
const LONGEST_VALUE: usize = 4096;

/// Appends `text` as a JSON string.
pub(super) fn write_json(line: &mut Vec<u8>, text: &str) {
    line.push(b'"');
    write_escaped(line, text, |line, char| {
        let mut units = [0; 2];
        for unit in char.encode_utf16(&mut units) {
            let _ = write!(line, "\\u{unit:04x}");
        }
    });
    line.push(b'"');
}

/// Appends `text` as a value of a text line: unquoted if it is one plain word, otherwise in quotes.
pub(super) fn write_text(line: &mut Vec<u8>, text: &str) {
    let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\=".contains(&byte));
    if is_word && text.len() <= LONGEST_VALUE {
        line.extend_from_slice(text.as_bytes());
        return;
    }
    line.push(b'"');
    write_bare(line, text);
    line.push(b'"');
}

/// Appends `text` without quotes, for the message of a text line.
pub(super) fn write_bare(line: &mut Vec<u8>, text: &str) {
    write_escaped(line, text, |line, char| {
        let _ = write!(line, "\\u{{{:x}}}", u32::from(char));
    });
}

fn write_escaped(line: &mut Vec<u8>, text: &str, escape: fn(&mut Vec<u8>, char)) {
    let end = text.floor_char_boundary(LONGEST_VALUE);
    let kept = &text[..end];
    // There is no early exit, so that the compiler can vectorise the loop.
    let is_plain = kept
        .bytes()
        .fold(true, |is_plain, byte| is_plain & matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\'));
    if is_plain {
        line.extend_from_slice(kept.as_bytes());
    } else {
        for char in kept.chars() {
            match char {
                '"' | '\\' => line.extend_from_slice(&[b'\\', char as u8]),
                '\n' => line.extend_from_slice(b"\\n"),
                char if is_deceptive(char) => escape(line, char),
                char => line.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
    if end < text.len() {
        line.extend_from_slice("…".as_bytes());
    }
}

/// Whether a character could end a line, control a terminal, reorder the text, or be invisible.
const fn is_deceptive(char: char) -> bool {
    matches!(char,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}'  // C0, DEL, C1: escape sequences among them
        | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'                 // zero width, direction marks
        | '\u{2028}'..='\u{202e}'                 // line and paragraph separators, bidi embeddings and overrides
        | '\u{2060}'..='\u{206f}'                 // invisible operators, bidi isolates
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}'               // tags and variation selectors
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(text: &str) -> String {
        let mut line = Vec::new();
        write_json(&mut line, text);
        String::from_utf8(line).unwrap()
    }

    proptest! {
        #[test]
        fn s3_every_json_value_round_trips_and_contains_no_control_or_bidi_character(text in any::<String>()) {
            let written = json(&text);
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text.as_str());
            prop_assert!(!written.chars().any(is_deceptive));
        }

        #[test]
        fn s3_a_text_value_is_one_line_without_control_or_bidi_characters(text in any::<String>()) {
            let mut line = Vec::new();
            write_text(&mut line, &text);
            let written = String::from_utf8(line).unwrap();
            prop_assert!(!written.chars().any(is_deceptive));
            prop_assert!(written.starts_with('"') || !written.contains([' ', '=', '"']));
        }
    }

    #[test]
    fn s3_line_ends_ansi_and_bidi_are_escaped() {
        let text = "a\nb\r\u{1b}[31m\u{2028}\u{202e}\u{e0041}é\"\\";
        assert_eq!(json(text), "\"a\\nb\\u000d\\u001b[31m\\u2028\\u202e\\udb40\\udc41é\\\"\\\\\"");
        let mut line = Vec::new();
        write_text(&mut line, text);
        assert_eq!(String::from_utf8(line).unwrap(), r#""a\nb\u{d}\u{1b}[31m\u{2028}\u{202e}\u{e0041}é\"\\""#);
    }

    #[test]
    fn a_value_of_any_length_stays_bounded() {
        let written = json(&"é".repeat(1_000_000));
        assert!(written.len() < LONGEST_VALUE + 16 && written.ends_with("…\""));
    }
}
