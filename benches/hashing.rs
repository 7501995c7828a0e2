//! Cost of a password hash with the argon2 crate alone. It bounds the number of logins per second.
//!
//! Arguments: `SECONDS THREADS`. Prints one JSON object with the hashes per second of all threads together. One value is for
//! buffers that each thread reuses, the other for buffers that are allocated for each hash.
#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a tool that measures time and prints what it found; what it cannot start with, it cannot measure"
)]

use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Block, Params, Version};

/// The service's default (OWASP's first choice): KiB and passes.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let seconds: f64 = arguments.next().map_or(3.0, |text| text.parse().expect("seconds are a number"));
    let threads: usize = arguments.next().map_or(1, |text| text.parse().expect("threads are a number"));
    let params = || Params::new(MEMORY_KIB, PASSES, 1, Some(32)).expect("parameters within their ranges");
    let kept = rate(seconds, threads, || {
        let params = params();
        let mut memory = vec![Block::new(); params.block_count()];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        move |output: &mut [u8]| argon2.hash_password_into_with_memory(PASSWORD, SALT, output, &mut memory)
    });
    let fresh = rate(seconds, threads, || {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params());
        move |output: &mut [u8]| argon2.hash_password_into(PASSWORD, SALT, output)
    });
    println!("{{\"kept\": {kept}, \"fresh\": {fresh}}}");
}

const PASSWORD: &[u8] = b"correct horse battery staple";
const SALT: &[u8] = b"sixteen bytes ..";

/// Hashes per second of `threads` threads; each owns its hasher.
fn rate<H>(seconds: f64, threads: usize, make: impl Fn() -> H) -> f64
where
    H: FnMut(&mut [u8]) -> argon2::Result<()> + Send,
{
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                let mut hash = make();
                scope.spawn(move || {
                    let mut output = [0; 32];
                    hash(&mut output).expect("a warm-up");
                    let (start, mut count) = (Instant::now(), 0_u32);
                    while start.elapsed() < Duration::from_secs_f64(seconds) {
                        hash(&mut output).expect("a hash");
                        count += 1;
                    }
                    std::hint::black_box(output);
                    f64::from(count) / start.elapsed().as_secs_f64()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a thread ends")).sum()
    })
}
