//! A check finds each kind of damage, and a repair mends what follows from other rows, only that.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

mod finding;
mod harms;
mod looking;
mod mending;

use std::fs;
use std::path::{Path, PathBuf};

use kitbag_domain::{
    AccountStore as _, Allowance, Content, DeviceId, EntryStore as _, EventType, Expectation,
    Guard, Key, Limits, Login, NewAccount, Op, Scope, Seen, ServerName, SessionTokens, TokenHash,
    UserId, Write, Writer,
};
use kitbag_store_sqlite::check::{self, Mended, Mending, Report};
use kitbag_store_sqlite::{Options, SqliteStore};
use rusqlite::Connection;
use tempfile::{TempDir, tempdir};

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
