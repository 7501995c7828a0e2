//! What one connection is waiting for, and until when. Shared by the three that take part in it: the wire, which sees
//! bytes; the service, which sees requests; the driver, which owns the only timer.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::ListenSettings;
use crate::http::error::ProblemCode;

/// How long a connection without a request stays open once the listener stops: a request that is already on its way
/// still gets its answer.
const STOPPING_IDLE: Duration = Duration::from_millis(250);
/// How long the rest of a refused request is read and thrown away: closing earlier would reset the connection, and with
/// it the answer.
const LINGER: Duration = Duration::from_secs(2);

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

/// One connection's state.
#[derive(Debug)]
pub(super) struct Vitals {
    settings: Arc<ListenSettings>,
    stage: Arc<Stage>,
    /// Wakes the connection's task when the stage changes.
    pub(super) waker: AtomicWaker,
    /// Never contended: only the connection's own task locks it.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Until when the next bytes must have come: the head, the body, or the first byte of the next request.
    read: Option<Instant>,
    /// Until when the client must have taken a byte.
    write: Option<Instant>,
    /// Until when the request must be answered, and then the answer written.
    request: Option<Instant>,
    /// Whether no request has come yet.
    is_fresh: bool,
    /// Whether the head that is being waited for has begun.
    head_has_begun: bool,
    /// Whether the body of the request in flight was handed over whole.
    body_is_complete: bool,
    /// Why the head of the request in flight was refused.
    refusal: Option<ProblemCode>,
}

/// What the service learns about the request that it is handed.
pub(super) struct Admission {
    pub(super) deadline: Option<Instant>,
    pub(super) refusal: Option<ProblemCode>,
}

impl Vitals {
    /// A connection that was accepted now.
    pub(super) fn new(settings: Arc<ListenSettings>, stage: Arc<Stage>) -> Self {
        let read = Some(now() + settings.head);
        let state = State { read, is_fresh: true, body_is_complete: true, ..State::default() };
        Self { settings, stage, waker: AtomicWaker::new(), state: Mutex::new(state) }
    }

    /// The earliest instant at which something is overdue.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let state = self.lock();
        [state.read, state.write, state.request].into_iter().flatten().min()
    }

    /// Whether the bytes that are being waited for are overdue.
    pub(super) fn read_is_overdue(&self) -> bool {
        self.lock().read.is_some_and(|deadline| now() >= deadline)
    }

    /// The wire waits for a head. The clock of an idle connection starts with the first call, the clock of a head with
    /// the first call that has bytes.
    pub(super) fn await_head(&self, has_bytes: bool) {
        let mut state = self.lock();
        state.request = None;
        if has_bytes && !state.head_has_begun {
            state.head_has_begun = true;
            // Of the first head of a connection, the clock has been running since it was accepted.
            if !state.is_fresh {
                state.read = Some(now() + self.settings.head);
            }
        } else if state.read.is_none() {
            state.read = Some(now() + self.settings.idle);
        }
        if !state.head_has_begun && self.stage.is_stopped() {
            let deadline = now() + STOPPING_IDLE;
            state.read = Some(state.read.map_or(deadline, |earlier| earlier.min(deadline)));
        }
    }

    /// The wire hands a head over.
    pub(super) fn begin_request(&self, has_body: bool, refusal: Option<ProblemCode>) {
        let now = now();
        let mut state = self.lock();
        state.is_fresh = false;
        state.head_has_begun = false;
        state.body_is_complete = !has_body;
        state.read = has_body.then(|| now + self.settings.body);
        state.request = Some(now + self.settings.request);
        state.refusal = refusal;
    }

    /// The wire has handed the whole body over.
    pub(super) fn complete_body(&self) {
        let mut state = self.lock();
        state.body_is_complete = true;
        state.read = None;
    }

    /// The service takes the request on.
    pub(super) fn admit(&self) -> Admission {
        let state = self.lock();
        Admission { deadline: state.request, refusal: state.refusal }
    }

    /// The service has an answer; returns whether the connection must end with it.
    pub(super) fn end_request(&self) -> bool {
        let mut state = self.lock();
        state.request = Some(now() + self.settings.idle);
        state.read = None;
        !state.body_is_complete || state.refusal.is_some() || self.stage.is_announced()
    }

    /// Whether the client may still be sending what nobody will read.
    pub(super) fn must_linger(&self) -> bool {
        let state = self.lock();
        !state.body_is_complete || state.refusal.is_some()
    }

    /// The wire throws away what still comes.
    pub(super) fn linger(&self) {
        self.lock().read.get_or_insert_with(|| now() + LINGER);
    }

    /// The client takes no bytes; returns whether that has lasted too long.
    pub(super) fn write_is_stalled(&self) -> bool {
        let now = now();
        *self.lock().write.get_or_insert(now + self.settings.write) <= now
    }

    /// The client took bytes.
    pub(super) fn write_progressed(&self) {
        self.lock().write = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The instant that the listener's timers compare with.
#[expect(clippy::disallowed_methods, reason = "timeouts of sockets run on real time, and nothing else does here")]
pub(super) fn now() -> Instant {
    Instant::now()
}
