//! What is done to files and directories beside SQLite.
//!
//! It all goes through here, so that the tests can tell in which order it is done, and let it fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// Something that is done. Paths are as they were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed<'a> {
    Create(&'a Path),
    Remove(&'a Path),
    Rename(&'a Path, &'a Path),
    Sync(&'a Path),
    SyncDir(&'a Path),
    /// Also what SQLite writes to a file that is synced here.
    Write(&'a Path),
}

/// Opens a file for reading and writing; makes it where it is missing, for its owner alone.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    if !path.try_exists()? {
        note(Deed::Create(path))?;
    }
    private().create(true).truncate(false).open(path)
}

/// Makes a file that is not there, for its owner alone.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    note(Deed::Create(path))?;
    private().create_new(true).open(path)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes a directory, for its owner alone.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    note(Deed::Create(dir))?;
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Removes a file, where it is there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => note(Deed::Remove(path)),
    }
}

/// Renames a file; what has the other name already is replaced.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    note(Deed::Rename(from, to))?;
    fs::rename(from, to)
}

/// Copies what is left to read of a file into another.
pub(crate) fn copy(mut from: &File, mut to: &File, path: &Path) -> io::Result<()> {
    note(Deed::Write(path))?;
    io::copy(&mut from, &mut to).map(drop)
}

/// Writes at the end of what was written.
pub(crate) fn write(mut file: &File, bytes: &[u8], path: &Path) -> io::Result<()> {
    note(Deed::Write(path))?;
    file.write_all(bytes)
}

/// Makes durable what is in a file.
pub(crate) fn sync(file: &File, path: &Path) -> io::Result<()> {
    note(Deed::Sync(path))?;
    file.sync_all()
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    note(Deed::SyncDir(dir))?;
    if cfg!(not(unix)) {
        return Ok(());
    }
    File::open(named(dir))?.sync_all()
}

/// Returns the present directory where a path has no name for it.
pub(crate) fn named(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    }
}

#[cfg(not(test))]
pub(crate) fn note(_: Deed<'_>) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use record::note;

#[cfg(test)]
pub(crate) mod record {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;

    /// Tells of a deed whether it fails.
    type Fault = Box<dyn FnMut(Deed<'_>) -> bool>;

    thread_local! {
        static DEEDS: RefCell<Vec<Recorded>> = const { RefCell::new(Vec::new()) };
        static FAULT: RefCell<Option<Fault>> = const { RefCell::new(None) };
    }

    /// A deed of the past.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) enum Recorded {
        Create(PathBuf),
        Remove(PathBuf),
        Rename(PathBuf, PathBuf),
        Sync(PathBuf),
        SyncDir(PathBuf),
        Write(PathBuf),
    }

    pub(crate) fn note(deed: Deed<'_>) -> io::Result<()> {
        let fails = FAULT.with_borrow_mut(|fault| fault.as_mut().is_some_and(|fault| fault(deed)));
        if fails {
            return Err(io::Error::other("the disk failed"));
        }
        let recorded = match deed {
            Deed::Create(path) => Recorded::Create(path.to_owned()),
            Deed::Remove(path) => Recorded::Remove(path.to_owned()),
            Deed::Rename(from, to) => Recorded::Rename(from.to_owned(), to.to_owned()),
            Deed::Sync(path) => Recorded::Sync(path.to_owned()),
            Deed::SyncDir(path) => Recorded::SyncDir(path.to_owned()),
            Deed::Write(path) => Recorded::Write(path.to_owned()),
        };
        DEEDS.with_borrow_mut(|deeds| deeds.push(recorded));
        Ok(())
    }

    /// Returns what this thread did since it was asked last.
    pub(crate) fn take() -> Vec<Recorded> {
        DEEDS.take()
    }

    /// Lets the deeds of this thread fail for which `fault` says so, during `work`.
    pub(crate) fn with_fault<T>(
        fault: impl FnMut(Deed<'_>) -> bool + 'static,
        work: impl FnOnce() -> T,
    ) -> T {
        FAULT.set(Some(Box::new(fault)));
        let done = work();
        FAULT.set(None);
        done
    }

    /// Checks that each deed came to the disk before anything rested on it.
    ///
    /// A file is synced after its last write, and before it gets another name; a directory, behind
    /// the last change of its names, and behind a decision before what is there is touched.
    #[track_caller]
    pub(crate) fn assert_durable(deeds: &[Recorded]) {
        let (mut unsynced, mut changed, mut undecided) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for deed in deeds {
            match deed {
                Recorded::Write(file) => drop(unsynced.insert(file.clone())),
                Recorded::Sync(file) => drop(unsynced.remove(file)),
                Recorded::Create(path) => drop(changed.insert(dir_of(path))),
                Recorded::SyncDir(dir) => {
                    changed.remove(dir);
                    undecided.remove(dir);
                }
                Recorded::Remove(path) => {
                    unsynced.remove(path);
                    assert!(!undecided.contains(&dir_of(path)), "{path:?} of {deeds:#?}");
                    changed.insert(dir_of(path));
                }
                Recorded::Rename(from, to) => {
                    assert!(!unsynced.contains(from), "{from:?} of {deeds:#?}");
                    assert!(!undecided.contains(&dir_of(to)), "{to:?} of {deeds:#?}");
                    changed.insert(dir_of(to));
                    // All that a restoring does rests on such a name.
                    if to.to_string_lossy().contains(".restored-") {
                        undecided.insert(dir_of(to));
                    }
                }
            }
        }
        unsynced.retain(|file| file.try_exists().is_ok_and(|is_there| is_there));
        assert!(unsynced.is_empty(), "{unsynced:?} of {deeds:#?}");
        assert!(changed.is_empty(), "{changed:?} of {deeds:#?}");
    }

    fn dir_of(path: &Path) -> PathBuf {
        path.parent().unwrap_or(path).to_owned()
    }
}
