//! Notifies the other replicas after a commit that the feed has new entries (security.md C5).
//!
//! The obvious way is `NOTIFY` within the transaction. But PostgreSQL then takes a cluster-wide lock from before the
//! commit until the log is on the disk. All commits with new entries would wait for each other's disk writes. A later
//! `NOTIFY` in its own transaction writes nothing to the log and holds that lock only for an instant. One notification
//! covers every commit that ended before it. A lost notification costs the time until the next poll.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::task::TaskTracker;

/// Pause between two notifications of this replica. Under a flood of revocations one notification covers many.
const MIN_SYNC_INTERVAL: Duration = Duration::from_millis(10);

/// No notification is due.
const QUIET: u8 = 0;
/// A notification is about to be sent, or has just been sent.
const SPEAKING: u8 = 1;
/// A commit may have happened after the notification was sent: one more is due.
const MORE: u8 = 2;

/// Sends at most one notification at a time, and one for any number of commits.
#[derive(Default)]
pub(super) struct Announcer {
    state: Arc<AtomicU8>,
    tasks: TaskTracker,
}

impl Announcer {
    /// Schedules a call of `speak` in the background; the caller does not wait for it.
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
                // The notification sent now covers every commit up to this point.
                state.store(SPEAKING, Ordering::Release);
                // If it panics, the next commit still sends a notification.
                let _ = std::panic::AssertUnwindSafe(speak()).catch_unwind().await;
                tokio::time::sleep(MIN_SYNC_INTERVAL).await;
                if state.compare_exchange(SPEAKING, QUIET, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                    return;
                }
            }
        });
    }

    /// Waits until the notifications for all commits so far are sent. For a process that is about to end.
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
    async fn c5_one_notification_covers_every_earlier_commit_and_no_commit_is_missed() {
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
        // The first notification is in progress and may be too early for these commits.
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
