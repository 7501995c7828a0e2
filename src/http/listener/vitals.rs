//! What one connection is waiting for, and until when. Shared by the three that take part in it: the wire, which sees
//! bytes; the service, which sees requests; the driver, which owns the only timer.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
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

/// How far a listener is in its life.
#[derive(Debug, Default)]
pub(super) struct Stage(AtomicU8);

impl Stage {
    const ANNOUNCED: u8 = 1;
    const STOPPED: u8 = 2;

    pub(super) fn announce(&self) {
        self.0.fetch_max(Self::ANNOUNCED, Ordering::Relaxed);
    }

    pub(super) fn stop(&self) {
        self.0.fetch_max(Self::STOPPED, Ordering::Relaxed);
    }

    pub(super) fn is_announced(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= Self::ANNOUNCED
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= Self::STOPPED
    }
}

/// One connection's state. Only the connection's own task writes and reads it, so nothing here is ever contended, and no
/// ordering is needed; other tasks touch the waker and the stage alone.
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
    /// Whether no request has come yet.
    is_fresh: Flag,
    /// Whether the head that is being waited for has begun.
    head_has_begun: Flag,
    /// Whether the body of the request in flight was handed over whole.
    body_is_complete: Flag,
    /// Why the head of the last request was refused: nothing comes after it.
    refusal: OnceLock<Refusal>,
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
            is_fresh: Flag(AtomicBool::new(true)),
            head_has_begun: Flag::default(),
            body_is_complete: Flag(AtomicBool::new(true)),
            refusal: OnceLock::new(),
        };
        vitals.read.set(Tick::now() + vitals.settings.head);
        vitals
    }

    /// The earliest instant at which something is overdue.
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        [self.read.get(), self.write.get(), self.request.get()].into_iter().flatten().min()
    }

    /// Whether the bytes that are being waited for are overdue.
    pub(super) fn read_is_overdue(&self) -> bool {
        self.read.has_passed()
    }

    /// The wire waits for a head. The clock of an idle connection starts with the first call, the clock of a head with
    /// the first call that has bytes.
    pub(super) fn await_head(&self, has_bytes: bool) {
        self.request.clear();
        if has_bytes && !self.head_has_begun.get() {
            self.head_has_begun.set(true);
            // Of the first head of a connection, the clock has been running since it was accepted.
            if !self.is_fresh.get() {
                self.read.set(Tick::now() + self.settings.head);
            }
        } else if self.read.get().is_none() {
            self.read.set(Tick::now() + self.settings.idle);
        }
        if !self.head_has_begun.get() && self.stage.is_stopped() {
            let deadline = Tick::now() + STOPPING_IDLE;
            self.read.set(self.read.get().map_or(deadline, |earlier| earlier.min(deadline)));
        }
    }

    /// A refusal of a head that asks for `path`.
    pub(super) fn refusal(&self, code: ProblemCode, path: &str) -> Refusal {
        Refusal { code, shape: ErrorShape::below(&self.settings.base_path, path) }
    }

    /// The wire hands a head over.
    pub(super) fn begin_request(&self, has_body: bool, refusal: Option<Refusal>) {
        let now = Tick::now();
        self.is_fresh.set(false);
        self.head_has_begun.set(false);
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

    /// The wire has handed the whole body over.
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
        self.request.set(Tick::now() + self.settings.idle);
        self.read.clear();
        self.must_linger() || self.stage.is_announced()
    }

    /// Whether the client may still be sending what nobody will read.
    pub(super) fn must_linger(&self) -> bool {
        !self.body_is_complete.get() || self.refusal.get().is_some()
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
