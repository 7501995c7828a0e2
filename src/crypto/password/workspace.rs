//! The working memory of one hashing thread, and the algorithms that run in it.

use std::num::NonZeroU32;
use std::sync::Arc;

use argon2::{Argon2, Block, Params};
use ring::pbkdf2::{PBKDF2_HMAC_SHA1, PBKDF2_HMAC_SHA256, PBKDF2_HMAC_SHA512};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::limits::SharedMemory;
use super::phc::BCRYPT_OUTPUT_BYTES;
use super::scheme::{OUTPUT_BYTES, Pbkdf2Digest, Scheme};
use super::stored::{NEW_OUTPUT_BYTES, NEW_SALT_BYTES, PasswordHash};
use super::work::{Kind, Work};

/// bcrypt reads 72 bytes. The systems that made the hashes cut longer passwords, so verification cuts them too.
pub(super) const BCRYPT_PASSWORD_BYTES: usize = 72;
/// Minimum address space that a thread reserves; only the part that its hashes need is touched. Allocations
/// above this size are mapped separately by glibc, and returned to the system when they are freed. Smaller ones would
/// stay in the heap after the second allocation.
const RESERVED_BYTES: usize = 33 * 1024 * 1024;
/// The salt of work with an unused result.
const NO_SALT: [u8; NEW_SALT_BYTES] = [0; NEW_SALT_BYTES];

/// The algorithm refused its input, or there was no memory. Bounds and types exclude the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a password could not be hashed")]
pub(super) struct Unhashable;

/// A thread's working memory.
pub(super) struct Workspace {
    /// Empty before the first hash and after [`Workspace::rest`]; the address space stays reserved.
    memory: Vec<Block>,
    blocks: usize,
    shared: Arc<SharedMemory>,
    /// All work since the last reset.
    #[cfg(test)]
    pub(super) trace: Vec<Work>,
}

impl Workspace {
    /// Reserves the memory of a hash of `scheme`, which every hash that needs no more reuses. Other hashes take from
    /// `shared`. `None` when the operating system refuses the memory. Its pages are touched by the first hash.
    pub(super) fn new(scheme: Scheme, shared: Arc<SharedMemory>) -> Option<Self> {
        let blocks = scheme.memory_kib() as usize;
        Some(Self {
            memory: reserve(blocks)?,
            blocks,
            shared,
            #[cfg(test)]
            trace: Vec::new(),
        })
    }

    /// Returns the memory to the operating system until the next hash. For an idle thread: the next hash takes a few
    /// milliseconds longer.
    pub(super) fn rest(&mut self) {
        self.memory = Vec::new();
        // If this fails, the next hash tries again.
        self.memory = reserve(self.blocks).unwrap_or_default();
    }

    /// Reserves the thread's own memory if the system refused it after a rest. Without it a password can be neither
    /// accepted nor refused.
    pub(super) fn wake(&mut self) -> Result<(), Unhashable> {
        if self.memory.capacity() < self.blocks {
            self.memory = reserve(self.blocks).ok_or(Unhashable)?;
        }
        Ok(())
    }

    /// The memory that all threads share.
    #[cfg(test)]
    pub(super) fn shared_memory(&self) -> Arc<SharedMemory> {
        Arc::clone(&self.shared)
    }

    #[cfg(test)]
    pub(super) const fn held_blocks(&self) -> usize {
        self.memory.len()
    }

    /// Memory for a hash of `blocks`, or `None` if the thread has less.
    fn memory(&mut self, blocks: usize) -> Result<Option<&mut [Block]>, Unhashable> {
        if blocks > self.blocks {
            return Ok(None);
        }
        self.wake()?;
        if self.memory.is_empty() {
            self.memory.resize(self.blocks, Block::new());
        }
        Ok(self.memory.get_mut(..blocks))
    }

    /// A new hash of a password.
    pub(super) fn hash(
        &mut self,
        scheme: Scheme,
        password: &[u8],
        salt: [u8; NEW_SALT_BYTES],
    ) -> Result<PasswordHash, Unhashable> {
        let mut output = vec![0; NEW_OUTPUT_BYTES];
        self.compute(scheme, password, &salt, &mut output)?;
        PasswordHash::new(scheme, salt.to_vec(), output).map_err(|_| Unhashable)
    }

    /// Whether `stored` is the hash of this password. Constant time over the output.
    pub(super) fn matches(&mut self, stored: &PasswordHash, password: &[u8]) -> Result<bool, Unhashable> {
        let mut output = Zeroizing::new([0; *OUTPUT_BYTES.end()]);
        let output = output.get_mut(..stored.output().len()).ok_or(Unhashable)?;
        self.compute(stored.scheme(), password, stored.salt(), output)?;
        Ok(output.ct_eq(stored.output()).into())
    }

    /// A bcrypt hash, which only imports contain.
    #[cfg(test)]
    pub(super) fn bcrypt_hash(&mut self, cost: u32, password: &[u8]) -> Result<PasswordHash, Unhashable> {
        let scheme = Scheme::bcrypt(cost).map_err(|_| Unhashable)?;
        let mut output = vec![0; BCRYPT_OUTPUT_BYTES];
        self.compute(scheme, password, &NO_SALT, &mut output)?;
        PasswordHash::new(scheme, NO_SALT.to_vec(), output).map_err(|_| Unhashable)
    }

    /// Does work without using its result.
    pub(super) fn spend(&mut self, work: Work, password: &[u8]) -> Result<(), Unhashable> {
        let (scheme, length) = match work.kind {
            Kind::Whole(scheme @ Scheme::Bcrypt { .. }) => (scheme, BCRYPT_OUTPUT_BYTES),
            Kind::Whole(scheme) => (scheme, NEW_OUTPUT_BYTES),
            // One block of output, so that a unit is one iteration.
            Kind::Pbkdf2(digest) => {
                let output = digest.block_bytes();
                (Scheme::Pbkdf2 { digest, iterations: work.units, output }, output.into())
            }
        };
        let mut unused = Zeroizing::new([0; *OUTPUT_BYTES.end()]);
        self.compute(scheme, password, &NO_SALT, unused.get_mut(..length).ok_or(Unhashable)?)?;
        std::hint::black_box(&unused);
        Ok(())
    }

    fn compute(&mut self, scheme: Scheme, password: &[u8], salt: &[u8], output: &mut [u8]) -> Result<(), Unhashable> {
        #[cfg(test)]
        self.trace.push(Work::of(scheme));
        let shared = Arc::clone(&self.shared);
        match scheme {
            Scheme::Argon2 { variant, version, memory_kib, passes, lanes } => {
                let params = Params::new(memory_kib, passes, lanes, Some(output.len())).map_err(|_| Unhashable)?;
                let blocks = params.block_count();
                let argon2 = Argon2::new(variant, version, params);
                match self.memory(blocks)? {
                    Some(memory) => argon2.hash_password_into_with_memory(password, salt, output, memory),
                    None => {
                        let _permit = shared.take(memory_kib);
                        let mut memory = reserve(blocks).ok_or(Unhashable)?;
                        memory.resize(blocks, Block::new());
                        argon2.hash_password_into_with_memory(password, salt, output, &mut memory)
                    }
                }
                .map_err(|_| Unhashable)
            }
            Scheme::Bcrypt { cost } => bcrypt(cost, password, salt, output),
            Scheme::Scrypt { log_n, block, lanes } => {
                let _permit = shared.take(scheme.memory_kib());
                let params = scrypt::Params::new(log_n, block, lanes).map_err(|_| Unhashable)?;
                scrypt::scrypt(password, salt, &params, output).map_err(|_| Unhashable)
            }
            Scheme::Pbkdf2 { digest, iterations, .. } => {
                let algorithm = match digest {
                    Pbkdf2Digest::Sha1 => PBKDF2_HMAC_SHA1,
                    Pbkdf2Digest::Sha256 => PBKDF2_HMAC_SHA256,
                    Pbkdf2Digest::Sha512 => PBKDF2_HMAC_SHA512,
                };
                let iterations = NonZeroU32::new(iterations).ok_or(Unhashable)?;
                ring::pbkdf2::derive(algorithm, iterations, salt, password, output);
                Ok(())
            }
        }
    }
}

/// Capacity for this number of blocks, untouched.
fn reserve(blocks: usize) -> Option<Vec<Block>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(blocks.max(RESERVED_BYTES / Block::SIZE)).ok()?;
    Some(memory)
}

/// Appends a NUL to the password if it is shorter than 72 bytes. A password contains no NUL.
fn bcrypt(cost: u8, password: &[u8], salt: &[u8], output: &mut [u8]) -> Result<(), Unhashable> {
    let mut key = Zeroizing::new([0; BCRYPT_PASSWORD_BYTES]);
    let length = password.len().min(BCRYPT_PASSWORD_BYTES);
    key[..length].copy_from_slice(&password[..length]);
    let key = &key[..BCRYPT_PASSWORD_BYTES.min(length + 1)];
    let salt = salt.try_into().map_err(|_| Unhashable)?;
    let hash = Zeroizing::new(bcrypt::bcrypt(cost.into(), salt, key));
    output.copy_from_slice(hash.get(..output.len()).ok_or(Unhashable)?);
    Ok(())
}
