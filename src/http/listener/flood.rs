//! A limit on HTTP/2 frames that carry neither a request nor its body (security.md H10). The `h2` crate answers or
//! ignores any number of them. Here a peer that sends too many loses its connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::state::CoarseInstant;

/// The client's connection preface (RFC 9113 §3.4), which precedes the first frame.
const PREFACE_BYTES: usize = 24;
/// Length of a frame header (RFC 9113 §4.1).
const HEADER_BYTES: usize = 9;
/// Frame types that carry a request or its body (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
/// Initial and maximum budget of frames without a request. A connection of 128 streams may reset each and update its
/// window.
const BURST: u32 = 512;
/// Budget regained with each request: window updates, a reset, a PING that measures latency.
const PER_REQUEST: u32 = 8;
/// Budget regained with each second: keep-alive and acknowledgements.
const PER_SECOND: u32 = 16;

/// A stream that counts the HTTP/2 frames of the peer.
pub(super) struct Frames<S> {
    stream: S,
    budget: Budget,
    /// Payload bytes left before the next frame header.
    skipped: usize,
    header: [u8; HEADER_BYTES],
    /// Bytes of `header` read so far.
    read: usize,
}

/// Frames without a request that the peer may still send.
struct Budget {
    left: u32,
    since: CoarseInstant,
}

impl Budget {
    /// Counts a frame; false when the peer has sent too many.
    fn admits(&mut self, kind: u8, length: usize) -> bool {
        match kind {
            HEADERS => self.left = (self.left + PER_REQUEST).min(BURST),
            DATA if length > 0 => {}
            _ if self.left == 0 && !self.refill() => return false,
            _ => self.left -= 1,
        }
        true
    }

    fn refill(&mut self) -> bool {
        let now = CoarseInstant::now();
        let seconds = u32::try_from(now.since(self.since).as_secs()).unwrap_or(u32::MAX);
        self.left = seconds.saturating_mul(PER_SECOND).min(BURST);
        self.since = now;
        self.left > 0
    }
}

impl<S> Frames<S> {
    pub(super) fn new(stream: S) -> Self {
        let budget = Budget { left: BURST, since: CoarseInstant::now() };
        Self { stream, budget, skipped: PREFACE_BYTES, header: [0; HEADER_BYTES], read: 0 }
    }

    /// Counts the frames in `bytes`; false when too many carry no request.
    fn follow(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let skipped = self.skipped.min(bytes.len());
            self.skipped -= skipped;
            bytes = &bytes[skipped..];
            let copied = bytes.len().min(HEADER_BYTES - self.read);
            self.header[self.read..self.read + copied].copy_from_slice(&bytes[..copied]);
            self.read += copied;
            bytes = &bytes[copied..];
            if self.read == HEADER_BYTES {
                let [high, middle, low, kind, ..] = self.header;
                self.skipped = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                self.read = 0;
                if !self.budget.admits(kind, self.skipped) {
                    return false;
                }
            }
        }
        true
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let filled = out.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, out))?;
        if this.follow(&out.filled()[filled..]) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Ready(Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many frames without a request")))
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let [.., high, middle, low] = length.to_be_bytes();
        [&[high, middle, low, kind, 0, 0, 0, 0, 1][..], &vec![0xFF; length]].concat()
    }

    fn sends(frames: &[u8]) -> Vec<u8> {
        [&[0; PREFACE_BYTES][..], frames].concat()
    }

    #[test]
    fn h10_frames_without_a_request_are_bounded_and_requests_and_bodies_are_not() {
        let most = BURST as usize;
        for (bytes, expected) in [
            (frame(PING, 8).repeat(most), true),
            (frame(PING, 8).repeat(most + 1), false),
            (frame(4, 0).repeat(most + 1), false),
            (frame(DATA, 0).repeat(most + 1), false),
            (frame(200, 3).repeat(most + 1), false),
            (frame(DATA, 20).repeat(most * 4), true),
            ([frame(HEADERS, 5), frame(PING, 8).repeat(8)].concat().repeat(most), true),
        ] {
            let mut frames = Frames::new(());
            // The refill uses real time; this test takes less than a second.
            assert_eq!(frames.follow(&sends(&bytes)), expected, "{:?}", &bytes[..9]);
        }
    }

    proptest! {
        #[test]
        fn h10_the_count_of_frames_does_not_depend_on_how_the_stream_is_split(
            kinds in prop::collection::vec((0_u8..12, 0_usize..40), 0..40), cut in 0_usize..400,
        ) {
            let bytes = sends(&kinds.iter().flat_map(|(kind, length)| frame(*kind, *length)).collect::<Vec<_>>());
            let (mut whole, mut pieces) = (Frames::new(()), Frames::new(()));
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            prop_assert!(whole.follow(&bytes));
            prop_assert!(pieces.follow(first) && pieces.follow(second));
            prop_assert_eq!((whole.budget.left, whole.skipped), (pieces.budget.left, pieces.skipped));
        }
    }
}
