//! `countersign users import FILE`: imports any number of users with their existing password hashes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::Path;

use serde_json::json;

use super::operator::operator;
use super::output::note;
use super::workplace::on_database;
use super::{CliError, Common};
use crate::app::{Core, Creation};
use crate::service::{IMPORT_BATCH, ImportReport, MAX_IMPORT_LINE_BYTES, RefusedLine};

/// Imports every valid line, batch by batch, and reports the invalid lines as they are read.
pub(super) fn run(path: &Path, common: &Common) -> Result<(), CliError> {
    let (source, size): (Box<dyn Read>, Option<u64>) = if path == Path::new("-") {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(path).map_err(|error| CliError::about(path.display(), error))?;
        let size = file.metadata().ok().map(|metadata| metadata.len()).filter(|size| *size > 0);
        (Box::new(file), size)
    };
    let mut lines = Lines(BufReader::new(source));
    let progress = Progress { size, is_shown: io::stderr().is_terminal() };
    let (report, refused) =
        on_database(common, Creation::Forbidden, async |core| import(core, &mut lines, &progress).await)?;
    let counts = report.progress;
    let list: Vec<_> = refused.iter().map(|line| json!({"line": line.number, "detail": line.reason})).collect();
    let json = json!({
        "created": counts.created, "unchanged": counts.unchanged, "taken": counts.taken, "refused": counts.refused,
        "errors": list,
    });
    common.output().answer(&json, || {
        format!(
            "created    {}\nunchanged  {}\ntaken      {}\nrefused    {}\n",
            counts.created, counts.unchanged, counts.taken, counts.refused
        )
    })?;
    match counts.refused + counts.taken {
        0 => Ok(()),
        lines => Err(CliError::failed(format!("lines that were not imported: {lines}"))),
    }
}

async fn import(
    core: &Core,
    lines: &mut Lines<Box<dyn Read>>,
    progress: &Progress,
) -> Result<(ImportReport, Vec<RefusedLine>), CliError> {
    let (mut report, mut refused) = (ImportReport::default(), Vec::new());
    let from = operator();
    loop {
        let batch = lines.batch().map_err(|error| CliError::about("the import", error))?;
        let slices: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
        core.service.users.import_users(&slices, &mut report, &from).await.map_err(CliError::failed)?;
        for line in report.refused.drain(..) {
            progress.clear();
            note(&format!("line {}: {}", line.number, line.reason));
            refused.push(line);
        }
        if batch.len() < IMPORT_BATCH {
            progress.clear();
            return Ok((report, refused));
        }
        progress.show(&report);
    }
}

/// The lines of an untrusted file.
struct Lines<R>(BufReader<R>);

impl<R: Read> Lines<R> {
    /// The next lines. Fewer than [`IMPORT_BATCH`] are returned only at the end.
    fn batch(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut batch = Vec::with_capacity(IMPORT_BATCH);
        while batch.len() < IMPORT_BATCH {
            match self.line()? {
                Some(line) => batch.push(line),
                None => break,
            }
        }
        Ok(batch)
    }

    /// The next line without its line end. An overlong line is truncated, but remains long enough to be refused.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let longest = MAX_IMPORT_LINE_BYTES as u64 + 1;
        if self.0.by_ref().take(longest).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        match line.last() {
            Some(b'\n') => drop(line.pop()),
            _ if line.len() as u64 == longest => drop(self.0.skip_until(b'\n')?),
            _ => {}
        }
        Ok(Some(line))
    }
}

/// The progress display.
struct Progress {
    size: Option<u64>,
    is_shown: bool,
}

impl Progress {
    fn show(&self, report: &ImportReport) {
        if self.is_shown {
            let counts = &report.progress;
            let share = self.size.map(|size| format!(" ({} %)", counts.bytes.min(size) * 100 / size));
            let _ = write!(
                io::stderr().lock(),
                "\r{} lines{}, {} created",
                counts.created + counts.unchanged + counts.taken + counts.refused,
                share.unwrap_or_default(),
                counts.created
            );
        }
    }

    fn clear(&self) {
        if self.is_shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<Vec<u8>> {
        Lines(BufReader::with_capacity(7, text)).batch().unwrap()
    }

    #[test]
    fn lines_end_at_a_line_feed_and_at_the_end_of_the_file() {
        assert_eq!(lines(b""), Vec::<Vec<u8>>::new());
        assert_eq!(lines(b"a\n\nb"), [b"a".to_vec(), vec![], b"b".to_vec()]);
        assert_eq!(lines(b"a\r\n"), [b"a\r".to_vec()]);
    }

    #[test]
    fn a_line_that_is_too_long_is_buffered_only_up_to_the_limit() {
        let text = [vec![b'x'; 3 * MAX_IMPORT_LINE_BYTES], b"\nnext\n".to_vec()].concat();
        let lines = lines(&text);
        assert_eq!(lines[0].len(), MAX_IMPORT_LINE_BYTES + 1);
        assert_eq!(lines[1..], [b"next".to_vec()]);
        let longest = [vec![b'x'; MAX_IMPORT_LINE_BYTES], b"\nnext".to_vec()].concat();
        assert_eq!(self::lines(&longest).len(), 2);
    }
}
