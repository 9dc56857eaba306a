//! Making the write-ahead log durable where a sync of it may have failed.
//!
//! After a failed sync the system counts what it did not write as written: whoever reads the log
//! still finds it, a later sync does not write it either, and a loss of power shows what is really
//! there. What SQLite commits behind such frames would go with them. So before anything rests on
//! a log of which it is not known that every sync of it succeeded, all of it is written again, byte
//! for byte, and synced. To copy it into the database instead would not do: until the log is begun
//! anew, the frames that did reach the disk would bring older pages back over the copied ones.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::files::{self, Deed};

/// Bytes that are read and written at a time.
const CHUNK_BYTES: usize = 1024 * 1024;

/// A file beside SQLite, as [`Options::opener`](crate::Options::opener) opens it: `flush` waits until
/// all of it is on the disk.
pub trait RawFile: Read + Seek + Write {}

impl<F: Read + Seek + Write> RawFile for F {}

/// Opens an existing file for reading and writing.
pub(crate) fn open_file(path: &Path) -> io::Result<impl RawFile + use<>> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let path = path.to_owned();
    Ok(Durable { file, path })
}

struct Durable {
    file: File,
    path: PathBuf,
}

impl Read for Durable {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.file.read(into)
    }
}

impl Seek for Durable {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Write for Durable {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        files::note(Deed::Write(&self.path))?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        files::sync(&self.file, &self.path)
    }
}

/// Writes a file again as it is, and syncs it.
///
/// Nobody may change it meanwhile. Readers may go on: no byte ever differs.
pub(crate) fn rewrite(mut file: impl RawFile) -> io::Result<()> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    let mut offset = 0;
    loop {
        chunk.clear();
        let mut rest = Read::by_ref(&mut file).take(CHUNK_BYTES as u64);
        let length = rest.read_to_end(&mut chunk)? as u64;
        if length == 0 {
            break;
        }
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(&chunk)?;
        offset += length;
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::tempdir;

    use super::*;

    #[test]
    fn a_file_is_the_same_afterwards() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("log");
        for length in [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 7] {
            let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
            fs::write(&path, &bytes).unwrap();
            rewrite(open_file(&path).unwrap()).unwrap();
            assert!(fs::read(&path).unwrap() == bytes, "{length} bytes");
        }
    }

    #[test]
    fn a_missing_file_is_not_made() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(open_file(&path).is_err());
        assert!(!path.try_exists().unwrap());
    }
}
