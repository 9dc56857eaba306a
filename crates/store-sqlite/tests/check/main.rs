//! A check finds each kind of damage, and a repair mends what follows from other rows, only that.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

mod harms;
mod looking;
mod mending;

use std::fs;
use std::path::{Path, PathBuf};

use kitbag_domain::{
    AccountStore as _, Allowance, Content, DeviceId, DeviceSelection, EntryStore as _, EventType,
    Expectation, Guard, Key, Limits, Login, NewAccount, Op, Position, Scope, Seen, Selector,
    ServerName, SessionTokens, TokenHash, UserId, Write, Writer,
};
use kitbag_store_sqlite::check::{self, Kind, Mended, Mending, Report};
use kitbag_store_sqlite::{OpenError, Options, SqliteStore};
use rusqlite::Connection;
use tempfile::{TempDir, tempdir};

use harms::HARMS;

fn options() -> Options {
    Options::new(ServerName::parse("localhost").unwrap(), 7)
}

fn user(name: &str) -> UserId {
    UserId::parse(format!("@{name}:localhost")).unwrap()
}

fn write() -> Write {
    Write {
        guard: Guard::Account,
        writer: Writer::Admin,
        at: 1,
        allowance: Allowance::Ordinary,
    }
}

fn put(scope: Scope, event_type: &str, text: &str) -> Op {
    let key = Key::new(scope, EventType::parse(event_type).unwrap());
    let content = Content::parse(text.to_owned().into(), &Limits::default()).unwrap();
    Op::Put(key, content, Expectation::default())
}

/// A directory with two users, of whom Alice has a device, four entries and a tombstone.
struct Ground {
    dir: TempDir,
}

impl Ground {
    async fn new() -> Self {
        let dir = tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), options()).unwrap();
        for (number, name) in (1..).zip(["alice", "bob"]) {
            let account = NewAccount {
                user: user(name),
                password_hash: "hash".to_owned(),
                at: 1,
            };
            let tokens = SessionTokens {
                access: TokenHash([number; 32]),
                access_expires_at: None,
                refresh: Some(TokenHash([number + 10; 32])),
            };
            let login = Login {
                device: DeviceId::parse("PHONE").unwrap(),
                display_name: Some("A phone".to_owned()),
                tokens,
                seen: Seen {
                    at: 1,
                    ip: None,
                    user_agent: None,
                },
                verified_hash: "hash".to_owned(),
            };
            store.register(account, Some(login)).await.unwrap();
        }
        let phone = Scope::Device(DeviceId::parse("PHONE").unwrap());
        let ops = vec![
            put(Scope::Global, "a", "{\"secret\": 1}"),
            put(Scope::Global, "b", "{}"),
            put(phone.clone(), "c", "{ }"),
            put(phone, "d", "{\"d\":[]}"),
            put(Scope::Global, "gone", "{}"),
        ];
        store.apply(&user("alice"), write(), ops).await.unwrap();
        let gone = Key::new(Scope::Global, EventType::parse("gone").unwrap());
        let delete = vec![Op::Delete(gone)];
        store.apply(&user("alice"), write(), delete).await.unwrap();
        let filter = store.add_filter(&user("alice"), Guard::Account, "{}".to_owned());
        filter.await.unwrap();
        store.close();
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self) -> PathBuf {
        self.path().join("kitbag.db")
    }

    /// Does harm as no Kitbag would.
    fn harm(&self, sql: &str) {
        let connection = Connection::open(self.file()).unwrap();
        let harmful =
            format!("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON; {sql}");
        connection.execute_batch(&harmful).unwrap();
    }

    fn check(&self) -> Report {
        check::check(self.path()).unwrap()
    }

    fn mend(&self) -> Mended {
        let mending = Mending {
            stamp: "now".to_owned(),
            epoch_seed: 8,
        };
        check::mend(self.path(), &mending).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(self.path()).unwrap();
        let mut files: Vec<_> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        files
    }
}

fn shown(report: &Report) -> Vec<String> {
    let shown = report.findings.iter().map(|finding| {
        let user = finding.user.as_deref().unwrap_or("-");
        format!("{} {user} {}", finding.kind, finding.text)
    });
    shown.collect()
}

#[tokio::test]
async fn a_sound_store_is_told_as_it_is_and_nothing_is_written() {
    let ground = Ground::new().await;
    let before = (fs::read(ground.file()).unwrap(), ground.files());
    let report = ground.check();
    assert_eq!(shown(&report), [""; 0]);
    assert!(report.is_sound());
    // Contents of 13, 2, 3 and 8 bytes, four types of one, and the device's name twice.
    let expected = (Some("localhost".to_owned()), 2, 2, 4, 40);
    let Report {
        server_name,
        format,
        users,
        entries,
        bytes,
        ..
    } = report;
    assert_eq!((server_name, format, users, entries, bytes), expected);
    assert_eq!((fs::read(ground.file()).unwrap(), ground.files()), before);
    let mended = ground.mend();
    assert_eq!((mended.copy, mended.mends), (None, vec![]));
    assert_eq!(fs::read(ground.file()).unwrap(), before.0);
}

#[tokio::test]
async fn findings_that_are_left_out_decide_like_those_that_are_told() {
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100)
        INSERT INTO users (id, name, created_at) SELECT 10 + i, 'no user ' || i, 1 FROM n;";
    let ground = Ground::new().await;
    ground.harm(many);
    ground.harm(
        "INSERT INTO users (id, name, created_at, entries) VALUES (5000, '@zoe:localhost', 1, 9)",
    );
    let found = ground.check();
    assert!(found.findings_left_out > 0);
    assert!(
        found
            .findings
            .iter()
            .all(|found| found.kind == Kind::Unreadable)
    );
    assert!(found.is_mendable());
    let mended = ground.mend();
    let texts: Vec<_> = mended.mends.iter().map(|mend| mend.text.as_str()).collect();
    assert_eq!(texts, ["set the count to 0 entries of 0 bytes"]);
}

#[tokio::test]
async fn each_harm_is_found_and_what_can_be_derived_is_mended() {
    let sound = Ground::new().await;
    for harm in HARMS {
        let ground = Ground {
            dir: tempdir().unwrap(),
        };
        fs::copy(sound.file(), ground.file()).unwrap();
        ground.harm(harm.sql);
        let harmed = fs::read(ground.file()).unwrap();
        assert_eq!(shown(&ground.check()), harm.found, "{}", harm.sql);
        assert_eq!(fs::read(ground.file()).unwrap(), harmed, "{}", harm.sql);
        let mended = ground.mend();
        assert_eq!(shown(&mended.before), harm.found, "{}", harm.sql);
        assert_eq!(shown(&mended.after), harm.left, "{}", harm.sql);
        assert_eq!(shown(&ground.check()), harm.left, "{}", harm.sql);
        let is_mended = harm.found != harm.left;
        assert_eq!(mended.copy.is_some(), is_mended, "{}", harm.sql);
        assert_eq!(!mended.mends.is_empty(), is_mended, "{}", harm.sql);
        if let Some(copy) = mended.copy {
            assert_eq!(copy, ground.path().join("kitbag.db.before-repair-now"));
            let copied = check::check_copy(&copy).unwrap();
            assert_eq!(shown(&copied), harm.found, "the copy is of before");
        } else {
            let now = fs::read(ground.file()).unwrap();
            assert_eq!(now, harmed, "nothing was touched: {}", harm.sql);
        }
        let text = format!("{:?} {:?}", mended.before.findings, mended.mends);
        assert!(!text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn findings_are_bounded_and_all_are_mended() {
    let ground = Ground::new().await;
    ground.harm(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100)
         INSERT INTO users (name, created_at, entries) SELECT '@u' || i || ':localhost', 0, 1 FROM n",
    );
    let report = ground.check();
    assert_eq!(report.findings.len(), check::FINDINGS_MAX);
    assert_eq!(report.findings_left_out, 100);
    let mended = ground.mend();
    assert_eq!(mended.mends.len(), 1_100);
    assert!(mended.after.is_sound());
}

#[tokio::test]
async fn a_mended_store_goes_on() {
    let ground = Ground::new().await;
    ground.harm(
        "DELETE FROM devices WHERE user = 1;
         UPDATE users SET position = 2, entries = 0, bytes = 0 WHERE id = 1",
    );
    let mended = ground.mend();
    let texts: Vec<_> = mended.mends.iter().map(|mend| mend.text.as_str()).collect();
    let expected = [
        "removed 1 session whose user or device is gone",
        "raised the position from 2 to 7",
        "deleted 2 entries of a device that is gone",
        "set the count to 2 entries of 17 bytes",
        "let what follows device data start anew, once",
        "drew a new epoch: each client syncs in full, once",
    ];
    assert_eq!(texts, expected);
    let store = SqliteStore::open(ground.path(), options()).unwrap();
    assert_eq!(
        store.info().epoch,
        8,
        "tokens of before are answered in full"
    );
    let changes = store
        .changes(&user("alice"), Some(Position(7)))
        .await
        .unwrap();
    let deleted = changes
        .entries
        .iter()
        .filter(|entry| entry.content.is_none());
    assert_eq!((deleted.count(), changes.head), (2, Position(9)));
    let applied = store
        .apply(&user("alice"), write(), vec![put(Scope::Global, "e", "{}")])
        .await
        .unwrap();
    assert_eq!(applied.positions, [Some(Position(10))]);
    let devices = store.remove_devices(&user("bob"), write(), DeviceSelection::All);
    assert_eq!(devices.await.unwrap().len(), 1);
    let left = store.list(&user("alice"), Selector::All).await.unwrap();
    assert_eq!(left.len(), 3);
    store.close();
    assert!(ground.check().is_sound());
}

#[tokio::test]
async fn damaged_pages_are_found_and_left_alone() {
    let sound = Ground::new().await;
    let bytes = fs::read(sound.file()).unwrap();
    let pages = bytes.len() / 4096;
    assert!(pages > 10, "{pages}");
    // The first page is the header's, which says what the file is.
    for page in 1..pages {
        let ground = Ground {
            dir: tempdir().unwrap(),
        };
        let mut damaged = bytes.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(0);
        fs::write(ground.file(), &damaged).unwrap();
        let report = ground.check();
        assert!(report.is_damaged(), "page {page}: {report:?}");
        let mended = ground.mend();
        assert_eq!((mended.copy, mended.mends), (None, vec![]), "page {page}");
        assert_eq!(fs::read(ground.file()).unwrap(), damaged, "page {page}");
        assert_eq!(ground.files(), ["kitbag.db", "lock"]);
    }
}

#[tokio::test]
async fn a_file_cut_short_is_found_and_left_alone() {
    let sound = Ground::new().await;
    let bytes = fs::read(sound.file()).unwrap();
    for length in [
        0,
        4096,
        bytes.len() / 2,
        bytes.len() - 4096,
        bytes.len() - 1,
    ] {
        let ground = Ground {
            dir: tempdir().unwrap(),
        };
        fs::copy(sound.path().join("lock"), ground.path().join("lock")).unwrap();
        fs::write(ground.file(), &bytes[..length]).unwrap();
        let report = ground.check();
        assert!(report.is_damaged(), "{length} bytes: {report:?}");
        let said = match length {
            0 => "it is empty, but a store was made in this directory".to_owned(),
            _ => format!("it is cut short: {length} bytes of {}", bytes.len()),
        };
        assert_eq!(shown(&report), [format!("damage - {said}")]);
        assert_eq!(fs::read(ground.file()).unwrap(), &bytes[..length]);
    }
}

#[tokio::test]
async fn what_is_in_the_log_only_is_checked_and_stays_there() {
    let ground = Ground::new().await;
    let crashed = tempdir().unwrap();
    {
        let connection = Connection::open(ground.file()).unwrap();
        connection
            .execute_batch("UPDATE users SET entries = 9 WHERE id = 1")
            .unwrap();
        // As after a crash: with the log beside it.
        for name in ["kitbag.db", "kitbag.db-wal"] {
            fs::copy(ground.path().join(name), crashed.path().join(name)).unwrap();
        }
    }
    let ground = Ground { dir: crashed };
    let log = ground.path().join("kitbag.db-wal");
    let before = (fs::read(ground.file()).unwrap(), fs::read(&log).unwrap());
    assert!(!before.1.is_empty(), "there is a log");
    assert_eq!(ground.check().findings[0].kind, Kind::Usage);
    assert_eq!(
        (fs::read(ground.file()).unwrap(), fs::read(&log).unwrap()),
        before
    );
    assert!(ground.mend().after.is_sound());
}

#[tokio::test]
async fn a_store_in_use_or_of_others_is_not_checked() {
    let ground = Ground::new().await;
    let store = SqliteStore::open(ground.path(), options()).unwrap();
    let refused = check::check(ground.path()).unwrap_err();
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
    store.close();
    ground.harm("PRAGMA user_version = 3");
    let refused = check::check(ground.path()).unwrap_err();
    assert!(
        matches!(refused, OpenError::NewerFormat { .. }),
        "{refused}"
    );
    ground.harm("PRAGMA user_version = 2; PRAGMA application_id = 1");
    let refused = check::check(ground.path()).unwrap_err();
    assert!(
        matches!(refused, OpenError::NotADatabase { .. }),
        "{refused}"
    );
    fs::write(ground.file(), vec![b'x'; 9_000]).unwrap();
    let refused = check::check(ground.path()).unwrap_err();
    assert!(
        matches!(refused, OpenError::NotADatabase { .. }),
        "{refused}"
    );
    let empty = tempdir().unwrap();
    for dir in [empty.path(), &empty.path().join("nowhere")] {
        let refused = check::check(dir).unwrap_err();
        assert!(matches!(refused, OpenError::Missing { .. }), "{refused}");
    }
    assert!(!empty.path().join("nowhere").try_exists().unwrap());
    // But of one that was made it is known that something is gone.
    fs::remove_file(ground.file()).unwrap();
    let report = ground.check();
    let said = "damage - it is missing, but a store was made in this directory";
    assert_eq!(shown(&report), [said]);
    assert_eq!(ground.mend().mends, []);
}

#[tokio::test]
async fn a_store_whose_path_needs_escaping_is_checked() {
    let ground = Ground::new().await;
    let dir = ground.path().join("a %41?b#ü");
    fs::create_dir(&dir).unwrap();
    fs::copy(ground.file(), dir.join("kitbag.db")).unwrap();
    assert_eq!(check::check(&dir).unwrap().users, 2);
}
