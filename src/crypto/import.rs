//! Import of a private key: PEM text to a checked [`SigningKey`] (security.md K7).
//!
//! The errors are for an operator with a file and a shell, so each says what is wrong and which command helps.

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::der::{self, INTEGER, NotDer, OCTET_STRING, Reader, SEQUENCE};
use super::rsa_checks::check_rsa;
use super::signing_key::{KeyError, SigningKey};
use crate::domain::Algorithm;

/// Any key is a few kilobytes long.
const MAX_PEM_BYTES: usize = 64 * 1024;
/// ring signs with moduli of at most 512 bytes.
const MAX_SIGNING_MODULUS: usize = 512;

/// Why a file cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// No PEM section, or the text is too long.
    #[error("this is not a PEM file: it has no line `-----BEGIN PRIVATE KEY-----`")]
    NotPem,
    /// A PEM file without a private key.
    #[error("the file holds no private key but `{0}`; import the file that begins with `-----BEGIN PRIVATE KEY-----`")]
    NotPrivate(String),
    #[error("the private key is encrypted; decrypt it first: `openssl pkey -in KEY.pem -out PLAIN.pem`")]
    Encrypted,
    #[error("the private key is in OpenSSH's format; convert it first: `ssh-keygen -p -m PKCS8 -f KEY`")]
    OpenSsh,
    #[error("the file holds {0} private keys; import them one by one")]
    Several(usize),
    #[error("the private key is damaged: {0}")]
    Damaged(&'static str),
    /// The service does not sign with this kind of key.
    #[error("the key is {0}; keys on P-256, Ed25519 keys and RSA keys can be imported")]
    Unsupported(&'static str),
    /// The key cannot sign with the requested algorithm.
    #[error("{kind} cannot sign {algorithm}; it signs {possible}")]
    WrongAlgorithm {
        kind: &'static str,
        /// The requested algorithm.
        algorithm: Algorithm,
        /// The algorithms of the key.
        possible: &'static str,
    },
    /// Without the public key, the private key cannot be checked.
    #[error(
        "the private key does not contain its public key in uncompressed form; add it: `openssl ec -in KEY.pem -conv_form uncompressed -out NEW.pem`"
    )]
    NoPublicKey,
    /// Longer than [`MAX_SIGNING_MODULUS`].
    #[error("the RSA modulus has more than 4096 bits; make a key of 3072 bits: `openssl genrsa -out KEY.pem 3072`")]
    TooLarge,
    /// The key is unusable or weak.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Imports the one private key of a PEM file. For an RSA key, `algorithm` chooses RS256 or PS256; the default is
/// RS256. For other keys, it must be the algorithm of the key if set.
pub fn import_private_key(pem: &str, algorithm: Option<Algorithm>) -> Result<SigningKey, ImportError> {
    check_sections(pem)?;
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| {
        ImportError::Damaged("its text does not decode; copy the whole file, with its first and last line")
    })?;
    let (kind, pkcs8) = match &key {
        PrivateKeyDer::Pkcs8(key) => {
            let document = key.secret_pkcs8_der();
            (check_pkcs8(document)?, Zeroizing::new(document.to_vec()))
        }
        PrivateKeyDer::Pkcs1(key) => {
            let key = key.secret_pkcs1_der();
            (check_pkcs1(key)?, der::pkcs8(&[der::RSA_ENCRYPTION], key))
        }
        PrivateKeyDer::Sec1(key) => {
            let key = key.secret_sec1_der();
            (check_sec1(key, None)?, der::pkcs8(&[der::EC_PUBLIC_KEY_OID, der::P256_OID], key))
        }
        _ => return Err(ImportError::Unsupported("of an unknown kind")),
    };
    Ok(SigningKey::from_pkcs8(kind.choose(algorithm)?, &pkcs8)?)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    P256,
    Ed25519,
    Rsa,
}

impl Kind {
    fn choose(self, wanted: Option<Algorithm>) -> Result<Algorithm, ImportError> {
        let (kind, possible, names): (_, &[Algorithm], _) = match self {
            Self::P256 => ("a key on P-256", &[Algorithm::Es256], "ES256"),
            Self::Ed25519 => ("an Ed25519 key", &[Algorithm::EdDsa], "EdDSA"),
            Self::Rsa => ("an RSA key", &[Algorithm::Rs256, Algorithm::Ps256], "RS256 or PS256"),
        };
        match wanted {
            None => Ok(possible[0]),
            Some(algorithm) if possible.contains(&algorithm) => Ok(algorithm),
            Some(algorithm) => Err(ImportError::WrongAlgorithm { kind, algorithm, possible: names }),
        }
    }
}

/// Checks the section labels, so that the error names the kind of file. `EC PARAMETERS` is skipped; openssl writes it
/// before a key.
fn check_sections(pem: &str) -> Result<(), ImportError> {
    if pem.len() > MAX_PEM_BYTES {
        return Err(ImportError::NotPem);
    }
    let labels: Vec<_> = pem
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix("-----BEGIN ")?.strip_suffix("-----"))
        .filter(|label| *label != "EC PARAMETERS")
        .collect();
    if labels.contains(&"ENCRYPTED PRIVATE KEY") || pem.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(ImportError::Encrypted);
    }
    if labels.contains(&"OPENSSH PRIVATE KEY") {
        return Err(ImportError::OpenSsh);
    }
    let is_private = |label: &&&str| matches!(**label, "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY");
    match (labels.iter().filter(is_private).count(), labels.first()) {
        (1, _) => Ok(()),
        (0, Some(label)) => Err(ImportError::NotPrivate(label.chars().take(40).collect())),
        (0, None) => Err(ImportError::NotPem),
        (several, _) => Err(ImportError::Several(several)),
    }
}

impl From<NotDer> for ImportError {
    fn from(NotDer: NotDer) -> Self {
        Self::Damaged("it is not a DER document")
    }
}

/// `OneAsymmetricKey` (RFC 5958 §2). The checks depend on the algorithm.
fn check_pkcs8(document: &[u8]) -> Result<Kind, ImportError> {
    let mut outer = Reader::new(document);
    let mut fields = Reader::new(outer.read(SEQUENCE)?);
    outer.end()?;
    fields.read(INTEGER)?;
    let algorithm = fields.read(SEQUENCE)?;
    let private_key = fields.read(OCTET_STRING)?;
    if algorithm == der::RSA_ENCRYPTION {
        return check_pkcs1(private_key);
    }
    if algorithm == der::ED25519 {
        return Ok(Kind::Ed25519);
    }
    if let Some(curve) = algorithm.strip_prefix(der::EC_PUBLIC_KEY_OID) {
        return check_sec1(private_key, Some(curve));
    }
    Err(ImportError::Unsupported(if algorithm.starts_with(der::RSASSA_PSS_OID) {
        "an RSA key restricted to PSS by its algorithm identifier (make one with `openssl genrsa 3072` and import it as PS256)"
    } else {
        "of another algorithm"
    }))
}

/// `RSAPrivateKey` (RFC 8017 appendix A.1.2). The public part is checked first, because its errors say more than
/// ring's.
fn check_pkcs1(key: &[u8]) -> Result<Kind, ImportError> {
    let mut outer = Reader::new(key);
    let mut fields = Reader::new(outer.read(SEQUENCE)?);
    outer.end()?;
    if fields.unsigned()? != [0] {
        return Err(ImportError::Unsupported("an RSA key with more than two primes"));
    }
    let (modulus, exponent) = (fields.unsigned()?, fields.unsigned()?);
    check_rsa(modulus, exponent).map_err(KeyError::Weak)?;
    if modulus.len() > MAX_SIGNING_MODULUS { Err(ImportError::TooLarge) } else { Ok(Kind::Rsa) }
}

/// `ECPrivateKey` (RFC 5915 §3). The curve is in the surrounding document, in the key's own parameters, or in both.
fn check_sec1(key: &[u8], frame_curve: Option<&[u8]>) -> Result<Kind, ImportError> {
    const PARAMETERS: u8 = 0xA0;
    const PUBLIC_KEY: u8 = 0xA1;
    const UNCOMPRESSED_P256: usize = 4 + 64;
    let mut outer = Reader::new(key);
    let mut fields = Reader::new(outer.read(SEQUENCE)?);
    outer.end()?;
    fields.read(INTEGER)?;
    fields.read(OCTET_STRING)?;
    let own_curve = fields.read_if(PARAMETERS)?;
    if [frame_curve, own_curve].into_iter().flatten().any(|curve| curve != der::P256_OID) {
        return Err(ImportError::Unsupported("on a curve other than P-256"));
    }
    match fields.read_if(PUBLIC_KEY)? {
        Some(point) if point.len() == UNCOMPRESSED_P256 => Ok(Kind::P256),
        _ => Err(ImportError::NoPublicKey),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::WeakRsaKey;
    use crate::crypto::fixtures::pem;

    #[test]
    fn every_common_form_of_a_valid_key_is_imported() {
        let cases = [
            (pem!("rsa-2048"), None, Algorithm::Rs256),
            (pem!("rsa-2048-pkcs1"), None, Algorithm::Rs256),
            (pem!("rsa-2048"), Some(Algorithm::Ps256), Algorithm::Ps256),
            (pem!("rsa-3072"), Some(Algorithm::Rs256), Algorithm::Rs256),
            (pem!("p256"), None, Algorithm::Es256),
            (pem!("p256-sec1"), Some(Algorithm::Es256), Algorithm::Es256),
            (pem!("ed25519"), None, Algorithm::EdDsa),
        ];
        for (pem, wanted, algorithm) in cases {
            let key = import_private_key(pem, wanted).unwrap();
            assert_eq!(key.algorithm(), algorithm);
            assert_eq!(SigningKey::from_pkcs8(algorithm, key.pkcs8()).unwrap().kid(), key.kid());
            let windows = pem.replace('\n', "\r\n");
            assert_eq!(import_private_key(&windows, wanted).unwrap().kid(), key.kid());
        }
        let kid = |pem| import_private_key(pem, None).unwrap().kid().clone();
        assert_eq!(kid(pem!("rsa-2048")), kid(pem!("rsa-2048-pkcs1")));
        assert_eq!(kid(pem!("p256")), kid(pem!("p256-sec1")));
    }

    #[test]
    fn k7_weak_rsa_keys_are_refused_by_name() {
        let weak = |pem| match import_private_key(pem, None) {
            Err(ImportError::Key(KeyError::Weak(weak))) => weak,
            other => panic!("{other:?}"),
        };
        assert_eq!(weak(pem!("rsa-1024")), WeakRsaKey::Size(1024));
        assert_eq!(weak(pem!("rsa-exponent-3")), WeakRsaKey::Exponent);
        assert_eq!(import_private_key(pem!("rsa-4608"), None).unwrap_err(), ImportError::TooLarge);
        for odd in [pem!("rsa-three-primes"), pem!("rsa-pss-only")] {
            assert!(matches!(import_private_key(odd, None), Err(ImportError::Unsupported(_))));
        }
    }

    #[test]
    fn k7_other_curves_and_keys_without_their_public_part_are_refused() {
        for other in [pem!("p384"), pem!("p384-sec1"), pem!("x25519")] {
            assert!(matches!(import_private_key(other, None), Err(ImportError::Unsupported(_))));
        }
        for incomplete in [pem!("p256-no-public"), pem!("p256-compressed")] {
            assert_eq!(import_private_key(incomplete, None).unwrap_err(), ImportError::NoPublicKey);
        }
    }

    #[test]
    fn the_refusal_of_a_file_names_its_kind() {
        let refusal = |pem: &str| import_private_key(pem, None).unwrap_err();
        assert_eq!(refusal(pem!("encrypted")), ImportError::Encrypted);
        assert_eq!(refusal(pem!("encrypted-pkcs1")), ImportError::Encrypted);
        assert_eq!(refusal(pem!("public")), ImportError::NotPrivate("PUBLIC KEY".to_owned()));
        assert_eq!(refusal(concat!(pem!("p256"), pem!("ed25519"))), ImportError::Several(2));
        assert_eq!(refusal("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"), ImportError::OpenSsh);
        assert_eq!(refusal("{\"kty\": \"EC\"}"), ImportError::NotPem);
        assert_eq!(refusal(&"x".repeat(MAX_PEM_BYTES + 1)), ImportError::NotPem);
        let cut = &pem!("p256")[..120];
        assert!(matches!(refusal(cut), ImportError::Damaged(_)));
    }

    #[test]
    fn a_key_is_imported_only_for_an_algorithm_that_it_can_sign() {
        for (pem, wrong) in [
            (pem!("rsa-2048"), Algorithm::Es256),
            (pem!("p256"), Algorithm::EdDsa),
            (pem!("ed25519"), Algorithm::Rs256),
        ] {
            assert!(matches!(import_private_key(pem, Some(wrong)), Err(ImportError::WrongAlgorithm { .. })));
        }
    }

    /// `pem` with one byte of its DER changed.
    fn with_changed_byte(pem: &str, index: usize, change: u8) -> String {
        use base64::Engine;
        use base64::engine::general_purpose::STANDARD;
        let PrivateKeyDer::Pkcs8(key) = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap() else { panic!() };
        let mut der = key.secret_pkcs8_der().to_vec();
        let length = der.len();
        der[index % length] ^= change;
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
    }

    #[test]
    fn k7_a_private_key_that_does_not_match_its_public_key_is_refused() {
        // In both documents the private scalar begins at byte 36, and the public point is at the end.
        for index in [40, 60, 100, 137] {
            assert!(import_private_key(&with_changed_byte(pem!("p256"), index, 1), None).is_err(), "byte {index}");
        }
        // Signing does not use the RSA exponent d; the check covers every other number.
        for index in [100, 800, 950, 1100, 1200] {
            assert!(import_private_key(&with_changed_byte(pem!("rsa-2048"), index, 2), None).is_err(), "byte {index}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn t20_damaged_files_never_panic(index: usize, change: u8, which in 0..3_usize) {
            let pem = [pem!("p256"), pem!("ed25519"), pem!("rsa-2048")][which];
            let _ = import_private_key(&with_changed_byte(pem, index, change), None);
            let _ = import_private_key(pem.get(..index % pem.len()).unwrap_or_default(), None);
        }
    }
}
