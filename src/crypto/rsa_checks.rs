//! What makes an RSA public key weak (security.md K7).

/// Moduli that are accepted, in bits; ring signs with up to 4096.
const MIN_BITS: usize = 2048;
const MAX_BITS: usize = 8192;

/// Small primes: none divides a sound modulus, and the ROCA fingerprint is taken modulo each odd one.
const SMALL_PRIMES: [u32; 39] = [
    2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Why an RSA key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakRsaKey {
    /// Too small, or larger than is ever verified.
    #[error("the RSA modulus has {0} bits; {MIN_BITS} to {MAX_BITS} are accepted and 3072 are advised")]
    Size(usize),
    /// Divisible by a small prime: not the product of two large ones.
    #[error("the RSA modulus is divisible by {0}; the key is broken, make a new one")]
    Divisible(u32),
    /// Not an odd number between 65537 and 2^33.
    #[error("the RSA exponent is not an odd number from 65537 to 2^33 - 1; make a key with the exponent 65537")]
    Exponent,
    /// Made by the broken Infineon library (CVE-2017-15361): the private key can be computed.
    #[error("the RSA key bears the ROCA fingerprint (CVE-2017-15361): its private key can be computed, make a new one")]
    Roca,
    /// Written with leading zeros, which RFC 7518 §2 forbids.
    #[error("the RSA modulus or exponent is empty or begins with a zero byte")]
    Encoding,
}

/// Checks modulus and exponent, big endian.
pub(super) fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), WeakRsaKey> {
    let (Some(&first @ 1..), Some(1..)) = (n.first(), e.first()) else {
        return Err(WeakRsaKey::Encoding);
    };
    let bits = n.len() * 8 - first.leading_zeros() as usize;
    if !(MIN_BITS..=MAX_BITS).contains(&bits) {
        return Err(WeakRsaKey::Size(bits));
    }
    let exponent = e.iter().try_fold(0_u64, |value, byte| value.checked_mul(256)?.checked_add(u64::from(*byte)));
    if !exponent.is_some_and(|value| value % 2 == 1 && (65_537..1 << 33).contains(&value)) {
        return Err(WeakRsaKey::Exponent);
    }
    if let Some(prime) = SMALL_PRIMES.into_iter().find(|prime| remainder(n, *prime) == 0) {
        return Err(WeakRsaKey::Divisible(prime));
    }
    if has_roca_fingerprint(n) { Err(WeakRsaKey::Roca) } else { Ok(()) }
}

/// Vulnerable primes are `k·M + (65537^a mod M)` with M the product of small primes, so modulo each of those the modulus is
/// a power of 65537 (Nemec et al., CCS 2017, §3.3). A sound key passes all of them with a chance below 2^-27.
fn has_roca_fingerprint(n: &[u8]) -> bool {
    SMALL_PRIMES[1..].iter().all(|&prime| {
        let (residue, generator) = (remainder(n, prime), 65_537 % prime);
        let mut power = 1;
        for _ in 1..prime {
            if power == residue {
                return true;
            }
            power = power * generator % prime;
        }
        false
    })
}

fn remainder(n: &[u8], modulus: u32) -> u32 {
    n.iter().fold(0, |value, byte| (value << 8 | u32::from(*byte)) % modulus)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::signature::Verifier;

    use super::*;
    use crate::crypto::fixtures::rs256_key;
    use crate::crypto::signature::{RingVerifier, RsaPublic};

    const E: &[u8] = &[1, 0, 1];

    /// Project Wycheproof, json_web_key_test.json, tcId 7.
    const ROCA_MODULUS: &str = concat!(
        "AanFpofbj7KjD4Lf-N2hVMKR7yewSyXhhbirIMTGpfYEhZ_lnt5UoK98DnKIgArXGTu3MaW_HhFw16HGaTDUHqPrId7fe4r11CqRw09yBFuW",
        "79V8sYIwHdzCaWflUI6auImYbVfoN9_nD5n8N8SY9DwXw7mwZM9wREPXoDPgOoIWl6q_MPsp7n0zs3Z5ZaiQWOOzl1S9OhwAfSiiOwz6efnX",
        "EaxuTEtPd7BjSx7NaFka8Dx9U7YqXy2RFj1O9PjyaDGuRh7YXsX3iMUSP_wSyHQg_c_qHRtKUsNSGCT7OZg0hzm2KphtjnayKJvC64vAbROB",
        "R4Ubg6Bxg9IQVZ-QYyE",
    );

    fn sound() -> Vec<u8> {
        let jwk = serde_json::to_value(rs256_key().public()).unwrap();
        URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap()
    }

    #[test]
    fn k7_the_roca_fingerprint_is_found_and_sound_keys_do_not_bear_it() {
        let roca = URL_SAFE_NO_PAD.decode(ROCA_MODULUS).unwrap();
        assert_eq!(check_rsa(&roca, E), Err(WeakRsaKey::Roca));
        assert_eq!(check_rsa(&sound(), E), Ok(()));
    }

    #[test]
    fn k7_size_exponent_and_small_factors_are_checked_at_their_bounds() {
        let n = sound();
        assert_eq!(check_rsa(&n[1..], E), Err(WeakRsaKey::Size(n[1..].len() * 8 - n[1].leading_zeros() as usize)));
        assert!(matches!(check_rsa(&[0xFF; 1025], E), Err(WeakRsaKey::Size(8200))));
        for e in [&[1][..], &[2], &[3], &[1, 0, 0], &[1, 0, 2], &[0xFF, 0xFF], &[2, 0, 0, 0, 1], &[0xFF; 9]] {
            assert_eq!(check_rsa(&n, e), Err(WeakRsaKey::Exponent), "{e:?}");
        }
        assert_eq!(check_rsa(&n, &[1, 0xFF, 0xFF, 0xFF, 0xFF]), Ok(()));
        let mut even = n.clone();
        *even.last_mut().unwrap() &= 0xFE;
        assert_eq!(check_rsa(&even, E), Err(WeakRsaKey::Divisible(2)));
        assert_eq!(check_rsa(&[0xFF; 256], E), Err(WeakRsaKey::Divisible(3)));
        for (n, e) in [(&n[..0], E), (&[&[0], n.as_slice()].concat(), E), (&n, &[0, 1, 0, 1][..]), (&n, &[])] {
            assert_eq!(check_rsa(n, e), Err(WeakRsaKey::Encoding));
        }
    }

    #[test]
    fn ring_refuses_small_moduli_too() {
        let key = RsaPublic { n: sound()[..128].to_vec(), e: E.to_vec() };
        assert!(RingVerifier::Rs256(key).verify(b"", &vec![0; 128]).is_err());
    }
}
