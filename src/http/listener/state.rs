//! State and deadlines of one connection. Three parts share it: the wire, which sees bytes; the service, which sees
//! requests; and the driver, which owns the only timer.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use rustix::time::{ClockId, clock_gettime};

use super::ListenSettings;
use crate::http::error::{ErrorShape, ProblemCode};

/// Time for which an idle connection stays open after the listener stops, so that a request already sent gets its
/// answer.
pub(super) const STOPPING_IDLE: Duration = Duration::from_millis(250);
/// Time for which the rest of a refused request is read and discarded. Closing earlier would reset the connection, and
/// the client would lose the answer.
const LINGER: Duration = Duration::from_secs(2);

/// An instant on the kernel's coarse monotonic clock, in milliseconds. It lags by a few milliseconds, which does not
/// matter for socket timeouts. A read costs a fifth of a precise clock read, and every request needs several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CoarseInstant(NonZeroU64);

impl CoarseInstant {
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::MonotonicCoarse);
        let millis = time.tv_sec.unsigned_abs() * 1000 + time.tv_nsec.unsigned_abs() / 1_000_000;
        Self(NonZeroU64::MIN.saturating_add(millis))
    }

    pub fn has_passed(self) -> bool {
        Self::now() >= self
    }

    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl std::ops::Add<Duration> for CoarseInstant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// State shared by the connections of a listener: the progress of its shutdown, and the memory of unfinished bodies.
#[derive(Debug, Default)]
pub struct Stage {
    step: AtomicU8,
    body_bytes: AtomicUsize,
}

impl Stage {
    const ANNOUNCED: u8 = 1;
    const STOPPED: u8 = 2;
    const CUT: u8 = 3;

    pub(super) fn announce(&self) {
        self.step.fetch_max(Self::ANNOUNCED, Ordering::Relaxed);
    }

    pub(super) fn stop(&self) {
        self.step.fetch_max(Self::STOPPED, Ordering::Relaxed);
    }

    pub(super) fn cut(&self) {
        self.step.fetch_max(Self::CUT, Ordering::Relaxed);
    }

    pub(super) fn is_announced(&self) -> bool {
        self.step.load(Ordering::Relaxed) >= Self::ANNOUNCED
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.step.load(Ordering::Relaxed) >= Self::STOPPED
    }

    /// Whether the time limit of requests in flight has passed. The server ends the remaining ones; their clients did
    /// not cancel them.
    pub fn is_cut(&self) -> bool {
        self.step.load(Ordering::Relaxed) >= Self::CUT
    }
}

/// State of one connection. Only the connection's own task writes it, so there is no contention and no ordering is
/// needed. The accept loop reads whether it is idle, asks it to end, and wakes it.
#[derive(Debug)]
pub(super) struct ConnectionState {
    settings: Arc<ListenSettings>,
    stage: Arc<Stage>,
    /// Wakes the connection's task when the shutdown progresses or the connection is evicted.
    pub(super) waker: AtomicWaker,
    /// Deadline for the next bytes: the head, the body, or the first byte of the next request.
    read: Deadline,
    /// Deadline for progress of a write.
    write: Deadline,
    /// Deadline for the answer, and then for writing it.
    request: Deadline,
    /// When an idle connection releases its buffers.
    rest: Deadline,
    /// Deadline for the answer to a client that closed its side.
    hang_up: Deadline,
    phase: AtomicU8,
    /// Start of the current idle time.
    idle_since: Deadline,
    /// Whether the listener asked the connection to end while it is idle.
    is_evicted: Flag,
    /// Whether no request was received yet.
    is_fresh: Flag,
    /// Whether the connection ends after the request in flight.
    is_last: Flag,
    /// Whether hyper has the whole body of the request in flight.
    body_is_complete: Flag,
    /// Why the last head was refused. No request follows it.
    refusal: OnceLock<Refusal>,
}

/// Phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// Waiting for the first byte of a request.
    Idle,
    /// Reading a head.
    Head,
    /// Waiting for the answer to a request.
    Request,
    /// An answer is being written.
    Answer,
}

/// An optional [`CoarseInstant`].
#[derive(Debug, Default)]
struct Deadline(AtomicU64);

impl Deadline {
    fn get(&self) -> Option<CoarseInstant> {
        NonZeroU64::new(self.0.load(Ordering::Relaxed)).map(CoarseInstant)
    }

    fn set(&self, tick: CoarseInstant) {
        self.0.store(tick.0.get(), Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn has_passed(&self) -> bool {
        self.get().is_some_and(CoarseInstant::has_passed)
    }
}

#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Flag {
    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, value: bool) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Deadline and refusal of a request, for the service.
pub(super) struct Admission {
    pub(super) deadline: Option<CoarseInstant>,
    pub(super) refusal: Option<Refusal>,
}

/// Why a head was refused, and the format of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub code: ProblemCode,
    /// Error format of the API that the head addresses, if the path is recognizable.
    pub shape: ErrorShape,
}

impl ConnectionState {
    /// The state of a connection accepted now.
    pub(super) fn new(settings: Arc<ListenSettings>, stage: Arc<Stage>) -> Self {
        let state = Self {
            settings,
            stage,
            waker: AtomicWaker::new(),
            read: Deadline::default(),
            write: Deadline::default(),
            request: Deadline::default(),
            rest: Deadline::default(),
            hang_up: Deadline::default(),
            phase: AtomicU8::new(Phase::Idle as u8),
            idle_since: Deadline::default(),
            is_evicted: Flag::default(),
            is_fresh: Flag(AtomicBool::new(true)),
            is_last: Flag::default(),
            body_is_complete: Flag(AtomicBool::new(true)),
            refusal: OnceLock::new(),
        };
        let now = CoarseInstant::now();
        state.idle_since.set(now);
        state.read.set(now + state.settings.head);
        state
    }

    /// The earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<CoarseInstant> {
        let rest = self.rest.get().filter(|_| self.is_idle());
        let others = [&self.read, &self.write, &self.request, &self.hang_up];
        others.into_iter().filter_map(Deadline::get).chain(rest).min()
    }

    /// Whether no request has begun and the last answer is written completely.
    fn is_idle(&self) -> bool {
        self.is_in(Phase::Idle) && self.write.get().is_none()
    }

    fn is_in(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Start of the current idle time; `None` if the connection is not idle.
    pub(super) fn idle_since(&self) -> Option<CoarseInstant> {
        self.idle_since.get().filter(|_| self.is_idle())
    }

    /// Asks the connection to end, if it is still idle when it notices.
    pub(super) fn evict(&self) {
        self.is_evicted.set(true);
        self.waker.wake();
    }

    /// Expires the read deadline of an evicted idle connection.
    pub(super) fn apply_eviction(&self) {
        if self.is_evicted.get() && self.is_idle() {
            self.read.set(CoarseInstant::now());
        }
    }

    /// Whether the connection has been idle long enough to release its buffers.
    pub(super) fn may_rest(&self) -> bool {
        self.rest.has_passed() && self.is_idle()
    }

    /// Records that the connection has released its buffers.
    pub(super) fn begin_rest(&self) {
        self.rest.clear();
    }

    /// Whether a complete request was received and has no answer yet.
    pub(super) fn awaits_answer(&self) -> bool {
        self.is_in(Phase::Request) && self.body_is_complete.get()
    }

    /// Records that the client closed its side while its request is in flight. Returns whether the time limit for the
    /// answer has passed: a disconnected client looks the same.
    pub(super) fn has_hung_up(&self) -> bool {
        if self.hang_up.get().is_none() {
            self.hang_up.set(CoarseInstant::now() + self.settings.half_closed);
        }
        self.hang_up.has_passed()
    }

    /// Counts bytes of an unfinished body; false when the limit for all such bodies is reached.
    pub(super) fn charge_body(&self, bytes: usize) -> bool {
        let before = self.stage.body_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= self.settings.body_memory;
        if !fits {
            self.release_body(bytes);
        }
        fits
    }

    /// Releases bytes counted by [`Self::charge_body`].
    pub(super) fn release_body(&self, bytes: usize) {
        self.stage.body_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// State shared with the other connections of the listener.
    pub(super) const fn stage(&self) -> &Arc<Stage> {
        &self.stage
    }

    /// Whether the read deadline has passed.
    pub(super) fn read_is_overdue(&self) -> bool {
        self.read.has_passed()
    }

    /// Records that the wire waits for a head. The idle time of a connection starts with the first call, the time of a
    /// head with the first call that has bytes.
    pub(super) fn await_head(&self, has_bytes: bool) {
        self.request.clear();
        self.hang_up.clear();
        if has_bytes && !self.is_in(Phase::Head) {
            self.enter(Phase::Head);
            self.rest.clear();
            // The time of a connection's first head starts when the connection is accepted.
            if !self.is_fresh.get() {
                self.read.set(CoarseInstant::now() + self.settings.head);
            }
        } else if self.is_in(Phase::Answer) {
            let now = CoarseInstant::now();
            self.enter(Phase::Idle);
            self.idle_since.set(now);
            self.rest.set(now + self.settings.rest);
            self.read.set(now + self.settings.idle);
        }
        if self.is_in(Phase::Idle) && self.stage.is_stopped() {
            let deadline = CoarseInstant::now() + STOPPING_IDLE;
            self.read.set(self.read.get().map_or(deadline, |earlier| earlier.min(deadline)));
        }
    }

    /// A refusal of a head with this `path`.
    pub(super) fn refusal(&self, code: ProblemCode, path: &str) -> Refusal {
        Refusal { code, shape: ErrorShape::below(&self.settings.base_path, path) }
    }

    /// Records that hyper gets a head.
    pub(super) fn begin_request(&self, has_body: bool, is_last: bool, refusal: Option<Refusal>) {
        let now = CoarseInstant::now();
        self.is_fresh.set(false);
        self.enter(Phase::Request);
        self.is_evicted.set(false);
        self.rest.clear();
        self.is_last.set(is_last);
        self.body_is_complete.set(!has_body);
        if has_body {
            self.read.set(now + self.settings.body);
        } else {
            self.read.clear();
        }
        self.request.set(now + self.settings.request);
        if let Some(refusal) = refusal {
            let _ = self.refusal.set(refusal);
        }
    }

    /// Records that hyper has the whole body.
    pub(super) fn complete_body(&self) {
        self.body_is_complete.set(true);
        self.read.clear();
    }

    /// Deadline and refusal of the request that the service receives.
    pub(super) fn admit(&self) -> Admission {
        Admission { deadline: self.request.get(), refusal: self.refusal.get().copied() }
    }

    /// Records that the service has an answer, which may be a stream; returns whether the connection must end after it.
    pub(super) fn end_request(&self, is_stream: bool) -> bool {
        self.enter(Phase::Answer);
        if is_stream {
            self.request.clear();
        } else {
            self.request.set(CoarseInstant::now() + self.settings.idle);
        }
        self.read.clear();
        self.hang_up.clear();
        self.must_linger() || self.stage.is_announced()
    }

    /// Whether the client may still be sending bytes that will not be read.
    pub(super) fn must_linger(&self) -> bool {
        self.is_last.get() || !self.body_is_complete.get()
    }

    /// Starts the time limit for discarding the client's remaining bytes.
    pub(super) fn linger(&self) {
        if self.read.get().is_none() {
            self.read.set(CoarseInstant::now() + LINGER);
        }
    }

    /// Records that a write makes no progress; returns whether its deadline has passed.
    pub(super) fn write_is_stalled(&self) -> bool {
        if self.write.get().is_none() {
            self.write.set(CoarseInstant::now() + self.settings.write);
        }
        self.write.has_passed()
    }

    /// Records progress of a write.
    pub(super) fn write_progressed(&self) {
        self.write.clear();
    }
}
