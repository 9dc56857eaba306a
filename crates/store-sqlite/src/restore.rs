//! Putting a backup in the place of the store: [`restore()`].
//!
//! The order, so that at any point a crash leaves either the old store or the new one, each with
//! what belongs to it:
//!
//! 1. The copy is written under a name that means nothing ([`DRAFT`]), looked through, given its new
//!    epoch, and synced. Up to here the old store is as it was, and a draft that is left is removed
//!    by whoever opens the directory next.
//! 2. One renaming gives it a name that means "take me" ([`READY`], with the stamp), and the
//!    directory is synced. From here on the restoring is carried to its end, by whoever opens the
//!    directory next where this process does not.
//! 3. The old log, the old journal and the old database get the stamp's name, each where it still is
//!    there: in any order, since the next one does only what is left. SQLite finds a log by the name
//!    of its database, so the old pair stays a pair. The index of the old log is removed: it says
//!    nothing that the log does not.
//! 4. The directory is synced. So the new database cannot come by its name while an old log still has
//!    its own.
//! 5. One renaming puts the new database in place, and the directory is synced.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use kitbag_domain::ServerName;
use rusqlite::Connection;
use thiserror::Error;

use crate::check::{COPY_NAME, COPY_NAME_END};
use crate::copy::PARTIAL;
use crate::files::{self, Deed};
use crate::format::{self, COMPANIONS, Header, Role, Source};
use crate::lock;
use crate::open::{self, DATABASE_FILE, OpenError, sqlite_error, sync_dir};

/// The name of a copy that is being made.
const DRAFT: &str = "kitbag.db.restoring";
/// The name of a copy that is to be put in place; the stamp stands behind it.
const READY: &str = "kitbag.db.restored-";
/// The name of what was there before; the stamp stands behind it.
const ASIDE: &str = "kitbag.db.before-restore-";
/// The name of the copy before a mending; its stamp stands behind it.
pub(crate) const BEFORE_REPAIR: &str = "kitbag.db.before-repair-";
/// The index of the log, which has no content of its own.
const INDEX: &str = "-shm";

/// How a backup is put back.
#[derive(Clone, Debug)]
pub struct Restoring {
    /// Whether a store that is there may be set aside.
    pub replace: bool,
    /// Becomes a part of the name under which that is kept, such as the time of now.
    pub stamp: String,
    /// Random; becomes the epoch, so that every sync token of before is answered in full.
    pub epoch_seed: u64,
    /// Whose backup it must be; without it, that of the store that is there.
    pub server_name: Option<ServerName>,
}

/// How a restoring ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The server whose accounts the store holds.
    pub server_name: String,
    /// The size of the database.
    pub bytes: u64,
    /// Where the database is that was there before.
    pub aside: Option<PathBuf>,
}

/// Why nothing was restored; all is as it was, except where it is [`Decided`](Self::Decided).
#[derive(Debug, Error)]
pub enum RestoreError {
    /// There is a store already.
    #[error("there is a store in `{}` already", dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// The file is the database of a store that is open.
    #[error("`{}` is the database of a running server, not a backup", file.display())]
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// The file is the database of that very directory.
    #[error("`{}` is the store of that directory itself", file.display())]
    Own {
        /// The file.
        file: PathBuf,
    },
    /// The backup has the accounts of another server, which could not be opened there.
    #[error("the backup is of server `{found}`, not `{wanted}`")]
    OtherServer {
        /// The server whose accounts it holds.
        found: String,
        /// The server of the store that is there, or that was wanted.
        wanted: String,
    },
    /// It failed too late: the backup is to come in the place of the store.
    #[error("the restoring is not completed, but it is decided: the next start completes it")]
    Decided {
        /// What failed.
        source: OpenError,
    },
    /// The backup or the directory is of no use.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Puts a copy of the backup `from` in the place of the store in `dir`, or makes one of it.
///
/// A store that was there is kept beside it. The new one has a new epoch. An older format is led to
/// the newest when the store is opened.
/// # Errors
/// [`RestoreError`], where `from` is not a sound store of a known format, `dir` is in use, or it has
/// a store that may not be replaced.
pub fn restore(from: &Path, dir: &Path, restoring: &Restoring) -> Result<Restored, RestoreError> {
    let named = from;
    let from = &open::real_file(named)?;
    check_beginning(from)?;
    let _unused = check_unused(named, from, dir)?;
    // Now, since it may have the name of something that is removed.
    let backup = Backup::open(from)?;
    let is_new = !open::is_there(dir)?;
    open::make_dir(dir)?;
    restore_into(&backup, dir, is_new, restoring)
}

fn restore_into(
    backup: &Backup,
    dir: &Path,
    is_new: bool,
    restoring: &Restoring,
) -> Result<Restored, RestoreError> {
    // Held to the end, also while it is removed.
    let lock = lock::lock(dir)?;
    let restored = restore_locked(backup, dir, &lock, restoring);
    if restored.is_err() && is_new && is_empty_but_for_lock(dir) {
        // What was made for nothing; an error would only hide the one that matters.
        files::remove(&dir.join(open::LOCK_FILE)).ok();
        fs::remove_dir(dir).ok();
    }
    drop(lock);
    restored
}

/// Somebody else may have made a store in the directory since it was found missing.
fn is_empty_but_for_lock(dir: &Path) -> bool {
    names(dir).is_ok_and(|names| names == [open::LOCK_FILE])
}

fn restore_locked(
    backup: &Backup,
    dir: &Path,
    lock: &File,
    restoring: &Restoring,
) -> Result<Restored, RestoreError> {
    complete(dir, lock)?;
    remove_left(dir)?;
    let place = dir.join(DATABASE_FILE);
    if !restoring.replace {
        for path in with_companions(&place) {
            if is_named(&path)? {
                return Err(RestoreError::Exists {
                    dir: dir.to_owned(),
                });
            }
        }
    }
    let draft = dir.join(DRAFT);
    let prepared = copy(backup, &draft)
        .and_then(|()| hand_over(dir, &draft))
        .and_then(|()| prepare(&backup.file, &draft, restoring.epoch_seed))
        .map_err(RestoreError::from)
        .and_then(|found| check_server(found, &place, restoring));
    let server_name = match prepared {
        Ok(server_name) => server_name,
        Err(error) => {
            remove_draft(dir)?;
            return Err(error);
        }
    };
    let bytes = fs::metadata(&draft).map(|metadata| metadata.len());
    let bytes = bytes.map_err(|source| io_error("look at", &draft, source))?;
    let ready = free(dir, &restoring.stamp)?;
    decide(dir, &draft, &ready)?;
    let aside = complete(dir, lock).map_err(|source| RestoreError::Decided { source })?;
    Ok(Restored {
        server_name,
        bytes,
        aside,
    })
}

/// Gives the copy the name that means "take me", and makes that durable, or takes it back.
fn decide(dir: &Path, draft: &Path, ready: &Path) -> Result<(), RestoreError> {
    rename(draft, ready)?;
    let Err(error) = sync_dir(dir) else {
        return Ok(());
    };
    // The disk may have either name now, until another sync succeeds.
    let undone = rename(ready, draft).and_then(|()| sync_dir(dir));
    if undone.is_err() {
        // Then at least what is told is so, as long as the power lasts.
        files::rename(draft, ready).ok();
        return Err(RestoreError::Decided { source: error });
    }
    remove_draft(dir)?;
    Err(error.into())
}

/// Says at once what is no backup, before anything is written.
fn check_beginning(from: &Path) -> Result<(), OpenError> {
    let mut bytes = Vec::new();
    let read = File::open(from).and_then(|file| file.take(100).read_to_end(&mut bytes));
    read.map_err(|source| io_error("read", from, source))?;
    let header = Header::of_bytes(&bytes).ok_or_else(|| OpenError::NotADatabase {
        file: from.to_owned(),
    })?;
    open::check_header(header, from, format::MIGRATIONS)?;
    open::check_whole(from)
}

/// Checks that no store works on the file; holds its lock, where it has one.
///
/// A store has its lock beside the name that it knows, which may be a link to the file.
fn check_unused(named: &Path, from: &Path, dir: &Path) -> Result<Vec<File>, RestoreError> {
    let file = || named.to_owned();
    if open::is_same(Some(from), Some(&dir.join(DATABASE_FILE))) {
        return Err(RestoreError::Own { file: file() });
    }
    let mut locks = Vec::new();
    for path in [named, from] {
        if path.file_name().is_none_or(|name| name != DATABASE_FILE) {
            continue;
        }
        let Ok(lock) = File::open(path.with_file_name(open::LOCK_FILE)) else {
            continue;
        };
        if let Err(TryLockError::WouldBlock) = lock.try_lock_shared() {
            return Err(RestoreError::InUse { file: file() });
        }
        locks.push(lock);
    }
    Ok(locks)
}

/// A backup with what belongs to it, open: so it can be read also where its name goes.
struct Backup {
    file: PathBuf,
    /// Each with what its name ends in, beside that of the database.
    parts: Vec<(&'static str, File)>,
}

impl Backup {
    fn open(from: &Path) -> Result<Self, OpenError> {
        let mut parts = Vec::new();
        for suffix in [""].into_iter().chain(COMPANIONS) {
            let path = format::beside(from, suffix);
            match File::open(&path) {
                Ok(file) => parts.push((suffix, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && !suffix.is_empty() => {}
                Err(source) => return Err(io_error("read", &path, source)),
            }
        }
        Ok(Self {
            file: from.to_owned(),
            parts,
        })
    }
}

/// Copies the file and what belongs to it; SQLite never opens it where it lies.
fn copy(backup: &Backup, draft: &Path) -> Result<(), OpenError> {
    let dir = draft.parent().unwrap_or(Path::new(""));
    remove_draft(dir)?;
    for (suffix, from) in &backup.parts {
        copy_file(from, &format::beside(draft, suffix))?;
    }
    Ok(())
}

fn copy_file(from: &File, to: &Path) -> Result<(), OpenError> {
    let target = files::create(to).map_err(|source| io_error("create", to, source))?;
    let copied = files::copy(from, &target, to);
    copied.map_err(|source| io_error("write", to, source))
}

/// Gives what root makes to whom the store belongs, who could not open it otherwise.
#[cfg(unix)]
fn hand_over(dir: &Path, draft: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let look = |path: &Path| fs::metadata(path).map_err(|source| io_error("look at", path, source));
    // The draft was made by this process.
    if look(draft)?.uid() != 0 {
        return Ok(());
    }
    let place = dir.join(DATABASE_FILE);
    let owner = if open::is_there(&place)? {
        look(&place)?
    } else {
        look(files::named(dir))?
    };
    for path in [draft.to_owned(), dir.join(open::LOCK_FILE)] {
        if look(&path)?.uid() == 0 {
            let given = chown(&path, Some(owner.uid()), Some(owner.gid()));
            given.map_err(|source| io_error("give to its owner", &path, source))?;
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn hand_over(_: &Path, _: &Path) -> Result<(), OpenError> {
    Ok(())
}

/// Looks through the copy, draws its epoch, and brings it to the disk as one file.
fn prepare(from: &Path, draft: &Path, epoch_seed: u64) -> Result<String, OpenError> {
    // All that is wrong with the copy is wrong with the backup.
    let failed = |error: rusqlite::Error| sqlite_error(from, &error);
    let source = Source::plain(draft.to_owned());
    let connection = source.connect(Role::Write).map_err(failed)?;
    let header = Header::read(&connection).map_err(failed)?;
    let corrupt = |reason| OpenError::Corrupt {
        file: from.to_owned(),
        reason,
    };
    open::check_header(header, from, format::MIGRATIONS)?;
    if header.is_new() {
        return Err(corrupt("there is no store in it".to_owned()));
    }
    let found: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(failed)?;
    if found != "ok" {
        return Err(corrupt(found.replace('\n', " ")));
    }
    let version = usize::try_from(header.version).unwrap_or(usize::MAX);
    open::check_schema(&connection, from, &format::MIGRATIONS[..version])?;
    let server_name = draw_epoch(&connection, epoch_seed).map_err(failed)?;
    let server_name =
        server_name.ok_or_else(|| corrupt("it does not say whose it is".to_owned()))?;
    // One file, which needs none beside it while it changes its name.
    format::leave_wal(&connection).map_err(failed)?;
    connection.close().map_err(|(_, error)| failed(error))?;
    // By SQLite.
    let written = files::note(Deed::Write(draft));
    let synced = written.and_then(|()| files::sync(&File::open(draft)?, draft));
    synced.map_err(|source| io_error("sync", draft, source))?;
    Ok(server_name)
}

/// Checks that the backup is that of the wanted server, and of the one whose store is there.
fn check_server(
    found: String,
    place: &Path,
    restoring: &Restoring,
) -> Result<String, RestoreError> {
    let wanted = restoring.server_name.as_ref().map(ToString::to_string);
    for wanted in [wanted, server_there(place)].into_iter().flatten() {
        if wanted != found {
            return Err(RestoreError::OtherServer { found, wanted });
        }
    }
    Ok(found)
}

/// Returns whose the store is that is there; a damaged one need not be able to say it.
///
/// Its log and its journal are left alone. The name is as old as the file.
fn server_there(place: &Path) -> Option<String> {
    let connection = format::connect_immutably(place).ok()?;
    let sql = "SELECT server_name FROM store WHERE id = 1";
    connection.query_row(sql, [], |row| row.get(0)).ok()
}

/// Returns the server's name, where the store says it.
fn draw_epoch(connection: &Connection, seed: u64) -> rusqlite::Result<Option<String>> {
    let sql = "UPDATE store SET epoch = ?1 WHERE id = 1 RETURNING server_name";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([seed.cast_signed()])?;
    let name = rows.next()?.map(|row| row.get(0)).transpose()?;
    // The change is made when the statement has ended.
    while rows.next()?.is_some() {}
    Ok(name)
}

/// One step on the way from the old store to the new one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Move {
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
    /// Makes the moves before it durable.
    Sync,
}

/// Removes what a kill left of drafts and of copies for a check, in a directory that is locked.
///
/// Where there is no store, Kitbag made nothing, and nothing is touched.
pub(crate) fn remove_left(dir: &Path) -> Result<(), OpenError> {
    if !open::has_store(dir)? {
        return Ok(());
    }
    for name in names(dir)?.iter().filter(|name| is_left(name)) {
        remove(&dir.join(name))?;
    }
    Ok(())
}

/// Returns the copy that is to be put in place, where a restoring has passed its second step.
pub(crate) fn pending(dir: &Path) -> Result<Option<PathBuf>, OpenError> {
    let names = names(dir)?;
    let ready = names.iter().find(|name| is_ready(name));
    Ok(ready.map(|name| dir.join(name)))
}

/// Carries a restoring to its end that has passed its second step, in a directory that is locked.
///
/// Returns where the database is that was there before, where one was.
pub(crate) fn complete(dir: &Path, lock: &File) -> Result<Option<PathBuf>, OpenError> {
    let Some(ready) = pending(dir)? else {
        return Ok(None);
    };
    // While the copy has a name that says the same: so there is no moment without either.
    if !lock::is_marked(dir, lock)? {
        lock::mark(dir, lock)?;
    }
    let ready = with_free_aside(dir, ready)?;
    let aside = aside(dir, &ready);
    for step in moves(dir, &ready)? {
        carry_out(dir, &step)?;
    }
    let aside = open::is_there(&aside)?.then_some(aside);
    tracing::info!(dir = %dir.display(), "put a restored store in place");
    Ok(aside)
}

/// Returns a name for a copy that is to be put in place, such that nothing has the names under which
/// it sets aside what is there: two restorings may come within a second.
fn free(dir: &Path, stamp: &str) -> Result<PathBuf, OpenError> {
    let mut ready = dir.join(format!("{READY}{stamp}"));
    for number in 2.. {
        let mut taken = with_companions(&aside(dir, &ready));
        taken.push(ready.clone());
        let mut is_free = true;
        for path in &taken {
            is_free &= !is_named(path)?;
        }
        if is_free {
            break;
        }
        ready = dir.join(format!("{READY}{stamp}-{number}"));
    }
    Ok(ready)
}

/// Gives the copy another name, where what is there cannot be set aside under that of this one.
fn with_free_aside(dir: &Path, ready: PathBuf) -> Result<PathBuf, OpenError> {
    let place = dir.join(DATABASE_FILE);
    let pairs = with_companions(&place)
        .into_iter()
        .zip(with_companions(&aside(dir, &ready)));
    for (from, to) in pairs {
        // Where only the second is there, it is the first, which was moved before a crash.
        if is_named(&from)? && is_named(&to)? {
            let other = free(dir, stamp(&ready))?;
            rename(&ready, &other)?;
            sync_dir(dir)?;
            return Ok(other);
        }
    }
    Ok(ready)
}

/// Returns what is left to be done.
fn moves(dir: &Path, ready: &Path) -> Result<Vec<Move>, OpenError> {
    let (place, aside) = (dir.join(DATABASE_FILE), aside(dir, ready));
    let mut moves = Vec::new();
    for (from, to) in with_companions(&place)
        .into_iter()
        .zip(with_companions(&aside))
    {
        if is_named(&from)? {
            moves.push(Move::Rename(from, to));
        }
    }
    moves.push(Move::Remove(format::beside(&place, INDEX)));
    moves.push(Move::Sync);
    moves.push(Move::Rename(ready.to_owned(), place));
    moves.push(Move::Sync);
    Ok(moves)
}

fn carry_out(dir: &Path, step: &Move) -> Result<(), OpenError> {
    match step {
        Move::Remove(path) => remove(path),
        Move::Rename(from, to) => rename(from, to),
        Move::Sync => sync_dir(dir),
    }
}

/// Returns the names of what lies in a directory.
fn names(dir: &Path) -> Result<Vec<String>, OpenError> {
    let failed = |source| io_error("list", dir, source);
    let mut names = Vec::new();
    for entry in fs::read_dir(files::named(dir)).map_err(failed)? {
        // A name that is not UTF-8 is none of ours.
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

/// Tells whether a file is a copy that is to be put in place.
fn is_ready(name: &str) -> bool {
    // What SQLite puts beside such a copy, where somebody looks into it, is none.
    name.strip_prefix(READY)
        .is_some_and(|stamp| !stamp.is_empty() && without_companion(name) == name)
}

/// Tells whether a file is a copy that was not finished, or one for a check: a kill left it, since
/// nobody else is in the directory. Only what has exactly such a name, for others lie there too.
fn is_left(name: &str) -> bool {
    let name = without_companion(name);
    let whole = name.rsplit_once(PARTIAL).and_then(|(whole, letters)| {
        let is_drawn =
            letters.len() == 6 && letters.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_drawn.then_some(whole)
    });
    let process = whole.unwrap_or(name).strip_prefix(COPY_NAME);
    let process = process.and_then(|rest| rest.strip_suffix(COPY_NAME_END));
    let is_for_check = process.is_some_and(|process| {
        !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit())
    });
    let is_of_repair = whole.is_some_and(|whole| whole.starts_with(BEFORE_REPAIR));
    name == DRAFT || is_for_check || is_of_repair
}

/// Takes from a name what SQLite puts behind that of a database.
fn without_companion(name: &str) -> &str {
    let mut suffixes = COMPANIONS.into_iter().chain([INDEX]);
    suffixes
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name)
}

fn aside(dir: &Path, ready: &Path) -> PathBuf {
    dir.join(format!("{ASIDE}{}", stamp(ready)))
}

/// Returns what tells this restoring from others.
fn stamp(ready: &Path) -> &str {
    let name = ready.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_prefix(READY))
        .unwrap_or_default()
}

/// Tells whether something has that name, also a link to nowhere.
pub(crate) fn is_named(path: &Path) -> Result<bool, OpenError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(io_error("look at", path, source)),
    }
}

/// Returns what belongs to a database, itself last.
fn with_companions(file: &Path) -> Vec<PathBuf> {
    let companions = COMPANIONS.iter().map(|suffix| format::beside(file, suffix));
    companions.chain([file.to_owned()]).collect()
}

fn remove_draft(dir: &Path) -> Result<(), OpenError> {
    let draft = dir.join(DRAFT);
    for path in with_companions(&draft) {
        remove(&path)?;
    }
    remove(&format::beside(&draft, INDEX))
}

fn remove(path: &Path) -> Result<(), OpenError> {
    files::remove(path).map_err(|source| io_error("remove", path, source))
}

fn rename(from: &Path, to: &Path) -> Result<(), OpenError> {
    files::rename(from, to).map_err(|source| io_error("rename", from, source))
}

fn io_error(action: &'static str, file: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        action,
        file: file.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
