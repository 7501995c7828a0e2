//! Hashes in the formats of other systems, made with passlib, Python's hashlib, bcrypt and argon2-cffi.

use std::sync::Arc;

use super::limits::SharedMemory;
use super::workspace::Workspace;
use super::{HashRefusal, PasswordHash, Scheme};

const PLAIN: &str = "correct horse battery staple";
const UNICODE: &str = "p\u{e4}ssw\u{f6}rd-\u{2602}-2024";
const SEVENTY_TWO: &str = "012345678901234567890123456789012345678901234567890123456789012345678901";
const LONG: &str =
    "01234567890123456789012345678901234567890123456789012345678901234567890123456789tail beyond the limit";

/// Maker, password, hash.
#[rustfmt::skip]
pub(super) const HASHES: &[(&str, &str, &str)] = &[
    ("bcrypt 2b", PLAIN, "$2b$04$WH/Y05yyRk1cMi0U9kBqdOfQYQ9WuFl2DL6cZHPhP5XeQcIyOWLYy"),
    ("bcrypt 2a", PLAIN, "$2a$04$IEk5A.gfl2oNkfFcPs1s/.ueQyE6B9SWDJfI51lU4juqLWe8SzQCe"),
    ("bcrypt 2y", PLAIN, "$2y$04$YkgQGKgFFMPYyx2RxOAlpuLkfbv09c2XXrZJxLiMDVhuc9yfso3lC"),
    ("bcrypt with UTF-8", UNICODE, "$2b$05$TdwvkWjLG7pwBU5cFKZ4HO3.3tUl8AP0rk3EVkoqjElz7jfo5knFu"),
    ("bcrypt of 101 bytes", LONG, "$2b$04$h4K6Evc/rvgb6eOHryifHeEL7D18dJyj5QxJHnXS6AYXBxpWyPWe6"),
    ("bcrypt of exactly 72 bytes", SEVENTY_TWO, "$2b$04$l.RnhUmRRPNC4cclp4TrpOrfwXP1SRexanciu1qYI31hp4OBYzxj."),
    ("passlib scrypt", PLAIN, "$scrypt$ln=4,r=8,p=1$DUFIiRGilNLauzcmROg95w$jMONylO1BPc4t6opZQzzi683UltJDx8FUbyNyRIIjW4"),
    ("passlib scrypt p=3", UNICODE, "$scrypt$ln=5,r=4,p=3$hNCac05JKcXY+3+P0XpPCQ$DyguQs0ZU/ArLFIQXEUd4goipwuh0yAV3XH58UdT/uQ"),
    ("passlib pbkdf2 sha1", PLAIN, "$pbkdf2$100$oNS6V6r1vneude6dkxKCUA$Juc1b2mUiE1kWZDfB/3td/sTQGI"),
    ("passlib pbkdf2 sha256", PLAIN, "$pbkdf2-sha256$100$Rcj5H.Ock1KKkTIGYOz9Xw$.Ety6uWQ09v8tAQ6h3IMRUwJHvMhZdZ4v/hKJnsdJ5o"),
    ("passlib pbkdf2 sha512", PLAIN, "$pbkdf2-sha512$100$wJizFgKAMEbIWev9v1fqXQ$SdK5q.n8gHi416vXrNS5Surdvm0gCpips3os04uE.ssQWA0qf3xne9GDojVClUk8H4zdcVV5tbqCuj6gB5omLg"),
    ("passlib pbkdf2 UTF-8", UNICODE, "$pbkdf2-sha256$29$47x37p0z5vw/J8T43zvHGA$dfK98tg/SlUG7UnJN.4R.It4eAWidR4C/AyYM7VTy3M"),
    ("PHC pbkdf2 sha256", PLAIN, "$pbkdf2-sha256$i=100,l=32$c2l4dGVlbiBieXRlIHNsdA$hlyyQkNDsKzT0AQIcIcnC6worGEFS4RrD6Mk+yObb00"),
    ("PHC pbkdf2 sha512", UNICODE, "$pbkdf2-sha512$i=50,l=64$c2l4dGVlbiBieXRlIHNsdA$4GR2BwA0+GCJKX8UYelOdGTTGaut1bMrje0Sln1fcPrPJClgK+obSGZPxERuFj0D2xQEOB33ASs6Hc8dlZ2ibQ"),
    ("PHC pbkdf2 sha256", PLAIN, "$pbkdf2-sha256$i=40,l=64$dHdvIGJsb2NrcyB3aWRlIQ$Swo+LhiDBcrkWZT2QKea8Lqk4GmppLmce2708+ZaXFwslaRX2irnBhf+XjNHxLAiL6MUdrodsF2InSgX3cU5bQ"),
    ("PHC pbkdf2 sha1", PLAIN, "$pbkdf2-sha1$i=60,l=20$b2xkIHNhbHQ$kwSvPa4gGws1hjqx7BVKOhQdJcw"),
    ("Django pbkdf2_sha256", PLAIN, "pbkdf2_sha256$120$7J686MTYVyJN$9+0GAPCC7v9NWYkIHzISF2IB+Ya+TH83FB7OXOpxiuM="),
    ("Django pbkdf2_sha1", UNICODE, "pbkdf2_sha1$120$KxeZt142cegU$u4wrITlT1FoHZ6TKmqf+tqUnsnk="),
    ("pbkdf2_sha512 in Django's form", PLAIN, "pbkdf2_sha512$77$djangosalt1234$kCPnRvMUus5RVe5Pv3wWPwtmCqypUsOMQ7yQ5Kw9li6ZPWJTBy3hSWb2XrBo/flmb2AqqUvCgoFBCfdmUO4mEQ=="),
    ("Django scrypt", PLAIN, "scrypt$64$djangosalt1234$8$5$EOKqalhiCHj/pHRSbiSobmRfEkU5El3KTrnL1Xrdsu+4cjiovV2KCUqnYaxNtepaxwaTq1hzhX9wZ8WFYwoemw=="),
    ("Django bcrypt", PLAIN, "bcrypt$$2b$04$Ffpok4YqJ7u.3p/lUbu3BOa6rg5/RtwU8tdjOHKPuz6LE6mWDyk8."),
    ("argon2id", PLAIN, "$argon2id$v=19$m=64,t=2,p=1$3P4bDyCzKjn8XicYwbqtcg$fIrWK7JryZcPG/WKr+Nj1/BK7Ez6hFEzsNCISxfFiHY"),
    ("argon2i", PLAIN, "$argon2i$v=19$m=64,t=2,p=1$07vp5bccajalXw1HfwjsOQ$3jJiBIWD5Fj2ohvBU37GHmL7O7mJ4DxJX7ok3gV5bLo"),
    ("argon2d", PLAIN, "$argon2d$v=19$m=64,t=2,p=1$eSRU7W2+/EGr1B4g7KKoUg$UJWJZlGQfvbMJ00On/505vfVKlvmyEW5bNkdLMKizcE"),
    ("argon2id, four lanes", UNICODE, "$argon2id$v=19$m=128,t=3,p=4$L9Zm+ZPCiA8Q/ZyKsjxDTA$i84b8wjc+CFlJCkRmRk6peP82+zLIO50V5E49G4WckY"),
    ("argon2id, 16-byte output", PLAIN, "$argon2id$v=19$m=32,t=1,p=1$W5xiyoLHdBo$Way4kHsCk5nNw6IX4KIb6Q"),
    ("argon2i version 16", PLAIN, "$argon2i$v=16$m=64,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$dPozAdedAnE7mVegpEbz56Bn3xHpTJSfwqL1eU47DV8"),
    ("argon2i without a version", PLAIN, "$argon2i$m=64,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$dPozAdedAnE7mVegpEbz56Bn3xHpTJSfwqL1eU47DV8"),
    ("Django argon2", PLAIN, "argon2$argon2id$v=19$m=64,t=2,p=2$uI7W0GOKnF9SvRbXh0oMuw$gcQhuk1Ca8OimGrum9B1sA"),
    ("Werkzeug pbkdf2", PLAIN, "pbkdf2:sha256:99$wzsalt0123$6c5e115edd43ec99f1f04dbe5c8a5a4d9182a95ea19e635778f7128e808eb796"),
    ("Werkzeug scrypt", PLAIN, "scrypt:32:8:1$wzsalt0123$2e18c1acb708a217845c2a9ad5e222395048d56dbf88fec13af89898f231bdbeb22b6f033276f6bcf3565f3bb8dc4d0699038893fa8ace766257f027b360003a"),
    ("jBCrypt", "abcdefghijklmnopqrstuvwxyz", "$2a$08$aTsUwsyowQuzRrDqFflhgekJ8d9/7Z3GV3UcgvzQW3J5zMyrTvlz."),
];

fn workspace() -> Workspace {
    Workspace::new(Scheme::bcrypt(4).unwrap(), Arc::new(SharedMemory::new(131_072))).unwrap()
}

fn matches(hash: &str, password: &str) -> bool {
    workspace().matches(&PasswordHash::parse(hash).unwrap(), password.as_bytes()).unwrap()
}

#[test]
fn every_foreign_hash_matches_its_password_and_no_other() {
    for (name, password, hash) in HASHES {
        assert!(matches(hash, password), "{name}");
        assert!(!matches(hash, &format!("x{password}")), "{name}");
    }
}

#[test]
fn the_stored_text_is_one_of_four_forms_and_round_trips() {
    for (name, password, hash) in HASHES {
        let read = PasswordHash::parse(hash).unwrap();
        assert_eq!(PasswordHash::parse(read.as_str()).as_ref(), Ok(&read), "{name}");
        assert!(matches(read.as_str(), password), "{name}");
        assert!(read.as_str().starts_with(&format!("{}$", read.scheme())), "{name}");
    }
}

#[test]
fn bcrypt_truncates_passwords_at_72_bytes_as_other_systems_do() {
    let hash = HASHES.iter().find(|(name, _, _)| *name == "bcrypt of 101 bytes").unwrap().2;
    assert!(matches(hash, LONG) && matches(hash, SEVENTY_TWO) && matches(hash, &format!("{SEVENTY_TWO}other")));
    assert!(!matches(hash, &SEVENTY_TWO[..71]));
}

#[test]
fn unused_bits_after_a_bcrypt_salt_are_ignored() {
    // The last character of the salt has two bits of data. Openwall's writers clear the other four; some writers do
    // not.
    assert!(matches("$2b$04$z8aqxIoWmhCWl.JLerepfeo41Bj8DTBraSPFL3Tok6sTPyMybsvRm", PLAIN));
    assert!(matches("$2b$04$z8aqxIoWmhCWl.JLerepffo41Bj8DTBraSPFL3Tok6sTPyMybsvRm", PLAIN));
}

#[test]
fn s2_a_hash_does_not_print() {
    let hash = PasswordHash::parse(HASHES[0].2).unwrap();
    assert_eq!(format!("{hash:?}"), "PasswordHash(bcrypt, hidden)");
}

/// Texts of each format, each with one error.
#[rustfmt::skip]
const CORRUPT: &[&str] = &[
    "", "$", "$$$$", "plaintext", "5f4dcc3b5aa765d61d8327deb882cf99", "{SSHA}MTIzNDU2Nzg5MDEyMzQ1Ng==",
    "$1$salt$hash", "$6$rounds=5000$salt$hash", "$argon2$v=19$m=64,t=2,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA",
    "$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ",
    "$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA$",
    "$argon2id$v=20$m=64,t=2,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA",
    "$argon2id$v=19$m=64,t=2$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA",
    "$argon2id$v=19$m=64,t=2,p=1,m=64$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA",
    "$argon2id$v=19$m=64,t=2,p=1,x=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA",
    "$argon2id$v=19$m=-64,t=2,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA",
    "$argon2id$v=19$m=064,t=2,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA",
    "$argon2id$v=19$m=,t=2,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA",
    "$argon2id$v=19$m=64,t=2,p=1$c29tZXN$c29tZWhhc2hzb21laGFzaA",
    "$argon2id$v=19$m=64,t=2,p=1$c29tZQ$c29tZWhhc2hzb21laGFzaA",
    "$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ$c29tZWhhc2g",
    "$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaB",
    "$argon2id$v=19$m=64,t=2,p=1$c29t ZXNhbHQ$c29tZWhhc2hzb21laGFzaA",
    "$argon2id$v=19$m=99999999999,t=2,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA",
    "$2b$04$z8aqxIoWmhCWl.JLerepfeo41Bj8DTBraSPFL3Tok6sTPyMybsvR",
    "$2b$04$z8aqxIoWmhCWl.JLerepfeo41Bj8DTBraSPFL3Tok6sTPyMybsvRmm",
    "$2x$04$z8aqxIoWmhCWl.JLerepfeo41Bj8DTBraSPFL3Tok6sTPyMybsvRm",
    "$2b$4$z8aqxIoWmhCWl.JLerepfeo41Bj8DTBraSPFL3Tok6sTPyMybsvRm",
    "$2b$+4$z8aqxIoWmhCWl.JLerepfeo41Bj8DTBraSPFL3Tok6sTPyMybsvRm",
    "$2b$04$z8aqxIoWmhCWl.JL*repfeo41Bj8DTBraSPFL3Tok6sTPyMybsvRm",
    "$scrypt$ln=4,r=8$eM9ZK8V4T2mtdY7RGsM4Bw$L7FIxA7xyIxovetEsW4V4ahoolJTBm68M91FZMM0G5M",
    "$scrypt$ln=4,r=8,p=1$$L7FIxA7xyIxovetEsW4V4ahoolJTBm68M91FZMM0G5M",
    "$pbkdf2-sha256$i=100,l=31$c2l4dGVlbiBieXRlIHNsdA$hlyyQkNDsKzT0AQIcIcnC6worGEFS4RrD6Mk+yObb00",
    "$pbkdf2-sha256$l=32$c2l4dGVlbiBieXRlIHNsdA$hlyyQkNDsKzT0AQIcIcnC6worGEFS4RrD6Mk+yObb00",
    "$pbkdf2-md5$100$c2l4dGVlbiBieXRlIHNsdA$hlyyQkNDsKzT0AQIcIcnC6worGEFS4RrD6Mk+yObb00",
    "pbkdf2_sha256$120$JnfOBMp7G7xF", "pbkdf2_sha256$x$JnfOBMp7G7xF$OBrXV3f200mRiNixibT6oVL/rjUwUucva6q3br2i2eo=",
    "pbkdf2_sha256$120$$OBrXV3f200mRiNixibT6oVL/rjUwUucva6q3br2i2eo=",
    "scrypt:33:8:1$wzsalt0123$2e18c1acb708a217845c2a9ad5e22239", "scrypt:32:8:1$wzsalt0123$2e18c1acb708a217845c2a9ad5e2223",
    "scrypt:32:8:1$wzsalt0123$ze18c1acb708a217845c2a9ad5e22239", "argon2$argon2x$v=19$m=64,t=2,p=1$c2FsdHNhbHQ$aGFzaA",
];

#[test]
fn p11_corrupt_hashes_are_refused() {
    assert!(CORRUPT.len() >= 30);
    for text in CORRUPT {
        assert!(PasswordHash::parse(text).is_err(), "{text}");
    }
    assert_eq!(PasswordHash::parse(&"$".repeat(513)), Err(HashRefusal::NotText));
}

#[test]
fn p11_the_cost_of_verifying_is_bounded_when_a_hash_is_read() {
    const SALT_AND_OUTPUT: &str = "c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA";
    for (head, parameter) in [
        ("$argon2id$v=19$m=1048577,t=1,p=1", "m"),
        ("$argon2id$v=19$m=7,t=1,p=1", "m"),
        ("$argon2id$v=19$m=127,t=1,p=16", "m"),
        ("$argon2id$v=19$m=64,t=17,p=1", "t"),
        ("$argon2id$v=19$m=64,t=0,p=1", "t"),
        ("$argon2id$v=19$m=4096,t=1,p=17", "p"),
        ("$argon2id$v=19$m=64,t=1,p=0", "p"),
        ("$scrypt$ln=21,r=1,p=1", "ln"),
        ("$scrypt$ln=0,r=8,p=1", "ln"),
        ("$scrypt$ln=4,r=33,p=1", "r"),
        ("$scrypt$ln=4,r=8,p=17", "p"),
        ("$scrypt$ln=19,r=8,p=1", "its memory in KiB"),
        ("$pbkdf2-sha256$i=10000001,l=16", "i"),
        ("$pbkdf2-sha512$0", "i"),
    ] {
        match PasswordHash::parse(&format!("{head}${SALT_AND_OUTPUT}")) {
            Err(HashRefusal::OutOfBounds { parameter: named, .. }) => assert_eq!(named, parameter, "{head}"),
            other => panic!("{head}: {other:?}"),
        }
    }
    for cost in ["03", "17", "31", "99"] {
        let text = format!("$2b${cost}$z8aqxIoWmhCWl.JLerepfeo41Bj8DTBraSPFL3Tok6sTPyMybsvRm");
        assert!(matches!(PasswordHash::parse(&text), Err(HashRefusal::OutOfBounds { .. })), "{cost}");
    }
    for head in ["$argon2id$v=19$m=1048576,t=16,p=16", "$scrypt$ln=18,r=8,p=16", "$pbkdf2-sha256$i=10000000,l=16"] {
        assert!(PasswordHash::parse(&format!("{head}${SALT_AND_OUTPUT}")).is_ok(), "{head}");
    }
}

proptest::proptest! {
    #[test]
    fn p11_reading_never_panics(text in "(\\$(argon2id|2b|scrypt|pbkdf2-sha256)|pbkdf2_sha1|scrypt:[0-9]{1,3}:8:1|bcrypt\\$)?[$a-z0-9=,./+:]{0,90}") {
        if let Ok(hash) = PasswordHash::parse(&text) {
            proptest::prop_assert_eq!(PasswordHash::parse(hash.as_str()), Ok(hash));
        }
    }

    #[test]
    fn p11_a_damaged_hash_is_refused_or_read_within_bounds(index in 0..HASHES.len(), place: proptest::sample::Index, byte in b' '..=b'~') {
        let mut text = HASHES[index].2.as_bytes().to_vec();
        let place = place.index(text.len());
        text[place] = byte;
        let _ = PasswordHash::parse(std::str::from_utf8(&text).unwrap());
    }
}
