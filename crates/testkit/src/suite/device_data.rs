use std::collections::BTreeMap;
use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use kitbag_domain::{
    Content, DeviceChange, DeviceChanges, DeviceEntry, DevicePlace, DeviceSelection,
    DeviceSubscription, Expectation, FeedPosition, Key, Limits, Op, Selector, Store, UserId,
};

use crate::dice::Dice;
use crate::settings;
use crate::{Actor, Opener, content, device_id, device_key, event_type, global, user_id};

const TYPE: &str = "org.example.device";

async fn page(
    store: &Arc<dyn Store>,
    event_type_name: &str,
    after: Option<DevicePlace>,
    limit: usize,
) -> Vec<DeviceEntry> {
    let entries = store.device_entries(&event_type(event_type_name), after, limit);
    entries.await.unwrap()
}

fn place(entry: &DeviceEntry) -> DevicePlace {
    let device = entry.entry.key.scope.device();
    DevicePlace {
        user: entry.user.clone(),
        device: device.expect("an entry of a device").clone(),
    }
}

fn shown(entries: &[DeviceEntry]) -> Vec<String> {
    let shown = entries.iter().map(|entry| {
        let DevicePlace { user, device } = place(entry);
        let text = entry.entry.content.as_ref().map_or("gone", Content::as_str);
        format!("{}/{device} {text}", user.localpart())
    });
    shown.collect()
}

async fn changes(
    store: &Arc<dyn Store>,
    after: Option<FeedPosition>,
    limit: usize,
) -> DeviceChanges {
    store.device_changes(after, limit).await.unwrap()
}

/// Returns the changes behind `after`, which must not start anew.
async fn told(store: &Arc<dyn Store>, after: FeedPosition) -> Vec<String> {
    let changes = changes(store, Some(after), 100).await;
    assert!(!changes.starts_anew && !changes.has_more);
    let shown = changes.changes.iter().map(|change| match change {
        DeviceChange::AccountEnded(user) => format!("{} ended", user.localpart()),
        DeviceChange::Entry(user, entry) => {
            let text = entry.content.as_ref().map_or("gone", Content::as_str);
            format!("{} {:?} {text}", user.localpart(), entry.key)
        }
    });
    shown.collect()
}

/// Returns where the stream stands.
async fn head(store: &Arc<dyn Store>) -> FeedPosition {
    changes(store, None, usize::MAX).await.next
}

pub async fn a_page_holds_one_type_in_the_order_of_accounts_and_devices(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    // The order is not that of the names.
    let zoe = Actor::register(&store, "zoe").await;
    let alice = Actor::register(&store, "alice").await;
    for device in ["TABLET", "LAPTOP"] {
        let device = zoe.login(device).await;
        device.put(&device.own_key(TYPE), "{}").await;
    }
    alice.put(&alice.own_key(TYPE), r#"{"n":1}"#).await;
    zoe.put(&zoe.own_key(TYPE), r#"{"n":2}"#).await;
    zoe.put(&zoe.own_key("org.example.other"), "{}").await;
    zoe.put(&global(TYPE), "{}").await;
    zoe.delete(&device_key("TABLET", TYPE)).await;
    let found = page(&store, TYPE, None, 100).await;
    let expected = [
        "zoe/LAPTOP {}",
        r#"zoe/PHONE {"n":2}"#,
        r#"alice/PHONE {"n":1}"#,
    ];
    assert_eq!(shown(&found), expected);
    let entry = zoe.entry(&zoe.own_key(TYPE)).await.unwrap();
    assert_eq!(found[1].entry, entry, "with position, writer and time");
    assert_eq!(page(&store, "org.example.never", None, 100).await, []);
    assert_eq!(page(&store, TYPE, None, 0).await, []);
}

pub async fn pages_go_on_behind_any_place(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    let bob = Actor::register(&store, "bob").await;
    for device in ["A", "C", "E"] {
        let device = alice.login(device).await;
        device.put(&device.own_key(TYPE), "{}").await;
    }
    bob.put(&bob.own_key(TYPE), "{}").await;
    let behind = |user: &str, device: &str| {
        let (user, device) = (user_id(user), device_id(device));
        page(&store, TYPE, Some(DevicePlace { user, device }), 2)
    };
    let none: [&str; 0] = [];
    assert_eq!(
        shown(&page(&store, TYPE, None, 2).await),
        ["alice/A {}", "alice/C {}"]
    );
    assert_eq!(
        shown(&behind("alice", "A").await),
        ["alice/C {}", "alice/E {}"]
    );
    assert_eq!(
        shown(&behind("alice", "B").await),
        ["alice/C {}", "alice/E {}"]
    );
    assert_eq!(
        shown(&behind("alice", "C").await),
        ["alice/E {}", "bob/PHONE {}"]
    );
    assert_eq!(shown(&behind("bob", "PHONE").await), none);
    assert_eq!(shown(&behind("nobody", "A").await), none);
}

pub async fn an_entry_comes_with_the_name_of_its_device(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    alice.put(&alice.own_key(TYPE), "{}").await;
    let name = |found: Vec<DeviceEntry>| found[0].display_name.clone();
    let found = page(&store, TYPE, None, 1).await;
    assert_eq!(name(found).as_deref(), Some("name of PHONE"));
    let (user, guard, device) = (&alice.user, alice.guard(), &alice.device);
    let renamed = store.rename_device(user, guard, device, None).await;
    renamed.unwrap();
    assert_eq!(name(page(&store, TYPE, None, 1).await), None);
}

pub async fn each_change_is_told_once_at_its_latest_content(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    let bob = Actor::register(&store, "bob").await;
    let laptop = alice.login("LAPTOP").await;
    laptop.put(&laptop.own_key("a"), "{}").await;
    let start = head(&store).await;
    alice.put(&alice.own_key("a"), r#"{"n":1}"#).await;
    bob.put(&bob.own_key("a"), "{}").await;
    alice.put(&alice.own_key("a"), r#"{"n":2}"#).await;
    alice.put(&global("a"), "{}").await;
    let expected = [
        r#"bob Device("PHONE")/a {}"#,
        r#"alice Device("PHONE")/a {"n":2}"#,
    ];
    assert_eq!(told(&store, start).await, expected);
    assert_eq!(told(&store, start).await, expected, "again");
    let first = changes(&store, Some(start), 1).await;
    assert!(first.has_more);
    assert_eq!(told(&store, first.next).await, expected[1..]);
    let all = head(&store).await;
    laptop.log_out().await;
    bob.delete(&bob.own_key("a")).await;
    let expected = [
        r#"alice Device("LAPTOP")/a gone"#,
        r#"bob Device("PHONE")/a gone"#,
    ];
    assert_eq!(told(&store, all).await, expected);
    let now = head(&store).await;
    assert_eq!(told(&store, now).await, [""; 0]);
    let nothing = changes(&store, Some(start), 0).await;
    assert!(nothing.has_more && nothing.next == start);
}

pub async fn the_end_of_an_account_is_told(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    let bob = Actor::register(&store, "bob").await;
    alice.put(&alice.own_key("a"), "{}").await;
    let start = head(&store).await;
    bob.put(&bob.own_key("a"), "{}").await;
    let ended = store.deactivate(&alice.user, alice.write()).await;
    ended.unwrap();
    bob.put(&bob.own_key("b"), "{}").await;
    let expected = [
        r#"bob Device("PHONE")/a {}"#,
        "alice ended",
        r#"bob Device("PHONE")/b {}"#,
    ];
    assert_eq!(told(&store, start).await, expected);
    let second = changes(&store, Some(start), 2).await;
    assert_eq!(told(&store, second.next).await, expected[2..]);
    assert_eq!(shown(&page(&store, "a", None, 10).await), ["bob/PHONE {}"]);
}

pub async fn a_collected_deletion_starts_who_has_not_heard_of_it_anew(open: Opener) {
    let fixture = open
        .open_with(Limits {
            tombstones_max: 1,
            ..Limits::default()
        })
        .await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    for name in ["a", "b", "live"] {
        alice.put(&alice.own_key(name), "{}").await;
    }
    let before = head(&store).await;
    alice.delete(&alice.own_key("a")).await;
    let heard = head(&store).await;
    alice.put(&global("g"), "{}").await;
    alice.delete(&alice.own_key("b")).await;
    let anew = changes(&store, Some(before), 1).await;
    assert!(anew.starts_anew && anew.has_more);
    assert_eq!(
        told(&store, heard).await,
        [r#"Device("PHONE")/b gone"#].map(|s| format!("alice {s}"))
    );
    let rest = told(&store, anew.next).await;
    assert_eq!(
        rest.len(),
        1,
        "who began behind the collection goes on: {rest:?}"
    );
    alice.delete(&global("g")).await;
    let gone = changes(&store, Some(heard), 10).await;
    assert!(gone.starts_anew, "the deletion of b went");
    let now = head(&store).await;
    // Collected in its turn, which is nothing to those who follow devices.
    for name in ["h", "i"] {
        alice.put(&global(name), "{}").await;
        alice.delete(&global(name)).await;
    }
    assert_eq!(told(&store, now).await, [""; 0]);
}

pub async fn a_deletion_from_before_the_beginning_may_be_collected_while_it_is_read(open: Opener) {
    let fixture = open
        .open_with(Limits {
            tombstones_max: 2,
            ..Limits::default()
        })
        .await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    let names = ["a", "b", "c", "live", "more"];
    for name in names {
        alice.put(&alice.own_key(name), "{}").await;
    }
    for name in ["a", "b"] {
        alice.delete(&alice.own_key(name)).await;
    }
    let first = changes(&store, None, 1).await;
    assert!(first.starts_anew && first.has_more);
    // The deletion of a is collected: who began after it never heard of a.
    alice.delete(&alice.own_key("c")).await;
    let second = changes(&store, Some(first.next), 1).await;
    assert!(!second.starts_anew && second.has_more);
    // That of c came while they read, and they may have heard of c.
    for name in ["live", "more"] {
        alice.delete(&alice.own_key(name)).await;
    }
    assert!(changes(&store, Some(second.next), 1).await.starts_anew);
}

pub async fn behind_the_head_everything_is_told(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    alice.put(&alice.own_key("a"), "{}").await;
    let FeedPosition { number, floor } = head(&store).await;
    let beyond = |number| changes(&store, Some(FeedPosition { number, floor }), 10);
    assert!(!beyond(number).await.starts_anew);
    for number in [number + 1, u64::MAX] {
        let anew = beyond(number).await;
        assert!(anew.starts_anew);
        assert_eq!(anew.changes.len(), 1);
    }
}

/// Tells whether a change was published already, without waiting.
fn was_woken(subscription: &mut DeviceSubscription) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    pin!(subscription.changed()).poll(&mut context).is_ready()
}

pub async fn a_change_wakes_who_follows_before_it_is_acknowledged(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let mut subscription = store.subscribe_to_devices();
    let alice = Actor::register(&store, "alice").await;
    let bob = Actor::register(&store, "bob").await;
    let laptop = alice.login("LAPTOP").await;
    assert!(!was_woken(&mut subscription), "an account, a device");
    alice.put(&alice.own_key("a"), "{}").await;
    assert!(was_woken(&mut subscription), "put");
    assert!(!was_woken(&mut subscription), "once");
    bob.put(&bob.own_key("a"), "{}").await;
    assert!(was_woken(&mut subscription), "another user's");
    laptop.put(&laptop.own_key("a"), "{}").await;
    assert!(was_woken(&mut subscription));
    laptop.log_out().await;
    assert!(was_woken(&mut subscription), "the end of a device");
    bob.delete(&bob.own_key("a")).await;
    assert!(was_woken(&mut subscription), "delete");
    let ended = store.deactivate(&alice.user, alice.write()).await;
    ended.unwrap();
    assert!(was_woken(&mut subscription), "deactivation");
}

pub async fn other_data_and_refusals_do_not_wake_who_follows(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    alice.login("LAPTOP").await.log_out().await;
    let mut subscription = store.subscribe_to_devices();
    alice.put(&global("a"), "{}").await;
    alice.delete(&global("a")).await;
    alice.delete(&alice.own_key("never")).await;
    alice.login("LAPTOP").await.log_out().await;
    let put = |key: Key| Op::Put(key, content("{}"), Expectation::default());
    // The first could be done, the second not.
    let ops = vec![put(alice.own_key("a")), put(device_key("NOBODY", "a"))];
    alice.apply(ops).await.unwrap_err();
    assert!(!was_woken(&mut subscription));
    let start = changes(&store, None, 10).await;
    assert_eq!((start.next.number, start.changes.len()), (0, 0));
}

/// Somebody who keeps what the stream told.
#[derive(Default)]
struct Follower {
    at: Option<FeedPosition>,
    known: BTreeMap<(UserId, Key), String>,
}

impl Follower {
    /// Hears of up to `limit` changes; returns whether there are more.
    async fn hear(&mut self, store: &Arc<dyn Store>, limit: usize) -> bool {
        let heard = changes(store, self.at, limit).await;
        assert!(heard.changes.len() <= limit);
        assert!(!heard.has_more || heard.changes.len() == limit);
        if heard.starts_anew {
            self.known.clear();
        }
        for change in heard.changes {
            match change {
                DeviceChange::AccountEnded(ended) => {
                    self.known.retain(|(user, _), _| *user != ended);
                }
                DeviceChange::Entry(user, entry) => {
                    let place = (user, entry.key);
                    match entry.content {
                        Some(content) => {
                            self.known.insert(place, content.as_str().to_owned());
                        }
                        None => {
                            self.known.remove(&place);
                        }
                    }
                }
            }
        }
        self.at = Some(heard.next);
        heard.has_more
    }
}

/// Returns what the users' own eyes see.
async fn live(store: &Arc<dyn Store>, users: &[UserId]) -> BTreeMap<(UserId, Key), String> {
    let mut live = BTreeMap::new();
    for user in users {
        for entry in store.list(user, Selector::AllDevices).await.unwrap() {
            let text = entry.content.expect("a live entry").as_str().to_owned();
            live.insert((user.clone(), entry.key), text);
        }
    }
    live
}

/// What the pages tell of each type, put together.
async fn paged(
    store: &Arc<dyn Store>,
    types: &[&str],
    limit: usize,
) -> BTreeMap<(UserId, Key), String> {
    let mut told = BTreeMap::new();
    for name in types {
        let mut after = None;
        loop {
            let found = page(store, name, after, limit).await;
            for DeviceEntry { user, entry, .. } in &found {
                let text = entry.content.as_ref().map(|text| text.as_str().to_owned());
                let twice = told.insert((user.clone(), entry.key.clone()), text.unwrap());
                assert_eq!(twice, None, "told once");
            }
            match found.last() {
                Some(last) if found.len() == limit => after = Some(place(last)),
                _ => break,
            }
        }
    }
    told
}

/// Three users who do anything, with so few tombstones that they are collected all the time.
struct World {
    store: Arc<dyn Store>,
    dice: Dice,
    users: Vec<UserId>,
    actors: Vec<Actor>,
    step: usize,
}

const TYPES: [&str; 2] = ["a", "b"];
const DEVICES: [&str; 3] = ["LAPTOP", "PHONE", "TABLET"];

impl World {
    async fn new(store: Arc<dyn Store>, seed: u64) -> Self {
        let mut actors = Vec::new();
        for name in ["zoe", "alice", "bob"] {
            actors.push(Actor::register(&store, name).await);
        }
        Self {
            store,
            dice: Dice::new(seed),
            users: actors.iter().map(|actor| actor.user.clone()).collect(),
            actors,
            step: 0,
        }
    }

    /// Does something that may be refused, as where the device is gone.
    async fn act(&mut self) {
        self.step += 1;
        if self.actors.is_empty() {
            return;
        }
        let at = self.dice.below(self.actors.len());
        let actor = self.actors[at].clone();
        let device = DEVICES[self.dice.below(DEVICES.len())];
        let name = TYPES[self.dice.below(TYPES.len())];
        let key = device_key(device, name);
        let text = format!("{{\"n\":{}}}", self.step);
        match self.dice.below(100) {
            0..45 => drop(actor.try_put(&key, &text).await),
            45..65 => drop(actor.delete(&key).await),
            65..75 => drop(actor.put(&global(name), &text).await),
            75..80 => drop(actor.delete(&global(name)).await),
            80..90 => drop(actor.login(device).await),
            90..97 if actor.device != device_id(device) => {
                let these = DeviceSelection::These(vec![device_id(device)]);
                actor.remove(these).await;
            }
            97..98 => {
                let ended = self.store.deactivate(&actor.user, actor.write()).await;
                ended.unwrap();
                self.actors.remove(at);
            }
            _ => {}
        }
    }
}

/// Law 2 for the stream of all devices: whoever follows it, from anywhere and with pages of any size,
/// knows what is there once there is no more.
pub async fn followers_know_what_is_there(open: Opener) {
    let seeds = match settings::seed() {
        Some(seed) => seed..seed + 1,
        None if settings::is_long() => 1..1_000,
        None => 1..13,
    };
    for seed in seeds {
        let limits = Limits {
            tombstones_max: 3,
            ..Limits::default()
        };
        let fixture = open.open_with(limits).await;
        let store = fixture.store();
        let mut world = World::new(Arc::clone(&store), seed).await;
        let mut followers = Vec::new();
        for step in 0..120 {
            world.act().await;
            if step % 20 == 0 {
                followers.push(Follower::default());
            }
            for follower in &mut followers {
                if !world.dice.chance(10) {
                    continue;
                }
                let limit = 1 + world.dice.below(4);
                let to_the_end = world.dice.chance(50);
                let mut has_more = follower.hear(&store, limit).await;
                while has_more && to_the_end {
                    has_more = follower.hear(&store, limit).await;
                }
                if !has_more {
                    let live = live(&store, &world.users).await;
                    assert_eq!(follower.known, live, "KITBAG_TEST_SEED={seed}, step {step}");
                }
            }
        }
        let live = live(&store, &world.users).await;
        for mut follower in followers {
            while follower.hear(&store, 3).await {}
            assert_eq!(follower.known, live, "KITBAG_TEST_SEED={seed}, at the end");
        }
        for limit in [1, 2, 100] {
            let told = paged(&store, &TYPES, limit).await;
            assert_eq!(told, live, "KITBAG_TEST_SEED={seed}, pages of {limit}");
        }
    }
}
