//! Law 9: two that expect the same revision, with the first stopped at each step.

use kitbag_domain::{Content, Expectation, RevisionNames, WriteError};
use kitbag_store_sqlite::Step;
use kitbag_testkit::{Actor, content, global};

use crate::ground::{Client, Ground, Racer, meetings};

const BEFORE: &str = "{\"m.revision_id\":\"1\"}";

fn after(writer: usize) -> String {
    format!("{{\"m.revision_id\":\"2-{writer}\"}}")
}

fn swap<'a>(ground: &'a Ground, by: &Actor, writer: usize) -> Racer<'a, Result<(), WriteError>> {
    let requester = by.requester();
    Box::pin(async move {
        let permit = ground.service.permit(&requester, global("swapped")).await;
        let expectation = Expectation {
            stable: Some("1".to_owned()),
            unstable: None,
        };
        let swapped = permit.unwrap().put(content(&after(writer)), expectation);
        swapped.await.map(drop)
    })
}

/// Of three, whichever was queued first wins, and the others get what it put, not what was before.
#[tokio::test]
async fn the_first_of_those_that_expect_a_revision_wins_and_the_others_get_its_content() {
    let ground = Ground::new().await;
    let key = global("swapped");
    for (number, meeting) in meetings().enumerate() {
        let (phone, laptop) = ground.user(&format!("user{number}")).await;
        phone.put(&key, BEFORE).await;
        let mut client = Client::default();
        client.sync(&ground, &laptop).await;
        let racers = [&phone, &laptop, &phone].into_iter().enumerate();
        let racers = racers.map(|(writer, by)| swap(&ground, by, writer));
        let look = async |_, step| {
            client.sync(&ground, &laptop).await;
            if step != Step::BeforeCommit {
                assert_eq!(client.text(&key), Some(&*after(0)), "{meeting:?}");
            }
        };
        let told = ground.race(meeting, racers.collect(), look).await;
        assert_eq!(told[0], Ok(()), "{meeting:?}");
        let current: Content = content(&after(0));
        let lost = Err(WriteError::Conflict {
            current,
            names: RevisionNames::Stable,
        });
        assert_eq!(told[1..], [lost.clone(), lost], "{meeting:?}");
        assert_eq!(phone.text(&key).await, Some(after(0)), "{meeting:?}");
        client.sync(&ground, &laptop).await;
        client.assert_knows(ground.since(&laptop, None).await);
    }
}
