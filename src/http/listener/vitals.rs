//! What one connection is waiting for, and until when. Shared by the three that take part in it: the wire, which sees
//! bytes; the service, which sees requests; the driver, which owns the only timer.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::response::Response;
use futures_util::task::AtomicWaker;
use rustix::time::{ClockId, clock_gettime};

use super::ListenSettings;
use crate::http::error::{ApiError, ErrorShape, ProblemCode};

/// How long a connection without a request stays open once the listener stops: a request that is already on its way
/// still gets its answer.
pub(super) const STOPPING_IDLE: Duration = Duration::from_millis(250);
/// How long the rest of a refused request is read and thrown away: closing earlier would reset the connection, and with
/// it the answer.
const LINGER: Duration = Duration::from_secs(2);

/// An instant on the kernel's coarse clock, in milliseconds. It lags by some milliseconds, which no timeout of a socket
/// minds, and costs a fifth of what a precise clock does: every request reads it several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(NonZeroU64);

impl Tick {
    /// Now.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::MonotonicCoarse);
        let millis = time.tv_sec.unsigned_abs() * 1000 + time.tv_nsec.unsigned_abs() / 1_000_000;
        Self(NonZeroU64::MIN.saturating_add(millis))
    }

    /// Whether this instant is over.
    pub fn has_passed(self) -> bool {
        Self::now() >= self
    }

    /// How long after `earlier` it is.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl std::ops::Add<Duration> for Tick {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// What the connections of a listener share: how far its shutdown is, and the memory of unfinished bodies.
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

    /// Whether the time for requests in flight is over: the server, not the client, ends those that are left.
    pub fn is_cut(&self) -> bool {
        self.step.load(Ordering::Relaxed) >= Self::CUT
    }
}

/// One connection's state. Only the connection's own task writes it, so nothing here is contended and no ordering is needed. The
/// accept loop reads whether it is idle, asks it to end, and wakes it.
#[derive(Debug)]
pub(super) struct Vitals {
    settings: Arc<ListenSettings>,
    stage: Arc<Stage>,
    /// Wakes the connection's task when the stage changes.
    pub(super) waker: AtomicWaker,
    /// Until when the next bytes must have come: the head, the body, or the first byte of the next request.
    read: Deadline,
    /// Until when the client must have taken a byte.
    write: Deadline,
    /// Until when the request must be answered, and then the answer written.
    request: Deadline,
    /// When an idle connection releases its buffers.
    rest: Deadline,
    /// Until when a client that closed its side may get its answer.
    hang_up: Deadline,
    phase: AtomicU8,
    /// Since when the connection has been idle, if it is.
    idle_since: Deadline,
    /// Whether the listener wants the place of this connection, as long as it is idle.
    is_evicted: Flag,
    /// Whether no request has come yet.
    is_fresh: Flag,
    /// Whether the request in flight is the last one of the connection.
    is_last: Flag,
    /// Whether the body of the request in flight was handed over whole.
    body_is_complete: Flag,
    /// Why the head of the last request was refused: nothing comes after it.
    refusal: OnceLock<Refusal>,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// Waiting for the first byte of a request.
    Idle,
    /// Reading a head.
    Head,
    /// A request has no answer yet.
    Request,
    /// An answer is being written.
    Answer,
}

/// A [`Tick`], or none.
#[derive(Debug, Default)]
struct Deadline(AtomicU64);

impl Deadline {
    fn get(&self) -> Option<Tick> {
        NonZeroU64::new(self.0.load(Ordering::Relaxed)).map(Tick)
    }

    fn set(&self, tick: Tick) {
        self.0.store(tick.0.get(), Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn has_passed(&self) -> bool {
        self.get().is_some_and(Tick::has_passed)
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

/// What the service learns about the request that it is handed.
pub(super) struct Admission {
    pub(super) deadline: Option<Tick>,
    pub(super) refusal: Option<Refusal>,
}

/// Why a head was not accepted, and in which shape its client expects to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: ProblemCode,
    /// The shape of the API that it was for, if that could be made out.
    pub shape: ErrorShape,
}

impl Refusal {
    /// The answer.
    pub fn answer(self) -> Response {
        self.shape.answer(ApiError::new(self.code))
    }
}

impl Vitals {
    /// A connection that was accepted now.
    pub(super) fn new(settings: Arc<ListenSettings>, stage: Arc<Stage>) -> Self {
        let vitals = Self {
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
        let now = Tick::now();
        vitals.idle_since.set(now);
        vitals.read.set(now + vitals.settings.head);
        vitals
    }

    /// The earliest instant at which something is overdue.
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        let rest = self.rest.get().filter(|_| self.is_idle());
        let others = [&self.read, &self.write, &self.request, &self.hang_up];
        others.into_iter().filter_map(Deadline::get).chain(rest).min()
    }

    /// Whether there is no request, no beginning of one and no rest of an answer.
    fn is_idle(&self) -> bool {
        self.is_in(Phase::Idle) && self.write.get().is_none()
    }

    fn is_in(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Since when the connection has been idle, if it is.
    pub(super) fn idle_since(&self) -> Option<Tick> {
        self.idle_since.get().filter(|_| self.is_idle())
    }

    /// Asks the connection to end, if it is still idle when it notices.
    pub(super) fn evict(&self) {
        self.is_evicted.set(true);
        self.waker.wake();
    }

    /// Makes the bytes that an evicted idle connection waits for overdue.
    pub(super) fn apply_eviction(&self) {
        if self.is_evicted.get() && self.is_idle() {
            self.read.set(Tick::now());
        }
    }

    /// Whether the connection has been idle for long enough to release its buffers.
    pub(super) fn may_rest(&self) -> bool {
        self.rest.has_passed() && self.is_idle()
    }

    /// The connection has released its buffers.
    pub(super) fn begin_rest(&self) {
        self.rest.clear();
    }

    /// Whether a whole request was received and has no answer yet.
    pub(super) fn awaits_answer(&self) -> bool {
        self.is_in(Phase::Request) && self.body_is_complete.get()
    }

    /// The client closed its side while its request is in flight. Returns whether its time for the answer is over: a client that
    /// left looks the same as one that only closed its side.
    pub(super) fn has_hung_up(&self) -> bool {
        if self.hang_up.get().is_none() {
            self.hang_up.set(Tick::now() + self.settings.half_closed);
        }
        self.hang_up.has_passed()
    }

    /// Counts bytes of a body that is not complete; false when such bodies take as much memory as they may.
    pub(super) fn charge_body(&self, bytes: usize) -> bool {
        let before = self.stage.body_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= self.settings.body_memory;
        if !fits {
            self.release_body(bytes);
        }
        fits
    }

    /// Gives back what [`Self::charge_body`] counted.
    pub(super) fn release_body(&self, bytes: usize) {
        self.stage.body_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What the connection shares with the others of its listener.
    pub(super) const fn stage(&self) -> &Arc<Stage> {
        &self.stage
    }

    /// Whether the bytes that are being waited for are overdue.
    pub(super) fn read_is_overdue(&self) -> bool {
        self.read.has_passed()
    }

    /// The wire waits for a head. The clock of an idle connection starts with the first call, the clock of a head with
    /// the first call that has bytes.
    pub(super) fn await_head(&self, has_bytes: bool) {
        self.request.clear();
        self.hang_up.clear();
        if has_bytes && !self.is_in(Phase::Head) {
            self.enter(Phase::Head);
            self.rest.clear();
            // The clock of a connection's first head runs since the connection was accepted.
            if !self.is_fresh.get() {
                self.read.set(Tick::now() + self.settings.head);
            }
        } else if self.is_in(Phase::Answer) {
            let now = Tick::now();
            self.enter(Phase::Idle);
            self.idle_since.set(now);
            self.rest.set(now + self.settings.rest);
            self.read.set(now + self.settings.idle);
        }
        if self.is_in(Phase::Idle) && self.stage.is_stopped() {
            let deadline = Tick::now() + STOPPING_IDLE;
            self.read.set(self.read.get().map_or(deadline, |earlier| earlier.min(deadline)));
        }
    }

    /// A refusal of a head that asks for `path`.
    pub(super) fn refusal(&self, code: ProblemCode, path: &str) -> Refusal {
        Refusal { code, shape: ErrorShape::below(&self.settings.base_path, path) }
    }

    /// The wire hands a head over.
    pub(super) fn begin_request(&self, has_body: bool, is_last: bool, refusal: Option<Refusal>) {
        let now = Tick::now();
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

    /// The whole body was handed over.
    pub(super) fn complete_body(&self) {
        self.body_is_complete.set(true);
        self.read.clear();
    }

    /// The service takes the request on.
    pub(super) fn admit(&self) -> Admission {
        Admission { deadline: self.request.get(), refusal: self.refusal.get().copied() }
    }

    /// The service has an answer; returns whether the connection must end with it.
    pub(super) fn end_request(&self) -> bool {
        self.enter(Phase::Answer);
        self.request.set(Tick::now() + self.settings.idle);
        self.read.clear();
        self.hang_up.clear();
        self.must_linger() || self.stage.is_announced()
    }

    /// Whether the client may still be sending what nobody will read.
    pub(super) fn must_linger(&self) -> bool {
        self.is_last.get() || !self.body_is_complete.get()
    }

    /// The wire throws away what still comes.
    pub(super) fn linger(&self) {
        if self.read.get().is_none() {
            self.read.set(Tick::now() + LINGER);
        }
    }

    /// The client takes no bytes; returns whether that has lasted too long.
    pub(super) fn write_is_stalled(&self) -> bool {
        if self.write.get().is_none() {
            self.write.set(Tick::now() + self.settings.write);
        }
        self.write.has_passed()
    }

    /// The client took bytes.
    pub(super) fn write_progressed(&self) {
        self.write.clear();
    }
}
