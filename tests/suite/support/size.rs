//! The size of a test: enough to see a defect in any run, or as much as security.md requires for a release.

/// `everyday`, or `release` where `COUNTERSIGN_TEST_SIZE` is `release`, as `tests/run sizes` sets it.
pub fn size<T>(everyday: T, release: T) -> T {
    match std::env::var("COUNTERSIGN_TEST_SIZE").as_deref() {
        Err(_) => everyday,
        Ok("release") => release,
        Ok(other) => panic!("COUNTERSIGN_TEST_SIZE is {other:?}, and can only be \"release\""),
    }
}
