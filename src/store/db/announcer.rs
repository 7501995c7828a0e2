//! Telling the other replicas that the feed has news, after the commit (security.md C5).
//!
//! `NOTIFY` within the transaction would be the obvious thing. But PostgreSQL takes a lock on its whole cluster for it, from
//! before the commit until the log is on the disk, so that all commits with news would wait for each other's disk writes.
//! Sent afterwards, in a transaction of its own that writes nothing to the log, it holds that lock for an instant; and one
//! notification speaks for every commit that ended before it. One that is lost costs the time until the next poll.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::task::TaskTracker;

/// Between two notifications of this replica: under a flood of revocations one speaks for many.
const BREATH: Duration = Duration::from_millis(10);

/// Nothing is to be told.
const QUIET: u8 = 0;
/// A notification is about to be sent, or was a moment ago.
const SPEAKING: u8 = 1;
/// Something was committed after it may have been sent: one more is due.
const MORE: u8 = 2;

/// Sends at most one notification at a time, and one for any number of commits.
#[derive(Default)]
pub(super) struct Announcer {
    state: Arc<AtomicU8>,
    tasks: TaskTracker,
}

impl Announcer {
    /// Has `speak` called soon after now, in the background; the caller does not wait for it.
    pub(super) fn announce<F>(&self, speak: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        let next = |state| Some(if state == QUIET { SPEAKING } else { MORE });
        if self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) != Ok(QUIET) {
            return;
        }
        let state = Arc::clone(&self.state);
        self.tasks.spawn(async move {
            loop {
                // What was committed until here is covered by what is sent now.
                state.store(SPEAKING, Ordering::Release);
                // Should it panic, the next commit is told all the same.
                let _ = std::panic::AssertUnwindSafe(speak()).catch_unwind().await;
                tokio::time::sleep(BREATH).await;
                if state.compare_exchange(SPEAKING, QUIET, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                    return;
                }
            }
        });
    }

    /// Waits until everything is told that was committed so far. For a process that is about to end.
    pub(super) async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn c5_one_notification_speaks_for_every_commit_before_it_and_none_is_forgotten() {
        let announcer = Announcer::default();
        let (sent, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let announce = || {
            let (sent, gate) = (Arc::clone(&sent), Arc::clone(&gate));
            announcer.announce(move || {
                let (sent, gate) = (Arc::clone(&sent), Arc::clone(&gate));
                async move {
                    sent.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                }
            });
        };
        announce();
        while sent.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // The first one is under way and may have been too early for these.
        for _ in 0..100 {
            announce();
        }
        gate.add_permits(2);
        announcer.settle().await;
        assert_eq!((sent.load(Ordering::SeqCst), gate.available_permits()), (2, 0));
        gate.add_permits(1);
        announce();
        announcer.settle().await;
        assert_eq!(sent.load(Ordering::SeqCst), 3);
    }
}
