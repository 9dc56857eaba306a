//! Writes the fixture of the newest file format: a store with something in every table.
//!
//! `cargo run -p kitbag-store-sqlite --example format_fixture -- FILE`, once for each version of
//! the format and before its release; `tests/format.rs` opens the file ever after. A released
//! fixture is never written anew.
#![expect(
    clippy::unwrap_used,
    reason = "a failure ends the program, as it should"
)]

use std::fs;
use std::sync::Arc;

use kitbag_domain::{
    AccountStore as _, Allowance, Content, DeviceId, EntryStore as _, EventType, Expectation,
    Guard, Key, Limits, Login, NewAccount, Op, ProfileField, RoomId, Scope, Seen, ServerName,
    SessionTokens, TokenHash, UserId, Write, Writer,
};
use kitbag_store_sqlite::{Options, SqliteStore};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let target = std::env::args_os().nth(1).expect("the file to write");
    let dir = tempfile::tempdir().unwrap();
    let server_name = ServerName::parse("fixture.example").unwrap();
    // The largest epoch: SQLite keeps it as a negative number.
    let options = Options::new(server_name, u64::MAX);
    let store = SqliteStore::open(dir.path(), options).unwrap();
    fill(&store).await;
    store.close();
    fs::copy(dir.path().join("kitbag.db"), target).unwrap();
}

async fn fill(store: &SqliteStore) {
    let (alice, bob) = (user("@alice:fixture.example"), user("@bob:fixture.example"));
    store
        .register(account(&alice), Some(login("LAPTOP", 1)))
        .await
        .unwrap();
    store.login(&alice, login("PHONE", 3)).await.unwrap();
    let tokens = tokens(5);
    let refreshed = store.refresh(&alice, TokenHash([2; 32]), tokens, seen(5));
    refreshed.await.unwrap();
    let laptop = Scope::Device(DeviceId::parse("LAPTOP").unwrap());
    let room = Scope::Room(RoomId::parse("!room:fixture.example").unwrap());
    let phone = Writer::Device {
        id: DeviceId::parse("PHONE").unwrap(),
        user_agent: Some(Arc::from("Fixture/1")),
    };
    let writes = [
        (
            phone.clone(),
            put(Scope::Global, "m.direct", "{ \"@bob:x\" : [\"!a\"] }"),
        ),
        (Writer::Admin, put(room, "m.tag", "{\"tags\":{}}")),
        (phone, put(laptop, "com.example.seen", "{\"n\":1.0}")),
        (Writer::Server, put(Scope::Global, "gone", "{}")),
        (Writer::Server, Op::Delete(key(Scope::Global, "gone"))),
    ];
    for (at, (writer, op)) in (10..).zip(writes) {
        let write = write(writer, at);
        store.apply(&alice, write, vec![op]).await.unwrap();
    }
    let name = Some("Alice".to_owned());
    let field = ProfileField::Displayname;
    store
        .set_profile(&alice, Guard::Account, field, name)
        .await
        .unwrap();
    let filter = "{\"room\":{}}".to_owned();
    store
        .add_filter(&alice, Guard::Account, filter)
        .await
        .unwrap();
    store
        .register(account(&bob), Some(login("BOB", 7)))
        .await
        .unwrap();
    store
        .deactivate(&bob, write(Writer::Admin, 20))
        .await
        .unwrap();
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

fn account(user: &UserId) -> NewAccount {
    NewAccount {
        user: user.clone(),
        password_hash: "$fixture$".to_owned(),
        at: 1,
    }
}

fn login(device: &str, seed: u8) -> Login {
    Login {
        verified_hash: "$fixture$".to_owned(),
        device: DeviceId::parse(device).unwrap(),
        display_name: Some(format!("{device} of the fixture")),
        tokens: tokens(seed),
        seen: seen(seed),
    }
}

fn tokens(seed: u8) -> SessionTokens {
    SessionTokens {
        access: TokenHash([seed; 32]),
        access_expires_at: Some(u64::from(seed) + 1_000),
        refresh: Some(TokenHash([seed + 1; 32])),
    }
}

fn seen(seed: u8) -> Seen {
    Seen {
        at: u64::from(seed),
        ip: Some("192.0.2.1".to_owned()),
        user_agent: Some(Arc::from("Fixture/1")),
    }
}

fn key(scope: Scope, event_type: &str) -> Key {
    Key::new(scope, EventType::parse(event_type).unwrap())
}

fn put(scope: Scope, event_type: &str, text: &str) -> Op {
    let content = Content::parse(text.to_owned().into(), &Limits::default()).unwrap();
    Op::Put(key(scope, event_type), content, Expectation::default())
}

fn write(writer: Writer, at: u64) -> Write {
    Write {
        guard: Guard::Account,
        writer,
        at,
        allowance: Allowance::Ordinary,
    }
}
