use tempfile::tempdir;

use super::*;
use crate::files::record::{self, Recorded, assert_durable};

fn options() -> Options {
    Options::new(ServerName::parse("localhost").unwrap(), 1)
}

const NEWEST: u32 = 2;

fn and_then(steps: &[Migration]) -> Vec<Migration> {
    [MIGRATIONS, steps].concat()
}

fn next_step(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("ALTER TABLE users ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'")
}

fn failing_step(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("DROP TABLE filters; UPDATE no_such_table SET a = 1")
}

fn version(connection: &Connection) -> u32 {
    Header::read(connection).unwrap().version
}

fn add_user(connection: &Connection) {
    let insert = "INSERT INTO users (name, created_at) VALUES ('@a:localhost', 0)";
    connection.execute(insert, []).unwrap();
}

#[test]
fn an_older_format_is_led_through_the_missing_steps() {
    let dir = tempdir().unwrap();
    let opened = open(dir.path(), &options()).unwrap();
    add_user(&opened.connection);
    assert_eq!(version(&opened.connection), NEWEST);
    drop(opened);
    let steps = and_then(&[next_step]);
    for _ in 0..2 {
        let opened = open_with(dir.path(), &options(), &steps).unwrap();
        assert_eq!(version(&opened.connection), NEWEST + 1);
        let sql = "SELECT colour FROM users";
        let colour: String = opened
            .connection
            .query_row(sql, [], |row| row.get(0))
            .unwrap();
        assert_eq!((colour.as_str(), opened.epoch), ("red", 1));
    }
    let refused = open(dir.path(), &options()).err().unwrap();
    assert!(
        matches!(refused, OpenError::NewerFormat { found, .. } if found == NEWEST + 1),
        "{refused}"
    );
}

#[test]
fn a_step_that_fails_changes_nothing() {
    let dir = tempdir().unwrap();
    drop(open(dir.path(), &options()).unwrap());
    let steps = and_then(&[next_step, failing_step]);
    let failed = open_with(dir.path(), &options(), &steps).err().unwrap();
    assert!(matches!(failed, OpenError::Sqlite { .. }), "{failed}");
    let opened = open(dir.path(), &options()).unwrap();
    assert_eq!(version(&opened.connection), NEWEST);
    let filters = "SELECT count(*) FROM filters";
    let count: i64 = opened
        .connection
        .query_row(filters, [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 0);
}

#[test]
fn a_making_that_was_cut_short_is_begun_again() {
    let dir = tempdir().unwrap();
    lock::private_file(&dir.path().join(DATABASE_FILE)).unwrap();
    assert!(open(dir.path(), &options()).is_ok(), "an empty file");
    let dir = tempdir().unwrap();
    let connection = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    use_wal(&connection, Header::read(&connection).unwrap()).unwrap();
    drop(connection);
    assert!(
        open(dir.path(), &options()).is_ok(),
        "in WAL mode, without a table"
    );
}

#[test]
fn what_is_made_is_on_the_disk_before_the_store_is_open() {
    let above = tempdir().unwrap();
    let dir = above.path().join("a/b");
    record::take();
    drop(open(&dir, &options()).unwrap());
    let deeds = record::take();
    assert_durable(&deeds);
    for made in [above.path().join("a"), dir.clone(), dir.join(LOCK_FILE)] {
        assert!(deeds.contains(&Recorded::Create(made)), "{deeds:?}");
    }
    // The mark says that the database is there.
    let named = deeds
        .iter()
        .rposition(|deed| *deed == Recorded::SyncDir(dir.clone()));
    let marked = Recorded::Write(dir.join(LOCK_FILE));
    let marked = deeds.iter().position(|deed| *deed == marked);
    assert!(named.is_some() && named < marked, "{deeds:?}");
}

#[cfg(unix)]
#[test]
fn what_is_made_behind_a_link_is_on_the_disk_too() {
    let above = tempdir().unwrap();
    let (disk, dir) = (above.path().join("disk"), above.path().join("data"));
    fs::create_dir(&disk).unwrap();
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink("../disk/data.db", dir.join(DATABASE_FILE)).unwrap();
    record::take();
    drop(open(&dir, &options()).unwrap());
    let deeds = record::take();
    assert_durable(&deeds);
    let disk = fs::canonicalize(disk).unwrap();
    assert!(deeds.contains(&Recorded::SyncDir(disk)), "{deeds:?}");
}

#[test]
fn a_log_that_is_found_is_on_the_disk_before_the_store_is_open() {
    let dir = tempdir().unwrap();
    let opened = open(dir.path(), &options()).unwrap();
    add_user(&opened.connection);
    drop(opened);
    record::take();
    drop(open(dir.path(), &options()).unwrap());
    let deeds = record::take();
    assert_durable(&deeds);
    let log = dir.path().join("kitbag.db-wal");
    assert!(deeds.contains(&Recorded::Write(log)), "{deeds:?}");
}

/// As where it is looked for in another place than SQLite has it.
#[test]
fn a_log_that_sqlite_reads_but_nobody_finds_is_not_passed_over() {
    let dir = tempdir().unwrap();
    let opened = open(dir.path(), &options()).unwrap();
    add_user(&opened.connection);
    drop(opened);
    let mut options = options();
    let nowhere = |_: &Path| -> io::Result<File> { Err(io::ErrorKind::NotFound.into()) };
    options.opener = Some(crate::options::FileOpener::new(nowhere));
    let refused = open(dir.path(), &options).err().unwrap();
    assert!(
        refused.to_string().starts_with("cannot write again"),
        "{refused}"
    );
}

#[cfg(unix)]
#[test]
fn a_lock_whose_file_was_removed_is_none() {
    let dir = tempdir().unwrap();
    let path = dir.path().join(LOCK_FILE);
    let first = lock::lock_file(dir.path(), &path).unwrap();
    assert!(lock::is_named(&first, &path).unwrap());
    fs::remove_file(&path).unwrap();
    assert!(!lock::is_named(&first, &path).unwrap());
    let other = lock::lock(dir.path()).unwrap();
    assert!(!lock::is_named(&first, &path).unwrap());
    assert!(lock::is_named(&other, &path).unwrap());
}

#[test]
fn a_store_that_does_not_say_whose_it_is_is_damaged() {
    let dir = tempdir().unwrap();
    let opened = open(dir.path(), &options()).unwrap();
    opened.connection.execute("DELETE FROM store", []).unwrap();
    drop(opened);
    let refused = open(dir.path(), &options()).err().unwrap();
    assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused}");
}

#[test]
fn connections_are_set_up_as_the_laws_need() {
    let dir = tempdir().unwrap();
    let opened = open(dir.path(), &options()).unwrap();
    let full = 2;
    for (name, wanted) in [
        ("synchronous", full),
        ("secure_delete", 1),
        ("foreign_keys", 1),
        ("wal_autocheckpoint", 0),
        ("mmap_size", 0),
        ("page_size", limit::PAGE_BYTES.cast_signed()),
    ] {
        let sql = format!("PRAGMA {name}");
        let found: i64 = opened
            .connection
            .query_row(&sql, [], |row| row.get(0))
            .unwrap();
        assert_eq!(found, wanted, "{name}");
    }
    let reader = opened.source.connect(Role::Read).unwrap();
    let refused = reader.execute("DELETE FROM store", []).unwrap_err();
    let code = refused.sqlite_error_code();
    assert_eq!(code, Some(rusqlite::ErrorCode::ReadOnly));
}

#[cfg(unix)]
#[test]
fn what_is_made_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let above = tempdir().unwrap();
    let dir = above.path().join("a/b");
    let opened = open(&dir, &options()).unwrap();
    add_user(&opened.connection);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&above.path().join("a")), mode(&dir)), (0o700, 0o700));
    for file in ["lock", "kitbag.db", "kitbag.db-wal", "kitbag.db-shm"] {
        assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
    }
}
