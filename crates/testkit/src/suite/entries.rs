use kitbag_domain::{
    Change, Content, Entry, EntryDescription, Expectation, Key, Op, Position, Refusal, Selector,
    Writer,
};

use crate::clock::TestClock;
use crate::suite::refusal;
use crate::{Actor, Opener, content, device_key, global, room_key, user_id};

pub async fn put_then_get_returns_the_same_bytes(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let text = "{ \"b\":1.0,\r\n\"a\":1e400,\"a\":\"\\ud800 \u{1F9F3}\" }";
    for key in [
        global("m.direct"),
        room_key("!r", "m.tag"),
        alice.own_key("a/b c"),
    ] {
        alice.put(&key, text).await;
        assert_eq!(alice.text(&key).await.as_deref(), Some(text), "{key:?}");
    }
}

pub async fn an_entry_bears_the_marks_of_its_latest_change(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let key = global("a");
    alice.put(&key, "{}").await;
    let laptop = alice.login("LAPTOP").await;
    let write = laptop.write_at(TestClock::START_MS + 7);
    let put = Op::Put(key.clone(), content("{\"n\":1}"), Expectation::default());
    let applied = alice
        .store
        .apply(&alice.user, write, vec![put])
        .await
        .unwrap();
    let entry = alice.entry(&key).await.unwrap();
    assert_eq!(entry.key, key);
    assert_eq!(Some(entry.position), applied.positions[0]);
    assert_eq!(entry.written_at, TestClock::START_MS + 7);
    assert_eq!(entry.writer, laptop.write().writer);
    for writer in [
        Writer::Admin,
        Writer::Server,
        Writer::Device {
            id: alice.device.clone(),
            user_agent: None,
        },
    ] {
        let mut write = alice.write();
        write.writer = writer.clone();
        let put = Op::Put(key.clone(), content("{}"), Expectation::default());
        let applied = alice.store.apply(&alice.user, write, vec![put]).await;
        applied.unwrap();
        assert_eq!(alice.entry(&key).await.unwrap().writer, writer);
    }
}

pub async fn an_equal_put_takes_a_position(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let first = alice.put(&global("a"), "{}").await;
    let second = alice.put(&global("a"), "{}").await;
    assert!(second > first, "{second} > {first}");
    let changes = alice.changes(Some(first)).await;
    assert_eq!(changes.entries.len(), 1, "the echo is delivered");
    assert_eq!(changes.entries[0].position, second);
}

pub async fn a_put_of_the_empty_object_is_a_value(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    alice.put(&global("a"), "{}").await;
    assert_eq!(alice.text(&global("a")).await.as_deref(), Some("{}"));
    assert_eq!(alice.changes(None).await.entries.len(), 1);
}

pub async fn a_delete_takes_a_position_only_where_something_was(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let key = room_key("!r", "a");
    let head = alice.head().await;
    assert_eq!(alice.delete(&key).await, None, "never there");
    assert_eq!(alice.head().await, head);
    let put = alice.put(&key, "{}").await;
    let deleted = alice.delete(&key).await.unwrap();
    assert!(deleted > put);
    assert_eq!(alice.entry(&key).await, None);
    assert_eq!(alice.delete(&key).await, None, "already gone");
    assert_eq!(alice.head().await, deleted);
}

pub async fn names_are_compared_byte_for_byte(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let long = "x".repeat(255);
    let keys = [
        global("a"),
        global("A"),
        global("a "),
        global("a%"),
        global("a_"),
        global("é"),
        global("e\u{301}"),
        global(&long),
        room_key("!a", "a"),
        room_key("!A", "a"),
        room_key("!a:b", "a"),
        alice.own_key("a"),
    ];
    for (number, key) in keys.iter().enumerate() {
        alice.put(key, &format!("{{\"n\":{number}}}")).await;
    }
    for (number, key) in keys.iter().enumerate() {
        let expected = format!("{{\"n\":{number}}}");
        assert_eq!(alice.text(key).await, Some(expected), "{key:?}");
    }
    assert_eq!(alice.changes(None).await.entries.len(), keys.len());
}

pub async fn positions_increase_strictly(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let mut last = alice.head().await;
    for number in 0..20 {
        let key = global(&format!("t{}", number % 3));
        let position = match number % 4 {
            3 => alice.delete(&key).await,
            _ => Some(alice.put(&key, "{}").await),
        };
        if let Some(position) = position {
            assert!(position > last, "{position} > {last}");
            last = position;
        }
        assert_eq!(alice.head().await, last);
    }
}

pub async fn users_do_not_share_entries_or_positions(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let bob = Actor::register(&fixture.store(), "bob").await;
    let before = bob.changes(None).await;
    for key in [global("a"), room_key("!r", "a"), device_key("PHONE", "a")] {
        alice.put(&key, "{}").await;
        assert_eq!(bob.entry(&key).await, None, "{key:?}");
    }
    assert_eq!(bob.changes(None).await, before);
    assert_eq!(bob.changes(Some(before.head)).await.entries, []);
}

pub async fn apply_is_all_or_nothing(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    alice.put(&global("old"), "{}").await;
    let before = alice.changes(Some(Position::ZERO)).await;
    let put = |key| Op::Put(key, content("{}"), Expectation::default());
    let ops = vec![
        put(global("new")),
        Op::Delete(global("old")),
        put(device_key("NOBODY", "a")),
        put(global("last")),
    ];
    let error = alice.apply(ops).await.unwrap_err();
    assert_eq!(refusal(error), Refusal::NoSuchDevice);
    assert_eq!(alice.changes(Some(Position::ZERO)).await, before);
    assert_eq!(alice.entry(&global("new")).await, None);
    assert!(alice.entry(&global("old")).await.is_some());
}

pub async fn apply_sees_its_own_earlier_operations(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let (a, b) = (global("a"), global("b"));
    let put = |key, text| Op::Put(key, content(text), Expectation::default());
    let ops = vec![
        put(a.clone(), "{\"n\":1}"),
        Op::Delete(a.clone()),
        Op::Delete(a.clone()),
        put(b.clone(), "{\"n\":2}"),
        put(b.clone(), "{\"n\":3}"),
    ];
    let positions = alice.apply(ops).await.unwrap().positions;
    assert_eq!(positions.len(), 5);
    assert_eq!(positions[2], None, "there was nothing any more");
    let taken: Vec<Position> = positions.iter().flatten().copied().collect();
    assert!(taken.is_sorted_by(|a, b| a < b), "{taken:?}");
    assert_eq!(alice.entry(&a).await, None);
    assert_eq!(alice.text(&b).await.as_deref(), Some("{\"n\":3}"));
    assert_eq!(alice.head().await, *taken.last().unwrap());
}

pub async fn apply_of_nothing_changes_nothing(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let before = alice.changes(None).await;
    assert_eq!(alice.apply(Vec::new()).await.unwrap().positions, []);
    assert_eq!(alice.changes(None).await, before);
}

pub async fn list_returns_the_selected_live_entries_by_key(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let laptop = alice.login("LAPTOP").await;
    let mut keys = vec![
        laptop.own_key("a"),
        alice.own_key("b"),
        alice.own_key("a"),
        room_key("!r", "b"),
        room_key("!q", "c"),
        global("z"),
        global("a"),
    ];
    for key in &keys {
        laptop_or(&alice, &laptop, key).put(key, "{}").await;
    }
    alice.put(&global("gone"), "{}").await;
    alice.delete(&global("gone")).await;
    keys.sort();
    let scopes = keys.iter().map(|key| Selector::Scope(key.scope.clone()));
    for selector in scopes.chain(MANY) {
        let listed = alice
            .store
            .list(&alice.user, selector.clone())
            .await
            .unwrap();
        let listed: Vec<_> = listed.into_iter().map(|entry| entry.key).collect();
        let expected = keys.iter().filter(|key| selector.matches(&key.scope));
        assert_eq!(
            listed,
            expected.cloned().collect::<Vec<_>>(),
            "{selector:?}"
        );
    }
}

/// The selectors of more than one scope.
const MANY: [Selector; 3] = [Selector::All, Selector::AllDevices, Selector::AllRooms];

pub async fn descriptions_are_those_of_the_listed_entries_page_by_page(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    let laptop = alice.login("LAPTOP").await;
    let bob = Actor::register(&store, "bob").await;
    bob.put(&global("a"), "{}").await;
    let mut keys = vec![
        laptop.own_key("a"),
        alice.own_key("b"),
        alice.own_key("a"),
        room_key("!r", "b"),
        room_key("!r:x", "a"),
        room_key("!r ", "é"),
        room_key("!q", "c"),
        global("z"),
        global("a"),
    ];
    for (number, key) in keys.iter().enumerate() {
        // Not as many characters as bytes.
        let text = format!("{{\"é\":\"{}\"}}", "ü".repeat(number * 1_000));
        laptop_or(&alice, &laptop, key).put(key, &text).await;
    }
    for gone in [global("m"), room_key("!q", "a"), alice.own_key("aa")] {
        alice.put(&gone, "{}").await;
        alice.delete(&gone).await;
        keys.push(gone);
    }
    let scopes = keys.iter().map(|key| Selector::Scope(key.scope.clone()));
    for selector in scopes.chain(MANY) {
        let listed = store.list(&alice.user, selector.clone()).await.unwrap();
        let expected: Vec<_> = listed.iter().map(EntryDescription::from).collect();
        assert!(!expected.is_empty(), "{selector:?}");
        let describe = |after, limit| store.describe(&alice.user, selector.clone(), after, limit);
        assert_eq!(describe(None, 100).await.unwrap(), expected, "{selector:?}");
        assert_eq!(describe(None, 0).await.unwrap(), []);
        // Behind what was deleted and what is not selected, too.
        for after in &keys {
            let behind = expected.iter().filter(|described| described.key > *after);
            let behind: Vec<_> = behind.take(2).cloned().collect();
            let page = describe(Some(after.clone()), 2).await.unwrap();
            assert_eq!(page, behind, "{selector:?} behind {after:?}");
        }
    }
    let nobody = user_id("nobody");
    let nothing = store.describe(&nobody, Selector::All, None, 100).await;
    assert_eq!(nothing.unwrap(), []);
}

fn laptop_or<'a>(alice: &'a Actor, laptop: &'a Actor, key: &Key) -> &'a Actor {
    if key.scope.device() == Some(&laptop.device) {
        laptop
    } else {
        alice
    }
}

pub async fn an_unknown_user_has_nothing(open: Opener) {
    let fixture = open.open().await;
    let (store, nobody) = (fixture.store(), user_id("nobody"));
    assert_eq!(store.get(&nobody, &global("a")).await.unwrap(), None);
    assert_eq!(store.list(&nobody, Selector::All).await.unwrap(), []);
    for after in [None, Some(Position(5))] {
        let changes = store.changes(&nobody, after).await.unwrap();
        assert_eq!(changes.head, Position::ZERO);
        assert!(changes.is_full && changes.entries.is_empty());
    }
}

pub async fn update_sees_the_live_entry_and_writes_what_it_decides(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let key = room_key("!r", "m.tag");
    let rounds = [
        (None, Change::Put(content("{\"n\":1}")), true),
        (Some("{\"n\":1}"), Change::Keep, false),
        (Some("{\"n\":1}"), Change::Put(content("{\"n\":2}")), true),
        (Some("{\"n\":2}"), Change::Delete, true),
        (None, Change::Delete, false),
        (None, Change::Keep, false),
    ];
    for (seen, change, takes_position) in rounds {
        let head = alice.head().await;
        let wanted = change.clone();
        let update = move |entry: Option<&Entry>| {
            let content = entry.and_then(|entry| entry.content.as_ref());
            assert_eq!(content.map(Content::as_str), seen);
            change
        };
        let applied = alice
            .store
            .update(&alice.user, alice.write(), key.clone(), Box::new(update));
        let positions = applied.await.unwrap().positions;
        assert_eq!(positions.len(), 1);
        assert_eq!(positions[0].is_some(), takes_position, "{wanted:?}");
        assert_eq!(alice.head().await, positions[0].unwrap_or(head));
        match wanted {
            Change::Put(content) => {
                assert_eq!(alice.text(&key).await.as_deref(), Some(content.as_str()));
            }
            Change::Delete => assert_eq!(alice.entry(&key).await, None),
            Change::Keep => assert_eq!(alice.text(&key).await.as_deref(), seen),
        }
    }
}

pub async fn update_is_guarded(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let laptop = alice.login("LAPTOP").await;
    laptop.log_out().await;
    for (actor, key, refused) in [
        (&laptop, global("a"), Refusal::SessionGone),
        (&alice, laptop.own_key("a"), Refusal::NoSuchDevice),
    ] {
        let update = Box::new(|_: Option<&Entry>| Change::Put(content("{}")));
        let applied = actor
            .store
            .update(&actor.user, actor.write(), key.clone(), update)
            .await;
        assert_eq!(refusal(applied.unwrap_err()), refused);
        assert_eq!(alice.entry(&key).await, None);
    }
}

pub async fn concurrent_updates_lose_nothing(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let key = global("count");
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (alice, key) = (alice.clone(), key.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..5 {
                let update = Box::new(|entry: Option<&Entry>| {
                    let before = entry.and_then(|entry| entry.content.as_ref());
                    let count = before.map_or(0, |content| content.as_str().matches('x').count());
                    Change::Put(content(&format!("{{\"\":\"{}\"}}", "x".repeat(count + 1))))
                });
                let applied = alice
                    .store
                    .update(&alice.user, alice.write(), key.clone(), update);
                applied.await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let text = alice.text(&key).await.unwrap();
    assert_eq!(text.matches('x').count(), 40, "{text}");
}
