//! Tombstones that nobody answered, and debts that cannot be paid.

use kitbag_client::{Method, Request};
use tokio::time::timeout;

use super::SOON;
use super::stage::{BRIEF_MS, Stage, Trouble, delete, post};
use crate::support::until;

#[tokio::test]
async fn what_was_emptied_without_an_answer_is_not_written_while_that_may_come_late() {
    let stage = Stage::start(BRIEF_MS).await;
    let permits = stage.holds(Method::PUT, "/account_data/");
    assert_eq!(stage.status(delete("LAPTOP")).await, 200);
    permits.close();
    stage.is_well();
    let login = || super::post("login").body("{}");
    assert_eq!(stage.status(login()).await, 200);
    assert_eq!(stage.write("PHONE").await, 503);
    assert_eq!(stage.tombstones(), 1);
    stage.clock.advance(10_000);
    assert_eq!(stage.status(login()).await, 200);
    assert_eq!(stage.write("PHONE").await, 200);
    assert_eq!(stage.tombstones(), 2);
}

#[tokio::test]
async fn one_tombstone_that_may_come_late_counts_whatever_became_of_another() {
    let stage = Stage::start(30_000).await;
    let other = "/_matrix/client/v3/user/%40alice%3Ax/devices/PHONE/account_data/org.example.b";
    let other = Request::new(Method::PUT, other).token("alice.PHONE");
    assert_eq!(stage.status(other.body("{\"a\":1}")).await, 200);
    let broken = Trouble::Says(500);
    stage.trouble(Method::PUT, "PHONE.org.example.a", broken);
    let permits = stage.holds(Method::PUT, "PHONE.org.example.b");
    let deleted = stage.send(delete("LAPTOP"));
    stage.emptied(2).await;
    // By then the first has its answer; the other never gets one.
    let whoami = Request::new(Method::GET, "/_matrix/client/v3/account/whoami");
    assert_eq!(stage.status(whoami.token("alice.LAPTOP")).await, 200);
    permits.close();
    assert_eq!(timeout(SOON, deleted).await.unwrap().unwrap(), 200);
    stage.is_well();
    let login = || super::post("login").body("{}");
    assert_eq!(stage.status(login()).await, 200);
    assert_eq!(stage.write("PHONE").await, 503);
    stage.clock.advance(10_000);
    assert_eq!(stage.status(login()).await, 200);
    assert_eq!(stage.write("PHONE").await, 200);
}

/// Writes by a device until it has its turn.
async fn written(stage: &Stage, device: &str) -> u16 {
    loop {
        // Who empties has it for as long as the homeserver may take.
        match stage.write(device).await {
            504 => {}
            status => return status,
        }
    }
}

#[tokio::test]
async fn what_may_have_ended_is_not_written_while_its_tombstone_may_come_late() {
    let stage = Stage::start(BRIEF_MS).await;
    stage.trouble(Method::DELETE, "/devices/", Trouble::Does(504));
    stage.holds(Method::PUT, "/account_data/");
    assert_eq!(stage.status(delete("LAPTOP")).await, 504);
    stage.emptied(1).await;
    stage.is_well();
    stage.begins("PHONE");
    assert_eq!(written(&stage, "PHONE").await, 503);
    // It did end: the homeserver did not have it as its entry was found.
    assert_eq!(stage.read("PHONE").await, 404);
    assert_eq!(
        stage.write("LAPTOP").await,
        200,
        "it is none of its concern"
    );
    let login = || super::post("login").body("{}");
    stage.clock.advance(9_999);
    assert_eq!(stage.status(login()).await, 200);
    assert_eq!(stage.write("PHONE").await, 503);
    stage.clock.advance(1);
    assert_eq!(stage.status(login()).await, 200);
    assert_eq!(stage.write("PHONE").await, 200);
    stage.clock.advance(30_000);
    assert_eq!(stage.read("LAPTOP").await, 200);
    assert_eq!(stage.tombstones(), 2);
}

#[tokio::test]
async fn what_nobody_can_name_is_not_written_while_its_tombstone_may_come_late() {
    let stage = Stage::start(BRIEF_MS).await;
    // It ended past the gateway.
    stage.ends("PHONE");
    stage.holds(Method::PUT, "/account_data/");
    let password = super::post("account/password").token("alice.LAPTOP");
    let password = stage.send(password.body("{\"auth\":{}}"));
    stage.emptied(1).await;
    assert_eq!(timeout(SOON, password).await.unwrap().unwrap(), 200);
    stage.is_well();
    stage.begins("PHONE");
    assert_eq!(written(&stage, "PHONE").await, 503);
    stage.clock.advance(10_000);
    assert_eq!(stage.write("PHONE").await, 200);
}

#[tokio::test]
async fn a_device_whose_logout_failed_is_not_written_while_its_tombstone_may_come_late() {
    for path in ["logout", "logout/all"] {
        for status in [403, 500] {
            let stage = Stage::start(BRIEF_MS).await;
            stage.holds(Method::PUT, "/account_data/");
            stage.trouble(Method::POST, path, Trouble::Says(status));
            assert_eq!(stage.status(post(path)).await, status);
            stage.is_well();
            assert_eq!(written(&stage, "PHONE").await, 503, "{path} {status}");
            stage.clock.advance(10_000);
            assert_eq!(stage.write("PHONE").await, 200);
            stage.clock.advance(30_000);
            assert_eq!(stage.read("PHONE").await, 200);
            assert_eq!(stage.tombstones(), 1);
        }
    }
}

#[tokio::test]
async fn a_write_that_somebody_between_answered_may_come_late_too() {
    let stage = Stage::start(BRIEF_MS).await;
    stage.trouble(Method::PUT, "/account_data/", Trouble::Tells(200, "<html>"));
    assert_eq!(stage.status(delete("LAPTOP")).await, 200);
    stage.is_well();
    let login = || super::post("login").body("{}");
    assert_eq!(stage.status(login()).await, 200);
    assert_eq!(stage.write("PHONE").await, 503);
    stage.clock.advance(10_000);
    assert_eq!(stage.status(login()).await, 200);
    assert_eq!(stage.write("PHONE").await, 200);
}

#[tokio::test]
async fn what_is_not_even_listed_in_time_cannot_come_late() {
    let stage = Stage::start(BRIEF_MS).await;
    stage.trouble(Method::DELETE, "/devices/", Trouble::Does(504));
    stage.holds(Method::GET, "/sync");
    assert_eq!(stage.status(delete("LAPTOP")).await, 504);
    stage.asked("/sync", 2).await;
    stage.is_well();
    stage.begins("PHONE");
    assert_eq!(written(&stage, "PHONE").await, 200);
}

#[tokio::test]
async fn what_cannot_be_emptied_holds_up_nothing_else_that_may_have_ended() {
    let stage = Stage::start(30_000).await;
    assert_eq!(stage.write("LAPTOP").await, 200);
    stage.begins("TABLET");
    assert_eq!(stage.status(delete("PHONE")).await, 200);
    stage.trouble(Method::PUT, "PHONE.org.example.a", Trouble::Says(500));
    stage.trouble(Method::DELETE, "/devices/", Trouble::Does(504));
    let laptop = Request::new(Method::DELETE, "/_matrix/client/v3/devices/LAPTOP");
    assert_eq!(stage.status(laptop.token("alice.TABLET")).await, 504);
    until(|| stage.tombstones_of("LAPTOP") > 0).await;
    assert_eq!(stage.tombstones_of("PHONE"), 1, "it was tried first");
}

#[tokio::test]
async fn nobody_waits_for_long_for_what_cannot_be_emptied() {
    let stage = Stage::start(60_000).await;
    assert_eq!(stage.status(delete("PHONE")).await, 200);
    stage.holds(Method::GET, "/sync");
    assert_eq!(stage.read("LAPTOP").await, 404);
    assert_eq!(stage.status(super::post("login").body("{}")).await, 200);
    assert_eq!(stage.write("PHONE").await, 503);
}

#[tokio::test]
async fn a_login_does_not_wait_for_long_for_an_end_that_is_under_way() {
    let stage = Stage::start(60_000).await;
    stage.holds(Method::DELETE, "/devices/");
    let deleted = stage.send(delete("LAPTOP"));
    stage.asked("/devices/PHONE", 2).await;
    assert_eq!(stage.status(super::post("login").body("{}")).await, 200);
    deleted.abort();
}
