//! The VFS itself: what SQLite calls, around its ordinary VFS.
//!
//! Each function takes what it was given apart, lets [`State`](super::state::State) decide, and
//! calls the ordinary VFS. All rules stand there, all that is unsafe stands here.
#![expect(
    unsafe_code,
    reason = "SQLite's interface for file systems is one of C: the only way to see what it asks of a disk"
)]

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;
use std::slice;

use rusqlite::ffi::{
    self, sqlite3_file, sqlite3_filename, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs,
};

use super::Shared;
use super::state::{Code, Handle};

/// A VFS that is registered with SQLite.
#[derive(Debug)]
pub(super) struct Registration {
    name: &'static CStr,
    vfs: *mut sqlite3_vfs,
}

// SAFETY: the pointer is used to unregister alone, which SQLite guards with a mutex of its own; what
// it points to lives for ever and is not changed by us after the registration.
unsafe impl Send for Registration {}
// SAFETY: as above; shared references read nothing but the name.
unsafe impl Sync for Registration {}

impl Registration {
    pub(super) fn name(&self) -> &str {
        self.name.to_str().expect("names are plain")
    }

    /// Lets no more connections be opened.
    pub(super) fn end(&self) {
        // SAFETY: the VFS was registered by `register` and was never freed.
        let code = unsafe { ffi::sqlite3_vfs_unregister(self.vfs) };
        debug_assert_eq!(code, ffi::SQLITE_OK);
    }
}

/// What the VFS is given back with each call.
struct Context {
    shared: &'static Shared,
    real: *mut sqlite3_vfs,
}

/// An open file, as SQLite keeps it. The ordinary VFS's file lies behind it.
#[repr(C)]
struct ShimFile {
    base: sqlite3_file,
    shared: &'static Shared,
    /// `None` for a temporary file, which is nobody's business.
    handle: Option<Handle>,
}

const SHIM_BYTES: usize = size_of::<ShimFile>();

/// Registers a VFS. Its memory is never given back: connections may outlive the registration.
pub(super) fn register(name: &str, shared: &'static Shared) -> Registration {
    // SAFETY: a null name asks for the default VFS, which lives as long as the process.
    let real = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
    assert!(!real.is_null(), "SQLite has a VFS");
    // SAFETY: SQLite returned it, and nobody changes a registered VFS but for its list.
    let (size, path_bytes) = unsafe { ((*real).szOsFile, (*real).mxPathname) };
    let shim_bytes = c_int::try_from(SHIM_BYTES).expect("a few words");
    let name = Box::leak(
        CString::new(name)
            .expect("names are plain")
            .into_boxed_c_str(),
    );
    let context = Box::leak(Box::new(Context { shared, real }));
    let vfs = Box::leak(Box::new(sqlite3_vfs {
        iVersion: 2,
        szOsFile: shim_bytes + size,
        mxPathname: path_bytes,
        pNext: ptr::null_mut(),
        zName: name.as_ptr(),
        pAppData: ptr::from_mut(context).cast(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_time_int64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }));
    // SAFETY: the structure is complete, and it and all it points to live for ever.
    let code = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
    assert_eq!(code, ffi::SQLITE_OK, "SQLite took the VFS");
    Registration { name, vfs }
}

/// Calls a method of the ordinary VFS.
macro_rules! real_vfs {
    ($vfs:expr, $method:ident($($argument:expr),*)) => {{
        let real = context($vfs).real;
        // SAFETY: it is SQLite's default VFS, which has all methods up to version 2, and the
        // arguments are those that SQLite passed for the same method.
        unsafe {
            let method = (*real).$method.expect("the default VFS is complete");
            method(real, $($argument),*)
        }
    }};
}

/// Calls a method of the ordinary file behind a file of ours.
macro_rules! real_file {
    ($file:expr, $method:ident($($argument:expr),*)) => {{
        let real = real_file($file);
        // SAFETY: the file was opened by the default VFS, whose methods are complete up to
        // version 2, and the arguments are those that SQLite passed for the same method.
        unsafe {
            let method = (*(*real).pMethods).$method.expect("the default VFS is complete");
            method(real, $($argument),*)
        }
    }};
}

fn context(vfs: *mut sqlite3_vfs) -> &'static Context {
    // SAFETY: SQLite passes the VFS that `register` made, whose context lives for ever.
    unsafe { &*(*vfs).pAppData.cast::<Context>() }
}

fn real_file(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: SQLite allocates `szOsFile` bytes for a file: ours, and the ordinary one behind it.
    unsafe { file.cast::<u8>().add(SHIM_BYTES).cast() }
}

/// Returns what `open` put there.
fn shim(file: *mut sqlite3_file) -> (&'static Shared, Option<Handle>) {
    let file = file.cast::<ShimFile>();
    // SAFETY: SQLite calls methods on files only that `open` filled in.
    unsafe { ((*file).shared, (*file).handle) }
}

/// Returns the path in SQLite's words.
fn path<'a>(name: *const c_char) -> Option<&'a Path> {
    if name.is_null() {
        return None;
    }
    // SAFETY: SQLite passes names that end with a zero byte and outlive the call.
    let name = unsafe { CStr::from_ptr(name) };
    Some(Path::new(OsStr::from_bytes(name.to_bytes())))
}

fn code(result: Result<(), Code>) -> c_int {
    result.err().unwrap_or(ffi::SQLITE_OK)
}

fn unsigned(number: sqlite3_int64) -> u64 {
    u64::try_from(number).expect("SQLite passes offsets and sizes")
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let shared = context(vfs).shared;
    let real = || real_vfs!(vfs, xOpen(name, real_file(file), flags, flags_out));
    let is_temporary = flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0;
    let opened = match path(name) {
        Some(path) if !is_temporary => {
            let beside = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL;
            let syncs_dir = flags & ffi::SQLITE_OPEN_CREATE != 0 && flags & beside != 0;
            shared.lock().open(path, syncs_dir, real).map(Some)
        }
        _ => match real() {
            ffi::SQLITE_OK => Ok(None),
            code => Err(code),
        },
    };
    let (handle, code, methods) = match opened {
        Ok(handle) => (handle, ffi::SQLITE_OK, &raw const METHODS),
        // SQLite closes only what has methods.
        Err(code) => (None, code, ptr::null()),
    };
    let base = sqlite3_file { pMethods: methods };
    let shim = ShimFile {
        base,
        shared,
        handle,
    };
    // SAFETY: SQLite allocated `szOsFile` bytes at `file`, aligned for any file.
    unsafe { file.cast::<ShimFile>().write(shim) };
    code
}

unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, name: *const c_char, syncs_dir: c_int) -> c_int {
    let path = path(name).expect("a file is removed by its name");
    let real = || real_vfs!(vfs, xDelete(name, syncs_dir));
    let mut state = context(vfs).shared.lock();
    code(state.delete(path, syncs_dir & 1 != 0, real))
}

unsafe extern "C" fn access(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    real_vfs!(vfs, xAccess(name, flags, out))
}

unsafe extern "C" fn full_pathname(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    bytes: c_int,
    out: *mut c_char,
) -> c_int {
    real_vfs!(vfs, xFullPathname(name, bytes, out))
}

unsafe extern "C" fn randomness(vfs: *mut sqlite3_vfs, bytes: c_int, out: *mut c_char) -> c_int {
    real_vfs!(vfs, xRandomness(bytes, out))
}

unsafe extern "C" fn sleep(vfs: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    real_vfs!(vfs, xSleep(microseconds))
}

unsafe extern "C" fn current_time(vfs: *mut sqlite3_vfs, out: *mut f64) -> c_int {
    real_vfs!(vfs, xCurrentTime(out))
}

unsafe extern "C" fn current_time_int64(vfs: *mut sqlite3_vfs, out: *mut sqlite3_int64) -> c_int {
    real_vfs!(vfs, xCurrentTimeInt64(out))
}

unsafe extern "C" fn last_error(vfs: *mut sqlite3_vfs, bytes: c_int, out: *mut c_char) -> c_int {
    real_vfs!(vfs, xGetLastError(bytes, out))
}

/// Version 2: with shared memory, without files mapped into memory, which would go past the log.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let (shared, handle) = shim(file);
    if let Some(handle) = handle {
        shared.lock().close(handle);
    }
    real_file!(file, xClose())
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    into: *mut c_void,
    bytes: c_int,
    offset: sqlite3_int64,
) -> c_int {
    let (shared, handle) = shim(file);
    let refused = handle.and_then(|handle| shared.lock().read(handle).err());
    if let Some(code) = refused {
        return code;
    }
    real_file!(file, xRead(into, bytes, offset))
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    from: *const c_void,
    bytes: c_int,
    offset: sqlite3_int64,
) -> c_int {
    let (shared, handle) = shim(file);
    let Some(handle) = handle else {
        return real_file!(file, xWrite(from, bytes, offset));
    };
    let length = usize::try_from(bytes).expect("SQLite passes lengths");
    // SAFETY: SQLite passes `bytes` bytes at `from` for the time of the call.
    let content = unsafe { slice::from_raw_parts(from.cast::<u8>(), length) };
    let real = |part: &[u8]| {
        let length = c_int::try_from(part.len()).expect("no longer than what SQLite passed");
        real_file!(file, xWrite(part.as_ptr().cast(), length, offset))
    };
    let mut state = shared.lock();
    code(state.write(handle, unsigned(offset), content, real))
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    let (shared, handle) = shim(file);
    let real = || real_file!(file, xTruncate(size));
    match handle {
        Some(handle) => code(shared.lock().truncate(handle, unsigned(size), real)),
        None => real(),
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, _flags: c_int) -> c_int {
    let (shared, handle) = shim(file);
    code(handle.map_or(Ok(()), |handle| shared.sync(handle)))
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, out: *mut sqlite3_int64) -> c_int {
    let (shared, handle) = shim(file);
    let refused = handle.and_then(|handle| shared.lock().size(handle).err());
    if let Some(code) = refused {
        return code;
    }
    real_file!(file, xFileSize(out))
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    real_file!(file, xLock(level))
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    real_file!(file, xUnlock(level))
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    real_file!(file, xCheckReservedLock(out))
}

unsafe extern "C" fn file_control(
    file: *mut sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    real_file!(file, xFileControl(operation, argument))
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    real_file!(file, xSectorSize())
}

unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    real_file!(file, xDeviceCharacteristics())
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    page: c_int,
    bytes: c_int,
    extends: c_int,
    out: *mut *mut c_void,
) -> c_int {
    real_file!(file, xShmMap(page, bytes, extends, out))
}

unsafe extern "C" fn shm_lock(
    file: *mut sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    real_file!(file, xShmLock(offset, count, flags))
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    real_file!(file, xShmBarrier());
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, deletes: c_int) -> c_int {
    real_file!(file, xShmUnmap(deletes))
}
