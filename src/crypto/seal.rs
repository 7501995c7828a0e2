//! Sealing: private keys at rest under AES-256-GCM (security.md K6).
//!
//! A sealed value is `format (1) · master key id (4) · nonce (12) · ciphertext · tag (16)`. The first five bytes and
//! the caller's context are authenticated. For a signing key, the context is its kid and algorithm. A value that was
//! moved to another row, or whose row was edited, does not open.
//!
//! **Rotation of the master key.** A replica seals under `current` and opens under both keys. The steps: set the new
//! key as `previous` on every replica; swap the two keys on every replica; reseal the values with
//! [`Opened::under_previous`]; remove the old key. In each step, every replica can open what any other replica seals.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::Random;
use super::master_key::{MasterKey, MasterKeyId};

const FORMAT: u8 = 1;
const KEY_ID_LEN: usize = 4;
const PREFIX_LEN: usize = 1 + KEY_ID_LEN;
const LABEL: &str = "countersign seal aes-256-gcm v1";

/// Seals and opens small secrets.
pub struct Sealer {
    current: SealingKey,
    previous: Option<SealingKey>,
}

/// The content of a sealed value.
pub struct Opened {
    pub plaintext: Zeroizing<Vec<u8>>,
    /// Whether the value was sealed under the previous master key and must be resealed.
    pub under_previous: bool,
}

/// Why a value does not open: a wrong master key or a changed row. For operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not a sealed value, or a format of a later version.
    #[error("the sealed value has an unknown format")]
    UnknownFormat,
    #[error("the sealed value was written under another master key ({0}); set it as the previous master key")]
    UnknownKey(MasterKeyId),
    /// The value or its context was changed after sealing.
    #[error("the sealed value does not match its row: it was changed or moved")]
    Tampered,
    /// The cipher failed. Impossible for values of this size.
    #[error("the value could not be sealed")]
    NotSealed,
}

impl Sealer {
    /// Seals under `current`; opens values under either key.
    pub fn new(current: &MasterKey, previous: Option<&MasterKey>) -> Self {
        Self { current: SealingKey::new(current), previous: previous.map(SealingKey::new) }
    }

    /// Seals `plaintext`; it opens only with the same `context`. Nonces are random 96-bit values, which are safe for
    /// 2^32 sealed values per key. An installation seals only a few.
    pub fn seal(&self, plaintext: &[u8], context: &[u8], random: &dyn Random) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE_LEN] = random.bytes();
        let mut sealed = Vec::with_capacity(PREFIX_LEN + NONCE_LEN + plaintext.len() + MAX_TAG_LEN);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&self.current.id.0);
        let aad = Aad::from([sealed.as_slice(), context].concat());
        sealed.extend_from_slice(&nonce);

        let mut body = Zeroizing::new(plaintext.to_vec());
        let tag = self
            .current
            .cipher()?
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, body.as_mut_slice())
            .map_err(|_| SealError::NotSealed)?;
        sealed.extend_from_slice(&body);
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens a value that [`Sealer::seal`] made with the same `context`.
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Opened, SealError> {
        let (prefix, rest) = sealed.split_first_chunk::<PREFIX_LEN>().ok_or(SealError::UnknownFormat)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::UnknownFormat)?;
        let [format, id @ ..] = *prefix;
        if format != FORMAT {
            return Err(SealError::UnknownFormat);
        }
        let (key, under_previous) = self.key(MasterKeyId(id))?;

        let aad = Aad::from([prefix.as_slice(), context].concat());
        let mut plaintext = Zeroizing::new(body.to_vec());
        let length = key
            .cipher()?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), aad, plaintext.as_mut_slice())
            .map_err(|_| SealError::Tampered)?
            .len();
        plaintext.truncate(length);
        Ok(Opened { plaintext, under_previous })
    }

    fn key(&self, id: MasterKeyId) -> Result<(&SealingKey, bool), SealError> {
        match &self.previous {
            _ if self.current.id == id => Ok((&self.current, false)),
            Some(previous) if previous.id == id => Ok((previous, true)),
            _ => Err(SealError::UnknownKey(id)),
        }
    }
}

struct SealingKey {
    id: MasterKeyId,
    bytes: Zeroizing<[u8; 32]>,
}

impl SealingKey {
    fn new(master: &MasterKey) -> Self {
        Self { id: master.id(), bytes: master.derive(LABEL) }
    }

    /// Created per operation, so that the expanded key does not stay in memory. Operations are rare.
    fn cipher(&self) -> Result<LessSafeKey, SealError> {
        UnboundKey::new(&AES_256_GCM, self.bytes.as_slice()).map(LessSafeKey::new).map_err(|_| SealError::NotSealed)
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer(hidden, current {})", self.current.id)
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened(hidden, under_previous {})", self.under_previous)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::SeededRandom;

    fn master(seed: u64) -> MasterKey {
        MasterKey::generate(&SeededRandom::new(seed))
    }

    proptest! {
        #[test]
        fn k6_a_sealed_value_opens_in_its_context_only(
            plaintext in proptest::collection::vec(any::<u8>(), 0..200),
            context in proptest::collection::vec(any::<u8>(), 0..40),
            other in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let sealer = Sealer::new(&master(1), None);
            let sealed = sealer.seal(&plaintext, &context, &SeededRandom::new(9)).unwrap();
            let opened = sealer.open(&sealed, &context).unwrap();
            prop_assert_eq!(opened.plaintext.as_slice(), plaintext.as_slice());
            if context != other {
                prop_assert_eq!(sealer.open(&sealed, &other).unwrap_err(), SealError::Tampered);
            }
        }

        #[test]
        fn k6_opening_random_bytes_never_panics(sealed in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(Sealer::new(&master(1), None).open(&sealed, b"").is_err());
        }
    }

    #[test]
    fn k6_every_changed_bit_and_every_truncation_is_refused() {
        let sealer = Sealer::new(&master(1), None);
        let sealed = sealer.seal(b"private key", b"kid ES256", &SeededRandom::new(9)).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let refusal = sealer.open(&changed, b"kid ES256").unwrap_err();
            match bit / 8 {
                0 => assert_eq!(refusal, SealError::UnknownFormat),
                1..PREFIX_LEN => assert!(matches!(refusal, SealError::UnknownKey(_)), "bit {bit}"),
                _ => assert_eq!(refusal, SealError::Tampered, "bit {bit}"),
            }
        }
        for length in 0..sealed.len() {
            assert!(sealer.open(&sealed[..length], b"kid ES256").is_err(), "length {length}");
        }
    }

    #[test]
    fn the_sealed_value_does_not_contain_the_plaintext_and_nonces_differ() {
        let (sealer, random) = (Sealer::new(&master(1), None), SeededRandom::new(9));
        let first = sealer.seal(b"private key", b"", &random).unwrap();
        let second = sealer.seal(b"private key", b"", &random).unwrap();
        assert_ne!(first, second);
        assert!(!first.windows(7).any(|window| window == b"private"));
    }

    #[test]
    fn a_value_under_the_previous_master_key_opens_and_is_marked() {
        let (old, new) = (master(1), master(2));
        let sealed = Sealer::new(&old, None).seal(b"secret", b"row", &SeededRandom::new(9)).unwrap();
        let during = Sealer::new(&new, Some(&old));
        assert!(during.open(&sealed, b"row").unwrap().under_previous);
        let again = during.seal(b"secret", b"row", &SeededRandom::new(10)).unwrap();
        assert!(!during.open(&again, b"row").unwrap().under_previous);
        let after = Sealer::new(&new, None);
        assert!(after.open(&again, b"row").is_ok());
        assert_eq!(after.open(&sealed, b"row").unwrap_err(), SealError::UnknownKey(old.id()));
    }

    #[test]
    fn s2_neither_sealer_nor_secret_prints() {
        let sealer = Sealer::new(&master(1), None);
        let opened = sealer.open(&sealer.seal(b"secret", b"", &SeededRandom::new(9)).unwrap(), b"").unwrap();
        let printed = format!("{sealer:?} {opened:?}");
        assert!(!printed.contains("secret") && printed.contains("hidden"), "{printed}");
    }
}
