//! Where a chunked body ends (RFC 9112 §7.1): followed only to know where the next head begins. The HTTP library decodes
//! the body and refuses it when it is malformed.

/// Follows the framing of a chunked body, byte by byte of framing and skipping data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkScan {
    /// In the size of a chunk.
    Size(u64),
    /// In a chunk's extension, up to its line feed.
    Extension(u64),
    /// In the data of a chunk, with this many bytes to go, its line end included.
    Data(u64),
    /// In the trailer section, at the start of a line.
    LineStart,
    /// In the trailer section, after a line's first byte.
    Line,
    /// In the trailer section, after the carriage return of an empty line.
    EmptyLine,
    /// Past the end.
    Done,
    /// Not a chunked body: everything from here on is left to the HTTP library, which closes the connection.
    Broken,
}

impl ChunkScan {
    /// At the start of a body.
    pub(super) const START: Self = Self::Size(0);

    /// Follows `bytes`; returns how many of them belong to the body.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() && *self != Self::Done {
            used += match self {
                Self::Broken => bytes.len() - used,
                Self::Data(left) => {
                    let skipped = (bytes.len() - used).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= skipped as u64;
                    if *left == 0 {
                        *self = Self::Size(0);
                    }
                    skipped
                }
                _ => {
                    *self = self.after(bytes[used]);
                    1
                }
            };
        }
        used
    }

    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Size(size), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if size <= u64::MAX >> 8 => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Self::Size(size * 16 + u64::from(digit))
            }
            (Self::Size(size) | Self::Extension(size), b'\n') if size == 0 => Self::LineStart,
            (Self::Size(size) | Self::Extension(size), b'\n') => Self::Data(size + 2),
            (Self::Size(size), b';' | b' ' | b'\t' | b'\r') | (Self::Extension(size), _) => Self::Extension(size),
            (Self::LineStart, b'\r') => Self::EmptyLine,
            (Self::LineStart | Self::Line, b'\n') => Self::LineStart,
            (Self::LineStart | Self::Line, _) => Self::Line,
            (Self::EmptyLine, b'\n') => Self::Done,
            _ => Self::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body_length(bytes: &[u8]) -> Option<usize> {
        let mut scan = ChunkScan::START;
        let used = scan.advance(bytes);
        (scan == ChunkScan::Done).then_some(used)
    }

    #[test]
    fn h9_the_next_head_begins_right_after_the_last_chunk() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "5;name=value\r\nhello\r\n00\r\n\r\n",
            "A\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n",
            "1\r\na\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n",
        ] {
            let with_next = format!("{body}GET / HTTP/1.1\r\n");
            assert_eq!(body_length(with_next.as_bytes()), Some(body.len()), "{body:?}");
        }
    }

    #[test]
    fn h9_what_is_not_chunked_never_ends() {
        for body in ["x\r\n", "-1\r\n", "5hello", "FFFFFFFFFFFFFFFFF\r\n"] {
            assert_eq!(body_length(format!("{body}0\r\n\r\n").as_bytes()), None, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn h9_the_end_is_the_same_however_the_body_is_cut(
            chunks in prop::collection::vec("[a-z\r\n0]{1,20}", 0..4), cut in 0_usize..80,
        ) {
            let mut body: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
            body.push_str("0\r\n\r\n");
            let length = body.len();
            body.push_str("rest");
            let (first, second) = body.as_bytes().split_at(cut.min(body.len()));
            let mut scan = ChunkScan::START;
            let used = scan.advance(first) + scan.advance(second);
            prop_assert_eq!((used, scan), (length, ChunkScan::Done));
        }

        #[test]
        fn h9_following_never_panics(bytes: Vec<u8>) {
            let _ = body_length(&bytes);
        }
    }
}
