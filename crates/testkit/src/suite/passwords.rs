use kitbag_domain::{DeviceSelection, Login, LoginError};

use crate::{Actor, Opener, global};

async fn change(actor: &Actor, hash: &str, logout: Option<DeviceSelection>) {
    let write = actor.write();
    let changed = actor
        .store
        .set_password(&actor.user, write, hash.to_owned(), logout);
    changed.await.unwrap();
}

async fn hash_of(actor: &Actor) -> Option<String> {
    let account = actor.store.account(&actor.user).await.unwrap();
    account.unwrap().password_hash
}

pub async fn a_new_password_ends_the_old_one(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    change(&alice, "$new", None).await;
    assert_eq!(hash_of(&alice).await.as_deref(), Some("$new"));
    let stale = alice.try_login("LAPTOP").await.err();
    assert_eq!(stale, Some(LoginError::PasswordChanged));
    let login = Login {
        verified_hash: "$new".to_owned(),
        ..Actor::login_of("LAPTOP")
    };
    alice.store.login(&alice.user, login).await.unwrap();
}

pub async fn without_logout_the_other_devices_stay(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let laptop = alice.login("LAPTOP").await;
    laptop.put(&laptop.own_key("a"), "{}").await;
    change(&alice, "$new", None).await;
    assert!(laptop.session().await.is_some());
    assert!(laptop.entry(&laptop.own_key("a")).await.is_some());
}

pub async fn with_logout_the_other_devices_go_with_their_entries(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let laptop = alice.login("LAPTOP").await;
    laptop.put(&laptop.own_key("a"), "{}").await;
    alice.put(&alice.own_key("a"), "{}").await;
    alice
        .put(&global("m.local_notification_settings.LAPTOP"), "{}")
        .await;
    let before = alice.head().await;
    let others = DeviceSelection::AllExcept(alice.device.clone());
    change(&alice, "$new", Some(others)).await;
    assert_eq!(laptop.session().await, None);
    assert!(laptop.try_put(&global("a"), "{}").await.is_err());
    let changes = alice.changes(Some(before)).await;
    assert_eq!(changes.entries.len(), 2);
    assert!(changes.entries.iter().all(|entry| entry.content.is_none()));
    assert!(alice.session().await.is_some());
    assert!(alice.entry(&alice.own_key("a")).await.is_some());
}

pub async fn a_refused_change_changes_nothing(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let laptop = alice.login("LAPTOP").await;
    let hash = hash_of(&alice).await;
    laptop.log_out().await;
    let all = Some(DeviceSelection::All);
    let write = laptop.write();
    let changed = alice
        .store
        .set_password(&alice.user, write, "$new".to_owned(), all);
    assert!(changed.await.is_err());
    assert_eq!(hash_of(&alice).await, hash);
    assert!(alice.session().await.is_some());
}
