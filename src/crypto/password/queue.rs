//! A bounded queue between callers and hashing threads.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Every fourth turn serves the item that waits longest, so that low priority is not starved.
const FAIR_TURN: u64 = 4;

/// Decides which caller is served first, and which one loses its place when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Served first.
    Normal,
    /// Served when no other caller waits, and at every fourth turn. Loses its place to a caller of normal priority if
    /// the queue is full.
    Low,
}

/// First in, first out within a priority. Dropping a [`Place`] removes its item, so that a disconnected caller takes
/// no place and costs no hash (security.md P5).
pub(super) struct Queue<T> {
    line: Mutex<Line<T>>,
    changed: Condvar,
    capacity: usize,
}

struct Line<T> {
    normal: VecDeque<(u64, T)>,
    low: VecDeque<(u64, T)>,
    next_number: u64,
    turns: u64,
    is_closed: bool,
}

/// The queue is full or closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// The result of a wait for the next item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn<T> {
    Next(T),
    /// None arrived in time.
    TimedOut,
    /// The queue is closed.
    Closed,
}

/// A caller's place in the queue. Dropping it removes the item.
pub(super) struct Place<T> {
    queue: Arc<Queue<T>>,
    priority: Priority,
    number: u64,
}

impl<T> Line<T> {
    fn len(&self) -> usize {
        self.normal.len() + self.low.len()
    }

    fn of(&mut self, priority: Priority) -> &mut VecDeque<(u64, T)> {
        match priority {
            Priority::Normal => &mut self.normal,
            Priority::Low => &mut self.low,
        }
    }

    fn pop(&mut self) -> Option<T> {
        let (normal, low) = (self.normal.front(), self.low.front());
        let waits_longer = matches!((normal, low), (Some((normal, _)), Some((low, _))) if low < normal);
        self.turns = self.turns.wrapping_add(1);
        let is_low = normal.is_none() || (waits_longer && self.turns.is_multiple_of(FAIR_TURN));
        let lane = if is_low { &mut self.low } else { &mut self.normal };
        lane.pop_front().map(|(_, item)| item)
    }
}

impl<T> Queue<T> {
    /// A queue in which at most `capacity` items wait.
    pub(super) fn new(capacity: usize) -> Self {
        let (normal, low) = (VecDeque::new(), VecDeque::new());
        let line = Line { normal, low, next_number: 0, turns: 0, is_closed: false };
        Self { line: Mutex::new(line), changed: Condvar::new(), capacity }
    }

    /// Adds an item. If the queue is full, an item of normal priority displaces the newest item of low priority,
    /// which is returned. Without such an item the result is [`Full`].
    pub(super) fn join(self: &Arc<Self>, priority: Priority, item: T) -> Result<(Place<T>, Option<T>), Full> {
        let mut line = self.lock();
        if line.is_closed {
            return Err(Full);
        }
        let mut displaced = None;
        if line.len() >= self.capacity {
            displaced = if priority == Priority::Normal { line.low.pop_back() } else { None };
            if displaced.is_none() {
                return Err(Full);
            }
        }
        let number = line.next_number;
        line.next_number += 1;
        line.of(priority).push_back((number, item));
        drop(line);
        self.changed.notify_one();
        Ok((Place { queue: Arc::clone(self), priority, number }, displaced.map(|(_, item)| item)))
    }

    /// Waits for the next item, at most for `patience` if set.
    pub(super) fn next(&self, patience: Option<Duration>) -> Turn<T> {
        let mut line = self.lock();
        let mut has_waited = false;
        loop {
            if line.is_closed {
                return Turn::Closed;
            }
            if let Some(item) = line.pop() {
                return Turn::Next(item);
            }
            line = match patience {
                None => self.changed.wait(line).unwrap_or_else(PoisonError::into_inner),
                // Woken for an item that another thread took. The pool was not idle, so the wait starts again.
                Some(patience) if !has_waited => {
                    let (line, ended) =
                        self.changed.wait_timeout(line, patience).unwrap_or_else(PoisonError::into_inner);
                    has_waited = ended.timed_out();
                    line
                }
                Some(_) => return Turn::TimedOut,
            };
        }
    }

    /// Drops all waiting items, and refuses new ones.
    pub(super) fn close(&self) {
        let mut line = self.lock();
        line.is_closed = true;
        let waiting = (std::mem::take(&mut line.normal), std::mem::take(&mut line.low));
        drop(line);
        drop(waiting);
        self.changed.notify_all();
    }

    /// Number of waiting items.
    pub(super) fn depth(&self) -> usize {
        self.lock().len()
    }

    /// No code under the lock panics, so the queue is consistent even if the lock is poisoned.
    fn lock(&self) -> MutexGuard<'_, Line<T>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        let mut line = self.queue.lock();
        let lane = line.of(self.priority);
        // Numbers ascend within a lane.
        let left = lane.binary_search_by_key(&self.number, |(number, _)| *number).ok();
        let left = left.and_then(|index| lane.remove(index));
        drop(line);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place<T>(queue: &Arc<Queue<T>>, priority: Priority, item: T) -> Place<T> {
        let (place, displaced) = queue.join(priority, item).unwrap_or_else(|Full| panic!("the queue is full"));
        assert!(displaced.is_none());
        place
    }

    #[test]
    fn p5_low_priority_is_evicted_from_a_full_queue_and_served_last_without_starvation() {
        let queue = Arc::new(Queue::new(8));
        let mut low: Vec<_> = ["l0", "l1", "l2", "l3"].map(|item| place(&queue, Priority::Low, item)).into();
        let _normal: Vec<_> = ["n0", "n1", "n2", "n3"].map(|item| place(&queue, Priority::Normal, item)).into();
        assert_eq!(queue.join(Priority::Low, "l4").err(), Some(Full));
        let (_place, displaced) = queue.join(Priority::Normal, "n4").unwrap();
        assert_eq!((displaced, queue.depth()), (Some("l3"), 8));
        drop(low.pop());
        assert_eq!(queue.depth(), 8, "dropping a displaced place removes no other item");
        let turns: Vec<_> = (0..8).map(|_| queue.next(None)).collect();
        assert_eq!(turns, ["n0", "n1", "n2", "l0", "n3", "n4", "l1", "l2"].map(Turn::Next));
    }

    #[test]
    fn p5_the_queue_is_bounded_and_ordered() {
        let queue = Arc::new(Queue::new(2));
        let places = [place(&queue, Priority::Normal, 'a'), place(&queue, Priority::Normal, 'b')];
        assert_eq!(queue.join(Priority::Normal, 'c').err(), Some(Full));
        assert_eq!((queue.next(None), queue.depth()), (Turn::Next('a'), 1));
        let _third = place(&queue, Priority::Normal, 'c');
        assert_eq!((queue.next(None), queue.next(None)), (Turn::Next('b'), Turn::Next('c')));
        drop(places);
        assert_eq!(queue.depth(), 0);
    }

    #[test]
    fn p5_many_disconnected_callers_leave_every_place_free() {
        let queue = Arc::new(Queue::new(3));
        let item = Arc::new(());
        for _ in 0..1000 {
            let storm: Vec<_> = (0..3).map(|_| place(&queue, Priority::Normal, Arc::clone(&item))).collect();
            assert!(queue.join(Priority::Normal, Arc::clone(&item)).is_err());
            drop(storm);
        }
        assert_eq!(queue.depth(), 0);
        assert_eq!(Arc::strong_count(&item), 1, "the item is dropped with its place");
        let _kept = place(&queue, Priority::Normal, Arc::clone(&item));
        let middle = place(&queue, Priority::Normal, Arc::clone(&item));
        drop(middle);
        assert_eq!(queue.depth(), 1);
    }

    #[test]
    fn closing_ends_the_wait_of_threads_and_callers() {
        let queue = Arc::new(Queue::new(3));
        let worker = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.next(None)
        });
        queue.close();
        assert_eq!(worker.join().unwrap(), Turn::<u8>::Closed);
        assert!(queue.join(Priority::Normal, 1).is_err());
    }

    #[test]
    fn a_wait_without_an_item_times_out_and_a_waiting_item_is_returned_first() {
        let queue = Arc::new(Queue::new(1));
        assert_eq!(queue.next(Some(Duration::ZERO)), Turn::TimedOut);
        let _place = place(&queue, Priority::Normal, 7);
        assert_eq!(queue.next(Some(Duration::ZERO)), Turn::Next(7));
        queue.close();
        assert_eq!(queue.next(Some(Duration::ZERO)), Turn::Closed);
    }
}
