//! The hashing threads, and the handle that callers hold.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::bench::{Bench, Unhashable};
use super::limits::{Limits, SharedMemory};
use super::queue::{Full, Priority, Queue, Turn};
use super::scheme::Scheme;
use super::settings::{HashSettings, SettingsError};
use super::stored::{HashRefusal, PasswordHash};
use super::work::{RefusalCost, Step};
use crate::clock::Clock;
use crate::crypto::Random;
use crate::domain::Password;

/// How much hashing yields to everything else: a login may wait for introspection, never the other way round.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;
/// A thread that nobody needed for so long gives its memory back: a replica that nobody logs in at keeps none of it, and in
/// a storm of logins no thread is idle for that long.
const RESTS_AFTER: Duration = Duration::from_secs(10);
/// A busy answer asks the caller to wait within these bounds.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The newest job counts for one eighth of the typical duration.
const TYPICAL_WEIGHT: u64 = 8;

/// Is told how long each job kept its thread, waiting excluded.
pub type HashObserver = Arc<dyn Fn(Duration) + Send + Sync>;

/// A handle on the pool. Clones share it; when the last one goes, the threads finish what they are at and end.
#[derive(Clone)]
pub struct PasswordHasher {
    pool: Arc<Pool>,
}

/// What became of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the stored hash is of this password.
    pub matches: bool,
    /// On a match with a hash of another scheme than the current one: the hash to store in its place, if the stored one is
    /// still the one that matched. Made in the same job, so that upgrading needs neither the password nor a place in the
    /// queue again. `None` if the stored hash also matches other passwords, which the new one would refuse.
    pub replacement: Option<PasswordHash>,
}

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashingError {
    /// The queue is full: nothing was done, and nobody waited.
    #[error("too many passwords are waiting to be hashed")]
    Busy {
        /// When a place is likely to be free, in whole seconds.
        retry_after: Duration,
    },
    /// A library failed. To be treated as an internal error, never as a match.
    #[error("a password could not be hashed")]
    Failed,
}

/// Is given a thread's memory, or the reason why it does not run.
type Job = Box<dyn FnOnce(Result<&mut Bench, HashingError>) + Send>;

/// Closes the queue when the last handle goes.
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
        // From here on, an early return ends the threads that run already.
        let pool = Pool(Arc::clone(&shared));
        let memory = Arc::new(SharedMemory::new(legacy_memory_kib));
        for number in 0..threads {
            let no_memory = SettingsError::NoMemory(threads * memory_kib as usize);
            let bench = Bench::new(scheme, Arc::clone(&memory)).ok_or(no_memory)?;
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("password-{number}"));
            thread.spawn(move || shared.work(bench)).map_err(SettingsError::NoThread)?;
        }
        Ok(Self { pool: Arc::new(pool) })
    }

    /// The hash of a new password, under the current scheme and a salt of its own.
    ///
    /// Dropping the future before a thread took the job removes it from the queue.
    pub async fn hash(&self, password: Password) -> Result<PasswordHash, HashingError> {
        let shared = Arc::clone(&self.pool.0);
        self.run(Priority::Normal, move |bench| shared.hash(bench, &password)).await
    }

    /// Whether `stored` is of this password. `None` stands for a user who does not exist or may not log in: never a match,
    /// at the price of any other refusal. Every refusal costs the same (see the module's own page).
    ///
    /// Dropping the future before a thread took the job removes it from the queue.
    pub async fn verify(
        &self,
        password: Password,
        stored: Option<PasswordHash>,
        priority: Priority,
    ) -> Result<Verdict, HashingError> {
        let shared = Arc::clone(&self.pool.0);
        self.run(priority, move |bench| Ok(shared.verify(bench, &password, stored.as_ref()))).await
    }

    /// Sets the schemes of stored hashes, all of them: a refusal costs from now on what the most expensive hash of each kind
    /// costs. Replaces the schemes set or learned before, so that the cost falls when the last imported hash is upgraded.
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

    /// The scheme of new hashes; a stored hash of any other is replaced at its next match.
    pub fn scheme(&self) -> Scheme {
        self.pool.0.scheme
    }

    /// How many callers wait for a thread.
    pub fn queue_depth(&self) -> usize {
        self.pool.0.queue.depth()
    }

    async fn run<T: Send + 'static>(
        &self,
        priority: Priority,
        work: impl FnOnce(&mut Bench) -> Result<T, Unhashable> + Send + 'static,
    ) -> Result<T, HashingError> {
        let shared = &self.pool.0;
        let (answer, result) = oneshot::channel();
        // The caller may have disconnected when the answer is ready.
        let job: Job = Box::new(move |bench| {
            let done = bench.and_then(|bench| work(bench).map_err(|Unhashable| HashingError::Failed));
            drop(answer.send(done));
        });
        let busy = || HashingError::Busy { retry_after: shared.retry_after() };
        let (_place, displaced) = shared.queue.join(priority, job).map_err(|Full| busy())?;
        if let Some(displaced) = displaced {
            displaced(Err(busy()));
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
    /// A thread's life.
    fn work(&self, mut bench: Bench) {
        yield_to_others();
        let mut patience = None;
        loop {
            let job = match self.queue.next(patience) {
                Turn::Next(job) => job,
                Turn::Nobody => {
                    bench.rest();
                    patience = None;
                    continue;
                }
                Turn::Closed => return,
            };
            let began = self.clock.elapsed();
            if bench.wake().is_err() {
                // The job answers its caller by being dropped: that failed, and says nothing of the password.
                tracing::error!("a hashing thread gets no memory from the system");
                continue;
            }
            // A job that panics answers its caller by dropping the channel. The thread must live on: without it, the pool
            // would shrink by each such request until nobody can log in.
            if catch_unwind(AssertUnwindSafe(|| job(Ok(&mut bench)))).is_err() {
                tracing::error!("hashing a password panicked");
            }
            let took = self.clock.elapsed().saturating_sub(began);
            self.note(took);
            (self.observer)(took);
            patience = Some(RESTS_AFTER);
        }
    }

    fn hash(&self, bench: &mut Bench, password: &Password) -> Result<PasswordHash, Unhashable> {
        bench.hash(self.scheme, password.as_bytes(), self.random.bytes())
    }

    fn verify(&self, bench: &mut Bench, password: &Password, stored: Option<&PasswordHash>) -> Verdict {
        let stored = stored.filter(|stored| self.has_memory(stored.scheme()));
        let steps = {
            let mut cost = self.refusal_cost();
            let scheme = stored.map(PasswordHash::scheme);
            scheme.into_iter().for_each(|scheme| learn(&mut cost, scheme));
            cost.steps(scheme)
        };
        for step in steps {
            match (step, stored) {
                (Step::Verify, Some(stored)) if self.matches(bench, password, stored) => {
                    let is_kept = stored.is_current(self.scheme) || !stored.matches_only(password.as_bytes());
                    let replacement = if is_kept { None } else { self.hash(bench, password).ok() };
                    return Verdict { matches: true, replacement };
                }
                (Step::Verify, _) => {}
                (Step::Spend(work), _) => {
                    if bench.spend(work, password.as_bytes()).is_err() {
                        tracing::error!(
                            "a refused password was not given its full cost: the refusal can be told by its time"
                        );
                    }
                }
            }
        }
        Verdict { matches: false, replacement: None }
    }

    /// A hash that cannot be computed is a refusal like any other, and a matter for the operator: an error of its own would
    /// tell the caller that the user exists.
    fn matches(&self, bench: &mut Bench, password: &Password, stored: &PasswordHash) -> bool {
        bench.matches(stored, password.as_bytes()).unwrap_or_else(|error| {
            tracing::error!(%error, scheme = %stored.scheme(), "a stored password hash could not be verified");
            false
        })
    }

    /// Whether the pool may use the memory that a hash needs. If not, its user cannot log in.
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
        // Threads may overwrite each other's note: it is a guess for `Retry-After`, not a figure.
        let typical = self.typical_nanos.load(Ordering::Relaxed);
        let next = if typical == 0 { took } else { typical - typical / TYPICAL_WEIGHT + took / TYPICAL_WEIGHT };
        self.typical_nanos.store(next, Ordering::Relaxed);
    }

    /// How long the line takes to empty, in whole seconds.
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
             a refused login of a user with this scheme can be told apart by its time"
        );
    }
}

/// Linux gives each thread a priority of its own; elsewhere it would be that of the whole process, and stays.
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

    /// Work done since the last call, summed up by kind.
    async fn work_done(hasher: &PasswordHasher) -> BTreeMap<String, u32> {
        let trace = hasher.run(Priority::Normal, |bench| Ok(std::mem::take(&mut bench.trace))).await.unwrap();
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

    #[test]
    fn p1_weaker_settings_do_not_start() {
        let weak = HashSettings { memory_kib: 7167, ..WEAKEST };
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_millis(0)));
        let started = PasswordHasher::start(weak, Arc::new(SeededRandom::new(1)), clock, Arc::new(|_| ()));
        assert!(matches!(started.err(), Some(SettingsError::TooWeak)));
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
            assert_eq!(replacement.scheme(), hasher.scheme(), "{name}");
            let again = hasher.verify(password(text), Some(replacement), Priority::Normal).await.unwrap();
            assert_eq!(again, Verdict { matches: true, replacement: None }, "{name}");
        }
    }

    #[tokio::test]
    async fn p14_a_login_with_a_bcrypt_hash_that_matches_other_passwords_upgrades_nothing() {
        let hasher = start(WEAKEST);
        // The owner's password has 80 bytes, of which bcrypt reads 72.
        let owners = "b".repeat(80);
        let stored = hasher.run(Priority::Normal, {
            let owners = owners.clone();
            move |bench| bench.bcrypt_hash(4, owners.as_bytes())
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
            move |bench| bench.bcrypt_hash(4, short.as_bytes())
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
        // As many kinds as there is room for.
        stored
            .retain(|hash| !matches!(hash.scheme(), Scheme::Argon2 { lanes: 2.., .. } | Scheme::Bcrypt { cost: 5.. }));
        stored.push(hasher.hash(password("somebody's own")).await.unwrap());
        hasher.expect_schemes(stored.iter().map(PasswordHash::scheme));
        let _ = work_done(&hasher).await;

        assert!(!hasher.verify(password("a wrong guess"), None, Priority::Normal).await.unwrap().matches);
        let nobody = work_done(&hasher).await;
        assert!(nobody.len() > 8, "{nobody:?}");
        for hash in stored {
            let scheme = hash.scheme();
            assert!(!hasher.verify(password("a wrong guess"), Some(hash), Priority::Normal).await.unwrap().matches);
            assert_eq!(work_done(&hasher).await, nobody, "{scheme}");
        }
    }

    #[tokio::test]
    async fn p6_schemes_are_learned_when_met_and_forgotten_when_told() {
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
    async fn p5_five_hundred_logins_fill_the_queue_and_no_more() {
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
        assert_eq!(poll_once(flood[7].as_mut()), Poll::Ready(busy.clone()), "the newest guess gave way");
        assert_eq!(poll_once(verify("one more guess", Priority::Low).as_mut()), Poll::Ready(busy));
        assert!(poll_once(flood[6].as_mut()).is_pending());
        drop(release);
        assert!(!owner.await.unwrap().matches);
    }

    #[tokio::test]
    async fn p5_p13_imported_hashes_never_use_more_memory_at_once_than_they_share() {
        let settings = HashSettings { threads: 4, queue: 64, legacy_memory_kib: 20_000, ..WEAKEST };
        let hasher = start(settings);
        let shared = hasher.run(Priority::Normal, |bench| Ok(bench.shared_memory())).await.unwrap();
        let large = |memory_kib| {
            let (variant, version) = (argon2::Algorithm::Argon2id, argon2::Version::V0x13);
            Scheme::argon2(variant, version, memory_kib, 1, 1).unwrap()
        };
        let kinds = [large(8_000), large(9_000), Scheme::scrypt(13, 8, 1).unwrap(), large(20_000)];
        let jobs = kinds.iter().cycle().take(24).map(|scheme| {
            let work = Work::of(*scheme);
            hasher.run(Priority::Normal, move |bench| bench.spend(work, b"beside the own memory"))
        });
        for done in futures_util::future::join_all(jobs).await {
            assert_eq!(done, Ok(()));
        }
        // A permit that was given beyond the budget would have underflowed the count.
        assert_eq!(shared.least_free_kib.load(Ordering::SeqCst), 0, "the largest one used all of it");
        assert_eq!(shared.free_kib(), 20_000, "everything was given back");
    }

    #[tokio::test]
    async fn p13_a_stored_hash_beyond_the_memory_is_a_refusal_and_is_never_computed() {
        let hasher = start(HashSettings { legacy_memory_kib: 8192, ..WEAKEST });
        let refused = hasher.verify(password("a wrong guess"), None, Priority::Normal).await.unwrap();
        let nobody = work_done(&hasher).await;
        let text =
            "$argon2id$v=19$m=1048576,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let stored = PasswordHash::parse(text).unwrap();
        assert!(hasher.check_import(&stored).is_err());
        hasher.expect_schemes([stored.scheme()]);
        let verdict = hasher.verify(password("a wrong guess"), Some(stored), Priority::Normal).await.unwrap();
        assert_eq!((&verdict, work_done(&hasher).await), (&refused, nobody));
    }

    #[tokio::test]
    async fn p5_callers_who_go_away_free_their_places_and_cost_no_hash() {
        let hasher = start(WEAKEST);
        let release = occupied(&hasher).await;
        for _ in 0..100 {
            let mut storm: Vec<_> =
                (0..8).map(|_| Box::pin(hasher.verify(password("gone again"), None, Priority::Normal))).collect();
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
            hasher.run(Priority::Normal, move |bench| {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let done = bench.spend(Work::of(cheap), b"in its own memory");
                running.fetch_sub(1, Ordering::SeqCst);
                done.map(|()| bench.held_blocks())
            })
        });
        for memory in futures_util::future::join_all(jobs).await {
            assert_eq!(memory.unwrap(), 7168);
        }
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn p5_a_thread_holds_memory_from_its_first_hash_until_it_rests_and_hashes_all_the_same() {
        let hasher = start(WEAKEST);
        let blocks = async || hasher.run(Priority::Normal, |bench| Ok(bench.held_blocks())).await.unwrap();
        assert_eq!(blocks().await, 0);
        let hash = hasher.hash(password("before the rest")).await.unwrap();
        assert_eq!(blocks().await, 7168);
        for _ in 0..3 {
            let rested = hasher.run(Priority::Normal, |bench| {
                bench.rest();
                Ok(bench.held_blocks())
            });
            assert_eq!(rested.await, Ok(0));
            assert!(
                hasher.verify(password("before the rest"), Some(hash.clone()), Priority::Normal).await.unwrap().matches
            );
            assert_eq!(blocks().await, 7168);
        }
    }

    #[tokio::test]
    async fn a_panicking_job_fails_its_caller_and_spares_the_thread() {
        let hasher = start(WEAKEST);
        let failed = hasher.run::<()>(Priority::Normal, |_| panic!("on purpose")).await;
        assert_eq!(failed, Err(HashingError::Failed));
        assert!(hasher.hash(password("still at work")).await.is_ok());
    }

    #[tokio::test]
    async fn durations_are_reported_and_set_the_advice_of_a_busy_answer() {
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
        // The observer, and with it the sender, goes with the last thread.
        assert_eq!(durations.iter().count(), 1);
    }
}
