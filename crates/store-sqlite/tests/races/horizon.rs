//! Law 2: a collection of tombstones that moves the horizon, against syncs with older tokens.

use kitbag_domain::{Limits, Snapshot};
use kitbag_store_sqlite::Step;
use kitbag_testkit::gate::in_time;
use kitbag_testkit::{Actor, global};

use crate::ground::{Client, Ground, STEPS, begin};

/// Tombstones that stay: so the third deletion moves the horizon.
const TOMBSTONES_MAX: u64 = 2;

struct Lab {
    ground: Ground,
    phone: Actor,
    laptop: Actor,
}

impl Lab {
    /// Makes a user with the entries `a` to `e`.
    async fn new() -> Self {
        let limits = Limits {
            tombstones_max: TOMBSTONES_MAX,
            ..Limits::default()
        };
        let ground = Ground::with(limits).await;
        let (phone, laptop) = ground.user("alice").await;
        for name in ["a", "b", "c", "d", "e"] {
            phone.put(&global(name), "{\"n\":0}").await;
        }
        Self {
            ground,
            phone,
            laptop,
        }
    }

    async fn delete(&self, names: &[&str]) {
        for name in names {
            self.laptop.delete(&global(name)).await.unwrap();
        }
    }

    async fn everything(&self) -> Snapshot {
        self.ground.since(&self.phone, None).await
    }

    /// Checks that the chain of `client` leads to what is stored.
    async fn follow(&self, client: &mut Client) {
        client.sync(&self.ground, &self.phone).await;
        client.assert_knows(self.everything().await);
        let told = self.ground.since(&self.phone, client.token).await;
        assert!(!told.is_full && told.entries.is_empty(), "nothing more");
    }
}

/// The snapshot was taken while the token was young enough; when it is told, the horizon has passed
/// the token and even the snapshot. It stays the truth of its moment, and the next sync is full.
#[tokio::test]
async fn the_horizon_passes_a_snapshot_before_it_is_told() {
    let lab = Lab::new().await;
    let mut client = Client::default();
    client.sync(&lab.ground, &lab.phone).await;
    let old = client.token;
    lab.delete(&["a"]).await;

    let mut stop = lab.ground.pausing.stop_after("changes");
    let sync = Box::pin(lab.ground.since(&lab.phone, old));
    let ((), told) = in_time("the sync", async {
        tokio::join!(
            async {
                stop.reached().await;
                lab.delete(&["b", "c", "d"]).await;
                stop.go_on();
            },
            sync
        )
    })
    .await;
    assert!(!told.is_full);
    let keys: Vec<_> = told.entries.iter().map(|entry| &entry.key).collect();
    assert_eq!(keys, [&global("a")], "the deletion of its moment, no other");
    client.learn(told);
    let next = lab.ground.since(&lab.phone, client.token).await;
    assert!(next.is_full, "its token lies before the horizon");
    lab.follow(&mut client).await;
    let replayed = lab.ground.since(&lab.phone, old).await;
    assert!(replayed.is_full, "and so does the one before");
}

/// The two snapshots of `full_state=true` lie on both sides of the horizon's move.
#[tokio::test]
async fn the_horizon_passes_between_the_two_snapshots_of_a_full_state() {
    for others in [0, 1] {
        let lab = Lab::new().await;
        let mut client = Client::default();
        client.sync(&lab.ground, &lab.phone).await;
        let old = client.token;
        lab.delete(&["a"]).await;
        // Behind the first snapshot, or behind the second one.
        let mut stop = lab.ground.pausing.stop_after_others("changes", others);
        let requester = lab.phone.requester();
        let ((), told) = in_time("the sync", async {
            tokio::join!(
                async {
                    stop.reached().await;
                    lab.delete(&["b", "c", "d"]).await;
                    stop.go_on();
                },
                lab.ground.service.everything(&requester, old)
            )
        })
        .await;
        let mut told = told.unwrap();
        assert!(told.is_full);
        let deleted = told.entries.iter().find(|entry| entry.content.is_none());
        let deleted = deleted.map(|entry| entry.key.clone());
        assert_eq!(deleted, Some(global("a")), "which it might not learn again");
        // A client that asks for everything drops nothing for it: deletions must be told.
        told.is_full = false;
        client.learn(told);
        lab.follow(&mut client).await;
    }
}

/// The deletion that moves the horizon stands at each step of its commit: up to the COMMIT the old
/// token is answered with the changes, behind it in full, and never with a part of either.
#[tokio::test]
async fn an_old_token_meets_the_commit_that_moves_the_horizon() {
    for step in STEPS {
        let lab = Lab::new().await;
        let mut client = Client::default();
        client.sync(&lab.ground, &lab.phone).await;
        let old = client.token;
        lab.delete(&["a", "b"]).await;
        let mut stop = lab.ground.stop_at(step);
        let deletion = begin(Box::pin(lab.delete(&["c"])));
        stop.reached().await;
        let told = lab.ground.since(&lab.phone, old).await;
        let is_durable = step != Step::BeforeCommit;
        assert_eq!(told.is_full, is_durable, "{step:?}");
        let keys: Vec<_> = told.entries.iter().map(|entry| &entry.key).collect();
        let expected: [_; 2] = if is_durable {
            ["d", "e"].map(global)
        } else {
            ["a", "b"].map(global)
        };
        assert_eq!(keys, expected.each_ref(), "{step:?}");
        client.learn(told);
        stop.go_on();
        in_time("the deletion", deletion).await;
        lab.follow(&mut client).await;
    }
}
