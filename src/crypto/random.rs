//! The random generator.

use std::sync::atomic::{AtomicU64, Ordering};

use ring::rand::SecureRandom;

/// A source of unpredictable bytes.
pub trait Random: Send + Sync + 'static {
    /// Fills all of `target`.
    fn fill(&self, target: &mut [u8]);
}

impl dyn Random {
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}

/// The operating system's generator.
#[derive(Debug)]
pub struct SystemRandom(ring::rand::SystemRandom);

impl Default for SystemRandom {
    #[expect(clippy::disallowed_methods, reason = "the implementation of `Random`")]
    fn default() -> Self {
        Self(ring::rand::SystemRandom::new())
    }
}

impl Random for SystemRandom {
    #[expect(clippy::expect_used, reason = "without random numbers the service is insecure, so it stops at once")]
    fn fill(&self, target: &mut [u8]) {
        self.0.fill(target).expect("the operating system provides randomness");
    }
}

/// A repeatable stream for tests: SHA-256 of a seed and a counter.
#[derive(Debug)]
pub struct SeededRandom {
    seed: u64,
    counter: AtomicU64,
}

impl SeededRandom {
    pub const fn new(seed: u64) -> Self {
        Self { seed, counter: AtomicU64::new(0) }
    }
}

impl Random for SeededRandom {
    fn fill(&self, target: &mut [u8]) {
        for chunk in target.chunks_mut(32) {
            let count = self.counter.fetch_add(1, Ordering::Relaxed);
            let block = [self.seed.to_be_bytes(), count.to_be_bytes()].concat();
            let digest = ring::digest::digest(&ring::digest::SHA256, &block);
            chunk.copy_from_slice(&digest.as_ref()[..chunk.len()]);
        }
    }
}
