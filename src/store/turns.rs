//! Runs one operation on a subject at a time, with one outcome for equal concurrent calls.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Mutex as Turn;
use tracing::Instrument;

/// Queues of callers, one for each subject with a running operation. Empty queues take no memory.
///
/// A caller shares an outcome only if its operation began after the caller arrived. The outcome is therefore at least
/// as recent as the caller's own request. A refresh never shares an outcome decided before a logout that was
/// acknowledged before the refresh arrived (security.md R11).
pub struct Turns<I, K, T> {
    queues: Mutex<HashMap<I, Arc<Queue<K, T>>>>,
}

struct Queue<K, T> {
    /// Number of operations begun so far.
    begun: AtomicU64,
    /// Held while an operation runs; first come, first served.
    turn: Arc<Turn<Option<Last<K, T>>>>,
}

/// The most recent operation of a queue.
struct Last<K, T> {
    number: u64,
    key: K,
    outcome: T,
}

impl<I, K, T> Default for Turns<I, K, T> {
    fn default() -> Self {
        Self { queues: Mutex::default() }
    }
}

impl<I, K, T> Turns<I, K, T>
where
    I: Eq + Hash + Copy + Send + Sync + 'static,
    K: Eq + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Runs `work` for `subject` once no other operation on it runs. Runs nothing if an operation with the same `key`
    /// began since the call and `shared` converts its outcome. `work` runs in its own task, to its end, even if the
    /// caller is cancelled. None if it panicked.
    pub async fn run(
        self: &Arc<Self>,
        subject: I,
        key: K,
        shared: impl Fn(&T) -> Option<T>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let place = self.enter(subject);
        let seen = place.queue.begun.load(Ordering::Acquire);
        let mut last = Arc::clone(&place.queue.turn).lock_owned().await;
        let found = last.as_ref().filter(|last| last.number > seen && last.key == key);
        if let Some(outcome) = found.and_then(|last| shared(&last.outcome)) {
            return Some(outcome);
        }
        let operation = async move {
            let number = place.queue.begun.fetch_add(1, Ordering::AcqRel) + 1;
            let outcome = work.await;
            *last = Some(Last { number, key, outcome: outcome.clone() });
            outcome
        };
        tokio::spawn(operation.instrument(tracing::Span::current())).await.ok()
    }

    fn enter(self: &Arc<Self>, subject: I) -> Place<I, K, T> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = Arc::clone(queues.entry(subject).or_default());
        Place { turns: Arc::clone(self), subject, queue }
    }
}

impl<K, T> Default for Queue<K, T> {
    fn default() -> Self {
        Self { begun: AtomicU64::new(0), turn: Arc::new(Turn::new(None)) }
    }
}

/// One caller's place in a queue. The last caller to leave removes the queue.
struct Place<I: Eq + Hash, K, T> {
    turns: Arc<Turns<I, K, T>>,
    subject: I,
    queue: Arc<Queue<K, T>>,
}

impl<I: Eq + Hash, K, T> Drop for Place<I, K, T> {
    fn drop(&mut self) {
        let mut queues = self.turns.queues.lock().unwrap_or_else(PoisonError::into_inner);
        // One reference belongs to this place, one to the map. Others are made only under the lock.
        if Arc::strong_count(&self.queue) <= 2 {
            queues.remove(&self.subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;

    use super::*;

    type Numbers = Turns<u8, &'static str, u64>;

    /// Operations that each wait for a permit, and return their number.
    #[derive(Default, Clone)]
    struct Work {
        started: Arc<AtomicU64>,
        gate: Arc<Gate>,
    }

    struct Gate(Semaphore);

    impl Default for Gate {
        fn default() -> Self {
            Self(Semaphore::new(0))
        }
    }

    impl Work {
        async fn run(self) -> u64 {
            let number = self.started.fetch_add(1, Ordering::SeqCst) + 1;
            self.gate.0.acquire().await.unwrap().forget();
            number
        }
    }

    /// Lets every task run as far as it can: the runtime has one thread.
    async fn settle() {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    fn ask(asking: &mut JoinSet<Option<u64>>, turns: &Arc<Numbers>, subject: u8, key: &'static str, work: &Work) {
        let (turns, work) = (Arc::clone(turns), work.clone());
        asking.spawn(async move { turns.run(subject, key, |number| Some(*number), work.run()).await });
    }

    #[tokio::test]
    async fn callers_that_wait_share_the_first_operation_that_begins_after_they_arrived() {
        let (turns, work, mut asking) = (Arc::new(Numbers::default()), Work::default(), JoinSet::new());
        ask(&mut asking, &turns, 1, "same", &work);
        settle().await;
        for _ in 0..100 {
            ask(&mut asking, &turns, 1, "same", &work);
        }
        settle().await;
        assert_eq!(work.started.load(Ordering::SeqCst), 1, "one operation on a subject at a time");
        work.gate.0.add_permits(2);
        let mut outcomes: Vec<_> = asking.join_all().await.into_iter().flatten().collect();
        outcomes.sort_unstable();
        assert_eq!(outcomes, [vec![1], vec![2; 100]].concat(), "the running operation may have been decided before");
        assert_eq!(turns.queues.lock().unwrap().len(), 0, "no queue stays behind");
    }

    #[tokio::test]
    async fn callers_with_another_key_wait_and_callers_for_another_subject_do_not() {
        let (turns, work, mut asking) = (Arc::new(Numbers::default()), Work::default(), JoinSet::new());
        for key in ["one", "other"] {
            ask(&mut asking, &turns, 1, key, &work);
        }
        ask(&mut asking, &turns, 2, "one", &work);
        settle().await;
        assert_eq!(work.started.load(Ordering::SeqCst), 2);
        work.gate.0.add_permits(3);
        asking.join_all().await;
        assert_eq!(work.started.load(Ordering::SeqCst), 3, "two keys share nothing");
    }

    #[tokio::test]
    async fn an_outcome_that_cannot_be_shared_makes_the_next_caller_run_its_own() {
        let (turns, work) = (Arc::new(Numbers::default()), Work::default());
        let mut asking = JoinSet::new();
        for _ in 0..4 {
            let (turns, work) = (Arc::clone(&turns), work.clone());
            let shared = |number: &u64| (*number > 2).then_some(*number);
            asking.spawn(async move { turns.run(1, "same", shared, work.run()).await });
        }
        work.gate.0.add_permits(3);
        let mut outcomes: Vec<_> = asking.join_all().await.into_iter().flatten().collect();
        outcomes.sort_unstable();
        assert_eq!(outcomes, [1, 2, 3, 3]);
    }

    #[tokio::test]
    async fn r10_an_operation_outlives_its_caller_and_a_panic_frees_the_turn() {
        let (turns, work, mut asking) = (Arc::new(Numbers::default()), Work::default(), JoinSet::new());
        ask(&mut asking, &turns, 1, "same", &work);
        settle().await;
        asking.shutdown().await;
        ask(&mut asking, &turns, 1, "same", &work);
        settle().await;
        assert_eq!(work.started.load(Ordering::SeqCst), 1, "the abandoned operation still has its turn");
        work.gate.0.add_permits(2);
        assert_eq!(asking.join_next().await.unwrap().unwrap(), Some(2));
        assert_eq!(turns.run(1, "same", |number| Some(*number), async { panic!("on purpose") }).await, None);
        assert_eq!(turns.run(1, "same", |number| Some(*number), async { 7 }).await, Some(7));
        assert_eq!(turns.queues.lock().unwrap().len(), 0);
    }
}
