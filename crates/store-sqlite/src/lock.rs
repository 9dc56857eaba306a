//! The lock of a directory, which also tells whether a store was made there.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use crate::files;
use crate::open::{LOCK_FILE, OpenError, io_error, is_there};

/// Locks `dir` for who writes; makes the file.
pub(crate) fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK_FILE);
    loop {
        let lock = lock_file(dir, &path)?;
        // A restoring that failed may have removed it meanwhile: then it keeps nobody out.
        if is_named(&lock, &path)? {
            return Ok(lock);
        }
    }
}

/// Locks `dir` against who would write, and not against others who look; writes nothing.
///
/// `None` where there is no lock, as in a directory that was copied by hand.
pub(crate) fn shared(dir: &Path) -> Result<Option<File>, OpenError> {
    let lock = match File::open(dir.join(LOCK_FILE)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("open", dir.join(LOCK_FILE), source)),
    };
    let locked = lock.try_lock_shared();
    locked.map_err(|error| refused(dir, error))?;
    Ok(Some(lock))
}

/// Checks that a directory has no lock yet, as when [`shared`] found none.
pub(crate) fn check_none(dir: &Path) -> Result<(), OpenError> {
    if is_there(&dir.join(LOCK_FILE))? {
        return Err(refused(dir, TryLockError::WouldBlock));
    }
    Ok(())
}

/// What the lock holds once a store was made: without it an empty database, or none, would look like
/// one that was never made, and a new one would silently take its place.
const MARK: &[u8] = b"A store was made in this directory.\n";

pub(crate) fn is_marked(dir: &Path, lock: &File) -> Result<bool, OpenError> {
    let metadata = lock.metadata().map_err(|source| OpenError::Io {
        action: "look at",
        file: dir.join(LOCK_FILE),
        source,
    })?;
    Ok(metadata.len() > 0)
}

pub(crate) fn mark(dir: &Path, lock: &File) -> Result<(), OpenError> {
    let path = dir.join(LOCK_FILE);
    let marked = files::write(lock, MARK, &path).and_then(|()| files::sync(lock, &path));
    marked.map_err(|source| io_error("write", path, source))
}

/// Opens a file, and makes it where it is missing.
pub(crate) fn private_file(file: &Path) -> Result<File, OpenError> {
    files::open_or_create(file).map_err(|source| io_error("open", file.to_owned(), source))
}

pub(crate) fn lock_file(dir: &Path, path: &Path) -> Result<File, OpenError> {
    let lock = private_file(path)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(error) => Err(refused(dir, error)),
    }
}

fn refused(dir: &Path, error: TryLockError) -> OpenError {
    match error {
        TryLockError::WouldBlock => OpenError::Locked {
            dir: dir.to_owned(),
        },
        TryLockError::Error(source) => io_error("lock", dir.join(LOCK_FILE), source),
    }
}

/// Tells whether the file that is open still has that name.
pub(crate) fn is_named(file: &File, path: &Path) -> Result<bool, OpenError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let is_same = || -> io::Result<bool> {
            let (open, named) = (file.metadata()?, fs::metadata(path)?);
            Ok((open.dev(), open.ino()) == (named.dev(), named.ino()))
        };
        match is_same() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            is_same => is_same.map_err(|source| OpenError::Io {
                action: "look at",
                file: path.to_owned(),
                source,
            }),
        }
    }
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        Ok(true)
    }
}
