//! What a disk knows: its files, what happened to them, and the faults to come.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::ffi;

use super::image::{Event, Inode, Log};
use super::{Call, Error, Fault, Part, Shared, Times};

/// One opening of a file.
pub(super) type Handle = u64;

/// What SQLite returns and is returned.
pub(super) type Code = i32;

#[derive(Debug, Default)]
pub(super) struct State {
    events: Vec<Event>,
    names: HashMap<PathBuf, Inode>,
    /// The size of each file.
    sizes: Vec<u64>,
    handles: HashMap<Handle, Opened>,
    handles_made: Handle,
    orders: Vec<Order>,
    /// Whether every call fails.
    is_gone: bool,
    pub(super) room: Option<u64>,
    pub(super) calls: u64,
    pub(super) faults: u64,
    pub(super) sync_time: Duration,
    pub(super) syncs_begun: u64,
}

#[derive(Debug)]
struct Opened {
    inode: Inode,
    part: Part,
    /// Whether its first sync is to sync the directory too, as SQLite does with a new log.
    syncs_dir: bool,
    /// Whether a sync failed of which this handle was not told.
    owes_failure: bool,
}

#[derive(Debug)]
struct Order {
    fault: Fault,
    /// Calls that were looked at.
    seen: u64,
    is_done: bool,
}

impl Order {
    /// Counts a call and tells whether it fails.
    fn strikes(&mut self, call: Call, part: Part) -> bool {
        let Fault {
            call: wanted,
            part: of,
            nth,
            times,
            ..
        } = self.fault;
        if self.is_done || wanted.is_some_and(|w| w != call) || of.is_some_and(|o| o != part) {
            return false;
        }
        self.seen += 1;
        let strikes = self.seen >= nth;
        self.is_done = strikes && times == Times::Once;
        strikes
    }
}

impl State {
    pub(super) fn now(&self) -> usize {
        self.events.len()
    }

    pub(super) fn log(&self) -> Log {
        Log::new(self.events.clone())
    }

    pub(super) fn sync_dir(&mut self) {
        self.events.push(Event::SyncDir);
    }

    pub(super) fn fail(&mut self, fault: Fault) {
        self.orders.push(Order {
            fault,
            seen: 0,
            is_done: false,
        });
    }

    pub(super) fn clear(&mut self) {
        self.orders.clear();
        self.is_gone = false;
        self.room = None;
        for opened in self.handles.values_mut() {
            opened.owes_failure = false;
        }
    }

    /// Drops what a disk that has gone holds in memory.
    pub(super) fn forget(&mut self) {
        self.clear();
        self.events = Vec::new();
    }

    /// Counts a call; returns how it is to fail.
    fn check(&mut self, call: Call, part: Part) -> Option<Error> {
        self.calls += 1;
        let mut error = self.is_gone.then_some(Error::Io);
        for order in &mut self.orders {
            if order.strikes(call, part) {
                error = error.or(Some(order.fault.error));
            }
        }
        self.is_gone |= error == Some(Error::Gone);
        self.faults += u64::from(error.is_some());
        error
    }

    /// Opens a file by `real`; a handle is returned with success.
    pub(super) fn open(
        &mut self,
        path: &Path,
        syncs_dir: bool,
        real: impl FnOnce() -> Code,
    ) -> Result<Handle, Code> {
        let name = name_of(path);
        let part = Part::of(&name);
        if self.check(Call::Open, part).is_some() {
            return Err(ffi::SQLITE_CANTOPEN);
        }
        let is_there = path.try_exists().unwrap_or(false);
        let known = self.names.get(path).copied().filter(|_| is_there);
        // Not for a known file: closing it again would drop the locks that SQLite has on it.
        let before = if known.is_none() && is_there {
            fs::read(path).map_err(|_| ffi::SQLITE_CANTOPEN)?
        } else {
            Vec::new()
        };
        done(real())?;
        let inode = known.unwrap_or_else(|| self.make(path, name, before));
        self.handles_made += 1;
        let opened = Opened {
            inode,
            part,
            syncs_dir,
            owes_failure: false,
        };
        self.handles.insert(self.handles_made, opened);
        Ok(self.handles_made)
    }

    /// Notes a file that is met for the first time. One with content has been there for long; an
    /// empty one may just have been made.
    fn make(&mut self, path: &Path, name: String, bytes: Vec<u8>) -> Inode {
        let inode = self.sizes.len();
        self.sizes.push(bytes.len() as u64);
        self.names.insert(path.to_owned(), inode);
        self.events.push(if bytes.is_empty() {
            Event::Create { inode, name }
        } else {
            let bytes = bytes.into();
            Event::Found { inode, name, bytes }
        });
        inode
    }

    pub(super) fn close(&mut self, handle: Handle) {
        self.handles.remove(&handle);
    }

    pub(super) fn delete(
        &mut self,
        path: &Path,
        syncs_dir: bool,
        real: impl FnOnce() -> Code,
    ) -> Result<(), Code> {
        let name = name_of(path);
        if self.check(Call::Delete, Part::of(&name)).is_some() {
            return Err(ffi::SQLITE_IOERR_DELETE);
        }
        done(real())?;
        if let Some(inode) = self.names.remove(path) {
            self.make_room(self.sizes[inode]);
        }
        self.events.push(Event::Remove { name });
        if syncs_dir {
            self.sync_dir();
        }
        Ok(())
    }

    pub(super) fn read(&mut self, handle: Handle) -> Result<(), Code> {
        let part = self.handles[&handle].part;
        let failed = self.check(Call::Read, part);
        failed.map_or(Ok(()), |_| Err(ffi::SQLITE_IOERR_READ))
    }

    pub(super) fn size(&mut self, handle: Handle) -> Result<(), Code> {
        let part = self.handles[&handle].part;
        let failed = self.check(Call::Size, part);
        failed.map_or(Ok(()), |_| Err(ffi::SQLITE_IOERR_FSTAT))
    }

    /// Writes as much as the disk takes by `real`.
    pub(super) fn write(
        &mut self,
        handle: Handle,
        offset: u64,
        bytes: &[u8],
        real: impl FnOnce(&[u8]) -> Code,
    ) -> Result<(), Code> {
        let Opened { inode, part, .. } = self.handles[&handle];
        let (taken, code) = match self.check(Call::Write, part) {
            None => (bytes.len(), ffi::SQLITE_FULL),
            Some(Error::Gone | Error::Io) => (0, ffi::SQLITE_IOERR_WRITE),
            Some(Error::NoSpace) => (0, ffi::SQLITE_FULL),
            Some(Error::ShortWrite) => (bytes.len() / 2, ffi::SQLITE_IOERR_WRITE),
        };
        let fits = self.fits(inode, offset, taken);
        self.faults += u64::from(fits < taken);
        if fits > 0 {
            let part = &bytes[..fits];
            done(real(part))?;
            let end = offset + part.len() as u64;
            let grown = end.saturating_sub(self.sizes[inode]);
            self.sizes[inode] += grown;
            self.room = self.room.map(|room| room - grown);
            let bytes = part.into();
            self.events.push(Event::Write {
                inode,
                offset,
                bytes,
            });
        }
        if fits < bytes.len() {
            return Err(code);
        }
        Ok(())
    }

    /// Returns how many of `length` bytes there is room for.
    fn fits(&self, inode: Inode, offset: u64, length: usize) -> usize {
        let Some(room) = self.room else { return length };
        let left = (self.sizes[inode] + room).saturating_sub(offset);
        usize::try_from(left).unwrap_or(length).min(length)
    }

    fn make_room(&mut self, bytes: u64) {
        self.room = self.room.map(|room| room + bytes);
    }

    pub(super) fn truncate(
        &mut self,
        handle: Handle,
        size: u64,
        real: impl FnOnce() -> Code,
    ) -> Result<(), Code> {
        let Opened { inode, part, .. } = self.handles[&handle];
        if self.check(Call::Truncate, part).is_some() {
            return Err(ffi::SQLITE_IOERR_TRUNCATE);
        }
        done(real())?;
        self.make_room(self.sizes[inode].saturating_sub(size));
        self.sizes[inode] = size;
        self.events.push(Event::Truncate { inode, size });
        Ok(())
    }

    /// Returns how many events the sync is about.
    fn begin_sync(&mut self) -> usize {
        self.syncs_begun += 1;
        self.now()
    }

    /// Ends a sync that began when the log held `began` events.
    fn sync(&mut self, handle: Handle, began: usize) -> Result<(), Code> {
        let Opened { inode, part, .. } = self.handles[&handle];
        let failed = self.check(Call::Sync, part).is_some();
        if failed {
            let others = self.handles.values_mut();
            for other in others.filter(|other| other.inode == inode) {
                other.owes_failure = true;
            }
        }
        let opened = self.handles.get_mut(&handle).expect("it is open");
        let is_done = !std::mem::take(&mut opened.owes_failure);
        let syncs_dir = is_done && std::mem::take(&mut opened.syncs_dir);
        self.events.push(Event::Sync {
            inode,
            began,
            is_done,
        });
        if syncs_dir {
            self.sync_dir();
        }
        if is_done {
            Ok(())
        } else {
            Err(ffi::SQLITE_IOERR_FSYNC)
        }
    }
}

impl Shared {
    /// Syncs, which others do not wait for.
    pub(super) fn sync(&self, handle: Handle) -> Result<(), Code> {
        let began = self.lock().begin_sync();
        let start = Instant::now();
        loop {
            let mut state = self.lock();
            let left = state.sync_time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return state.sync(handle, began);
            }
            drop(state);
            thread::park_timeout(left);
        }
    }
}

fn done(code: Code) -> Result<(), Code> {
    if code == ffi::SQLITE_OK {
        Ok(())
    } else {
        Err(code)
    }
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().expect("SQLite names files");
    name.to_string_lossy().into_owned()
}

/// A file that was opened beside SQLite, in view of the log. Flushing it is a sync.
#[derive(Debug)]
pub struct DiskFile {
    shared: &'static Shared,
    handle: Handle,
    file: File,
}

impl DiskFile {
    pub(super) fn open(shared: &'static Shared, path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let handle = shared.lock().open(path, false, || ffi::SQLITE_OK);
        Ok(Self {
            shared,
            handle: handle.map_err(failed)?,
            file,
        })
    }
}

impl Read for DiskFile {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.shared.lock().read(self.handle).map_err(failed)?;
        self.file.read(into)
    }
}

impl Write for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self {
            shared,
            handle,
            file,
        } = self;
        let offset = file.stream_position()?;
        let real = |part: &[u8]| match file.write_all(part) {
            Ok(()) => ffi::SQLITE_OK,
            Err(_) => ffi::SQLITE_IOERR_WRITE,
        };
        let written = shared.lock().write(*handle, offset, bytes, real);
        written.map_err(failed)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.shared.sync(self.handle).map_err(failed)
    }
}

impl Seek for DiskFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        self.shared.lock().close(self.handle);
    }
}

fn failed(code: Code) -> io::Error {
    let kind = if code == ffi::SQLITE_FULL {
        io::ErrorKind::StorageFull
    } else {
        io::ErrorKind::Other
    };
    io::Error::new(kind, format!("the disk failed as was ordered ({code})"))
}
