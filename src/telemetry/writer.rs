//! A bounded queue between the logging threads and the sink. A stalled sink loses lines but never delays a request
//! (security.md S8).
//!
//! Lines are collected in one buffer, which the writing thread exchanges for an empty one. A line costs one copy under
//! a lock, and the lock is never held longer than such a copy. The sink receives few large writes.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The time for which lines are collected before a write. Also the pause before a retry on a sink that would block.
const GATHER: Duration = Duration::from_millis(10);

/// Writes lines. When it is dropped, the thread writes the queued lines and ends.
pub(super) struct Writer {
    queue: Arc<Queue>,
}

struct Queue {
    state: Mutex<State>,
    /// Notified when the thread has work to do immediately.
    wake: Condvar,
    /// Notified when everything queued has been written.
    idle: Condvar,
    dropped: AtomicU64,
    capacity: usize,
}

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    is_writing: bool,
    /// The thread sleeps until it is woken. A thread that queues a line must wake it.
    is_asleep: bool,
    /// A caller waits for [`Queue::idle`], so lines are written without delay.
    flushes: usize,
    is_closed: bool,
}

impl Writer {
    /// Starts the thread. The queue holds `capacity` bytes. `gap` formats the line that reports the number of lines
    /// lost before it.
    pub fn start(
        sink: Box<dyn Write + Send>,
        capacity: usize,
        gap: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> io::Result<Self> {
        let (wake, idle) = (Condvar::new(), Condvar::new());
        let queue = Arc::new(Queue { state: Mutex::default(), wake, idle, dropped: AtomicU64::new(0), capacity });
        let of_thread = Arc::clone(&queue);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || of_thread.run(sink, gap))?;
        Ok(Self { queue })
    }

    /// Queues one line, which ends with a line feed. Drops it if the queue is full. Never waits for the sink.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.queue.lock();
        if line.len() > self.queue.capacity.saturating_sub(state.pending.len()) {
            drop(state);
            self.queue.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.pending.extend_from_slice(line);
        let must_wake = std::mem::take(&mut state.is_asleep);
        drop(state);
        if must_wake {
            self.queue.wake.notify_one();
        }
    }

    /// The number of lines lost so far: the queue was full, or the sink refused them.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything queued is written, at most for `deadline`. Returns whether it is.
    pub fn flush(&self, deadline: Duration) -> bool {
        let mut state = self.queue.lock();
        state.flushes += 1;
        self.queue.wake.notify_one();
        let is_busy = |state: &mut State| state.is_writing || !state.pending.is_empty();
        let waited = self.queue.idle.wait_timeout_while(state, deadline, is_busy);
        let (mut state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        state.flushes -= 1;
        !timeout.timed_out()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.lock().is_closed = true;
        self.queue.wake.notify_one();
    }
}

impl Queue {
    /// A panic cannot leave the state half changed: no code that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut sink: Box<dyn Write + Send>, gap: impl Fn(u64) -> Vec<u8>) {
        let mut batch = Vec::new();
        let mut told = 0;
        while self.take(&mut batch) {
            let dropped = self.dropped.load(Ordering::Relaxed);
            let has_told = dropped == told || write_all(&mut *sink, &gap(dropped - told)).is_ok();
            if has_told {
                told = dropped;
            }
            if write_all(&mut *sink, &batch).is_err() {
                let lines = batch.iter().filter(|byte| **byte == b'\n').count();
                self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
            }
            batch.clear();
        }
    }

    /// Waits for lines and takes them all. Returns false if no more lines will follow.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let mut state = self.lock();
        state.is_writing = false;
        if state.pending.is_empty() {
            self.idle.notify_all();
        }
        while state.pending.is_empty() && !state.is_closed {
            state.is_asleep = true;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_asleep = false;
        let may_gather = |state: &mut State| !state.is_closed && state.flushes == 0;
        let gathered = self.wake.wait_timeout_while(state, GATHER, may_gather);
        let (mut state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut state.pending, batch);
        state.is_writing = true;
        !batch.is_empty()
    }
}

/// Like [`Write::write_all`], but also waits for a sink in non-blocking mode, such as a terminal that a shell shares.
fn write_all(sink: &mut dyn Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match sink.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(GATHER),
            Err(error) => return Err(error),
        }
    }
    sink.flush()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// A sink that forwards every write and can be stalled: it waits for a permit per write.
    struct Stalling {
        permits: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Stalling {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.permits.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stalling(capacity: usize) -> (Writer, Sender<()>, Receiver<Vec<u8>>) {
        let (permit, permits) = channel();
        let (written, lines) = channel();
        let gap = |lines| format!("{lines} lost\n").into_bytes();
        (Writer::start(Box::new(Stalling { permits, written }), capacity, gap).unwrap(), permit, lines)
    }

    #[test]
    fn s8_a_stalled_sink_blocks_no_caller_and_dropped_lines_are_counted() {
        let (writer, permit, lines) = stalling(100);
        for _ in 0..1000 {
            writer.push(b"123456789\n");
        }
        assert!(!writer.flush(Duration::ZERO), "nothing can have been written");
        let dropped = writer.dropped();
        assert!(
            (980..=990).contains(&dropped),
            "{dropped}: ten lines fit, and ten more once the first are being written"
        );
        drop(permit);
        assert!(writer.flush(SOON));
        writer.push(b"after\n");
        assert!(writer.flush(SOON));
        let all = String::from_utf8(lines.try_iter().collect::<Vec<_>>().concat()).unwrap();
        assert_eq!(all.matches("123456789\n").count() as u64, 1000 - dropped);
        let lost: u64 = all.lines().filter_map(|line| line.strip_suffix(" lost")?.parse::<u64>().ok()).sum();
        assert_eq!(lost, dropped, "the gap is told in the log itself");
        assert!(all.ends_with("after\n"));
    }

    #[test]
    fn s8_a_blocked_pipe_neither_blocks_nor_crashes_and_a_closed_one_only_loses_lines() {
        let (reader, pipe) = io::pipe().unwrap();
        let writer = Writer::start(Box::new(pipe), 256 * 1024, |_| Vec::new()).unwrap();
        let line = [b'x'; 1023].iter().chain(b"\n").copied().collect::<Vec<_>>();
        for _ in 0..1024 {
            writer.push(&line);
        }
        assert!(writer.dropped() > 0 && !writer.flush(Duration::from_millis(1)));
        drop(reader);
        assert!(writer.flush(SOON), "lines for nobody are given up");
        writer.push(b"to nobody\n");
        assert!(writer.flush(SOON));
        assert_eq!(writer.dropped(), 1025, "none of them arrived whole");
    }

    #[test]
    fn lines_are_written_in_order_and_many_at_once() {
        let (writer, permit, lines) = stalling(1 << 20);
        drop(permit);
        let expected: String = (0..10_000).map(|number| format!("{number}\n")).collect();
        expected.split_inclusive('\n').for_each(|line| writer.push(line.as_bytes()));
        assert!(writer.flush(SOON));
        let writes: Vec<_> = lines.try_iter().collect();
        assert!(writes.len() < 1000, "{} writes", writes.len());
        assert_eq!(writes.concat(), expected.into_bytes());
        assert_eq!(writer.dropped(), 0);
    }

    #[test]
    fn dropping_the_writer_lets_the_thread_write_the_rest_and_end() {
        let (writer, permit, lines) = stalling(100);
        writer.push(b"last words\n");
        drop(writer);
        permit.send(()).unwrap();
        assert_eq!(lines.recv_timeout(SOON).unwrap(), b"last words\n");
        assert!(lines.recv_timeout(SOON).is_err(), "the sink is gone with the thread");
    }
}
