//! The socket as hyper sees it: hyper gets one complete, valid head at a time. Slow clients are answered 408 or
//! disconnected.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head::{self, Framing, HeadScan};
use super::state::ConnectionState;
use crate::http::error::ProblemCode;

/// Replaces a refused head for hyper. It makes the refusal an ordinary answer, with a request id and a log line. The
/// service recognizes such a request by the refusal in the connection's state.
const REFUSED_HEAD: &[u8] = b"REFUSED * HTTP/1.1\r\nhost: -\r\norigin: ";
/// Limit in bytes of the buffer that an idle connection keeps.
const MAX_IDLE_CAPACITY: usize = 4 * 1024;
/// Bytes that a client may send before the answer to its previous request. With more, nothing is read until the answer
/// is ready, not even the end of the stream.
const MAX_AHEAD_BYTES: usize = 16 * 1024;
/// Limit in bytes of the input discarded after a refusal.
const MAX_LINGER_BYTES: usize = 1024 * 1024;

/// A stream between the client and hyper.
pub(super) struct Wire<S> {
    stream: S,
    state: Arc<ConnectionState>,
    inbound: Inbound,
    /// Bytes read from the socket. Those from `taken` on were not passed to hyper yet.
    held: Vec<u8>,
    taken: usize,
    is_refused: bool,
    /// Whether the client closed its side.
    has_ended: bool,
    lingered: usize,
}

/// The part of a message to which the next byte from the client belongs.
enum Inbound {
    /// A head that is not complete.
    Head(HeadScan),
    /// A valid head of which hyper still gets `head_left` bytes, then its body.
    Message { head_left: usize, body: BodyScan },
    /// A head was refused, so later bytes cannot be trusted.
    Closed,
}

/// Result of one step towards a complete head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The held bytes contain a complete head, valid or refused.
    Accepted,
    /// Bytes were read, and the head is not checked yet.
    Read,
    /// The stream ended, or the client took too long.
    End,
}

enum BodyScan {
    Length(u64),
    /// hyper finds the end. Such a request is the last one of its connection, so the start of the next head does not
    /// matter.
    Chunked,
}

impl Inbound {
    /// Number of `bytes` that belong to the current message.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let Self::Message { head_left, body } = self else { return 0 };
        let of_head = bytes.len().min(*head_left);
        *head_left -= of_head;
        of_head + body.follow(&bytes[of_head..])
    }

    /// Whether hyper has the last byte of the message.
    fn is_message_end(&self) -> bool {
        matches!(self, Self::Message { head_left: 0, body: BodyScan::Length(0) })
    }
}

impl BodyScan {
    fn follow(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Length(left) => {
                let used = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= used as u64;
                used
            }
            Self::Chunked => bytes.len(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S, state: Arc<ConnectionState>) -> Self {
        let inbound = Inbound::Head(HeadScan::default());
        Self { stream, state, inbound, held: Vec::new(), taken: 0, is_refused: false, has_ended: false, lingered: 0 }
    }

    /// Waits for a head without allocating hyper's buffers; false when there will be none.
    pub(super) fn poll_first_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut scratch = [MaybeUninit::uninit(); 2048];
        while let Inbound::Head(_) = self.inbound {
            let mut out = ReadBuf::uninit(&mut scratch);
            if ready!(self.poll_head(context, &mut out))? == Step::End {
                return Poll::Ready(Ok(false));
            }
            self.hold(&mut out, 0);
        }
        Poll::Ready(Ok(true))
    }

    /// One step towards a complete head: checks the held bytes, or else reads into the free part of `out`.
    fn poll_head(&mut self, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<Step>> {
        // Bytes read together with the previous message are checked first.
        self.state.await_head(!self.held().is_empty());
        if self.accept_head() {
            return Poll::Ready(Ok(Step::Accepted));
        }
        let filled = out.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, out) {
            Poll::Ready(result) => result?,
            Poll::Pending if !self.state.read_is_overdue() => return Poll::Pending,
            Poll::Pending if self.held().is_empty() => return Poll::Ready(Ok(Step::End)),
            Poll::Pending => {
                self.refuse(ProblemCode::RequestTimeout);
                return Poll::Ready(Ok(Step::Accepted));
            }
        }
        Poll::Ready(Ok(if out.filled().len() == filled { Step::End } else { Step::Read }))
    }

    /// Moves the bytes of `out` after the first `kept` to the held bytes.
    fn hold(&mut self, out: &mut ReadBuf<'_>, kept: usize) {
        let fresh = &out.filled()[kept..];
        // A client decides how far this grows, so it grows exactly.
        self.held.reserve_exact(fresh.len());
        self.held.extend_from_slice(fresh);
        out.set_filled(kept);
    }

    /// Checks the bytes of `out` after the first `filled`. In the usual case, a valid head in one piece, they stay in
    /// `out` with the body bytes behind it: true. All other bytes are held.
    fn keep_whole_head(&mut self, out: &mut ReadBuf<'_>, filled: usize) -> bool {
        let used = if self.held().is_empty() { self.accept_whole(&out.filled()[filled..]) } else { None };
        self.hold(out, filled + used.unwrap_or(0));
        self.settle();
        used.is_some()
    }

    /// Accepts a valid head at the start of `fresh`, with the body bytes behind it; returns their length. `None` when
    /// the head is incomplete, invalid or not at the start: such bytes are checked as held bytes.
    fn accept_whole(&mut self, fresh: &[u8]) -> Option<usize> {
        let length = HeadScan::default().advance(fresh).ok().flatten()?;
        let framing = head::screen(&fresh[..length]).ok()?;
        self.begin(length, framing);
        Some(self.inbound.follow(fresh))
    }

    fn begin(&mut self, head_left: usize, framing: Framing) {
        let body = match framing {
            Framing::Length(length) => BodyScan::Length(length),
            Framing::Chunked => BodyScan::Chunked,
        };
        self.state.begin_request(framing != Framing::Length(0), framing == Framing::Chunked, None);
        self.inbound = Inbound::Message { head_left, body };
    }

    /// Searches the held bytes for the end of a head; true when a head was accepted or refused.
    fn accept_head(&mut self) -> bool {
        let Inbound::Head(scan) = &mut self.inbound else { return true };
        // Empty lines before a request line are ignored (RFC 9112 §2.2).
        while scan.is_at_first_line() && self.held[self.taken..].starts_with(b"\r\n") {
            self.held.drain(..self.taken + 2);
            self.taken = 0;
            *scan = HeadScan::default();
        }
        let held = &self.held[self.taken..];
        let verdict = match scan.advance(held) {
            Ok(None) => return false,
            Ok(Some(length)) => head::screen(&held[..length]).map(|framing| (length, framing)),
            Err(code) => Err(code),
        };
        match verdict {
            Ok((head_left, framing)) => self.begin(head_left, framing),
            Err(code) => self.refuse(code),
        }
        true
    }

    fn refuse(&mut self, code: ProblemCode) {
        let refusal = self.state.refusal(code, &head::path_of(self.held()));
        self.state.begin_request(false, true, Some(refusal));
        let origin = head::origin_of(self.held());
        self.held = [REFUSED_HEAD, origin.unwrap_or_default(), b"\r\n\r\n"].concat();
        self.taken = 0;
        self.is_refused = true;
        self.inbound = Inbound::Message { head_left: self.held.len(), body: BodyScan::Length(0) };
    }

    /// Passes head and body to hyper as they arrive. Returns ready without a byte at the end of the stream or of the
    /// message.
    fn poll_message(&mut self, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held().is_empty() {
            let filled = out.filled().len();
            match Pin::new(&mut self.stream).poll_read(context, out) {
                Poll::Ready(result) => result?,
                Poll::Pending if self.state.read_is_overdue() => {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending => return Poll::Pending,
            }
            let used = self.inbound.follow(&out.filled()[filled..]);
            self.hold(out, filled + used);
        } else {
            let end = self.held.len().min(self.taken + out.remaining());
            let used = self.inbound.follow(&self.held[self.taken..end]);
            out.put_slice(&self.held[self.taken..self.taken + used]);
            self.release(used);
        }
        self.settle();
        Poll::Ready(Ok(()))
    }

    /// Waits for the end of the stream while a request is in flight, and holds bytes that the client sends early. Ready
    /// when the client has disconnected, or when its closed side has exceeded its time limit.
    pub(super) fn poll_hang_up(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [MaybeUninit::uninit(); 2048];
        while !self.has_ended && self.held().len() < MAX_AHEAD_BYTES {
            let mut ahead = ReadBuf::uninit(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut ahead)) {
                Ok(()) => self.has_ended = ahead.filled().is_empty(),
                Err(_) => return Poll::Ready(()),
            }
            self.hold(&mut ahead, 0);
        }
        if self.has_ended && self.state.has_hung_up() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Expects the next head after the last byte of a message.
    fn settle(&mut self) {
        if self.inbound.is_message_end() {
            self.state.complete_body();
            self.inbound = if self.is_refused { Inbound::Closed } else { Inbound::Head(HeadScan::default()) };
        }
    }

    fn held(&self) -> &[u8] {
        &self.held[self.taken..]
    }

    fn release(&mut self, used: usize) {
        self.taken += used;
        if self.taken == self.held.len() {
            self.held.clear();
            self.held.shrink_to(MAX_IDLE_CAPACITY);
            self.taken = 0;
        }
    }

    /// Reads and discards the rest of a refused request.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.state.linger();
        let mut scratch = [MaybeUninit::uninit(); 4096];
        while self.lingered < MAX_LINGER_BYTES {
            let mut discarded = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(context, &mut discarded) {
                Poll::Pending if !self.state.read_is_overdue() => return Poll::Pending,
                Poll::Ready(Ok(())) if !discarded.filled().is_empty() => self.lingered += discarded.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(())
    }

    /// Passes bytes to hyper: of a head when it is complete, of a body as they arrive.
    fn poll_read(&mut self, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.inbound {
                Inbound::Closed => return Poll::Ready(Ok(())),
                Inbound::Message { .. } => return self.poll_message(context, out),
                Inbound::Head(_) => {
                    let filled = out.filled().len();
                    let step = ready!(self.poll_head(context, out))?;
                    if step == Step::End || (step == Step::Read && self.keep_whole_head(out, filled)) {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }

    fn check_write<T>(&self, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match progress {
            Poll::Pending if self.state.write_is_stalled() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => {
                self.state.write_progressed();
                Poll::Ready(result)
            }
        }
    }
}

/// A wire shared by hyper and the connection's driver. Both run in one task, so the lock is never contended.
pub(super) struct SharedWire<S>(Arc<Mutex<Wire<S>>>);

impl<S> SharedWire<S> {
    pub(super) fn new(wire: Wire<S>) -> Self {
        Self(Arc::new(Mutex::new(wire)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Wire<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Clone for SharedWire<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for SharedWire<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_read(context, out)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for SharedWire<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.lock();
        let progress = Pin::new(&mut wire.stream).poll_write(context, bytes);
        wire.check_write(progress)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.lock();
        let progress = Pin::new(&mut wire.stream).poll_flush(context);
        wire.check_write(progress)
    }

    /// Closes the server's side, then waits a little for a refused client to close its own.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.lock();
        let progress = Pin::new(&mut wire.stream).poll_shutdown(context);
        ready!(wire.check_write(progress))?;
        if wire.state.must_linger() {
            ready!(wire.poll_linger(context));
        }
        Poll::Ready(Ok(()))
    }
}
