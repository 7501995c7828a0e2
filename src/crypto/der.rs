//! A minimal DER (X.690) reader and writer for key documents.

use zeroize::Zeroizing;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const SEQUENCE: u8 = 0x30;

/// `AlgorithmIdentifier` contents of rsaEncryption (RFC 8017 appendix C).
pub(super) const RSA_ENCRYPTION: &[u8] =
    &[0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01, 0x05, 0x00];
/// `AlgorithmIdentifier` contents of id-RSASSA-PSS without its parameters (RFC 4055 §3.1).
pub(super) const RSASSA_PSS_OID: &[u8] = &[0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0A];
/// The object identifier of id-ecPublicKey (RFC 5480 §2.1.1).
pub(super) const EC_PUBLIC_KEY_OID: &[u8] = &[0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01];
/// The object identifier of P-256 (RFC 5480 §2.1.1.1).
pub(super) const P256_OID: &[u8] = &[0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
/// `AlgorithmIdentifier` contents of Ed25519 (RFC 8410 §3).
pub(super) const ED25519: &[u8] = &[0x06, 0x03, 0x2B, 0x65, 0x70];

/// The bytes are not the expected DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotDer;

/// Reads one value after another.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(der: &'a [u8]) -> Self {
        Self(der)
    }

    /// The contents of the next value, which must have `tag`.
    pub(super) fn read(&mut self, tag: u8) -> Result<&'a [u8], NotDer> {
        let (found, rest) = self.0.split_first().ok_or(NotDer)?;
        let (length, rest) = read_length(rest)?;
        if *found != tag || length > rest.len() {
            return Err(NotDer);
        }
        let (contents, rest) = rest.split_at(length);
        self.0 = rest;
        Ok(contents)
    }

    /// The contents of the next value if it has `tag`; otherwise nothing is consumed.
    pub(super) fn read_if(&mut self, tag: u8) -> Result<Option<&'a [u8]>, NotDer> {
        if self.0.first() == Some(&tag) { self.read(tag).map(Some) } else { Ok(None) }
    }

    /// The next value, an unsigned integer: big endian without leading zeros.
    pub(super) fn unsigned(&mut self) -> Result<&'a [u8], NotDer> {
        match self.read(INTEGER)? {
            [] | [0x80..=0xFF, ..] | [0, 0..=0x7F, ..] => Err(NotDer),
            [0, digits @ ..] if !digits.is_empty() => Ok(digits),
            digits => Ok(digits),
        }
    }

    /// Checks that no bytes are left.
    pub(super) fn end(&self) -> Result<(), NotDer> {
        if self.0.is_empty() { Ok(()) } else { Err(NotDer) }
    }
}

/// `tag`, length and contents in one buffer that is wiped when dropped.
pub(super) fn write(tag: u8, contents: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length: usize = contents.iter().map(|part| part.len()).sum();
    let mut der = Zeroizing::new(Vec::with_capacity(length + 6));
    der.push(tag);
    let length_bytes = length.to_be_bytes();
    let significant = &length_bytes[length_bytes.iter().take_while(|byte| **byte == 0).count()..];
    match significant {
        [] => der.push(0),
        [short @ ..=0x7F] => der.push(*short),
        long => {
            der.push(0x80 | u8::try_from(long.len()).unwrap_or(8));
            der.extend_from_slice(long);
        }
    }
    contents.iter().for_each(|part| der.extend_from_slice(part));
    der
}

/// A PKCS#8 version 1 document (RFC 5958 §2) around a private key of the given algorithm.
pub(super) fn pkcs8(algorithm: &[&[u8]], private_key: &[u8]) -> Zeroizing<Vec<u8>> {
    let algorithm = write(SEQUENCE, algorithm);
    let private_key = write(OCTET_STRING, &[private_key]);
    write(SEQUENCE, &[&[INTEGER, 1, 0], &algorithm, &private_key])
}

fn read_length(input: &[u8]) -> Result<(usize, &[u8]), NotDer> {
    let (first, rest) = input.split_first().ok_or(NotDer)?;
    let count = match *first {
        short @ ..=0x7F => return Ok((usize::from(short), rest)),
        long @ 0x81..=0x82 => usize::from(long & 0x7F),
        // DER has no indefinite lengths, and no key is longer than 64 KiB.
        _ => return Err(NotDer),
    };
    let (digits, rest) = rest.split_at_checked(count).ok_or(NotDer)?;
    let length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
    let is_shortest = length > 0x7F && digits.first() != Some(&0);
    if is_shortest { Ok((length, rest)) } else { Err(NotDer) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn der_values_round_trip(contents in proptest::collection::vec(any::<u8>(), 0..7000)) {
            let der = write(OCTET_STRING, &[&contents]);
            let mut reader = Reader::new(&der);
            prop_assert_eq!(reader.read(OCTET_STRING), Ok(contents.as_slice()));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn t20_reading_never_panics(der in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader::new(&der);
            let _ = (reader.unsigned(), reader.read_if(OCTET_STRING), reader.read(SEQUENCE), reader.end());
        }
    }

    #[test]
    fn only_the_shortest_form_of_a_length_or_an_integer_is_read() {
        for der in [&[4, 0x80, 0, 0][..], &[4, 0x81, 1, 9], &[4, 0x82, 0, 1, 9], &[4, 2, 9], &[4], &[]] {
            assert_eq!(Reader::new(der).read(OCTET_STRING), Err(NotDer), "{der:?}");
        }
        for der in [&[2, 0][..], &[2, 1, 0x80], &[2, 2, 0, 1]] {
            assert!(Reader::new(der).unsigned().is_err(), "{der:?}");
        }
        assert_eq!(Reader::new(&[2, 2, 0, 0x80]).unsigned(), Ok(&[0x80][..]));
        assert_eq!(Reader::new(&[2, 1, 0]).unsigned(), Ok(&[0][..]));
    }
}
