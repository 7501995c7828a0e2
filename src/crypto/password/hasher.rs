//! The hashing pool, and the handle to it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::limits::{Limits, SharedMemory};
use super::queue::{Full, Priority, Queue, Turn};
use super::scheme::Scheme;
use super::settings::{HashSettings, SettingsError};
use super::stored::{HashRefusal, PasswordHash};
use super::work::{RefusalCost, Step};
use super::workspace::{Unhashable, Workspace};
use crate::clock::Clock;
use crate::crypto::Random;
use crate::domain::Password;

/// Niceness of hashing threads, so that introspection is scheduled before a login.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;
/// Idle time after which a thread returns its memory. A replica without logins holds none; under load no thread is
/// idle for that long.
const RESTS_AFTER: Duration = Duration::from_secs(10);
/// Bounds of `retry_after` in [`HashingError::Busy`].
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The newest job has a weight of one eighth in the typical duration.
const TYPICAL_WEIGHT: u64 = 8;

/// Called with the time that each job took on its thread, without the wait in the queue.
pub type HashObserver = Arc<dyn Fn(Duration) + Send + Sync>;

/// A handle to the pool. Clones share the pool. When the last one is dropped, the threads finish their jobs and end.
#[derive(Clone)]
pub struct PasswordHasher {
    pool: Arc<Pool>,
}

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub matches: bool,
    /// The hash to store instead of the stored one, if the stored one is unchanged. Set on a match under a scheme
    /// other than the current one. Made in the same job, so that the upgrade needs neither the password nor a place
    /// in the queue again. `None` if the stored hash also matches other passwords, which the new one would refuse.
    pub replacement: Option<PasswordHash>,
}

/// Why a password was not hashed or verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashingError {
    /// The queue is full; nothing was done.
    #[error("too many passwords are waiting to be hashed")]
    Busy { retry_after: Duration },
    /// A library failed. An internal error, never a match.
    #[error("a password could not be hashed")]
    Failed,
}

/// Called with a thread's memory, or with the reason why it does not run.
type Job = Box<dyn FnOnce(Result<&mut Workspace, HashingError>) -> Delivery + Send>;
/// Gives the caller its answer, after the job was counted.
type Delivery = Box<dyn FnOnce()>;

/// Closes the queue when the last handle is dropped.
struct Pool(Arc<Shared>);

struct Shared {
    queue: Arc<Queue<Job>>,
    scheme: Scheme,
    limits: Limits,
    threads: usize,
    refusal_cost: Mutex<RefusalCost>,
    random: Arc<dyn Random>,
    clock: Arc<dyn Clock>,
    observer: HashObserver,
    typical_nanos: AtomicU64,
}

impl PasswordHasher {
    /// Checks the settings, reserves the memory and starts the threads.
    pub fn start(
        settings: HashSettings,
        random: Arc<dyn Random>,
        clock: Arc<dyn Clock>,
        observer: HashObserver,
    ) -> Result<Self, SettingsError> {
        let scheme = settings.scheme()?;
        let HashSettings { threads, queue, memory_kib, legacy_cost, legacy_memory_kib, .. } = settings;
        let limits = Limits::new(scheme, legacy_cost, legacy_memory_kib);
        let shared = Arc::new(Shared {
            queue: Arc::new(Queue::new(queue)),
            scheme,
            limits,
            threads,
            refusal_cost: Mutex::new(RefusalCost::of(scheme, &limits)),
            random,
            clock,
            observer,
            typical_nanos: AtomicU64::new(0),
        });
        // From here on, an early return drops the pool and so ends the threads.
        let pool = Pool(Arc::clone(&shared));
        let memory = Arc::new(SharedMemory::new(legacy_memory_kib));
        for number in 0..threads {
            let no_memory = SettingsError::NoMemory(threads * memory_kib as usize);
            let workspace = Workspace::new(scheme, Arc::clone(&memory)).ok_or(no_memory)?;
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("password-{number}"));
            thread.spawn(move || shared.work(workspace)).map_err(SettingsError::NoThread)?;
        }
        Ok(Self { pool: Arc::new(pool) })
    }

    /// The hash of a new password, under the current scheme and a new salt.
    ///
    /// Dropping the future before a thread took the job removes it from the queue.
    pub async fn hash(&self, password: Password) -> Result<PasswordHash, HashingError> {
        let shared = Arc::clone(&self.pool.0);
        self.run(Priority::Normal, move |workspace| shared.hash(workspace, &password)).await
    }

    /// Whether `stored` is the hash of this password. `None` is for a user who does not exist or may not log in; it
    /// never matches. Every refusal costs the same (see the documentation of the module).
    ///
    /// Dropping the future before a thread took the job removes it from the queue.
    pub async fn verify(
        &self,
        password: Password,
        stored: Option<PasswordHash>,
        priority: Priority,
    ) -> Result<Verdict, HashingError> {
        let shared = Arc::clone(&self.pool.0);
        self.run(priority, move |workspace| Ok(shared.verify(workspace, &password, stored.as_ref()))).await
    }

    /// Sets the schemes of all stored hashes. From now on, a refusal costs as much as the most expensive hash of each
    /// kind. Replaces the schemes set or learned before, so the cost falls when the last imported hash is upgraded.
    pub fn expect_schemes(&self, schemes: impl IntoIterator<Item = Scheme>) {
        let shared = &self.pool.0;
        let mut cost = RefusalCost::of(shared.scheme, &shared.limits);
        for scheme in schemes {
            if shared.has_memory(scheme) {
                learn(&mut cost, scheme);
            }
        }
        *shared.refusal_cost() = cost;
    }

    /// Whether a hash is cheap enough to be imported (security.md P13).
    pub fn check_import(&self, hash: &PasswordHash) -> Result<(), HashRefusal> {
        self.pool.0.limits.check(hash.scheme())
    }

    /// Callers that wait for a thread.
    pub fn queue_depth(&self) -> usize {
        self.pool.0.queue.depth()
    }

    async fn run<T: Send + 'static>(
        &self,
        priority: Priority,
        work: impl FnOnce(&mut Workspace) -> Result<T, Unhashable> + Send + 'static,
    ) -> Result<T, HashingError> {
        let shared = &self.pool.0;
        let (answer, result) = oneshot::channel();
        // The caller may have disconnected before the result is ready.
        let job: Job = Box::new(move |workspace| {
            let done = workspace.and_then(|workspace| work(workspace).map_err(|Unhashable| HashingError::Failed));
            Box::new(move || drop(answer.send(done)))
        });
        let busy = || HashingError::Busy { retry_after: shared.retry_after() };
        let (_place, displaced) = shared.queue.join(priority, job).map_err(|Full| busy())?;
        if let Some(displaced) = displaced {
            displaced(Err(busy()))();
        }
        result.await.unwrap_or(Err(HashingError::Failed))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

impl Shared {
    /// The loop of a hashing thread.
    fn work(&self, mut workspace: Workspace) {
        yield_to_others();
        let mut patience = None;
        loop {
            let job = match self.queue.next(patience) {
                Turn::Next(job) => job,
                Turn::TimedOut => {
                    workspace.rest();
                    patience = None;
                    continue;
                }
                Turn::Closed => return,
            };
            let began = self.clock.elapsed();
            if workspace.wake().is_err() {
                // Dropping the job fails its caller, without a verdict on the password.
                tracing::error!("a hashing thread gets no memory from the system");
                continue;
            }
            // A job that panics drops the channel, which fails its caller. The thread must survive: otherwise each
            // such request would shrink the pool, until no login is possible.
            let done = catch_unwind(AssertUnwindSafe(|| job(Ok(&mut workspace))));
            let took = self.clock.elapsed().saturating_sub(began);
            self.note(took);
            (self.observer)(took);
            match done {
                Ok(deliver) => deliver(),
                Err(_) => tracing::error!("hashing a password panicked"),
            }
            patience = Some(RESTS_AFTER);
        }
    }

    fn hash(&self, workspace: &mut Workspace, password: &Password) -> Result<PasswordHash, Unhashable> {
        workspace.hash(self.scheme, password.as_bytes(), self.random.bytes())
    }

    fn verify(&self, workspace: &mut Workspace, password: &Password, stored: Option<&PasswordHash>) -> Verdict {
        let stored = stored.filter(|stored| self.has_memory(stored.scheme()));
        let steps = {
            let mut cost = self.refusal_cost();
            let scheme = stored.map(PasswordHash::scheme);
            scheme.into_iter().for_each(|scheme| learn(&mut cost, scheme));
            cost.steps(scheme)
        };
        for step in steps {
            match (step, stored) {
                (Step::Verify, Some(stored)) if self.matches(workspace, password, stored) => {
                    let is_kept = stored.is_current(self.scheme) || !stored.matches_only(password.as_bytes());
                    let replacement = if is_kept { None } else { self.hash(workspace, password).ok() };
                    return Verdict { matches: true, replacement };
                }
                (Step::Verify, _) => {}
                (Step::Spend(work), _) => {
                    if workspace.spend(work, password.as_bytes()).is_err() {
                        tracing::error!(
                            "a refused password did not get its full cost: the time of the refusal differs from others"
                        );
                    }
                }
            }
        }
        Verdict { matches: false, replacement: None }
    }

    /// A hash that cannot be computed is a refusal like any other, and is logged. An error of its own would reveal
    /// that the user exists.
    fn matches(&self, workspace: &mut Workspace, password: &Password, stored: &PasswordHash) -> bool {
        workspace.matches(stored, password.as_bytes()).unwrap_or_else(|error| {
            tracing::error!(%error, scheme = %stored.scheme(), "a stored password hash could not be verified");
            false
        })
    }

    /// Whether the pool may use the memory that the hash needs. If not, the user cannot log in.
    fn has_memory(&self, scheme: Scheme) -> bool {
        let checked = self.limits.check_memory(scheme);
        if let Err(error) = &checked {
            tracing::error!(%error, %scheme, "users with a password hash of this scheme cannot log in");
        }
        checked.is_ok()
    }

    fn refusal_cost(&self) -> MutexGuard<'_, RefusalCost> {
        self.refusal_cost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        // Threads may overwrite each other's value; `Retry-After` is an estimate.
        let typical = self.typical_nanos.load(Ordering::Relaxed);
        let next = if typical == 0 { took } else { typical - typical / TYPICAL_WEIGHT + took / TYPICAL_WEIGHT };
        self.typical_nanos.store(next, Ordering::Relaxed);
    }

    /// Time until the queue is empty, in whole seconds.
    fn retry_after(&self) -> Duration {
        let nanos = u128::from(self.typical_nanos.load(Ordering::Relaxed)) * self.queue.depth() as u128;
        let seconds = (nanos / self.threads as u128).div_ceil(1_000_000_000);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)).clamp(RETRY_AFTER.0, RETRY_AFTER.1)
    }
}

fn learn(cost: &mut RefusalCost, scheme: Scheme) {
    if !cost.learn(scheme) {
        tracing::warn!(
            %scheme,
            "verifying the stored password hashes costs more than passwords.legacy_cost allows: \
             a refused login of a user with this scheme takes a distinguishable time"
        );
    }
}

/// On Linux each thread has its own priority. Elsewhere it would be that of the process, so it is unchanged.
fn yield_to_others() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "a hashing thread keeps the usual priority");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::clock::ManualClock;
    use crate::crypto::SeededRandom;
    use crate::crypto::password::vectors;
    use crate::crypto::password::work::Work;
    use crate::domain::Timestamp;

    const WEAKEST: HashSettings = HashSettings {
        memory_kib: 7168,
        iterations: 5,
        parallelism: 1,
        threads: 1,
        queue: 8,
        legacy_cost: 1000,
        legacy_memory_kib: 131_072,
    };

    fn start_observed(settings: HashSettings, observer: HashObserver) -> (PasswordHasher, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_millis(0)));
        let random = Arc::new(SeededRandom::new(7));
        let hasher = PasswordHasher::start(settings, random, Arc::<ManualClock>::clone(&clock), observer).unwrap();
        (hasher, clock)
    }

    fn start(settings: HashSettings) -> PasswordHasher {
        start_observed(settings, Arc::new(|_| ())).0
    }

    fn password(text: &str) -> Password {
        Password::parse(text).unwrap()
    }

    fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Keeps the pool's only thread busy until the sender is dropped.
    async fn occupied(hasher: &PasswordHasher) -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let (arrive, arrived) = oneshot::channel();
        let pool = hasher.clone();
        tokio::spawn(async move {
            let job = pool.run(Priority::Normal, move |_| {
                let _ = arrive.send(());
                let _ = released.recv();
                Ok(())
            });
            job.await
        });
        arrived.await.unwrap();
        release
    }

    /// Work since the last call, summed by kind.
    async fn work_done(hasher: &PasswordHasher) -> BTreeMap<String, u32> {
        let trace = hasher.run(Priority::Normal, |workspace| Ok(std::mem::take(&mut workspace.trace))).await.unwrap();
        let mut sums = BTreeMap::new();
        for work in trace {
            *sums.entry(format!("{:?}", work.kind)).or_default() += work.units;
        }
        sums
    }

    #[tokio::test]
    async fn p1_a_new_hash_is_argon2id_with_a_salt_of_its_own_and_matches_only_its_password() {
        let hasher = start(WEAKEST);
        let hash = hasher.hash(password("one password")).await.unwrap();
        let other = hasher.hash(password("one password")).await.unwrap();
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=7168,t=5,p=1$"));
        assert_eq!((hash.salt().len(), hash.output().len()), (16, 32));
        assert_ne!(hash.salt(), other.salt());
        let read = PasswordHash::parse(hash.as_str()).unwrap();
        let right = hasher.verify(password("one password"), Some(read), Priority::Normal).await.unwrap();
        assert_eq!(right, Verdict { matches: true, replacement: None });
        let wrong = hasher.verify(password("one Password"), Some(hash), Priority::Normal).await.unwrap();
        assert_eq!(wrong, Verdict { matches: false, replacement: None });
    }

    #[tokio::test]
    async fn p2_bytes_beyond_72_count() {
        let hasher = start(WEAKEST);
        let long = "y".repeat(73);
        let hash = hasher.hash(password(&long)).await.unwrap();
        assert!(!hasher.verify(password(&long[..72]), Some(hash.clone()), Priority::Normal).await.unwrap().matches);
        assert!(hasher.verify(password(&long), Some(hash), Priority::Normal).await.unwrap().matches);
    }

    #[tokio::test]
    async fn p1_a_match_with_any_other_scheme_yields_a_replacement_that_matches() {
        let hasher = start(WEAKEST);
        for (name, text, stored) in vectors::HASHES {
            let stored = PasswordHash::parse(stored).unwrap();
            let is_ambiguous = !stored.matches_only(text.as_bytes());
            let verdict = hasher.verify(password(text), Some(stored), Priority::Normal).await.unwrap();
            assert!(verdict.matches, "{name}");
            if is_ambiguous {
                assert_eq!(verdict.replacement, None, "P14: {name}");
                continue;
            }
            let replacement = verdict.replacement.unwrap();
            assert_eq!(replacement.scheme(), hasher.pool.0.scheme, "{name}");
            let again = hasher.verify(password(text), Some(replacement), Priority::Normal).await.unwrap();
            assert_eq!(again, Verdict { matches: true, replacement: None }, "{name}");
        }
    }

    #[tokio::test]
    async fn p14_a_login_with_a_bcrypt_hash_that_matches_other_passwords_upgrades_nothing() {
        let hasher = start(WEAKEST);
        // The user's password has 80 bytes, of which bcrypt reads 72.
        let owners = "b".repeat(80);
        let stored = hasher.run(Priority::Normal, {
            let owners = owners.clone();
            move |workspace| workspace.bcrypt_hash(4, owners.as_bytes())
        });
        let stored = stored.await.unwrap();
        for (typed, is_upgraded) in [(owners.clone(), false), ("b".repeat(72), false), ("b".repeat(90), false)] {
            let verdict = hasher.verify(password(&typed), Some(stored.clone()), Priority::Normal).await.unwrap();
            assert!(verdict.matches, "{} bytes", typed.len());
            assert_eq!(verdict.replacement.is_some(), is_upgraded, "{} bytes", typed.len());
        }
        let short = "b".repeat(71);
        let stored = hasher.run(Priority::Normal, {
            let short = short.clone();
            move |workspace| workspace.bcrypt_hash(4, short.as_bytes())
        });
        let stored = stored.await.unwrap();
        let longer = hasher.verify(password(&owners), Some(stored.clone()), Priority::Normal).await.unwrap();
        assert!(!longer.matches);
        assert!(hasher.verify(password(&short), Some(stored), Priority::Normal).await.unwrap().replacement.is_some());
    }

    #[tokio::test]
    async fn p6_every_refusal_does_the_same_work_whatever_hash_is_stored() {
        let hasher = start(WEAKEST);
        let mut stored: Vec<_> =
            vectors::HASHES.iter().map(|(_, _, hash)| PasswordHash::parse(hash).unwrap()).collect();
        // The maximum number of kinds.
        stored
            .retain(|hash| !matches!(hash.scheme(), Scheme::Argon2 { lanes: 2.., .. } | Scheme::Bcrypt { cost: 5.. }));
        stored.push(hasher.hash(password("current scheme")).await.unwrap());
        hasher.expect_schemes(stored.iter().map(PasswordHash::scheme));
        let _ = work_done(&hasher).await;

        assert!(!hasher.verify(password("a wrong guess"), None, Priority::Normal).await.unwrap().matches);
        let unknown_user = work_done(&hasher).await;
        assert!(unknown_user.len() > 8, "{unknown_user:?}");
        for hash in stored {
            let scheme = hash.scheme();
            assert!(!hasher.verify(password("a wrong guess"), Some(hash), Priority::Normal).await.unwrap().matches);
            assert_eq!(work_done(&hasher).await, unknown_user, "{scheme}");
        }
    }

    #[tokio::test]
    async fn p6_schemes_are_recorded_at_first_use_and_removed_when_replaced() {
        let hasher = start(WEAKEST);
        let _ = hasher.verify(password("a wrong guess"), None, Priority::Normal).await;
        let plain = work_done(&hasher).await;
        let imported = PasswordHash::parse(vectors::HASHES[0].2).unwrap();
        let _ = hasher.verify(password("a wrong guess"), Some(imported), Priority::Normal).await;
        let with_bcrypt = work_done(&hasher).await;
        let _ = hasher.verify(password("a wrong guess"), None, Priority::Normal).await;
        assert_eq!(work_done(&hasher).await, with_bcrypt);
        hasher.expect_schemes([]);
        let _ = hasher.verify(password("a wrong guess"), None, Priority::Normal).await;
        assert_eq!(work_done(&hasher).await, plain);
    }

    #[tokio::test]
    async fn p5_five_hundred_logins_never_exceed_the_queue_limit() {
        let hasher = start(WEAKEST);
        let release = occupied(&hasher).await;
        let mut waiting: Vec<_> = Vec::new();
        let mut refused = 0;
        for _ in 0..500 {
            let mut login = Box::pin(hasher.verify(password("some password"), None, Priority::Normal));
            match poll_once(login.as_mut()) {
                Poll::Pending => waiting.push(login),
                Poll::Ready(Err(HashingError::Busy { retry_after })) => {
                    assert_eq!(retry_after, Duration::from_secs(1));
                    refused += 1;
                }
                Poll::Ready(other) => panic!("{other:?}"),
            }
        }
        assert_eq!((waiting.len(), refused, hasher.queue_depth()), (8, 492, 8));
        drop(release);
        for login in waiting {
            assert!(!login.await.unwrap().matches);
        }
    }

    #[tokio::test]
    async fn p5_addresses_with_recent_failures_cannot_fill_the_queue_against_others() {
        let hasher = start(WEAKEST);
        let release = occupied(&hasher).await;
        let verify = |text, priority| Box::pin(hasher.verify(password(text), None, priority));
        let mut flood: Vec<_> = (0..8).map(|_| verify("a guess of many", Priority::Low)).collect();
        assert!(flood.iter_mut().all(|login| poll_once(login.as_mut()).is_pending()));
        let mut owner = verify("the owner's own", Priority::Normal);
        assert!(poll_once(owner.as_mut()).is_pending());
        let busy = Err(HashingError::Busy { retry_after: Duration::from_secs(1) });
        assert_eq!(poll_once(flood[7].as_mut()), Poll::Ready(busy.clone()), "the newest guess lost its place");
        assert_eq!(poll_once(verify("one more guess", Priority::Low).as_mut()), Poll::Ready(busy));
        assert!(poll_once(flood[6].as_mut()).is_pending());
        drop(release);
        assert!(!owner.await.unwrap().matches);
    }

    #[tokio::test]
    async fn p5_p13_imported_hashes_never_use_more_memory_at_once_than_they_share() {
        let settings = HashSettings { threads: 4, queue: 64, legacy_memory_kib: 20_000, ..WEAKEST };
        let hasher = start(settings);
        let shared = hasher.run(Priority::Normal, |workspace| Ok(workspace.shared_memory())).await.unwrap();
        let large = |memory_kib| {
            let (variant, version) = (argon2::Algorithm::Argon2id, argon2::Version::V0x13);
            Scheme::argon2(variant, version, memory_kib, 1, 1).unwrap()
        };
        let kinds = [large(8_000), large(9_000), Scheme::scrypt(13, 8, 1).unwrap(), large(20_000)];
        let jobs = kinds.iter().cycle().take(24).map(|scheme| {
            let work = Work::of(*scheme);
            hasher.run(Priority::Normal, move |workspace| workspace.spend(work, b"in shared memory"))
        });
        for done in futures_util::future::join_all(jobs).await {
            assert_eq!(done, Ok(()));
        }
        // A permit beyond the limit would have underflowed the count.
        assert_eq!(shared.least_free_kib.load(Ordering::SeqCst), 0, "the largest one used all of it");
        assert_eq!(shared.free_kib(), 20_000, "everything was given back");
    }

    #[tokio::test]
    async fn p13_a_stored_hash_beyond_the_memory_is_a_refusal_and_is_never_computed() {
        let hasher = start(HashSettings { legacy_memory_kib: 8192, ..WEAKEST });
        let refused = hasher.verify(password("a wrong guess"), None, Priority::Normal).await.unwrap();
        let unknown_user = work_done(&hasher).await;
        let text =
            "$argon2id$v=19$m=1048576,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let stored = PasswordHash::parse(text).unwrap();
        assert!(hasher.check_import(&stored).is_err());
        hasher.expect_schemes([stored.scheme()]);
        let verdict = hasher.verify(password("a wrong guess"), Some(stored), Priority::Normal).await.unwrap();
        assert_eq!((&verdict, work_done(&hasher).await), (&refused, unknown_user));
    }

    #[tokio::test]
    async fn p5_disconnected_callers_leave_the_queue_and_compute_no_hash() {
        let hasher = start(WEAKEST);
        let release = occupied(&hasher).await;
        for _ in 0..100 {
            let mut storm: Vec<_> =
                (0..8).map(|_| Box::pin(hasher.verify(password("disconnected"), None, Priority::Normal))).collect();
            assert!(storm.iter_mut().all(|login| poll_once(login.as_mut()).is_pending()));
        }
        assert_eq!(hasher.queue_depth(), 0);
        drop(release);
        assert!(work_done(&hasher).await.is_empty());
    }

    #[tokio::test]
    async fn p5_no_more_hashes_run_at_once_than_there_are_threads() {
        let hasher = start(HashSettings { threads: 2, queue: 64, ..WEAKEST });
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let cheap = Scheme::argon2(argon2::Algorithm::Argon2id, argon2::Version::V0x13, 64, 1, 1).unwrap();
        let jobs = (0..40).map(|_| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            hasher.run(Priority::Normal, move |workspace| {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let done = workspace.spend(Work::of(cheap), b"in its own memory");
                running.fetch_sub(1, Ordering::SeqCst);
                done.map(|()| workspace.held_blocks())
            })
        });
        for memory in futures_util::future::join_all(jobs).await {
            assert_eq!(memory.unwrap(), 7168);
        }
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn p5_a_thread_allocates_memory_at_its_first_hash_and_frees_it_when_idle() {
        let hasher = start(WEAKEST);
        let blocks = async || hasher.run(Priority::Normal, |workspace| Ok(workspace.held_blocks())).await.unwrap();
        assert_eq!(blocks().await, 0);
        let hash = hasher.hash(password("before the rest")).await.unwrap();
        assert_eq!(blocks().await, 7168);
        for _ in 0..3 {
            let rested = hasher.run(Priority::Normal, |workspace| {
                workspace.rest();
                Ok(workspace.held_blocks())
            });
            assert_eq!(rested.await, Ok(0));
            assert!(
                hasher.verify(password("before the rest"), Some(hash.clone()), Priority::Normal).await.unwrap().matches
            );
            assert_eq!(blocks().await, 7168);
        }
    }

    #[tokio::test]
    async fn a_panicking_job_fails_its_caller_and_the_thread_survives() {
        let hasher = start(WEAKEST);
        let failed = hasher.run::<()>(Priority::Normal, |_| panic!("on purpose")).await;
        assert_eq!(failed, Err(HashingError::Failed));
        assert!(hasher.hash(password("still at work")).await.is_ok());
    }

    #[tokio::test]
    async fn durations_are_reported_and_determine_retry_after() {
        let (seen, durations) = mpsc::channel();
        let (hasher, clock) = start_observed(
            WEAKEST,
            Arc::new(move |took| {
                let _ = seen.send(took);
            }),
        );
        let moving = Arc::clone(&clock);
        hasher
            .run(Priority::Normal, move |_| {
                moving.advance(Duration::from_millis(2500));
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(durations.recv().unwrap(), Duration::from_millis(2500));
        let _release = occupied(&hasher).await;
        let mut waiting: Vec<_> =
            (0..8).map(|_| Box::pin(hasher.verify(password("in the line"), None, Priority::Normal))).collect();
        assert!(waiting.iter_mut().all(|login| poll_once(login.as_mut()).is_pending()));
        let refused = poll_once(pin!(hasher.verify(password("one too many"), None, Priority::Normal)));
        assert_eq!(refused, Poll::Ready(Err(HashingError::Busy { retry_after: Duration::from_secs(20) })));
    }

    #[tokio::test]
    async fn the_threads_end_with_the_last_handle() {
        let (seen, durations) = mpsc::channel();
        let (hasher, _) = start_observed(
            WEAKEST,
            Arc::new(move |took| {
                let _ = seen.send(took);
            }),
        );
        let clone = hasher.clone();
        drop(hasher);
        assert!(clone.hash(password("a clone keeps the pool")).await.is_ok());
        drop(clone);
        // The observer, and with it the sender, is dropped with the last thread.
        assert_eq!(durations.iter().count(), 1);
    }
}
