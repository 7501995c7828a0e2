//! Digests, constant-time comparison, and key derivation.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hkdf};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Random;
use crate::domain::SecretText;

pub fn sha256(data: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    bytes
}

/// The first 128 bits of SHA-256, as a key for caches and tables. Accidental collisions are impossible in practice; a
/// deliberate one takes 2^64 work.
pub fn id128(text: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..16]);
    bytes
}

/// Whether two byte strings are equal. The time depends on their lengths only.
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// 256 random bits as 43 characters of `A-Z a-z 0-9 _ -`, which need no quoting anywhere (security.md S5).
pub fn random_secret(random: &dyn Random) -> SecretText {
    let bytes = Zeroizing::new(random.bytes::<32>());
    SecretText::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()))
}

/// HKDF-SHA256 (RFC 5869) without salt: the key for `label`. Labels are constants of this crate; each has one purpose.
#[expect(clippy::expect_used, reason = "HKDF-SHA256 fails only for outputs of more than 255 blocks")]
pub(super) fn derive_key(secret: &[u8], label: &'static str) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    let pseudorandom_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret);
    let info = [label.as_bytes()];
    let output = pseudorandom_key.expand(&info, hkdf::HKDF_SHA256);
    output.and_then(|output| output.fill(key.as_mut_slice())).expect("one block of output");
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SeededRandom;

    #[test]
    fn digests_are_sha256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let hex: String = sha256(b"").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, empty);
        assert_eq!(id128("token")[..], sha256(b"token")[..16]);
    }

    #[test]
    fn equality_compares_length_and_content() {
        assert!(constant_time_eq(b"same", b"same"));
        assert!(!constant_time_eq(b"same", b"sama") && !constant_time_eq(b"same", b"same!"));
    }

    #[test]
    fn keys_differ_by_label_and_secret_and_are_hkdf() {
        assert_ne!(derive_key(&[1; 32], "a"), derive_key(&[1; 32], "b"));
        assert_ne!(derive_key(&[1; 32], "a"), derive_key(&[2; 32], "a"));
        // RFC 5869 appendix A.3 (no salt, no info): the first 32 bytes of its output.
        let expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d";
        let hex: String = derive_key(&[0x0b; 22], "").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }

    #[test]
    fn s5_a_generated_secret_has_256_bits_and_needs_no_quoting() {
        let random = SeededRandom::new(1);
        let secret = random_secret(&random);
        assert_eq!(secret.expose().len(), 43);
        assert!(secret.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
        assert_ne!(secret.expose(), random_secret(&random).expose());
    }
}
