use kitbag_domain::{Profile, ProfileField};

use crate::{Actor, Opener, user_id};

async fn set(actor: &Actor, field: ProfileField, value: Option<&str>) {
    let value = value.map(str::to_owned);
    let set = actor
        .store
        .set_profile(&actor.user, actor.guard(), field, value);
    set.await.unwrap();
}

pub async fn fields_are_set_and_removed_each_for_itself(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    let empty = Some(Profile::default());
    assert_eq!(store.profile(&alice.user).await.unwrap(), empty);
    let head = alice.head().await;
    set(&alice, ProfileField::Displayname, Some("Alice é")).await;
    set(&alice, ProfileField::AvatarUrl, Some("mxc://x/y")).await;
    let mut profile = Profile {
        displayname: Some("Alice é".to_owned()),
        avatar_url: Some("mxc://x/y".to_owned()),
    };
    let stored = store.profile(&alice.user).await.unwrap();
    assert_eq!(stored, Some(profile.clone()));
    set(&alice, ProfileField::Displayname, None).await;
    profile.displayname = None;
    assert_eq!(store.profile(&alice.user).await.unwrap(), Some(profile));
    assert_eq!(alice.head().await, head, "profiles are no account data");
}

pub async fn profiles_belong_to_their_users(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    let bob = Actor::register(&store, "bob").await;
    set(&alice, ProfileField::Displayname, Some("Alice")).await;
    let empty = Some(Profile::default());
    assert_eq!(store.profile(&bob.user).await.unwrap(), empty);
    assert_eq!(store.profile(&user_id("nobody")).await.unwrap(), None);
}
