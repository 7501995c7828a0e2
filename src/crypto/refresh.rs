//! Refresh tokens: opaque, self-authenticating and not stored (design.md section 4).
//!
//! `cs_rt_` and 76 characters of base64url over 57 bytes:
//! `format (1) · master key id (4) · session (16) · generation (4, big endian) · family secret (16) · HMAC-SHA-256 (16)`.
//!
//! A forged token fails the HMAC before the database is read. The database stores only SHA-256 of the family secret.
//! Neither a copy of the database nor the HMAC key alone is enough to forge a token.
//!
//! The response to a refresh is a function of the presented token. The next refresh token has the next generation; the
//! `jti` of the new access token is [`RefreshToken::access_jti`].
//!
//! **During a rotation of the master key**, tokens under either key are read (see [`super::seal`] for the steps). On
//! a replica whose `current` and `previous` are swapped, a retry gets the same successor in another encoding. Both
//! encodings have the same session, generation and family secret, so neither counts as reuse. The `jti` depends on
//! the family secret and not on a master key, so it is the same on all replicas.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Random;
use super::digest::{constant_time_eq, sha256};
use super::master_key::{MasterKey, MasterKeyId};
use crate::domain::SecretText;
use crate::domain::{Jti, SessionId};

const PREFIX: &str = "cs_rt_";
const FORMAT: u8 = 1;
const MAC_LEN: usize = 16;
const SIGNED_LEN: usize = 1 + 4 + 16 + 4 + 16;
const TOKEN_LEN: usize = SIGNED_LEN + MAC_LEN;
/// 57 bytes are exactly 19 groups of base64. The text has no unused bits, so each token has one encoding.
const TEXT_LEN: usize = TOKEN_LEN / 3 * 4;
const MAC_LABEL: &str = "countersign refresh token hmac v1";
const JTI_LABEL: &[u8] = b"countersign access token jti v1";

/// 16 random bytes shared by the refresh tokens of one session. Only the digest is stored. Wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct FamilySecret([u8; 16]);

impl FamilySecret {
    pub fn generate(random: &dyn Random) -> Self {
        Self(random.bytes())
    }

    /// The stored form.
    pub fn digest(&self) -> FamilyDigest {
        FamilyDigest(sha256(&self.0))
    }
}

impl PartialEq for FamilySecret {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(&self.0, &other.0)
    }
}

impl Eq for FamilySecret {}

impl std::fmt::Debug for FamilySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FamilySecret(hidden)")
    }
}

/// SHA-256 of a [`FamilySecret`]. The secret has 128 random bits, so a plain digest cannot be brute-forced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FamilyDigest(pub [u8; 32]);

impl std::fmt::Debug for FamilyDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FamilyDigest(hidden)")
    }
}

/// The content of a refresh token whose HMAC was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshToken {
    /// The session of the token.
    pub session: SessionId,
    /// The generation of the session when the token was issued.
    pub generation: u32,
    pub family: FamilySecret,
}

/// The text is not a refresh token of this installation. The caller gets one error for every cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a refresh token of this installation")]
pub struct NotOurs;

impl RefreshToken {
    /// The `jti` of the access token of the same pair: 128 bits of HMAC-SHA-256 over session and generation under the
    /// family secret (security.md T18). A holder of a refresh token of the family can compute it; others cannot guess
    /// it. A retry on any replica gets the same `jti`. `narrowing` separates access tokens of one generation with
    /// different claims; it is empty for the token with the full scope.
    pub fn access_jti(&self, narrowing: &str) -> Jti {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.family.0);
        let mut context = hmac::Context::with_key(&key);
        context.update(JTI_LABEL);
        context.update(self.session.as_bytes());
        context.update(&self.generation.to_be_bytes());
        context.update(narrowing.as_bytes());
        let mut jti = [0; 16];
        jti.copy_from_slice(&context.sign().as_ref()[..16]);
        Jti::from_bytes(jti)
    }
}

/// Whether a text has the prefix of a refresh token. No JWS has it, so the two kinds cannot be confused (security.md
/// T16).
pub fn looks_like_refresh_token(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// Encodes and decodes refresh tokens.
pub struct RefreshCodec {
    current: MacKey,
    previous: Option<MacKey>,
}

impl RefreshCodec {
    /// Encodes under `current`; decodes tokens under either key.
    pub fn new(current: &MasterKey, previous: Option<&MasterKey>) -> Self {
        Self { current: MacKey::new(current), previous: previous.map(MacKey::new) }
    }

    /// The text of `token`: a pure function of the token and the current key.
    pub fn mint(&self, token: &RefreshToken) -> SecretText {
        let mut bytes = Zeroizing::new([0; TOKEN_LEN]);
        let (signed, mac) = bytes.split_at_mut(SIGNED_LEN);
        signed[0] = FORMAT;
        signed[1..5].copy_from_slice(&self.current.id.0);
        signed[5..21].copy_from_slice(token.session.as_bytes());
        signed[21..25].copy_from_slice(&token.generation.to_be_bytes());
        signed[25..].copy_from_slice(&token.family.0);
        mac.copy_from_slice(&self.current.mac(signed));

        let mut text = String::with_capacity(PREFIX.len() + TEXT_LEN);
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes.as_slice(), &mut text);
        SecretText::new(text)
    }

    /// Decodes a token of this installation. Each token has exactly one accepted text (security.md R1).
    pub fn read(&self, text: &str) -> Result<RefreshToken, NotOurs> {
        let body = text.strip_prefix(PREFIX).ok_or(NotOurs)?;
        if body.len() != TEXT_LEN {
            return Err(NotOurs);
        }
        let mut bytes = Zeroizing::new([0; TOKEN_LEN]);
        let length = URL_SAFE_NO_PAD.decode_slice(body, bytes.as_mut_slice()).map_err(|_| NotOurs)?;
        if length != TOKEN_LEN || bytes[0] != FORMAT {
            return Err(NotOurs);
        }
        let (signed, mac) = bytes.split_at(SIGNED_LEN);
        let id = MasterKeyId(array(&signed[1..5]));
        let key = [Some(&self.current), self.previous.as_ref()].into_iter().flatten().find(|key| key.id == id);
        if !constant_time_eq(&key.ok_or(NotOurs)?.mac(signed), mac) {
            return Err(NotOurs);
        }
        Ok(RefreshToken {
            session: SessionId::from_bytes(array(&signed[5..21])),
            generation: u32::from_be_bytes(array(&signed[21..25])),
            family: FamilySecret(array(&signed[25..])),
        })
    }
}

impl std::fmt::Debug for RefreshCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RefreshCodec(hidden, current {})", self.current.id)
    }
}

struct MacKey {
    id: MasterKeyId,
    key: hmac::Key,
}

impl MacKey {
    fn new(master: &MasterKey) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, master.derive(MAC_LABEL).as_slice());
        Self { id: master.id(), key }
    }

    fn mac(&self, signed: &[u8]) -> [u8; MAC_LEN] {
        array(&hmac::sign(&self.key, signed).as_ref()[..MAC_LEN])
    }
}

/// `bytes` as an array. The caller passes exactly `N` bytes.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::crypto::SeededRandom;

    fn master(seed: u64) -> MasterKey {
        MasterKey::generate(&SeededRandom::new(seed))
    }

    fn codec() -> RefreshCodec {
        RefreshCodec::new(&master(1), None)
    }

    fn token() -> RefreshToken {
        RefreshToken {
            session: SessionId::from_bytes([7; 16]),
            generation: 41,
            family: FamilySecret::generate(&SeededRandom::new(5)),
        }
    }

    proptest! {
        #[test]
        fn a_refresh_token_round_trips(session: [u8; 16], generation: u32, family: [u8; 16]) {
            let token = RefreshToken { session: SessionId::from_bytes(session), generation, family: FamilySecret(family) };
            prop_assert_eq!(codec().read(codec().mint(&token).expose()), Ok(token));
        }

        #[test]
        fn r1_text_without_a_valid_mac_is_refused(text in "(cs_rt_)?[A-Za-z0-9_=+/-]{0,90}") {
            prop_assert_eq!(codec().read(&text), Err(NotOurs));
        }

        #[test]
        fn t20_reading_never_panics(text in "(cs_rt_)?\\PC{0,90}") {
            let _ = codec().read(&text);
        }
    }

    #[test]
    fn r1_no_truncation_extension_or_changed_character_is_accepted() {
        let minted = codec().mint(&token());
        let text = minted.expose();
        for length in 0..text.len() {
            assert_eq!(codec().read(&text[..length]), Err(NotOurs), "length {length}");
        }
        for suffix in ["=", "A", " ", "\n", "AAAA"] {
            assert_eq!(codec().read(&format!("{text}{suffix}")), Err(NotOurs), "{suffix:?}");
            assert_eq!(codec().read(&format!("{suffix}{text}")), Err(NotOurs), "{suffix:?}");
        }
        for (index, old) in text.char_indices() {
            for new in ('0'..='9').chain('A'..='Z').chain('a'..='z').chain("-_+/=. ".chars()).filter(|new| *new != old)
            {
                let mut changed = text.to_owned();
                changed.replace_range(index..=index, new.encode_utf8(&mut [0; 4]));
                assert_eq!(codec().read(&changed), Err(NotOurs), "{new} at {index}");
            }
        }
    }

    #[test]
    fn r1_another_format_is_refused_even_under_the_right_key() {
        let text = codec().mint(&token());
        let mut bytes = URL_SAFE_NO_PAD.decode(&text.expose()[PREFIX.len()..]).unwrap();
        bytes[0] = FORMAT + 1;
        let mac = codec().current.mac(&bytes[..SIGNED_LEN]);
        bytes[SIGNED_LEN..].copy_from_slice(&mac);
        assert_eq!(codec().read(&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))), Err(NotOurs));
    }

    #[test]
    fn tokens_of_another_installation_are_refused() {
        let foreign = RefreshCodec::new(&master(2), None).mint(&token());
        assert_eq!(codec().read(foreign.expose()), Err(NotOurs));
    }

    #[test]
    fn during_a_master_key_rotation_every_replica_reads_every_token() {
        let (old, new) = (master(1), master(2));
        let (before, after) = (RefreshCodec::new(&old, Some(&new)), RefreshCodec::new(&new, Some(&old)));
        for (writer, reader) in [(&before, &after), (&after, &before)] {
            assert_eq!(reader.read(writer.mint(&token()).expose()), Ok(token()));
        }
        let done = RefreshCodec::new(&new, None);
        assert_eq!(done.read(before.mint(&token()).expose()), Err(NotOurs));
    }

    #[test]
    fn t18_the_jti_depends_only_on_session_generation_and_family() {
        let jtis: HashSet<_> = [
            token(),
            RefreshToken { generation: 42, ..token() },
            RefreshToken { session: SessionId::from_bytes([8; 16]), ..token() },
            RefreshToken { family: FamilySecret([0; 16]), ..token() },
        ]
        .iter()
        .map(|token| token.access_jti(""))
        .collect();
        assert_eq!(jtis.len(), 4);
        assert_eq!(token().access_jti("a"), token().access_jti("a"));
        assert_ne!(token().access_jti("a"), token().access_jti(""));
        assert_eq!(token().access_jti("").as_str().len(), 22);
    }

    #[test]
    fn s2_neither_codec_nor_token_prints_its_secret() {
        let token = RefreshToken { family: FamilySecret([0xAB; 16]), ..token() };
        let printed = format!("{:?} {token:?} {:?} {:?}", codec(), token.family.digest(), codec().mint(&token));
        assert!(!printed.contains("171") && !printed.to_lowercase().contains("abab"), "{printed}");
    }
}
