//! The socket as the HTTP library sees it: heads are handed over whole, one at a time and only when they are sound. Clients that
//! are too slow are answered 408 or cut off.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head::{self, Framing, HeadScan};
use super::vitals::Vitals;
use crate::http::error::ProblemCode;

/// What the HTTP library is handed in place of a head that was refused: it makes the refusal an ordinary answer, with a
/// request id and a line in the log. The service knows such a request by the refusal in the connection's state.
const REFUSED_HEAD: &[u8] = b"REFUSED * HTTP/1.1\r\nhost: -\r\norigin: ";
/// Bytes that an idle connection keeps allocated at most.
const MAX_IDLE_CAPACITY: usize = 4 * 1024;
/// Bytes that a client may send ahead of an answer. Beyond it nothing is read until the answer is made, not even the end of the
/// stream.
const MAX_AHEAD_BYTES: usize = 16 * 1024;
/// Bytes that are thrown away after a refusal at most.
const MAX_LINGER_BYTES: usize = 1024 * 1024;

/// A stream between client and HTTP library.
pub(super) struct Wire<S> {
    stream: S,
    vitals: Arc<Vitals>,
    inbound: Inbound,
    /// Bytes that were read and not handed over yet begin at `taken`.
    held: Vec<u8>,
    taken: usize,
    is_refused: bool,
    /// Whether the client closed its side.
    has_ended: bool,
    lingered: usize,
}

/// What the next byte from the client belongs to.
enum Inbound {
    /// A head that is not complete.
    Head(HeadScan),
    /// A sound head of which this many bytes are still to be handed over, then its body.
    Message { head_left: usize, body: BodyScan },
    /// Nothing: a head was refused, and nothing behind it can be trusted.
    Closed,
}

/// What came of one step towards a complete head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There is one, sound or refused, among the bytes that are held.
    Accepted,
    /// Bytes were read.
    Read,
    /// There will be none.
    End,
}

enum BodyScan {
    Length(u64),
    /// The HTTP library finds the end. Such a request is the last one of its connection, so no head follows that would have to be
    /// found here.
    Chunked,
}

impl Inbound {
    /// How many of `bytes` belong to the message that is being handed over.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let Self::Message { head_left, body } = self else { return 0 };
        let of_head = bytes.len().min(*head_left);
        *head_left -= of_head;
        of_head + body.follow(&bytes[of_head..])
    }

    /// Whether the last byte of the message was handed over.
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
    pub(super) fn new(stream: S, vitals: Arc<Vitals>) -> Self {
        let inbound = Inbound::Head(HeadScan::default());
        Self { stream, vitals, inbound, held: Vec::new(), taken: 0, is_refused: false, has_ended: false, lingered: 0 }
    }

    /// Waits for a head without the HTTP library and its buffers; false when there will be none.
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

    /// One step towards a complete head: what is held is looked at, or else something is read into the free part of `out`.
    fn poll_head(&mut self, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<Step>> {
        // What came along with the previous message is looked at before anything is read.
        self.vitals.await_head(!self.held().is_empty());
        if self.accept_head() {
            return Poll::Ready(Ok(Step::Accepted));
        }
        let filled = out.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, out) {
            Poll::Ready(result) => result?,
            Poll::Pending if !self.vitals.read_is_overdue() => return Poll::Pending,
            Poll::Pending if self.held().is_empty() => return Poll::Ready(Ok(Step::End)),
            Poll::Pending => {
                self.refuse(ProblemCode::RequestTimeout);
                return Poll::Ready(Ok(Step::Accepted));
            }
        }
        Poll::Ready(Ok(if out.filled().len() == filled { Step::End } else { Step::Read }))
    }

    /// Holds back what was read into `out` behind its first `kept` bytes.
    fn hold(&mut self, out: &mut ReadBuf<'_>, kept: usize) {
        let fresh = &out.filled()[kept..];
        // A client decides how far this grows: no more than needed.
        self.held.reserve_exact(fresh.len());
        self.held.extend_from_slice(fresh);
        out.set_filled(kept);
    }

    /// Looks at what was just read into `out` behind its first `filled` bytes. The usual case, a sound head in one piece,
    /// stays where the HTTP library wants it, with what of its body came along: true. Everything else is held.
    fn keep_whole_head(&mut self, out: &mut ReadBuf<'_>, filled: usize) -> bool {
        let used = if self.held().is_empty() { self.accept_whole(&out.filled()[filled..]) } else { None };
        self.hold(out, filled + used.unwrap_or(0));
        self.settle();
        used.is_some()
    }

    /// Takes over a sound head at the start of `fresh`, together with what of its body came along; returns how many bytes
    /// that is. None when the head is incomplete, unsound or not at the start: such bytes are looked at as held ones.
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
        self.vitals.begin_request(framing != Framing::Length(0), framing == Framing::Chunked, None);
        self.inbound = Inbound::Message { head_left, body };
    }

    /// Looks for the end of a head in what is held; on finding it, or that there cannot be one, moves on.
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
        let refusal = self.vitals.refusal(code, &head::path_of(self.held()));
        self.vitals.begin_request(false, true, Some(refusal));
        let origin = head::origin_of(self.held());
        self.held = [REFUSED_HEAD, origin.unwrap_or_default(), b"\r\n\r\n"].concat();
        self.taken = 0;
        self.is_refused = true;
        self.inbound = Inbound::Message { head_left: self.held.len(), body: BodyScan::Length(0) };
    }

    /// Hands over head and body as they come; ready without a byte at the end of the stream, or of the message.
    fn poll_message(&mut self, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held().is_empty() {
            let filled = out.filled().len();
            match Pin::new(&mut self.stream).poll_read(context, out) {
                Poll::Ready(result) => result?,
                Poll::Pending if self.vitals.read_is_overdue() => {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending => return Poll::Pending,
            }
            let used = self.inbound.follow(&out.filled()[filled..]);
            self.held.extend_from_slice(&out.filled()[filled + used..]);
            out.set_filled(filled + used);
        } else {
            let end = self.held.len().min(self.taken + out.remaining());
            let used = self.inbound.follow(&self.held[self.taken..end]);
            out.put_slice(&self.held[self.taken..self.taken + used]);
            self.release(used);
        }
        self.settle();
        Poll::Ready(Ok(()))
    }

    /// Waits for the end of the stream while a request is being answered, and holds what the client sends ahead. Ready when the
    /// client has left, or closed its side for longer than it may.
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
        if self.has_ended && self.vitals.has_hung_up() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Past the last byte of a message, the next head begins.
    fn settle(&mut self) {
        if self.inbound.is_message_end() {
            self.vitals.complete_body();
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

    /// Reads and forgets what a refused client still sends.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.vitals.linger();
        let mut scratch = [MaybeUninit::uninit(); 4096];
        while self.lingered < MAX_LINGER_BYTES {
            let mut thrown = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(context, &mut thrown) {
                Poll::Pending if !self.vitals.read_is_overdue() => return Poll::Pending,
                Poll::Ready(Ok(())) if !thrown.filled().is_empty() => self.lingered += thrown.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(())
    }

    /// Hands bytes to the HTTP library: of a head when it is complete, of a body as they arrive.
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

    fn judge_write<T>(&self, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match progress {
            Poll::Pending if self.vitals.write_is_stalled() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => {
                self.vitals.write_progressed();
                Poll::Ready(result)
            }
        }
    }
}

/// The wire in the hands of the HTTP library and of the connection's driver. Both belong to one task, so the lock is never waited
/// for.
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
        wire.judge_write(progress)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.lock();
        let progress = Pin::new(&mut wire.stream).poll_flush(context);
        wire.judge_write(progress)
    }

    /// Ends our side, then waits a little for a refused client to end its own.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.lock();
        let progress = Pin::new(&mut wire.stream).poll_shutdown(context);
        ready!(wire.judge_write(progress))?;
        if wire.vitals.must_linger() {
            ready!(wire.poll_linger(context));
        }
        Poll::Ready(Ok(()))
    }
}
