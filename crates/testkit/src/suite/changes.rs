use kitbag_domain::{
    Content, DeviceSelection, Expectation, Op, Position, ScopeRef, Selector, UserId, Writer,
};

use crate::{Actor, Opener, content, device_id, global, room_key};

pub async fn each_changed_entry_comes_once_at_its_latest_content(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let before = alice.put(&global("unchanged"), "{}").await;
    alice.put(&global("a"), "{\"n\":1}").await;
    alice.put(&room_key("!r", "b"), "{\"n\":2}").await;
    alice.put(&alice.own_key("c"), "{\"n\":3}").await;
    alice.put(&global("a"), "{\"n\":4}").await;
    let head = alice.delete(&room_key("!r", "b")).await.unwrap();
    let changes = alice.changes(Some(before)).await;
    assert_eq!((changes.head, changes.is_full), (head, false));
    let told: Vec<_> = changes
        .entries
        .iter()
        .map(|entry| {
            (
                entry.key.clone(),
                entry.content.as_ref().map(Content::as_str),
            )
        })
        .collect();
    let expected = [
        (alice.own_key("c"), Some("{\"n\":3}")),
        (global("a"), Some("{\"n\":4}")),
        (room_key("!r", "b"), None),
    ];
    assert_eq!(told, expected, "in the order of positions");
    assert!(changes.entries.is_sorted_by(|a, b| a.position < b.position));
}

pub async fn entries_are_those_that_get_returns(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    alice.put(&global("a"), "{ }").await;
    alice.put(&alice.own_key("b"), "{\"é\":[1.0]}").await;
    for entry in alice.changes(None).await.entries {
        assert_eq!(alice.entry(&entry.key).await, Some(entry));
    }
}

pub async fn entries_that_are_read_together_bear_each_its_own_writer(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let by = |id: &str, user_agent: Option<&str>| Writer::Device {
        id: device_id(id),
        user_agent: user_agent.map(Into::into),
    };
    let writers = [
        by("A", None),
        by("A", None),
        by("B", None),
        by("B", Some("app/1")),
        by("B", Some("app/1")),
        by("B", Some("app/2")),
        by("B", Some("")),
        by("B", None),
        Writer::Server,
        Writer::Admin,
        by("B", None),
        Writer::Server,
    ];
    for (number, writer) in writers.iter().enumerate() {
        let mut write = alice.write();
        write.writer = writer.clone();
        let key = global(&format!("{number:02}"));
        let put = Op::Put(key, content("{}"), Expectation::default());
        let applied = alice.store.apply(&alice.user, write, vec![put]).await;
        applied.unwrap();
    }
    let told = alice.changes(None).await.entries;
    let listed = alice.store.list(&alice.user, Selector::All).await.unwrap();
    for entries in [told, listed] {
        let read: Vec<Writer> = entries.into_iter().map(|entry| entry.writer).collect();
        assert_eq!(read, writers);
    }
}

pub async fn an_initial_answer_is_the_fold(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let first = alice.changes(None).await;
    assert!(first.is_full && first.entries.is_empty());
    alice.put(&global("kept"), "{}").await;
    alice.put(&global("gone"), "{}").await;
    alice.delete(&global("gone")).await;
    let changes = alice.changes(None).await;
    assert!(changes.is_full);
    assert_eq!(changes.entries.len(), 1, "no tombstones");
    assert_eq!(changes.entries[0].key, global("kept"));
    assert_eq!(alice.changes(Some(changes.head)).await.entries, []);
}

pub async fn everything_live_is_told_packed(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let nothing = alice.store.live(&alice.user).await.unwrap();
    assert_eq!((nothing.head, nothing.entries().len()), (Position(1), 0));
    alice.put(&global("é"), "{\"é\":1}").await;
    alice.put(&global("gone"), "{}").await;
    alice.put(&room_key("!r:x", "b"), "{ }").await;
    alice.put(&alice.own_key("c"), "{\"n\":3}").await;
    alice.put(&global("é"), "{\"é\":2.0}").await;
    let head = alice.delete(&global("gone")).await.unwrap();
    let live = alice.store.live(&alice.user).await.unwrap();
    let told: Vec<_> = live
        .entries()
        .map(|entry| (entry.scope, entry.event_type, entry.content))
        .collect();
    let device = ScopeRef::Device(alice.device.as_str());
    let expected: [(_, _, &[u8]); 3] = [
        (ScopeRef::Room("!r:x"), "b", b"{ }"),
        (device, "c", b"{\"n\":3}"),
        (ScopeRef::Global, "é", "{\"é\":2.0}".as_bytes()),
    ];
    assert_eq!(told, expected, "in the order of positions");
    assert_eq!(live.head, head);
    let nobody = UserId::parse("@nobody:localhost").unwrap();
    let live = alice.store.live(&nobody).await.unwrap();
    assert_eq!((live.head, live.entries().len()), (Position::ZERO, 0));
}

/// A store may tell nothing at once, and never the head of before a change was acknowledged.
pub async fn a_head_that_is_told_at_once_is_that_of_now(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    let at_once = || store.peek_head(&alice.user);
    for number in 0..3 {
        let read = alice.changes(None).await.head;
        assert!(at_once().is_none_or(|head| head == read));
        let put = alice.put(&global("a"), "{}").await;
        assert!(at_once().is_none_or(|head| head == put), "a put");
        let other = alice.login(&format!("OTHER{number}")).await;
        let read = alice.changes(None).await.head;
        assert!(at_once().is_none_or(|head| head == read), "a login");
        let written = other.put(&other.own_key("b"), "{}").await;
        assert!(
            at_once().is_none_or(|head| head == written),
            "by another device"
        );
        other.log_out().await;
        let told = at_once();
        let read = alice.changes(None).await.head;
        assert!(told.is_none_or(|head| head == read), "the end of a device");
    }
}

pub async fn from_zero_the_whole_history_is_told(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    alice.put(&global("a"), "{}").await;
    alice.delete(&global("a")).await;
    let changes = alice.changes(Some(Position::ZERO)).await;
    assert!(!changes.is_full);
    assert_eq!(changes.entries.len(), 1);
    assert_eq!(changes.entries[0].content, None);
}

pub async fn an_answer_can_be_asked_for_again(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let since = alice.put(&global("a"), "{}").await;
    alice.put(&global("b"), "{}").await;
    let first = alice.changes(Some(since)).await;
    assert_eq!(alice.changes(Some(since)).await, first);
    alice.put(&global("c"), "{}").await;
    let later = alice.changes(Some(since)).await;
    assert_eq!(later.entries[..1], first.entries[..]);
    assert_eq!(later.entries.len(), 2);
}

pub async fn at_the_head_nothing_is_told(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let head = alice.put(&global("a"), "{}").await;
    let changes = alice.changes(Some(head)).await;
    assert_eq!((changes.head, changes.is_full), (head, false));
    assert_eq!(changes.entries, []);
}

pub async fn behind_the_head_everything_is_told(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let head = alice.put(&global("a"), "{}").await;
    for future in [head.next(), Position(1 << 40), Position(u64::MAX)] {
        let changes = alice.changes(Some(future)).await;
        assert_eq!((changes.head, changes.is_full), (head, true), "{future}");
        assert_eq!(changes.entries.len(), 1);
    }
}

/// Whatever one user does, another user's stream does not move.
pub async fn no_operation_moves_another_users_stream(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let bob = Actor::register(&store, "bob").await;
    bob.put(&global("a"), "{}").await;
    let before = bob.changes(None).await;
    let alice = Actor::register(&store, "alice").await;
    let laptop = alice.login("LAPTOP").await;
    let tablet = alice.login("TABLET").await;
    laptop.put(&laptop.own_key("a"), "{}").await;
    laptop.put(&global("a"), "{}").await;
    laptop.delete(&global("a")).await;
    laptop.log_out().await;
    let write = alice.write();
    let others = Some(DeviceSelection::AllExcept(alice.device.clone()));
    let changed = store.set_password(&alice.user, write, "$other".to_owned(), others);
    changed.await.unwrap();
    assert_eq!(tablet.session().await, None);
    store.deactivate(&alice.user, alice.write()).await.unwrap();
    assert_eq!(bob.changes(None).await, before);
    assert!(bob.session().await.is_some());
    assert_eq!(bob.store.devices(&bob.user).await.unwrap().len(), 1);
}
