//! A disk that loses what was not synced when the power fails: tests/data/lost_writes.c, preloaded into the service.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::process::Home;

/// A write reaches the disk in pieces of this size; each whole or not at all.
const SECTOR: usize = 512;
/// Replaces the number of bytes in a record that changes the file's length.
const NEW_LENGTH: u32 = u32::MAX;

/// The simulated disk below a database file and its side files.
pub struct Disk {
    database: PathBuf,
    folder: tempfile::TempDir,
}

/// A change of a file that was not synced.
struct Change {
    offset: u64,
    length_before: u64,
    old: Vec<u8>,
    /// The new bytes; none if the length was changed to `offset`.
    new: Option<Vec<u8>>,
}

impl Disk {
    /// Creates the simulated disk. Requires `cc`, as linking does.
    pub fn below(database: PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lost_writes.c");
        let library = folder.path().join("lost_writes.so");
        let options = ["-shared", "-fPIC", "-O1", source, "-ldl", "-o"];
        assert!(Command::new("cc").args(options).arg(&library).status().unwrap().success());
        Self { database: database.canonicalize().unwrap(), folder }
    }

    /// The same home, with processes that write to this disk.
    pub fn attached_to(&self, home: Home) -> Home {
        let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        home.with_variable("LD_PRELOAD", &text(&self.folder.path().join("lost_writes.so")))
            .with_variable("LOST_WRITES_OF", &text(&self.database))
            .with_variable("LOST_WRITES_TO", &text(self.folder.path()))
    }

    /// Simulates a power failure after every writer was killed. Loses all or some of the unsynced changes, in any
    /// order. `chance` returns a random number below its argument. Returns the number of lost changes.
    pub fn fail(&self, chance: impl Fn(usize) -> usize) -> usize {
        let mut lost = 0;
        for suffix in ["", "-wal"] {
            let path = PathBuf::from(format!("{}{suffix}", self.database.display()));
            let journal = self.folder.path().join(path.file_name().unwrap());
            let Ok(text) = std::fs::read(&journal) else { continue };
            let changes = parse(&text);
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            for change in changes.iter().rev() {
                change.take_back(&file);
            }
            let is_kept = chance(2) == 0;
            for change in &changes {
                if is_kept && chance(2) == 0 {
                    change.make_again(&file, &chance);
                } else {
                    lost += 1;
                }
            }
            std::fs::remove_file(journal).unwrap();
        }
        lost
    }
}

impl Change {
    fn take_back(&self, file: &File) {
        file.write_all_at(&self.old, self.offset).unwrap();
        file.set_len(self.length_before).unwrap();
    }

    /// Part of a change that was written in pieces.
    fn make_again(&self, file: &File, chance: impl Fn(usize) -> usize) {
        let Some(new) = &self.new else { return file.set_len(self.offset).unwrap() };
        let pieces = if chance(4) == 0 { chance(1 + new.len() / SECTOR) } else { usize::MAX / SECTOR };
        file.write_all_at(&new[..new.len().min(pieces * SECTOR)], self.offset).unwrap();
    }
}

/// The records of a journal. The last may be cut off: then its write had not begun.
fn parse(mut text: &[u8]) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut next = |count: usize| text.split_off(..count);
    let mut record = || {
        let mut numbers = next(24)?.chunks_exact(4).map(|four| u32::from_ne_bytes(four.try_into().unwrap()));
        let mut long = || {
            let (low, high) = (numbers.next().unwrap(), numbers.next().unwrap());
            u64::from(low) | u64::from(high) << 32
        };
        let (offset, length_before) = (long(), long());
        let (old, new) = (numbers.next().unwrap(), numbers.next().unwrap());
        let old = next(usize::try_from(old).unwrap())?.to_vec();
        let new = if new == NEW_LENGTH { None } else { Some(next(usize::try_from(new).unwrap())?.to_vec()) };
        Some(Change { offset, length_before, old, new })
    };
    while let Some(change) = record() {
        changes.push(change);
    }
    changes
}
