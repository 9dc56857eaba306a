//! Files of every released format open for ever, and no other file is touched.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kitbag_domain::{
    AccountStore as _, Allowance, Content, DeviceChange, DeviceDataStore as _, DeviceId,
    DeviceSelection, EntryStore as _, EventType, FeedPosition, Guard, Key, Op, Position, Profile,
    Scope, Selector, ServerName, TokenHash, UserId, Write, Writer,
};
use kitbag_store_sqlite::{OpenError, Options, SqliteStore};
use tempfile::{TempDir, tempdir};

fn options() -> Options {
    Options::new(ServerName::parse("fixture.example").unwrap(), 1)
}

/// The versions of the format, each with a fixture of the same content.
const VERSIONS: [u32; 2] = [1, NEWEST];
const NEWEST: u32 = 2;

/// Returns a directory with a copy of a fixture, and the path of that copy.
fn copy(version: u32) -> (TempDir, PathBuf) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let fixture = fixtures.join(format!("format_v{version}.db"));
    let dir = tempdir().unwrap();
    let file = dir.path().join("kitbag.db");
    fs::copy(fixture, &file).unwrap();
    (dir, file)
}

fn alice() -> UserId {
    UserId::parse("@alice:fixture.example").unwrap()
}

fn write() -> Write {
    Write {
        guard: Guard::Account,
        writer: Writer::Server,
        at: 30,
        allowance: Allowance::Ordinary,
    }
}

#[tokio::test]
async fn entries_of_every_format_are_read() {
    for version in VERSIONS {
        let (dir, _) = copy(version);
        let store = SqliteStore::open(dir.path(), options()).unwrap();
        assert_eq!(store.info().epoch, u64::MAX);
        let changes = store.changes(&alice(), Some(Position::ZERO)).await.unwrap();
        let shown = changes.entries.iter().map(|entry| {
            let writer = match &entry.writer {
                Writer::Admin => "operator".to_owned(),
                Writer::Device { id, user_agent } => format!("{id} {user_agent:?}"),
                Writer::Server => "server".to_owned(),
            };
            let content = entry.content.as_ref().map(Content::as_str);
            let (key, position, at) = (&entry.key, entry.position, entry.written_at);
            format!("{position} {at} {writer} {key:?} {content:?}")
        });
        let expected = [
            r#"3 10 PHONE Some("Fixture/1") Global/m.direct Some("{ \"@bob:x\" : [\"!a\"] }")"#,
            r#"4 11 operator Room("!room:fixture.example")/m.tag Some("{\"tags\":{}}")"#,
            r#"5 12 PHONE Some("Fixture/1") Device("LAPTOP")/com.example.seen Some("{\"n\":1.0}")"#,
            r#"7 14 server Global/gone None"#,
        ];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
        assert_eq!(changes.head, Position(7));
    }
}

#[tokio::test]
async fn accounts_of_every_format_are_read() {
    for version in VERSIONS {
        let (dir, _) = copy(version);
        let store = SqliteStore::open(dir.path(), options()).unwrap();
        let accounts = store.accounts(None, 10).await.unwrap();
        let [alice_account, bob_account] = &accounts[..] else {
            panic!("two accounts, not {accounts:?}");
        };
        assert_eq!(alice_account.password_hash.as_deref(), Some("$fixture$"));
        assert_eq!(
            (alice_account.user.clone(), alice_account.devices),
            (alice(), 2)
        );
        assert_eq!(bob_account.password_hash, None);
        assert_eq!(
            (bob_account.deactivated_at, bob_account.devices),
            (Some(20), 0)
        );
        let profile = Profile {
            displayname: Some("Alice".to_owned()),
            avatar_url: None,
        };
        assert_eq!(store.profile(&alice()).await.unwrap(), Some(profile));
        let filter = store.filter(&alice(), 0).await.unwrap();
        assert_eq!(filter, Some(Arc::from("{\"room\":{}}")));
    }
}

#[tokio::test]
async fn sessions_of_every_format_are_read() {
    for version in VERSIONS {
        let (dir, _) = copy(version);
        let store = SqliteStore::open(dir.path(), options()).unwrap();
        let devices = store.devices(&alice()).await.unwrap();
        let names: Vec<_> = devices.iter().map(|device| device.id.as_str()).collect();
        assert_eq!(names, ["LAPTOP", "PHONE"]);
        assert_eq!(devices[0].seen.ip.as_deref(), Some("192.0.2.1"));
        let of = |seed| store.session(&alice(), TokenHash([seed; 32]));
        let (old, new) = (of(1).await.unwrap().unwrap(), of(5).await.unwrap().unwrap());
        assert_eq!(old.device, DeviceId::parse("LAPTOP").unwrap());
        assert_eq!(
            (old.device, old.incarnation),
            (new.device, devices[0].incarnation)
        );
        assert_eq!((old.replaces_others, new.replaces_others), (false, true));
        assert_eq!(new.expires_at, Some(1_005));
    }
}

#[tokio::test]
async fn a_store_of_every_format_takes_writes() {
    for version in VERSIONS {
        let (dir, _) = copy(version);
        let store = SqliteStore::open(dir.path(), options()).unwrap();
        let devices = DeviceSelection::All;
        let removed = store
            .remove_devices(&alice(), write(), devices)
            .await
            .unwrap();
        assert_eq!(removed.len(), 2);
        let left = store.list(&alice(), Selector::All).await.unwrap();
        assert!(
            left.iter()
                .all(|entry| !matches!(entry.key.scope, Scope::Device(_)))
        );
        assert_eq!(left.len(), 2);
    }
}

/// Returns what the feed tells, whose it is and what, and where it stands.
async fn feed(store: &SqliteStore, after: Option<FeedPosition>) -> (Vec<String>, FeedPosition) {
    let changes = store.device_changes(after, 10).await.unwrap();
    assert_eq!(changes.starts_anew, after.is_none());
    let told = changes.changes.iter().map(|change| match change {
        DeviceChange::AccountEnded(user) => format!("{user} ended"),
        DeviceChange::Entry(user, entry) => format!("{user} {:?}", entry.key),
    });
    (told.collect(), changes.next)
}

#[tokio::test]
async fn device_data_of_every_format_are_in_the_feed() {
    const SEEN: &str = r#"@alice:fixture.example Device("LAPTOP")/com.example.seen"#;
    // Nobody followed the feed when the account ended that stands in the fixture of format 1.
    let of_format = [
        (1, vec![SEEN], 3),
        (2, vec![SEEN, "@bob:fixture.example ended"], 2),
    ];
    for (version, expected, head) in of_format {
        let (dir, _) = copy(version);
        let store = SqliteStore::open(dir.path(), options()).unwrap();
        let (told, at) = feed(&store, None).await;
        assert_eq!(
            (told, at.number, at.floor),
            (
                expected.iter().map(|told| (*told).to_owned()).collect(),
                head,
                head
            )
        );
        let event_type = EventType::parse("com.example.seen").unwrap();
        let page = store.device_entries(&event_type, None, 10).await.unwrap();
        let name = page[0].display_name.as_deref();
        assert_eq!((page.len(), name), (1, Some("LAPTOP of the fixture")));
        let laptop = Scope::Device(DeviceId::parse("LAPTOP").unwrap());
        let delete = vec![Op::Delete(Key::new(laptop, event_type))];
        store.apply(&alice(), write(), delete).await.unwrap();
        assert_eq!(feed(&store, Some(at)).await.0, [SEEN]);
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let (dir, file) = copy(NEWEST);
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .pragma_update(None, "user_version", NEWEST + 1)
        .unwrap();
    drop(connection);
    let before = fs::read(&file).unwrap();
    let refused = SqliteStore::open(dir.path(), options()).err().unwrap();
    let expected = (NEWEST + 1, NEWEST);
    assert!(
        matches!(refused, OpenError::NewerFormat { found, supported, .. }
            if (found, supported) == expected),
        "{refused}"
    );
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn the_database_of_another_program_is_refused_and_left_alone() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("kitbag.db");
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .execute_batch("CREATE TABLE recipes (cake TEXT)")
        .unwrap();
    drop(connection);
    let before = fs::read(&file).unwrap();
    let refused = SqliteStore::open(dir.path(), options()).err().unwrap();
    assert!(
        matches!(refused, OpenError::NotADatabase { .. }),
        "{refused}"
    );
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn a_damaged_file_is_named_and_left_alone() {
    let (dir, file) = copy(NEWEST);
    let mut bytes = fs::read(&file).unwrap();
    // Behind the header of 100 bytes stands the table of tables.
    bytes[100..200].fill(0xff);
    fs::write(&file, &bytes).unwrap();
    let refused = SqliteStore::open(dir.path(), options()).err().unwrap();
    assert!(
        matches!(&refused, OpenError::Corrupt { file: named, .. } if *named == file),
        "{refused}"
    );
    assert_eq!(fs::read(&file).unwrap(), bytes);
}
