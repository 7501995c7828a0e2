//! A bounded waiting line between callers and hashing threads.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// First come, first served. A place is given up by dropping its [`Place`]: what waited there is dropped at once, so that
/// callers who went away keep nobody else out and cost no hash (security.md P5).
pub(super) struct Queue<T> {
    line: Mutex<Line<T>>,
    changed: Condvar,
    capacity: usize,
}

struct Line<T> {
    waiting: VecDeque<(u64, T)>,
    next_number: u64,
    is_closed: bool,
}

/// There is no place left, or the queue is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// What a wait for the first in line ended with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn<T> {
    /// Somebody's turn.
    Next(T),
    /// Nobody came in time.
    Nobody,
    /// The queue is closed.
    Closed,
}

/// A caller's hold on its place.
pub(super) struct Place<T> {
    queue: Arc<Queue<T>>,
    number: u64,
}

impl<T> Queue<T> {
    /// A line in which at most `capacity` may wait.
    pub(super) fn new(capacity: usize) -> Self {
        let line = Line { waiting: VecDeque::with_capacity(capacity), next_number: 0, is_closed: false };
        Self { line: Mutex::new(line), changed: Condvar::new(), capacity }
    }

    /// Takes the last place, or says at once that there is none.
    pub(super) fn join(self: &Arc<Self>, item: T) -> Result<Place<T>, Full> {
        let mut line = self.lock();
        if line.is_closed || line.waiting.len() >= self.capacity {
            return Err(Full);
        }
        let number = line.next_number;
        line.next_number += 1;
        line.waiting.push_back((number, item));
        drop(line);
        self.changed.notify_one();
        Ok(Place { queue: Arc::clone(self), number })
    }

    /// Waits for the first in line: for as long as it takes, or for `patience`.
    pub(super) fn next(&self, patience: Option<Duration>) -> Turn<T> {
        let mut line = self.lock();
        let mut has_waited = false;
        loop {
            if line.is_closed {
                return Turn::Closed;
            }
            if let Some((_, item)) = line.waiting.pop_front() {
                return Turn::Next(item);
            }
            line = match patience {
                None => self.changed.wait(line).unwrap_or_else(PoisonError::into_inner),
                // Woken for a place that another thread took: nobody was idle, so the wait may begin anew.
                Some(patience) if !has_waited => {
                    let (line, ended) =
                        self.changed.wait_timeout(line, patience).unwrap_or_else(PoisonError::into_inner);
                    has_waited = ended.timed_out();
                    line
                }
                Some(_) => return Turn::Nobody,
            };
        }
    }

    /// Sends everybody away, for good.
    pub(super) fn close(&self) {
        let mut line = self.lock();
        line.is_closed = true;
        let waiting = std::mem::take(&mut line.waiting);
        drop(line);
        drop(waiting);
        self.changed.notify_all();
    }

    /// How many wait.
    pub(super) fn depth(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Nothing that can fail runs under the lock, so a poisoned one guards a good line.
    fn lock(&self) -> MutexGuard<'_, Line<T>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        let mut line = self.queue.lock();
        // Numbers ascend along the line.
        let left = line.waiting.binary_search_by_key(&self.number, |(number, _)| *number).ok();
        let left = left.and_then(|index| line.waiting.remove(index));
        drop(line);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_the_line_is_bounded_and_ordered() {
        let queue = Arc::new(Queue::new(2));
        let places = [queue.join('a').unwrap(), queue.join('b').unwrap()];
        assert_eq!(queue.join('c').err(), Some(Full));
        assert_eq!((queue.next(None), queue.depth()), (Turn::Next('a'), 1));
        let _third = queue.join('c').unwrap();
        assert_eq!((queue.next(None), queue.next(None)), (Turn::Next('b'), Turn::Next('c')));
        drop(places);
        assert_eq!(queue.depth(), 0);
    }

    #[test]
    fn p5_a_storm_of_callers_who_go_away_leaves_every_place_free() {
        let queue = Arc::new(Queue::new(3));
        let item = Arc::new(());
        for _ in 0..1000 {
            let storm: Vec<_> = (0..3).map(|_| queue.join(Arc::clone(&item)).unwrap()).collect();
            assert!(queue.join(Arc::clone(&item)).is_err());
            drop(storm);
        }
        assert_eq!(queue.depth(), 0);
        assert_eq!(Arc::strong_count(&item), 1, "what waited is dropped with its place");
        let _kept = queue.join(Arc::clone(&item)).unwrap();
        let middle = queue.join(Arc::clone(&item)).unwrap();
        drop(middle);
        assert_eq!(queue.depth(), 1);
    }

    #[test]
    fn closing_sends_waiting_threads_and_callers_away() {
        let queue = Arc::new(Queue::new(3));
        let worker = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.next(None)
        });
        queue.close();
        assert_eq!(worker.join().unwrap(), Turn::<u8>::Closed);
        assert!(queue.join(1).is_err());
    }

    #[test]
    fn a_wait_that_nobody_ends_says_so_and_whoever_waits_already_is_seen_first() {
        let queue = Arc::new(Queue::new(1));
        assert_eq!(queue.next(Some(Duration::ZERO)), Turn::Nobody);
        let _place = queue.join(7).unwrap();
        assert_eq!(queue.next(Some(Duration::ZERO)), Turn::Next(7));
        queue.close();
        assert_eq!(queue.next(Some(Duration::ZERO)), Turn::Closed);
    }
}
