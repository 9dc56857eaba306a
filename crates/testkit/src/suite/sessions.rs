use kitbag_domain::{Login, LoginError, RefreshError, Seen, SessionTokens, TokenHash};

use crate::{Actor, Opener, fresh_hash, fresh_tokens, global, user_id};

fn seen(at: u64) -> Seen {
    Seen {
        at,
        ip: Some(format!("10.0.0.{at}")),
        user_agent: Some("agent".into()),
    }
}

async fn refresh(actor: &Actor, old: &SessionTokens) -> Result<SessionTokens, RefreshError> {
    let tokens = fresh_tokens();
    let refresh = old.refresh.unwrap();
    let refreshed = actor
        .store
        .refresh(&actor.user, refresh, tokens.clone(), seen(1));
    refreshed.await.map(|()| tokens)
}

async fn is_valid(actor: &Actor, tokens: &SessionTokens) -> bool {
    let session = actor.store.session(&actor.user, tokens.access).await;
    session.unwrap().is_some()
}

async fn touch(actor: &Actor, tokens: &SessionTokens, at: u64) {
    let touched = actor.store.touch(&actor.user, tokens.access, seen(at));
    touched.await.unwrap();
}

pub async fn a_session_is_found_by_its_token_and_user(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    let bob = Actor::register(&store, "bob").await;
    let session = alice.session().await.unwrap();
    assert_eq!(session.device, alice.device);
    assert!(!session.replaces_others);
    for (user, token) in [
        (&bob.user, alice.tokens.access),
        (&alice.user, bob.tokens.access),
        (&alice.user, fresh_hash()),
        (&alice.user, alice.tokens.refresh.unwrap()),
        (&user_id("nobody"), alice.tokens.access),
    ] {
        assert_eq!(store.session(user, token).await.unwrap(), None);
    }
}

pub async fn a_session_comes_with_an_entry_of_its_user(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    let bob = Actor::register(&store, "bob").await;
    let [kept, deleted, other] = ["kept", "deleted", "other"].map(global);
    for (actor, key) in [(&alice, &kept), (&alice, &deleted), (&bob, &other)] {
        let text = format!(r#"{{"of":"{}"}}"#, actor.user);
        actor.put(key, &text).await;
    }
    alice.delete(&deleted).await;
    let device = alice.own_key("kept");
    alice.put(&device, r#"{"of":"device"}"#).await;
    let tokens = [alice.tokens.access, bob.tokens.access, fresh_hash()];
    let users = [&alice.user, &bob.user, &user_id("nobody")];
    for (user, token) in users
        .into_iter()
        .flat_map(|user| tokens.map(|token| (user, token)))
    {
        for key in [&kept, &deleted, &other, &device] {
            let session = store.session(user, token).await.unwrap();
            let entry = store.get(user, key).await.unwrap();
            let both = store.get_in_session(user, token, key).await.unwrap();
            assert_eq!(
                both,
                session.map(|session| (session, entry)),
                "{user} {key:?}"
            );
        }
    }
    alice.log_out().await;
    let both = store.get_in_session(&alice.user, alice.tokens.access, &kept);
    assert_eq!(both.await.unwrap(), None);
}

pub async fn expired_sessions_are_returned_with_their_end(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let mut login = Actor::login_of("LAPTOP");
    login.tokens.access_expires_at = Some(1);
    login.seen = seen(3);
    let access = login.tokens.access;
    alice.store.login(&alice.user, login).await.unwrap();
    let session = alice.store.session(&alice.user, access).await;
    let session = session.unwrap().unwrap();
    assert_eq!(session.expires_at, Some(1));
    assert_eq!(session.last_seen_at, 3);
}

pub async fn a_login_ends_the_devices_old_tokens(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let first = alice.login("LAPTOP").await;
    let refreshed = refresh(&first, &first.tokens).await.unwrap();
    let second = alice.login("LAPTOP").await;
    assert!(!is_valid(&alice, &first.tokens).await);
    assert!(!is_valid(&alice, &refreshed).await);
    for old in [&first.tokens, &refreshed] {
        let error = refresh(&alice, old).await.unwrap_err();
        assert_eq!(error, RefreshError::UnknownToken);
    }
    assert!(!second.session().await.unwrap().replaces_others);
    assert!(alice.session().await.is_some(), "other devices stay");
}

pub async fn a_stale_password_starts_no_session(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let head = alice.head().await;
    let stale = Login {
        verified_hash: "$older".to_owned(),
        ..Actor::login_of("LAPTOP")
    };
    let access = stale.tokens.access;
    let error = alice.store.login(&alice.user, stale).await.unwrap_err();
    assert_eq!(error, LoginError::PasswordChanged);
    let session = alice.store.session(&alice.user, access).await.unwrap();
    assert_eq!(session, None);
    assert_eq!(alice.head().await, head);
    let nobody = alice.store.login(&user_id("nobody"), Actor::login_of("A"));
    assert_eq!(nobody.await, Err(LoginError::PasswordChanged));
}

pub async fn refreshed_tokens_replace_the_old_ones_when_used(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    alice.put(&alice.own_key("a"), "{}").await;
    let old = alice.tokens.clone();
    let new = refresh(&alice, &old).await.unwrap();
    assert!(is_valid(&alice, &old).await, "until the new one is used");
    let session = alice.store.session(&alice.user, new.access).await.unwrap();
    let session = session.unwrap();
    assert!(session.replaces_others);
    assert_eq!(session.incarnation, alice.incarnation);
    touch(&alice, &new, 5).await;
    assert!(!is_valid(&alice, &old).await);
    assert_eq!(refresh(&alice, &old).await, Err(RefreshError::UnknownToken));
    let session = alice.store.session(&alice.user, new.access).await.unwrap();
    assert!(!session.unwrap().replaces_others);
    assert!(alice.entry(&alice.own_key("a")).await.is_some());
}

pub async fn a_missed_refresh_can_be_asked_for_again(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let missed = refresh(&alice, &alice.tokens).await.unwrap();
    let again = refresh(&alice, &alice.tokens).await.unwrap();
    assert!(!is_valid(&alice, &missed).await, "nobody had used them");
    let error = refresh(&alice, &missed).await.unwrap_err();
    assert_eq!(error, RefreshError::UnknownToken);
    assert!(is_valid(&alice, &again).await);
    assert!(is_valid(&alice, &alice.tokens).await);
}

pub async fn refreshing_with_the_new_token_is_a_use_of_it(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let second = refresh(&alice, &alice.tokens).await.unwrap();
    let third = refresh(&alice, &second).await.unwrap();
    assert!(!is_valid(&alice, &alice.tokens).await);
    assert!(is_valid(&alice, &second).await);
    assert!(is_valid(&alice, &third).await);
    let error = refresh(&alice, &alice.tokens).await.unwrap_err();
    assert_eq!(error, RefreshError::UnknownToken);
}

pub async fn touching_the_old_token_ends_nothing(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let laptop = alice.login("LAPTOP").await;
    let new = refresh(&alice, &alice.tokens).await.unwrap();
    touch(&alice, &alice.tokens, 5).await;
    assert!(is_valid(&alice, &alice.tokens).await);
    assert!(is_valid(&alice, &new).await);
    touch(&alice, &new, 6).await;
    assert!(is_valid(&alice, &laptop.tokens).await, "another device's");
}

pub async fn touching_remembers_when_and_where_from(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let head = alice.head().await;
    touch(&alice, &alice.tokens, 7).await;
    let device = alice.store.device(&alice.user, &alice.device).await;
    assert_eq!(device.unwrap().unwrap().seen, seen(7));
    assert_eq!(alice.session().await.unwrap().last_seen_at, 7);
    assert_eq!(alice.head().await, head, "no position");
}

pub async fn touching_an_ended_session_does_nothing(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let laptop = alice.login("LAPTOP").await;
    laptop.log_out().await;
    touch(&laptop, &laptop.tokens, 5).await;
    assert_eq!(laptop.session().await, None);
    let nobody = alice.store.touch(&user_id("nobody"), fresh_hash(), seen(5));
    nobody.await.unwrap();
}

pub async fn refreshing_needs_a_refresh_token_of_that_user(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let bob = Actor::register(&fixture.store(), "bob").await;
    let tries: [(&Actor, TokenHash); 3] = [
        (&alice, fresh_hash()),
        (&alice, alice.tokens.access),
        (&bob, alice.tokens.refresh.unwrap()),
    ];
    for (actor, token) in tries {
        let refreshed = actor
            .store
            .refresh(&actor.user, token, fresh_tokens(), seen(1));
        assert_eq!(refreshed.await, Err(RefreshError::UnknownToken));
    }
}

pub async fn refreshed_tokens_bear_their_own_end(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let tokens = SessionTokens {
        access_expires_at: Some(99),
        refresh: None,
        ..fresh_tokens()
    };
    let refresh = alice.tokens.refresh.unwrap();
    let refreshed = alice
        .store
        .refresh(&alice.user, refresh, tokens.clone(), seen(4));
    refreshed.await.unwrap();
    let session = alice.store.session(&alice.user, tokens.access).await;
    let session = session.unwrap().unwrap();
    assert_eq!(session.expires_at, Some(99));
    assert_eq!(alice.session().await.unwrap().expires_at, None);
}
