use kitbag_domain::{
    Allowance, Applied, ApplyError, DeviceId, DeviceSelection, DeviceWithEntries, Expectation,
    Guard, Limits, LoginError, Op, Position, Refusal, Selector, Write, Writer,
};

use crate::clock::TestClock;
use crate::suite::refusal;
use crate::{Actor, Opener, content, device_id, device_key, global, room_key};

const NOTIFICATION_PREFIXES: [&str; 2] = [
    "m.local_notification_settings.",
    "org.matrix.msc3890.local_notification_settings.",
];

async fn device_entries(actor: &Actor) -> Vec<String> {
    let listed = actor.store.list(&actor.user, Selector::AllDevices).await;
    let keys = listed.unwrap().into_iter().map(|entry| entry.key);
    keys.map(|key| format!("{}/{}", key.scope.place(), key.event_type))
        .collect()
}

pub async fn a_removed_device_writes_no_more(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let laptop = alice.login("LAPTOP").await;
    laptop.put(&global("a"), "{}").await;
    laptop.log_out().await;
    let before = alice.changes(None).await;
    expect_session_gone(&laptop).await;
    assert_eq!(alice.changes(None).await, before);
}

/// Tries everything that has a guard.
async fn expect_session_gone(actor: &Actor) {
    let gone = |result: Result<Applied, ApplyError>| {
        assert_eq!(refusal(result.unwrap_err()), Refusal::SessionGone);
    };
    let put = |key| Op::Put(key, content("{}"), Expectation::default());
    gone(actor.apply(vec![put(global("a"))]).await);
    gone(actor.apply(vec![put(actor.own_key("a"))]).await);
    gone(actor.apply(vec![Op::Delete(global("a"))]).await);
    gone(actor.apply(vec![Op::Delete(global("never"))]).await);
    let (store, user, write) = (&actor.store, &actor.user, actor.write());
    let done = store.remove_devices(user, write.clone(), DeviceSelection::All);
    let nothing = |()| Applied {
        positions: Vec::new(),
    };
    gone(done.await.map(|_| nothing(())));
    let changed = store.set_password(user, write.clone(), "$new".to_owned(), None);
    gone(changed.await.map(nothing));
    let renamed = store.rename_device(user, actor.guard(), &actor.device, None);
    gone(renamed.await.map(nothing));
    let field = kitbag_domain::ProfileField::Displayname;
    let named = store.set_profile(user, actor.guard(), field, Some("x".to_owned()));
    gone(named.await.map(nothing));
    let filter = store.add_filter(user, actor.guard(), "{}".to_owned()).await;
    assert_eq!(filter, Err(kitbag_domain::FilterError::SessionGone));
    gone(store.deactivate(user, write).await.map(nothing));
}

pub async fn a_device_made_again_is_another_one(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let old = alice.login("LAPTOP").await;
    old.put(&old.own_key("a"), "{}").await;
    old.log_out().await;
    let new = alice.login("LAPTOP").await;
    assert!(new.incarnation > old.incarnation);
    assert_eq!(device_entries(&alice).await, [""; 0], "it starts empty");
    expect_session_gone(&old).await;
    new.put(&new.own_key("a"), "{\"n\":2}").await;
    assert_eq!(
        new.text(&new.own_key("a")).await.as_deref(),
        Some("{\"n\":2}")
    );
}

pub async fn another_login_with_the_same_id_keeps_everything(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let first = alice.login("LAPTOP").await;
    first.put(&first.own_key("a"), "{}").await;
    let name = Some("my laptop".to_owned());
    let renamed =
        alice
            .store
            .rename_device(&alice.user, first.guard(), &first.device, name.clone());
    renamed.await.unwrap();
    let second = alice.login("LAPTOP").await;
    assert_eq!(second.incarnation, first.incarnation);
    assert_eq!(device_entries(&alice).await, ["LAPTOP/a"]);
    let device = alice.store.device(&alice.user, &first.device).await;
    assert_eq!(device.unwrap().unwrap().display_name, name);
    assert_eq!(alice.store.devices(&alice.user).await.unwrap().len(), 2);
    assert_eq!(first.session().await, None, "its old tokens die");
    first.put(&first.own_key("b"), "{}").await;
}

pub async fn removal_drops_the_devices_entries_as_tombstones(open: Opener) {
    let selections: [(DeviceSelection, &[&str]); 4] = [
        (DeviceSelection::All, &["A", "B", "PHONE"]),
        (DeviceSelection::AllExcept(device_id("A")), &["B", "PHONE"]),
        (
            DeviceSelection::These(vec![device_id("B"), device_id("NOBODY"), device_id("A")]),
            &["A", "B"],
        ),
        (DeviceSelection::These(Vec::new()), &[]),
    ];
    for (selection, expected) in selections {
        let fixture = open.open().await;
        let phone = Actor::register(&fixture.store(), "alice").await;
        let actors = [
            phone.login("A").await,
            phone.login("B").await,
            phone.clone(),
        ];
        for actor in &actors {
            actor.put(&actor.own_key("x"), "{}").await;
        }
        phone.put(&global("x"), "{}").await;
        let before = phone.put(&room_key("!r", "x"), "{}").await;
        let mut removed = phone.remove(selection.clone()).await;
        removed.sort();
        let removed: Vec<&str> = removed.iter().map(DeviceId::as_str).collect();
        assert_eq!(removed, expected, "{selection:?}");
        let changes = phone.changes(Some(before)).await;
        assert!(
            changes.head > before,
            "a position even where nothing was dropped"
        );
        let mut told: Vec<_> = changes
            .entries
            .iter()
            .map(|entry| (entry.key.scope.place(), entry.content.is_none()))
            .collect();
        told.sort_unstable();
        let tombstones: Vec<_> = expected.iter().map(|device| (*device, true)).collect();
        assert_eq!(told, tombstones, "{selection:?}");
        for actor in &actors {
            let lives = !expected.contains(&actor.device.as_str());
            assert_eq!(actor.session().await.is_some(), lives, "{:?}", actor.device);
            assert_eq!(actor.entry(&actor.own_key("x")).await.is_some(), lives);
            let device = actor.store.device(&actor.user, &actor.device).await;
            assert_eq!(device.unwrap().is_some(), lives);
            let refresh = actor.tokens.refresh.unwrap();
            let tokens = crate::fresh_tokens();
            let refreshed =
                actor
                    .store
                    .refresh(&actor.user, refresh, tokens, kitbag_domain::Seen::default());
            assert_eq!(refreshed.await.is_ok(), lives);
        }
        assert!(phone.entry(&global("x")).await.is_some());
        assert!(phone.entry(&room_key("!r", "x")).await.is_some());
    }
}

pub async fn tombstones_bear_the_marks_of_the_removal(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let laptop = alice.login("LAPTOP").await;
    laptop.put(&laptop.own_key("a"), "{}").await;
    let before = alice.head().await;
    let write = Write {
        guard: Guard::Account,
        writer: Writer::Admin,
        at: TestClock::START_MS + 9,
        allowance: Allowance::Ordinary,
    };
    let selection = DeviceSelection::These(vec![laptop.device.clone()]);
    let removed = alice.store.remove_devices(&alice.user, write, selection);
    removed.await.unwrap();
    let tombstone = &alice.changes(Some(before)).await.entries[0];
    assert_eq!(tombstone.writer, Writer::Admin);
    assert_eq!(tombstone.written_at, TestClock::START_MS + 9);
}

/// MSC3890: the settings of the device in global account data go with it, under both names.
pub async fn removal_drops_the_notification_settings_that_exist(open: Opener) {
    for existing in [0..0, 0..1, 1..2, 0..2] {
        let fixture = open.open().await;
        let alice = Actor::register(&fixture.store(), "alice").await;
        let laptop = alice.login("LAPTOP").await;
        let key = |prefix: &str, device: &str| global(&format!("{prefix}{device}"));
        for prefix in &NOTIFICATION_PREFIXES[existing.clone()] {
            alice.put(&key(prefix, "LAPTOP"), "{}").await;
        }
        for prefix in NOTIFICATION_PREFIXES {
            alice.put(&key(prefix, "PHONE"), "{}").await;
            alice.put(&key(prefix, "LAPTOPS"), "{}").await;
        }
        let before = alice.head().await;
        laptop.log_out().await;
        let entries = alice.changes(Some(before)).await.entries;
        assert_eq!(entries.len(), existing.len(), "{existing:?}");
        assert!(entries.iter().all(|entry| entry.content.is_none()));
        for prefix in NOTIFICATION_PREFIXES {
            assert_eq!(alice.entry(&key(prefix, "LAPTOP")).await, None);
            assert!(alice.entry(&key(prefix, "PHONE")).await.is_some());
            assert!(alice.entry(&key(prefix, "LAPTOPS")).await.is_some());
        }
    }
}

pub async fn nobody_writes_for_a_device_that_is_not_there(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let bob = Actor::register(&fixture.store(), "bob").await;
    bob.login("TABLET").await;
    let head = alice.head().await;
    for device in ["NOBODY", "TABLET", "phone"] {
        let put = alice.try_put(&device_key(device, "a"), "{}").await;
        assert_eq!(refusal(put.unwrap_err()), Refusal::NoSuchDevice, "{device}");
    }
    assert_eq!(alice.head().await, head);
}

pub async fn a_new_device_takes_a_position_as_its_incarnation(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let mut last = alice.head().await;
    for name in ["A", "B", "C"] {
        let device = alice.login(name).await;
        assert!(device.incarnation.0 >= last.0);
        last = alice.put(&global("a"), "{}").await;
        assert!(device.incarnation.0 < last.0);
    }
    assert_eq!(alice.changes(Some(Position::ZERO)).await.entries.len(), 1);
}

pub async fn a_device_is_renamed_by_its_siblings_too(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let laptop = alice.login("LAPTOP").await;
    for name in [Some("x".to_owned()), None] {
        let renamed =
            alice
                .store
                .rename_device(&alice.user, alice.guard(), &laptop.device, name.clone());
        renamed.await.unwrap();
        let device = alice.store.device(&alice.user, &laptop.device).await;
        assert_eq!(device.unwrap().unwrap().display_name, name);
    }
    let missing = device_id("NOBODY");
    let renamed = alice
        .store
        .rename_device(&alice.user, alice.guard(), &missing, None)
        .await;
    assert_eq!(refusal(renamed.unwrap_err()), Refusal::NoSuchDevice);
}

pub async fn devices_are_listed_by_id(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let bob = Actor::register(&fixture.store(), "bob").await;
    for device in ["b", "a", "Z", "é"] {
        alice.login(device).await;
    }
    let devices = alice.store.devices(&alice.user).await.unwrap();
    let ids: Vec<&str> = devices.iter().map(|device| device.id.as_str()).collect();
    assert_eq!(ids, ["PHONE", "Z", "a", "b", "é"]);
    assert_eq!(devices[2].display_name.as_deref(), Some("name of a"));
    for device in devices {
        let found = alice.store.device(&alice.user, &device.id).await;
        assert_eq!(found.unwrap(), Some(device));
    }
    let others = bob.store.device(&bob.user, &device_id("a")).await;
    assert_eq!(others.unwrap(), None);
}

pub async fn devices_are_limited_but_known_ones_may_return(open: Opener) {
    let limits = Limits {
        devices_max: 2,
        ..Limits::default()
    };
    let fixture = open.open_with(limits).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let second = alice.login("B").await;
    let error = alice.try_login("C").await.err();
    assert_eq!(error, Some(LoginError::TooManyDevices { limit: 2 }));
    alice.login("B").await;
    second.log_out().await;
    alice.login("C").await;
}

pub async fn devices_are_read_with_their_entries(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    let laptop = alice.login("LAPTOP").await;
    alice.login("BARE").await;
    let bob = Actor::register(&store, "bob").await;
    bob.put(&bob.own_key("a"), "{\"n\":9}").await;
    for (device, name) in [
        (&laptop, "b"),
        (&laptop, "a"),
        (&alice, "a"),
        (&alice, "gone"),
    ] {
        device.put(&device.own_key(name), "{\"n\":1}").await;
    }
    alice.put(&global("a"), "{}").await;
    alice.delete(&alice.own_key("gone")).await;
    let read = async |device: Option<&str>| {
        let found = store.devices_with_entries(&alice.user, device.map(device_id));
        let found = found.await.unwrap().into_iter();
        let types = |found: DeviceWithEntries| {
            let keys = found.entries.iter().map(|entry| entry.key.clone());
            (found.device, keys.collect::<Vec<_>>())
        };
        found.map(types).collect::<Vec<_>>()
    };
    let devices = store.devices(&alice.user).await.unwrap();
    let keys = [
        vec![],
        vec![laptop.own_key("a"), laptop.own_key("b")],
        vec![alice.own_key("a")],
    ];
    let expected: Vec<_> = devices.into_iter().zip(keys).collect();
    assert_eq!(read(None).await, expected);
    assert_eq!(read(Some("LAPTOP")).await, expected[1..2]);
    assert_eq!(read(Some("NEVER")).await, []);
}
