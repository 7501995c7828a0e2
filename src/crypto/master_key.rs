//! The master key. It is kept outside the database; every other symmetric key is derived from it.

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::Random;
use super::digest::{constant_time_eq, derive_key};
use crate::domain::SecretText;

/// Padding depends on the tool that wrote the key, so it is optional.
const CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD_READER: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
const URL_SAFE_READER: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);

/// 32 random bytes. The sealing key and the refresh-token key are derived from them. Hidden in `Debug`, wiped when
/// dropped.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

/// Identifies the master key in sealed values and refresh tokens. A separate HKDF output, so it reveals nothing about
/// the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MasterKeyId(pub(super) [u8; 4]);

/// Why a text is not a master key. Does not contain the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the master key {}; create one with `openssl rand -base64 32`", .0)]
pub struct MasterKeyError(pub &'static str);

impl MasterKey {
    /// Reads 32 bytes in standard or URL-safe base64, padded or not. Surrounding white space is ignored, because
    /// files end with a line feed.
    pub fn parse(text: &str) -> Result<Self, MasterKeyError> {
        let text = text.trim_ascii();
        let decoded = STANDARD_READER.decode(text).or_else(|_| URL_SAFE_READER.decode(text));
        let decoded = Zeroizing::new(decoded.map_err(|_| MasterKeyError("is not base64"))?);
        let key: &[u8; 32] = decoded.as_slice().try_into().map_err(|_| MasterKeyError("is not 32 bytes long"))?;
        // A random key has about thirty different bytes. The check only catches `AAAA…` and keyboard patterns.
        let distinct = (0..=u8::MAX).filter(|byte| key.contains(byte)).count();
        if distinct < 16 { Err(MasterKeyError("is not random")) } else { Ok(Self(Zeroizing::new(*key))) }
    }

    pub fn generate(random: &dyn Random) -> Self {
        Self(Zeroizing::new(random.bytes()))
    }

    /// The text of a key file; the inverse of [`MasterKey::parse`].
    pub fn to_base64(&self) -> SecretText {
        SecretText::new(STANDARD.encode(self.0.as_slice()))
    }

    pub fn id(&self) -> MasterKeyId {
        let derived = self.derive("countersign master key id v1");
        MasterKeyId([derived[0], derived[1], derived[2], derived[3]])
    }

    pub(super) fn derive(&self, label: &'static str) -> Zeroizing<[u8; 32]> {
        derive_key(self.0.as_slice(), label)
    }
}

impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(self.0.as_slice(), other.0.as_slice())
    }
}

impl Eq for MasterKey {}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(hidden)")
    }
}

impl fmt::Display for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

    use super::*;
    use crate::crypto::SeededRandom;

    #[test]
    fn every_common_encoding_of_a_key_is_accepted() {
        let bytes: [u8; 32] = std::array::from_fn(|index| 0xFB_u8.wrapping_add(u8::try_from(index).unwrap() / 2));
        let id = MasterKey::parse(&STANDARD.encode(bytes)).unwrap().id();
        for text in [STANDARD_NO_PAD.encode(bytes), URL_SAFE.encode(bytes), URL_SAFE_NO_PAD.encode(bytes)] {
            assert_eq!(MasterKey::parse(&text).unwrap().id(), id);
            assert_eq!(MasterKey::parse(&format!(" {text}\r\n")).unwrap().id(), id);
        }
    }

    #[test]
    fn a_generated_master_key_round_trips() {
        let key = MasterKey::generate(&SeededRandom::new(3));
        assert_eq!(MasterKey::parse(key.to_base64().expose()).unwrap().id(), key.id());
        assert_eq!(key.id().to_string().len(), 8);
    }

    #[test]
    fn s6_wrong_lengths_placeholders_and_other_text_are_refused() {
        let few: Vec<u8> = (0..32).map(|index| index % 15).collect();
        for (text, problem) in [
            (String::new(), "is not 32 bytes long"),
            (STANDARD.encode([7; 31]), "is not 32 bytes long"),
            (STANDARD.encode([7; 33]), "is not 32 bytes long"),
            ("correct horse battery".to_owned(), "is not base64"),
            (STANDARD.encode([0; 32]), "is not random"),
            (STANDARD.encode(few), "is not random"),
        ] {
            assert_eq!(MasterKey::parse(&text), Err(MasterKeyError(problem)), "{text}");
        }
    }

    #[test]
    fn s2_a_master_key_does_not_print() {
        assert_eq!(format!("{:?}", MasterKey::generate(&SeededRandom::new(3))), "MasterKey(hidden)");
    }
}
