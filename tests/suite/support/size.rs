//! The size of a test: enough to see a defect in any run, or as much as security.md requires for a release.

/// Returns `release` if `COUNTERSIGN_TEST_SIZE` is `release`, as in `tests/run sizes`, and otherwise `everyday`.
pub fn size<T>(everyday: T, release: T) -> T {
    match std::env::var("COUNTERSIGN_TEST_SIZE").as_deref() {
        Err(_) => everyday,
        Ok("release") => release,
        Ok(other) => panic!("COUNTERSIGN_TEST_SIZE is {other:?}, and can only be \"release\""),
    }
}
