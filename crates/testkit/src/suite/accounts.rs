use kitbag_domain::{
    Account, Guard, LoginError, NewAccount, Position, RefreshError, Refusal, RegisterError, Seen,
    Selector, Usage, UserId,
};

use crate::clock::TestClock;
use crate::suite::refusal;
use crate::{Actor, Opener, fresh_tokens, global, room_key, user_id};

fn new_account(localpart: &str, hash: &str) -> NewAccount {
    NewAccount {
        user: user_id(localpart),
        password_hash: hash.to_owned(),
        at: 42,
    }
}

pub async fn an_account_is_made_with_or_without_a_session(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = user_id("alice");
    assert_eq!(store.account(&alice).await.unwrap(), None);
    let made = store.register(new_account("alice", "$a"), None).await;
    made.unwrap();
    let account = Account {
        user: alice.clone(),
        password_hash: Some("$a".to_owned()),
        created_at: 42,
        deactivated_at: None,
        devices: 0,
        usage: Usage::default(),
    };
    assert_eq!(store.account(&alice).await.unwrap(), Some(account));
    assert_eq!(store.devices(&alice).await.unwrap(), []);
    let bob = Actor::register(&store, "bob").await;
    bob.put(&global("a"), "{}").await;
    let account = store.account(&bob.user).await.unwrap().unwrap();
    assert_eq!(account.devices, 1);
    let (entries, bytes) = (1, 3);
    assert_eq!(account.usage, Usage { entries, bytes });
}

pub async fn a_taken_id_is_refused_and_nothing_changes(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    alice.put(&global("a"), "{}").await;
    let (before, account) = (alice.changes(None).await, store.account(&alice.user).await);
    let login = Actor::login_of("LAPTOP");
    let access = login.tokens.access;
    let again = store.register(new_account("alice", "$other"), Some(login));
    assert_eq!(again.await, Err(RegisterError::UserInUse));
    assert_eq!(alice.changes(None).await, before);
    assert_eq!(store.account(&alice.user).await, account);
    assert_eq!(store.session(&alice.user, access).await.unwrap(), None);
}

pub async fn accounts_are_paged_by_id(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    for localpart in ["c", "a", "b", "A", "a.b"] {
        let made = store.register(new_account(localpart, "$"), None).await;
        made.unwrap();
    }
    let mut expected = ["c", "a", "b", "A", "a.b"].map(user_id);
    expected.sort();
    for limit in [1, 2, 5, 9] {
        let (mut found, mut after) = (Vec::<UserId>::new(), None);
        loop {
            let page = store.accounts(after.clone(), limit).await.unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some(last.user.clone());
            found.extend(page.into_iter().map(|account| account.user));
        }
        assert_eq!(found, expected, "pages of {limit}");
    }
    let behind = store.accounts(Some(user_id("a")), 1).await.unwrap();
    let next = expected.iter().find(|user| **user > user_id("a"));
    assert_eq!(Some(&behind[0].user), next);
}

pub async fn deactivation_erases_everything(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    let laptop = alice.login("LAPTOP").await;
    // The first one leaves a tombstone, the others live on.
    let [global, other] = [global("a"), global("b")];
    let keys = [global, other, room_key("!r", "a"), alice.own_key("a")];
    for key in &keys {
        alice.put(key, "{}").await;
    }
    let before = alice.delete(&keys[0]).await.unwrap();
    let added = store.add_filter(&alice.user, alice.guard(), "{}".to_owned());
    let filter = added.await.unwrap();
    let write = alice.write_at(TestClock::START_MS + 3);
    store.deactivate(&alice.user, write).await.unwrap();

    let account = store.account(&alice.user).await.unwrap().unwrap();
    assert_eq!(account.password_hash, None);
    assert_eq!(account.deactivated_at, Some(TestClock::START_MS + 3));
    assert_eq!(account.devices, 0);
    assert_eq!(store.devices(&alice.user).await.unwrap(), []);
    assert_eq!(store.list(&alice.user, Selector::All).await.unwrap(), []);
    assert_eq!(store.profile(&alice.user).await.unwrap(), None);
    assert_eq!(store.filter(&alice.user, filter).await.unwrap(), None);
    for actor in [&alice, &laptop] {
        assert_eq!(actor.session().await, None);
        let refresh = actor.tokens.refresh.unwrap();
        let refreshed = store.refresh(&actor.user, refresh, fresh_tokens(), Seen::default());
        assert_eq!(refreshed.await, Err(RefreshError::UnknownToken));
    }
    for after in [None, Some(Position::ZERO), Some(before)] {
        let changes = alice.changes(after).await;
        assert!(changes.is_full && changes.entries.is_empty(), "{after:?}");
        assert!(changes.head > before);
    }
}

pub async fn a_deactivated_account_takes_no_writes_and_no_logins(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    store.deactivate(&alice.user, alice.write()).await.unwrap();
    let before = alice.changes(None).await;
    let by_device = alice.try_put(&global("a"), "{}").await.unwrap_err();
    assert_eq!(refusal(by_device), Refusal::SessionGone);
    let mut write = alice.write();
    write.guard = Guard::Account;
    let ops = vec![kitbag_domain::Op::Delete(global("a"))];
    let by_account = store.apply(&alice.user, write.clone(), ops).await;
    assert_eq!(refusal(by_account.unwrap_err()), Refusal::SessionGone);
    let again = store.deactivate(&alice.user, write).await.unwrap_err();
    assert_eq!(refusal(again), Refusal::SessionGone);
    for verified_hash in ["$test$hash", ""] {
        let mut login = Actor::login_of("PHONE");
        login.verified_hash = verified_hash.to_owned();
        let started = store.login(&alice.user, login).await;
        assert_eq!(started, Err(LoginError::PasswordChanged));
    }
    assert_eq!(alice.changes(None).await, before);
}

pub async fn a_deactivated_id_stays_taken(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    store.deactivate(&alice.user, alice.write()).await.unwrap();
    let again = store.register(new_account("alice", "$a"), None).await;
    assert_eq!(again, Err(RegisterError::UserInUse));
    let listed = store.accounts(None, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].deactivated_at.is_some());
}

pub async fn an_unknown_user_is_refused_like_an_ended_session(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    let nobody = user_id("nobody");
    let mut write = alice.write();
    for guard in [Guard::Account, alice.guard()] {
        write.guard = guard;
        let ops = vec![kitbag_domain::Op::Delete(global("a"))];
        let applied = store.apply(&nobody, write.clone(), ops).await;
        assert_eq!(refusal(applied.unwrap_err()), Refusal::SessionGone);
        let ended = store.deactivate(&nobody, write.clone()).await;
        assert_eq!(refusal(ended.unwrap_err()), Refusal::SessionGone);
    }
    assert_eq!(store.account(&nobody).await.unwrap(), None);
    assert_eq!(store.profile(&nobody).await.unwrap(), None);
    assert_eq!(store.devices(&nobody).await.unwrap(), []);
}

pub async fn the_epoch_stays(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let epoch = store.info().epoch;
    Actor::register(&store, "alice").await;
    assert_eq!(store.info().epoch, epoch);
}
